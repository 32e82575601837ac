"""The tree JSON, both ways; and everything that is no tree JSON is refused in a sentence."""

import json
import math
from dataclasses import replace

import csv_files
import numpy as np
import pytest
from plain_recursion import as_paths

from multitool.errors import UserError
from multitool.recipes.recipe import MAX_DEPTH_LIMIT
from multitool.trees.document import SCHEMA, DefinitionTree, read_tree
from multitool.trees.tree import ROOT, Tree

SETTINGS = {
    "model": "some/model", "sae": "release/id", "feature": 7, "weights": "mix", "encoder_share": 0.5,
    "centroid": True, "scale": 3.8, "pca": [0.25, -0.5], "prompt": 'A "{ghost}" is "', "top_k": 5, "cutoff": 0.05,
    "max_depth": 25, "max_nodes": 2000, "stop": True, "dtype": "float32",
}  # fmt: skip
VECTOR = {"norm": 5.0, "distance_from_centroid": 3.8, "mean_token_distance": 3.8}


def document(**changes) -> DefinitionTree:
    """`` a`` (0.5) → ``\\xe2"`` (0.25 of it, end); `` b`` (0.2), tokens that JSON must quote."""
    tree = Tree(
        parent=np.array([ROOT, ROOT, 0]),
        token_id=np.array([10, 11, 12]),
        token=(" a\n", " b\\\u2028", '\\xe2"'),
        prob=np.array([0.5, 0.2, 0.25]),
        cumulative_prob=np.array([0.5, 0.2, 0.125]),
        end=np.array([False, False, True]),
    )
    parts = {
        "tree": tree, "settings": SETTINGS, "vector": VECTOR, "effective_cutoff": 0.05, "complete": True,
        "seconds": 1.25,
    }  # fmt: skip
    return DefinitionTree(**(parts | changes))


def test_the_json_has_the_fields_of_the_schema():
    assert json.loads(document().to_json()) == {
        "schema": "sae-multitool/definition-tree/1",
        "settings": SETTINGS,
        "vector": VECTOR,
        "result": {
            "nodes": 3, "leaves": 2, "depth": 2, "effective_cutoff": 0.05, "complete": True, "seconds": 1.25,
            "in_tree": 0.325,
        },
        "tree": {
            "token": "", "token_id": None, "prob": 1.0, "cumulative_prob": 1.0,
            "children": [
                {
                    "token": " a\n", "token_id": 10, "prob": 0.5, "cumulative_prob": 0.5,
                    "children": [
                        {"token": '\\xe2"', "token_id": 12, "prob": 0.25, "cumulative_prob": 0.125, "children": [],
                         "end": True}
                    ],
                },
                {"token": " b\\\u2028", "token_id": 11, "prob": 0.2, "cumulative_prob": 0.2, "children": []},
            ],
        },
    }  # fmt: skip


@pytest.mark.parametrize("form", [str, str.encode, json.loads], ids=["text", "bytes", "object"])
def test_what_was_written_is_read_again_the_same(form):
    written = document().to_json()
    read = read_tree(form(written))
    assert read.to_json() == written
    assert as_paths(read.tree) == as_paths(document().tree)
    assert read.tree.token == (" a\n", " b\\\u2028", '\\xe2"')


def test_probabilities_survive_to_the_last_bit():
    third = Tree(np.array([ROOT]), np.array([1]), ("x",), np.array([1 / 3]), np.array([1 / 3]), np.array([False]))
    assert read_tree(document(tree=third).to_json()).tree.prob[0] == 1 / 3


def test_what_top_k_keeps_out_is_written_and_read():
    cut = document(tree=replace(document().tree, beyond=np.array([0.5, 0, 0, 0.25])))
    written = cut.to_json()
    data = json.loads(written)
    assert (data["result"]["beyond_top_k"], data["result"]["below_cutoff"]) == pytest.approx((0.5, 0.175))
    a, b = data["tree"]["children"]
    assert (data["tree"]["beyond_top_k"], a["beyond_top_k"], "beyond_top_k" in b) == (0.25, 0.5, False)
    assert read_tree(written).to_json() == written
    nothing = document(tree=replace(document().tree, beyond=np.zeros(4))).to_json()
    assert json.loads(nothing)["result"]["beyond_top_k"] == 0 and read_tree(nothing).to_json() == nothing


