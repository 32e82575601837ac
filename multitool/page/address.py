"""The page's address: it follows what is shown, and leads back there; Back and Forward go from result to result.

A tab says how its controls become a link's query and back (``view.py``), and makes its result when ``asked`` changes
(``result.py``). What a result was made from reaches ``address.js`` with it, which writes the address. When the page
opens, and at Back and Forward, ``address.js`` has the address followed: the controls are filled, the tab is opened, and
its result is made, unless it is there.
"""

import itertools
import json
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.components import Component

from multitool.errors import UserError, shown
from multitool.page.common import PRIVATE, QUIETLY, SECONDS_SHOWN, event, pick
from multitool.page.recipe_controls import check_shows
from multitool.page.result import Result, Views
from multitool.page.service import Service
from multitool.page.view import TREE, entry, query_or_none, short_query
from multitool.recipes import links
from multitool.recipes.fields import recipe_fields
from multitool.recipes.recipe import TreeRecipe, VectorRecipe

_SCRIPT = Path(__file__).with_name("address.js")
# Only the browser knows its address.
_ADDRESS = (
    "(search, number, ...others) => "
    "[location.search, Number(document.querySelector('#address [data-followed]').dataset.followed), ...others]"
)
# A tab that is opened for the first time comes on the page step by step; meanwhile Gradio loses some of what is told.
_WHEN_SHOWN = """async (entry, ...others) => {
    const shows = %s[JSON.parse(entry).view], pause = (time) => new Promise((done) => setTimeout(done, time));
    for (let waited = 0; !document.getElementById(shows) && waited < 20_000; waited += 50) await pause(50);
    // Its parts are set once more in the frame after; where nobody sees the page there are no frames.
    for (let frames = 0; frames < 3; frames++) await Promise.race([new Promise(requestAnimationFrame), pause(1000)]);
    return [entry, ...others];
}"""
_TAB_OPENED = "() => document.querySelector('#address [data-followed]').dispatchEvent(new Event('tab'))"
_GRADIOS_OWN = ("api", "settings", "api-recorder")  # views that are opened by the same name
_FIELDS = {field.name for recipe in (VectorRecipe, TreeRecipe) for field in recipe_fields(recipe)}
_COSTS = "What this link leads to takes some of your time on a GPU. Press “{}” to see it."
_numbers = itertools.count(1)


def views_followed(opening: VectorRecipe) -> Views:
    """No views yet, and what follows them.

    Args:
        opening: what the page opens with.
    """
    # Its value is anybody's, and no part of the page.
    return Views(gr.HTML(
        "", html_template="<i></i>", js_on_load=_SCRIPT.read_text(encoding="utf-8"), elem_id="address", padding=False,
        apply_default_css=False,
    ), opening)


