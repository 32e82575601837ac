"""The tab that reads a text: where does the feature fire in it?"""

from collections.abc import Mapping
from functools import partial

import gradio as gr

from multitool.page.common import counted, event, pick, status_line
from multitool.page.evidence_html import highlighted
from multitool.page.result import Result, Views
from multitool.page.service import LONGEST_TEXT, Service
from multitool.page.vector_controls import VectorControls, vector_values
from multitool.page.view import TEXT, View
from multitool.recipes import links
from multitool.recipes.recipe import VectorRecipe

_NOTHING_YET = "Nothing read yet."


def text_tab(service: Service, controls: VectorControls, views: Views) -> None:
    """Build the tab and wire it to the controls."""
    text = gr.Textbox(
        "", label="Where does the feature fire in a text?", lines=6, max_lines=12, max_length=LONGEST_TEXT,
        elem_id="text", placeholder="Paste a text.",
        info=f"The model reads it, and the SAE tells how strongly the feature fires on each token; up to "
        f"{LONGEST_TEXT:,} characters",
    )
    with gr.Row(elem_classes="actions"):
        read = gr.Button("Read the text", variant="primary", min_width=160, elem_id="read")
    result = Result(
        "text", {**pick(controls.fields, ("sae", "feature")), "text": text}, _asked_for, _nothing, views=views,
        view=View(TEXT, _told, partial(_values, service, views.opening), "fires", "Read the text", _leads),
        link="Link to this text",
    )
    status = status_line("text-status", _NOTHING_YET)
    shown = gr.HTML("", elem_id="fires", elem_classes="greys")
    result.place_link()
    answers = {"status": status, "shown": shown}
    result.refusing(answers)
    for trigger in (read.click, result.asked.change):
        trigger(**event(
            result.making(partial(_read, service)), result.takes, answers | result.gives, show_progress="hidden",
            **counted(service.callers),
        ))


def _asked_for(*, sae: str, feature: str, text: str) -> tuple[VectorRecipe, str]:
    return VectorRecipe(sae=sae, feature=feature), text


def _told(*, sae: str, feature: str, text: str) -> dict[str, str]:
    return links.told(VectorRecipe(sae=sae, feature=feature)) | {"text": text}


def _values(service: Service, opening: VectorRecipe, parameters: Mapping[str, str]) -> dict:
    vector = links.vector_of(parameters, opening)
    chosen = pick(vector_values(service.library, vector), ("sae", "feature"))
    return chosen | pick(parameters, {"text"} & parameters.keys())


def _leads(parameters: Mapping[str, str]) -> bool:
    return bool(parameters.get("text", "").strip())


def _nothing(status: str) -> dict:
    return {"status": status, "shown": "", "title": ""}


def _read(service: Service, recipe: VectorRecipe, text: str):
    if not text.strip():
        yield _nothing("There is no text to read. Paste one above.")
        return
    yield {"status": "Starting …"}
    for answer in service.activity(recipe, text):
        if isinstance(answer, str):
            yield {"status": answer}
        else:
            title = f"{recipe.sae} · feature {recipe.feature}"
            yield {"status": "Read.", "shown": highlighted(answer), "title": title}
