"""Evidence on the page: a verdict with its mark, the figures behind it, and a text with what fires in it.

A saved tree brings its evidence with it, so all of it is treated as anybody's: text is escaped, and figures count only
if they are numbers.
"""

from collections.abc import Callable, Sequence
from html import escape

from multitool.evidence.figures import IN_TEXTS, IN_TEXTS_HELP, MARKS, Line, list_lines, tree_lines, verdict_of
from multitool.evidence.verdicts import DEFINITIONS_JUDGED, ListEvidence
from multitool.jobs.token_table import TokenTable
from multitool.recipes.captions import fires_told
from multitool.text import visible
from multitool.trees.document import feature_maximum, judged_definitions

_LONGEST_SENTENCE = 500
_LONGEST_JUDGED = 200
# In the table of definitions: one of those that the verdict speaks of, and one that begins as one of them.
JUDGED, BEGINS_JUDGED = "●", "◐"
_STRONGEST_SHOWN = 8


def tree_verdict_html(evidence: dict | None) -> str:
    """A tree's evidence as HTML; empty if it has none."""
    if evidence is None:
        return ""
    return _verdict(evidence) + _judged(evidence) + _folded(_rows(tree_lines(evidence)))


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
        f"begins this way), each with how strongly the feature fires, {share}:</p><ul>{items}</ul></div>"
    )


def list_verdict_html(table: TokenTable, token_text: Callable[[int], str]) -> str:
    """A list's evidence as HTML; empty if it has none.

    Args:
        token_text: the text of a token by its id.
    """
    if table.evidence is None:
        return ""
    evidence = table.evidence
    rows = _rows(list_lines(evidence.to_dict()))
    in_texts = evidence.in_texts if isinstance(evidence, ListEvidence) else ()
    if ranks := ", ".join(f"<q>{_token(token_text(token_id))}</q> {rank:,}" for token_id, rank in in_texts):
        rows.append(_row(IN_TEXTS, IN_TEXTS_HELP, ranks, ""))
    return _verdict(evidence.to_dict()) + _folded(rows)


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
    verdict = verdict_of(evidence)
    mark, words = MARKS[verdict]
    sentence = visible(str(evidence.get("sentence", "")))[:_LONGEST_SENTENCE]
    return (
        f'<div class="verdict {verdict}" role="status"><span class="mark" role="img" aria-label="{words}">{mark}</span>'
        f"<span>{escape(sentence)}</span></div>"
    )


def _folded(rows: list[str]) -> str:
    if not rows:
        return ""
    caption = '<caption class="unseen">The figures of the verdict, beside those of chance</caption>'
    return f'<details class="figures"><summary>Details</summary><table>{caption}{"".join(rows)}</table></details>'


def _rows(lines: Sequence[Line]) -> list[str]:
    return [_row(line.name, line.help, escape(line.value), escape(line.beside)) for line in lines]


def _row(name: str, help: str, value: str, beside: str) -> str:
    return (
        f'<tr><th scope="row">{escape(name)}<small>{escape(help)}</small></th>'
        f'<td class="value">{value}</td><td>{beside}</td></tr>'
    )


def _token(text: str) -> str:
    return escape(visible(text, spaces=True))
