"""The prompt with a ghost in it: tokenized, with one token standing where the ghost belongs."""

import re
from dataclasses import dataclass

from multitool.errors import UserError, shown
from multitool.model.subject import Subject, check_tokens
from multitool.model.time_limit import TookTooLongError, time_limit
from multitool.recipes.recipe import GHOST

MOST_PROMPT_TOKENS = 2_000
_LONGEST_CHAT = 20_000  # characters; templates bring system messages of some thousands
_TEMPLATE_SECONDS = 5.0  # they take milliseconds
# What a template ends with where it opens a block in which the model is to think first; and the switches by which
# templates leave it out, all of which any of them may be given.
_THINKING = re.compile(r"(?:<(?P<angle>[a-z_:]*think(?:ing)?|thought|reasoning)>|\[(?P<square>THINK)\])\s*\Z")
_WITHOUT_THINKING = {"enable_thinking": False, "thinking": False}
# The harmony format of gpt-oss: an answer says in which channel it is, and without one the model names another first.
_NO_CHANNEL, _FINAL_CHANNEL = "<|start|>assistant", "<|channel|>final<|message|>"

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
        UserError: no word makes a single token there; the prompt and a tree of ``max_depth`` are longer than the model
            or the tool allows, or a token of it has no embedding; or the model has no chat template, or one that does
            not work.
    """
    text = in_chat(subject, template, answer) if chat else template
    before, after = text.split(GHOST)
    for word in _PLACEHOLDERS:
        # A chat template writes the special tokens itself.
        prompt = _locate(subject, before, word, after, add_special_tokens=not chat)
        if prompt:
            break
    else:
        asked = template if GHOST in template else answer
        raise UserError(
            f"In the prompt {asked!r} the place of {GHOST} is no single token for this model's tokenizer. "
            f'Put quotes or spaces around it: "{GHOST}".'
        )
    check_tokens(subject, prompt.token_ids, "The chat template's text" if chat else "The prompt")
    length = len(prompt.token_ids)
    if length > MOST_PROMPT_TOKENS:
        raise UserError(
            f"The prompt has {length:,} tokens; it can have at most {MOST_PROMPT_TOKENS:,}. Shorten the prompt."
        )
    if subject.max_length and length + max_depth > subject.max_length:
        raise UserError(
            f"The prompt has {length} tokens; with max_depth {max_depth} that is more than the {subject.max_length} "
            "that the model allows. Shorten the prompt."
        )
    return prompt


def attention_sinks(subject: Subject, prompt: GhostPrompt) -> tuple[int, ...]:
    """The positions on which models park attention: the first one, and special tokens (BOS, a chat's markers)."""
    special = subject.special_ids
    return tuple(i for i, token_id in enumerate(prompt.token_ids) if i == 0 or token_id in special)


def in_chat(subject: Subject, template: str, answer: str, *, seconds: float = _TEMPLATE_SECONDS) -> str:
    """What an instruction-tuned model reads when a user has said ``template`` and it has begun to ``answer``.

    That is the model's own chat template (https://huggingface.co/docs/transformers/chat_templating) with one
    message of the user and the beginning of the assistant's, then ``answer`` as it is. Templates may add a system
    message and take blanks off the ends of what the user says. One that tells the date always tells 26 July 2024,
    so that a recipe is the same prompt on any day. The answer stands outside of what the model thinks: where a template
    opens a block for that, it stays empty; of gpt-oss the answer is in the final channel.

    Raises:
        UserError: the model has no chat template, it fails or takes more than ``seconds``, or it does not leave
            ``{ghost}`` in the text once.
    """
    if not subject.tokenizer.chat_template:
        raise UserError(f"{subject.name} has no chat template; use an instruction-tuned model or turn chat off.")
    try:
        with time_limit(seconds):
            text = _before_the_answer(subject.tokenizer, template) + answer
    except TookTooLongError as error:
        raise UserError(
            f"The chat template of {subject.name} did not come to its end in {seconds:g} seconds. Use another model or "
            "turn chat off."
        ) from error
    except Exception as error:  # the template is a program of its own, run in a sandbox: it may raise anything
        raise UserError(
            f"The chat template of {subject.name} fails: {shown(str(error))}. Use another model or turn chat off."
        ) from error
    if len(text) > _LONGEST_CHAT:
        raise UserError(
            f"The chat template of {subject.name} makes a text of {len(text):,} characters; it can have at most "
            f"{_LONGEST_CHAT:,}. Shorten the prompt, use another model, or turn chat off."
        )
    if text.count(GHOST) != 1:
        raise UserError(
            f"The chat template of {subject.name} leaves {GHOST} in the text {text.count(GHOST)} times; it must stand "
            "there exactly once. Use another model or turn chat off."
        )
    return text


def _before_the_answer(tokenizer, said: str) -> str:
    """What a chat template writes up to where the answer begins that a reader sees."""
    dated = _SAME_DATE + tokenizer.get_chat_template()

    def rendered(**switches: bool) -> str:
        return tokenizer.apply_chat_template(
            [{"role": "user", "content": said}], chat_template=dated, tokenize=False, add_generation_prompt=True,
            **switches,
        )

    text = rendered()
    if text.endswith(_NO_CHANNEL) and "<|channel|>" in dated:
        return text + _FINAL_CHANNEL
    if not _THINKING.search(text):
        return text
    text = rendered(**_WITHOUT_THINKING)
    if not (opened := _THINKING.search(text)):
        return text
    closing = f"</{opened['angle']}>" if opened["angle"] else f"[/{opened['square']}]"
    return f"{text.rstrip()}\n\n{closing}\n\n"


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
    # A token may take the space before the word with it, but nothing else.
    return GhostPrompt(tuple(encoded["input_ids"]), touching[0]) if text[left:right].strip() == word else None
