"""Whatever a client sends for a parameter: an endpoint answers with a sentence that names it, and loads nothing."""

import inspect
import json
import math
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace, UnionType
from typing import Literal, Union, get_args, get_origin

import gradio as gr
import pytest

from multitool.errors import UserError, shown
from multitool.page.api import gradio_function
from multitool.page.common import shown_errors
from multitool.page.endpoints import add_endpoints, endpoints
from multitool.page.service import Service
from multitool.page.settings import ServerSettings
from multitool.page.values import checked
from multitool.recipes.recipe import VectorRecipe
from multitool.store.capacity import Machine
from multitool.trees.document import SCHEMA

TREE = json.loads((Path(__file__).parents[1] / "rain_tree.json").read_text(encoding="utf-8"))
LONG = "x" * 300_000
WORDS = "rain " * 60_000  # 300,000 letters and blanks
HALF = "\ud800"  # of a surrogate pair, as JSON can have it
VALUES = [
    None, "", "x", "null", "a\0b", "{ghost}", "9" * 5000, LONG, HALF, "{ghost}" + HALF, True, False, 0, 7, -1, 1.5,
    math.nan, math.inf, -math.inf, 10**5000, -(10**9), 1e308, [], [[]], [1], [None], [HALF], [math.nan], [1.0] * 25_000,
    [None] * 25_000, ["x"] * 25_000, {}, {"a": 1}, {"path": "/etc/passwd"}, {HALF: HALF}, {"schema": HALF},
    {"schema": SCHEMA, "settings": {"feature": [HALF]}}, b"x", object(),
]  # fmt: skip


class ReachedError(Exception):
    """The work was begun."""


def begin(*_, **__):
    raise ReachedError


LIBRARY = SimpleNamespace(
    find=begin, place=begin, atlas=begin, machine=Machine("cpu", None, None), patterns=(),
)
SERVICE = Service(LIBRARY, ServerSettings(), begin)
OPENING = VectorRecipe(sae="demo/x", feature=1)
with gr.Blocks() as PAGE:
    add_endpoints(PAGE, SERVICE, OPENING)
# As Gradio calls them, but without a request: the endpoints by their names, and the tools of the MCP server as …_json.
FUNCTIONS = {event.api_name: partial(event.fn, None) for event in PAGE.fns.values()}
ENDPOINTS = {endpoint.name: endpoint for endpoint in endpoints(SERVICE, OPENING)}


@pytest.fixture(autouse=True)
def nothing_is_read(monkeypatch):
    monkeypatch.setattr("multitool.store.registry.registry_saes", dict)
    monkeypatch.setattr("multitool.page.endpoints.render", begin)


def fits(kind, value) -> bool:
    """Whether a value is of a parameter's type, as its documentation tells it."""
    if isinstance(kind, UnionType) or get_origin(kind) is Union:
        return any(fits(part, value) for part in get_args(kind))
    if get_origin(kind) is Literal:
        return isinstance(value, str) and value in get_args(kind)
    if kind in (int, float):
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        return number and (isinstance(value, int) or math.isfinite(value) and (kind is float or value.is_integer()))
    return isinstance(value, get_origin(kind) or kind) and not (isinstance(value, str) and HALF in value)


def answer(name: str, given: dict) -> str:
    """What comes of a request: "answered", "reached", or the sentence that a client is shown."""
    try:
        answers = FUNCTIONS[name](**given)
        if inspect.isgeneratorfunction(FUNCTIONS[name]):
            list(answers)
    except gr.Error as error:
        if isinstance(error.__cause__, ReachedError):
            return "reached"
        assert isinstance(error.__cause__, UserError), f"{type(error.__cause__).__name__}: {error.__cause__}"
        error.message.encode()  # it can be sent
        return error.message
    return "answered"


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_value_of_another_type_is_answered_with_a_sentence_that_names_the_parameter(name):
    parameters = inspect.signature(FUNCTIONS[name]).parameters.values()
    needed = {parameter.name: TREE for parameter in parameters if parameter.default is parameter.empty}
    assert parameters and needed.keys() <= {"tree"}
    for parameter in parameters:
        for value in VALUES:
            found = answer(name, needed | {parameter.name: value})
            told = f"{name} {parameter.name} {shown(value)[:50]}: {found[:200]}"
            if not fits(parameter.annotation, value) and not (value == "null" and name.endswith("_json")):
                assert found not in ("answered", "reached") and parameter.name in found, told
            assert found != "Error" and 0 < len(found) < 1500, told


