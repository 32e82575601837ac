"""The tab that tries many settings on a feature and fills in the best."""

from collections.abc import Sequence
from functools import partial

import gradio as gr

from multitool.errors import UserError
from multitool.jobs.candidates import GRID, INJECTED, INJECTION
from multitool.jobs.suggest import Suggestion
from multitool.page.common import PRIVATE, by_name, on_model, shown_errors
from multitool.page.growth import steering_values
from multitool.page.result_title import Made, cleared_on_error, heading, tell_changes, title_box
from multitool.page.service import Service
from multitool.page.vector_controls import FeatureControls, control_values
from multitool.recipes.recipe import TreeRecipe, VectorRecipe
from multitool.text import visible

_WHAT_IT_DOES = (
    "Tries kinds of weights, scales and components on this feature, {} in all; of an SAE behind a layer also {} with "
    "the vector injected behind an early layer. A setting is good if the definitions that it gives fire the feature, "
    "and its token list finds the tokens that do. Takes a minute or more."
)


def suggest_tab(service: Service, controls: FeatureControls, growing: Sequence) -> None:
    """Build the tab and wire it to the controls.

    Args:
        growing: the tree's controls of growth and steering; what is suggested may inject the vector.
    """
    injection = growing[-len(INJECTION):]
    gr.Markdown(_WHAT_IT_DOES.format(len(GRID), len(INJECTED)))
    with gr.Row(elem_classes="actions"):
        run = gr.Button("Try the settings", variant="primary", min_width=160, elem_id="suggest")
        stop = gr.Button("Stop", min_width=80)
        use = gr.Button("Use the best", min_width=140, interactive=False, elem_id="use-best")
    title = title_box(None, "suggest-title")
    status = gr.Textbox("", show_label=False, placeholder="Nothing tried yet.", interactive=False, container=False,
                        lines=1, max_lines=4, elem_id="suggest-status", elem_classes="status")
    table = gr.Dataframe(
        headers=[_heading(column) for column in Suggestion.columns], interactive=False, max_height=560, wrap=True,
        datatype=["str", "number", "str", "str", *["number"] * (len(Suggestion.columns) - 4)], elem_id="trials",
        elem_classes=["table", "greys"],
        label="Settings tried, the best first (scale in units of the mean token distance; injected: put in behind that "
        "layer, or with a plus added)",
    )
    best, made = gr.State(), gr.State()  # its recipes
    answers = {"status": status, "table": table, "best": best, "use": use, "made": made, "title": title}
    settings = [controls.sae, controls.feature]
    trying = run.click(
        shown_errors(by_name(answers, cleared_on_error(_recipe, _nothing, partial(_suggested, service)))),
        [made, *settings], list(answers.values()), show_progress="hidden", **on_model(service.settings), **PRIVATE,
    )
    trying.then(**tell_changes(_recipe, made, title, settings))
    stop.click(lambda: "Stopped.", None, status, cancels=trying, queue=False, **PRIVATE)
    controls.tell_after(trying)
    use.click(
        shown_errors(partial(_filled, service)), best, [*controls.all(), *injection], queue=False, **PRIVATE
    )


def _heading(column: str) -> str:
    return column[:1].upper() + column[1:]


def _recipe(sae: str, feature: str) -> VectorRecipe:
    return VectorRecipe(sae=sae, feature=feature)


def _nothing(status: str) -> dict:
    return {
        "status": status, "table": [], "best": None, "use": gr.update(interactive=False), "made": None, "title": "",
    }


def _suggested(service: Service, sae: str, feature: str):
    """What has been tried, the best recipes and the button that uses them."""
    yield {"status": "Starting …"}
    recipe = _recipe(sae, feature)
    for answer in service.suggestion(recipe, TreeRecipe()):
        if isinstance(answer, str):
            yield {"status": answer}
    made = Made(f"{recipe.sae} · feature {recipe.feature}", recipe)
    yield {
        "status": visible(answer.sentence), "table": answer.rows, "best": (answer.recipe, answer.tree),
        "use": gr.update(interactive=True), "made": made, "title": heading(made),
    }


def _filled(service: Service, best: tuple[VectorRecipe, TreeRecipe] | None) -> list:
    """The controls with the best settings, those of the injection too."""
    if best is None:
        raise UserError("No settings have been tried yet.")
    vector, tree = best
    return [*control_values(service.library, vector), *steering_values(tree)[-len(INJECTION):]]
