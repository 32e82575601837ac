"""The controls for a feature and its vector, which the tree and the token list share."""

import random
import re
from dataclasses import dataclass
from functools import partial
from html import escape

import gradio as gr

from multitool.component import SHOWN, Component
from multitool.defaults import Opening
from multitool.errors import UserError, shown
from multitool.library import Library
from multitool.loading import strongest_contexts
from multitool.recipe import VectorRecipe
from multitool.registry import SaeEntry, models, saes
from multitool.sources import resolved
from multitool.text import percent, visible
from multitool.ui_common import PRIVATE, shown_errors
from multitool.ui_service import Service
from multitool.vector import DIRECTIONS, needs_scan

# Measured on the demo's layers; the README's limits say the same.
_NOT_AMONG_EMBEDDINGS = (
    "This layer's own weights point nowhere among the embeddings: here trees and lists by them say little. Choose "
    "vocabulary or mapped weights."
)
_RANDOM = "Random"
_TOKENS_TOLD = 6  # at each end of a component


@dataclass(frozen=True)
class FeatureControls:
    """The controls that tree and list share, in the order in which handlers get their values."""

    sae: gr.Dropdown
    feature: gr.Textbox
    weights: gr.Radio
    encoder_share: gr.Slider
    tokens: gr.Textbox
    centroid: gr.Checkbox
    usual_scale: gr.Checkbox
    scale: gr.Slider
    components: tuple[gr.Slider, ...]
    telling: tuple[dict, ...]  # the arguments of events that tell what is known of feature, vector and components

    def all(self) -> list:
        *single, components, _ = vars(self).values()
        return [*single, *components]

    def tell_after(self, event) -> None:
        """Tell anew what could not be told before the event loaded a model or did a vocabulary scan."""
        for told in self.telling:
            event.then(**told)


def feature_controls(service: Service, opening: Opening) -> FeatureControls:
    """Build the controls, set to ``opening``, and what is known of the feature beside them."""
    library, recipe, entry = service.library, opening.recipe, opening.entry
    with gr.Group():
        model_box = gr.Dropdown(
            models(library.patterns), value=entry.model, label="Model", elem_id="model",
            info="Fetched when a tree or a list first needs it",
        )
        sae_box = gr.Dropdown(
            _names(service, entry.model), value=recipe.sae, label="SAE", allow_custom_value=True, filterable=True,
            elem_id="sae", info="RELEASE/SAE_ID as in sae-lens; type to search",
        )
        feature = gr.Textbox(
            str(recipe.feature), label="Feature", max_lines=1, elem_id="feature", info=_range(entry),
        )
    with gr.Row():
        steps = {
            "◀ Previous": lambda feature, d_sae: (feature - 1) % d_sae,
            _RANDOM: lambda feature, d_sae: random.randrange(d_sae),
            "Next ▶": lambda feature, d_sae: (feature + 1) % d_sae,
        }
        step_buttons = {name: gr.Button(name, size="sm", min_width=60) for name in steps}
    evidence = gr.HTML(_told(library, recipe.sae, str(recipe.feature)), elem_id="evidence")
    with gr.Group():
        weights = gr.Radio(
            list(DIRECTIONS), value=recipe.weights or entry.default_weights, label="Weights", elem_id="weights",
        )
        weights_help = gr.HTML(
            _weights_help(library, recipe.sae, recipe.weights or entry.default_weights), elem_id="weights-help",
        )
        share = gr.Slider(0, 1, recipe.encoder_share, step=0.05, label="Encoder's share of the mix", visible=False,
                          info="1 is the encoder alone, 0 the decoder alone")
        tokens = gr.Textbox(
            recipe.tokens, label="Tokens", placeholder="e.g. king - man + woman", max_lines=1, elem_id="arithmetic",
            visible=recipe.weights == "tokens",
            info='Words, added and subtracted, with weights as in `king + queen*0.5`; an exact token in double '
            "quotes. Ticked below, the scale is their sum's own length",
        )
        usual_scale = gr.Checkbox(
            True, label="As far out as a usual token", elem_id="usual-scale",
            info="The scale is the mean distance of the model's tokens from their centroid",
        )
        scale = gr.Slider(
            0.1, 10, _mean_distance(service, entry, 1.0), step=0.01, label="Scale", visible=False, elem_id="scale",
            info="Distance from the starting point",
        )
        distance = gr.HTML(_distance(service, recipe), elem_id="distance", padding=False)
        centroid = gr.Checkbox(
            recipe.centroid, label="Start from the centroid",
            info="The mean of all token embeddings; without it, from zero",
        )
    components, telling_components = _component_controls(service, sae_box)

    def step(name: str):
        def handler(sae_name: str, feature: str) -> str:
            entry, number = library.find(sae_name), _number(feature)
            if number is None and name != _RANDOM:
                raise UserError(f"feature is {shown(feature)}; only the number of one feature has neighbours.")
            # Few registry entries do not tell their width; then the SAE itself does.
            return str(steps[name](number, entry.d_sae or library.sae(entry).d_sae))

        return shown_errors(handler)

    def of_model(model: str):
        """The SAEs of another model, the first of them chosen, and the weights that suit it."""
        names = _names(service, model)
        return gr.update(choices=names, value=names[0]), library.find(names[0]).default_weights

    def of_sae(name: str):
        """The model and the range of another SAE."""
        entry = library.find(name)
        return entry.model, gr.update(info=_range(entry))

    def own_scale(usual: bool, sae_name: str, scale: float):
        mean = _mean_distance(service, library.find(sae_name), scale) if library.offers(sae_name or "") else scale
        return gr.update(visible=not usual, value=mean)

    def suitable(name: str | None):
        """The weights that suit another SAE."""
        return library.find(name).default_weights if library.offers(name or "") else gr.skip()

    weights.change(lambda kind: [gr.update(visible=kind == "mix"), gr.update(visible=kind == "tokens")], weights,
                   [share, tokens], queue=False, show_progress="hidden", **PRIVATE)
    gr.on([weights.change, sae_box.change], partial(_weights_help, library), [sae_box, weights], weights_help,
          queue=False, show_progress="hidden", **PRIVATE)
    usual_scale.input(own_scale, [usual_scale, sae_box, scale], scale, queue=False, show_progress="hidden", **PRIVATE)
    model_box.input(of_model, model_box, [sae_box, weights], queue=False, show_progress="hidden", **PRIVATE)
    # Only at a visitor's choice: an example brings weights of its own.
    sae_box.input(suitable, sae_box, weights, queue=False, show_progress="hidden", **PRIVATE)
    sae_box.change(shown_errors(of_sae), sae_box, [model_box, feature], queue=False, show_progress="hidden", **PRIVATE)
    telling_feature = {
        "fn": partial(_told, library), "inputs": [sae_box, feature], "outputs": evidence, "queue": False,
        "show_progress": "hidden", **PRIVATE,
    }
    gr.on([sae_box.change, feature.change], **telling_feature)
    for name, button in step_buttons.items():
        button.click(step(name), [sae_box, feature], feature, show_progress_on=feature, **PRIVATE)
    by_controls = [sae_box, feature, weights, share, tokens, centroid, usual_scale, scale, *components]
    telling_distance = {
        "fn": partial(_distance_shown, service), "inputs": by_controls, "outputs": distance, "queue": False,
        "show_progress": "hidden", "trigger_mode": "always_last", **PRIVATE,
    }
    gr.on([control.change for control in by_controls], **telling_distance)
    return FeatureControls(
        sae_box, feature, weights, share, tokens, centroid, usual_scale, scale, components,
        (telling_feature, telling_distance, telling_components),
    )