@pytest.mark.parametrize(("top_k", "beyond", "said"), [
    (5, 0.75, "75% of the probability is cut by top_k"), (5, 0.25, ""), (0, 0.75, ""), ("<b>", 0.75, ""),
])
def test_where_top_k_cuts_more_than_half_a_sentence_says_so(top_k, beyond, said):
    cut = document(
        tree=replace(document().tree, beyond=np.array([0, 0, 0, beyond])), settings=SETTINGS | {"top_k": top_k}
    )
    assert cut.caution.startswith(said) and bool(cut.caution) == bool(said)
    assert not document().caution, "an older file does not tell"


def test_definitions_that_end_and_beginnings_are_told_apart():
    complete, unfinished = document().most_probable(5)
    assert [d.node for d in complete] == [2] and [d.node for d in unfinished] == [1]
    assert document().most_probable(0) == ([], [])


def test_an_empty_tree_is_written_and_read():
    empty = document(tree=document().tree.select(np.zeros(3, dtype=bool)))
    assert json.loads(empty.to_json())["result"] | {"seconds": 0} == {
        "nodes": 0, "leaves": 0, "depth": 0, "effective_cutoff": 0.05, "complete": True, "seconds": 0,
        "in_tree": 0,
    }  # fmt: skip
    assert len(read_tree(empty.to_json()).tree) == 0


def test_a_tree_as_deep_as_trees_may_be_is_written_read_and_written():
    written = document(tree=chain(MAX_DEPTH_LIMIT)).to_json()
    assert read_tree(written).to_json() == written


def test_trimming_keeps_the_recipe_and_says_the_cutoff_of_the_result():
    trimmed = document().trimmed(0.2)
    assert trimmed.tree.token == (" a\n", " b\\\u2028")
    assert trimmed.settings["cutoff"] == 0.05
    assert trimmed.effective_cutoff == 0.2


def test_trimming_below_the_growths_cutoff_changes_nothing():
    assert document().trimmed(0.01).to_json() == document().to_json()


@pytest.mark.parametrize("cutoff", [0, 1, -0.5, math.nan, "0.1", None, True])
def test_trimming_at_an_impossible_cutoff_is_refused(cutoff):
    with pytest.raises(UserError, match="cutoff is .* between 0 and 1"):
        document().trimmed(cutoff)


def test_definitions_end_at_the_quote_that_the_prompt_leaves_open():
    curly = document(settings=SETTINGS | {"prompt": "„{ghost}“ heißt „"})
    ended = Tree(np.array([ROOT]), np.array([1]), (' "x" y”“',), np.array([0.5]), np.array([0.5]), np.array([True]))
    assert [d.text for d in DefinitionTree(ended, curly.settings, VECTOR, 0.05, True, 0.0).definitions()] == ['"x" y”']


def chain(depth: int) -> Tree:
    ones = np.ones(depth)
    return Tree(np.arange(-1, depth - 1), np.arange(depth), ("x",) * depth, ones, ones, np.zeros(depth, dtype=bool))


# What is no tree JSON. Each case changes one thing of a good one.


def good() -> dict:
    return json.loads(document().to_json())


def changed(path: str, value) -> dict:
    """A good document with ``value`` at ``path``, e.g. ``tree.children.0.prob``."""
    data = good()
    *way, last = [int(step) if step.isdigit() else step for step in path.split(".")]
    place = data
    for step in way:
        place = place[step]
    place[last] = value
    return data


def without(path: str) -> dict:
    data = changed(path, None)
    *way, last = [int(step) if step.isdigit() else step for step in path.split(".")]
    place = data
    for step in way:
        place = place[step]
    del place[last]
    return data


def refusal(source) -> str:
    """The message with which ``source`` is refused; any other exception fails the test."""
    with pytest.raises(UserError) as caught:
        read_tree(source)
    message = str(caught.value)
    assert len(message) < 500, "a message is a sentence or two, whatever is in the file"
    return message


@pytest.mark.parametrize(
    "text",
    ["", "   ", "{", "[1, 2", "definition", "{'schema': 1}", "\ufeff\ufeff{}", b"\xff\xfe\x00", b"\x89PNG\r\n", "nul"],
)
def test_what_is_no_json_is_refused(text):
    assert "cannot be read as JSON" in refusal(text)


@pytest.mark.parametrize("text", ["null", "true", "3", '"text"', "[]", "[{}]", "NaN", "{}", '{"schema": null}'])
def test_json_that_is_no_tree_is_refused_by_its_schema(text):
    assert "its schema is" in refusal(text)
    assert SCHEMA in refusal(text)


