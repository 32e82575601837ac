"""Evidence for a list or a tree: how far it agrees with what really fires the feature. Plain numbers.

Nothing is judged on the tokens that its direction was made from, and every figure stands beside the same figure of
random directions or of other features: what those reach is chance.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property

import numpy as np

from multitool.evidence.statistics import auroc, average_precision, rank, share_at_least

FIRST = 10  # tokens that count as found at once
LEAST_HITS = 3  # tokens or definitions that must fire a feature before a list or a tree agrees with it
SURE, LIKELY = 0.01, 0.05  # among so large a share of all features; as often a random direction comes there
LEAST_TO_JUDGE = 5  # tokens that must fire a feature before its list is judged
RANDOM_LISTS = 20
RISING = 100  # tokens that a push along a feature makes more probable than all others: what it writes
DEFINITIONS_JUDGED = 10
CONTROL_FEATURES = 16

AGREES, PARTLY, NO, UNKNOWN = "agrees", "partly", "no", "unknown"


@dataclass(frozen=True)
class Agreement:
    """How a list agrees with the tokens that it should begin with, and lists of random directions beside it."""

    judged_on: int  # tokens
    hits: int  # of the first FIRST judged tokens of the list, how many are among those
    hits_chance: float  # of lists of random directions, on average
    auroc: float | None  # of the list's score; None if there are no such tokens, or no others
    auroc_chance: float | None
    average_precision: float | None  # None if there are no such tokens
    average_precision_chance: float | None
    beaten_by: float | None  # share of random directions whose average precision is as high

    @property
    def verdict(self) -> str:
        """``agrees``, ``partly`` or ``no``."""
        assert self.beaten_by is not None
        if self.beaten_by > 0:  # always, where all tokens are such and there is no AUROC
            return NO
        assert self.auroc is not None and self.auroc_chance is not None
        if self.auroc <= self.auroc_chance:
            return NO
        return AGREES if self.hits >= max(LEAST_HITS, 2 * self.hits_chance) else PARTLY

    def to_dict(self) -> dict:
        """For JSON."""
        return {item.name: getattr(self, item.name) for item in fields(Agreement)}


def agreement(scores: np.ndarray, meant: np.ndarray) -> dict:
    """The figures of an ``Agreement``.

    Args:
        scores: (1 + r, n), smaller fits better: of the list, and of r random directions, for the n judged tokens.
        meant: (n,) bool, the tokens that it should begin with.
    """
    fits = -scores
    found = [average_precision(row, meant) for row in fits]
    areas = [auroc(row, meant) for row in fits]
    hits = [int(meant[np.argpartition(-row, min(FIRST, len(row)) - 1)[:FIRST]].sum()) for row in fits]
    return {
        "judged_on": len(meant),
        "hits": hits[0],
        "hits_chance": float(np.mean(hits[1:])),
        "auroc": areas[0],
        "auroc_chance": _mean(areas[1:]),
        "average_precision": found[0],
        "average_precision_chance": _mean(found[1:]),
        "beaten_by": share_at_least(found[0], np.array(found[1:])) if found[0] is not None else None,
    }


@dataclass(frozen=True, kw_only=True)
class ListEvidence(Agreement):
    """How a token list agrees with the feature's activation on each token alone."""

    activations: np.ndarray  # (V,) of the feature
    left_out: int  # tokens that the direction was made from, which it is not judged on
    firing: int  # tokens among the judged that fire the feature
    in_texts: tuple[tuple[int, int], ...] = ()  # on these tokens it fires most in texts: id, rank in the whole list

    def to_dict(self) -> dict:
        """For JSON: the figures, the verdict and the sentence; not the activations, which stand in the list."""
        found = {"judged_on": self.judged_on, "left_out": self.left_out, "firing": self.firing} | super().to_dict()
        return found | {"in_texts": self.in_texts, "verdict": self.verdict, "sentence": self.sentence}

    @property
    def verdict(self) -> str:
        """``agrees``, ``partly``, ``no`` or ``unknown``; ``sentence`` says the rule."""
        return UNKNOWN if self.firing < LEAST_TO_JUDGE else super().verdict

    @property
    def sentence(self) -> str:
        """What the figures mean, for a reader."""
        match self.verdict:
            case "unknown":
                left = " besides those that the list was made from" if self.left_out else ""
                return (
                    f"This list cannot be judged: {self.firing or 'no'} token{'' if self.firing == 1 else 's'}{left} "
                    "fire the feature when they stand alone."
                )
            case "no":
                return (
                    "Do not trust this list: lists of random directions find the tokens that fire the feature about as "
                    "well."
                )
        found = f"{self.hits} of its first {FIRST} tokens fire it, and by chance {self.hits_chance:.1f}"
        if self.verdict == AGREES:
            return f"This list agrees with what fires the feature: {found}."
        return f"This list agrees with what fires the feature only further down: {found}."