def control_values(library: Library, recipe: VectorRecipe) -> list:
    """What the controls show for a recipe, in their order. Raises UserError if they cannot."""
    recipe = resolved(library, recipe)
    if len(recipe.pca) > SHOWN or any(abs(weight) > 1 for weight in recipe.pca):
        raise UserError(
            f"pca is {shown(list(recipe.pca))}; the page has sliders for {SHOWN} component weights from -1 to 1. Use "
            "the command line or the API for others."
        )
    scale = gr.skip() if recipe.scale is None else recipe.scale
    return [recipe.sae, str(recipe.feature), recipe.weights, recipe.encoder_share, recipe.tokens, recipe.centroid,
            recipe.scale is None, scale, *recipe.pca, *[0.0] * (SHOWN - len(recipe.pca))]


def vector_recipe(
    sae, feature, weights, encoder_share, tokens, centroid, usual_scale, scale, *components
) -> VectorRecipe:
    """The recipe that the controls show, from their values in their order.

    Raises:
        UserError: a value cannot be.
    """
    n_used = max((i for i, weight in enumerate(components, 1) if weight), default=0)
    return VectorRecipe(
        sae=sae, feature=feature, weights=weights, encoder_share=encoder_share,
        tokens=tokens if weights == "tokens" else "", centroid=centroid, scale=None if usual_scale else scale,
        pca=components[:n_used],
    )


def _distance_shown(service: Service, *values) -> str:
    """The distance by what the controls show, or what is wrong with it: quietly, while somebody may still be typing."""
    try:
        return _distance(service, vector_recipe(*values))
    except UserError as error:
        return _quiet(str(error))


def _distance(service: Service, recipe: VectorRecipe) -> str:
    """How far out the vector lies, as HTML; nothing where that would take loading or a scan."""
    vector = service.vector(recipe)
    if vector is None:
        return ""
    return _quiet(
        f"Distance from the centroid {vector.distance_from_centroid:.3g}; tokens: {vector.mean_token_distance:.3g} on "
        "average"
    )


