"""What endpoints do besides answering: the twins, which agents use, draw nothing; a program that has left is missed."""

import inspect
import json
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest

from multitool.page import endpoints as module
from multitool.page.callers import Callers
from multitool.page.endpoints import add_endpoints, endpoints, streamed
from multitool.page.settings import ServerSettings
from multitool.recipes.recipe import VectorRecipe
from multitool.trees.document import DefinitionTree
from multitool.trees.tree import Tree

OPENING = VectorRecipe(sae="demo/hook_embed", feature=927)
TREE = Tree(
    parent=np.array([-1, 0]), token_id=np.array([1, 2]), token=(" a", " b"), prob=np.array([0.5, 0.5]),
    cumulative_prob=np.array([0.5, 0.25]), end=np.array([False, False]),
)
DOCUMENT = DefinitionTree(TREE, {"prompt": 'It is "{ghost}"'}, {}, 0.1, True, 1.0)


class Stub(SimpleNamespace):
    """A service whose every answer is the same after some words."""

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        def answers(*_, **__):
            yield "Waiting …"
            yield [DOCUMENT] if name == "trees_of_prompts" else DOCUMENT

        return answers


@pytest.fixture
def service():
    return Stub(settings=ServerSettings())


@pytest.fixture
def functions(service, monkeypatch):
    """What Gradio is given, by the name of the endpoint or twin."""
    added = {}
    monkeypatch.setattr("multitool.page.api.gr.api", lambda function, api_name, **_: added.update({api_name: function}))
    monkeypatch.setattr("multitool.page.api.name_endpoint", lambda *_: None)
    service.callers = service.light_callers = Callers()
    add_endpoints(None, service, OPENING)
    return {name: partial(function, None) for name, function in added.items()}


def last(answer):
    return [*answer][-1] if inspect.isgenerator(answer) else answer


GIVEN = {
    "definition_tree": {}, "continue_tree": {"tree": DOCUMENT.to_dict()}, "check_tree": {"tree": DOCUMENT.to_dict()},
    "trim_tree": {"tree": DOCUMENT.to_dict(), "cutoff": 0.3},
}  # fmt: skip


@pytest.mark.parametrize("name", GIVEN)
def test_a_twin_draws_and_writes_no_picture(name, functions, monkeypatch):
    drawn = []
    monkeypatch.setattr(module, "save", lambda content, *_: drawn.append(content) or "tree.png")
    told = json.loads(last(functions[f"{name}_json"](**GIVEN[name], detail="full")))
    assert told["schema"] == "sae-multitool/definition-tree/1" and not drawn
    picture, tree = last(functions[name](**GIVEN[name]))
    assert tree == told and picture["orig_name"] == "tree.png" and len(drawn) == 1


def test_every_endpoint_that_runs_the_model_answers_in_between(service, functions):
    """A function that answers once runs to its end whoever listens."""
    for endpoint in endpoints(service, OPENING):
        assert inspect.isgeneratorfunction(functions[endpoint.name].func) == endpoint.on_model, endpoint.name
        assert inspect.isgeneratorfunction(functions[f"{endpoint.name}_json"].func)


def test_while_it_is_waited_for_nothing_is_told_and_in_the_end_the_answer(functions, monkeypatch):
    monkeypatch.setattr(module, "_STILL_THERE", -1.0)
    first, *_, answer = functions["check_tree"](**GIVEN["check_tree"])
    assert first == (None, None) and answer[1] == DOCUMENT.to_dict()
    assert last(functions["definition_trees"]()) == [DOCUMENT.to_dict()]


def test_a_tree_that_waits_is_told_once_more(monkeypatch):
    monkeypatch.setattr(module, "_STILL_THERE", -1.0)
    growing = DefinitionTree(TREE, DOCUMENT.settings, {}, 0.1, False, 1.0)
    answers = [*streamed(["Loading …", growing, "Waiting …", DOCUMENT], picture=lambda document: None)]
    assert [tree["result"]["complete"] for _, tree in answers] == [False, False, True]


def test_leaving_ends_the_work(service, functions, monkeypatch):
    monkeypatch.setattr(module, "_STILL_THERE", -1.0)
    ended = []

    def checked(document):
        try:
            while True:
                yield "Checking …"
        finally:
            ended.append(document)

    service.checked = checked
    answers = functions["check_tree"](**GIVEN["check_tree"])
    next(answers)
    assert not ended
    answers.close()
    assert len(ended) == 1
