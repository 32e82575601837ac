"""Choosing a feature on the page: its model, its SAE and its number."""

import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from html import escape

import gradio as gr

from multitool.errors import UserError, shown
from multitool.page.common import QUIETLY, event, pick
from multitool.page.opening import Opening
from multitool.page.service import Service
from multitool.page.terms_panel import terms_panel
from multitool.recipes.weighted_sums import LONGEST
from multitool.store.demo_models import terms_of
from multitool.store.entries import SaeEntry
from multitool.store.library import Library
from multitool.store.registry import models, saes

_RANDOM = "Random"
_STEPS = {
    "◀ Previous": lambda feature, d_sae: (feature - 1) % d_sae,
    _RANDOM: lambda feature, d_sae: random.randrange(d_sae),
    "Next ▶": lambda feature, d_sae: (feature + 1) % d_sae,
}


@dataclass(frozen=True)
class FeatureChoice:
    """The controls that choose a feature."""

    model: gr.Dropdown
    sae: gr.Dropdown
    feature: gr.Textbox
    find: gr.Button  # leads to where features are found
    about: gr.HTML  # what the SAE is
    chosen: tuple[Callable, ...]  # what a visitor chooses a feature by, Enter and the steps: each takes an event


def feature_choice(service: Service, opening: Opening) -> FeatureChoice:
    """Build the controls, set to ``opening``."""
    library, recipe, entry = service.library, opening.recipe, opening.entry
    with gr.Group():
        model = gr.Dropdown(
            models(library.patterns), value=entry.model, label="Model", elem_id="model",
            info="Fetched when a tree or a list first needs it",
        )
        sae = gr.Dropdown(
            sae_names(library, entry.model), value=recipe.sae, label="SAE", allow_custom_value=True, filterable=True,
            elem_id="sae", info="RELEASE/SAE_ID as in sae-lens; type to search",
        )
        feature = gr.Textbox(
            str(recipe.feature), label="Feature", max_lines=1, max_length=LONGEST, elem_id="feature",
            info=_range(entry),
        )
    terms_panel(service, sae)
    with gr.Row():
        steps = {name: gr.Button(name, size="sm", min_width=60) for name in _STEPS}
    find = gr.Button("Find a feature by a word or a text …", size="sm", elem_id="to-find")
    about = gr.HTML(about_sae(library, recipe.sae), elem_id="sae-about")

    def of_sae(sae: str, model: str | None) -> dict:
        """The model and the range of another SAE, and the SAEs beside it."""
        entry = library.find(sae)
        beside = gr.skip() if entry.model == model else gr.update(choices=sae_names(library, entry.model))
        return {"model": entry.model, "feature": gr.update(info=_range(entry)), "sae": beside}

    chosen = {"model": model, "sae": sae, "feature": feature}
    sae.change(**event(of_sae, pick(chosen, ("sae", "model")), chosen, **QUIETLY))
    stepped = [
        button.click(**event(
            partial(_step, library, name), pick(chosen, ("sae", "feature")), feature, show_progress_on=feature
        ))
        for name, button in steps.items()
    ]
    return FeatureChoice(model, sae, feature, find, about, (feature.submit, *(step.success for step in stepped)))


def sae_names(library: Library, model: str | None) -> list[str]:
    """The SAEs of a model that visitors may load."""
    return [entry.name for entry in saes(patterns=library.patterns) if entry.model == model]


def entry_shown(library: Library, sae: str | None) -> SaeEntry | None:
    """The entry of the SAE that the control shows; None while it shows none that can be had."""
    return library.find(sae) if sae and library.offers(sae) else None


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


def about_sae(library: Library, sae: str | None) -> str:
    """Where the SAE that the control shows was trained, and what loading its model takes; nothing if it is no SAE."""
    entry = entry_shown(library, sae)
    return f'<p class="about">{_about(entry, here=library.has(entry))}</p>' if entry else ""


def _about(entry: SaeEntry, here: bool) -> str:
    """Where an SAE was trained, and what loading its model takes unless it is here already."""
    where = "token embeddings" if entry.kind == "embed" else f"layer {entry.layer}"
    about = f"Trained on {where} of {escape(entry.model)} (<code>{escape(entry.hook)}</code>)."
    if entry.licence_page and not here and not terms_of(entry.model):  # those have a panel of their own
        page = escape(entry.licence_page, quote=True)
        about += f' Its <a href="{page}" target="_blank" rel="noopener">licence</a> must be accepted first.'
    return about
