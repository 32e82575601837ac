"""The tab with the token list."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict
from functools import partial
from html import escape
from typing import Any

import gradio as gr
from gradio.events import Dependency

from multitool.errors import UserError
from multitool.jobs.token_table import TOKEN_COLUMNS, TokenTable
from multitool.page.common import PRIVATE, QUIETLY, counted, event, pick, save, status_line
from multitool.page.copying import copy_buttons, list_copied
from multitool.page.evidence_html import list_verdict_html
from multitool.page.result import Made, Result, Views, title_answer
from multitool.page.service import Service
from multitool.page.vector_controls import VectorControls, vector_recipe, vector_values
from multitool.page.view import LIST, View
from multitool.recipes import links
from multitool.recipes.captions import distance_told, source_told, title_told
from multitool.recipes.recipe import MEASURES, ListRecipe, VectorRecipe
from multitool.text import visible
from multitool.trees.comparison import ranks_in

_EXPONENT_HELP = "Larger: nearer to the vector; smaller: farther from the centroid"


# Whether the tab is open: only the browser knows.
_IF_OPEN = "(open, ...values) => [document.querySelector('#list')?.offsetParent != null, ...values]"


def list_tab(
    service: Service, controls: VectorControls, tab: gr.Tab, views: Views
) -> Callable[[Iterable[Dependency]], None]:
    """Build the tab and wire it to the controls.

    Args:
        tab: this one: when it is opened, the list of the chosen feature is made.

    Returns:
        What has the list made anew after events at which another feature has been chosen, while the tab is open.
    """
    measure = gr.Radio(
        list(MEASURES), value=ListRecipe.measure, label="Order by", elem_id="measure",
        info=_measure_help(ListRecipe.measure),
    )
    with gr.Row():
        exponent = gr.Slider(0.1, 5, ListRecipe.exponent, step=0.1, label="Exponent", info=_EXPONENT_HELP,
                             elem_id="exponent")
        top = gr.Slider(10, 1000, ListRecipe.top, step=10, label="Tokens", info="How many are listed")
        with gr.Column(min_width=160):
            negative = gr.Checkbox(ListRecipe.negative, label="Least similar tokens", elem_id="negative",
                                   info="The list from its other end")
            words = gr.Checkbox(ListRecipe.words, label="Only words", info="A space and letters", elem_id="words")
    with gr.Row(elem_classes="actions"):
        make = gr.Button("List tokens", variant="primary", min_width=160, elem_id="list")
        check = gr.Button("Check this list", min_width=140, elem_id="check-list", interactive=False)
        keep = gr.Button("Keep to compare", min_width=140, elem_id="keep-list", interactive=False)
        drop = gr.Button("Stop comparing", min_width=140, visible=False, elem_id="drop-list")
    how = {"measure": measure, "exponent": exponent, "top": top, "negative": negative, "words": words}
    view = View(
        LIST, _told, partial(_values, service, views.opening), "tokens", "List tokens", free=partial(_free, service)
    )
    result = Result(
        "list", {**controls.fields, **how}, _recipes, _nothing, view=view, views=views, link="Link to this list"
    )
    status = status_line("list-status", "No list yet. Press “List tokens”.")
    verdict = gr.HTML("", elem_id="list-verdict", elem_classes="greys")
    with gr.Row():
        with gr.Column(min_width=380, visible=False) as kept_column:
            kept_name = gr.HTML("", elem_id="kept-list-name", elem_classes="view-title", padding=False)
            kept_table = gr.Dataframe(
                **_frame(TOKEN_COLUMNS), interactive=False, max_height=640, elem_id="kept-tokens",
                elem_classes="table", label="Kept list",
            )
        with gr.Column(min_width=380):
            shared = gr.HTML("", elem_id="lists-shared", elem_classes=["view-title", "greys"], padding=False,
                             visible=False)
            table = gr.Dataframe(
                **_frame(TOKEN_COLUMNS), interactive=False, max_height=640, elem_id="tokens",
                elem_classes=["table", "greys"], show_search="search", label="Tokens (␣ is a space)",
            )
    copies = copy_buttons("", "copy-list", "the list")
    result.place_link()
    csv_file = gr.DownloadButton("CSV", size="sm", elem_id="csv")
    listed, kept = gr.State(), gr.State()

    suited = pick(how, ("measure", "exponent", "negative"))
    measure.change(**event(_suited, {"measure": measure}, suited, **QUIETLY))
    shown = {
        "status": status, "verdict": verdict, "table": table, "csv": csv_file, "check": check, "keep": keep,
        "drop": drop, "kept_column": kept_column, "kept_name": kept_name, "kept_table": kept_table, "shared": shared,
        "copies": copies,
    }
    options: dict[str, Any] = {"show_progress_on": table, "shelf": service.shelf}
    show = event(partial(_shown, service), {"listed": listed, "kept": kept}, shown, **options)
    answers = {"status": status, "listed": listed, **result.gives}
    light, on_model = counted(service.light_callers), counted(service.callers)
    listing_anew = event(
        _for_another_feature(service, result.making(partial(_listed, service))),
        {"open": gr.Checkbox(True, visible=False), **result.takes}, answers, **options, **light,
    )

    def follow(chosen: Iterable[Dependency]) -> None:
        for choice in chosen:
            choice.success(**listing_anew, js=_IF_OPEN)

    listing = event(result.making(partial(_listed, service)), result.takes, answers, **options, **light)
    make.click(**listing)
    result.asked.change(**listing)
    tab.select(**listing_anew)
    check.click(**event(
        result.beside(partial(_checked, service), anew=False), pick(result.takes, ("made",)), answers, **options,
        **on_model,
    ))
    result.done.change(**show)
    result.refusing({"status": status, "listed": listed}, shelf=service.shelf).then(**show)
    keep.click(lambda shown: shown, listed, kept, show_progress="hidden", **PRIVATE).then(**show)
    drop.click(lambda: None, None, kept, show_progress="hidden", **PRIVATE).then(**show)
    return follow


def _for_another_feature(service: Service, making: Callable[..., Iterator[dict]]) -> Callable[..., Iterator[dict]]:
    """The handler that makes a list, where that is seen, the list that there is is of another feature, and a new one
    takes neither loading nor, on ZeroGPU, a GPU."""

    def handler(open: bool, made: Made | None, **values):
        if not open:
            return
        try:
            vector, recipe = _recipes(**values)
        except UserError:
            return  # told when it is asked for
        before = made.shown[0] if made else None
        alike = before and (before.sae, before.feature, before.vector) == (vector.sae, vector.feature, vector.vector)
        if not alike and service.lists_at_once(vector, recipe):
            yield from making(made=made, **values)

    return handler


def _suited(measure: str) -> dict:
    """The controls as they suit a measure: its help, and what it takes."""
    other_end = {"visible": True} if measure != "activation" else {"visible": False, "value": False}
    return {
        "measure": gr.update(info=_measure_help(measure)), "exponent": gr.update(visible=measure == "score"),
        "negative": gr.update(**other_end),
    }


def _measure_help(measure: str) -> str:
    return MEASURES[measure][:1].upper() + MEASURES[measure][1:]


def _frame(columns: tuple[str, ...]) -> dict:
    """How a table of tokens looks."""
    return {
        "headers": [column.replace("_", " ") for column in columns],
        "datatype": ["str" if column in ("token", _ALSO) else "number" for column in columns],
    }


def _recipes(*, measure, exponent, top, negative, words, **of_vector) -> tuple[VectorRecipe, ListRecipe]:
    """The recipes that the controls show. Raises UserError if a value cannot be."""
    exponent = exponent if measure == "score" else ListRecipe.exponent  # else its control is not seen
    return vector_recipe(**of_vector), ListRecipe(
        measure=measure, exponent=exponent, top=top, negative=negative, words=words
    )


def _told(**values) -> dict[str, str]:
    return links.told(*_recipes(**values))


def _values(service: Service, opening: VectorRecipe, parameters: Mapping[str, str]) -> dict:
    recipe = ListRecipe(**links.said(parameters, ListRecipe))
    return vector_values(service.library, links.vector_of(parameters, opening)) | asdict(recipe)


def _free(service: Service, **values) -> bool:
    return service.lists_at_once(*_recipes(**values))


def _nothing(status: str) -> dict:
    return {"status": status, "listed": None}


def _listed(service: Service, vector: VectorRecipe, recipe: ListRecipe):
    """List the tokens; until they can be listed, in words what is being waited for."""
    for answer in service.table(vector, recipe):
        if isinstance(answer, str):
            yield {"status": answer}
        else:
            yield {"listed": answer, "title": title_told(answer.settings)}


def _checked(service: Service, made: Made | None):
    """The list that is shown once more, with its evidence."""
    if made is None:
        raise UserError("There is no list to check. Make one first.")
    for answer in service.table(*made.shown, evidence=True):
        yield {"status": answer} if isinstance(answer, str) else {"listed": answer, **title_answer(made)}


_ALSO = "rank in the other"


def _shown(service: Service, listed: TokenTable | None, kept: TokenTable | None) -> dict:
    """The list, and beside it the kept one if there is one; each tells which of its tokens the other has too."""
    if listed is None:  # the status tells why
        no = gr.update(interactive=False)
        return {"verdict": "", "table": gr.Dataframe(**_frame(TOKEN_COLUMNS), value=[]), "csv": None, "copies": "",
                "check": no, "keep": no, "shared": gr.update(visible=False)}
    views = {
        "status": visible(_summary(listed)),
        "verdict": list_verdict_html(listed, partial(_token_text, service, listed)),
        "table": _dataframe(listed, kept),
        "csv": save(listed.to_csv(), listed.settings, "tokens.csv"),
        "copies": list_copied(listed),
        # A list by activation agrees with the activations, whatever the direction.
        "check": gr.update(interactive=listed.settings["measure"] != "activation" and listed.evidence is None),
        "keep": gr.update(interactive=True),
        **{name: gr.update(visible=kept is not None) for name in ("drop", "kept_column", "shared")},
    }
    if kept:
        both = len({row[1] for row in listed.rows} & {row[1] for row in kept.rows})
        views |= {
            "kept_name": f"<p><b>Kept</b> · {escape(visible(_name(kept)))}</p>",
            "kept_table": _dataframe(kept, listed),
            "shared": gr.update(
                visible=True,
                value=f"<p><b>This one</b> · {escape(visible(_name(listed)))}. The two lists have <b>{both}</b> of "
                f"{len(listed.rows)} tokens in common.</p>",
            ),
        }
    return views


def _dataframe(table: TokenTable, other: TokenTable | None) -> gr.Dataframe:
    """The rows as the page shows them; with the ranks in another list, behind the tokens, if there is one."""
    rows = [
        [rank, visible(token, spaces=True), token_id, *(round(number, 4) for number in numbers)]
        for rank, token, token_id, *numbers in table.rows
    ]
    columns = table.columns
    if other is not None:
        ranks = ranks_in([row[1] for row in table.rows], [row[1] for row in other.rows])
        rows = [[*row[:2], f"= {rank}" if rank else "", *row[2:]] for row, rank in zip(rows, ranks, strict=True)]
        columns = (*columns[:2], _ALSO, *columns[2:])
    frame = _frame(columns)
    return gr.Dataframe({"headers": frame["headers"], "data": rows}, datatype=frame["datatype"])


def _token_text(service: Service, table: TokenTable, token_id: int) -> str:
    return service.library.subject(table.settings["model"]).token_texts[token_id]


def _name(table: TokenTable) -> str:
    return f"{source_told(table.settings)}, scale {table.settings['scale']:.3g}, by {_order(table)}"


def _order(table: TokenTable) -> str:
    """In words what a list is ordered by."""
    settings = table.settings
    by = settings["measure"].replace("_", " ")
    return by + ", least similar" * settings["negative"] + ", only words" * settings["words"]


def _summary(table: TokenTable) -> str:
    """In words how it was made, but for what its title tells."""
    return f"By {_order(table)}; {distance_told(table.settings, table.vector)}"
