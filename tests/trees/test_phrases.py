"""Which part of a tree is shown, folded into phrases; on a tree that is written out here.

    the .5 ── " small .8 (.4)" ── " dog .5 (.2)" ── '." .5 (.1, end)'
           │                   └─ ' cat" .25 (.1, end)'
           └─ '" .1 (.05, end)'
    a .25 ── " house .8 (.2)"
"""

from dataclasses import replace

import numpy as np
import pytest

from multitool.pictures.explorer import payload
from multitool.trees.document import DefinitionTree
from multitool.trees.phrases import outline, phrases, shown_part
from multitool.trees.tree import ROOT, Tree, most_probable

TOKENS = ("the", "a", " small", " house", " dog", '."', ' cat"', '"')


def document(tokens=TOKENS, prompt='It means "') -> DefinitionTree:
    tree = Tree(
        parent=np.array([ROOT, ROOT, 0, 1, 2, 4, 2, 0]),
        token_id=np.arange(8),
        token=tuple(tokens),
        prob=np.array([0.5, 0.25, 0.8, 0.8, 0.5, 0.5, 0.25, 0.1]),
        cumulative_prob=np.array([0.5, 0.25, 0.4, 0.2, 0.2, 0.1, 0.1, 0.05]),
        end=np.array([False] * 5 + [True] * 3),
    )
    return DefinitionTree(tree, {"prompt": prompt}, {}, 0.05, True, 0.0)


def shape(found) -> list:
    return [(phrase.text, phrase.cumulative_prob, phrase.ended, shape(phrase.children)) for phrase in found]


def test_tokens_without_a_fork_make_a_phrase_and_a_closing_quote_an_end():
    assert shape(phrases(document(), 100)) == [
        ("the", 0.5, 0.05, [(" small", 0.4, 0.0, [(" dog", 0.2, 0.1, []), (" cat", 0.1, 0.1, [])])]),
        ("a house", 0.2, 0.0, []),
    ]


def test_punctuation_and_then_the_quote_close_a_definition_too():
    # " dog" .2 ends by '"' .05, or by "." .1 and then '"' .08
    tree = Tree(
        parent=np.array([ROOT, 0, 0, 2]), token_id=np.arange(4), token=(" dog", '"', ".", '"'),
        prob=np.array([0.2, 0.25, 0.5, 0.8]), cumulative_prob=np.array([0.2, 0.05, 0.1, 0.08]),
        end=np.array([False, True, False, True]),
    )
    found = DefinitionTree(tree, {"prompt": 'It means "'}, {}, 0.05, True, 0.0)
    (dog,) = phrases(found, 100)
    assert (dog.text, dog.ended, dog.children, dog.nodes) == (" dog", pytest.approx(0.13), [], (0, 1, 2, 3))
    # Where the quote behind the stop is hidden, the stop is told.
    assert phrases(found, 2)[0].text == " dog."


def test_a_definition_has_one_number_wherever_it_is_told():
    # "Dog." .1 and "dog" .05 are one definition; " cat" another.
    tree = Tree(
        parent=np.array([ROOT, ROOT, 0, 1, 1]), token_id=np.arange(5), token=("Dog", " dog", '."', '"', ' cat"'),
        prob=np.array([0.5, 0.2, 0.2, 0.25, 0.2]), cumulative_prob=np.array([0.5, 0.2, 0.1, 0.05, 0.04]),
        end=np.array([False, False, True, True, True]),
    )
    found = DefinitionTree(tree, {"prompt": 'It means "'}, {}, 0.04, True, 0.0)
    told = {definition.text: definition.probability for definition in found.definitions()}
    assert told == {"Dog.": pytest.approx(0.15), "dog cat": pytest.approx(0.04)}
    upper, lower = phrases(found, 100)
    (cat,) = lower.children
    assert (upper.definition, lower.definition, cat.definition) == pytest.approx((0.15, 0.15, 0.04))
    assert (upper.ended, lower.ended) == pytest.approx((0.1, 0.05)), "shares of the tree stay those of the path"
    assert payload(found)["defined"] == pytest.approx([0.15, 0.15, 0.04])


def test_of_a_phrase_that_goes_on_beyond_what_is_shown_the_hidden_nodes_are_counted():
    found = phrases(document(), 3)  # the, a, " small"
    assert shape(found) == [("the small", 0.4, 0.0, []), ("a", 0.25, 0.0, [])]
    assert [phrase.hidden for phrase in found] == [4, 1]


def test_hidden_nodes_hold_the_probability_of_those_right_below_what_is_shown():
    the, a = phrases(document(), 3)
    assert the.hidden_prob == pytest.approx(0.05 + 0.2 + 0.1)  # the quote, " dog" without its end, ' cat"'
    assert a.hidden_prob == pytest.approx(0.2)
    the, _ = phrases(document(), 5)  # and " house", " dog"
    assert the.text == "the small dog"
    assert the.hidden_prob == pytest.approx(0.05 + 0.1 + 0.1), "summed over the run"