def list_evidence(
    scores: np.ndarray,
    activations: np.ndarray,
    judged: np.ndarray,
    made_from: np.ndarray,
    in_texts: Sequence[int] = (),
) -> ListEvidence:
    """Judge a token list.

    Args:
        scores: (1 + r, V), smaller fits better: of the list, and of r random directions as far out.
        activations: (V,) of the feature on each token alone.
        judged: (V,) bool, tokens that may be judged on.
        made_from: (V,) bool, tokens that the direction was made from; they are left out.
        in_texts: ids of tokens on which the feature fires most in real texts.
    """
    rest = judged & ~made_from & np.isfinite(scores[0])
    fires = activations[rest] > 0
    return ListEvidence(
        **agreement(scores[:, rest], fires),
        activations=activations,
        left_out=int((judged & made_from).sum()),
        firing=int(fires.sum()),
        in_texts=tuple((token_id, list_rank(scores[0], token_id)) for token_id in in_texts),
    )


@dataclass(frozen=True, kw_only=True)
class WrittenEvidence(Agreement):
    """How a list of what a direction makes the model say agrees with what the feature writes: the tokens that become
    more probable than all others when the model is pushed along the feature's decoder."""

    changes: np.ndarray  # (V,) nats: mean change of each token's log-probability
    rising: int  # the tokens meant: the RISING ones with the largest change above 0
    other_end: bool  # those that fall instead, for a list of the other end
    least_change: float | None  # nats: of the last of these
    largest_change: float | None  # and of the first

    def to_dict(self) -> dict:
        """For JSON: the figures, the verdict and the sentence; not the changes, which stand in the list."""
        found = {"judged_on": self.judged_on, "rising": self.rising} | super().to_dict()
        found |= {"largest_change": self.largest_change, "least_change": self.least_change}
        return found | {"verdict": self.verdict, "sentence": self.sentence}

    @property
    def verdict(self) -> str:
        """``agrees``, ``partly``, ``no`` or ``unknown``; ``sentence`` says the rule."""
        return UNKNOWN if self.rising < LEAST_TO_JUDGE else super().verdict

    @property
    def sentence(self) -> str:
        """What the figures mean, for a reader."""
        more = "less" if self.other_end else "more"
        match self.verdict:
            case "unknown":
                return (
                    "This list cannot be judged: pushed along the feature's decoder, the model finds "
                    f"{self.rising or 'no'} token{'' if self.rising == 1 else 's'} {more} probable."
                )
            case "no":
                return (
                    f"Do not trust this list: lists of random directions find the tokens that become {more} probable "
                    "when the model is pushed along the feature's decoder about as well."
                )
        found = (
            f"of its first {FIRST} tokens {self.hits} are among the {self.rising} that become {more} probable than all "
            f"others when the model is pushed along the feature's decoder, and by chance {self.hits_chance:.1f}"
        )
        if self.verdict == AGREES:
            return f"This list agrees with what the feature writes: {found}."
        return f"This list agrees with what the feature writes only further down: {found}."