class Address:
    """The page's address, and the views that it leads to.

    Args:
        service: which knows whether the model's time is the visitor's.
        views: all of them.
    """

    def __init__(self, service: Service, views: Views):
        self._asking_costs = service.settings.zero_gpu
        self._bar, self._results = views.bar, views.results
        self._keys: dict[str, str] = {}  # of a view's controls: one that several share has one key

    def connect(self, page: gr.Blocks, tabs: gr.Tabs) -> None:
        """Follow, and be followed, now that all results are known.

        Args:
            tabs: those of the views, by whose names they are opened.
        """
        controls: dict[Component, str] = {}  # each with the first of its names
        for name, result in self._results.items():
            result.asked.render()
            result.refused.render()
            result.done.render()
            for part, control in result.fills.items():
                controls.setdefault(control, _of(name, part))
        self._keys = {
            _of(name, part): controls[control]
            for name, result in self._results.items() for part, control in result.fills.items()
        }
        named = {key: control for control, key in controls.items()}
        states = {_of(name, "made"): result.gives["made"] for name, result in self._results.items()} | {
            key: control for key, control in named.items() if isinstance(control, gr.State)
        }
        going = {_of(name, "asked"): result.asked for name, result in self._results.items()} | {
            _of(name, "refused"): result.refused for name, result in self._results.items()
        }
        sets_going = gr.State()
        gives = {"address": self._bar, "tabs": tabs, **named, "sets_going": sets_going}

        def following(**given) -> dict:
            answer = self.followed(**given)
            first = {name: value for name, value in answer.items() if name not in going}
            return first | {"sets_going": pick(answer, going.keys() & answer.keys())}

        asked = {"search": gr.Textbox(visible=False), "number": gr.Number(visible=False)}
        # In Gradio's queue: it tells of changes of states at the end of events in it alone.
        in_turn: dict[str, Any] = {"show_progress": "hidden", "trigger_mode": "always_last"}
        places = json.dumps({name: result.view.shows for name, result in self._results.items()})
        once_shown = event(
            lambda address, sets_going: sets_going or {}, {"address": self._bar, "sets_going": sets_going}, going,
            js=_WHEN_SHOWN % places, **in_turn,
        )
        for trigger in (page.load, self._bar.select):
            trigger(**event(following, asked | states, gives, js=_ADDRESS, **in_turn)).success(**once_shown)

        def tab_opened(tab: gr.EventData, **values) -> str:  # Gradio knows by the annotation what to give
            return self.tab_opened(str(tab.name), **values)

        self._bar.input(**event(tab_opened, states | named, self._bar, **QUIETLY, trigger_mode="always_last"))
        tabs.change(None, js=_TAB_OPENED, **PRIVATE)

    def followed(self, search: str, number: float, **states) -> dict:
        """The page as its address says.

        Args:
            search: the address's query.
            number: how often the page has been asked so before: from the second time on by a visitor who goes back to
                what was there.
            states: what the results were made from.
        """
        name, told = TREE, {"number": int(number)}
        try:
            parameters = links.parsed(search)
            bare = not _says_something(parameters)
            name = self._name(parameters)
            result = self._results[name]
            values = self._values(result, parameters)
        except UserError as error:
            gr.Warning(escape(str(error)), duration=SECONDS_SHOWN, title="Link")
            return {
                "address": entry(name, None, **told), "tabs": gr.Tabs(selected=name),
                _of(name, "refused"): (next(_numbers), str(error)),
            }
        query, leads = query_or_none(result.view, values), result.view.leads(parameters)
        answer = {
            "address": entry(name, query, bare=bare, empty=not leads, **told), "tabs": gr.Tabs(selected=name),
            **{self._keys[_of(name, part)]: value for part, value in result.view.filling(values).items()},
        }
        if bare and not number:
            return {"address": answer["address"]}
        if not leads or query == self._query_made(name, states):
            return answer
        by_visitor = number or parameters.get("grow") == "1"
        if self._asking_costs and not by_visitor and not result.view.free(**values):
            return answer | {_of(name, "refused"): (next(_numbers), _COSTS.format(result.view.make))}
        return answer | {_of(name, "asked"): next(_numbers)}

    def _name(self, parameters: Mapping[str, str]) -> str:
        """The view that is named. Raises UserError if there is no such."""
        name = parameters.get("view", TREE)
        if name in self._results:
            return name
        if name in _GRADIOS_OWN:
            return TREE
        raise UserError(f"view is {shown(name)}; valid are {', '.join(self._results)}.")

    def _values(self, result: Result, parameters: Mapping[str, str]) -> dict:
        """What a view's controls show for a link's parameters, or as the page opens. Raises UserError if they cannot.
        """
        if not _says_something(parameters):
            return {name: control.value for name, control in {**result.controls, **result.extras}.items()}
        values = result.view.values(parameters)
        for name, value in values.items():
            check_shows(result.fills[name], value)
        return values

    def _query_made(self, name: str, states: Mapping[str, Any]) -> str | None:
        """The query of the result that a view shows; None if it shows none that has one."""
        result, made = self._results[name], states[_of(name, "made")]
        return query_or_none(result.view, result.values_of(made, {
            extra: states[self._keys[_of(name, extra)]] for extra in result.extras
        }))

    def tab_opened(self, name: str, **states) -> str:
        """Where the page is, now that a tab has been opened: at its result, or else at the feature that is chosen."""
        if name not in self._results:
            return entry(name, short_query(name, None), tab=True, empty=True)
        result = self._results[name]
        made = self._query_made(name, states)
        showing = {part: states[self._keys[_of(name, part)]] for part in (*result.controls, *result.extras)}
        empty = made is None or made != query_or_none(result.view, showing)
        return entry(name, made or short_query(name, showing), tab=True, empty=empty)


def _of(view: str, part: str) -> str:
    return f"{view} {part}"


def _says_something(parameters: Mapping[str, str]) -> bool:
    """Whether a link's parameters are about anything of this page."""
    return "view" in parameters or not _FIELDS.isdisjoint(parameters)
