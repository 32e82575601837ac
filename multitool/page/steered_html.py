"""Continuations of a text on the page: the unsteered one and the steered ones as cards beside each other.

Tokens can come from any model and the text from anybody: all of it is escaped.
"""

from html import escape

from multitool.jobs.continuation import SteeredText, SteeredTexts
from multitool.page.evidence_html import fired
from multitool.text import percent, visible

_LONGEST_ASKED = 160  # characters of the text that are repeated in each card: its end


def steered_cards(found: SteeredTexts | None) -> str:
    """As HTML; nothing where nothing is written yet."""
    if found is None or not found.continuations:
        return ""
    most = max((max(one.activations, default=0.0) for one in found.continuations if one.activations), default=0.0)
    told = ""
    if all(one.activations is not None for one in found.continuations):
        told = (
            "Marked: where the feature fires when the unsteered model reads the text."
            if most > 0 else "The feature fires on none of these texts when the unsteered model reads them."
        )
    cards = "".join(_card(one, found.settings["text"], most) for one in found.continuations)
    return f'<p class="fires-summary">{told}</p><div class="steered">{cards}</div>'


def _card(one: SteeredText, asked: str, most: float) -> str:
    fires = one.activations or (0.0,) * len(one.tokens)
    written = "".join(fired(token, value, most) for token, value in zip(one.tokens, fires, strict=True))
    end = '<span class="end" title="The model ended the text here">■</span>' if one.ended else "…"
    caution = f'<p class="caution">{escape(one.caution)}</p>' if one.caution else ""
    return (
        f'<section class="{_kind(one.strength)}"><h3>{_name(one.strength)}</h3>'
        f'<p class="written"><span class="asked">{_asked(asked)}</span>{written}{end}</p>{caution}{_figures(one)}'
        "</section>"
    )


def _asked(text: str) -> str:
    short = text if len(text) <= _LONGEST_ASKED else "… " + text[-_LONGEST_ASKED:]
    return "\n".join(escape(visible(line)) for line in short.splitlines())


def _kind(strength: float) -> str:
    return "toward" if strength > 0 else "away" if strength < 0 else "unsteered"


def _name(strength: float) -> str:
    return f"{strength:+g}".replace("-", "−") if strength else "Unsteered"


def _figures(one: SteeredText) -> str:
    if one.log_probability is None or one.repetition is None:
        return ""
    said = f"{one.log_probability:.2f} nats a token".replace("-", "−")
    return (
        '<p class="figures-line"><span title="The mean log-probability of its tokens under the unsteered model">'
        f'{said}</span> · <span title="Of its runs of four tokens, those that have occurred in it before">'
        f"{percent(one.repetition)} repeated</span></p>"
    )
