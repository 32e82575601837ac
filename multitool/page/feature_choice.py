"""Choosing a feature on the page: its SAE and its number; and what is known of it beside its weights."""

import random
import re
from dataclasses import dataclass
from functools import partial
from html import escape

import gradio as gr

from multitool.errors import UserError, shown
from multitool.page.common import QUIETLY, event
from multitool.page.opening import Opening
from multitool.page.sae_choice import SaeChoice, entry_shown, sae_choice
from multitool.page.service import Service
from multitool.page.terms_panel import terms_panel
from multitool.recipes.directions import DIRECTIONS
from multitool.recipes.weighted_sums import LONGEST
from multitool.store.entries import SaeEntry
from multitool.store.library import Library
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

    saes: SaeChoice
    feature: gr.Textbox
    find: gr.Button  # leads to where features are found
    known: gr.HTML  # what is known of the feature

    @property
    def model(self) -> gr.Dropdown:
        return self.saes.model

    @property
    def sae(self) -> gr.Dropdown:
        return self.saes.sae


def feature_choice(service: Service, opening: Opening) -> FeatureChoice:
    """Build the controls, set to ``opening``, and what is known of the feature under them."""
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
    known = gr.HTML(known_of_feature(library, recipe.sae, str(recipe.feature), recipe.weights), elem_id="evidence")

    def of_sae(sae: str) -> dict:
        return gr.update(info=_range(library.find(sae)))

    sae.change(**event(of_sae, {"sae": sae}, feature, **QUIETLY))
    for name, button in steps.items():
        stepping = partial(_step, library, name)
        button.click(**event(stepping, {"sae": sae, "feature": feature}, feature, show_progress_on=feature))
    return FeatureChoice(saes, feature, find, known)


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
    """What is known of the feature that the controls show; nothing if they show none.

    Of several features with weights nothing is known: their contexts are each one's own. Nor is anything told where
    the feature has no part in the vector.
    """
    entry, number = entry_shown(library, sae), _number(feature)
    if entry is None or number is None or (weights in DIRECTIONS and not DIRECTIONS[weights].of_feature):
        return ""
    return _evidence(entry, number)


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
