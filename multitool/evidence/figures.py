"""The figures behind a verdict as lines that a person reads: on the page and on a terminal the same.

Evidence comes from anybody's file: a figure counts only if it is a number.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from multitool.errors import is_number
from multitool.evidence.verdicts import AGREES, FIRST, NO, PARTLY, UNKNOWN

# Of each verdict a shape, so that they are told apart without colour, and what it says.
MARKS = {AGREES: ("✓", "agrees"), PARTLY: ("~", "in part"), NO: ("✗", "does not agree"),
         UNKNOWN: ("?", "cannot be judged")}


@dataclass(frozen=True)
class Figure:
    """A line of the table: what it is, the value, what it is held against. Left out where a number is missing."""

    name: str
    help: str
    value: str  # templates of the evidence's numbers
    beside: str


@dataclass(frozen=True)
class Line:
    """A figure with its numbers filled in."""

    name: str
    help: str
    value: str
    beside: str


_LEFT_OUT = Figure(
    "Tokens left out", "The direction was made from them, so they prove nothing.", "{left_out:,.0f}", "",
)
_OF_THE_ORDER = (
    Figure(
        "Average precision", "Counts most what stands at the top.",
        "{average_precision:.3f}", "{average_precision_chance:.3f} in lists of random directions",
    ),
    Figure("Random directions that do as well", "By average precision.", "{beaten_by:.0%}", "0% for a list to trust"),
)
TREE_FIGURES = (
    Figure(
        "Definitions on which the feature fires", "Each is read by the model as plain text, without the ghost.",
        "{hits:,.0f} of {n_definitions:,.0f}", "{hits_others:,.0f} of {n_others:,.0f} of other features",
    ),
    Figure(
        "Own definitions against others' (AUROC)", "How often its activation is higher on one of its own.",
        "{auroc:.2f}", "0.50 by chance",
    ),
    Figure(
        "Rank when all features are asked", "By mean activation on these definitions, less that on others'.",
        "{rank:,.0f}", "of {n_features:,} features",
    ),
    Figure(
        "Lift over the centroid", "How much more probable the definitions are than with the mean token as ghost.",
        "{lift_centroid:.1f} nats", "0 if the ghost changes nothing",
    ),
    Figure(
        "Lift over random directions", "The same against ghosts as far out in random directions.",
        "{lift_random:.1f} nats", "0 if another direction does as well",
    ),
    Figure(
        "Entropy of the first token", "Lower: the model is surer of what to say.",
        "{entropy:.2f} nats", "{entropy_centroid:.2f} nats with the centroid",
    ),
    Figure(
        "Self-similarity", "Cosine of the residual at the prompt's end and the decoder: is the feature written there?",
        "{self_similarity:.2f}", "{self_similarity_centroid:.2f} with the centroid",
    ),
    Figure(
        "Encoder–decoder cosine", "1 if the feature writes what it looks for.", "{encoder_decoder_cosine:.2f}", "",
    ),
    Figure(
        "Tokens that both lists share", "Of the 100 nearest to the encoder's vector and to the decoder's.",
        "{lists_shared:,.0f}", "of 100",
    ),
    _LEFT_OUT,
)
LIST_FIGURES = (
    Figure(
        f"First {FIRST} tokens that fire it", "Each token read alone.",
        "{hits:,.0f}", "{hits_chance:.1f} in lists of random directions",
    ),
    Figure(
        "Tokens that fire it at all", "Of those that the list is judged on.", "{firing:,.0f}", "of {judged_on:,}",
    ),
    Figure(
        "AUROC", "How often a token that fires it stands above one that does not.",
        "{auroc:.2f}", "{auroc_chance:.2f} in lists of random directions",
    ),
    *_OF_THE_ORDER,
    _LEFT_OUT,
)

WRITTEN_FIGURES = (
    Figure(
        f"First {FIRST} tokens that change most", "When the model is pushed along the feature's decoder.",
        "{hits:,.0f}", "{hits_chance:.1f} in lists of random directions",
    ),
    Figure(
        "Tokens that change most", "On average over neutral prompts; what the list should begin with.",
        "{rising:,.0f}", "of {judged_on:,}",
    ),
    Figure(
        "Change of their log-probability", "Of the first and of the last of these tokens.",
        "{largest_change:+.1f} to {least_change:+.1f} nats", "",
    ),
    Figure(
        "AUROC", "How often one of these tokens stands above another one.",
        "{auroc:.2f}", "{auroc_chance:.2f} in lists of random directions",
    ),
    *_OF_THE_ORDER,
)

# A row of lists whose feature is known by texts: what the tokens are, and where they stand in the list, follows it.
IN_TEXTS = "Ranks of tokens that fire it in texts"
IN_TEXTS_HELP = "From the contexts kept with this SAE."


def verdict_of(evidence: Mapping) -> str:
    """The verdict in some evidence, a name of ``MARKS``; of what is none, that it cannot be judged."""
    verdict = evidence.get("verdict")
    return verdict if isinstance(verdict, str) and verdict in MARKS else UNKNOWN


def tree_lines(evidence: Mapping) -> list[Line]:
    """The figures of a tree's evidence, those that there are."""
    return _lines(TREE_FIGURES, evidence)


def list_lines(evidence: Mapping) -> list[Line]:
    """The figures of a list's evidence, of what fires the feature or of what it writes, those that there are."""
    return _lines(WRITTEN_FIGURES if "rising" in evidence else LIST_FIGURES, evidence)


def _lines(figures: Sequence[Figure], evidence: Mapping) -> list[Line]:
    numbers = {name: value for name, value in evidence.items() if is_number(value)}
    lines = []
    for figure in figures:
        try:
            value, beside = (template.format_map(numbers) for template in (figure.value, figure.beside))
        except KeyError:
            continue
        lines.append(Line(figure.name, figure.help, value, beside))
    return lines
