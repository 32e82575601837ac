"""What the card of a feature holds, as plain data: it can be shown, kept, and sent as JSON."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from multitool.errors import is_number
from multitool.store.saes import Context
from multitool.text import html_table, join_tokens, spelling_key, whole_word
from multitool.trees.document import DefinitionTree

SCHEMA = "sae-multitool/feature-card/1"
CONTEXTS = 6
BINS = 12
_DEFINITIONS_READ = 3
_LONGEST_DEFINITION = 60  # characters
_BEFORE, _AFTER = 14, 8  # tokens of a context


@dataclass(frozen=True)
class Firing:
    """A token and a number of it."""

    token: str
    value: float


@dataclass(frozen=True)
class Written:
    """What the feature's decoder direction makes the model say, read by a lens."""

    lens: str  # in words
    more: tuple[Firing, ...]  # tokens with the largest logits, the largest first
    less: tuple[Firing, ...]  # and with the smallest, the smallest first


@dataclass(frozen=True)
class Histogram:
    """How strongly a feature fires on tokens of texts."""

    of: str  # which texts, in words
    n_tokens: int
    firing: int  # on how many of them it fires
    most: float  # the strongest activation; 0 where it fires on none
    counts: tuple[int, ...]  # of the firing ones, in bins of equal width from 0 to ``most``

    @property
    def share(self) -> float:
        """Of the tokens on which it fires."""
        return self.firing / self.n_tokens if self.n_tokens else 0.0


@dataclass(frozen=True)
class Neighbour:
    """Another feature of the same SAE."""

    feature: int
    cosine: float  # of the decoders
    description: str  # in a few words


@dataclass(frozen=True)
class Reading:
    """What a definition tree says that the feature means."""

    definitions: tuple[str, ...]  # the first few
    by_lift: bool  # in the order of their lift per token; else of their probability
    hits: int | None = None  # on how many definitions the feature fires,
    judged: int | None = None  # of how many likeliest ones; None: they have not been read

    @property
    def sentence(self) -> str:
        """For a reader who knows nothing of SAEs."""
        if not self.definitions:
            return ""
        told = f"The model reads this feature as: {', '.join(self.definitions)}."
        if self.hits is None or not self.judged:
            return told
        if self.judged == 1:
            return f"{told} It {'fires' if self.hits else 'does not fire'} on its one definition."
        return f"{told} It fires on {self.hits or 'none'} of its {self.judged} likeliest definitions."


@dataclass(frozen=True)
class FeatureCard:
    """What is known of a feature, in one place. A notebook shows it as a table.

    What is not known is empty or None: without a scan kept on disk, for instance, there are no ``strongest`` tokens.

    >>> card = mt.feature_card(library, "demo/hook_embed", 927, tree=tree)
    >>> print(card.sentence)
    The model reads this feature as: water. It does not fire on its one definition.
    >>> card.contexts[0].token, card.nearest[0].feature
    ('rain', 562)
    """

    sae: str
    feature: int
    model: str
    contexts: tuple[Context, ...] = ()  # where it fires most: whole words, the strongest first
    contexts_of: str = ""  # which texts those are from, in words
    strongest: tuple[Firing, ...] = ()  # tokens of the vocabulary scan, each read alone
    written: Written | None = None
    histogram: Histogram | None = None
    nearest: tuple[Neighbour, ...] = ()
    described: str = ""  # what the atlas says of it, in a few words
    label: str = ""  # Neuronpedia's
    page: str = ""  # its page there
    reading: Reading | None = None

    @property
    def sentence(self) -> str:
        """What the model reads it as, by a tree; empty without one."""
        return self.reading.sentence if self.reading else ""

    @property
    def rows(self) -> list[list]:
        """What is known, line by line: what it is, and in words."""
        found = [
            ["reads as", self.sentence],
            ["fires on", " | ".join(f"{c.before}[{c.token}]{c.after}" for c in self.contexts)],
            ["strongest tokens", _listed(self.strongest)],
            ["writes", _listed(self.written.more) if self.written else ""],
            ["writes less", _listed(self.written.less) if self.written else ""],
            ["fires on a share of", f"{self.histogram.share:.3%} of {self.histogram.of}" if self.histogram else ""],
            ["nearest", " | ".join(f"{n.feature} ({n.cosine:.2f}) {n.description}" for n in self.nearest)],
            ["atlas", self.described],
            ["Neuronpedia", self.label],
        ]
        return [row for row in found if row[1]]

    def _repr_html_(self) -> str:
        return html_table(f"{self.sae}, feature {self.feature}", ("", "feature card"), self.rows)

    def to_dict(self) -> dict:
        """For JSON."""
        told = {name: value for name, value in asdict(self).items() if value not in (None, "", ())}
        sentence = {"sentence": self.sentence} if self.sentence else {}
        return {"schema": SCHEMA, **_plain(told), **sentence}