def test_all_endpoints_are_tried():
    assert FUNCTIONS.keys() == ENDPOINTS.keys() | {f"{name}_json" for name in ENDPOINTS}


@pytest.mark.parametrize(
    ("endpoint", "given", "said"),
    [
        ("saes", {"search": WORDS}, "search is 'rain rain "),
        ("saes", {"search": WORDS}, "it must be a text of at most 1,000 characters."),
        ("saes", {"search": HALF}, "search is '\\ud800'; it holds half a surrogate pair"),
        ("definition_tree", {"sae": LONG}, "name one as RELEASE/SAE_ID"),
        ("definition_tree", {"pca": [0.0] * 20_001}, "a list of at most 20,000 component weights"),
        ("definition_tree", {"prompt": "{ghost}" + LONG}, "with 300,007 characters; it must be"),
        ("definition_tree", {"prompt": "{ghost}" + HALF}, "prompt is '{ghost}\\ud800'; it holds half a surrogate pair"),
        ("definition_tree", {"chat": True, "answer": LONG}, "2,000 characters, how the assistant"),
        ("definition_tree", {"tokens": LONG, "weights": "tokens"}, "a text of at most 2,000 characters"),
        ("definition_trees", {"prompts": ["{ghost}"] * 100_000}, "There are 100000 prompts; give 1 to 8"),
        ("definition_trees", {"prompts": "meaning"}, "prompts is 'meaning'; it must be a list"),
        ("activity", {"text": LONG}, "The text has 300,000 characters; it must have 1 to 2,000"),
        ("activity", {"text": 7}, "text is 7; it must be a text."),
        ("components", {"count": 0}, "count is 0; it must be a whole number from 1 up."),
        ("components", {"top": 10**6}, "top is 1000000; it must be a whole number from 1 to 1000."),
        ("components", {"sae": None}, "sae is None; name one as RELEASE/SAE_ID"),
        ("trim_tree", {"tree": None}, "tree is None; it must be a tree JSON"),
        ("trim_tree", {"tree": "x" * 20_000_001}, "its text of at most 20,000,000 characters"),
        ("trim_tree", {"tree": TREE, "cutoff": "0.1"}, "cutoff is '0.1'; it must be a number between 0 and 1"),
        ("trim_tree", {"tree": TREE, "lift": math.nan}, "lift is nan; it must be a number."),
    ],
)
def test_what_is_too_long_or_cannot_be_is_said(endpoint, given, said):
    assert said in answer(endpoint, given)


def test_what_can_be_comes_through_as_it_is_wanted():
    given = {"sae": "demo/x", "count": 5.0, "top": 3}
    found = checked(ENDPOINTS["components"].parameters, given)
    assert found == given and type(found["count"]) is int
    assert answer("components", given) == "reached"
    assert answer("trim_tree", {"tree": json.dumps(TREE)}) == "reached", "the text of a tree"
    assert answer("saes", {"search": "a\0b"}) == "answered"


def test_an_error_that_nobody_foresaw_is_a_sentence_without_what_it_says():
    def run(given):
        raise KeyError("/home/operator/secret")

    endpoint = replace(ENDPOINTS["saes"], run=run)
    for controls in (None, {}):
        with pytest.raises(gr.Error) as error:
            shown_errors(gradio_function(endpoint), controls)()
        assert "unexpected reason (KeyError)" in error.value.message and "secret" not in error.value.message
        assert error.value.print_exception, "into the log"


def test_a_full_disk_of_the_server_is_told(monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("multitool.page.endpoints.render", lambda *_: {"png": b"a picture"})
    monkeypatch.setattr("multitool.page.common.write_served", full)
    said = "The file cannot be stored on this server: No space left on device. Tell its operator."
    assert answer("trim_tree", {"tree": TREE}) == said
