"""Features that were found, on the page: a table whose rows are to be chosen, and a text whose tokens are.

What is told of features can come from anybody's atlas, and tokens from any model: all of it is escaped.
"""

from collections.abc import Sequence
from html import escape
from pathlib import Path

import gradio as gr

from multitool.errors import is_number
from multitool.evidence.figures import MARKS
from multitool.jobs.find import FoundFeature, FoundFeatures
from multitool.page.evidence_html import fired
from multitool.text import visible

WHOLE = -1  # what is chosen to leave a token for the whole text
_IN_PAGE = Path(__file__).with_name("found_in_page.js")
_LONGEST_TOLD = 300  # characters of a description
_HELP = {
    "cosine": "Of the angle between the directions",
    "activation": "How strongly it fires there",
    "above_prose": "Its maximum less that on plain prose",
    "maximum": "Its strongest activation on the text",
    "mean": "Of its activations on all tokens of the text",
    "fires_on": "How many tokens of the text it fires on",
    "prose": "The mean of its maxima on passages of plain prose",
    "score": "How much of its definitions and first tokens have the words",
    "verdict": "Whether its definitions fire it",
    "auroc": "How often it fires more strongly on one of its own definitions than on another feature's",
    "first_token_entropy": "In nats; lower: the model is surer of how a definition begins",
    "encoder_decoder_cosine": "1 if it writes what it looks for",
}


def choosable(elem_id: str, html: str = "", *, elem_classes: str = "greys") -> gr.HTML:
    """What ``feature_table``, ``text_tokens`` or ``card_html`` makes, on the page: a click on a row, a token or a
    feature, or Enter, is its event ``select``, whose data tell its ``number``."""
    return gr.HTML(
        html, js_on_load=_IN_PAGE.read_text(encoding="utf-8"), apply_default_css=False, elem_id=elem_id,
        elem_classes=elem_classes,
    )


def feature_table(found: FoundFeatures | None) -> str:
    """Features as HTML, each in a row to be chosen; nothing where there are none."""
    if found is None or not found.features:
        return ""
    others = {feature.sae for feature in found.features} != {found.settings.get("sae")}
    columns = "".join(f'<th scope="col" class="figure" {_help(name)}>{_heading(name)}</th>' for name in found.columns)
    rows = "".join(_row(number, feature, found.columns, others) for number, feature in enumerate(found.features))
    return (
        '<table class="found"><caption>Choose a feature, and its tree grows.</caption><thead><tr>'
        '<th scope="col">Feature</th><th scope="col">What is known of it</th>'
        f"{columns}</tr></thead><tbody>{rows}</tbody></table>"
    )


def _row(number: int, feature: FoundFeature, columns: Sequence[str], with_sae: bool) -> str:
    name, sae = f"{feature.feature:d}", visible(feature.sae)
    label = escape(f"{number + 1}: feature {name} of {sae}; grow its tree", quote=True)
    told = visible(feature.description)
    told = told if len(told) <= _LONGEST_TOLD else told[:_LONGEST_TOLD] + " …"
    figures = "".join(
        f'<td class="figure" data-name="{_heading(column)}">{_figure(feature.figures[column])}</td>'
        for column in columns
    )
    return (
        f'<tr data-number="{number}"><th scope="row"><button type="button" data-number="{number}" tabindex="0" '
        f'aria-label="{label}">{name}</button>{f"<small>{escape(sae)}</small>" if with_sae else ""}</th>'
        f'<td class="told">{escape(told)}</td>{figures}</tr>'
    )


def _heading(column: str) -> str:
    return escape(column.replace("_", " "), quote=True)


def _help(column: str) -> str:
    return f'title="{escape(_HELP[column], quote=True)}"' if column in _HELP else ""


def _figure(value: float | str | None) -> str:
    """A figure in three digits; a count as it is, a verdict in its words, and what is not known as a dash."""
    if isinstance(value, str):
        return " ".join(MARKS[value]) if value in MARKS else escape(visible(value))
    if not is_number(value):
        return "–"
    return f"{value:,}" if isinstance(value, int) else f"{value:.3g}"


def text_tokens(found: FoundFeatures | None, chosen: int | None = None) -> str:
    """The tokens of a text that features were found by, each to be chosen, as marked as one of these features fires on
    it more than on plain prose; nothing where they were not found by a text.

    Args:
        chosen: the token that is chosen, counted from 0.
    """
    if found is None or not found.tokens:
        return ""
    figures = {feature.feature: feature.figures["prose"] for feature in found.features}
    prose = {feature: value for feature, value in figures.items() if is_number(value)}
    fires = [
        max((activation - prose[feature] for feature, activation in token.features if feature in prose), default=0.0)
        for token in found.tokens
    ]
    most, first = max(fires), chosen or 0
    tokens = "".join(
        fired(
            token.token, value, most,
            f' role="button" data-number="{number}" tabindex="{0 if number == first else -1}" '
            f'aria-pressed="{"true" if number == chosen else "false"}"',
        )
        for number, (token, value) in enumerate(zip(found.tokens, fires, strict=True))
    )
    if chosen is None:
        told = "<span>Marked where the features below fire. Choose a token to see all that fires there.</span>"
    else:
        name = escape(visible(found.tokens[chosen].token, spaces=True))
        told = (
            f"<span>What fires on <q>{name}</q>, first what does so more than on plain prose.</span> "
            f'<button type="button" data-number="{WHOLE}" tabindex="0">Back to the whole text</button>'
        )
    return f'<p class="fires-summary">{told}</p><div class="fires tokens" role="group">{tokens}</div>'
