"""A saved tree that is opened on the page of a Space."""

from types import SimpleNamespace

import numpy as np
import pytest

from multitool.errors import UserError
from multitool.page import tree_tab
from multitool.page.settings import ServerSettings
from multitool.page.turns import Turns
from multitool.trees.document import DefinitionTree
from multitool.trees.tree import ROOT, Tree

TREE = Tree(
    parent=np.array([ROOT, 0, 1, 2]), token_id=np.arange(4), token=(" a", " b", " c", " d"), prob=np.full(4, 0.5),
    cumulative_prob=0.5 ** np.arange(1, 5), end=np.zeros(4, bool),
)


def opened(upload, *, on_space: bool):
    service = SimpleNamespace(settings=ServerSettings(on_space=on_space), library=None)
    result = SimpleNamespace(answer=lambda made, extras: {"made": made})
    return tree_tab._opened(service, {}, result, Turns(), str(upload), "")


def test_a_tree_too_large_to_show_to_many_is_refused_on_a_space_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(tree_tab, "USUAL_MOST_NODES", 3)
    monkeypatch.setattr(tree_tab, "as_shown", lambda *_: None)
    saved = tmp_path / "tree.json"
    saved.write_text(DefinitionTree(TREE, {"prompt": "x"}, {}, 0.01, True, 1.0).to_json(), encoding="utf-8")
    with pytest.raises(UserError, match=r"This tree has 4 nodes; .* up to 3 here"):
        opened(saved, on_space=True)
    assert len(opened(saved, on_space=False)["document"].tree) == 4
    monkeypatch.setattr(tree_tab, "USUAL_MOST_NODES", 4)
    assert len(opened(saved, on_space=True)["document"].tree) == 4


def test_an_upload_that_had_to_make_room_meanwhile_is_told(tmp_path):
    with pytest.raises(UserError, match="not here any more"):
        opened(tmp_path / "gone.json", on_space=True)
