"""SAEs on the page: rows that a search has found, each to be chosen; and what is known of the chosen one."""

from collections.abc import Sequence
from html import escape
from pathlib import Path

import gradio as gr

from multitool.errors import size_shown
from multitool.store.capacity import RunsHere
from multitool.store.choosing import layer_shown
from multitool.store.demo_models import terms_of
from multitool.store.entries import SaeEntry, model_size
from multitool.text import count_shown

_IN_PAGE = Path(__file__).with_name("saes_in_page.js")
_HEADINGS = ("SAE", "Model", "Layer", "Width", "L0", "Parameters", "Licence", "Runs here")
_HELP = {
    "Width": "How many features it has", "L0": "How many of them fire at a token, on average",
    "Parameters": "How large its model is", "Licence": "Gated: to be accepted before the model can be fetched",
    "Runs here": "By the memory that there is here, and the model's licence",
}
_MARKS = {True: "✓", False: "✗", None: "?"}


def rows_to_choose(elem_id: str) -> gr.HTML:
    """What ``found_rows`` makes, on the page: a click on a row, or Enter, is its event ``select``, whose data tell the
    ``name`` of the SAE."""
    return gr.HTML("", js_on_load=_IN_PAGE.read_text(encoding="utf-8"), apply_default_css=False, elem_id=elem_id)


def found_rows(found: Sequence[SaeEntry], runs: Sequence[RunsHere], n_found: int) -> str:
    """SAEs as HTML, each in a row to be chosen.

    Args:
        runs: whether each runs here.
        n_found: of how many these are the first.
    """
    headings = "".join(f'<th scope="col" title="{_HELP.get(name, "")}">{name}</th>' for name in _HEADINGS)
    rows = "".join(map(_row, found, runs))
    more = n_found - len(found)
    rest = f"<p>and {more:,} more: add words, such as a layer or a width.</p>" if more else ""
    return (
        f'<table class="saes"><caption>{n_found:,} found: choose one</caption>'
        f"<thead><tr>{headings}</tr></thead><tbody>{rows}</tbody></table>{rest}"
    )


def _row(entry: SaeEntry, runs: RunsHere) -> str:
    name = escape(entry.name, quote=True)
    size = model_size(entry.model)
    run = f"{_MARKS[runs.answer]} {_answer(runs)}"
    told = {
        "Model": escape(entry.model), "Layer": layer_shown(entry), "Width": width_shown(entry), "L0": l0_shown(entry),
        "Parameters": count_shown(size.parameters) if size else "–", "Licence": "gated" if entry.gated else "free",
        "Runs here": f'<span title="{escape(str(runs), quote=True)}">{run}</span>',
    }
    cells = "".join(f'<td data-name="{heading}">{value}</td>' for heading, value in told.items())
    return f'<tr data-sae="{name}"><th scope="row"><button type="button">{name}</button></th>{cells}</tr>'


def _answer(runs: RunsHere) -> str:
    """Whether an SAE runs here in a word or two; ``why`` says the rest."""
    return str(runs).partition(":")[0]


def width_shown(entry: SaeEntry) -> str:
    return f"{entry.d_sae:,}" if entry.d_sae else "–"


def l0_shown(entry: SaeEntry) -> str:
    return "–" if entry.l0 is None else f"{entry.l0:.0f}"


def about_sae(entry: SaeEntry, runs: RunsHere, here: bool) -> str:
    """Where an SAE was trained, what it and its model are, and whether they run here.

    Args:
        here: whether they are in memory already.
    """
    where = "token embeddings" if entry.kind == "embed" else f"layer {entry.layer}"
    size = model_size(entry.model)
    figures = []
    if entry.d_sae:
        figures.append(f"{entry.d_sae:,} features")
    if entry.l0 is not None:
        figures.append(f"L0 {entry.l0:.0f}")
    if size:
        figures.append(f"a model of {count_shown(size.parameters)} parameters")
    about = f"Trained on {where} of {escape(entry.model)} (<code>{escape(entry.hook)}</code>)"
    about += f": {', '.join(figures)}." if figures else "."
    if not here:
        about += f" Runs here: {_runs_here(entry, runs)}."
        if runs.answer is not False and size and entry.folder is None:
            about += f" {size_shown(size.download)} are fetched once."
    return f'<p class="about">{about}</p>'


def _runs_here(entry: SaeEntry, runs: RunsHere) -> str:
    """Whether it runs here, with the way to the licence that must be accepted first."""
    said = escape(str(runs))
    if entry.licence_page is None or terms_of(entry.model):  # those have a panel of their own
        return said
    page = escape(entry.licence_page, quote=True)
    link = f'<a href="{page}" target="_blank" rel="noopener">licence</a>'
    return said.replace("licence", link) if "licence" in said else f"{said}; its {link} must be accepted first"
