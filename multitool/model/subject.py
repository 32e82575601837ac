"""The language model as a reader of vectors sees it: its embedding space and its tokens.

Nothing here runs the model, so token lists (but for the logit lens) and everything that is checked before a tree grows
need no GPU and none of the model's layers.
"""

import re
import unicodedata
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path

import numpy as np
from torch import Tensor

from multitool.errors import UserError, shown
from multitool.recipes.weighted_sums import TokenTerm, token_terms
from multitool.text import bytes_to_text
from multitool.vectors.embedding import EmbeddingSpace

BASE_TOKENS = 64  # at which the layers' Jacobian is taken
# End-of-text tokens that a configuration does not always list.
_END_OF_TEXT = ("<|endoftext|>", "<|end_of_text|>", "<|im_end|>", "<|eot_id|>", "<eos>", "</s>", "<end_of_turn>")


class Subject:
    """A causal language model's embeddings and tokens.

    Args:
        E: (V, d_model), the raw input-embedding matrix, in memory of the CPU.
        tokenizer: the model's fast tokenizer.
        config: the model's transformers configuration.
        name: how results name the model.
        folder: where the model's files lie, to run it; of one that came as an object a name that tells its weights.
        generation_config: what the model ships for generating text; it may list more end-of-text tokens.
    """

    def __init__(self, E: Tensor, tokenizer, config, name: str, folder: Path, generation_config=None):
        self.tokenizer = tokenizer
        self.name = name
        self.folder = folder
        self.space = EmbeddingSpace(E)
        self._config = config.get_text_config()
        self._generation_config = generation_config
        self._ends: dict[str | None, np.ndarray] = {}

    def __repr__(self) -> str:
        return f"Subject({self.name}: {self.space.n_tokens:,} tokens, d_model {self.space.d_model:,})"

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
        return next((found for found in candidates if self._is_token(found)), None)

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
    def special_ids(self) -> frozenset[int]:
        """Tokens that no text is made of, by the tokenizer."""
        added = self.tokenizer.added_tokens_decoder
        return frozenset(self.tokenizer.all_special_ids) | {id_ for id_, token in added.items() if token.special}

    @cached_property
    def in_texts(self) -> np.ndarray:
        """(V,) bool: tokens that texts are made of; not special ones, and no rows of E without a token."""
        plain = np.zeros(self.space.n_tokens, dtype=bool)
        plain[: len(self.tokenizer)] = True
        plain[[token_id for token_id in self.tokenizer.all_special_ids if token_id < len(plain)]] = False
        return plain

    @cached_property
    def base_ids(self) -> tuple[int, ...]:
        """Tokens at which the layers' Jacobian is taken: ``BASE_TOKENS`` of those of texts, always the same ones."""
        pool = np.flatnonzero(self.in_texts)
        chosen = np.random.default_rng(0).choice(pool, min(BASE_TOKENS, len(pool)), replace=False)
        return tuple(sorted(chosen.tolist()))

    @cached_property
    def words(self) -> np.ndarray:
        """(V,) bool: tokens of texts that are words, as ``is_word`` says."""
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
        holders = (self._config, self._generation_config, self.tokenizer)
        listed = [found for holder in holders for found in _as_list(getattr(holder, "eos_token_id", None))]
        added = self.tokenizer.get_added_vocab()
        return {found for found in (*listed, *map(added.get, _END_OF_TEXT)) if self._is_token(found)}

    def _is_token(self, found) -> bool:
        """Whether what a configuration says is a token's number; some hold -1, or numbers of another vocabulary."""
        return type(found) is int and 0 <= found < self.space.n_tokens


def _as_list(ids) -> list:
    return list(ids) if isinstance(ids, (list, tuple)) else [ids]


def check_tokens(subject: Subject, token_ids: Iterable[int], of: str) -> None:
    """That the model has an embedding for each of the tokens: a tokenizer may have more, and a file may name any.

    Args:
        of: what they are of, as a sentence begins.

    Raises:
        UserError: it has none for one of them. (On a GPU the look-up would end the process' work for everybody.)
    """
    n_tokens = subject.space.n_tokens
    beyond = next((int(token_id) for token_id in token_ids if not 0 <= token_id < n_tokens), None)
    if beyond is None:
        return
    text = subject.tokenizer.convert_ids_to_tokens(beyond) if 0 <= beyond < len(subject.tokenizer) else None
    named = f"{shown(text)} (#{beyond})" if text else f"#{beyond}"
    raise UserError(
        f"{of} has the token {named}, for which {subject.name} has no embedding: its rows are #0 to #{n_tokens - 1}. "
        "Leave the token out, or use another model."
    )


