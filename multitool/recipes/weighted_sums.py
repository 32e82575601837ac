"""Sums as people write them: weighted features, ``12*1.0 + 45*-0.5``, and token arithmetic, ``king - man + woman``.

Terms are joined by `` + `` or `` - ``, with spaces around the sign, so that a hyphen inside a word is no minus. ``*``
and a number behind a term are its weight.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass

from multitool.errors import UserError, shown
from multitool.text import is_text

MOST_TERMS = 16
LONGEST = 2000  # characters
_MOST_WEIGHT = 1e6
_WEIGHT = re.compile(r"\*([+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)(?!\S)")
_SIGN = re.compile(r"\s+([+-])\s+")
_TOKEN = re.compile(r'(?P<exact>"(?:[^"\\]|\\.)*")|#(?P<id>[0-9]{1,9})|(?P<word>(?!#|[+-](?:\s|$))[^\s"*]+)')

_FEATURE = re.compile(r"(?:(?P<sae>(?:hf://)?[^\s:*+]+):)?(?P<feature>[0-9]{1,15})(?![^\s*])")

_FEATURES_HOW = (
    "It must be a whole number from 0 up, or a weighted list, e.g. 123*1.0 + 456*-0.5; a feature of another SAE of the "
    "same model follows that one's name, e.g. demo/blocks.6.hook_resid_post:12*0.5."
)
_TOKENS_HOW = (
    'Write words joined by " + " or " - ", e.g. king - man + woman or king*0.5 + queen*0.5; an exact token stands in '
    'double quotes, e.g. " king", or as #1234.'
)


@dataclass(frozen=True)
class Term:
    """A feature and its weight."""

    sae: str | None  # None: the recipe's own
    feature: int
    weight: float

    def __str__(self) -> str:
        return (f"{self.sae}:" if self.sae else "") + f"{self.feature}*{self.weight!r}"


def feature_terms(text: str) -> tuple[Term, ...]:
    """What a weighted list of features says. Raises UserError if it is none."""
    return tuple(
        Term(term["sae"], int(term["feature"]), weight)
        for term, weight in _terms("feature", text, _FEATURE, _FEATURES_HOW)
    )


def features_written(terms: tuple[Term, ...]) -> str:
    """A weighted list of features in its one spelling, which ``feature_terms`` reads: every weight is told."""
    return " + ".join(map(str, terms))


@dataclass(frozen=True)
class TokenTerm:
    """A token and its weight; either ``text`` or ``token_id`` is given."""

    text: str  # empty where token_id is given
    token_id: int | None
    exact: bool  # the text is the token's own; otherwise a word, which may stand after a space
    weight: float

    def __str__(self) -> str:
        if self.token_id is not None:
            return f"#{self.token_id}"
        return json.dumps(self.text, ensure_ascii=False) if self.exact else self.text


def token_terms(text: str) -> tuple[TokenTerm, ...]:
    """What a text of token arithmetic says. Raises UserError if it is none."""
    found = []
    for term, weight in _terms("tokens", text, _TOKEN, _TOKENS_HOW):
        exact, token_id, word = term["exact"], term["id"], term["word"]
        if exact is not None:
            try:
                word = json.loads(exact)
            except ValueError as error:
                raise UserError(f"tokens is {shown(text)}; {shown(exact)} is no JSON string. {_TOKENS_HOW}") from error
            _check_text("tokens", word, _TOKENS_HOW)
        found.append(TokenTerm(word or "", None if token_id is None else int(token_id), exact is not None, weight))
    return tuple(found)


def tokens_written(terms: tuple[TokenTerm, ...]) -> str:
    """Token arithmetic in its one spelling, which ``token_terms`` reads: a weight of one is left out."""
    written = ""
    for term in terms:
        sign, weight = ("-", -term.weight) if written and term.weight < 0 else ("+", term.weight)
        written += (f" {sign} " if written else "") + str(term) + ("" if weight == 1 else f"*{weight!r}")
    return written


def _terms(name: str, text: str, pattern: re.Pattern, how: str) -> Iterator[tuple[re.Match, float]]:
    """The terms of a sum, each as the pattern matches it, with its weight.

    Args:
        name: of the setting;
        how: a sentence on how it is written; both for the messages.
    """
    _check_text(name, text, how)
    text, place, sign, n = text.strip(), 0, 1.0, 0
    while True:
        term = pattern.match(text, place)
        if not term:
            raise _unreadable(name, text, place, how)
        weight = _WEIGHT.match(text, term.end())
        factor = float(weight[1]) if weight else 1.0
        if weight and abs(factor) > _MOST_WEIGHT:
            raise UserError(f"{name} is {shown(text)}; the weight {weight[1]} is not within ±{_MOST_WEIGHT:g}.")
        n += 1
        if n > MOST_TERMS:
            raise UserError(f"{name} is {shown(text)}; it can have at most {MOST_TERMS} terms.")
        yield term, sign * factor
        place = (weight or term).end()
        if place == len(text):
            return
        joint = _SIGN.match(text, place)
        if not joint:
            raise _unreadable(name, text, place, how)
        sign, place = (-1.0 if joint[1] == "-" else 1.0), joint.end()


def _check_text(name: str, text: str, how: str) -> None:
    if len(text) > LONGEST or not is_text(text):
        raise UserError(f"{name} is {shown(text)}; it must be a text of at most {LONGEST:,} characters. {how}")


def _unreadable(name: str, text: str, place: int, how: str) -> UserError:
    rest = f" from {shown(text[place:].strip()[:40])} on" if text[place:].strip() and place else ""
    return UserError(f"{name} is {shown(text)}; it cannot be read{rest}. {how}")
