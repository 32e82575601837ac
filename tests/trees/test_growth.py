"""Growing a tree from a hand-made source of next tokens."""

from collections import defaultdict
from dataclasses import replace

import numpy as np
import pytest
from plain_recursion import as_paths, cutoff_after, most_probable
from written_out import WrittenOut, random_table

from multitool.trees.growth import finished, grow, grow_forest

# Token 9 ends a definition. All probabilities are sums of powers of two, so that nothing is rounded.
SMALL = {
    (): [(1, 0.5), (2, 0.25), (9, 0.125)],
    (1,): [(2, 0.5), (9, 0.25), (1, 0.125)],
    (2,): [(9, 0.5), (1, 0.25), (2, 0.125)],
    (9,): [(1, 0.5), (2, 0.25), (9, 0.25)],
    (1, 2): [(9, 1.0), (1, 0.0), (2, 0.0)],
    (1, 9): [(2, 0.5), (1, 0.25), (9, 0.25)],
    (2, 9): [(1, 0.5), (2, 0.25), (9, 0.25)],
}
NINE_ENDS = np.arange(10) == 9


def growths(source, **settings):
    defaults = {"cutoff": 0.1, "max_depth": 10, "max_nodes": 1000, "ends": NINE_ENDS}
    return grow(source, **(defaults | settings))


def grown(source, **settings):
    *_, last = growths(source, **settings)
    return last


def paths(growth) -> list[tuple]:
    return [tuple(int(growth.tree.token_id[i]) for i in growth.tree.path(n)) for n in range(len(growth.tree))]


def test_a_node_is_kept_when_its_cumulative_probability_reaches_the_cutoff():
    growth = grown(WrittenOut(SMALL))
    assert paths(growth) == [(1,), (2,), (9,), (1, 2), (1, 9), (2, 9), (1, 2, 9)]
    assert growth.tree.prob.tolist() == [0.5, 0.25, 0.125, 0.5, 0.25, 0.5, 1.0]
    assert growth.tree.cumulative_prob.tolist() == [0.5, 0.25, 0.125, 0.25, 0.125, 0.125, 0.25]
    assert growth.effective_cutoff == 0.1


def test_a_node_exactly_at_the_cutoff_is_kept():
    assert paths(grown(WrittenOut(SMALL), cutoff=0.25)) == [(1,), (2,), (1, 2), (1, 2, 9)]


def test_siblings_stand_by_falling_probability_behind_their_parents():
    tree = grown(WrittenOut(SMALL), cutoff=0.01, ends=None, max_depth=2).tree
    for siblings in tree.children():
        assert tree.prob[siblings].tolist() == sorted(tree.prob[siblings], reverse=True)
    assert all(parent < node for node, parent in enumerate(tree.parent))


def test_an_end_token_is_marked_and_not_continued():
    source = WrittenOut(SMALL)
    growth = grown(source)
    assert [path for path, end in zip(paths(growth), growth.tree.end, strict=True) if end] == [
        (9,), (1, 9), (2, 9), (1, 2, 9)
    ]
    assert all(9 not in path for path in source.asked)


def test_without_ends_the_tree_goes_on_through_them_and_marks_none():
    growth = grown(WrittenOut(SMALL), ends=None, max_depth=2, cutoff=0.06)
    assert (9, 1) in paths(growth)
    assert not growth.tree.end.any()


def test_every_node_is_asked_for_once_and_only_when_a_child_can_be_kept():
    source = WrittenOut(SMALL)
    grown(source)
    assert sorted(source.asked) == sorted(set(source.asked)) == [(), (1,), (1, 2), (2,)]


def test_the_deepest_level_is_not_continued():
    source = WrittenOut(SMALL)
    growth = grown(source, max_depth=1)
    assert source.asked == [()]
    assert paths(growth) == [(1,), (2,), (9,)]
    assert growth.done


