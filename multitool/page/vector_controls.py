"""The controls for a feature and its vector, which all tabs share: how they are read and filled, what is told beside
them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from html import escape

import gradio as gr
from gradio.components import Component

from multitool.errors import UserError
from multitool.jobs.features import with_weights
from multitool.page.common import LATEST, QUIETLY, event, in_words_of_page, quiet
from multitool.page.component_controls import component_controls, component_values, component_weights
from multitool.page.feature_choice import FeatureChoice
from multitool.page.opening import Opening
from multitool.page.sae_choice import entry_shown, on_choosing
from multitool.page.service import Service
from multitool.page.vector_upload import connect, in_place_of_feature, own_vector, sae_beside, vector_upload
from multitool.recipes.directions import DIRECTIONS, takes
from multitool.recipes.recipe import VectorRecipe
from multitool.recipes.weighted_sums import LONGEST
from multitool.store.entries import SaeEntry
from multitool.store.library import Library

# Measured on the demo's layers; the README's limits say the same.
_NOT_AMONG_EMBEDDINGS = (
    "This layer's own weights point nowhere among the embeddings: trees by them say little, and so do lists, but for "
    "those by a lens. Choose what suits."
)
_USUAL_SCALE = (
    "The mean distance of the model's tokens from their centroid; with pullback weights "
    f"{DIRECTIONS['pullback'].relative_scale:g} times as much"
)
SUITING = "suits"  # on the page, where a recipe leaves its weights open


@dataclass(frozen=True)
class VectorControls:
    """The controls that all tabs share."""

    model: gr.Dropdown
    # By the fields of VectorRecipe that they set, but for ``pca``, which the sliders of COMPONENTS set; and
    # ``usual_scale``, whether the scale is left to the model.
    fields: dict[str, Component]
    find: gr.Button  # leads to where features are found
    chosen: tuple[Callable, ...]  # what a visitor chooses a feature by, as ``FeatureChoice.chosen``
    telling: tuple[dict, ...]  # the arguments of events that tell what is known of vector and components

    def tell_after(self, making: list[Callable]) -> None:
        """Tell anew what could not be told before one of the events loaded a model or did a vocabulary scan."""
        for told in self.telling:
            gr.on(making, **told)


def vector_controls(service: Service, opening: Opening, choice: FeatureChoice) -> VectorControls:
    """Build the controls of the chosen feature's vector, set to ``opening``, and what is told of it beside them."""
    with gr.Group():
        direction = _direction_controls(service.library, choice, opening)
        place, distance = _place_controls(service, choice.sae, direction["weights"], opening)
    components, telling_components = component_controls(service, choice.sae)
    own = vector_upload()
    connect(own, choice.sae, direction["weights"], SUITING)
    fields = {
        "sae": choice.sae, "feature": choice.feature, **direction, **place, **components, "vector": own.vector,
    }
    telling_distance = event(
        partial(_distance_shown, service, fields), fields, distance, **LATEST
    )
    gr.on([control.change for control in fields.values()], **telling_distance)
    return VectorControls(
        choice.model, fields, choice.find, choice.chosen, (telling_distance, telling_components)
    )


def _direction_controls(library: Library, choice: FeatureChoice, opening: Opening) -> dict[str, Component]:
    """What gives the direction: its kind, the encoder's share of a mix, and tokens in place of the feature."""
    recipe, kind = opening.recipe, opening.recipe.weights or SUITING
    offered = [("what suits", SUITING), *((kind, kind) for kind in DIRECTIONS)]
    weights = gr.Radio(offered, value=kind, label="Weights", elem_id="weights")
    about = gr.HTML(_weights_help(library, recipe.sae, kind), elem_id="weights-help")
    share = gr.Slider(
        0, 1, recipe.encoder_share, step=0.05, label="Encoder's share of the mix", visible=takes(kind, "encoder_share"),
        info="1 is the encoder alone, 0 the decoder alone",
    )
    tokens = gr.Textbox(
        recipe.tokens, label="Tokens", placeholder="e.g. king - man + woman", max_lines=1, max_length=LONGEST,
        elem_id="arithmetic", visible=takes(kind, "tokens"),
        info='Words, added and subtracted, with weights as in `king + queen*0.5`; an exact token in double '
        "quotes. Ticked below, the scale is their sum's own length",
    )
    chosen = gr.Textbox(recipe.sae, visible=False)  # the SAE as of its last change, for the page to compare with

    optional = {"encoder_share": share, "tokens": tokens}

    def seen(kind: str) -> dict:
        return {control: gr.update(visible=takes(kind, name)) for name, control in optional.items()}

    weights.change(seen, weights, list(optional.values()), **QUIETLY)
    helping = event(partial(_weights_help, library), {"sae": choice.sae, "kind": weights}, about, **QUIETLY)
    gr.on([weights.change, choice.sae.change], **helping)
    # Only at a visitor's choice: an example brings weights of its own. A menu that is left as it was says so too.
    on_choosing(library, choice.saes, {"weights": weights}, {"weights": SUITING})
    suiting = event(partial(_suitable, library), {"sae": choice.sae, "before": chosen}, weights, **LATEST)
    choice.sae.input(**suiting)
    choice.sae.change(lambda name: name, choice.sae, chosen, **QUIETLY)
    return {"weights": weights, **optional}


def _suitable(library: Library, sae: str | None, before: str | None):
    """Weights that suit another SAE than before; else those that there are stay."""
    return SUITING if entry_shown(library, sae) and sae != before else gr.skip()


