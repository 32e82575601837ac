"""Choosing an SAE on the page: by a search over all models, or by menus that narrow each other.

The control ``sae`` is what counts: all else follows what it shows, and sets it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import gradio as gr
from gradio.components import Component

from multitool.errors import UserError
from multitool.page.common import LATEST, QUIETLY, event
from multitool.page.opening import Opening
from multitool.page.saes_html import about_sae, found_rows, rows_to_choose
from multitool.store.capacity import all_that_run, runs_here
from multitool.store.choosing import MENUS, in_order, menus, narrowed, nearest_first
from multitool.store.entries import SaeEntry
from multitool.store.library import Library
from multitool.store.registry import LONGEST_SEARCH, models, saes

_ROWS = 30  # of what a search finds
_LABELS = {"release": "Release", "place": "Layer", "width": "Width", "l0": "L0"}
_NONE = "No SAE has all of these. Parts of words will do; numbers are whole ones."


@dataclass(frozen=True)
class SaeChoice:
    """The controls that choose an SAE."""

    model: gr.Dropdown
    sae: gr.Dropdown  # RELEASE/SAE_ID
    menus: dict[str, gr.Dropdown]  # by the names of ``MENUS``
    search: gr.Textbox
    found: gr.HTML  # what the search has found: its event ``select`` tells the ``name`` of the chosen one


def sae_choice(library: Library, opening: Opening) -> SaeChoice:
    """Build the controls, set to ``opening``."""
    entry = opening.entry
    offered = saes(patterns=library.patterns)
    with gr.Accordion(_fold_label(entry.name), elem_id="sae-fold") as fold:  # a phone folds it
        search = gr.Textbox(
            "", label=f"Search all {len(offered):,} SAEs", placeholder="e.g. gemma-2-2b layer 12 canonical",
            max_lines=1, max_length=LONGEST_SEARCH, elem_id="sae-search",
        )
        found = rows_to_choose("sae-found")
        with gr.Group(elem_id="sae-menus"):
            model = gr.Dropdown(models(library.patterns), value=entry.model, label="Model", elem_id="model")
            first = _menus_shown(library, entry)
            narrowing = {"release": _menu("release", first)}
            with gr.Row(elem_id="narrowing"):
                narrowing |= {name: _menu(name, first) for name in MENUS[1:]}
            sae = gr.Dropdown(
                _beside(library, entry), value=opening.recipe.sae, label="SAE", allow_custom_value=True,
                filterable=True, elem_id="sae", info="RELEASE/SAE_ID as in sae-lens",
            )
        about = gr.HTML(_about(library, opening.recipe.sae), elem_id="sae-about", padding=False)
    choice = SaeChoice(model, sae, narrowing, search, found)

    search.input(**event(partial(_found, library), {"search": search}, found, **LATEST))
    following = {"model": model, "sae": sae, "fold": fold, **narrowing}
    sae.change(**event(partial(_of_sae, library), {"sae": sae, "model": model}, following, **QUIETLY))
    sae.change(**event(partial(_about, library), {"sae": sae}, about, **LATEST))
    return choice


def on_choosing(library: Library, choice: SaeChoice, beside: Mapping[str, Component], values: Mapping) -> None:
    """Wire what a visitor chooses in a menu or among found rows: the SAE follows.

    Args:
        beside: components that follow another SAE, too, and
        values: what they show then.
    """
    gives = {"sae": choice.sae, "model": choice.model, **beside}

    def wired(trigger, handler, takes: Mapping[str, Component], gives: Mapping[str, Component]) -> None:
        def following(**shown) -> dict:
            answer = handler(**shown)
            return answer | (values if "sae" in answer else {})

        trigger(**event(following, takes, gives, **LATEST))

    wired(choice.model.input, partial(_of_model, library), {"model": choice.model, "sae": choice.sae}, gives)
    for name, menu in choice.menus.items():
        takes = {"value": menu, "sae": choice.sae}
        wired(menu.input, partial(_of_menu, library, name), takes, {"sae": choice.sae, **beside})

    def chosen(row: gr.EventData) -> dict:  # Gradio knows by the annotation what to give
        return {**_of_row(library, row.name), **values}

    emptied = {"search": choice.search, "found": choice.found}
    choice.found.select(**event(chosen, {}, {"sae": choice.sae, **emptied, **beside}, **QUIETLY))


def sae_names(library: Library, model: str | None) -> list[str]:
    """The SAEs of a model that visitors may load, in order."""
    return [entry.name for entry in _of_its_model(library, model)]


def entry_shown(library: Library, sae: str | None) -> SaeEntry | None:
    """The entry of the SAE that the control shows; None while it shows none that can be had."""
    return library.find(sae) if sae and library.offers(sae) else None


def _of_its_model(library: Library, model: str | None) -> list[SaeEntry]:
    return in_order(entry for entry in saes(patterns=library.patterns) if entry.model == model)


def _menu(name: str, shown: Mapping[str, Mapping]) -> gr.Dropdown:
    return gr.Dropdown(
        label=_LABELS[name], elem_id=f"sae-{name}", min_width=80, filterable=name == "release", **shown[name]
    )


def _menus_shown(library: Library, entry: SaeEntry) -> dict[str, dict[str, Any]]:
    """What the narrowing menus show beside an SAE; those without a choice are unseen."""
    of_model = _of_its_model(library, entry.model)
    if entry not in of_model:  # a folder that is named on this machine
        return dict.fromkeys(MENUS, {"choices": [], "value": None, "visible": False})
    return {
        name: {"choices": list(menu.choices), "value": menu.value, "visible": len(menu.choices) > 1}
        for name, menu in menus(of_model, entry).items()
    }


def _beside(library: Library, entry: SaeEntry) -> list[str]:
    return [other.name for other in nearest_first(_of_its_model(library, entry.model), entry)]


def _fold_label(sae: str) -> str:
    return f"SAE: {sae}"


def _of_sae(library: Library, sae: str, model: str | None) -> dict:
    """The model of another SAE, the menus beside it, and the SAEs of its release."""
    entry = library.find(sae)
    shown = {name: gr.update(**menu) for name, menu in _menus_shown(library, entry).items()}
    return {
        "model": entry.model, "sae": gr.update(choices=_beside(library, entry)),
        "fold": gr.update(label=_fold_label(entry.name)), **shown,
    }


def _of_model(library: Library, model: str | None, sae: str | None) -> dict:
    """For a model that has been chosen, the first of its SAEs.

    The SAE stays if it belongs to that model; if the model has no SAE here, its own model comes back.
    """
    own, of_model = entry_shown(library, sae), _of_its_model(library, model)
    if not of_model or (own and own.model == model):
        return {"model": own.model} if own else {}
    return {"sae": _chosen(library, of_model[0])}


def _of_menu(library: Library, name: str, value: str | None, sae: str | None) -> dict:
    """For what has been chosen in a menu, the SAE; it stays where that is nothing that the menu offers."""
    own = entry_shown(library, sae)
    of_model = _of_its_model(library, own.model) if own else []
    if own is None or own not in of_model:
        return {}
    if value not in {offered for _, offered in menus(of_model, own)[name].choices}:
        return {}
    found = narrowed(of_model, own, name, str(value))
    return {} if found == own else {"sae": _chosen(library, found)}


def _of_row(library: Library, name: Any) -> dict:
    """The SAE of a found row, and no row any more. Raises UserError if there is none of that name."""
    if not isinstance(name, str):
        raise UserError("This row names no SAE. Search once more.")
    return {"sae": _chosen(library, library.find(name)), "search": "", "found": ""}


def _chosen(library: Library, entry: SaeEntry) -> dict:
    # The menu shows nothing that it does not offer yet.
    return gr.update(choices=_beside(library, entry), value=entry.name)


def _found(library: Library, search: str) -> str:
    """What a search finds, as HTML: the first rows of it, and how many more there are."""
    if not search.strip():
        return ""
    found = in_order(saes(search, library.patterns))
    first = found[:_ROWS]
    return found_rows(first, all_that_run(first, library.machine), len(found)) if found else f"<p>{_NONE}</p>"


def _about(library: Library, sae: str | None) -> str:
    """What is known of the SAE that the control shows; nothing if that is none."""
    entry = entry_shown(library, sae)
    return about_sae(entry, runs_here(entry, library.machine), library.has(entry)) if entry else ""