def written_evidence(
    scores: np.ndarray, changes: np.ndarray, judged: np.ndarray, *, other_end: bool = False
) -> WrittenEvidence:
    """Judge a list of what a direction makes the model say.

    Args:
        scores: (1 + r, V), smaller fits better: of the list, and of r random directions.
        changes: (V,), what a push along the feature's decoder changes of each token's log-probability.
        judged: (V,) bool, tokens that may be judged on.
        other_end: whether the list is of the tokens that fit worst.
    """
    rest = judged & np.isfinite(scores[0])
    rise = -changes[rest] if other_end else changes[rest]
    first = np.argsort(-rise, kind="stable")[:RISING]
    first = first[rise[first] > 0]
    meant = np.zeros(len(rise), dtype=bool)
    meant[first] = True
    return WrittenEvidence(
        **agreement(scores[:, rest], meant),
        changes=changes,
        rising=len(first),
        other_end=other_end,
        least_change=float(changes[rest][first[-1]]) if len(first) else None,
        largest_change=float(changes[rest][first[0]]) if len(first) else None,
    )


def _mean(figures: Sequence[float | None]) -> float | None:
    """None where there are none: either all can be had or none."""
    known = [figure for figure in figures if figure is not None]
    return float(np.mean(known)) if known else None


def list_rank(scores: np.ndarray, token_id: int) -> int:
    """A token's place in the list of all tokens by rising score, from 1."""
    return int(np.count_nonzero(scores < scores[token_id])) + 1


@dataclass(frozen=True)
class DefinitionScores:
    """How a tree's definitions, read as plain text, agree with the feature."""

    hits: int  # on how many of its definitions the feature fires
    n_definitions: int  # that were read
    hits_others: int  # the same on other features' definitions
    n_others: int
    auroc: float  # of the activation on its own definitions against that on others'; 0.5 by chance
    rank: float  # of the feature when all are asked, 1 the best
    n_features: int

    @property
    def hit_rate(self) -> float:
        """The share of its definitions on which the feature fires."""
        return self.hits / self.n_definitions

    @property
    def hit_rate_chance(self) -> float:
        """The same on other features' definitions."""
        return self.hits_others / self.n_others


class Others:
    """Every feature's strongest activation on each definition of other features, ``strongest`` (m, d_sae)."""

    def __init__(self, strongest: np.ndarray):
        self.strongest = strongest

    @cached_property
    def mean(self) -> np.ndarray:
        """Over the definitions: (d_sae,)."""
        return self.strongest.mean(axis=0)


def definition_scores(own: np.ndarray, others: Others, feature: int) -> DefinitionScores:
    """Judge definitions by what fires on them.

    All features are asked: each gets the mean of its activation over the definitions, less its mean over the others'
    definitions (features that fire on everything would come first otherwise).

    Args:
        own: (n, d_sae), every feature's strongest activation on each definition.
        others: the same on definitions of other features.
        feature: the one that was defined.
    """
    mine, theirs = own[:, feature], others.strongest[:, feature]
    area = auroc(_to_three_digits(np.concatenate([mine, theirs])), np.arange(len(own) + len(theirs)) < len(own))
    assert area is not None
    return DefinitionScores(
        hits=int((mine > 0).sum()),
        n_definitions=len(mine),
        hits_others=int((theirs > 0).sum()),
        n_others=len(theirs),
        auroc=area,
        rank=rank(own.mean(axis=0) - others.mean, feature),
        n_features=own.shape[1],
    )


def _to_three_digits(x: np.ndarray) -> np.ndarray:
    """Definitions that begin alike fire a feature alike; read in other batches they do but for rounding, which would
    decide which comes first."""
    mantissa, exponent = np.frexp(x)
    return np.ldexp(np.round(mantissa * 1024) / 1024, exponent)


def strongest(activations: np.ndarray, text: Sequence[int], made_from: np.ndarray) -> np.ndarray:
    """Every feature's strongest activation in a text, where its token is none that the direction was made from.

    Args:
        activations: (tokens, d_sae).
        made_from: (V,) bool.

    Returns:
        (d_sae,), 0 where no position is left.
    """
    left = ~made_from[list(text)]
    return activations[left].max(axis=0) if left.any() else np.zeros(activations.shape[1], dtype=activations.dtype)


def tree_verdict(scores: DefinitionScores | None, fires_at_all: float, left_out: int) -> str:
    """``agrees``, ``partly``, ``no`` or ``unknown``. A tree agrees only if several of its definitions fire the feature:
    from one or two nothing follows for the rest of the tree.

    Args:
        fires_at_all, left_out: as in ``TreeEvidence``.
    """
    if scores is None:
        return UNKNOWN
    if scores.hit_rate <= scores.hit_rate_chance or scores.auroc <= 0.5:
        return UNKNOWN if left_out and fires_at_all > scores.hit_rate else NO
    place = scores.rank / scores.n_features
    if place <= SURE and scores.hits >= LEAST_HITS:
        return AGREES
    return PARTLY if place <= LIKELY else NO