@pytest.mark.parametrize("schema", ["sae-multitool/definition-tree/2", "sae-multitool/token-list/1", 1, ["x"], {}])
def test_another_schema_is_refused_with_its_name(schema):
    assert str(schema)[:20] in refusal(changed("schema", schema))


@pytest.mark.parametrize("source", [None, 3, [], object()], ids=["none", "number", "list", "object"])
def test_what_is_neither_text_nor_an_object_is_refused(source):
    assert "not a tree JSON" in refusal(source)


@pytest.mark.parametrize(
    "path",
    ["settings", "vector", "result", "tree", "result.complete", "result.effective_cutoff", "result.seconds",
     "tree.children"],
)  # fmt: skip
def test_a_missing_part_is_named(path):
    assert path.rpartition(".")[2] in refusal(without(path))


@pytest.mark.parametrize("part", ["token", "token_id", "prob", "cumulative_prob", "children"])
def test_a_missing_part_of_a_node_is_named_with_the_node(part):
    message = refusal(without(f"tree.children.1.{part}"))
    assert "node 1" in message
    assert part in message


NOT_A_PROBABILITY = [-0.1, 0, 0.0, 1.1, math.nan, math.inf, -math.inf, "0.5", None, True, [0.5], {}, 10**400]


@pytest.mark.parametrize("value", NOT_A_PROBABILITY, ids=lambda value: str(value)[:8])
@pytest.mark.parametrize("part", ["prob", "cumulative_prob"])
def test_a_nodes_probability_must_be_one(part, value):
    assert f"node 0: {part}" in refusal(changed(f"tree.children.0.{part}", value))


@pytest.mark.parametrize("value", NOT_A_PROBABILITY, ids=lambda value: str(value)[:8])
def test_the_effective_cutoff_must_be_a_probability(value):
    assert "result.effective_cutoff" in refusal(changed("result.effective_cutoff", value))


@pytest.mark.parametrize(
    ("path", "value", "named"),
    [
        ("tree.children.0.token", None, "node 0: token"),
        ("tree.children.0.token", 5, "node 0: token"),
        ("tree.children.0.token", ["x"], "node 0: token"),
        ("tree.children.0.token", "x" * 2_000_000, "node 0: token"),
        ("tree.children.0.token", "\ud800", "node 0: token"),
        ("tree.children.0.token_id", None, "node 0: token_id"),
        ("tree.children.0.token_id", -1, "node 0: token_id"),
        ("tree.children.0.token_id", 1.5, "node 0: token_id"),
        ("tree.children.0.token_id", True, "node 0: token_id"),
        ("tree.children.0.token_id", "7", "node 0: token_id"),
        ("tree.children.0.token_id", 2**63, "node 0: token_id"),
        ("tree.children.0.token_id", 10**400, "node 0: token_id"),
        ("tree.children.0.end", "yes", "node 0: end"),
        ("tree.children.0.end", 1, "node 0: end"),
        ("tree.children.0.children", None, "node 0"),
        ("tree.children.0.children", {}, "node 0"),
        ("tree.children.0.children", "x", "node 0"),
        ("tree.children.0.children.0", 5, "node 2"),
        ("tree.children.0", None, "node 0"),
        ("tree.children.0", [], "node 0"),
        ("tree.children", {}, "tree"),
        ("tree", [], "tree"),
        ("tree", "x", "tree"),
        ("settings", [], "settings"),
        ("settings", None, "settings"),
        ("vector", "x", "vector"),
        ("result", 5, "result"),
        ("result.complete", 1, "result.complete"),
        ("result.complete", "true", "result.complete"),
        ("result.seconds", "long", "result.seconds"),
        ("result.seconds", math.nan, "result.seconds"),
        ("result.seconds", 10**400, "result.seconds"),
        ("settings.scale", math.nan, "settings.scale"),
        ("settings.scale", math.inf, "settings.scale"),
        ("settings.scale", 10**400, "settings.scale"),
        ("settings.feature", {}, "settings.feature"),
        ("settings.pca", ["x"], "settings.pca"),
        ("settings.pca", [math.nan], "settings.pca"),
        ("settings.pca", [[0.5]], "settings.pca"),
        ("settings.prompt", "x" * 1_000_000, "settings.prompt"),
        ("settings.prompt", "\ud800", "settings.prompt"),
        ("vector.norm", math.inf, "vector.norm"),
        ("vector.norm", 10**400, "vector.norm"),
        # Finite, and yet what is reckoned from them is not.
        ("settings.scale", 1e308, "settings.scale"),
        ("settings.scale", 10**300, "settings.scale"),
        ("settings.pca", [1e308], "settings.pca"),
        ("settings.pca", [0.1] * 1001, "settings.pca"),
        ("settings.pca", [True], "settings.pca"),
        ("vector.norm", -1e308, "vector.norm"),
        ("result.seconds", 1e308, "result.seconds"),
        ("result.least_lift", 1e308, "result.least_lift"),
        ("result.first_token_entropy", 1e308, "result.first_token_entropy"),
        ("tree.beyond_top_k", 1e308, "beyond_top_k"),
        ("settings", {f"name{n}": n for n in range(201)}, "settings"),
        ("settings.\ud800", 1, "settings.'"),
        ("settings." + "k" * 101, 1, "settings.'kkk"),
    ],
    ids=lambda value: str(value)[:24],
)
def test_a_wrong_value_is_named_with_its_place(path, value, named):
    data = changed(path, value)
    assert named in refusal(data)
    if not isinstance(value, str) or len(value) > 1:
        # The same as text: JSON of Python's kind, with its NaN and Infinity.
        assert named in refusal(json.dumps(data))