def test_what_top_k_keeps_out_is_noted_where_it_would_have_been_kept():
    # After the prompt 9 (0.125) reaches the cutoff of 0.1 but is the third; after 1 it is the second, and 1 (0.0625)
    # does not reach it.
    tree = grown(WrittenOut(SMALL, top_k=2)).tree
    assert paths(grown(WrittenOut(SMALL, top_k=2))) == [(1,), (2,), (1, 2), (1, 9), (2, 9), (1, 2, 9)]
    assert tree.beyond.tolist() == [0, 0, 0, 0, 0, 0, 0.125]
    tree = grown(WrittenOut(SMALL, top_k=1)).tree
    assert dict(zip([*paths(grown(WrittenOut(SMALL, top_k=1))), ()], tree.beyond.tolist(), strict=True)) == {
        (1,): 0.25, (1, 2): 0, (1, 2, 9): 0, (): 0.25 + 0.125
    }


def test_all_that_reach_the_cutoff_leave_nothing_beyond():
    assert not grown(WrittenOut(SMALL)).tree.beyond.any()


def test_where_max_nodes_leaves_nodes_out_what_top_k_keeps_out_is_not_known():
    # It was measured at the cutoff, and the tree is that of a larger one.
    assert grown(WrittenOut(SMALL, top_k=1), max_nodes=2).tree.beyond is None
    assert grown(WrittenOut(SMALL, top_k=1), max_nodes=3).tree.beyond is not None, "it has no more"
    assert grown(WrittenOut(SMALL), max_nodes=2).tree.beyond.tolist() == [0, 0, 0], "nothing was beyond"


def test_a_tree_that_was_stopped_knows_what_was_beyond_top_k():
    first, *_, last = growths(WrittenOut(SMALL, top_k=1))
    again = grown(WrittenOut(SMALL, top_k=1), begun=first.tree)
    assert again.tree.beyond.tolist() == last.tree.beyond.tolist()
    older = replace(first.tree, beyond=None)
    assert grown(WrittenOut(SMALL, top_k=1), begun=older).tree.beyond is None


def test_there_is_an_answer_after_every_level_and_only_the_last_is_done():
    steps = list(growths(WrittenOut(SMALL)))
    assert [(len(step.tree), step.depth, step.done) for step in steps] == [(3, 1, False), (6, 2, False), (7, 3, True)]


def test_an_answer_never_changes_after_it_was_given():
    before = []
    for step in growths(WrittenOut(SMALL), max_nodes=4):
        before.append((step, as_paths(step.tree)))
    assert all(as_paths(step.tree) == nodes for step, nodes in before)


def test_who_stops_asking_stops_the_growth():
    source = WrittenOut(SMALL)
    steps = growths(source)
    assert source.levels == 0, "nothing is computed before the first answer is asked for"
    next(steps)
    steps.close()
    assert source.levels == 1


def test_nothing_at_the_cutoff_is_an_empty_tree():
    growth = grown(WrittenOut(SMALL), cutoff=0.9)
    assert (len(growth.tree), growth.done, growth.effective_cutoff) == (0, True, 0.9)


@pytest.mark.parametrize(
    ("max_nodes", "kept", "effective_cutoff"),
    [
        (1, [(1,)], 0.5),
        (4, [(1,), (2,), (1, 2), (1, 2, 9)], 0.25),  # four nodes at 0.25 or above
        (7, [(1,), (2,), (9,), (1, 2), (1, 9), (2, 9), (1, 2, 9)], 0.1),  # all there are: the limit does not bite
        (8, [(1,), (2,), (9,), (1, 2), (1, 9), (2, 9), (1, 2, 9)], 0.1),
    ],
)
def test_max_nodes_keeps_the_most_probable_and_says_which_cutoff_that_is(max_nodes, kept, effective_cutoff):
    growth = grown(WrittenOut(SMALL), max_nodes=max_nodes)
    assert sorted(paths(growth)) == sorted(kept)
    assert growth.effective_cutoff == effective_cutoff