@dataclass(frozen=True)
class TreeEvidence:
    """How a definition tree agrees with the feature."""

    scores: DefinitionScores | None  # None if there was no definition to read
    fires_at_all: float  # share of its definitions on which the feature fires, left-out tokens included
    lift_centroid: float  # nats: mean lift of the judged definitions against the centroid's ghost, by probability
    lift_random: float  # and against random ghosts
    entropy: float  # nats: of the first token
    entropy_centroid: float
    self_similarity: float | None  # cosine of the last prompt position's residual and W_dec; None on the embedding
    self_similarity_centroid: float | None
    encoder_decoder_cosine: float
    lists_shared: int  # tokens that the encoder's and the decoder's lists of the nearest 100 share
    left_out: int  # tokens that the direction was made from: their positions in definitions do not count
    feature_maximum: float | None = None  # how strongly it fires where it fires most; None if that is not known
    judged: tuple[tuple[str, float], ...] = ()  # the definitions that were read, and how strongly each fires it

    def to_dict(self) -> dict:
        """For JSON: the figures, the verdict, the sentence, and the judged definitions with their activations."""
        others = [item.name for item in fields(self) if item.name not in ("scores", "judged")]
        figures = {name: getattr(self, name) for name in others}
        names = ["hit_rate", "hit_rate_chance", *(item.name for item in fields(DefinitionScores))]
        scores = {name: getattr(self.scores, name, None) for name in names}
        judged = {"judged_texts": [text for text, _ in self.judged],
                  "judged_activations": [activation for _, activation in self.judged]}
        return scores | figures | judged | {"verdict": self.verdict, "sentence": self.sentence}

    @property
    def verdict(self) -> str:
        """By ``tree_verdict``."""
        return tree_verdict(self.scores, self.fires_at_all, self.left_out)

    @property
    def sentence(self) -> str:
        """What the figures mean, for a reader."""
        if self.scores is None:
            return "This tree cannot be judged: it has no definition to read."
        if self.verdict == UNKNOWN:
            return (
                "This tree cannot be judged: in its definitions the feature fires only on tokens that its direction "
                "was made from, which proves nothing."
            )
        scores = self.scores
        on = f"on {scores.hits or 'none'} of these {scores.n_definitions} definitions"
        if scores.n_definitions == 1:
            on = "on its one definition" if scores.hits else "not on its one definition"
        figures = (
            f"The feature fires {on} (on those of other features on "
            f"{scores.hits_others} of {scores.n_others}) and is number {scores.rank:,.0f} of {scores.n_features:,} "
            "when all features are asked"
        )
        match self.verdict:
            case "agrees":
                return f"This tree agrees with what fires the feature. {figures}."
            case "partly" if scores.hits < LEAST_HITS:
                return f"{figures}: too few to vouch for the rest of the tree."
            case "partly":
                return f"This tree agrees in part with what fires the feature. {figures}."
        return f"Do not trust this tree. {figures}."


@dataclass(frozen=True)
class VectorEvidence:
    """What can be said of the tree of a vector of one's own, of which nothing tells when it fires."""

    lift_centroid: float  # as in ``TreeEvidence``
    lift_random: float
    entropy: float
    entropy_centroid: float

    def to_dict(self) -> dict:
        """For JSON: the figures, the verdict and the sentence."""
        figures = {item.name: getattr(self, item.name) for item in fields(self)}
        return figures | {"verdict": UNKNOWN, "sentence": self.sentence}

    @property
    def sentence(self) -> str:
        """What the figures mean, for a reader."""
        times = np.exp(self.lift_random)
        told = f"{times:,.0f}" if times >= 10 else f"{times:.2g}"
        return (
            "Nothing tells when a vector of your own fires, so this tree cannot be judged by what fires it. Its "
            f"definitions are {told} times as probable as under random vectors as far out."
        )