def test_numbers_that_only_look_finite_are_refused():
    assert "node 0: prob" in refusal(document().to_json().replace('"prob": 0.5', '"prob": 1e999'))


def test_a_number_with_more_digits_than_python_reads_is_refused():
    assert "cannot be read as JSON" in refusal(document().to_json().replace('"prob": 0.5', '"prob": 1' + "0" * 5000))


def test_a_child_more_probable_than_its_parent_is_refused():
    message = refusal(changed("tree.children.0.children.0.cumulative_prob", 0.6))
    assert "node 2: cumulative_prob is" in message
    assert "0.6" in message
    assert "its parent's 0.5" in message


@pytest.mark.parametrize("opening", ["[", '{"tree":', '{"children":[', '{"schema":"x","tree":{"children":['])
def test_nesting_of_fifty_thousand_levels_is_refused(opening):
    closing = "".join({"[": "]", "{": "}"}.get(mark, "") for mark in reversed(opening))
    refusal(opening * 50_000 + "1" + closing * 50_000)
    refusal(opening * 50_000)


def test_a_good_beginning_does_not_excuse_nesting_of_fifty_thousand_levels():
    node = '{"token": "x", "token_id": 1, "prob": 1.0, "cumulative_prob": 1.0, "children": ['
    text = document(tree=chain(1)).to_json()
    start = text.index('"children": [') + len('"children": [')
    refusal(text[:start] + node * 50_000 + "]}" * 50_000 + "]}}")


def test_an_object_nested_deeper_than_trees_can_be_is_refused():
    # Text as deep as this is stopped by the JSON reader; an object that somebody else has read is not.
    data = good()
    node = data["tree"]
    for _ in range(5_000):
        node["children"] = [{"token": "x", "token_id": 1, "prob": 1.0, "cumulative_prob": 1.0, "children": []}]
        node = node["children"][0]
    refusal(data)


def test_a_setting_nested_deep_is_refused_without_printing_it_all():
    deep: list = []
    for _ in range(5_000):
        deep = [deep]
    assert "settings.pca" in refusal(changed("settings.pca", deep))


def test_a_key_of_a_million_characters_is_not_repeated():
    refusal(changed("settings." + "k" * 1_000_000, {}))


def test_a_tree_of_a_hundred_thousand_nodes_is_read():
    node = {"token": "x", "token_id": 1, "prob": 0.5, "cumulative_prob": 0.5, "children": []}
    assert len(read_tree(changed("tree.children", [node] * 100_001)).tree) == 100_001


def test_more_fields_than_the_schema_has_are_no_damage():
    data = good() | {"comment": "mine"}
    data["settings"] = data["settings"] | {"note": "x", "seed": 1, "flag": False, "nothing": None}
    assert read_tree(data).settings["note"] == "x"


def test_everything_cut_off_somewhere_is_refused():
    text = document().to_json()
    for length in range(0, len(text) - 1, 7):
        refusal(text[:length])


# A tree that was checked

EVIDENCE = {"hit_rate": 0.9, "rank": 3.0, "self_similarity": None, "verdict": "agrees", "sentence": "It agrees.",
            "judged_texts": ["rain", "a"], "judged_activations": [7.5, 0.0]}