def _listed(firing: Sequence[Firing]) -> str:
    return ", ".join(one.token.strip() for one in firing)


def _plain(value: Any) -> Any:
    """As JSON has it: lists for tuples."""
    if isinstance(value, dict):
        return {name: _plain(of) for name, of in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def card_from(data: dict) -> FeatureCard:
    """The card that ``to_dict`` gave. For files of our own: it checks nothing."""
    def of(kind, name: str) -> tuple:
        return tuple(kind(**item) for item in data.get(name, ()))

    given = {name: data[name] for name in ("sae", "feature", "model")}
    given |= {name: data.get(name, "") for name in ("contexts_of", "described", "label", "page")}
    written, histogram, reading = (data.get(name) for name in ("written", "histogram", "reading"))
    return FeatureCard(
        **given, contexts=of(Context, "contexts"), strongest=of(Firing, "strongest"), nearest=of(Neighbour, "nearest"),
        written=written and Written(
            written["lens"], *(tuple(Firing(**one) for one in written[end]) for end in ("more", "less"))
        ),
        histogram=histogram and Histogram(**histogram | {"counts": tuple(histogram["counts"])}),
        reading=reading and Reading(**reading | {"definitions": tuple(reading["definitions"])}),
    )


# Parts of a card from numbers and texts


def at_whole_words(context: Context) -> Context:
    """The same place with the whole word that the token is in, and without half words at its ends."""
    before, word, after = whole_word(context.before, context.token, context.after)
    return replace(context, before=before, token=word, after=after)


def strongest_places(
    texts: Sequence[Sequence[str]], activations: Sequence[float], n: int = CONTEXTS
) -> tuple[Context, ...]:
    """The words of texts on which a feature fires most, with what stands around them, the strongest first.

    Args:
        texts: their tokens.
        activations: on all these tokens, one text after the other.
        n: at most this many; of a word, in any case, two.
    """
    places: dict[tuple[int, int], tuple[float, int]] = {}  # by text and word the strongest token
    first = 0
    for number, tokens in enumerate(texts):
        word = 0
        for place, token in enumerate(tokens):
            word += not (place and token[:1].isalnum())
            value = float(activations[first + place])
            if value > places.get((number, word), (0.0, 0))[0]:
                places[number, word] = (value, place)
        first += len(tokens)
    found: list[Context] = []
    spelt: dict[str, int] = {}
    for (number, _), (value, place) in sorted(places.items(), key=lambda item: -item[1][0]):
        tokens = texts[number]
        context = at_whole_words(Context(
            join_tokens(tokens[max(0, place - _BEFORE):place]), tokens[place],
            join_tokens(tokens[place + 1:place + 1 + _AFTER]), value,
        ))
        key = spelling_key(context.token)
        spelt[key] = spelt.get(key, 0) + 1
        if spelt[key] <= 2:
            found.append(context)
        if len(found) == n:
            break
    return tuple(found)


def histogram(activations: np.ndarray, of: str, bins: int = BINS) -> Histogram:
    """The histogram of a feature's activations on tokens, (n,).

    Args:
        of: what texts they are of, in words.
    """
    firing = activations[activations > 0]
    most = float(firing.max()) if len(firing) else 0.0
    counts = np.histogram(firing, bins, (0.0, most))[0] if most else np.zeros(bins, int)
    return Histogram(of, len(activations), len(firing), most, tuple(counts.tolist()))


def differing(tokens: Sequence[tuple[str, float]], n: int) -> tuple[Firing, ...]:
    """The first ``n`` tokens that differ in more than case and spaces."""
    found: dict[str, Firing] = {}
    for token, value in tokens:
        if token.strip():
            found.setdefault(spelling_key(token), Firing(token, value))
        if len(found) == n:
            break
    return tuple(found.values())


def reading_of(document: DefinitionTree) -> Reading:
    """What a tree says that the feature means; where it was checked, also on how many definitions the feature fires.

    Args:
        document: may be anybody's file.
    """
    by_lift = document.tree.lifts is not None
    complete, begun = (document.most_lifted if by_lift else document.most_probable)(_DEFINITIONS_READ)
    texts = [found.text for found in complete] or [f"{found.text} …" for found in begun]
    evidence = document.evidence or {}
    hits, judged = (evidence.get(name) for name in ("hits", "n_definitions"))
    counts = (int(hits), int(judged)) if is_number(hits) and is_number(judged) else (None, None)
    return Reading(
        tuple(text if len(text) <= _LONGEST_DEFINITION else text[:_LONGEST_DEFINITION - 1] + "…" for text in texts),
        by_lift, *counts,
    )
