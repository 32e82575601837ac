"""The controls for a feature and its vector, which the tree and the token list share."""

import random
from dataclasses import dataclass
from html import escape

import gradio as gr

from multitool.errors import UserError, shown
from multitool.loading import Library, strongest_contexts
from multitool.recipe import VectorRecipe
from multitool.registry import demo_saes, find_sae, operator_saes
from multitool.subject import Subject
from multitool.text import visible
from multitool.ui_common import PRIVATE, shown_errors
from multitool.vector import DIRECTIONS

# Measured on the demo's layers; the README's limits say the same.
_NOT_AMONG_EMBEDDINGS = (
    "This model's layers write in other directions than its embeddings lie in, so trees and lists of this SAE's "
    "features say little: here the method ends. What the feature fires on, below, says more."
)


@dataclass(frozen=True)
class FeatureControls:
    """The controls that tree and list share, in the order in which handlers get their values."""

    sae: gr.Dropdown
    feature: gr.Number
    weights: gr.Radio
    encoder_share: gr.Slider
    centroid: gr.Checkbox
    scale: gr.Slider
    first_component: gr.Slider
    more_components: gr.Textbox

    def all(self) -> list:
        return list(vars(self).values())


def feature_controls(library: Library, opening: VectorRecipe) -> FeatureControls:
    """Build the controls, set to ``opening``, and what is known of the feature beside them."""
    sae, subject = library.load(find_sae(opening.sae))
    names = [entry.name for entry in (*demo_saes(), *operator_saes())]
    with gr.Group():
        sae_box = gr.Dropdown(
            names, value=opening.sae, label="SAE", allow_custom_value=True, filterable=True, elem_id="sae",
            info="RELEASE/SAE_ID; type any residual-stream SAE of sae-lens' registry",
        )
        feature = gr.Number(
            opening.feature, label="Feature", precision=0, minimum=0, elem_id="feature", info=_range(sae.d_sae),
        )
    with gr.Row():
        steps = {
            "◀ Previous": lambda feature, d_sae: (feature - 1) % d_sae,
            "Random": lambda feature, d_sae: random.randrange(d_sae),
            "Next ▶": lambda feature, d_sae: (feature + 1) % d_sae,
        }
        step_buttons = {name: gr.Button(name, size="sm", min_width=60) for name in steps}
    evidence = gr.HTML(_evidence(opening.sae, opening.feature), elem_id="evidence")
    with gr.Group():
        weights = gr.Radio(
            list(DIRECTIONS), value=opening.weights, label="Weights", elem_id="weights",
            info="Encoder: what the feature looks for. Decoder: what it writes.",
        )
        share = gr.Slider(0, 1, opening.encoder_share, step=0.05, label="Encoder's share of the mix", visible=False)
        scale = gr.Slider(
            0.1, 10, _usual_scale(subject), step=0.01, label="Scale", elem_id="scale",
            info="Distance from the starting point; at first as far out as a usual token",
        )
        centroid = gr.Checkbox(
            opening.centroid, label="Start from the centroid",
            info="The mean of all token embeddings; without it, from zero",
        )
    with gr.Accordion("Principal components", open=False):
        component = gr.Slider(
            0, 1, 0, step=0.01, label="Weight of the first component",
            info="Mixed into the direction, which keeps the rest. The distance then differs from the scale.",
        )
        more = gr.Textbox("", label="Weights of further components", placeholder="e.g. 0.1, -0.05", max_lines=1)

    def step(name: str):
        def handler(sae_name: str, feature: int | None) -> int:
            sae, _ = library.load(find_sae(sae_name))
            return steps[name](int(feature or 0), sae.d_sae)

        return shown_errors(handler)

    def switch(name: str):
        """Load another SAE and its model; the feature's range and the scale follow."""
        sae, subject = library.load(find_sae(name))
        return gr.update(info=_range(sae.d_sae)), _usual_scale(subject)

    weights.change(lambda kind: gr.update(visible=kind == "mix"), weights, share, queue=False, **PRIVATE)
    sae_box.change(shown_errors(switch), sae_box, [feature, scale], show_progress_on=sae_box, **PRIVATE)
    gr.on([sae_box.change, feature.change], _evidence, [sae_box, feature], evidence, queue=False,
          show_progress="hidden", **PRIVATE)
    for name, button in step_buttons.items():
        button.click(step(name), [sae_box, feature], feature, show_progress="hidden", **PRIVATE)
    return FeatureControls(sae_box, feature, weights, share, centroid, scale, component, more)


def control_values(library: Library, recipe: VectorRecipe) -> list:
    """What the controls show for a recipe, in their order."""
    _, subject = library.load(find_sae(recipe.sae))
    scale = _usual_scale(subject) if recipe.scale is None else recipe.scale
    first, *more = recipe.pca or (0.0,)
    return [recipe.sae, recipe.feature, recipe.weights, recipe.encoder_share, recipe.centroid, scale, first,
            ", ".join(map(str, more))]


def vector_recipe(sae, feature, weights, encoder_share, centroid, scale, first, more) -> VectorRecipe:
    """The recipe that the controls show, from their values in their order.

    Raises:
        UserError: a value cannot be.
    """
    try:
        further = [float(part) for part in more.replace(";", ",").split(",") if part.strip()]
    except ValueError as error:
        raise UserError(
            f"Weights of further components are {shown(more)}; write numbers separated by commas, e.g. 0.1, -0.05."
        ) from error
    pca = [first, *further] if first or further else []
    return VectorRecipe(
        sae=sae, feature=feature, weights=weights, encoder_share=encoder_share, centroid=centroid, scale=scale, pca=pca
    )


def _usual_scale(subject: Subject) -> float:
    return round(subject.space.mean_distance, 2)


def _range(d_sae: int) -> str:
    return f"0 to {d_sae - 1}"


def _evidence(name: str, feature: int | None) -> str:
    """What is known of a feature besides its weights: where it fired, and its page on Neuronpedia."""
    try:
        entry = find_sae(name or "")
    except UserError:
        return ""
    feature = int(feature or 0)
    parts = []
    if entry.release == "demo" and entry.kind != "embed":
        parts.append(f'<p class="caution">{_NOT_AMONG_EMBEDDINGS}</p>')
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