def test_a_blank_is_told_where_nothing_else_tells_two_phrases_apart():
    tokens = ("the", " the", " small", " house", " dog", '."', 'dog"', '"')
    the, other = phrases(document(tokens), 100)
    assert (the.label, other.label) == ("the", "the house"), "what follows tells them apart"
    small, = phrases(document(tokens), 100)[0].children
    assert [child.label for child in small.children] == ["␣dog", "dog"]
    assert payload(document(tokens))["blank"] == [2]


def test_first_tokens_that_are_not_shown_are_told_too():
    part = shown_part(document(), 1)
    assert (part.nodes, part.hidden) == (1, 2)
    assert part.hidden_prob == pytest.approx(0.25)
    assert shown_part(document(), 8).hidden_prob == 0


@pytest.mark.parametrize(("shown", "covered"), [(0, 0), (1, 0.5), (2, 0.4), (3, 0.65), (5, 0.4), (8, 0.45)])
def test_covered_is_the_probability_of_the_shown_paths_ends(shown, covered):
    assert shown_part(document(), shown).covered == pytest.approx(covered)


def test_what_follows_an_end_is_shown_or_counted_too():
    # This tool grows nothing behind an end; a file from elsewhere may.
    made = document()
    parent = made.tree.parent.copy()
    parent[6] = 7
    odd = replace(made, tree=replace(made.tree, parent=parent, cumulative_prob=np.minimum(
        made.tree.cumulative_prob, [1, 1, 1, 1, 1, 1, 0.01, 1])))
    assert [child.text for child in phrases(odd, 8)[0].children] == [" small dog", " cat"]
    assert sum(phrase.hidden for phrase in every(phrases(odd, 7))) == 1


def test_everything_shown_hides_nothing():
    def hidden(found) -> int:
        return sum(phrase.hidden + hidden(phrase.children) for phrase in found)

    assert hidden(phrases(document(), 8)) == 0
    assert all(phrase.hidden_prob == 0 for phrase in every(phrases(document(), 8)))


@pytest.mark.parametrize("shown", range(9))
def test_every_node_is_shown_or_counted_as_hidden_or_follows_a_beginning_that_is_not_shown(shown):
    tree = document().tree
    mask = most_probable(tree.cumulative_prob, shown)
    hidden = sum(phrase.hidden for phrase in every(phrases(document(), shown)))
    nowhere = sum(not mask[tree.path(node)[0]] for node in range(8))
    assert shown_part(document(), shown).hidden == nowhere
    assert mask.sum() + hidden + nowhere == 8


def every(found):
    for phrase in found:
        yield phrase
        yield from every(phrase.children)


def test_leaves_count_the_lines_that_a_phrase_takes():
    the, a = phrases(document(), 100)
    assert (the.leaves, a.leaves) == (2, 1)


def test_what_cannot_be_seen_is_escaped():
    tokens = ("the\n", "a", " sm\u202eall", " caf\\xc3", " dog", '."', ' cat"', '"')
    shown = [phrase.text for phrase in every(phrases(document(tokens), 100))]
    assert shown == ["the\\n", " sm\\u202eall", " dog", " cat", "a caf\\xc3"]


def test_an_empty_tree_has_no_phrases():
    empty = document().trimmed(0.9)
    assert phrases(empty, 100) == []
    assert outline(empty, 100) == ""


def test_the_outline_indents_what_follows_and_marks_ends_and_hidden_nodes():
    assert outline(document(), 100).splitlines() == [
        "  50.00%  the ■",
        "  40.00%      small",
        "  20.00%          dog ■",
        "  10.00%          cat ■",
        "  20.00%  a house",
    ]
    assert outline(document(), 3).splitlines() == ["  40.00%  the small … +4 (35%)", "  25.00%  a … +1 (20%)"]
    assert outline(document(), 1).splitlines() == ["  50.00%  the … +5 (45%)", "  25.00%  … +2"]


def test_a_deep_comb_is_no_deeper_than_python_recurses():
    # A fork at every one of the 200 levels that a tree may have.
    depth = 200
    parent = [ROOT, ROOT] + [2 * (level // 2) for level in range(2 * depth - 2)]
    size = len(parent)
    ones = np.ones(size)
    tree = Tree(np.array(parent), np.arange(size), ("x",) * size, ones, ones, np.zeros(size, dtype=bool))
    assert tree.depth.max() == depth
    comb = DefinitionTree(tree, {"prompt": '"'}, {}, 0.05, True, 0.0)
    assert len(outline(comb, size).splitlines()) == 2 * depth
