"""What pages show is kept within a bound, and is gone when no page shows it."""

import copy
import pickle
import sys
import tracemalloc

import numpy as np
import pytest

from multitool.errors import UserError
from multitool.jobs.find import FoundFeature, FoundFeatures, TokenFires
from multitool.page.common import event
from multitool.page.shelf import Held, Shelf, size, taken
from multitool.trees.document import DefinitionTree, read_tree
from multitool.trees.tree import Tree


def document(n: int, text: str = " a") -> DefinitionTree:
    """A path of ``n`` nodes."""
    tree = Tree(
        parent=np.arange(n) - 1, token_id=np.arange(n), token=tuple(f"{text}{i}" for i in range(n)),
        prob=np.full(n, 0.5), cumulative_prob=np.full(n, 0.5), end=np.zeros(n, bool),
    )
    return DefinitionTree(tree, {"prompt": "It"}, {}, 0.1, True, 1.0)


def test_the_one_looked_at_longest_ago_makes_room_with_a_sentence():
    shelf = Shelf(2.5 * size(document(100)))
    first, second = shelf.put(document(100)), shelf.put(document(100))
    assert first.take() == first.take()
    third = shelf.put(document(100))
    assert taken(first).tree.token[0] == taken(third).tree.token[0] == " a0"
    with pytest.raises(UserError, match="not kept any more"):
        taken(second)
    assert shelf.n_bytes <= 2.5 * size(document(100))


def test_what_no_page_shows_any_more_takes_no_room():
    shelf = Shelf(2.5 * size(document(100)))
    stays = shelf.put(document(100))
    for _ in range(20):
        shelf.put(document(100))
    assert shelf.n_bytes <= size(document(100))
    assert stays.take()


def test_something_larger_than_all_that_may_be_held_is_refused():
    with pytest.raises(UserError, match="0 MB of memory, more than all"):
        Shelf(1000).put(document(100))


def test_other_values_stay_as_they_are():
    shelf = Shelf(1e6)
    assert [shelf.put(value) for value in (None, "text", 7)] == [taken(value) for value in (None, "text", 7)]


def test_a_visitors_copy_costs_nothing():
    held = Held(document(100))
    assert copy.deepcopy(held) is held


@pytest.mark.parametrize("text", [" a", " 雨" * 100])
def test_sizes_are_those_of_memory_or_more(text):
    found = document(2000, text)
    tree = found.tree
    columns = (tree.parent, tree.token_id, tree.prob, tree.cumulative_prob, tree.end)
    real = sum(column.nbytes for column in columns) + sys.getsizeof(tree.token) + sum(map(sys.getsizeof, tree.token))
    assert real < size(found) < 3 * real + 100_000


def test_what_is_told_beside_the_tree_counts_too():
    assert size(read_tree(document(3).to_dict() | {"evidence": {"sentence": "x" * 5000}})) > size(document(3)) + 4000


def test_found_features_count_with_the_tokens_of_a_text():
    rows = tuple(FoundFeature(f"sae {i}", i, {"cosine": i / 3}, f"told of {i} 雨" * 20) for i in range(200))
    tokens = tuple(TokenFires(f"token {i}", [(i + j, i / (3 + j)) for j in range(10)]) for i in range(500))
    found = FoundFeatures("text", ("cosine",), rows, {"text": "x" * 2000}, "Found.", tokens)
    tracemalloc.start()
    _copied = pickle.loads(pickle.dumps(found))
    real = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert real / 2 < size(found) < 3 * real + 100_000
    assert isinstance(Shelf(1e7).put(found), Held)


def test_events_give_handlers_the_tree_and_components_what_holds_it():
    class Part:
        def __init__(self, name):
            self.name = name

    shelf, parts = Shelf(1e6), {"document": Part("document"), "status": Part("status")}

    def handler(document, status):
        yield {"document": document, "status": f"{len(document.tree)} nodes"}

    made = event(handler, parts, parts, shelf=shelf)
    answer, = made["fn"](shelf.put(document(4)), status="")
    assert isinstance(answer[parts["document"]], Held) and answer[parts["status"]] == "4 nodes"
