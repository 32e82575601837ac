"""The tree that the page opens on is what the tool really gives."""

import pytest

from multitool.jobs.local import definition_tree
from multitool.page.opening import DEMO, usual_growth
from multitool.page.tree_tab import DEMO_TREE
from multitool.store.demo_models import DEMO_MODEL
from multitool.trees.document import read_tree


def test_the_kept_tree_is_the_one_that_grows(demo_library):
    kept = read_tree(DEMO_TREE.read_bytes())
    grown = definition_tree(demo_library, DEMO, usual_growth(DEMO_MODEL))
    assert kept.tree.token == grown.tree.token
    assert abs(kept.tree.cumulative_prob - grown.tree.cumulative_prob).max() < 1e-5
    # The last digits of sums over the vocabulary differ from machine to machine.
    assert kept.settings.pop("scale") == pytest.approx(grown.settings.pop("scale"), rel=1e-5)
    assert kept.settings | {"version": ""} == grown.settings | {"version": ""}
    assert kept.vector == pytest.approx(grown.vector, rel=1e-5)
    assert kept.complete
