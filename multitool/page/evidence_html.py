"""Evidence on the page: a verdict with its mark, the figures behind it, and a text with what fires in it.

A saved tree brings its evidence with it, so all of it is treated as anybody's: text is escaped, and figures count only
if they are numbers.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

from multitool.errors import is_number
from multitool.evidence.verdicts import (
    AGREES,
    DEFINITIONS_JUDGED,
    FIRST,
    NO,
    PARTLY,
    UNKNOWN,
    ListEvidence,
    WrittenEvidence,
)
from multitool.jobs.token_table import TokenTable
from multitool.recipes.captions import fires_told
from multitool.text import visible
from multitool.trees.document import feature_maximum, judged_definitions

_LONGEST_SENTENCE = 500
_LONGEST_JUDGED = 200
# In the table of definitions: one of those that the verdict speaks of, and one that begins as one of them.
JUDGED, BEGINS_JUDGED = "●", "◐"
# A shape each, so that they are told apart without colour.
MARKS = {AGREES: ("✓", "agrees"), PARTLY: ("~", "in part"), NO: ("✗", "does not agree"),
          UNKNOWN: ("?", "cannot be judged")}
_STRONGEST_SHOWN = 8


@dataclass(frozen=True)
class _Figure:
    """A line of the table: what it is, the value, what it is held against. Left out where a number is missing."""

    name: str
    help: str
    value: str  # templates of the evidence's numbers
    beside: str


_TREE_FIGURES = (
    _Figure(
        "Definitions on which the feature fires", "Each is read by the model as plain text, without the ghost.",
        "{hits:,.0f} of {n_definitions:,.0f}", "{hits_others:,.0f} of {n_others:,.0f} of other features",
    ),
    _Figure(
        "Own definitions against others' (AUROC)", "How often its activation is higher on one of its own.",
        "{auroc:.2f}", "0.50 by chance",
    ),
    _Figure(
        "Rank when all features are asked", "By mean activation on these definitions, less that on others'.",
        "{rank:,.0f}", "of {n_features:,} features",
    ),
    _Figure(
        "Lift over the centroid", "How much more probable the definitions are than with the mean token as ghost.",
        "{lift_centroid:.1f} nats", "0 if the ghost changes nothing",
    ),
    _Figure(
        "Lift over random directions", "The same against ghosts as far out in random directions.",
        "{lift_random:.1f} nats", "0 if another direction does as well",
    ),
    _Figure(
        "Entropy of the first token", "Lower: the model is surer of what to say.",
        "{entropy:.2f} nats", "{entropy_centroid:.2f} nats with the centroid",
    ),
    _Figure(
        "Self-similarity", "Cosine of the residual at the prompt's end and the decoder: is the feature written there?",
        "{self_similarity:.2f}", "{self_similarity_centroid:.2f} with the centroid",
    ),
    _Figure(
        "Encoder–decoder cosine", "1 if the feature writes what it looks for.", "{encoder_decoder_cosine:.2f}", "",
    ),
    _Figure(
        "Tokens that both lists share", "Of the 100 nearest to the encoder's vector and to the decoder's.",
        "{lists_shared:,.0f}", "of 100",
    ),
    _Figure(
        "Tokens left out", "The direction was made from them, so they prove nothing.", "{left_out:,.0f}", "",
    ),
)
_LIST_FIGURES = (
    _Figure(
        f"First {FIRST} tokens that fire it", "Each token read alone.",
        "{hits:,.0f}", "{hits_chance:.1f} in lists of random directions",
    ),
    _Figure(
        "Tokens that fire it at all", "Of those that the list is judged on.", "{firing:,.0f}", "of {judged_on:,}",
    ),
    _Figure(
        "AUROC", "How often a token that fires it stands above one that does not.",
        "{auroc:.2f}", "{auroc_chance:.2f} in lists of random directions",
    ),
    _Figure(
        "Average precision", "Counts most what stands at the top.",
        "{average_precision:.3f}", "{average_precision_chance:.3f} in lists of random directions",
    ),
    _Figure("Random directions that do as well", "By average precision.", "{beaten_by:.0%}", "0% for a list to trust"),
    _Figure(
        "Tokens left out", "The direction was made from them, so they prove nothing.", "{left_out:,.0f}", "",
    ),
)

_WRITTEN_FIGURES = (
    _Figure(
        f"First {FIRST} tokens that change most", "When the model is pushed along the feature's decoder.",
        "{hits:,.0f}", "{hits_chance:.1f} in lists of random directions",
    ),
    _Figure(
        "Tokens that change most", "On average over neutral prompts; what the list should begin with.",
        "{rising:,.0f}", "of {judged_on:,}",
    ),
    _Figure(
        "Change of their log-probability", "Of the first and of the last of these tokens.",
        "{largest_change:+.1f} to {least_change:+.1f} nats", "",
    ),
    _Figure(
        "AUROC", "How often one of these tokens stands above another one.",
        "{auroc:.2f}", "{auroc_chance:.2f} in lists of random directions",
    ),
    _Figure(
        "Average precision", "Counts most what stands at the top.",
        "{average_precision:.3f}", "{average_precision_chance:.3f} in lists of random directions",
    ),
    _Figure("Random directions that do as well", "By average precision.", "{beaten_by:.0%}", "0% for a list to trust"),
)


def tree_verdict_html(evidence: dict | None) -> str:
    """A tree's evidence as HTML; empty if it has none."""
    if evidence is None:
        return ""
    return _verdict(evidence) + _judged(evidence) + _folded(_lines(_TREE_FIGURES, evidence))


