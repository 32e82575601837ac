"""The tab with the token list."""

from functools import partial

import gradio as gr

from multitool import engine
from multitool.engine import TokenTable
from multitool.errors import UserError
from multitool.recipe import MEASURES, ListRecipe
from multitool.text import visible
from multitool.ui_common import PRIVATE, save, shown_errors
from multitool.ui_controls import FeatureControls, vector_recipe
from multitool.ui_evidence import list_verdict
from multitool.ui_service import Service

_EXPONENT_HELP = "Larger: nearer to the vector; smaller: farther from the centroid"


def tokens_tab(service: Service, controls: FeatureControls) -> None:
    """Build the tab and wire it to the controls."""
    with gr.Row():
        measure = gr.Radio(
            list(MEASURES), value=ListRecipe.measure, label="Order by", elem_id="measure",
            info=_measure_help(ListRecipe.measure),
        )
        exponent = gr.Slider(0.1, 5, ListRecipe.exponent, step=0.1, label="Exponent", info=_EXPONENT_HELP)
        top = gr.Slider(10, 1000, ListRecipe.top, step=10, label="Tokens", info="How many are listed")
    with gr.Row():
        make = gr.Button("List tokens", variant="primary", elem_id="list", scale=3)
        check = gr.Button("Check this list", elem_id="check-list", interactive=False, scale=1)
    status = gr.Textbox("", show_label=False, placeholder="No list yet.", interactive=False, container=False,
                        elem_id="list-status")
    verdict = gr.HTML("", elem_id="list-verdict")
    csv_file = gr.DownloadButton("CSV", size="sm", elem_id="csv")
    table = gr.Dataframe(
        **_frame(engine.TOKEN_COLUMNS), interactive=False, max_height=640, elem_id="tokens", show_search="search",
        label="Tokens (␣ is a blank)",
    )
    listed = gr.State()  # the recipes of the list that is shown

    measure.change(lambda kind: (gr.update(info=_measure_help(kind)), gr.update(visible=kind == "score")), measure,
                   [measure, exponent], queue=False, show_progress="hidden", **PRIVATE)
    views = [status, verdict, table, csv_file, listed, check]
    event = {"outputs": views, "show_progress_on": table, "concurrency_limit": 8, **PRIVATE}
    make.click(shown_errors(partial(_listed, service)), [*controls.all(), measure, exponent, top], **event)
    check.click(shown_errors(partial(_checked, service)), listed, **event)


def _measure_help(measure: str) -> str:
    return MEASURES[measure][:1].upper() + MEASURES[measure][1:]


def _frame(columns: tuple[str, ...]) -> dict:
    """How a table of tokens looks."""
    return {
        "headers": [column.replace("_", " ") for column in columns],
        "datatype": ["str" if column == "token" else "number" for column in columns],
    }


def _listed(service: Service, *values):
    """List the tokens; until they can be listed, in words what is being waited for."""
    *vector_values, measure, exponent, top = values
    recipes = vector_recipe(*vector_values), ListRecipe(measure=measure, exponent=exponent, top=top)
    yield from _views(service, recipes, evidence=False)


def _checked(service: Service, recipes: tuple | None):
    """The list that is shown once more, with its evidence."""
    if recipes is None:
        raise UserError("There is no list to check. Make one first.")
    yield from _views(service, recipes, evidence=True)


def _views(service: Service, recipes: tuple, *, evidence: bool):
    for table in service.table(*recipes, evidence=evidence):
        if isinstance(table, str):
            yield [table, *(gr.skip() for _ in range(5))]
    rows = [
        [rank, visible(token, spaces=True), token_id, *(round(number, 4) for number in numbers)]
        for rank, token, token_id, *numbers in table.rows
    ]
    frame = _frame(table.columns)
    # A list by activation agrees with the activations, whatever the direction.
    may_check = recipes[1].measure == "score" and not evidence
    yield [
        visible(_summary(table)), list_verdict(table, partial(_token_text, service, table)),
        gr.Dataframe({"headers": frame["headers"], "data": rows}, datatype=frame["datatype"]),
        save(table.to_csv(), table.settings, "tokens.csv"), recipes, gr.update(interactive=may_check),
    ]


def _token_text(service: Service, table: TokenTable, token_id: int) -> str:
    return service.library.subject(table.settings["model"]).token_texts[token_id]


def _summary(table: TokenTable) -> str:
    settings, vector = table.settings, table.vector
    return (
        f"{settings['sae']} feature {settings['feature']}, {settings['weights']}: distance from the centroid "
        f"{vector['distance_from_centroid']:.3g} (tokens: {vector['mean_token_distance']:.3g} on average)"
    )
