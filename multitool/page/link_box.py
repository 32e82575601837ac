"""The box with the link to a result. Only the browser knows the page's own address, which goes before its query."""

from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from multitool.page.copying import copying_script

_IN_PAGE = Path(__file__).with_name("link_box.js")


def link_box(elem_id: str, label: str, info: str, value: str = "", **options: Any) -> gr.HTML:
    """A box with a link and a button that copies it.

    Its value is the link's query, with its ``?``; or in a sentence why there is none; or empty: then nothing is seen.
    """
    label, info = escape(label, quote=True), escape(info)
    return gr.HTML(
        value, html_template='<div class="link-box" role="group" hidden>'
        f'<span class="label">{label}</span><span class="info">{info}</span>'
        f'<input type="text" readonly aria-label="{label}"><button type="button" title="Copy the link">Copy</button>'
        '<span class="told" role="status"></span></div>',
        js_on_load=copying_script(_IN_PAGE), apply_default_css=False, padding=False, elem_id=elem_id, **options,
    )
