"""The tree as data, on a small tree that is written out here.

    a .5 ── c .5 (.25) ── e .4 (.1, end)
       └─── d .2 (.1)
    b .3 ── f .9 (.27, end)
"""

from dataclasses import replace

import numpy as np
import pytest

from multitool.trees.tree import (
    ROOT,
    Tree,
    coverage,
    definition_probabilities,
    definitions,
    lifted,
    most_probable,
    narrowed,
    tree_of_paths,
    trim,
)

A, B, F, C, D, E = range(6)


def tree(tokens=(" a", " b", ' f"', " c", " d", ' e."'), ends=(F, E)) -> Tree:
    return Tree(
        parent=np.array([ROOT, ROOT, B, A, A, C]),
        token_id=np.array([10, 11, 15, 12, 13, 14]),
        token=tuple(tokens),
        prob=np.array([0.5, 0.3, 0.9, 0.5, 0.2, 0.4]),
        cumulative_prob=np.array([0.5, 0.3, 0.27, 0.25, 0.1, 0.1]),
        end=np.isin(range(6), ends),
    )


EMPTY = tree().select(np.zeros(6, dtype=bool))


def test_its_length_is_the_number_of_nodes():
    assert len(tree()) == 6
    assert len(EMPTY) == 0


def test_depth_counts_the_tokens_from_the_prompt():
    assert tree().depth.tolist() == [1, 1, 2, 2, 2, 3]


def test_leaves_are_the_nodes_without_children():
    assert np.flatnonzero(tree().is_leaf).tolist() == [F, D, E]


def test_children_are_listed_by_parent_and_the_prompts_own_last():
    children = tree().children()
    assert children[ROOT] == [A, B]
    assert children[A] == [C, D]
    assert children[E] == []


def test_a_path_leads_from_the_prompt_to_the_node():
    assert tree().path(E) == [A, C, E]
    assert tree().path(B) == [B]


def test_selected_nodes_keep_their_parents():
    kept = tree().select(np.array([True, False, False, True, False, True]))
    assert kept.token == (" a", " c", ' e."')
    assert kept.parent.tolist() == [ROOT, 0, 1]
    assert kept.token_id.tolist() == [10, 12, 14]
    assert kept.prob.tolist() == [0.5, 0.5, 0.4]
    assert kept.cumulative_prob.tolist() == [0.5, 0.25, 0.1]
    assert kept.end.tolist() == [False, False, True]


@pytest.mark.parametrize(
    ("cutoff", "left"),
    [(0.1, [A, B, F, C, D, E]), (0.100001, [A, B, F, C]), (0.27, [A, B, F]), (0.28, [A, B]), (0.6, [])],
)
def test_trimming_keeps_the_nodes_at_or_above_the_cutoff(cutoff, left):
    assert trim(tree(), cutoff).token_id.tolist() == tree().token_id[left].tolist()


def test_trimming_twice_is_trimming_once():
    twice = trim(trim(tree(), 0.2), 0.26)
    once = trim(tree(), 0.26)
    assert twice.token == once.token
    assert twice.parent.tolist() == once.parent.tolist()


def test_the_most_probable_nodes_are_a_tree_and_of_equals_the_first_are_taken():
    probabilities = tree().cumulative_prob
    assert np.flatnonzero(most_probable(probabilities, 3)).tolist() == [A, B, F]
    assert np.flatnonzero(most_probable(probabilities, 5)).tolist() == [A, B, F, C, D]  # d and e both have 0.1
    assert most_probable(probabilities, 100).all()


def test_of_very_many_equals_the_first_are_taken_too():
    assert np.flatnonzero(most_probable(np.full(5_000, 0.5), 3)).tolist() == [0, 1, 2]


def test_a_child_as_probable_as_its_parent_is_not_taken_without_it():
    assert most_probable(np.array([0.5, 0.2, 0.2, 0.2]), 2).tolist() == [True, True, False, False]


def test_definitions_are_the_complete_ones_first_then_the_beginnings_each_by_falling_probability():
    found = [(d.text, d.probability, d.complete) for d in definitions(tree())]
    assert found == [("b f", 0.27, True), ("a c e.", 0.1, True), ("a d", 0.1, False)]


def test_spellings_of_one_definition_count_together_under_the_most_probable():
    spelled = tree(tokens=(" The  sun", " the", ' Sun,"', ".", " sky", '"'), ends=(F, E))
    (sun, sky) = definitions(spelled)
    assert (sun.text, sun.node, sun.complete, sky.text) == ("the Sun,", F, True, "The  sun sky")
    assert sun.probability == pytest.approx(0.27 + 0.1)
    assert definition_probabilities(spelled).tolist() == pytest.approx([0, 0, 0.37, 0, 0.1, 0.37])


def test_a_finished_definition_and_a_beginning_of_the_same_words_are_two():
    found = definitions(tree(tokens=(" a", " b", ' dog"', " c", " dog", '"'), ends=(F,)))
    assert [(d.text, d.complete) for d in found][0] == ("b dog", True)
    assert ("a dog", False) in [(d.text, d.complete) for d in found]


def test_only_so_many_definitions_as_are_asked_for():
    assert [d.text for d in definitions(tree(), 1)] == ["b f"]
    assert definitions(EMPTY) == []


def test_a_definition_stops_before_its_closing_quote():
    last = definitions(tree(tokens=(" a", " b", ' f." and', " c", " d", '"')))
    assert [d.text for d in last] == ["b f.", "a c", "a d"]


def test_an_end_of_text_token_is_no_part_of_the_definition():
    assert definitions(tree(tokens=(" a", " b", "<|endoftext|>", " c", " d", ' e"')))[0].text == "b"


