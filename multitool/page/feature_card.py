"""The panel above all results: the card of the feature that the controls show.

It is shown as soon as a feature is chosen, from what lies here; what takes reading comes after the visitor's own tree,
which has loaded model and SAE by then.
"""

import contextlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial, wraps

import gradio as gr
from gradio.components import Component

from multitool.errors import UserError
from multitool.jobs.feature_card import FeatureCard, Reading, card_from, reading_of
from multitool.page.card_html import card_html
from multitool.page.common import LATEST, event, pick
from multitool.page.feature_choice import feature_number
from multitool.page.found_html import choosable
from multitool.page.opening import DEMO, Opening
from multitool.page.service import Service
from multitool.page.vector_controls import VectorControls
from multitool.page.vector_upload import OwnVector
from multitool.recipes.directions import DIRECTIONS
from multitool.store.demo_models import DEMO_FOLDER
from multitool.trees.document import DefinitionTree

# The card of the demo's opening feature is kept, as its tree is, so that the page opens on it.
DEMO_CARD = DEMO_FOLDER / "opening_card.json"
_OF = ("sae", "feature", "weights", "vector")  # the controls that tell which card is shown


@dataclass(frozen=True)
class Read:
    """What a tree says of the feature that it is of."""

    sae: str
    feature: int
    reading: Reading


class CardPanel:
    """The panel, and what fills it.

    Attributes:
        card: its event ``select`` tells the ``number`` of another feature of the SAE, which a visitor has chosen.
    """

    def __init__(self, service: Service, controls: VectorControls, opening: Opening):
        self._service = service
        opened = opening_card(opening)
        if opened:
            service.keep_card(opened)
        read = Read(opened.sae, opened.feature, opened.reading) if opened and opened.reading else None
        self._read = gr.State(read)
        self._of = pick(controls.fields, _OF)
        shown = {"sae": opening.recipe.sae, "feature": str(opening.recipe.feature), "weights": opening.recipe.weights}
        self.card = choosable("card", _at_once(service, read, **shown), elem_classes="")
        takes = {**self._of, "read": self._read}
        at_once = event(partial(_at_once, service), takes, self.card, **LATEST)
        self._filling = event(
            _silent(service, partial(_filled, service)), takes, self.card, trigger_mode="always_last",
            show_progress="hidden", concurrency_limit=None,
        )
        gr.on([control.change for control in self._of.values()], **at_once).then(**self._filling)

    def tell_after(self, making: Callable, document: Component) -> None:
        """After the event that made a tree, or judged it, or opened it: what it says of the feature; and what model and
        SAE, which are loaded now, tell of it."""
        making(**event(
            _silent(self._service, partial(_told, self._service)), {**self._of, "document": document},
            {"card": self.card, "read": self._read}, shelf=self._service.shelf, trigger_mode="always_last",
            show_progress="hidden", concurrency_limit=None,
        ))


def opening_card(opening: Opening) -> FeatureCard | None:
    """The card that the page opens with, where it is kept."""
    return card_from(json.loads(DEMO_CARD.read_text(encoding="utf-8"))) if opening.recipe == DEMO else None


def _silent(service: Service, handler: Callable[..., Iterator]) -> Callable[..., Iterator]:
    """The handler, counted as its caller's; where that is refused, or fails, it ends without a word: nobody has asked
    for it."""
    counting = service.light_callers.counting(handler)

    @wraps(counting)
    def silent(*args, **kwargs):
        with contextlib.suppress(UserError):
            yield from counting(*args, **kwargs)

    return silent


def _feature_shown(
    service: Service, sae: str | None, feature: str | None, weights: str | None, vector: OwnVector | None = None
) -> tuple[str, int] | None:
    """SAE and number of the one feature that the controls show; None if there is none, or it has no part in the
    vector.

    Args:
        vector: one of the visitor's own in its place.
    """
    number = feature_number(feature)
    if vector is not None or not sae or number is None or not service.library.offers(sae):
        return None
    return None if weights in DIRECTIONS and not DIRECTIONS[weights].of_feature else (sae, number)


def _at_once(service: Service, read: Read | None, **controls) -> str:
    """The card as far as it is known without a wait."""
    shown = _feature_shown(service, **controls)
    return card_html(service.card_at_once(*shown), _of_tree(read, *shown)) if shown else ""


def _of_tree(read: Read | None, sae: str, number: int) -> Reading | None:
    return read.reading if read and (read.sae, read.feature) == (sae, number) else None


def _filled(service: Service, read: Read | None, **controls) -> Iterator[str]:
    """The card with what the weights tell, where they lie here."""
    if shown := _feature_shown(service, **controls):
        yield from _filling(service, *shown, _of_tree(read, *shown))


def _filling(service: Service, sae: str, number: int, reading: Reading | None, *, read: bool = False) -> Iterator[str]:
    """The card as it fills; with in words what it waits for."""
    card = service.card_at_once(sae, number)
    for answer in service.card(sae, number, read=read):
        if isinstance(answer, FeatureCard):
            card = answer
        yield card_html(card, reading, "" if isinstance(answer, FeatureCard) else answer)


def _told(service: Service, document: DefinitionTree | None, **controls) -> Iterator[dict]:
    """What a tree says of its feature; then, if the controls still show that, all of the card."""
    shown = _feature_shown(service, **controls)
    if document is None or shown is None or not _is_of(document, *shown):
        yield {"read": None}
        return
    sae, number = shown
    card, reading = service.card_at_once(sae, number), reading_of(document)
    yield {"read": Read(sae, number, reading), "card": card_html(card, reading)}
    for answer in service.reading(document):
        if isinstance(answer, Reading):
            reading = answer
            yield {"read": Read(sae, number, reading), "card": card_html(card, reading)}
    for html in _filling(service, sae, number, reading, read=True):
        yield {"card": html}


def _is_of(document: DefinitionTree, sae: str, number: int) -> bool:
    """Whether a tree is of a feature, and of no vector of somebody's own in its place."""
    settings = document.settings
    return not settings.get("vector") and (settings.get("sae"), settings.get("feature")) == (sae, number)
