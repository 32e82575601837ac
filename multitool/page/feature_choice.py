"""Choosing a feature on the page: its model, its SAE and its number."""

import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import gradio as gr

from multitool.errors import UserError, shown
from multitool.page.common import QUIETLY, event
from multitool.page.opening import Opening
from multitool.page.sae_choice import SaeChoice, sae_choice
from multitool.page.service import Service
from multitool.page.terms_panel import terms_panel
from multitool.recipes.weighted_sums import LONGEST
from multitool.store.entries import SaeEntry
from multitool.store.library import Library

_RANDOM = "Random"
_STEPS = {
    "◀ Previous": lambda feature, d_sae: (feature - 1) % d_sae,
    _RANDOM: lambda feature, d_sae: random.randrange(d_sae),
    "Next ▶": lambda feature, d_sae: (feature + 1) % d_sae,
}


@dataclass(frozen=True)
class FeatureChoice:
    """The controls that choose a feature."""

    saes: SaeChoice
    feature: gr.Textbox
    find: gr.Button  # leads to where features are found
    chosen: tuple[Callable, ...]  # what a visitor chooses a feature by, Enter and the steps: each takes an event

    @property
    def model(self) -> gr.Dropdown:
        return self.saes.model

    @property
    def sae(self) -> gr.Dropdown:
        return self.saes.sae


def feature_choice(service: Service, opening: Opening) -> FeatureChoice:
    """Build the controls, set to ``opening``."""
    library, recipe, entry = service.library, opening.recipe, opening.entry
    saes = sae_choice(library, opening)
    sae = saes.sae
    terms_panel(service, sae)
    feature = gr.Textbox(
        str(recipe.feature), label="Feature", max_lines=1, max_length=LONGEST, elem_id="feature", info=_range(entry),
    )
    with gr.Row():
        steps = {name: gr.Button(name, size="sm", min_width=60) for name in _STEPS}
    find = gr.Button("Find a feature by a word or a text …", size="sm", elem_id="to-find")

    def of_sae(sae: str) -> dict:
        return gr.update(info=_range(library.find(sae)))

    sae.change(**event(of_sae, {"sae": sae}, feature, **QUIETLY))
    stepped = [
        button.click(**event(
            partial(_step, library, name), {"sae": sae, "feature": feature}, feature, show_progress_on=feature
        ))
        for name, button in steps.items()
    ]
    return FeatureChoice(saes, feature, find, (feature.submit, *(step.success for step in stepped)))


def _step(library: Library, name: str, sae: str, feature: str) -> str:
    """The number that a button of ``_STEPS`` leads to."""
    entry, number = library.find(sae), feature_number(feature)
    if number is None and name != _RANDOM:
        raise UserError(f"feature is {shown(feature)}; only the number of one feature has neighbours.")
    # Few registry entries do not tell their width; then the SAE itself does.
    return str(_STEPS[name](number, entry.d_sae or library.sae(entry).d_sae))


def _range(entry: SaeEntry) -> str:
    numbers = f"0 to {entry.d_sae - 1:,}" if entry.d_sae else "From 0 up"
    return f"{numbers}; or several, e.g. `12 - 45*0.5`"


def feature_number(feature: str | None) -> int | None:
    """The feature's number that is typed; None if it is none, or several with weights."""
    text = (feature or "").strip()
    return int(text) if re.fullmatch("[0-9]{1,15}", text) else None


