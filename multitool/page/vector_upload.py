"""A vector of the visitor's own in place of a feature: a file button, what is told of it, and a button to be rid of it.

It is kept with the page's session, and counts until it is removed, whatever feature is chosen.
"""

from dataclasses import dataclass
from functools import partial
from html import escape
from pathlib import Path

import gradio as gr
from gradio.components import Component

from multitool.errors import UserError, size_shown
from multitool.page.common import QUIETLY, event, quiet
from multitool.recipes.own_vectors import LONGEST_VECTOR_NAME, is_place, vector_told
from multitool.recipes.recipe import VectorRecipe
from multitool.store.library import Library
from multitool.store.registry import saes
from multitool.store.vector_files import ENDINGS, MOST_BYTES, read_vector
from multitool.text import visible

_ABOUT = (
    "A probe, a steering direction, a difference of means: as many numbers as the model's embeddings have, in a file "
    f"of numpy or safetensors (at most {size_shown(MOST_BYTES)}). It lies where the chosen SAE reads."
)


@dataclass(frozen=True)
class OwnVector:
    """A vector as a page holds it."""

    numbers: tuple[float, ...]
    name: str


@dataclass(frozen=True)
class VectorUpload:
    """The controls of a vector of one's own."""

    vector: gr.State  # of an OwnVector, or None
    name: gr.Textbox
    upload: gr.UploadButton
    remove: gr.Button
    told: gr.HTML


def vector_upload() -> VectorUpload:
    """Build the controls, with no vector."""
    with gr.Accordion("A vector of your own", open=False, elem_id="own-vector"):
        gr.HTML(quiet(_ABOUT), padding=False)
        name = gr.Textbox(
            label="Its name", max_lines=1, max_length=LONGEST_VECTOR_NAME, elem_id="own-vector-name",
            info="How results name it; in a file with several tensors, which one to take",
        )
        with gr.Row():
            upload = gr.UploadButton(
                "Choose a file …", size="sm", file_types=list(ENDINGS), elem_id="own-vector-file", min_width=60
            )
            remove = gr.Button("Remove", size="sm", visible=False, elem_id="own-vector-remove", min_width=60)
        told = gr.HTML("", elem_id="own-vector-told", padding=False)
    return VectorUpload(gr.State(None), name, upload, remove, told)


def connect(controls: VectorUpload, sae: Component, weights: Component, suiting: str) -> None:
    """Set off the events of the controls.

    Args:
        sae: where the vector lies.
        weights: set to ``suiting`` for a new vector: those of a feature may not be had of it.
    """
    gives = {"vector": controls.vector, "told": controls.told, "weights": weights}
    reading = partial(_read, suiting)
    controls.upload.upload(**event(reading, {"upload": controls.upload, "name": controls.name}, gives))
    controls.remove.click(**event(lambda: {"vector": None}, {}, gives))
    telling = event(
        _told, {"vector": controls.vector, "sae": sae}, {"told": controls.told, "remove": controls.remove}, **QUIETLY
    )
    gr.on([controls.vector.change, sae.change], **telling)


def _read(suiting: str, upload: str | None, name: str) -> dict:
    """The vector in a file, or what is wrong with it."""
    if not upload:
        return {}
    try:
        numbers, called = read_vector(Path(upload), name.strip())
        recipe = VectorRecipe.from_vector(numbers, model="any", name=called[:LONGEST_VECTOR_NAME])
    except UserError as error:
        return {"told": f'<p class="problem" role="alert">{escape(visible(str(error)))}</p>'}
    return {"vector": OwnVector(recipe.vector, recipe.vector_name), "weights": suiting}


def _told(vector: OwnVector | None, sae: str | None) -> dict:
    if vector is None:
        return {"told": "", "remove": gr.update(visible=False)}
    called, place = (escape(visible(text)) for text in (vector_told(vector.numbers, vector.name), str(sae)))
    told = (
        f"<p><b>{called}</b>, {len(vector.numbers):,} numbers, stands in place of the feature, where {place} reads. "
        "Nothing tells when it fires.</p>"
    )
    return {"told": told, "remove": gr.update(visible=True)}


def own_vector(recipe: VectorRecipe) -> OwnVector | None:
    """That of a recipe, as the page holds it."""
    return OwnVector(recipe.vector, recipe.vector_name) if recipe.vector else None


def in_place_of_feature(vector: OwnVector | None) -> dict:
    """The fields of a recipe that a vector gives; none without one."""
    return {"feature": 0, "vector": vector.numbers, "vector_name": vector.name} if vector else {}


def sae_beside(library: Library, recipe: VectorRecipe) -> str:
    """The SAE that the page shows for a recipe: its own; of a vector at a place in a model one that reads there.

    Raises:
        UserError: there is none.
    """
    if not is_place(recipe.sae):
        return library.find(recipe.sae).name
    place = library.place(recipe.sae)
    for entry in saes(patterns=library.patterns):
        if (entry.model, entry.kind, entry.layer) == (place.model, place.kind, place.layer):
            return entry.name
    raise UserError(
        f"This vector lies at {place.hook} of {place.model}, where no SAE of this page reads. Use the command line, or "
        "Python."
    )