def _component_controls(service: Service, sae_box: gr.Dropdown) -> tuple[tuple[gr.Slider, ...], dict]:
    """A slider for each of the first components, folded away, and under it what the component is, once unfolded; and
    the arguments of an event that tells it."""
    with gr.Accordion("Principal components", open=False, elem_id="components") as accordion:
        about = gr.HTML("", elem_id="components-about", padding=False)
        sliders, lines = [], []
        for index in range(1, SHOWN + 1):
            sliders.append(gr.Slider(-1, 1, 0, step=0.01, label=f"Component {index}", elem_id=f"component-{index}"))
            lines.append(gr.HTML("", elem_classes="component", padding=False))
    unfolded, told_of = gr.State(False), gr.State("")
    telling = {
        "fn": shown_errors(partial(_components_told, service)), "inputs": [unfolded, told_of, sae_box],
        "outputs": [told_of, about, *lines], "show_progress": "hidden", "trigger_mode": "always_last", **PRIVATE,
    }
    accordion.expand(lambda: True, None, unfolded, queue=False, show_progress="hidden", **PRIVATE).then(**telling)
    accordion.collapse(lambda: False, None, unfolded, queue=False, show_progress="hidden", **PRIVATE)
    sae_box.change(**telling)
    return tuple(sliders), telling


_COMPONENTS_ABOUT = (
    "Directions in which the token embeddings differ most, mixed into the vector, which keeps the rest; a negative "
    "weight points to the other end. The distance from the centroid then differs from the scale."
)


def _components_told(service: Service, unfolded: bool, told_of: str, sae: str | None):
    """What the components of the SAE's model are, as HTML: on all of them, and on each; before it, of which model.

    Nothing new where they are folded away, or those of this model are told already.
    """
    library = service.library
    model = library.find(sae).model if library.offers(sae or "") else ""
    if not unfolded or model in ("", told_of):
        yield [gr.skip()] * (2 + SHOWN)
        return
    if not library.has(library.find(sae)):
        later = "What each of them is will be told here when a tree or a list has loaded the model."
        yield ["", _quiet(f"{_COMPONENTS_ABOUT} {later}"), *[""] * SHOWN]
        return
    for answer in service.components(sae, top=_TOKENS_TOLD):
        if isinstance(answer, str):
            yield ["", _quiet(answer), *[gr.skip()] * SHOWN]
    yield [model, _quiet(_COMPONENTS_ABOUT), *map(_component_line, answer)]


def _component_line(component: Component) -> str:
    ends = "".join(
        f"<li><b>{sign}</b> {' '.join(f'<q>{_text(token, spaces=True)}</q>' for token in tokens)}</li>"
        for sign, tokens in (("+", component.positive), ("−", component.negative))
    )
    return f"<p>{percent(component.share)} of the variance</p><ul>{ends}</ul>"


def _quiet(words: str) -> str:
    return f'<p class="quiet">{escape(words)}</p>'


def _names(service: Service, model: str) -> list[str]:
    """The SAEs of a model that visitors may load."""
    return [entry.name for entry in saes(patterns=service.library.patterns) if entry.model == model]


def _mean_distance(service: Service, entry: SaeEntry, otherwise: float) -> float:
    """The usual scale of a model whose embeddings are in memory."""
    if not service.library.has(entry):
        return otherwise
    return round(service.library.subject(entry.model).space.mean_distance, 2)


def _range(entry: SaeEntry) -> str:
    numbers = f"0 to {entry.d_sae - 1:,}" if entry.d_sae else "From 0 up"
    return f"{numbers}; or several, e.g. `12 - 45*0.5`"


def _number(feature: str | None) -> int | None:
    """The feature's number that is typed; None if it is none, or several with weights."""
    text = (feature or "").strip()
    return int(text) if re.fullmatch("[0-9]{1,15}", text) else None


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


def _weights_help(library: Library, name: str | None, kind: str | None) -> str:
    """What a direction is, and a caution where it is known to say little."""
    if kind not in DIRECTIONS:
        return ""
    said = f"<p>{escape(kind.capitalize())}: {escape(DIRECTIONS[kind].help)}.</p>"
    suitable = library.find(name).default_weights if library.offers(name or "") else kind
    if needs_scan(suitable) and not needs_scan(kind) and DIRECTIONS[kind].of_feature:
        said += f'<p class="caution">{_NOT_AMONG_EMBEDDINGS}</p>'
    return said


def _told(library: Library, name: str | None, feature: str | None) -> str:
    """The SAE and what is known of its feature, for what the controls show; nothing if that is no SAE.

    Of several features with weights nothing is known: their contexts are each one's own.
    """
    if not library.offers(name or ""):
        return ""
    entry = library.find(name)
    return f'<p class="about">{_about(entry, here=library.has(entry))}</p>' + (
        "" if (number := _number(feature)) is None else _evidence(entry, number)
    )


def _about(entry: SaeEntry, here: bool) -> str:
    """Where an SAE was trained, and what loading its model takes unless it is here already."""
    where = "token embeddings" if entry.kind == "embed" else f"layer {entry.layer}"
    about = f"Trained on {where} of {escape(entry.model)} (<code>{escape(entry.hook)}</code>)."
    if entry.gated and not here:
        page = escape(entry.licence_page, quote=True)
        about += f' Its <a href="{page}" target="_blank" rel="noopener">licence</a> must be accepted first.'
    return about


def _text(text: str, *, spaces: bool = False) -> str:
    return escape(visible(text, spaces=spaces))