def test_among_equals_the_shallow_ones_are_kept_so_that_there_are_exactly_max_nodes():
    # (2,), (1, 2) and (1, 2, 9) all have 0.25.
    assert paths(grown(WrittenOut(SMALL), max_nodes=2)) == [(1,), (2,)]
    assert paths(grown(WrittenOut(SMALL), max_nodes=3)) == [(1,), (2,), (1, 2)]


def test_a_node_that_max_nodes_rules_out_is_not_asked_for():
    source = WrittenOut(SMALL)
    grown(source, max_nodes=1)
    assert source.asked == [(), (1,)]


def brute_force(table: dict, cutoff: float, end: int) -> dict:
    """(probability, cumulative probability) by path, of every node at or above the cutoff."""
    nodes: dict = {}

    def expand(path, reached):
        for token_id, prob in table.get(path, ()):
            if reached * prob >= cutoff:
                nodes[(*path, token_id)] = (prob, reached * prob)
                if token_id != end:
                    expand((*path, token_id), reached * prob)

    expand((), 1.0)
    return nodes


@pytest.mark.parametrize("seed", range(20))
def test_random_trees_are_those_of_brute_force_for_any_cutoff_and_any_number_of_nodes(seed):
    table = random_table(np.random.default_rng(seed))
    everything = brute_force(table, cutoff=1e-3, end=4)
    settings = {"cutoff": 1e-3, "max_depth": 5, "ends": np.arange(5) == 4}
    assert as_paths(grown(WrittenOut(table), **settings).tree) == everything
    for n in (1, 2, 3, 5, 10, 20, len(everything) - 1):
        source = WrittenOut(table)
        growth = grown(source, max_nodes=n, **settings)
        assert as_paths(growth.tree) == most_probable(everything, n)
        assert growth.effective_cutoff == min(cumulative for _, cumulative in most_probable(everything, n).values())
        assert len(source.asked) == len(set(source.asked))
        for cutoff in (growth.effective_cutoff, cutoff_after(everything, n)):
            again = grown(WrittenOut(table), **settings | {"cutoff": cutoff})
            assert as_paths(again.tree) == as_paths(growth.tree)


@pytest.mark.parametrize("seed", range(20))
def test_a_tree_that_was_stopped_after_any_level_grows_on_to_the_same_tree(seed):
    table = random_table(np.random.default_rng(seed))
    settings = {"cutoff": 1e-3, "max_depth": 5, "ends": np.arange(5) == 4}
    for max_nodes in (1000, 10, 3):
        steps = list(growths(WrittenOut(table), max_nodes=max_nodes, **settings))
        for step in steps[:-1]:
            source = WrittenOut(table)
            rest = list(growths(source, max_nodes=max_nodes, begun=step.tree, **settings))
            assert as_paths(rest[-1].tree) == as_paths(steps[-1].tree)
            assert rest[-1].effective_cutoff == steps[-1].effective_cutoff
            assert [again.depth for again in rest] == [later.depth for later in steps[step.depth :]]
            assert all(len(path) >= step.depth for path in source.asked), "what was known is not asked again"


def test_every_answer_tells_the_entropy_of_the_first_token_unless_that_was_not_asked_for():
    first, *later = growths(WrittenOut(SMALL))
    assert [growth.entropy for growth in (first, *later)] == [1.5] * (1 + len(later))
    *_, last = growths(WrittenOut(SMALL), begun=first.tree)
    assert last.entropy is None


def test_going_on_with_a_whole_tree_gives_it_back():
    whole = grown(WrittenOut(SMALL))
    source = WrittenOut(SMALL)
    (again,) = growths(source, begun=whole.tree)
    assert (again.done, source.asked, as_paths(again.tree)) == (True, [], as_paths(whole.tree))


def test_no_level_is_begun_that_would_end_after_the_time_given():
    clock = iter([0.0, 10.0, 10.0, 21.0, 21.0, 32.0])  # started; each level's end and the next one's beginning
    steps = list(growths(WrittenOut(SMALL), seconds=30, clock=lambda: next(clock)))
    assert [(step.depth, step.seconds, step.done) for step in steps] == [(1, 10, False), (2, 21, False)]


