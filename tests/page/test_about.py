"""What the page tells of itself, and what it puts on the clipboard."""

import json

import numpy as np
import pytest

from multitool.jobs.token_table import TOKEN_COLUMNS, TokenTable
from multitool.page.about import about_html, space_address
from multitool.page.copying import definitions_copied, list_copied
from multitool.recipes.citation import BUILT_UPON, METHOD, METHOD_NOTEBOOK
from multitool.trees.document import DefinitionTree
from multitool.trees.tree import ROOT, Tree


@pytest.mark.parametrize(
    ("name", "address"),
    [("me/my-space", "https://huggingface.co/spaces/me/my-space"), ("", None), ("me/a/b", None), ('me/"><b>', None)],
)
def test_the_address_of_a_space(name, address):
    assert space_address({"SPACE_ID": name}) == address
    assert space_address({}) is None


def test_about_names_all_that_it_builds_upon_with_links():
    for address in (None, "https://huggingface.co/spaces/me/mine"):
        told = about_html(address)
        for reference in (METHOD, METHOD_NOTEBOOK, *BUILT_UPON):
            assert f'href="{reference.url}"' in told
        assert told.count("<a ") == told.count('rel="noopener"')
        assert (f'href="{address}/blob/main/README.md"' in told) == bool(address)


SETTINGS = {"sae": "demo/hook_embed", "feature": 9, "weights": "encoder", "measure": "score", "scale": 2.4,
            "prompt": 'A "'}
VECTOR = {"distance_from_centroid": 2.4, "mean_token_distance": 2.4}


def test_what_is_copied_of_a_list():
    table = TokenTable(TOKEN_COLUMNS, [[1, " a|b", 7, 0.123456, 2.0, 3.0]], SETTINGS, VECTOR)
    found = json.loads(list_copied(table))
    assert list(found) == ["Markdown", "LaTeX", "CSV", "Python list"]
    assert found["Markdown"]["rows"] == [r"| 1 | ␣a\|b | 7 | 0.123 | 2.00 | 3.00 |"]
    assert found["Markdown"]["head"].startswith("demo/hook\\_embed feature 9, weights encoder, by score; distance")


def test_what_is_copied_of_definitions():
    probs = np.array([0.25, 0.125])
    made = Tree(np.full(2, ROOT), np.arange(2), ('rain"', " a form"), probs, probs, np.array([True, False]))
    tree = DefinitionTree(made, SETTINGS, VECTOR, 1e-3, True, 1.0)
    found = json.loads(definitions_copied(tree, tree.definitions()))
    assert found["Markdown"]["rows"] == ["| rain | 0.250 |", "| a form … | 0.125 |"]
    assert "prompt: A" in found["LaTeX"]["head"] and found["Python list"]["rows"] == ["'rain'", "'a form …'"]
    checked = DefinitionTree(
        Tree(made.parent, made.token_id, made.token, probs, probs, made.end, None, np.array([[3.0, 4.0], [1.0, 2.0]]),
             np.array([0.5, np.nan])), SETTINGS, VECTOR, 1e-3, True, 1.0,
    )
    found = json.loads(definitions_copied(checked, checked.definitions()))
    assert found["Markdown"]["rows"] == ["| rain | 0.250 | 3.00 | 0.500 |", "| a form … | 0.125 | 1.00 |  |"]
