"""The controls for a feature and its vector, which the tree and the token list share."""

from dataclasses import dataclass
from functools import partial
from html import escape

import gradio as gr

from multitool.errors import UserError, is_number, shown
from multitool.jobs.components import Component
from multitool.jobs.features import with_weights
from multitool.page.common import PRIVATE, QUIETLY, quiet, shown_errors
from multitool.page.feature_choice import FeatureChoice, feature_choice, known_of_feature, sae_names
from multitool.page.opening import Opening
from multitool.page.service import Service
from multitool.recipes.components import SHOWN
from multitool.recipes.directions import DIRECTIONS, needs_scan
from multitool.recipes.recipe import VectorRecipe
from multitool.store.entries import SaeEntry
from multitool.store.library import Library
from multitool.text import percent, visible

# Measured on the demo's layers; the README's limits say the same.
_NOT_AMONG_EMBEDDINGS = (
    "This layer's own weights point nowhere among the embeddings: here trees and lists by them say little. Choose "
    "vocabulary or mapped weights."
)


@dataclass(frozen=True)
class FeatureControls:
    """The controls that tree and list share."""

    model: gr.Dropdown
    sae: gr.Dropdown
    feature: gr.Textbox
    vector: tuple  # these two and all others, in the order in which ``vector_recipe`` takes their values
    telling: tuple[dict, ...]  # the arguments of events that tell what is known of feature, vector and components

    def all(self) -> list:
        return list(self.vector)

    def tell_after(self, event) -> None:
        """Tell anew what could not be told before the event loaded a model or did a vocabulary scan."""
        for told in self.telling:
            event.then(**told)


def feature_controls(service: Service, opening: Opening) -> FeatureControls:
    """Build the controls, set to ``opening``, and what is known of feature and vector beside them."""
    choice = feature_choice(service, opening)
    with gr.Group():
        weights, share, tokens = _direction_controls(service.library, choice, opening)
        usual_scale, scale, distance, centroid = _place_controls(service, choice.sae, opening)
    components, telling_components = component_controls(service, choice.sae)
    of_feature = [choice.sae, choice.feature, weights]
    vector = [choice.sae, choice.feature, weights, share, tokens, centroid, usual_scale, scale, *components]
    telling_distance = {
        "fn": partial(_distance_shown, service), "inputs": vector, "outputs": distance, "trigger_mode": "always_last",
        **QUIETLY,
    }
    gr.on([control.change for control in vector], **telling_distance)
    telling_known = {
        "fn": partial(known_of_feature, service.library), "inputs": of_feature, "outputs": choice.known,
        "trigger_mode": "always_last", **QUIETLY,
    }
    gr.on([control.change for control in of_feature], **telling_known)
    telling = (telling_known, telling_distance, telling_components)
    return FeatureControls(choice.model, choice.sae, choice.feature, tuple(vector), telling)


def _direction_controls(library: Library, choice: FeatureChoice, opening: Opening) -> tuple:
    """What gives the direction: its kind, the encoder's share of a mix, and tokens in place of the feature."""
    recipe, kind = opening.recipe, opening.recipe.weights or opening.entry.default_weights
    weights = gr.Radio(list(DIRECTIONS), value=kind, label="Weights", elem_id="weights")
    about = gr.HTML(_weights_help(library, recipe.sae, kind), elem_id="weights-help")
    share = gr.Slider(0, 1, recipe.encoder_share, step=0.05, label="Encoder's share of the mix", visible=kind == "mix",
                      info="1 is the encoder alone, 0 the decoder alone")
    tokens = gr.Textbox(
        recipe.tokens, label="Tokens", placeholder="e.g. king - man + woman", max_lines=1, elem_id="arithmetic",
        visible=kind == "tokens",
        info='Words, added and subtracted, with weights as in `king + queen*0.5`; an exact token in double '
        "quotes. Ticked below, the scale is their sum's own length",
    )
    chosen = gr.Textbox(recipe.sae, visible=False)  # the SAE as of its last change, for the page to compare with

    weights.change(lambda kind: [gr.update(visible=kind == "mix"), gr.update(visible=kind == "tokens")], weights,
                   [share, tokens], **QUIETLY)
    gr.on([weights.change, choice.sae.change], partial(_weights_help, library), [choice.sae, weights], about,
          **QUIETLY)
    # Only at a visitor's choice: an example brings weights of its own. A menu that is left as it was says so too.
    choice.model.input(partial(_of_model, library), [choice.model, choice.sae], [choice.model, choice.sae, weights],
                       **QUIETLY)
    choice.sae.input(partial(_suitable, library), [choice.sae, chosen], weights, **QUIETLY)
    choice.sae.change(lambda name: name, choice.sae, chosen, **QUIETLY)
    return weights, share, tokens