def test_tokens_are_spelled_from_their_texts():
    tree = grown(WrittenOut(SMALL)).tree.spelled([f"<{i}>" for i in range(10)])
    assert tree.token == ("<1>", "<2>", "<9>", "<2>", "<9>", "<9>", "<9>")


def test_a_level_with_many_more_paths_is_expected_to_take_as_much_longer():
    # 1 path, then 64, then 4,096: if the second level takes 1 s, the third is expected to take 64.
    def source():
        return WrittenOut(defaultdict(lambda: [(token, 1 / 64) for token in range(64)]))

    def seconds_at_each_look():
        yield from (0.0, 0.0, 0.0, 1.0, 1.0, 2.0)

    for seconds, depth in ((60, 2), (70, 3)):
        clock = seconds_at_each_look()
        limits = {"cutoff": 1e-9, "max_depth": 3, "max_nodes": 10**6, "ends": None, "seconds": seconds}
        *_, last = growths(source(), **limits, clock=lambda clock=clock: next(clock))
        assert last.depth == depth


class Forest(WrittenOut):
    """A table per tree; a path begins with the number of its tree."""

    def __init__(self, tables: list[dict]):
        super().__init__({(i, *path): answer for i, table in enumerate(tables) for path, answer in table.items()})
        self._n_trees = len(tables)

    def start(self, paths=None, least=None):
        assert paths is None
        return self._answer([(i,) for i in range(self._n_trees)], least)


def forest(tables, **settings):
    defaults = {"cutoff": 0.1, "max_depth": 10, "max_nodes": 1000, "ends": NINE_ENDS}
    source = Forest(tables)
    return finished(grow_forest(source, len(tables), **(defaults | settings))), source


def as_told(growth) -> tuple:
    """Everything but the time, every column in its order."""
    tree = growth.tree
    columns = [tree.parent, tree.token_id, tree.prob, tree.cumulative_prob, tree.end, tree.beyond]
    return [column.tolist() for column in columns], growth.depth, growth.effective_cutoff, growth.done


@pytest.mark.parametrize("ends", [np.arange(5) == 4, None], ids=["ends", "no ends"])
@pytest.mark.parametrize("max_nodes", [1, 3, 10, 1000])
def test_each_tree_of_a_forest_is_what_it_is_alone(max_nodes, ends):
    tables = [random_table(np.random.default_rng(seed)) for seed in range(12)]
    settings = {"cutoff": 5e-2, "max_depth": 5, "max_nodes": max_nodes, "ends": ends}
    together, source = forest(tables, **settings)
    alone = [grown(WrittenOut(table), **settings) for table in tables]
    assert [as_told(growth) for growth in together] == [as_told(growth) for growth in alone]
    assert source.levels == max(growth.depth for growth in alone), "one answer per level for all trees"
    assert len(source.asked) == len(set(source.asked))
    if max_nodes >= 10:
        assert len({growth.depth for growth in alone}) > 1, "trees should end at different depths"


def test_a_forest_may_have_trees_without_a_node():
    flat = {(): [(token, 1 / 64) for token in (1, 2, 9)]}
    short = {(): [(9, 0.5), (1, 0.0625), (2, 0.0625)]}
    together, source = forest([flat, SMALL, flat, short, SMALL, flat])
    assert [len(growth.tree) for growth in together] == [0, 7, 0, 1, 7, 0]
    assert all(growth.done for growth in together)
    assert [as_told(together[i]) for i in (1, 4)] == [as_told(grown(WrittenOut(SMALL)))] * 2
    assert source.levels == 3


def test_a_forest_of_trees_without_nodes_asks_once_and_one_of_no_trees_not_at_all():
    together, source = forest([SMALL, SMALL], cutoff=0.9)
    assert ([len(growth.tree) for growth in together], source.levels) == ([0, 0], 1)
    together, source = forest([])
    assert (together, source.levels) == ([], 0)