def _place_controls(
    service: Service, sae: gr.Dropdown, weights: Component, opening: Opening
) -> tuple[dict[str, Component], gr.HTML]:
    """How far out the vector lies, and from where: the scale's controls and the centroid's; and the distance."""
    usual_scale = gr.Checkbox(
        True, label="Use the typical token distance", elem_id="usual-scale", info=_USUAL_SCALE,
    )
    scale = gr.Slider(
        0.1, 10, _usual_scale(service, opening.entry, opening.recipe.weights, 1.0), step=0.01, label="Scale",
        visible=False, elem_id="scale", info="Distance from the starting point",
    )
    distance = gr.HTML(_distance(service, opening.recipe), elem_id="distance", padding=False)
    centroid = gr.Checkbox(
        opening.recipe.centroid, label="Start from the centroid",
        info="The mean of all token embeddings; without it, from zero",
    )

    def own_scale(usual: bool, name: str | None, kind: str | None, scale: float):
        shown = _usual_scale(service, entry_shown(service.library, name), kind, scale)
        return gr.update(visible=not usual, value=shown)

    usual_scale.input(own_scale, [usual_scale, sae, weights, scale], scale, **LATEST)
    return {"usual_scale": usual_scale, "scale": scale, "centroid": centroid}, distance


def vector_values(library: Library, recipe: VectorRecipe) -> dict:
    """What the controls show for a recipe, by name. Raises UserError if they cannot."""
    return {
        "sae": sae_beside(library, recipe), "vector": own_vector(recipe), "feature": str(recipe.feature),
        "weights": recipe.weights or SUITING,
        "encoder_share": recipe.encoder_share, "tokens": recipe.tokens, "centroid": recipe.centroid,
        "usual_scale": recipe.scale is None, "scale": gr.skip() if recipe.scale is None else recipe.scale,
        **component_values(recipe.pca),
    }


def vector_recipe(
    *, sae, feature, weights, encoder_share, tokens, centroid, usual_scale, scale, vector=None, **components
) -> VectorRecipe:
    """The recipe that the controls show, from their values by name. Raises UserError for a value that cannot be."""
    return VectorRecipe(
        sae=sae, **{"feature": feature} | in_place_of_feature(vector), weights=None if weights == SUITING else weights,
        # What is not seen does not count.
        encoder_share=encoder_share if takes(weights, "encoder_share") else VectorRecipe.encoder_share,
        tokens=tokens if takes(weights, "tokens") else "", centroid=centroid, scale=None if usual_scale else scale,
        pca=component_weights(components),
    )


def _weights_help(library: Library, sae: str | None, kind: str | None) -> str:
    """What a direction is, and a caution where it is known to say little."""
    entry = entry_shown(library, sae)
    if kind == SUITING and entry:
        trees, lists = (f"{kind}: {DIRECTIONS[kind].help}" for kind in (entry.default_weights, entry.list_weights))
        lines = [f"Trees and lists by {trees}."] if trees == lists else [f"Trees by {trees}.", f"Lists by {lists}."]
        lines.append(f"Lists by a lens by decoder: {DIRECTIONS['decoder'].help}.")
        return "".join(f"<p>{escape(line)}</p>" for line in lines)
    if kind not in DIRECTIONS:
        return ""
    said = f"<p>{escape(kind.capitalize())}: {escape(DIRECTIONS[kind].help)}.</p>"
    if entry and _plain(kind) and not _plain(entry.default_weights):
        said += f'<p class="caution">{_NOT_AMONG_EMBEDDINGS}</p>'
    return said


def _plain(kind: str) -> bool:
    """Whether a direction is made from nothing but the feature's own weights as they are."""
    return {"encoder", "decoder"}.issuperset(DIRECTIONS[kind].made_from)


def _distance_shown(service: Service, controls: Mapping[str, Component], **values) -> str:
    """The distance by what the controls show, or what is wrong with it: quietly, while somebody may still be typing."""
    try:
        return _distance(service, vector_recipe(**values))
    except UserError as error:
        return quiet(in_words_of_page(error, controls))


def _distance(service: Service, recipe: VectorRecipe) -> str:
    """How far out the vector lies, as HTML; nothing where that would take loading or a scan.

    Where what suits trees does not suit lists, of both, if they lie at different distances.
    """
    of_tree, of_list = (with_weights(service.library, recipe, for_list=for_list) for for_list in (False, True))
    vectors = {" in trees": service.vector(of_tree)}
    if of_list != of_tree:
        vectors[" in lists"] = service.vector(of_list)
    known = {where: vector for where, vector in vectors.items() if vector}
    if not known:
        return ""
    told = {where: f"{vector.distance_from_centroid:.3g}" for where, vector in known.items()}
    alike = len(known) == len(vectors) and len(set(told.values())) == 1
    distances = ", ".join(number + where for where, number in ({"": told[" in trees"]} if alike else told).items())
    usual = next(iter(known.values())).mean_token_distance
    return quiet(f"Distance from the centroid {distances}; tokens: {usual:.3g} on average")


def _usual_scale(service: Service, entry: SaeEntry | None, kind: str | None, otherwise: float) -> float:
    """The usual scale of vectors of a kind, in trees where that is left open, on a model whose embeddings are in
    memory."""
    if entry is None or not service.library.has(entry):
        return otherwise
    kind = kind if kind in DIRECTIONS else entry.default_weights
    return round(service.library.subject(entry.model).space.mean_distance * DIRECTIONS[kind].relative_scale, 2)
