"""Choosing a feature on the page: its model, its SAE and its number; and what is known of it beside its weights."""

import random
import re
from dataclasses import dataclass
from functools import partial
from html import escape

import gradio as gr

from multitool.errors import UserError, shown
from multitool.page.common import QUIETLY, event, pick
from multitool.page.opening import Opening
from multitool.page.service import Service
from multitool.page.terms_panel import terms_panel
from multitool.recipes.directions import DIRECTIONS
from multitool.recipes.weighted_sums import LONGEST
from multitool.store.demo_models import terms_of
from multitool.store.entries import SaeEntry
from multitool.store.library import Library
from multitool.store.registry import models, saes
from multitool.store.saes import strongest_contexts
from multitool.text import visible

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
    known: gr.HTML  # what is known of the feature


def feature_choice(service: Service, opening: Opening) -> FeatureChoice:
    """Build the controls, set to ``opening``, and what is known of the feature under them."""
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
    known = gr.HTML(known_of_feature(library, recipe.sae, str(recipe.feature), recipe.weights), elem_id="evidence")

    def of_sae(sae: str, model: str | None) -> dict:
        """The model and the range of another SAE, and the SAEs beside it."""
        entry = library.find(sae)
        beside = gr.skip() if entry.model == model else gr.update(choices=sae_names(library, entry.model))
        return {"model": entry.model, "feature": gr.update(info=_range(entry)), "sae": beside}

    chosen = {"model": model, "sae": sae, "feature": feature}
    sae.change(**event(of_sae, pick(chosen, ("sae", "model")), chosen, **QUIETLY))
    for name, button in steps.items():
        stepping = partial(_step, library, name)
        button.click(**event(stepping, pick(chosen, ("sae", "feature")), feature, show_progress_on=feature))
    return FeatureChoice(model, sae, feature, find, known)


def sae_names(library: Library, model: str | None) -> list[str]:
    """The SAEs of a model that visitors may load."""
    return [entry.name for entry in saes(patterns=library.patterns) if entry.model == model]


def entry_shown(library: Library, sae: str | None) -> SaeEntry | None:
    """The entry of the SAE that the control shows; None while it shows none that can be had."""
    return library.find(sae) if sae and library.offers(sae) else None


def _step(library: Library, name: str, sae: str, feature: str) -> str:
    """The number that a button of ``_STEPS`` leads to."""
    entry, number = library.find(sae), _number(feature)
    if number is None and name != _RANDOM:
        raise UserError(f"feature is {shown(feature)}; only the number of one feature has neighbours.")
    # Few registry entries do not tell their width; then the SAE itself does.
    return str(_STEPS[name](number, entry.d_sae or library.sae(entry).d_sae))


def _range(entry: SaeEntry) -> str:
    numbers = f"0 to {entry.d_sae - 1:,}" if entry.d_sae else "From 0 up"
    return f"{numbers}; or several, e.g. `12 - 45*0.5`"


def _number(feature: str | None) -> int | None:
    """The feature's number that is typed; None if it is none, or several with weights."""
    text = (feature or "").strip()
    return int(text) if re.fullmatch("[0-9]{1,15}", text) else None


def known_of_feature(library: Library, sae: str | None, feature: str | None, weights: str | None = None) -> str:
    """The SAE and what is known of its feature, for what the controls show; nothing if that is no SAE.

    Of several features with weights nothing is known: their contexts are each one's own. Nor is anything told where
    the feature has no part in the vector.
    """
    entry, number = entry_shown(library, sae), _number(feature)
    if entry is None:
        return ""
    about = f'<p class="about">{_about(entry, here=library.has(entry))}</p>'
    if number is None or (weights in DIRECTIONS and not DIRECTIONS[weights].of_feature):
        return about
    return about + _evidence(entry, number)


def _about(entry: SaeEntry, here: bool) -> str:
    """Where an SAE was trained, and what loading its model takes unless it is here already."""
    where = "token embeddings" if entry.kind == "embed" else f"layer {entry.layer}"
    about = f"Trained on {where} of {escape(entry.model)} (<code>{escape(entry.hook)}</code>)."
    if entry.licence_page and not here and not terms_of(entry.model):  # those have a panel of their own
        page = escape(entry.licence_page, quote=True)
        about += f' Its <a href="{page}" target="_blank" rel="noopener">licence</a> must be accepted first.'
    return about


def _evidence(entry: SaeEntry, feature: int) -> str:
    """What is known of a feature besides its weights: where it fired, its page on Neuronpedia."""
    parts = []
    contexts = strongest_contexts(entry, feature)
    if contexts:
        title = "Strongest tokens" if entry.kind == "embed" else "Strongest contexts"
        rows = "".join(
            f"<li>{_text(context.before)}<mark>{_text(context.token, spaces=not context.before)}</mark>"
            f"{_text(context.after)}</li>"
            for context in contexts
        )
        kind = "tokens" if entry.kind == "embed" else "contexts"
        parts.append(f'<div class="contexts {kind}"><b>{title}</b><ul>{rows}</ul></div>')
    if entry.neuronpedia_id:
        url = escape(f"https://neuronpedia.org/{entry.neuronpedia_id}/{feature}", quote=True)
        parts.append(
            f'<div class="neuronpedia"><a href="{url}" target="_blank" rel="noopener">Neuronpedia: feature {feature}'
            f'</a><iframe src="{url}?embed=true" title="Neuronpedia" loading="lazy"></iframe></div>'
        )
    return "".join(parts)


def _text(text: str, *, spaces: bool = False) -> str:
    return escape(visible(text, spaces=spaces))