def test_another_quote_closes_another_definition():
    quoted = definitions(tree(tokens=(" a", " b", ' "f"»', " c", " d", " e»")), closing_quote="»")
    assert [d.text for d in quoted] == ['b "f"', "a c e", "a d"]


def test_without_a_quote_in_the_prompt_only_end_of_text_ends_a_definition():
    ended = definitions(tree(tokens=(" a", " b", "</s>", " c", " d", "</s>")), closing_quote=None)
    assert [d.text for d in ended] == ["b", "a c", "a d"]


def test_a_complete_definition_counts_even_where_the_tree_goes_on():
    through = tree(ends=(F, C, E))
    assert [(d.text, d.complete) for d in definitions(through)][:2] == [("b f", True), ("a", True)]


def test_a_character_in_two_tokens_is_whole_in_the_definition():
    split = tree(tokens=(" a", " caf\\xc3", '\\xa9"', " c", " d", '"'))
    assert definitions(split)[0].text == "café"


# What is measured at the nodes


def measured() -> Tree:
    """The lifts against the centroid and against random ghosts; an activation on the three leaves."""
    lifts = np.array([[0.5, 0.1], [3.0, 2.0], [1.0, 4.0], [0.0, -1.0], [-2.0, 5.0], [2.5, 2.0]])
    return replace(tree(), lifts=lifts, activation=np.array([np.nan, np.nan, 0.0, np.nan, 1.5, 7.0]))


def test_the_lift_is_the_smaller_of_the_two():
    assert measured().lift.tolist() == [0.1, 2, 1, -1, -2, 2]
    assert tree().lift is None


def test_lifts_and_activations_stay_with_their_nodes():
    trimmed = trim(measured(), 0.27)
    assert trimmed.token == (" a", " b", ' f"')
    assert trimmed.lifts.tolist() == [[0.5, 0.1], [3, 2], [1, 4]]
    np.testing.assert_array_equal(trimmed.activation, [np.nan, np.nan, 0])
    spelled = measured().spelled(["x"] * 16)
    assert spelled.lifts is not None
    assert spelled.activation is not None


def test_a_tree_that_was_not_measured_stays_so():
    trimmed = trim(tree(), 0.27)
    assert (trimmed.lifts, trimmed.activation) == (None, None)


@pytest.mark.parametrize(
    ("least", "left"),
    [
        (-5, [A, B, F, C, D, E]),
        (0, [A, B, F, C, E]),  # c for the sake of e; d is lifted by the one and lowered by the other
        (1, [A, B, F, C, E]),
        (1.5, [A, B, C, E]),
        (2.5, []),
    ],
)
def test_lifted_nodes_are_kept_with_those_on_the_way_to_them(least, left):
    assert lifted(measured(), least).token_id.tolist() == tree().token_id[left].tolist()


def test_a_lifted_tree_keeps_its_measures_and_an_empty_one_is_empty():
    np.testing.assert_array_equal(lifted(measured(), 1.5).activation, [np.nan, np.nan, np.nan, 7])
    assert len(lifted(measured().select(np.zeros(6, dtype=bool)), 0)) == 0


def test_narrowed_to_the_likeliest_continuations_of_each_node():
    assert narrowed(tree(), 1).token == (" a", " c", ' e."')
    assert narrowed(tree(), 2).token == tree().token


def test_coverage_tells_apart_what_ends_what_goes_on_and_what_is_not_in_the_tree():
    found = coverage(tree())
    assert found.complete == pytest.approx(0.27 + 0.1)
    assert found.unfinished == pytest.approx(0.1)
    assert found.in_tree == pytest.approx(0.47)
    assert found.below == pytest.approx(0.53)
    assert found.beyond is None
    assert coverage(EMPTY).below == 1


def test_coverage_tells_apart_what_top_k_keeps_out_and_what_is_too_rare():
    # 0.1 of all after the prompt, half of what comes to a (0.5) and nothing elsewhere.
    beyond = np.array([0.5, 0, 0, 0, 0, 0, 0.1])
    found = coverage(replace(tree(), beyond=beyond))
    assert found.beyond == pytest.approx(0.1 + 0.25)
    assert found.below == pytest.approx(1 - 0.47 - 0.35)
    assert coverage(replace(EMPTY, beyond=np.array([0.4]))).beyond == 0.4


def test_of_a_trimmed_tree_it_is_not_known_what_top_k_alone_keeps_out_unless_that_is_nothing():
    some, nothing = np.array([0.5, 0.25, 0, 0, 0, 0, 0.1]), np.zeros(7)
    assert trim(replace(tree(), beyond=some), 0.2).beyond is None
    assert trim(replace(tree(), beyond=some), 0.01).beyond.tolist() == some.tolist(), "nothing was trimmed off"
    assert trim(replace(tree(), beyond=nothing), 0.2).beyond.tolist() == [0] * 5
    lifts = np.array([[3.0, 3], [0, 0], [0, 0], [0, 0], [0, 0], [0, 0]])
    assert lifted(replace(tree(), beyond=nothing, lifts=lifts), 1).beyond is None


def test_where_a_tree_goes_on_through_an_end_only_the_first_end_counts():
    found = coverage(tree(ends=(A, C, F)))
    assert found.complete == pytest.approx(0.5 + 0.27)
    assert found.unfinished == 0


def test_a_tree_of_paths_has_what_they_share_once():
    tree, nodes = tree_of_paths([[5, 7], [5], [], [5, 7, 9], [7]])
    assert (tree.parent.tolist(), tree.token_id.tolist()) == ([-1, 0, 1, -1], [5, 7, 9, 7])
    assert nodes == [[0, 1], [0], [], [0, 1, 2], [3]]
    assert len(tree_of_paths([])[0]) == 0
