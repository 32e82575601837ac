"""Plain English on which a model is measured: prose in which nothing is out of the ordinary, and beginnings of sentences
that any word may follow. Fixed, as figures depend on them; written for this.
"""

# Of everyday kinds: a story, news, science, instructions, a letter, a conversation, history, cooking, sport, law, travel,
# a review. Some 110 to 130 tokens each.
PASSAGES = (
    "The old house stood at the end of a narrow street, and its windows looked out over the river. In the morning the "
    "children went to school, while their father read the newspaper and drank a cup of tea. It had rained for three "
    "days, so nobody was surprised when the water came up to the garden gate. By noon the neighbours had carried their "
    "chairs and carpets to the upper floor, and somebody had tied a small boat to the lamp post. The youngest child "
    "thought it was the best day of the year, and asked whether the school would stay closed tomorrow.",
    "The city council voted on Tuesday to close two of its seven libraries next spring, saying that fewer people visit "
    "them than ten years ago. Members of the opposition called the decision a mistake and promised to bring it before "
    "the court. According to a report published last month, the city spends about four million a year on its "
    "libraries, less than on the repair of a single bridge. The mayor told reporters that the money would be used for "
    "new schools in the north of the city, where the number of families has doubled since 2015.",
    "Plants take in carbon dioxide from the air through small openings in their leaves. With the energy of sunlight they "
    "turn it, together with water, into sugar, and give off oxygen. The green colour of a leaf comes from chlorophyll, "
    "the substance that absorbs the light. In autumn, when the days grow shorter, many trees stop making it, and other "
    "colours that were there all along can be seen. Scientists measure how fast a forest grows by the width of the "
    "rings in its wood: a wide ring means a warm and wet year, a narrow one a year that was cold or dry.",
    "Before you change the wheel of a car, make sure that it stands on level ground and that the brake is on. Loosen the "
    "nuts a little while the wheel still touches the road, because it will turn once it hangs in the air. Then place "
    "the jack under the frame and raise the car until the tyre is clear. Remove the nuts, pull the wheel towards you, "
    "and put the other one in its place. Tighten the nuts by hand first, each a little at a time, lower the car, and "
    "only then use your full strength. Check them again after fifty miles.",
    "Dear Margaret, thank you very much for your letter and for the photographs of the wedding, which arrived last week. "
    "We are all well here, although the winter has been long and Peter has had a bad cough since Christmas. I was sorry "
    "to hear that you will not be able to visit us in June. If you change your mind, there is always a bed for you in "
    "the room next to the kitchen. My sister has found work at the hospital and seems much happier than before. Please "
    "give our love to your mother, and write again when you have time. With best wishes, Helen.",
    "\"Have you seen my keys?\" she asked. \"They were on the table a minute ago.\" He looked up from his book and shook "
    "his head. \"Perhaps you left them in the car,\" he said. \"I never leave them in the car.\" She opened one drawer "
    "after another, then went into the hall and emptied the pockets of her coat. \"We are going to miss the train,\" he "
    "called after her, \"and the next one does not leave until six.\" There was a silence, and then she laughed. \"I had "
    "them in my hand all the time,\" she said. \"Come on, get your hat, or we really will be late.\"",
    "In the spring of 1848 there was unrest in nearly every capital of Europe. Crowds demanded a free press, elected "
    "parliaments and an end to the privileges of the nobility. In Paris the king gave up his throne and fled to "
    "England; in Vienna the chancellor, who had governed for almost forty years, resigned within a few days. Yet by the "
    "end of the following year most of the old rulers were back in power, supported by their armies and by citizens who "
    "feared disorder more than they hated the state. Historians still argue about whether anything had been won.",
    "To make bread you need flour, water, salt and a little yeast. Mix them in a large bowl and work the dough for ten "
    "minutes, until it is smooth and no longer sticks to your hands. Cover it with a cloth and leave it in a warm place "
    "for an hour; it should grow to twice its size. Shape it into a loaf, let it rest for another half hour, and heat "
    "the oven as hot as it will go. Bake the bread for forty minutes. It is done when it sounds hollow if you knock on "
    "the bottom. Let it cool before you cut it, however good it smells.",
    "The home team scored twice in the first half and seemed certain to win, but everything changed after the break. A "
    "player who had only come on in the fiftieth minute ran past three defenders and put the ball into the corner of "
    "the net. Ten minutes later the visitors were level, and with the last kick of the game their captain scored from "
    "more than twenty yards. The coach said afterwards that he had never seen anything like it. His side is now third "
    "in the league, four points behind the leaders, with five matches to play before the end of the season.",
    "The seller shall deliver the goods within thirty days of the date on which the order was received. If delivery is "
    "delayed for reasons that lie outside the control of the seller, the buyer must be informed without delay and may "
    "withdraw from the contract. Any payment that has already been made shall be returned in full. The goods remain the "
    "property of the seller until the whole price has been paid. Claims on account of defects must be made in writing "
    "within two weeks, and a claim made later is valid only if the defect could not have been found before.",
    "From the harbour a road leads up through vineyards to the village, which is famous for its white church and its "
    "honey. Most visitors come in August, when the beaches are crowded and a room costs three times as much as in May. "
    "There are two small hotels, and several families rent out rooms with a view of the sea. The bus to the capital "
    "leaves every morning at seven and takes about four hours. If you have a day to spare, walk along the cliffs to the "
    "lighthouse: the path is steep in places, but on a clear day you can see the mountains of the mainland.",
    "Her third novel is shorter than the others and, to my mind, the best of them. It tells the story of two brothers who "
    "inherit a failing company and cannot agree what to do with it. One wants to sell; the other remembers the workers "
    "by name. Nothing much happens for the first hundred pages, and yet it is hard to put the book down, because every "
    "conversation hides another one beneath it. The ending is perhaps a little too neat. But few writers understand so "
    "well how money changes the way in which people speak to each other, or fail to.",
)

# For what a push along a direction changes (evidence for lists by lens): each ends where a word of almost any kind can
# follow.
NEUTRAL_PROMPTS = (
    "This is the",
    "I think that",
    "It is a",
    "In the end,",
    "There was a",
    "She said that the",
    "He looked at the",
    "We talked about",
    "My favourite thing is",
    "One of the most important things about",
    "The next day,",
    "When I opened the door, I saw",
    "This is the story of",
    "The first thing to know is",
    "Everyone in the room was",
    "On the table there was a",
    "They were looking for",
    "The picture shows",
    "It all began with",
    "People often ask me about",
    "The man next to me",
    "For example,",
    "As far as I know, the",
    "The name of the",
    "Last year we",
    "You should always",
    "Nobody knew why the",
    "The book is about",
    "In my opinion, the",
    "At that moment",
    "The best way to",
    "A friend of mine has a",
    "What I remember most is the",
    "According to the report,",
    "Let me tell you about",
    "The answer is",
    "Behind the house there is a",
    "The teacher asked the class about",
    "Some of them were",
    "It reminds me of",
    "The problem with the",
    "He could not stop thinking about",
    "Here is a list of",
    "The other day I read about",
    "The old woman had a",
    "If you want to",
    "She wrote a letter about",
    "Most of the time it is",
    "The meeting was about",
    "After a while the",
    "It was the kind of",
    "He wanted to become a",
    "The only thing left was",
    "A large number of",
    "They told us that",
    "We have never seen such a",
    "Every morning she",
    "The film is set in",
    "There is nothing like",
    "The word for it is",
    "Yesterday I bought a",
    "The children were playing with",
    "He was known for his",
    "That is why the",
)
