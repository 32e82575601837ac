"""The tab with the token list."""

from functools import partial

import gradio as gr

from multitool import engine
from multitool.recipe import ListRecipe
from multitool.text import visible
from multitool.ui_common import PRIVATE, save, shown_errors
from multitool.ui_controls import FeatureControls, vector_recipe
from multitool.ui_service import Service


def tokens_tab(service: Service, controls: FeatureControls) -> None:
    """Build the tab and wire it to the controls."""
    with gr.Row():
        exponent = gr.Slider(
            0.1, 5, ListRecipe.exponent, step=0.1, label="Exponent",
            info="Larger: nearer to the vector. Smaller: farther from the centroid, which is near to everything.",
        )
        top = gr.Slider(10, 1000, ListRecipe.top, step=10, label="Tokens")
    make = gr.Button("List tokens", variant="primary", elem_id="list")
    status = gr.Textbox("", show_label=False, placeholder="No list yet.", interactive=False, container=False)
    csv_file = gr.DownloadButton("CSV", size="sm", elem_id="csv")
    table = gr.Dataframe(
        headers=[column.replace("_", " ") for column in engine.TOKEN_COLUMNS], interactive=False, max_height=640,
        datatype=["number", "str", "number", "number", "number", "number"], elem_id="tokens", show_search="search",
        label="Nearest tokens (␣ is a blank)",
    )
    make.click(
        shown_errors(partial(_listed, service)), [*controls.all(), exponent, top],
        [status, table, csv_file], show_progress_on=table, concurrency_limit=8, **PRIVATE,
    )


def _listed(service: Service, *values):
    """List the tokens; until the model's embeddings are there, in words what is being waited for."""
    *vector_values, exponent, top = values
    for table in service.table(vector_recipe(*vector_values), ListRecipe(exponent=exponent, top=top)):
        if isinstance(table, str):
            yield [table, gr.skip(), gr.skip()]
    rows = [
        [rank, visible(token, spaces=True), token_id, *(round(number, 4) for number in numbers)]
        for rank, token, token_id, *numbers in table.rows
    ]
    status = (
        f"{table.settings['sae']} feature {table.settings['feature']}: distance from the centroid "
        f"{table.vector['distance_from_centroid']:.3g} (tokens: {table.vector['mean_token_distance']:.3g} on average)"
    )
    yield [visible(status), rows, save(table.to_csv(), table.settings, "tokens.csv")]
