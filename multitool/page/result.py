"""A result of the page: what it was made from, which stands above it, and whether the controls still show that.

A result whose controls have changed is greyed (page.css), until they are put back or it is made anew. One that cannot
be made anew goes: it would stand under controls that it was not made from.
"""

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from html import escape
from typing import Any

import gradio as gr

from multitool.errors import UserError
from multitool.page.common import LATEST, QUIETLY, event, in_words_of_page
from multitool.page.gradio_workarounds import told_whole
from multitool.page.link_box import link_box
from multitool.page.view import View, entry, query_or_none, short_query
from multitool.recipes.recipe import VectorRecipe
from multitool.text import visible

_LONGEST_TITLE = 200
_CHANGED = '<span class="changed">the controls have changed</span>'


@dataclass(frozen=True)
class Made:
    """What a result was made from."""

    title: str
    shown: Any  # what the controls showed, as ``as_shown`` has it
    values: Mapping | None = None  # what they showed, by name; None: they did not show what it was made from


@dataclass(frozen=True)
class Done:
    """What was asked for has ended, well or not: each time another one."""

    anew: bool  # what there is now is another result than before, and not the same with its evidence
    number: int = field(default_factory=itertools.count(1).__next__)


@dataclass(frozen=True)
class Views:
    """The results of a page that its address leads to."""

    bar: gr.HTML  # by which the address follows them
    opening: VectorRecipe  # whose SAE and feature count where a link names none
    results: dict[str, "Result"] = field(default_factory=dict)  # by the names of their views


class Result:
    """The title above a result, and what keeps result and controls together.

    What is greyed with the title has the class ``greys`` and comes after it.

    Args:
        name: begins the title's ``elem_id``.
        controls: all that the result depends on, by name.
        read: makes of their values, by name, a tuple of what counts of them: the recipes. It may raise UserError.
        nothing: the answer that clears the result, from the words that tell why.
        view: what leads there from a link.
        views: of which this is one.
        opened: the title of a result that is there when the page opens, made from what the controls show then.
        link: the label of the box with the link to it, for ``place_link``; without one there is no such box.
        extras: what a link tells besides the controls.
        fills: what ``view.filling`` fills in besides both.

    Attributes:
        asked: a state that changes when the address leads here: the result is to be made.
        done: a state that changes when what was asked for has ended, whichever event it was.
        gives: what ``making`` answers besides; ``takes``: what it is called with.
    """

    def __init__(
        self, name: str, controls: Mapping, read: Callable[..., tuple], nothing: Callable[[str], dict], *, view: View,
        views: Views, opened: str = "", link: str = "", extras: Mapping | None = None, fills: Mapping | None = None,
    ):
        values = {name: control.value for name, control in controls.items()}
        made = Made(opened, as_shown(read, values), values) if opened else None
        title = gr.HTML(heading(made), elem_id=f"{name}-title", elem_classes="result-title", padding=False)
        problem = gr.HTML("", elem_id=f"{name}-problem", elem_classes="problem", padding=False)
        self.view, self.controls, self.extras = view, dict(controls), dict(extras or {})
        self.fills = {**controls, **self.extras, **(fills or {})}
        # Placed by ``Address``: a state in a tab that is not open yet tells of changes that there are none of.
        self.asked, self.refused = gr.State(0, render=False), gr.State((0, ""), render=False)
        self.done = gr.State(None, render=False)
        about = "Opens the page with it, and the same settings"
        self.link = link_box(f"{name}-link", link, about, render=False) if link else None
        self.gives = {
            "made": gr.State(made), "title": title, "problem": problem, "address": views.bar, "done": self.done,
            **({"link": self.link} if self.link else {}),
        }
        self.takes = {"made": self.gives["made"], **controls, **self.extras}
        self._read, self._nothing = read, nothing
        self._telling = event(self._told, {"made": self.gives["made"], **controls}, title, **LATEST)
        views.results[view.name] = self
        # Controls may have changed while the result was being made, too.
        gr.on([self.done.change, *(control.change for control in controls.values())], **self._telling)

    def place_link(self) -> None:
        """Put the box with the link here."""
        if self.link:
            self.link.render()

    def making(self, make: Callable[..., Iterator[dict]]) -> Callable[..., Iterator[dict]]:
        """The handler that makes the result.

        Args:
            make: a generator of answers by name, from what ``read`` gives. An answer with a ``title`` in plain words is
                a new result's, or without words that of none.
        """

        def handler(made: Made | None, **values):
            extras = {name: values.pop(name) for name in self.extras}
            try:
                shown = self._read(**values)
                for answer in make(*shown):
                    if "title" in answer:
                        made = Made(answer["title"], shown, values) if answer["title"] else None
                        answer = answer | self.answer(made, extras)
                    yield answer
            except UserError as error:
                if made is not None and made.shown == as_shown(self._read, values):
                    raise
                yield self._nothing(in_words_of_page(error, self.controls)) | self.answer(None, extras)
                raise

        return self.beside(handler, anew=True)

    def beside(self, handler: Callable[..., Iterator[dict]], *, anew: bool) -> Callable[..., Iterator[dict]]:
        """The handler with its errors told under the title, where the result that they are of stays.

        Args:
            handler: a generator of answers by name.
            anew: as in ``Done``.
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
                    yield {"problem": f"<p>{escape(in_words_of_page(error, self.controls))}</p>"}
                raise

        def whole(*args, **values):
            yield from told_whole(telling(*args, **values), {"done": Done(anew)})

        return whole

    def refusing(self, gives: Mapping, **options):
        """The event that leaves no result where a link cannot be followed: one from elsewhere would pass for its own.

        Args:
            gives: the components of what ``nothing`` answers, by name.
        """
        return self.refused.change(**event(
            lambda refused: self._nothing(refused[1]) | self.answer(None, {}), {"refused": self.refused},
            {**gives, **self.gives}, **QUIETLY, **options,
        ))

    def values_of(self, made: Made | None, extras: Mapping) -> dict | None:
        """What a link tells of what a result was made from; None where there is nothing to tell."""
        return None if made is None or made.values is None else {**made.values, **extras}

    def answer(self, made: Made | None, extras: Mapping) -> dict:
        """The answer that tells of another result, and of none, what it was made from; the address follows."""
        if made is None:
            return title_answer(None) | ({"link": ""} if self.link else {})
        values = self.values_of(made, extras)
        answer = title_answer(made) | {"address": self.where(made, extras)}
        if self.link is None:
            return answer
        try:
            return answer | {"link": "" if values is None else "?" + self.view.query(values)}
        except UserError as error:
            return answer | {"link": str(error)}

    def where(self, made: Made | None, extras: Mapping) -> str:
        """The ``entry`` of what a result was made from; where that has no link, of its feature alone."""
        values = self.values_of(made, extras)
        return entry(self.view.name, query_or_none(self.view, values) or short_query(self.view.name, values))

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
