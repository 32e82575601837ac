"""The tree that the page opens on is what the tool really gives."""

import pytest

from multitool.defaults import DEMO
from multitool.document import read_tree
from multitool.engine import definition_tree
from multitool.recipe import TreeRecipe
from multitool.ui_tree import DEMO_TREE


def test_the_kept_tree_is_the_one_that_grows(demo_library):
    kept = read_tree(DEMO_TREE.read_bytes())
    grown = definition_tree(demo_library, DEMO, TreeRecipe(cutoff=1e-3))
    trimmed = kept.trimmed(1e-3)
    assert trimmed.tree.token == grown.tree.token
    assert abs(trimmed.tree.cumulative_prob - grown.tree.cumulative_prob).max() < 1e-5
    # The last digits of sums over the vocabulary differ from machine to machine.
    assert kept.settings.pop("scale") == pytest.approx(grown.settings.pop("scale"), rel=1e-5)
    assert kept.settings | {"version": ""} == grown.settings | {"cutoff": TreeRecipe().cutoff, "version": ""}
    assert kept.vector == pytest.approx(grown.vector, rel=1e-5)
    assert kept.complete