def _of_model(library: Library, model: str | None, sae: str | None) -> list:
    """For a model that has been chosen: itself, its SAEs with the first of them chosen, and the weights that suit it.

    The SAE stays if it belongs to that model; if the model has no SAE here, its own model comes back.
    """
    own = library.find(sae).model if library.offers(sae or "") else None
    names = sae_names(library, model)
    if model == own or not names:
        return [gr.skip() if own is None else own, gr.skip(), gr.skip()]
    return [gr.skip(), gr.update(choices=names, value=names[0]), library.find(names[0]).default_weights]


def _suitable(library: Library, sae: str | None, before: str | None):
    """The weights that suit another SAE than before; else those that there are stay."""
    return library.find(sae).default_weights if sae != before and library.offers(sae or "") else gr.skip()


def _place_controls(service: Service, sae: gr.Dropdown, opening: Opening) -> tuple:
    """How far out the vector lies, and from where: the scale's controls, the distance, and the centroid's."""
    usual_scale = gr.Checkbox(
        True, label="As far out as a usual token", elem_id="usual-scale",
        info="The scale is the mean distance of the model's tokens from their centroid",
    )
    scale = gr.Slider(
        0.1, 10, _mean_distance(service, opening.entry, 1.0), step=0.01, label="Scale", visible=False, elem_id="scale",
        info="Distance from the starting point",
    )
    distance = gr.HTML(_distance(service, opening.recipe), elem_id="distance", padding=False)
    centroid = gr.Checkbox(
        opening.recipe.centroid, label="Start from the centroid",
        info="The mean of all token embeddings; without it, from zero",
    )

    def own_scale(usual: bool, sae_name: str, scale: float):
        library = service.library
        mean = _mean_distance(service, library.find(sae_name), scale) if library.offers(sae_name or "") else scale
        return gr.update(visible=not usual, value=mean)

    usual_scale.input(own_scale, [usual_scale, sae, scale], scale, **QUIETLY)
    return usual_scale, scale, distance, centroid


def control_values(library: Library, recipe: VectorRecipe) -> list:
    """What the controls show for a recipe, in their order. Raises UserError if they cannot."""
    recipe = with_weights(library, recipe)
    if len(recipe.pca) > SHOWN or any(abs(weight) > 1 for weight in recipe.pca):
        raise UserError(
            f"pca is {shown(list(recipe.pca))}; the page has sliders for {SHOWN} component weights from -1 to 1. Use "
            "the command line or the API for others."
        )
    scale = gr.skip() if recipe.scale is None else recipe.scale
    return [recipe.sae, str(recipe.feature), recipe.weights, recipe.encoder_share, recipe.tokens, recipe.centroid,
            recipe.scale is None, scale, *recipe.pca, *[0.0] * (SHOWN - len(recipe.pca))]


def check_shows(control, value) -> None:
    """That a control can show a value. Raises UserError if it is beyond its limits, or none of its choices."""
    offered = [own for _, own in getattr(control, "choices", None) or []]
    if isinstance(value, str):
        longest = getattr(control, "max_length", None)
        if longest is not None and len(value) > longest:
            valid = f"at most {longest:,} characters"
        elif offered and value not in offered and not getattr(control, "allow_custom_value", False):
            valid = ", ".join(offered)
        else:
            return
    elif is_number(value):
        low, high = getattr(control, "minimum", None), getattr(control, "maximum", None)
        if (low is None or low <= value) and (high is None or value <= high):
            return
        valid = " ".join(part for part, limit in ((f"from {low}", low), (f"to {high}", high)) if limit is not None)
    else:
        return
    raise UserError(
        f"“{control.label}” is {shown(value)}; this page can show {valid}. Use the command line or the API for others."
    )


