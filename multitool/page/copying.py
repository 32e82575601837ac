"""Copying as text: the buttons beside a table, and what they put on the clipboard.

The texts are on the page before a button is pressed: browsers let a page write to the clipboard only in answer to that.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import gradio as gr

from multitool.jobs.token_table import TokenTable
from multitool.recipes.captions import distance_told, source_told
from multitool.recipes.tables import Pasted, pasted
from multitool.trees.document import DefinitionTree
from multitool.trees.tree import Definition

_CLIPBOARD = Path(__file__).with_name("clipboard.js")
_IN_PAGE = Path(__file__).with_name("copying.js")


def copy_buttons(value: str, elem_id: str, what: str) -> gr.HTML:
    """Buttons that copy what ``copied`` tells; nothing where that is empty.

    Args:
        what: is copied, as the end of a label: ``the list``.
    """
    return gr.HTML(
        value, html_template='<div class="copying" role="group"></div>',
        js_on_load=copying_script(_IN_PAGE), apply_default_css=False, padding=False, elem_id=elem_id,
        what=what,
    )


def copying_script(of_component: Path) -> str:
    """A component's script behind what copies for it."""
    return "\n".join(file.read_text(encoding="utf-8") for file in (_CLIPBOARD, of_component))


def copied(formats: Mapping[str, Pasted]) -> str:
    """Texts to copy, by the names of their formats, as JSON."""
    return json.dumps({name: vars(text) for name, text in formats.items()}, ensure_ascii=False)


def list_copied(table: TokenTable) -> str:
    """A token list to copy."""
    named = [column.replace("_", " ") for column in table.columns]
    settings = table.settings
    told = f"{source_told(settings)}, by {settings['measure']}; {distance_told(settings, table.vector)}"
    return copied(pasted(named, table.rows, told))


def definitions_copied(document: DefinitionTree, found: list[Definition]) -> str:
    """Definitions of a tree to copy, in their order; unfinished ones end in …"""
    columns, rows = document.definition_rows(found)
    names = {"text": "definition"}
    named = [names.get(column, column).replace("_", " ") for column in columns if column != "complete"]
    shown = [[text if complete else f"{text} …", *figures] for text, probability, complete, *more in rows
             for figures in [[probability, *more]]]
    told = (f"{source_told(document.settings)}; {distance_told(document.settings, document.vector)}; "
            f"prompt: {document.asked}")
    return copied(pasted(named, shown, told, prose=True))
