"""The tab that reads a text: where does the feature fire in it?"""

from functools import partial

import gradio as gr

from multitool.recipe import VectorRecipe
from multitool.ui_common import PRIVATE, on_model, shown_errors
from multitool.ui_controls import FeatureControls
from multitool.ui_evidence import highlighted
from multitool.ui_service import LONGEST_TEXT, Service


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
    status = gr.Textbox("", show_label=False, placeholder="Nothing read yet.", interactive=False, container=False,
                        elem_id="text-status", elem_classes="status")
    shown = gr.HTML("", elem_id="fires")
    reading = read.click(
        shown_errors(partial(_read, service)), [controls.sae, controls.feature, text], [status, shown],
        show_progress_on=shown, **on_model(service.settings), **PRIVATE,
    )
    controls.tell_after(reading)


def _read(service: Service, sae: str, feature: str, text: str):
    for answer in service.activity(VectorRecipe(sae=sae, feature=feature), text):
        if isinstance(answer, str):
            yield answer, gr.skip()
    yield f"{sae} feature {feature}", highlighted(answer)
