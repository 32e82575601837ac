"""What a reader is told of the definitions that a verdict speaks of: under it, in the table, in the explorer."""

from dataclasses import replace

import numpy as np
import pytest
from test_document import document

from multitool.page.evidence_html import tree_verdict_html
from multitool.page.tree_views import table
from multitool.pictures.explorer import payload
from multitool.recipes.captions import fires_told
from multitool.trees.document import UNFINISHED
from multitool.trees.tree import ROOT, Tree

EVIDENCE = {
    "verdict": "partly", "sentence": "Hm.", "judged_texts": ["Water", "<b>a</b>"], "judged_activations": [2.0, 0.0],
    "feature_maximum": 4.0,
}  # fmt: skip


def checked(**evidence):
    """"water" (lift 2), "water falling" (2 tokens, lift 3), "waterproof, …" (of other tokens), "of …" (not read)."""
    tree = Tree(
        parent=np.array([ROOT, 0, 0, ROOT, ROOT]), token_id=np.arange(5),
        token=("water", '"', ' falling"', "waterproof", "of"), prob=np.full(5, 0.1),
        cumulative_prob=np.array([0.5, 0.2, 0.1, 0.05, 0.01]), end=np.array([False, True, True, False, False]),
        lifts=np.array([[1.0, 1.0], [4, 2], [3, 3], [1, 1], [0.5, 0.5]]),
        activation=np.array([np.nan, 2.0, 3.0, 0.0, np.nan]),
    )
    return document(tree=tree, evidence=EVIDENCE | evidence)


def rows(tree, order="probability") -> list[list]:
    return table(tree, order, None)["value"]["data"]


@pytest.mark.parametrize(
    ("activation", "maximum", "told"),
    [(2.0, 4.0, "50%"), (5.0, 4.0, "125%"), (0.0, 4.0, "does not fire"), (-1.0, None, "does not fire"),
     (1.2345, None, "1.23")],
)
def test_how_strongly_a_feature_fires_is_told_as_a_share_where_its_maximum_is_known(activation, maximum, told):
    assert fires_told(activation, maximum) == told


def test_under_the_verdict_stand_the_definitions_that_it_speaks_of():
    shown = tree_verdict_html(EVIDENCE)
    assert '<li class="firing"><q>Water</q> <b>50%</b></li>' in shown
    assert '<li class="silent"><q>&lt;b&gt;a&lt;/b&gt;</q> <b>does not fire</b></li>' in shown
    assert "in shares of its maximum" in shown
    unknown = tree_verdict_html(EVIDENCE | {"feature_maximum": None})
    assert "<b>2</b>" in unknown and "maximum is not known" in unknown


def test_of_a_strangers_evidence_no_more_is_shown_than_a_check_gives():
    many = {"judged_texts": ["x" * 9_999] * 100, "judged_activations": [1.0] * 100}
    shown = tree_verdict_html(EVIDENCE | many)
    assert shown.count("<li") == 10 and len(shown) < 5_000
    assert "<li" not in tree_verdict_html({"verdict": "no", "sentence": "", "judged_texts": [1, {}]})


def test_rows_that_are_or_go_on_from_a_judged_definition_are_marked():
    assert [row[1] for row in rows(checked())] == ["● water", "◐ water falling", UNFINISHED, "waterproof …", "of …"]
    unmarked = [row[1] for row in rows(checked(judged_texts=None))]
    assert unmarked == ["water", "water falling", UNFINISHED, "waterproof …", "of …"]


def test_the_table_tells_the_lift_of_a_token_and_the_share_of_the_maximum():
    assert list(table(checked(), "probability", None)["value"]["headers"]) == [
        "%", "Definition", "Lift per token", "Fires %",
    ]  # fmt: skip
    assert [row[2:] for row in rows(checked())] == [[1, 50], [1.5, 75], ["", ""], [1, 0], [0.5, ""]]
    raw = checked(feature_maximum=None)
    assert table(raw, "probability", None)["value"]["headers"][3] == "Fires"
    assert [row[3] for row in rows(raw)] == [2, 3, "", 0, ""]


def test_by_lift_per_token_finished_definitions_stand_first():
    found = rows(checked(), "lift per token")
    assert [row[1] for row in found] == ["◐ water falling", "● water", UNFINISHED, "waterproof …", "of …"]


def test_the_explorer_gets_the_maximum_with_the_activations():
    shown = payload(checked())
    assert shown["maximum"] == 4 and 3.0 in shown["activation"]
    assert payload(checked(feature_maximum="4"))["maximum"] is None
    assert "maximum" not in payload(replace(checked(), tree=document().tree))