def _judged(evidence: dict) -> str:
    """The definitions that the verdict speaks of, each with how strongly it fires the feature."""
    judged, most = judged_definitions(evidence)[:DEFINITIONS_JUDGED], feature_maximum(evidence)
    if not judged:
        return ""
    items = "".join(
        f'<li class="{"firing" if activation > 0 else "silent"}"><q>{escape(visible(text)[:_LONGEST_JUDGED])}</q> '
        f"<b>{fires_told(activation, most)}</b></li>"
        for text, activation in judged
    )
    share = "in shares of its maximum" if most else "as the SAE gives it, as the feature's maximum is not known here"
    return (
        f'<div class="judged"><p>Judged by the tree\'s likeliest beginnings (in the table {JUDGED}; {BEGINS_JUDGED} '
        f"begins so), each with how strongly the feature fires, {share}:</p><ul>{items}</ul></div>"
    )


def list_verdict_html(table: TokenTable, token_text: Callable[[int], str]) -> str:
    """A list's evidence as HTML; empty if it has none.

    Args:
        token_text: the text of a token by its id.
    """
    if table.evidence is None:
        return ""
    evidence = table.evidence
    lines = _lines(_WRITTEN_FIGURES if isinstance(evidence, WrittenEvidence) else _LIST_FIGURES, evidence.to_dict())
    in_texts = evidence.in_texts if isinstance(evidence, ListEvidence) else ()
    if ranks := ", ".join(f"<q>{_token(token_text(token_id))}</q> {rank:,}" for token_id, rank in in_texts):
        lines.append(_line("Ranks of tokens that fire it in texts", "From the contexts kept with this SAE.", ranks, ""))
    return _verdict(evidence.to_dict()) + _folded(lines)


def highlighted(activity: Sequence[tuple[str, float]]) -> str:
    """A text as HTML, each token as marked as the feature fires on it, and in words where it fires most."""
    most = max((value for _, value in activity), default=0.0)
    if most <= 0:
        summary = f"It does not fire on any of the {len(activity):,} tokens."
    else:
        firing = sorted((item for item in activity if item[1] > 0), key=lambda item: -item[1])
        strongest = " · ".join(
            f"<q>{_token(text)}</q> {value:.2f}" for text, value in firing[:_STRONGEST_SHOWN]
        )
        summary = f"It fires on {len(firing):,} of {len(activity):,} tokens, most on {strongest}"
    tokens = "".join(fired(text, value, most) for text, value in activity)
    return f'<p class="fires-summary">{summary}</p><div class="fires">{tokens}</div>'


def fired(text: str, value: float, most: float, attributes: str = "") -> str:
    """A token as HTML, as marked as it fires.

    Args:
        value: how strongly.
        most: the strongest of all tokens.
        attributes: others of its element, as HTML.
    """
    # Line ends are shown, and kept.
    shown = escape(visible(text.replace("\n", "⏎"))) + "\n" * text.count("\n")
    if value <= 0:
        return f"<span{attributes}>{shown}</span>"
    return f'<mark style="--fires: {value / most:.3f}" title="{value:.3f}"{attributes}>{shown}</mark>'


def _verdict(evidence: dict) -> str:
    verdict = evidence.get("verdict")
    verdict = verdict if isinstance(verdict, str) and verdict in MARKS else UNKNOWN
    mark, words = MARKS[verdict]
    sentence = visible(str(evidence.get("sentence", "")))[:_LONGEST_SENTENCE]
    return (
        f'<div class="verdict {verdict}" role="status"><span class="mark" role="img" aria-label="{words}">{mark}</span>'
        f"<span>{escape(sentence)}</span></div>"
    )


def _folded(lines: list[str]) -> str:
    if not lines:
        return ""
    return f'<details class="figures"><summary>The figures</summary><table>{"".join(lines)}</table></details>'


def _lines(figures: Sequence[_Figure], evidence: dict) -> list[str]:
    numbers = {name: value for name, value in evidence.items() if is_number(value)}
    lines = []
    for figure in figures:
        try:
            value, beside = (template.format_map(numbers) for template in (figure.value, figure.beside))
        except KeyError:
            continue
        lines.append(_line(figure.name, figure.help, escape(value), escape(beside)))
    return lines


def _line(name: str, help: str, value: str, beside: str) -> str:
    return (
        f'<tr><th scope="row">{escape(name)}<small>{escape(help)}</small></th>'
        f'<td class="value">{value}</td><td>{beside}</td></tr>'
    )


def _token(text: str) -> str:
    return escape(visible(text, spaces=True))
