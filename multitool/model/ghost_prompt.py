"""The prompt with a ghost in it: tokenized, with one token standing where the ghost belongs."""

from dataclasses import dataclass

from multitool.errors import UserError, shown
from multitool.model.subject import Subject
from multitool.recipes.recipe import GHOST

# Words to hold the ghost's place while the prompt is tokenized, rarest first: the place must be one token.
_PLACEHOLDERS = ("OSS", "XYZ", "foo", "blah", "thing", "word", "it", "X")
# Stands before a chat template, in the place of the function that tells it today's date: 26 July 2024, the date in
# Llama 3.1's template. (Values that transformers hands to a template can be no functions.)
_SAME_DATE = (
    "{% macro strftime_now(format) %}{{ format"
    + "".join(
        f" | replace('{code}', '{value}')"
        for code, value in {
            "%Y": "2024", "%y": "24", "%m": "07", "%d": "26", "%-d": "26", "%B": "July", "%b": "Jul", "%A": "Friday",
            "%a": "Fri", "%H": "12", "%M": "00", "%S": "00",
        }.items()
    )
    + " }}{% endmacro +%}"
)


@dataclass(frozen=True)
class GhostPrompt:
    """A tokenized prompt with one token standing where the ghost belongs."""

    token_ids: tuple[int, ...]
    position: int  # of the ghost in token_ids

    @property
    def placeholder_id(self) -> int:
        return self.token_ids[self.position]


def ghost_prompt(
    subject: Subject, template: str, max_depth: int, *, chat: bool = False, answer: str = ""
) -> GhostPrompt:
    """Tokenize ``template``, or a chat with it, with a single token in the place of ``{ghost}``.

    Args:
        template: what the model reads; in a chat what the user says.
        chat: put it into the model's chat template (see ``in_chat``).
        answer: with ``chat``, how the assistant's answer begins. ``{ghost}`` stands in one of the two.

    Raises:
        UserError: no word makes a single token there, or the prompt and a tree of ``max_depth`` are longer
            than the model allows; or the model has no chat template, or one that does not work.
    """
    text = in_chat(subject, template, answer) if chat else template
    before, after = text.split(GHOST)
    for word in _PLACEHOLDERS:
        # A chat template writes the special tokens itsubject.
        prompt = _locate(subject, before, word, after, add_special_tokens=not chat)
        if prompt:
            break
    else:
        asked = template if GHOST in template else answer
        raise UserError(
            f"In the prompt {asked!r} the place of {GHOST} is no single token for this model's tokenizer. "
            f'Put quotes or blanks around it: "{GHOST}".'
        )
    length = len(prompt.token_ids)
    if subject.max_length and length + max_depth > subject.max_length:
        raise UserError(
            f"The prompt has {length} tokens; with max_depth {max_depth} that is more than the {subject.max_length} "
            "that the model allows. Shorten the prompt."
        )
    return prompt


def in_chat(subject: Subject, template: str, answer: str) -> str:
    """What an instruction-tuned model reads when a user has said ``template`` and it has begun to ``answer``.

    That is the model's own chat template (https://huggingface.co/docs/transformers/chat_templating) with one
    message of the user and the beginning of the assistant's, then ``answer`` as it is. Templates may add a system
    message and take blanks off the ends of what the user says. One that tells the date always tells 26 July 2024,
    so that a recipe is the same prompt on any day.

    Raises:
        UserError: the model has no chat template, it fails, or it does not leave ``{ghost}`` in the text once.
    """
    if not subject.tokenizer.chat_template:
        raise UserError(f"{subject.name} has no chat template; use an instruction-tuned model or turn chat off.")
    said = [{"role": "user", "content": template}]
    try:
        dated = _SAME_DATE + subject.tokenizer.get_chat_template()
        text = subject.tokenizer.apply_chat_template(
            said, chat_template=dated, tokenize=False, add_generation_prompt=True
        ) + answer
    except Exception as error:  # the template is a program of its own, run in a sandbox: it may raise anything
        raise UserError(
            f"The chat template of {subject.name} fails: {shown(str(error))}. Use another model or turn chat off."
        ) from error
    if text.count(GHOST) != 1:
        raise UserError(
            f"The chat template of {subject.name} leaves {GHOST} in the text {text.count(GHOST)} times; it must stand "
            "there exactly once. Use another model or turn chat off."
        )
    return text


def _locate(subject: Subject, before: str, word: str, after: str, *, add_special_tokens: bool) -> GhostPrompt | None:
    text = before + word + after
    encoded = subject.tokenizer(text, return_offsets_mapping=True, add_special_tokens=add_special_tokens)
    start, end = len(before), len(before) + len(word)
    touching = [
        position
        for position, (left, right) in enumerate(encoded["offset_mapping"])
        if left < end and right > start
    ]
    if len(touching) != 1:
        return None
    left, right = encoded["offset_mapping"][touching[0]]
    # A token may take the blank before the word with it, but nothing else.
    return GhostPrompt(tuple(encoded["input_ids"]), touching[0]) if text[left:right].strip() == word else None
