"""What two trees share, on trees that are written out here.

    here                         there
    rain .5 ── .5" (.25, end)    rain .4 ── .5" (.2, end)
    snow .25 ── 1" (.25, end)    hail .4 ── 1" (.4, end)
    ra .1 ── in .5 (.05)
"""

import numpy as np
import pytest

from multitool.trees.comparison import compare_trees, ranks_in
from multitool.trees.document import DefinitionTree
from multitool.trees.tree import ROOT, Tree


def document(tokens, parent, cumulative, end, prompt='It means "') -> DefinitionTree:
    tree = Tree(np.array(parent), np.arange(len(tokens)), tuple(tokens), np.array(cumulative), np.array(cumulative),
                np.array(end))
    return DefinitionTree(tree, {"prompt": prompt}, {}, 0.05, True, 0.0)


HERE = document(("rain", "snow", "ra", '"', '"', "in"), [ROOT, ROOT, ROOT, 0, 1, 2], [0.5, 0.25, 0.1, 0.25, 0.25, 0.05],
                [False, False, False, True, True, False])
THERE = document(("rain", "hail", '"', '"'), [ROOT, ROOT, 0, 1], [0.4, 0.4, 0.2, 0.4], [False, False, True, True])


def test_nodes_that_are_spelled_the_same_are_shared():
    found = compare_trees(HERE, THERE)
    assert found.nodes.tolist() == [True, False, False, True, False, True]  # "ra" + "in" spells it too
    assert found.other_nodes.tolist() == [True, False, True, False]


def test_shared_definitions_are_complete_in_both_and_overlap_by_the_smaller_probability():
    found = compare_trees(HERE, THERE)
    assert found.definitions == {"rain": (0.25, 0.2)}
    assert found.overlap == 0.2


def test_a_tree_shares_everything_with_itself():
    found = compare_trees(HERE, HERE)
    assert found.nodes.all()
    assert found.overlap == 0.5


def test_an_empty_tree_shares_nothing():
    found = compare_trees(HERE.trimmed(0.9), THERE)
    assert not found.nodes.any()
    assert not found.other_nodes.any()
    assert found.overlap == 0


@pytest.mark.parametrize(
    ("tokens", "other", "ranks"),
    [(["a", "b"], ["b", "c"], [None, 1]), (["a"], [], [None]), (["a"], ["b", "a", "a"], [2])],
)
def test_ranks_in_another_list_count_from_one(tokens, other, ranks):
    assert ranks_in(tokens, other) == ranks