def tokens_meant(subject: Subject, text: str) -> list[tuple[int, float]]:
    """The token ids of an arithmetic and their weights, in order.

    A word is the token with a space before it, if there is one, or else the token without.

    Raises:
        UserError: it cannot be read, or a term of it is no single token of the model.
    """
    return [(_token_id(subject, term), term.weight) for term in token_terms(text)]


def _token_id(subject: Subject, term: TokenTerm) -> int:
    if term.token_id is not None:
        if term.token_id < subject.space.n_tokens:
            return term.token_id
        raise UserError(
            f"tokens has {term}; {subject.name} has {subject.space.n_tokens} tokens, #0 to #"
            f"{subject.space.n_tokens - 1}."
        )
    for text in [term.text] if term.exact else [" " + term.text, term.text]:
        if text in subject.token_ids:
            return subject.token_ids[text]
    ids = subject.tokenizer(("" if term.exact else " ") + term.text, add_special_tokens=False)["input_ids"]
    check_tokens(subject, ids, f"tokens has {shown(term.text)}, which")
    parts = ", ".join(shown(subject.token_texts[token_id]) for token_id in ids)
    raise UserError(
        f"tokens has {shown(term.text)}, which is no single token of {subject.name}: it splits into {parts[:200]}. Use "
        'another word, or one of these tokens in double quotes, e.g. " king".'
    )


_BYTE_PIECE = re.compile(r"<0x([0-9A-F]{2})>")


# Scripts whose words stand without spaces between them, or whose tokens do: as the names of their letters begin.
_WITHOUT_BLANKS = ("CJK ", "IDEOGRAPHIC ", "HIRAGANA ", "KATAKANA", "HALFWIDTH KATAKANA", "HANGUL ", "THAI ", "LAO ",
                   "KHMER ", "MYANMAR ")


def token_texts(tokenizer, n_tokens: int) -> tuple[str, ...]:
    """The text of token ids 0 to ``n_tokens`` - 1, leading space kept; broken characters as escapes.

    ``tokenizer.decode`` cannot be asked: it drops SentencePiece's leading space and replaces bytes that are no
    whole character. Embedding rows beyond the tokenizer's last token are shown as ``<no token 12345>``.
    """
    pieces = tokenizer.convert_ids_to_tokens(list(range(n_tokens)))
    added = {token_id: str(token) for token_id, token in tokenizer.added_tokens_decoder.items()}
    byte_level = "ByteLevel" in repr(tokenizer.backend_tokenizer.decoder)
    piece_text = _byte_level_text if byte_level else _sentencepiece_text
    texts = []
    for token_id, piece in enumerate(pieces):
        if token_id in added:
            texts.append(added[token_id])
        elif not piece:
            texts.append(f"<no token {token_id}>")
        else:
            texts.append(piece_text(piece))
    return tuple(texts)


def is_word(text: str) -> bool:
    """Whether a token's text is a word: a space and then letters, or letters alone of a script written without spaces.

    Letters of any script count, with their combining marks (the Unicode categories L and M); one comes first. Without a
    space, letters of other scripts are the middle or the end of a word, or its beginning at the start of a text.
    """
    letters = text.removeprefix(" ")
    kinds = [unicodedata.category(character)[0] for character in letters]
    if not kinds or kinds[0] != "L" or not set(kinds) <= {"L", "M"}:
        return False
    return text != letters or all(
        kind == "M" or unicodedata.name(letter, "").startswith(_WITHOUT_BLANKS)
        for letter, kind in zip(letters, kinds, strict=True)
    )


def _byte_level_text(piece: str) -> str:
    if all(character in _BYTE_OF for character in piece):
        return bytes_to_text(bytes(_BYTE_OF[character] for character in piece))
    return piece


def _sentencepiece_text(piece: str) -> str:
    byte = _BYTE_PIECE.fullmatch(piece)
    return bytes_to_text(bytes.fromhex(byte[1])) if byte else piece.replace("▁", " ")


def _byte_alphabet() -> dict[str, int]:
    """GPT-2's stand-in character for every byte: itself where it is printable, else one from 256 up, in order."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAC + 1), *range(0xAE, 0xFF + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + n): byte for n, byte in enumerate(others)}


_BYTE_OF = _byte_alphabet()
