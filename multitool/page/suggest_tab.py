"""The tab that tries many settings on a feature; the tree's tab grows the best, and each that is chosen."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import gradio as gr

from multitool.errors import UserError
from multitool.jobs.candidates import GRID, INJECTED, ON_EMBEDDING
from multitool.jobs.suggest import Setting
from multitool.page.common import PRIVATE, counted, event, pick, status_line
from multitool.page.found_html import choosable
from multitool.page.result import Result, Views
from multitool.page.service import Service
from multitool.page.trials_html import trials_table
from multitool.page.vector_controls import VectorControls, vector_values
from multitool.page.view import SUGGEST, View
from multitool.recipes import links
from multitool.recipes.recipe import TreeRecipe, VectorRecipe
from multitool.text import visible

_WHAT_IT_DOES = (
    "Tries kinds of weights, scales and components on this feature, {} in all; of an SAE after a layer also {} with "
    "pullback weights and {} with the vector injected after an early layer. A setting is good if the definitions that "
    "it gives fire the feature, and its token list finds the tokens that do. Takes a minute or more; then the best "
    "one's tree grows in the tab “Definition tree”."
)


@dataclass(frozen=True)
class SuggestTab:
    """What the tree's tab takes a setting from."""

    table: gr.HTML  # its event ``select`` tells the ``number`` of a row
    settings: gr.State  # that were tried, the best first; None before
    trying: Any  # the event that tries them, which others can follow


def suggest_tab(service: Service, controls: VectorControls, views: Views) -> SuggestTab:
    """Build the tab and wire it to the controls."""
    gr.Markdown(_WHAT_IT_DOES.format(len(ON_EMBEDDING), len(GRID) - len(ON_EMBEDDING), len(INJECTED)))
    with gr.Row(elem_classes="actions"):
        run = gr.Button("Try the settings", variant="primary", min_width=160, elem_id="suggest")
        stop = gr.Button("Stop", min_width=80)
    # A link leads to the tab alone: what is done there takes a minute or more.
    view = View(SUGGEST, _told, partial(_values, service, views.opening), "trials", leads=lambda parameters: False)
    result = Result(
        "suggest", pick(controls.fields, ("sae", "feature")), _recipes, _nothing, view=view, views=views
    )
    status = status_line("suggest-status", "Nothing tried yet.")
    table = choosable("trials")
    settings = gr.State()
    trying = run.click(**event(
        result.making(partial(_suggested, service)), result.takes,
        {"status": status, "table": table, "settings": settings, **result.gives}, show_progress="hidden",
        **counted(service.callers),
    ))
    stop.click(lambda: "Stopped.", None, status, cancels=trying, queue=False, **PRIVATE)
    return SuggestTab(table, settings, trying)


def setting_chosen(settings: Sequence[Setting] | None, number: Any) -> Setting:
    """That of a row. Raises UserError if the row is not there any more.

    Args:
        number: from a browser, so it may be anything.
    """
    if settings is None or not isinstance(number, int) or not 0 <= number < len(settings):
        raise UserError("This row is not there any more. Press “Try the settings” once more.")
    return settings[number]


def _recipes(*, sae: str, feature: str) -> tuple[VectorRecipe]:
    return (VectorRecipe(sae=sae, feature=feature),)


def _told(*, sae: str, feature: str) -> dict[str, str]:
    return links.told(*_recipes(sae=sae, feature=feature))


def _values(service: Service, opening: VectorRecipe, parameters: Mapping[str, str]) -> dict:
    return pick(vector_values(service.library, links.vector_of(parameters, opening)), ("sae", "feature"))


def _nothing(status: str) -> dict:
    return {"status": status, "table": "", "settings": None}


def _suggested(service: Service, recipe: VectorRecipe):
    """What has been tried."""
    yield {"status": "Starting …"}
    for answer in service.suggestion(recipe, TreeRecipe()):
        if isinstance(answer, str):
            yield {"status": answer}
        else:
            yield {
                "status": visible(answer.sentence), "table": trials_table(answer.settings),
                "settings": answer.settings, "title": f"{recipe.sae} · feature {recipe.feature}",
            }
