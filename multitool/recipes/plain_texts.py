"""Plain English on which a model is measured: prose in which nothing is out of the ordinary, and beginnings of
sentences that any word may follow. Fixed, as figures depend on them; written for this.
"""

# Of everyday kinds: a story, news, science, instructions, a letter, a conversation. Some 110 to 130 tokens each.
PASSAGES = (
    "The old house stood at the end of a narrow street, and its windows looked out over the river. In the morning "
    "the children went to school, while their father read the newspaper and drank a cup of tea. It had rained for "
    "three days, so nobody was surprised when the water came up to the garden gate. By noon the neighbours had "
    "carried their chairs and carpets to the upper floor, and somebody had tied a small boat to the lamp post. The "
    "youngest child thought it was the best day of the year, and asked whether the school would stay closed tomorrow.",
    "The city council voted on Tuesday to close two of its seven libraries next spring, saying that fewer people "
    "visit them than ten years ago. Members of the opposition called the decision a mistake and promised to bring it "
    "before the court. According to a report published last month, the city spends about four million a year on its "
    "libraries, less than on the repair of a single bridge. The mayor told reporters that the money would be used "
    "for new schools in the north of the city, where the number of families has doubled since 2015.",
    "Plants take in carbon dioxide from the air through small openings in their leaves. With the energy of sunlight "
    "they turn it, together with water, into sugar, and give off oxygen. The green colour of a leaf comes from "
    "chlorophyll, the substance that absorbs the light. In autumn, when the days grow shorter, many trees stop "
    "making it, and other colours that were there all along can be seen. Scientists measure how fast a forest grows "
    "by the width of the rings in its wood: a wide ring means a warm and wet year, a narrow one a year that was cold "
    "or dry.",
    "Before you change the wheel of a car, make sure that it stands on level ground and that the brake is on. Loosen "
    "the nuts a little while the wheel still touches the road, because it will turn once it hangs in the air. Then "
    "place the jack under the frame and raise the car until the tyre is clear. Remove the nuts, pull the wheel "
    "towards you, and put the other one in its place. Tighten the nuts by hand first, each a little at a time, lower "
    "the car, and only then use your full strength. Check them again after fifty miles.",
    "Dear Margaret, thank you very much for your letter and for the photographs of the wedding, which arrived last "
    "week. We are all well here, although the winter has been long and Peter has had a bad cough since Christmas. I "
    "was sorry to hear that you will not be able to visit us in June. If you change your mind, there is always a bed "
    "for you in the room next to the kitchen. My sister has found work at the hospital and seems much happier than "
    "before. Please give our love to your mother, and write again when you have time. With best wishes, Helen.",
    "\"Have you seen my keys?\" she asked. \"They were on the table a minute ago.\" He looked up from his book and "
    "shook his head. \"Perhaps you left them in the car,\" he said. \"I never leave them in the car.\" She opened "
    "one drawer after another, then went into the hall and emptied the pockets of her coat. \"We are going to miss "
    "the train,\" he called after her, \"and the next one does not leave until six.\" There was a silence, and then "
    "she laughed. \"I had them in my hand all the time,\" she said. \"Come on, get your hat, or we really will be "
    "late.\"",
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
