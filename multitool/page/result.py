"""A result of the page: what it was made from, which stands above it, and whether the controls still show that.

A result whose controls have changed is greyed (page.css), until they are put back or it is made anew. One that cannot
be made anew goes: it would stand under controls that it was not made from.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from html import escape
from typing import Any

import gradio as gr

from multitool.errors import UserError
from multitool.page.common import LATEST, event, in_words_of_page
from multitool.text import visible

_LONGEST_TITLE = 200
_CHANGED = '<span class="changed">the controls have changed</span>'


@dataclass(frozen=True)
class Made:
    """What a result was made from."""

    title: str
    shown: Any  # what the controls showed, as ``as_shown`` has it


class Result:
    """The title above a result, and what keeps result and controls together.

    What is greyed with the title has the class ``greys`` and comes after it.

    Args:
        name: begins the title's ``elem_id``.
        controls: all that the result depends on, by name.
        read: makes of their values, by name, a tuple of what counts of them: the recipes. It may raise UserError.
        nothing: the answer that clears the result, from the words that tell why.
        opened: the title of a result that is there when the page opens, made from what the controls show then.
    """

    def __init__(
        self, name: str, controls: Mapping, read: Callable[..., tuple], nothing: Callable[[str], dict],
        opened: str = "",
    ):
        values = {name: control.value for name, control in controls.items()}
        made = Made(opened, as_shown(read, values)) if opened else None
        title = gr.HTML(heading(made), elem_id=f"{name}-title", elem_classes="result-title", padding=False)
        problem = gr.HTML("", elem_id=f"{name}-problem", elem_classes="problem", padding=False)
        self.gives = {"made": gr.State(made), "title": title, "problem": problem}  # what ``making`` answers besides
        self.takes = {"made": self.gives["made"], **controls}  # what it is called with
        self._read, self._nothing, self._controls = read, nothing, dict(controls)
        self._telling = event(self._told, self.takes, title, **LATEST)
        gr.on([control.change for control in controls.values()], **self._telling)

    def making(self, make: Callable[..., Iterator[dict]]) -> Callable[..., Iterator[dict]]:
        """The handler that makes the result.

        Args:
            make: a generator of answers by name, from what ``read`` gives. An answer with a ``title`` in plain words is
                a new result's, or without words that of none.
        """

        def handler(made: Made | None, **values):
            try:
                shown = self._read(**values)
                for answer in make(*shown):
                    if "title" in answer:
                        made = Made(answer["title"], shown) if answer["title"] else None
                        answer = answer | title_answer(made)
                    yield answer
            except UserError as error:
                if made is not None and made.shown == as_shown(self._read, values):
                    raise
                yield self._nothing(in_words_of_page(error, self._controls)) | title_answer(None)
                raise

        return self.beside(handler)

    def beside(self, handler: Callable[..., Iterator[dict]]) -> Callable[..., Iterator[dict]]:
        """The handler with its errors told under the title, where the result that they are of stays.

        Args:
            handler: a generator of answers by name.
        """

        def telling(*args, **values):
            told, there = {"problem": ""}, True
            try:
                for answer in handler(*args, **values):
                    there &= answer.get("made", True) is not None
                    yield told | answer
                    told = {}
            except UserError as error:
                if there:
                    yield {"problem": f"<p>{escape(in_words_of_page(error, self._controls))}</p>"}
                raise

        return telling

    def tell_after(self, making) -> None:
        """Tell anew whether the controls have changed: they may have while the result was being made."""
        making.then(**self._telling)

    def _told(self, made: Made | None, **values) -> str:
        return heading(made, changed=made is not None and made.shown != as_shown(self._read, values))


def as_shown(read: Callable, values: dict) -> object:
    """What controls show, to be compared: what ``read`` makes of their values, or these where they make nothing."""
    try:
        return read(**values)
    except UserError:
        return values


def heading(made: Made | None, *, changed: bool = False) -> str:
    """As HTML, in one line, what a result was made from; nothing where there is none."""
    if made is None:
        return ""
    title = visible(made.title)[:_LONGEST_TITLE]
    hover = f'role="heading" aria-level="3" title="{escape(title, quote=True)}"'
    return f'<p {hover}><b>{escape(title)}</b>{_CHANGED if changed else ""}</p>'


def title_answer(made: Made | None) -> dict:
    """The answer that tells what the result that is shown was made from; None: there is none."""
    return {"made": made, "title": heading(made)}
