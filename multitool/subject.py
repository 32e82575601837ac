"""The language model as a reader of vectors sees it: its embedding space, its tokens, its prompt with a ghost in it.

Nothing here runs the model, so token lists (but for the logit lens) and everything that is checked before a tree grows
need no GPU and none of the model's layers.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from torch import Tensor

from multitool.embedding import EmbeddingSpace
from multitool.errors import UserError, shown
from multitool.recipe import GHOST
from multitool.vocabulary import is_word, token_texts

# Words to hold the ghost's place while the prompt is tokenized, rarest first: the place must be one token.
_PLACEHOLDERS = ("OSS", "XYZ", "foo", "blah", "thing", "word", "it", "X")
# End-of-text tokens that a configuration does not always list.
_END_OF_TEXT = ("<|endoftext|>", "<|end_of_text|>", "<|im_end|>", "<|eot_id|>", "<eos>", "</s>", "<end_of_turn>")
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


class Subject:
    """A causal language model's embeddings and tokens.

    Args:
        E: (V, d_model), the raw input-embedding matrix, in memory of the CPU.
        tokenizer: the model's fast tokenizer.
        config: the model's transformers configuration.
        name: how results name the model.
        folder: where the model's files lie, to run it.
        generation_config: what the model ships for generating text; it may list more end-of-text tokens.
    """

    def __init__(self, E: Tensor, tokenizer, config, name: str, folder: Path | None = None, generation_config=None):
        self.tokenizer = tokenizer
        self.name = name
        self.folder = folder
        self.space = EmbeddingSpace(E)
        self._config = config.get_text_config()
        self._generation_config = generation_config
        self._ends: dict[str | None, np.ndarray] = {}

    @property
    def max_length(self) -> int | None:
        """The longest sequence that the model's positions allow, where it says so."""
        return getattr(self._config, "max_position_embeddings", None)

    @property
    def n_layers(self) -> int | None:
        """How many layers the model has, where it says so."""
        return getattr(self._config, "num_hidden_layers", None)

    @cached_property
    def bos_id(self) -> int | None:
        """The token that stands before a text when this model reads it; None if there is none.

        Where the tokenizer puts none there by itself, the model has learned from documents divided by their
        end-of-text token, so that one. (Not a chat's marker: behind SmolLM2's ``<|im_start|>`` a tenth of all tokens
        draw attention and have residuals many times as long as usual; behind ``<|endoftext|>`` none does.)
        """
        added = self.tokenizer("a", add_special_tokens=True)["input_ids"][:1]
        plain = self.tokenizer("a", add_special_tokens=False)["input_ids"][:1]
        vocabulary = self.tokenizer.get_added_vocab()
        candidates = [
            *(added if added != plain else ()), vocabulary.get("<|endoftext|>"), self.tokenizer.eos_token_id,
            self.tokenizer.bos_token_id, *_as_list(getattr(self._config, "eos_token_id", None)),
        ]
        return next((found for found in candidates if found is not None and found < self.space.n_tokens), None)

    @cached_property
    def token_texts(self) -> tuple[str, ...]:
        """The exact text of every token, by id."""
        return token_texts(self.tokenizer, self.space.n_tokens)

    @cached_property
    def token_ids(self) -> dict[str, int]:
        """The token of every exact text; of two with the same text the later one, which is no single byte."""
        there = min(len(self.tokenizer), self.space.n_tokens)
        return {text: token_id for token_id, text in enumerate(self.token_texts[:there])}

    @cached_property
    def in_texts(self) -> np.ndarray:
        """(V,) bool: tokens that texts are made of; not special ones, and no rows of E without a token."""
        plain = np.zeros(self.space.n_tokens, dtype=bool)
        plain[: len(self.tokenizer)] = True
        plain[[token_id for token_id in self.tokenizer.all_special_ids if token_id < len(plain)]] = False
        return plain

    @cached_property
    def words(self) -> np.ndarray:
        """(V,) bool: tokens of texts that are words, as ``vocabulary.is_word`` says."""
        return self.in_texts & np.fromiter(map(is_word, self.token_texts), bool, self.space.n_tokens)

    def ends(self, closing_quote: str | None) -> np.ndarray:
        """(V,) bool: tokens that contain the closing quote, and end-of-text tokens."""
        if closing_quote not in self._ends:
            ends = np.zeros(self.space.n_tokens, dtype=bool)
            ends[sorted(self._end_of_text_ids)] = True
            if closing_quote:
                ends |= np.fromiter((closing_quote in text for text in self.token_texts), bool, len(ends))
            self._ends[closing_quote] = ends
        return self._ends[closing_quote]

    @cached_property
    def _end_of_text_ids(self) -> set[int]:
        ids = set()
        for holder in (self._config, self._generation_config, self.tokenizer):
            ids |= set(_as_list(getattr(holder, "eos_token_id", None)))
        added = self.tokenizer.get_added_vocab()
        ids |= {added.get(text) for text in _END_OF_TEXT}
        return {token_id for token_id in ids if token_id is not None and token_id < self.space.n_tokens}

    def ghost_prompt(self, template: str, max_depth: int, *, chat: bool = False, answer: str = "") -> GhostPrompt:
        """Tokenize ``template``, or a chat with it, with a single token in the place of ``{ghost}``.

        Args:
            template: what the model reads; in a chat what the user says.
            chat: put it into the model's chat template (see ``in_chat``).
            answer: with ``chat``, how the assistant's answer begins. ``{ghost}`` stands in one of the two.

        Raises:
            UserError: no word makes a single token there, or the prompt and a tree of ``max_depth`` are longer
                than the model allows; or the model has no chat template, or one that does not work.
        """
        text = self.in_chat(template, answer) if chat else template
        before, after = text.split(GHOST)
        for word in _PLACEHOLDERS:
            # A chat template writes the special tokens itself.
            prompt = self._locate(before, word, after, add_special_tokens=not chat)
            if prompt:
                break
        else:
            asked = template if GHOST in template else answer
            raise UserError(
                f"In the prompt {asked!r} the place of {GHOST} is no single token for this model's tokenizer. "
                f'Put quotes or blanks around it: "{GHOST}".'
            )
        length = len(prompt.token_ids)
        if self.max_length and length + max_depth > self.max_length:
            raise UserError(
                f"The prompt has {length} tokens; with max_depth {max_depth} that is more than the {self.max_length} "
                "that the model allows. Shorten the prompt."
            )
        return prompt

    def in_chat(self, template: str, answer: str) -> str:
        """What an instruction-tuned model reads when a user has said ``template`` and it has begun to ``answer``.

        That is the model's own chat template (https://huggingface.co/docs/transformers/chat_templating) with one
        message of the user and the beginning of the assistant's, then ``answer`` as it is. Templates may add a system
        message and take blanks off the ends of what the user says. One that tells the date always tells 26 July 2024,
        so that a recipe is the same prompt on any day.

        Raises:
            UserError: the model has no chat template, it fails, or it does not leave ``{ghost}`` in the text once.
        """
        if not self.tokenizer.chat_template:
            raise UserError(f"{self.name} has no chat template; use an instruction-tuned model or turn chat off.")
        said = [{"role": "user", "content": template}]
        try:
            dated = _SAME_DATE + self.tokenizer.get_chat_template()
            text = self.tokenizer.apply_chat_template(
                said, chat_template=dated, tokenize=False, add_generation_prompt=True
            ) + answer
        except Exception as error:  # the template is a program of its own, run in a sandbox: it may raise anything
            raise UserError(
                f"The chat template of {self.name} fails: {shown(str(error))}. Use another model or turn chat off."
            ) from error
        if text.count(GHOST) != 1:
            raise UserError(
                f"The chat template of {self.name} leaves {GHOST} in the text {text.count(GHOST)} times; it must stand "
                "there exactly once. Use another model or turn chat off."
            )
        return text

    def _locate(self, before: str, word: str, after: str, *, add_special_tokens: bool) -> GhostPrompt | None:
        text = before + word + after
        encoded = self.tokenizer(text, return_offsets_mapping=True, add_special_tokens=add_special_tokens)
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


def _as_list(ids) -> list:
    return list(ids) if isinstance(ids, (list, tuple)) else [ids]
