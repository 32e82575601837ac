"""A menu of prompts, by short names. Each leaves a quote open, so that what closes it ends the answer."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Prompt:
    """Something to ask. ``TreeRecipe`` says what its parts do."""

    asks_for: str  # in few words
    prompt: str
    chat: bool = False
    answer: str = ""


PROMPTS = {
    "definition": Prompt("as published", 'A typical definition of "{ghost}" would be "'),
    "meaning": Prompt("often in one word", 'The meaning of "{ghost}" is "'),
    "example": Prompt("a sentence with it", 'An example of "{ghost}" in a sentence: "'),
    "synonym": Prompt("another word for it", 'A synonym of "{ghost}" is "'),
    "category": Prompt("what it is a kind of", 'A "{ghost}" is a kind of "'),
    "chat-meaning": Prompt("asked in a chat", 'What does the word "{ghost}" mean?', True, 'It means "'),
    "chat-synonym": Prompt("asked in a chat", 'Give me a synonym of the word "{ghost}".', True, 'A synonym is "'),
}
# Those that any model can answer, trained on chats or not.
PLAIN_PROMPTS = tuple(name for name, prompt in PROMPTS.items() if not prompt.chat)