def vector_recipe(
    sae, feature, weights, encoder_share, tokens, centroid, usual_scale, scale, *components
) -> VectorRecipe:
    """The recipe that the controls show, from their values in their order.

    Raises:
        UserError: a value cannot be.
    """
    n_used = max((i for i, weight in enumerate(components, 1) if weight), default=0)
    return VectorRecipe(
        sae=sae, feature=feature, weights=weights,
        # What is not seen does not count.
        encoder_share=encoder_share if weights == "mix" else VectorRecipe.encoder_share,
        tokens=tokens if weights == "tokens" else "", centroid=centroid, scale=None if usual_scale else scale,
        pca=components[:n_used],
    )


def _weights_help(library: Library, name: str | None, kind: str | None) -> str:
    """What a direction is, and a caution where it is known to say little."""
    if kind not in DIRECTIONS:
        return ""
    said = f"<p>{escape(kind.capitalize())}: {escape(DIRECTIONS[kind].help)}.</p>"
    suitable = library.find(name).default_weights if library.offers(name or "") else kind
    if needs_scan(suitable) and not needs_scan(kind) and DIRECTIONS[kind].of_feature:
        said += f'<p class="caution">{_NOT_AMONG_EMBEDDINGS}</p>'
    return said


def _distance_shown(service: Service, *values) -> str:
    """The distance by what the controls show, or what is wrong with it: quietly, while somebody may still be typing."""
    try:
        return _distance(service, vector_recipe(*values))
    except UserError as error:
        return quiet(str(error))


def _distance(service: Service, recipe: VectorRecipe) -> str:
    """How far out the vector lies, as HTML; nothing where that would take loading or a scan."""
    vector = service.vector(recipe)
    if vector is None:
        return ""
    return quiet(
        f"Distance from the centroid {vector.distance_from_centroid:.3g}; tokens: {vector.mean_token_distance:.3g} on "
        "average"
    )


def _mean_distance(service: Service, entry: SaeEntry, otherwise: float) -> float:
    """The usual scale of a model whose embeddings are in memory."""
    if not service.library.has(entry):
        return otherwise
    return round(service.library.subject(entry.model).space.mean_distance, 2)


_TOKENS_TOLD = 6  # at each end of a component


_ABOUT = (
    "Directions in which the token embeddings differ most, mixed into the vector, which keeps the rest; a negative "
    "weight points to the other end. The distance from the centroid then differs from the scale."
)


def component_controls(service: Service, sae_box: gr.Dropdown) -> tuple[tuple[gr.Slider, ...], dict]:
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
        "fn": shown_errors(partial(_told, service)), "inputs": [unfolded, told_of, sae_box],
        "outputs": [told_of, about, *lines], "show_progress": "hidden", "trigger_mode": "always_last", **PRIVATE,
    }
    accordion.expand(lambda: True, None, unfolded, **QUIETLY).then(**telling)
    accordion.collapse(lambda: False, None, unfolded, **QUIETLY)
    sae_box.change(**telling)
    return tuple(sliders), telling


def _told(service: Service, unfolded: bool, told_of: str, sae: str | None):
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
        yield ["", quiet(f"{_ABOUT} {later}"), *[""] * SHOWN]
        return
    for answer in service.components(sae, top=_TOKENS_TOLD):
        if isinstance(answer, str):
            yield ["", quiet(answer), *[gr.skip()] * SHOWN]
    yield [model, quiet(_ABOUT), *map(_line, answer)]


def _line(component: Component) -> str:
    ends = "".join(
        f"<li><b>{sign}</b> {' '.join(f'<q>{escape(visible(token, spaces=True))}</q>' for token in tokens)}</li>"
        for sign, tokens in (("+", component.positive), ("−", component.negative))
    )
    return f"<p>{percent(component.share)} of the variance</p><ul>{ends}</ul>"