def checked() -> DefinitionTree:
    measured = replace(
        document().tree,
        lifts=np.array([[1 / 3, 0.5], [-2.0, 50.0], [4.0, 3.0]]),
        activation=np.array([np.nan, 0.0, 7.5]),
    )
    return document(tree=measured, evidence=EVIDENCE)


def test_lifts_and_activations_stand_at_the_nodes_and_the_evidence_beside_the_tree():
    data = json.loads(checked().to_json())
    assert data["evidence"] == EVIDENCE
    first, second = data["tree"]["children"]
    assert (first["lift_centroid"], first["lift_random"]) == (1 / 3, 0.5)
    assert "activation" not in first, "none was read there"
    assert (second["lift_centroid"], second["lift_random"], second["activation"]) == (-2, 50, 0)
    assert first["children"][0]["activation"] == 7.5


def test_a_tree_that_was_not_checked_has_none_of_it():
    written = document().to_json()
    assert not any(name in written for name in ("evidence", "lift", "activation"))
    read = read_tree(written)
    assert (read.evidence, read.tree.lifts, read.tree.activation) == (None, None, None)


@pytest.mark.parametrize("form", [str, str.encode, json.loads], ids=["text", "bytes", "object"])
def test_a_checked_tree_is_read_again_the_same(form):
    read = read_tree(form(checked().to_json()))
    assert read.to_json() == checked().to_json()
    assert read.evidence == EVIDENCE
    np.testing.assert_array_equal(read.tree.lifts, checked().tree.lifts)
    np.testing.assert_array_equal(read.tree.activation, checked().tree.activation)


def test_trimming_a_checked_tree_keeps_what_was_found():
    trimmed = checked().trimmed(0.2)
    assert trimmed.evidence == EVIDENCE
    assert trimmed.tree.lifts.tolist() == [[1 / 3, 0.5], [-2, 50]]
    assert read_tree(trimmed.to_json()).to_json() == trimmed.to_json()


@pytest.mark.parametrize("name", ["lift_centroid", "lift_random"])
def test_lifts_that_not_every_node_has_are_not_taken(name):
    data = json.loads(checked().to_json())
    del data["tree"]["children"][1][name]
    read = read_tree(data)
    assert (read.tree.lifts, read.tree.activation) == (None, None)
    assert read.evidence == EVIDENCE


def test_a_checked_tree_without_nodes_is_written_and_read():
    empty = replace(checked(), tree=checked().tree.select(np.zeros(3, dtype=bool)))
    assert read_tree(empty.to_json()).evidence == EVIDENCE


@pytest.mark.parametrize(
    "value", [math.nan, math.inf, -math.inf, "3", None, True, [1], {}, 10**400], ids=lambda value: str(value)[:8]
)
@pytest.mark.parametrize("name", ["lift_centroid", "lift_random", "activation"])
def test_what_was_measured_at_a_node_must_be_a_number(name, value):
    data = json.loads(checked().to_json())
    data["tree"]["children"][1][name] = value
    assert f"node 1: {name}" in refusal(data)


@pytest.mark.parametrize("value", [1e308, -1e308, 1001, -1001])
@pytest.mark.parametrize("name", ["lift_centroid", "lift_random"])
def test_lifts_are_within_what_a_page_can_draw(name, value):
    data = json.loads(checked().to_json())
    data["tree"]["children"][1][name] = value
    assert f"node 1: {name} is {value}; it must be a number within ±1000" in refusal(data)


def test_an_activation_is_within_what_a_page_can_draw():
    data = json.loads(checked().to_json())
    data["tree"]["children"][1]["activation"] = 1e308
    assert "node 1: activation is 1e+308; it must be a number within ±1e+09" in refusal(data)


@pytest.mark.parametrize("least", [1e308, -1e308, math.nan, True, "1"])
def test_nothing_is_pruned_by_what_could_not_be_read_again(least):
    with pytest.raises(UserError, match="it must be a number of nats"):
        checked().lifted(least)


def test_a_tree_whose_nodes_are_their_own_children_is_refused():
    data = good()
    data["tree"]["children"][0]["children"] = data["tree"]["children"]
    assert "deeper than 200 tokens" in refusal(data)


