"""Requests of visitors: limits before any work, words while they wait, the same request again from memory."""

import threading
from types import SimpleNamespace

import pytest

from multitool import engine
from multitool.document import DefinitionTree
from multitool.errors import UserError
from multitool.recipe import ListRecipe, TreeRecipe, VectorRecipe, recipes
from multitool.settings import Settings
from multitool.ui_service import Service

RAIN = VectorRecipe(sae="demo/hook_embed", feature=927)
SMALL = TreeRecipe(cutoff=2e-2)


@pytest.fixture
def grown(demo_library):
    """The tasks that reached the model, and a service that grows them."""
    tasks = []

    def grow(task):
        tasks.append(task)
        yield from demo_library.grow(task)

    return tasks, Service(demo_library, Settings(), grow)


def documents(answers) -> list[DefinitionTree]:
    return [answer for answer in answers if isinstance(answer, DefinitionTree) and len(answer.tree)]


def test_the_same_request_again_does_not_reach_the_model(grown):
    tasks, service = grown
    *_, first = service.trees(RAIN, SMALL)
    assert list(service.trees(RAIN, TreeRecipe(cutoff=2e-2))) == [first]
    assert len(tasks) == 1
    list(service.trees(RAIN, TreeRecipe(cutoff=3e-2)))
    assert len(tasks) == 2


def test_a_tree_that_was_left_is_not_kept_for_the_next(grown):
    tasks, service = grown
    answers = service.trees(RAIN, SMALL)
    begun = next(answer for answer in answers if isinstance(answer, DefinitionTree) and len(answer.tree))
    answers.close()
    assert not begun.complete
    *_, whole = service.trees(RAIN, SMALL)
    assert whole.complete
    assert len(tasks) == 2


def test_what_was_grown_on_from_somebodys_file_is_not_given_to_others(grown):
    tasks, service = grown
    begun, *_ = documents(service.trees(RAIN, SMALL))
    forged = DefinitionTree(**vars(begun) | {"tree": begun.tree.select(begun.tree.token_id == begun.tree.token_id[0])})
    *_, from_forged = service.continued(forged)
    assert tasks[-1].begun is forged.tree
    vector, tree = recipes(forged.settings)
    *_, honest = service.trees(vector, tree)
    assert len(honest.tree) > len(from_forged.tree)


def test_only_so_many_trees_are_kept(grown, monkeypatch):
    monkeypatch.setattr("multitool.ui_service._TREES_KEPT", 2)
    tasks, service = grown
    for cutoff in (2e-2, 3e-2, 4e-2):
        list(service.trees(RAIN, TreeRecipe(cutoff=cutoff)))
    list(service.trees(RAIN, TreeRecipe(cutoff=4e-2)))
    assert len(tasks) == 3
    list(service.trees(RAIN, TreeRecipe(cutoff=2e-2)))
    assert len(tasks) == 4


@pytest.mark.parametrize(
    ("tree", "limit"),
    [
        (TreeRecipe(max_nodes=101), "at most 100"),
        (TreeRecipe(prompt='"{ghost}"' + "x" * 50, max_nodes=9), "at most 50"),
    ],
)
def test_a_limit_is_checked_before_anything_is_loaded(tree, limit):
    service = Service(None, Settings(max_nodes=100, max_prompt=50), None)
    with pytest.raises(UserError, match=limit):
        next(service.trees(RAIN, tree))


@pytest.fixture
def slow(monkeypatch):
    """A service whose weights arrive when the test says so."""
    arrived = threading.Event()
    progress = iter(["Fetching x: 1 of 3 MB", "Fetching x: 2 of 3 MB"])
    library = SimpleNamespace(
        find=lambda name: SimpleNamespace(name="x/y", model="m"), progress=lambda entry: next(progress, "")
    )

    def table(*_):
        arrived.wait(20)
        return "the table"

    monkeypatch.setattr(engine, "token_table", table)
    monkeypatch.setattr("multitool.ui_service._POLL_SECONDS", 0.01)
    return Service(library, Settings(), None), arrived


def test_who_waits_is_told_how_far_it_is(slow):
    service, arrived = slow
    answers = service.table(RAIN, ListRecipe())
    told = [next(answers) for _ in range(3)]
    assert told == ["Fetching x: 1 of 3 MB", "Fetching x: 2 of 3 MB", "Loading x/y and m …"]
    arrived.set()
    *_, last = answers
    assert last == "the table"


def test_who_leaves_does_not_wait_for_the_download(slow):
    service, arrived = slow
    answers = service.table(RAIN, ListRecipe())
    next(answers)
    answers.close()
    assert not arrived.is_set()
    arrived.set()
