"""The tab that tries many settings on a feature and fills in the best."""

from collections.abc import Sequence
from functools import partial

import gradio as gr

from multitool.errors import UserError
from multitool.recipe import TreeRecipe, VectorRecipe
from multitool.suggestion import GRID, INJECTED, INJECTION, Suggestion
from multitool.text import visible
from multitool.ui_common import PRIVATE, on_model, shown_errors
from multitool.ui_controls import FeatureControls, control_values
from multitool.ui_service import Service
from multitool.ui_steering import steering_values

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
    status = gr.Textbox("", show_label=False, placeholder="Nothing tried yet.", interactive=False, container=False,
                        lines=1, max_lines=4, elem_id="suggest-status", elem_classes="status")
    table = gr.Dataframe(
        headers=[_heading(column) for column in Suggestion.columns], interactive=False, max_height=560, wrap=True,
        datatype=["str", "number", "str", "str", *["number"] * (len(Suggestion.columns) - 4)], elem_id="trials",
        elem_classes="table",
        label="Settings tried, the best first (scale in units of the mean token distance; injected: put in behind that "
        "layer, or with a plus added)",
    )
    best = gr.State()  # its recipes
    trying = run.click(
        shown_errors(partial(_suggested, service)), [controls.sae, controls.feature], [status, table, best, use],
        show_progress="hidden", **on_model(service.settings), **PRIVATE,
    )
    stop.click(lambda: "Stopped.", None, status, cancels=trying, queue=False, **PRIVATE)
    controls.tell_after(trying)
    use.click(
        shown_errors(partial(_filled, service)), best, [*controls.all(), *injection], queue=False, **PRIVATE
    )


def _heading(column: str) -> str:
    return column[:1].upper() + column[1:]


def _suggested(service: Service, sae: str, feature: str):
    """For the status, the table, the best recipes and the button that uses them."""
    yield "Starting …", gr.skip(), gr.skip(), gr.skip()
    for answer in service.suggestion(VectorRecipe(sae=sae, feature=feature), TreeRecipe()):
        if isinstance(answer, str):
            yield answer, gr.skip(), gr.skip(), gr.skip()
    words = visible(f"{sae} feature {feature}: {answer.sentence}")
    yield words, answer.rows, (answer.recipe, answer.tree), gr.update(interactive=True)


def _filled(service: Service, best: tuple[VectorRecipe, TreeRecipe] | None) -> list:
    """The controls with the best settings, those of the injection too."""
    if best is None:
        raise UserError("No settings have been tried yet.")
    vector, tree = best
    return [*control_values(service.library, vector), *steering_values(tree)[-len(INJECTION):]]
