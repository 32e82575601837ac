"""The tab that steers: a text of one's own continued with and without the feature."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from functools import partial

import gradio as gr

from multitool.page.common import PRIVATE, QUIETLY, as_number, counted, event, pick, status_line
from multitool.page.result import Result, Views
from multitool.page.service import LONGEST_TEXT, Service
from multitool.page.steered_html import steered_cards
from multitool.page.vector_controls import VectorControls, vector_values
from multitool.page.vector_upload import OwnVector, in_place_of_feature
from multitool.page.view import STEER, View
from multitool.recipes import links
from multitool.recipes.captions import feature_told
from multitool.recipes.continuation import LONGEST_CONTINUATION, MOST_STRENGTHS, SteerRecipe
from multitool.recipes.recipe import VectorRecipe

EXAMPLES = ("Yesterday I went to", "The most important thing about", "She opened the door and")


def steer_tab(service: Service, controls: VectorControls, views: Views) -> None:
    """Build the tab and wire it to the controls."""
    text = gr.Textbox(
        SteerRecipe.text, label="Text for the model to continue", lines=2, max_lines=8, max_length=LONGEST_TEXT,
        elem_id="steer-text",
        info="Once as it is, and once for each strength, while the feature is strengthened or weakened inside the "
        f"model; up to {LONGEST_TEXT:,} characters",
    )
    with gr.Row(elem_classes="examples"):
        gr.Markdown("Examples")
        examples = [gr.Button(example, size="sm", min_width=60) for example in EXAMPLES]
    with gr.Row():
        strengths = gr.Textbox(
            _written_out(SteerRecipe.strengths), label="Strengths", max_lines=1,
            max_length=200, elem_id="strengths", min_width=220,
            info=f"Up to {MOST_STRENGTHS}, in mean residual norms at the SAE's hook; below 0: away from the feature",
        )
        length = gr.Slider(
            1, LONGEST_CONTINUATION, SteerRecipe.length, step=1, label="Tokens to write", elem_id="steer-length",
            min_width=220, info="At most, for each strength",
        )
        temperature = gr.Slider(
            0, 2, SteerRecipe.temperature, step=0.1, label="Temperature", elem_id="steer-temperature", min_width=220,
            info="0: always the most probable token; above: drawn at random",
        )
        seed = gr.Number(
            SteerRecipe.seed, label="Seed", precision=0, minimum=0, elem_id="steer-seed", min_width=120, visible=False,
            info="The same seed gives the same text",
        )
    temperature.change(lambda value: gr.update(visible=bool(value)), temperature, seed, **QUIETLY)
    with gr.Row(elem_classes="actions"):
        run = gr.Button("Continue the text", variant="primary", min_width=160, elem_id="continue")
        stop = gr.Button("Stop", min_width=80)
    of_text = {
        "text": text, "strengths": strengths, "length": length, "temperature": temperature, "seed": seed,
    }
    of_vector = pick(controls.fields, ("sae", "feature", "vector"))
    view = View(STEER, _told, partial(_values, service, views.opening), "steered", "Continue the text", _leads)
    result = Result(
        "steer", of_vector | of_text, steering_asked, _nothing, view=view, views=views,
        link="Link to these continuations",
    )
    status = status_line("steer-status", "Nothing written yet.")
    shown = gr.HTML("", elem_id="steered", elem_classes="greys")
    result.place_link()
    answers = {"status": status, "shown": shown}
    result.refusing(answers)
    writing = event(
        result.making(partial(_written, service)), result.takes, answers | result.gives, show_progress="hidden",
        **counted(service.callers),
    )
    filled = [
        button.click(lambda example=example: example, None, text, **QUIETLY).then
        for button, example in zip(examples, EXAMPLES, strict=True)
    ]
    started = [trigger(**writing) for trigger in (run.click, text.submit, result.asked.change, *filled)]
    for writing_now in started:
        stop.click(lambda: "Stopped.", None, status, cancels=writing_now, queue=False, **PRIVATE)


def steering_asked(
    *, sae, feature, text, strengths: str, temperature, seed, length, vector: OwnVector | None = None
) -> tuple[VectorRecipe, SteerRecipe]:
    """The recipes that the controls show. Raises UserError for a value that cannot be."""
    recipe = SteerRecipe(
        text=text, strengths=tuple(map(as_number, re.findall(r"[^\s,;]+", strengths.replace("−", "-")))), length=length,
        temperature=temperature, seed=seed if temperature else SteerRecipe.seed,
    )
    return VectorRecipe(sae=sae, **{"feature": feature} | in_place_of_feature(vector)), recipe


def _told(**values) -> dict[str, str]:
    vector, recipe = steering_asked(**values)
    return links.told(vector, recipe, always=("sae", "feature", "text"))


def _values(service: Service, opening: VectorRecipe, parameters: Mapping[str, str]) -> dict:
    vector = vector_values(service.library, links.vector_of(parameters, opening))
    values: dict = pick(vector, ("sae", "feature", "vector"))
    if not _leads(parameters):
        return values
    recipe = SteerRecipe(**links.said(parameters, SteerRecipe))
    return values | asdict(recipe) | {"strengths": _written_out(recipe.strengths)}


def _leads(parameters: Mapping[str, str]) -> bool:
    return "text" in parameters


def _written_out(strengths: Iterable[float]) -> str:
    return ", ".join(f"{strength:g}" for strength in strengths)


def _nothing(status: str) -> dict:
    return {"status": status, "shown": "", "title": ""}


def _written(service: Service, vector: VectorRecipe, recipe: SteerRecipe):
    """The continuations as they are written; until they begin, in words what is being waited for."""
    yield {"status": "Starting …"}
    found, title = None, {"title": f"{feature_told(vector.settings(), ' · ')} · “{recipe.text}” continued"}
    for answer in service.continuations(vector, recipe):
        if isinstance(answer, str):
            yield {"status": answer}
            continue
        found = answer
        if found.continuations:
            yield {"status": f"Writing: {found.progress.numbers} …", "shown": steered_cards(found), **title}
            title = {}
    if found is not None:
        whole = "Written." if found.complete else "The time for one request here was up before all was written."
        yield {"status": whole}
