"""What stands above every result of the page: what it was made from, and whether the controls still show that.

A result whose controls have changed is greyed (page.css), until they are put back or it is made anew.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from html import escape

import gradio as gr

from multitool.errors import UserError
from multitool.page.common import QUIETLY
from multitool.text import visible

_LONGEST_TITLE = 200
_CHANGED = '<span class="changed">the controls have changed</span>'


@dataclass(frozen=True)
class Made:
    """What a result was made from."""

    title: str
    shown: object  # what the controls showed, as ``as_shown`` has it


def as_shown(read: Callable, values: Sequence) -> object:
    """What controls show, to be compared: what ``read`` makes of their values, or these where they make nothing."""
    try:
        return read(*values)
    except UserError:
        return tuple(values)


def heading(made: Made | None, *, changed: bool = False) -> str:
    """As HTML, in one line, what a result was made from; nothing where there is none."""
    if made is None:
        return ""
    title = visible(made.title)[:_LONGEST_TITLE]
    return f'<p title="{escape(title, quote=True)}"><b>{escape(title)}</b>{_CHANGED if changed else ""}</p>'


def title_box(made: Made | None, elem_id: str) -> gr.HTML:
    """Where the heading stands: what is greyed with it has the class ``greys`` and comes after it."""
    return gr.HTML(heading(made), elem_id=elem_id, elem_classes="result-title", padding=False)


def tell_changes(read: Callable, made: gr.State, title: gr.HTML, controls: list) -> dict:
    """Tell in the title when the controls no longer show what the result was made from.

    Args:
        read: makes of the controls' values what counts of them; may raise UserError.
        controls: all that the result depends on.

    Returns:
        The arguments of an event that tells it anew, for when a result has been made.
    """
    telling = {
        "fn": partial(_told, read), "inputs": [made, *controls], "outputs": title, "trigger_mode": "always_last",
        **QUIETLY,
    }
    gr.on([control.change for control in controls], **telling)
    return telling


def _told(read: Callable, made: Made | None, *values) -> str:
    return heading(made, changed=made is not None and made.shown != as_shown(read, values))


def cleared_on_error(read: Callable, nothing: Callable[[str], dict], handler: Callable) -> Callable:
    """The handler, a generator of answers by name, which clears the result where it fails for other controls than the
    result's: that would stand under controls that it was not made from.

    It takes what the result that is shown was made from before the controls' values. Its answers tell by the name
    ``made`` what a new result was made from.

    Args:
        nothing: the answer that clears the result, from the error's words.
    """

    @functools.wraps(handler)
    def streaming(made: Made | None, *values):
        try:
            for answer in handler(*values):
                made = answer.get("made", made)
                yield answer
        except UserError as error:
            if made is None or made.shown != as_shown(read, values):
                yield nothing(str(error))
            raise

    return streaming
