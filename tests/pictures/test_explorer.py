"""What the interactive view is given, on a tree that is written out here, and the file that holds it.

    a .5 ── b .5 (.25) ── '." .4 (.1, end)
       │              └── c .4 (.1)
       └─── '"' .2 (.1, end)
    d .25 ── e .8 (.2) ── f .5 (.1)
"""

import json
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from test_figure import HOSTILE
from test_figure import document as some_document

from multitool.pictures.explorer import payload, standalone
from multitool.trees.document import DefinitionTree
from multitool.trees.tree import ROOT, Tree


def document(**settings) -> DefinitionTree:
    tree = Tree(
        parent=np.array([ROOT, ROOT, 0, 1, 2, 2, 0, 3]),
        token_id=np.arange(8),
        token=("a", "d", " b", " e", '."', " c", '"', " f"),
        prob=np.array([0.5, 0.25, 0.5, 0.8, 0.4, 0.4, 0.2, 0.5]),
        cumulative_prob=np.array([0.5, 0.25, 0.25, 0.2, 0.1, 0.1, 0.1, 0.1]),
        end=np.array([False] * 4 + [True, False, True, False]),
    )
    return DefinitionTree(tree, {"prompt": 'It means "'} | settings, {}, 0.05, True, 0.0)


def test_the_view_gets_phrases_with_their_probabilities_ends_and_sizes():
    assert payload(document()) == {
        "total": 8,
        "parent": [-1, 0, 1, -1],
        "text": ["a", " b", " c", "d e f"],
        "p": [0.5, 0.25, 0.1, 0.1],
        "ended": [0.1, 0.1, 0.0, 0.0],
        "defined": [0.1, 0.1, 0.0, 0.0],
        "nodes": [2, 2, 1, 3],
        "blank": [],
    }


def test_of_a_checked_tree_it_gets_lifts_and_activations():
    tree = document().tree
    lifts = np.stack([np.arange(8.0), np.arange(8.0) + 1], axis=1)
    activation = np.array([np.nan] * 4 + [2.5, np.nan, np.nan, np.nan])
    found = payload(replace(document(), tree=replace(tree, lifts=lifts, activation=activation)))
    assert found["lift"] == [0, 2, 5, 7]
    assert found["activation"] == [None, 2.5, None, None]


def test_what_another_tree_has_too_is_marked_at_the_phrases_last_token():
    shared = np.array([True, True, False, True, False, False, False, False])
    assert payload(document(), shared)["shared"] == [1, 0, 0, 0]
    assert "shared" not in payload(document())


def test_five_thousand_nodes_are_a_small_load():
    found = json.dumps(payload(some_document(5000)), ensure_ascii=False, separators=(",", ":"))
    assert len(found.encode()) < 250_000


class _Parts(HTMLParser):
    def __init__(self, source: str):
        super().__init__()
        self.scripts, self.tags, self.text, self._in = [], [], "", None
        self.feed(source)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self._in = tag
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag):
        self._in = None

    def handle_data(self, data):
        if self._in == "script":
            self.scripts[-1] += data
        else:
            self.text += data


HOSTILE_TEXT = "</script><script>alert(1)</script><img src=x onerror=alert(1)>\u2028<!--"


def test_the_file_holds_the_tree_and_its_whole_recipe():
    found = _Parts(standalone(document(sae="demo/hook_embed", feature=927, scale=2.5)))
    assert json.loads(found.scripts[0]) == payload(document())
    assert "demo/hook_embed · feature 927" in found.text
    assert '"scale": 2.5' in found.text


@pytest.mark.parametrize("name", ["sae", "prompt", "model", "anything"])
def test_no_setting_breaks_out_of_the_file(name):
    found = _Parts(standalone(document(**{name: HOSTILE_TEXT})))
    assert found.tags == _Parts(standalone(document())).tags
    assert "onerror" not in found.scripts[1]
    assert "alert(1)" in found.text


@pytest.mark.parametrize("words", [HOSTILE, (HOSTILE_TEXT,)], ids=["hostile", "markup"])
def test_no_token_breaks_out_of_the_file(words):
    hostile = some_document(40, words=words)
    found = _Parts(standalone(hostile))
    assert len(found.scripts) == 2
    assert found.tags == _Parts(standalone(some_document(40))).tags
    assert json.loads(found.scripts[0]) == payload(hostile)


def test_an_empty_tree_and_a_file_without_settings_are_no_trouble():
    assert payload(document().trimmed(0.9))["parent"] == []
    assert "None" in standalone(DefinitionTree(document().tree, {}, {}, 0.05, True, 0.0))
