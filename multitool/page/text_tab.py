"""The tab that reads a text: where does the feature fire in it?"""

from functools import partial

import gradio as gr

from multitool.page.common import PRIVATE, by_name, on_model, shown_errors
from multitool.page.result_title import Made, cleared_on_error, heading, tell_changes, title_box
from multitool.page.service import LONGEST_TEXT, Service
from multitool.page.vector_controls import FeatureControls
from multitool.page.verdict import highlighted
from multitool.recipes.recipe import VectorRecipe

_NOTHING_YET = "Nothing read yet."


def text_tab(service: Service, controls: FeatureControls) -> None:
    """Build the tab and wire it to the controls."""
    text = gr.Textbox(
        "", label="Where does it fire in a text?", lines=6, max_lines=12, max_length=LONGEST_TEXT, elem_id="text",
        placeholder="Paste a text.",
        info=f"The model reads it, and the SAE tells how strongly the feature fires on each token; up to "
        f"{LONGEST_TEXT:,} characters",
    )
    with gr.Row(elem_classes="actions"):
        read = gr.Button("Read the text", variant="primary", min_width=160, elem_id="read")
    title = title_box(None, "text-title")
    status = gr.Textbox("", show_label=False, placeholder=_NOTHING_YET, interactive=False, container=False,
                        elem_id="text-status", elem_classes="status")
    shown = gr.HTML("", elem_id="fires", elem_classes="greys")
    made = gr.State()
    answers = {"status": status, "shown": shown, "made": made, "title": title}
    settings = [controls.sae, controls.feature, text]
    handler = cleared_on_error(_settings, _nothing, partial(_read, service))
    reading = read.click(
        shown_errors(by_name(answers, handler)), [made, *settings], list(answers.values()), show_progress="hidden",
        **on_model(service.settings), **PRIVATE,
    )
    reading.then(**tell_changes(_settings, made, title, settings))
    controls.tell_after(reading)


def _settings(sae: str, feature: str, text: str) -> tuple[VectorRecipe, str]:
    return VectorRecipe(sae=sae, feature=feature), text


def _nothing(status: str) -> dict:
    return {"status": status, "shown": "", "made": None, "title": ""}


def _read(service: Service, *values):
    recipe, text = shown = _settings(*values)
    if not text.strip():
        yield _nothing("There is no text to read. Paste one above.")
        return
    yield {"status": "Starting …"}
    for answer in service.activity(recipe, text):
        if isinstance(answer, str):
            yield {"status": answer}
    made = Made(f"{recipe.sae} · feature {recipe.feature}", shown)
    yield {"status": "Read.", "shown": highlighted(answer), "made": made, "title": heading(made)}