@pytest.mark.parametrize(
    ("value", "named"),
    [
        ({"rank": 1e308}, "evidence.rank"), ({"judged_activations": [1e308]}, "evidence.judged_activations"),
        ({"judged_activations": [1.0] * 1001}, "evidence.judged_activations"),
        (None, "evidence"), ([], "evidence"), ("good", "evidence"), (5, "evidence"),
        ({"auroc": math.nan}, "evidence.auroc"), ({"auroc": 10**400}, "evidence.auroc"),
        ({"sentence": "x" * 1_000_000}, "evidence.sentence"), ({"sentence": "\ud800"}, "evidence.sentence"),
        ({"verdict": {}}, "evidence.verdict"), ({"figures": [[0.5]]}, "evidence.figures"),
        ({"judged_texts": ["rain", 1]}, "evidence.judged_texts"),
        ({"judged_texts": ["\ud800"]}, "evidence.judged_texts"),
        ({"judged_texts": ["x"] * 101}, "evidence.judged_texts"), ({"judged_texts": [["x"]]}, "evidence.judged_texts"),
        ({"judged_texts": ["x" * 10_001]}, "evidence.judged_texts"),
        ({"k" * 1_000_000: {}}, "evidence."),
    ],
    ids=lambda value: str(value)[:24],
)  # fmt: skip
def test_evidence_of_another_shape_is_refused_with_its_place(value, named):
    assert named in refusal(good() | {"evidence": value})


def test_texts_are_listed_in_the_evidence_only():
    broken = good()
    broken["settings"]["pca"] = ["rain"]
    assert "settings.pca" in refusal(broken)


def test_the_most_lifted_definitions_go_by_the_lift_of_a_token():
    # "a" (1.0), "a long one" (3 tokens: 2.4, 0.8 each), and "odd" (0.5); what goes on has the most: 4.
    tree = Tree(
        parent=np.array([ROOT, ROOT, 1, 2, ROOT, ROOT]), token_id=np.arange(6),
        token=('a"', "a", " long", ' one"', 'odd"', "more"), prob=np.full(6, 0.2), cumulative_prob=np.full(6, 0.2),
        end=np.array([True, False, False, True, True, False]),
        lifts=np.array([[1.0, 9], [0, 0], [0, 0], [2.4, 3.0], [0.5, 0.6], [4, 4]]), activation=np.full(6, np.nan),
    )
    assert tree.lift_per_token.tolist() == pytest.approx([1, 0, 0, 0.8, 0.5, 4])
    complete, unfinished = document(tree=tree).most_lifted(5)
    assert ([found.node for found in complete], [found.node for found in unfinished]) == ([0, 3, 4], [5])
    assert document(tree=tree).most_lifted(1) == (complete[:1], unfinished)


def test_a_tree_pruned_by_lift_says_so_and_reads_back():
    lifts = np.array([[3.0, 4.0], [0.5, 2.0], [5.0, 2.5]])
    checked = document(tree=replace(document().tree, lifts=lifts, activation=np.full(3, np.nan)))
    pruned = checked.lifted(1.0)
    assert pruned.tree.token_id.tolist() == [10, 12]
    assert pruned.to_dict()["result"]["least_lift"] == 1.0
    assert read_tree(pruned.to_json()).least_lift == 1.0
    assert pruned.lifted(0.5).least_lift == 1.0, "what is gone stays gone"
    with pytest.raises(UserError, match="Check it first"):
        document().lifted(1.0)


def test_the_entropy_of_the_first_token_is_written_and_read_where_it_is_known():
    told = replace(document(), first_token_entropy=1.25)
    assert told.to_dict()["result"]["first_token_entropy"] == 1.25
    assert read_tree(told.to_json()).first_token_entropy == 1.25
    assert "first_token_entropy" not in document().to_dict()["result"]
    assert document().first_token_entropy is None
    for value in (-0.1, "1", None, math.nan):
        broken = good()
        broken["result"]["first_token_entropy"] = value
        assert "first_token_entropy" in refusal(broken)


def test_definitions_are_a_csv_file_with_the_recipe_at_its_head():
    made = document()
    recipe, (header, *rows) = csv_files.read(made.to_csv())
    assert recipe == json.loads(json.dumps(made.settings | {
        "schema": "sae-multitool/definition-tree/1", "vector": made.vector, "result": made.result,
    }))
    assert header == ["text", "probability", "complete"] and len(rows) == len(made.definitions())
    assert [row[0] for row in rows] == [one.text for one in made.definitions()]
    assert float(rows[0][1]) == made.definitions()[0].probability and rows[0][2] == "True"
    frame = made.to_pandas()
    assert list(frame.columns) == header and frame["text"].tolist() == [row[0] for row in rows]
