"""The tab that tries many settings on a feature and fills in the best."""

from collections.abc import Mapping
from functools import partial

import gradio as gr
from gradio.components import Component

from multitool.errors import UserError
from multitool.jobs.candidates import GRID, INJECTED, INJECTION, ON_EMBEDDING
from multitool.jobs.suggest import Suggestion
from multitool.page.common import PRIVATE, counted, event, pick, status_line
from multitool.page.growth_controls import tree_values
from multitool.page.result import Result, Views
from multitool.page.service import Service
from multitool.page.vector_controls import VectorControls, vector_values
from multitool.page.view import SUGGEST, View
from multitool.recipes import links
from multitool.recipes.recipe import TreeRecipe, VectorRecipe
from multitool.text import visible

_WHAT_IT_DOES = (
    "Tries kinds of weights, scales and components on this feature, {} in all; of an SAE behind a layer also {} with "
    "pullback weights and {} with the vector injected behind an early layer. A setting is good if the definitions that "
    "it gives fire the feature, and its token list finds the tokens that do. Takes a minute or more."
)


def suggest_tab(
    service: Service, controls: VectorControls, growth: Mapping[str, Component], views: Views
) -> None:
    """Build the tab and wire it to the controls.

    Args:
        growth: the tree's controls of growth and steering; what is suggested may inject the vector.
    """
    gr.Markdown(_WHAT_IT_DOES.format(len(ON_EMBEDDING), len(GRID) - len(ON_EMBEDDING), len(INJECTED)))
    with gr.Row(elem_classes="actions"):
        run = gr.Button("Try the settings", variant="primary", min_width=160, elem_id="suggest")
        stop = gr.Button("Stop", min_width=80)
        use = gr.Button("Use the best", min_width=140, interactive=False, elem_id="use-best")
    # A link leads to the tab alone: what is done there takes a minute or more.
    view = View(SUGGEST, _told, partial(_values, service, views.opening), leads=lambda parameters: False)
    result = Result(
        "suggest", pick(controls.fields, ("sae", "feature")), _recipes, _nothing, view=view, views=views
    )
    status = status_line("suggest-status", "Nothing tried yet.")
    table = gr.Dataframe(
        headers=[_heading(column) for column in Suggestion.columns], interactive=False, max_height=560, wrap=True,
        datatype=["str", "number", "str", "str", *["number"] * (len(Suggestion.columns) - 4)], elem_id="trials",
        elem_classes=["table", "greys"],
        label="Settings tried, the best first (scale in units of the mean token distance; injected: put in behind that "
        "layer, or with a plus added)",
    )
    best = gr.State()  # its recipes
    trying = run.click(**event(
        result.making(partial(_suggested, service)), result.takes,
        {"status": status, "table": table, "best": best, "use": use, **result.gives}, show_progress="hidden",
        **counted(service.callers),
    ))
    stop.click(lambda: "Stopped.", None, status, cancels=trying, queue=False, **PRIVATE)
    result.tell_after(trying)
    controls.tell_after(trying)
    filled = {**controls.fields, **pick(growth, INJECTION)}
    use.click(**event(partial(_best_values, service), {"best": best}, filled, queue=False))


def _heading(column: str) -> str:
    return column[:1].upper() + column[1:]


def _recipes(*, sae: str, feature: str) -> tuple[VectorRecipe]:
    return (VectorRecipe(sae=sae, feature=feature),)


def _told(*, sae: str, feature: str) -> dict[str, str]:
    return links.told(*_recipes(sae=sae, feature=feature))


def _values(service: Service, opening: VectorRecipe, parameters: Mapping[str, str]) -> dict:
    return pick(vector_values(service.library, links.vector_of(parameters, opening)), ("sae", "feature"))


def _nothing(status: str) -> dict:
    return {"status": status, "table": [], "best": None, "use": gr.update(interactive=False)}


def _suggested(service: Service, recipe: VectorRecipe):
    """What has been tried, the best recipes and the button that uses them."""
    yield {"status": "Starting …"}
    for answer in service.suggestion(recipe, TreeRecipe()):
        if isinstance(answer, str):
            yield {"status": answer}
        else:
            yield {
                "status": visible(answer.sentence), "table": answer.rows, "best": (answer.recipe, answer.tree),
                "use": gr.update(interactive=True), "title": f"{recipe.sae} · feature {recipe.feature}",
            }


def _best_values(service: Service, best: tuple[VectorRecipe, TreeRecipe] | None) -> dict:
    """The controls with the best settings, those of the injection too."""
    if best is None:
        raise UserError("No settings have been tried yet.")
    vector, tree = best
    return vector_values(service.library, vector) | pick(tree_values(tree), INJECTION)
