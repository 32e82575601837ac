"""The card of a feature as HTML. What it tells may be of anybody's model, SAE, atlas or label: all of it is escaped."""

from collections.abc import Sequence
from html import escape

from multitool.jobs.feature_card import FeatureCard, Firing, Histogram, Neighbour, Reading
from multitool.store.saes import Context
from multitool.text import percent, visible

_LONGEST_NAME = 120  # characters
_LONGEST_TOLD = 80
_CONTEXTS_SEEN = 4  # the others are folded with the details
_NEAREST_SEEN = 4
_BAR = 26  # pixels

_HELP = (
    ("Fires on", "where the feature is most active in {contexts_of}, the strongest first, with its activation there"),
    ("Tokens alone", "the tokens of the vocabulary on which it is most active, each read by itself"),
    ("Writes", "the tokens that the feature's decoder direction makes the model say, and those that it keeps from "
     "being said, read by the {lens}"),
    ("How often", "on how many tokens of plain prose it fires, and how strongly"),
    ("Nearest features", "those of the same SAE whose decoder directions are nearest, by the cosine"),
)


def card_html(card: FeatureCard, reading: Reading | None = None, words: str = "") -> str:
    """A card.

    Args:
        reading: what a tree of the feature says that it means.
        words: what is being waited for.
    """
    alone = "" if _alone(card.contexts) else _strongest(card.strongest)  # the contexts of an embedding are such tokens
    columns = [
        _fires_on(card), alone + _written(card),
        _how_often(card.histogram) + _nearest(card.nearest),
    ]
    filled = "".join(f"<div>{column}</div>" for column in columns if column)
    waiting = f'<p class="quiet" aria-live="off">{escape(visible(words))}</p>' if words else ""
    return (
        f'<section class="feature-card" aria-label="Feature card">{_head(card, reading)}'
        f'<div class="card-columns">{filled}</div>{waiting}{_details(card)}</section>'
    )


def _head(card: FeatureCard, reading: Reading | None) -> str:
    name = _cut(f"{card.sae} · feature {card.feature}", _LONGEST_NAME)
    sentence = reading.sentence if reading else ""
    if sentence:
        told = f'<p class="reads">{escape(visible(sentence))}</p>'
    elif card.described:
        told = f'<p class="reads">Known of it: {escape(visible(card.described))}</p>'
    else:
        told = ""
    label = f'<p class="label">Neuronpedia’s label: <q>{escape(visible(card.label))}</q></p>' if card.label else ""
    return f"<h3>{escape(name)}</h3>{told}{label}"


def _fires_on(card: FeatureCard) -> str:
    return _titled("Fires on", _contexts(card.contexts[:_seen(card)])) if card.contexts else ""


def _seen(card: FeatureCard) -> int:
    """How many contexts are not folded: lone tokens take little room."""
    return len(card.contexts) if _alone(card.contexts) else _CONTEXTS_SEEN


def _alone(contexts: Sequence[Context]) -> bool:
    return bool(contexts) and not any(context.before or context.after for context in contexts)


def _contexts(contexts: Sequence[Context]) -> str:
    items = "".join(
        f"<li>{_text(one.before)}<mark>{_text(one.token)}</mark>{_text(one.after)} "
        f"<small>{one.activation:.3g}</small></li>"
        for one in contexts
    )
    return f'<ul class="{"tokens" if _alone(contexts) else "contexts"}">{items}</ul>'


def _strongest(tokens: Sequence[Firing]) -> str:
    return _titled("Tokens alone", _tokens(tokens)) if tokens else ""


def _written(card: FeatureCard) -> str:
    if card.written is None:
        return ""
    return (
        _titled("Writes", _tokens(card.written.more, "+"), card.written.lens)
        + _titled("Writes less", _tokens(card.written.less, "−"))
    )


def _tokens(tokens: Sequence[Firing], sign: str = "") -> str:
    name = f' data-sign="{sign}"' if sign else ""
    items = "".join(
        f'<li title="{one.value:.3g}">{escape(visible(one.token.strip(), spaces=True))}</li>' for one in tokens
    )
    return f'<ul class="tokens"{name}>{items}</ul>'


def _how_often(histogram: Histogram | None) -> str:
    if histogram is None:
        return ""
    of = visible(histogram.of)
    if not histogram.firing:
        return _titled("How often", "", f"on none of {of}")
    told = f"on {percent(histogram.share)} of {of}"
    highest = max(histogram.counts)
    width = histogram.most / len(histogram.counts)
    bars = "".join(
        f'<i style="height: {max(1 if count else 0, round(_BAR * count / highest))}px" '
        f'title="{count:,} at {number * width:.3g} to {(number + 1) * width:.3g}"></i>'
        for number, count in enumerate(histogram.counts)
    )
    label = escape(f"{told}, at most {histogram.most:.3g}", quote=True)
    return _titled("How often", f'<div class="bars" role="img" title="{label}" aria-label="{label}">{bars}</div>', told)


def _nearest(neighbours: Sequence[Neighbour]) -> str:
    if not neighbours:
        return ""
    items = "".join(
        f'<li><button type="button" data-number="{one.feature:d}" tabindex="0" aria-label="feature {one.feature:d}: '
        f'show it and grow its tree">{one.feature:d}</button> <small>{one.cosine:.2f}</small> '
        f'<span title="{escape(visible(one.description), quote=True)}">{_text(_cut(one.description))}</span></li>'
        for one in neighbours[:_NEAREST_SEEN]
    )
    return _titled("Nearest features", f'<ul class="nearest">{items}</ul>')


def _details(card: FeatureCard) -> str:
    """What the parts are; the contexts that are left; Neuronpedia's page."""
    there = {
        "Fires on": card.contexts, "Tokens alone": () if _alone(card.contexts) else card.strongest,
        "Writes": card.written, "How often": card.histogram, "Nearest features": card.nearest,
    }
    lens = card.written.lens if card.written else ""
    told = "".join(
        f"<dt>{name}</dt><dd>{escape(what.format(contexts_of=card.contexts_of, lens=lens))}</dd>"
        for name, what in _HELP if there[name]
    )
    more = _contexts(card.contexts[_seen(card):]) if len(card.contexts) > _seen(card) else ""
    page = ""
    if card.page:
        url = escape(card.page, quote=True)
        page = (
            f'<p class="neuronpedia"><a href="{url}" target="_blank" rel="noopener">Neuronpedia: feature '
            f'{card.feature}</a></p><iframe src="{url}?embed=true" title="Neuronpedia" loading="lazy"></iframe>'
        )
    if not (told or more or page):
        return ""
    return f'<details><summary>Details</summary>{more}<dl>{told}</dl>{page}</details>'


def _titled(title: str, content: str, beside: str = "") -> str:
    beside = f" <small>{escape(beside)}</small>" if beside else ""
    return f"<h4>{title}{beside}</h4>{content}"


def _text(text: str) -> str:
    return escape(visible(text.replace("\r\n", "↵").replace("\n", "↵")))


def _cut(text: str, longest: int = _LONGEST_TOLD) -> str:
    text = visible(text)
    return text if len(text) <= longest else text[: longest - 1] + "…"
