"""The tab that asks several prompts in one go."""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import gradio as gr

from multitool.page.common import PRIVATE, as_number, counted, event, pick, save, status_line
from multitool.page.growth_controls import CUTOFFS
from multitool.page.opening import usual_growth
from multitool.page.result import Result, Views
from multitool.page.service import MOST_PROMPTS, Service
from multitool.page.vector_controls import VectorControls, vector_recipe, vector_values
from multitool.page.view import SEVERAL_PROMPTS, View
from multitool.recipes import links
from multitool.recipes.captions import title_told
from multitool.recipes.prompts import PLAIN_PROMPTS, PROMPTS
from multitool.recipes.recipe import TreeRecipe, VectorRecipe
from multitool.store.library import Library
from multitool.text import percent, visible
from multitool.trees.document import DefinitionTree

_DEFINITIONS_SHOWN = 5
# Each with its kind and its part of the width.
_COLUMNS = {"Prompt": ("str", 32), "Most probable definitions": ("str", 54), "Nats": ("number", 14)}


def prompts_tab(service: Service, controls: VectorControls, views: Views) -> None:
    """Build the tab and wire it to the controls."""
    with gr.Row():
        prompts = gr.Textbox(
            "\n".join(PROMPTS[name].prompt for name in PLAIN_PROMPTS), label="Several prompts in one go", lines=5,
            max_lines=10, max_length=MOST_PROMPTS * service.settings.max_prompt, elem_id="prompts", scale=3,
            min_width=320,
            info=f"One a line, up to {MOST_PROMPTS}, each with {{ghost}} in it once, or by its name in the prompt "
            f"menu: {', '.join(PROMPTS)}",
        )
        cutoff = gr.Dropdown(
            CUTOFFS, value="1e-3", label="Cutoff", allow_custom_value=True, elem_id="prompts-cutoff", min_width=160,
            info="Smallest probability of a path; small trees will do to compare",
        )
    with gr.Row(elem_classes="actions"):
        ask = gr.Button("Ask all", variant="primary", min_width=160, elem_id="ask-all")
        stop = gr.Button("Stop", min_width=80)
    read = partial(_recipes, service.library, min(TreeRecipe.max_nodes, service.settings.max_nodes))
    view = View(
        SEVERAL_PROMPTS, partial(_told, read), partial(_values, service, views.opening), "answers", "Ask all", _leads
    )
    result = Result(
        "prompts", {**controls.fields, "prompts": prompts, "cutoff": cutoff}, read, _nothing, view=view, views=views,
        link="Link to these answers",
    )
    status = status_line("prompts-status", "Nothing asked yet.")
    kinds, widths = zip(*_COLUMNS.values(), strict=True)
    table = gr.Dataframe(
        headers=list(_COLUMNS), datatype=list(kinds), column_widths=[f"{width}%" for width in widths], wrap=True,
        interactive=False, max_height=560, elem_id="answers", elem_classes=["table", "greys"],
        label="Answers (“…”: unfinished; entropy of the first token, in nats)",
    )
    result.place_link()
    file = gr.DownloadButton("All trees (JSON)", size="sm", elem_id="trees", visible=False)
    answers = {"status": status, "table": table, "file": file}
    result.refusing(answers)
    asked = [trigger(**event(
        result.making(partial(_asked, service)), result.takes, answers | result.gives, show_progress="hidden",
        **counted(service.callers),
    )) for trigger in (ask.click, result.asked.change)]
    stop.click(lambda: "Stopped.", None, status, cancels=asked, queue=False, **PRIVATE)


def _recipes(library: Library, most: int, *, prompts, cutoff, **of_vector) -> tuple[VectorRecipe, list[TreeRecipe]]:
    """The recipes that the controls show, with as many next tokens as suit the model, and of no more than ``most``
    nodes. Raises UserError if a value cannot be."""
    vector = vector_recipe(**of_vector)
    top_k = usual_growth(library.find(vector.sae).model).top_k
    return vector, [
        TreeRecipe(prompt=line.strip(), cutoff=as_number(cutoff), max_nodes=most, top_k=top_k)
        for line in prompts.splitlines() if line.strip()
    ]


def _told(read: Callable[..., tuple], *, prompts: str, cutoff, **of_vector) -> dict[str, str]:
    read(prompts=prompts, cutoff=cutoff, **of_vector)
    return links.told(vector_recipe(**of_vector)) | {"prompts": prompts, "cutoff": str(cutoff)}


def _values(service: Service, opening: VectorRecipe, parameters: Mapping[str, str]) -> dict:
    asked = pick(parameters, {"prompts", "cutoff"} & parameters.keys())
    return vector_values(service.library, links.vector_of(parameters, opening)) | asked


def _leads(parameters: Mapping[str, str]) -> bool:
    return "prompts" in parameters


def _nothing(status: str) -> dict:
    return {"status": status, "table": [], "file": gr.update(visible=False), "title": ""}


def _asked(service: Service, vector: VectorRecipe, recipes: Sequence[TreeRecipe]):
    """The answers as they come, in the end the trees."""
    if not recipes:
        yield _nothing("There is no prompt to ask. Write one a line above.")
        return
    yield _nothing("Starting …")
    for answer in service.trees_of_prompts(vector, recipes):
        if isinstance(answer, str):
            yield {"status": answer}
        else:
            trees = answer
            yield {"table": [_row(tree) for tree in trees], "title": title_told(trees[0].settings)}
    path = save(
        json.dumps([tree.to_dict() for tree in trees], ensure_ascii=False, allow_nan=False), trees[0].settings,
        "trees.json",
    )
    yield {"status": f"{len(trees)} asked.", "file": gr.update(value=path, visible=True)}


def _row(document: DefinitionTree) -> list:
    definitions = " · ".join(
        f"{visible(found.text)}{'' if found.complete else ' …'} {percent(found.probability)}"
        for found in document.definitions(_DEFINITIONS_SHOWN)
    )
    entropy = document.first_token_entropy
    return [visible(document.asked), definitions, None if entropy is None else round(entropy, 1)]
