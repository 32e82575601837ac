"""A tree's growth on the page: which one goes on, and what is told of its time."""

import pytest

from multitool.errors import UserError
from multitool.page.growing import seconds_in_all
from multitool.page.turns import Turns, only_latest

# Of whole growths on the demo, after every level: how many paths the next one follows up, and the seconds until then.
GROWTHS = {
    # feature 927, cutoff 1e-5, and 5,000 nodes, which it does not reach
    "wide enough": ([5, 24, 94, 273, 381, 361, 254, 118, 53, 27, 10, 6, 1, 1, 0],
                    [0.2, 0.4, 0.6, 1.1, 2.4, 4.3, 6.2, 7.4, 8.0, 8.3, 8.6, 8.8, 8.9, 9.1, 9.2]),
    # feature 927, cutoff 1e-6, of which the most probable 2,000 nodes are kept
    "cut": ([5, 24, 108, 392, 1051, 703, 380, 166, 74, 32, 12, 7, 2, 1, 1, 0],
            [0.2, 0.4, 0.6, 1.2, 3.1, 8.3, 12.1, 14.4, 15.4, 15.9, 16.1, 16.4, 16.7, 16.8, 16.9, 16.9]),
    # feature 1785, cutoff 1e-5
    "slow to end": ([5, 25, 105, 303, 406, 314, 274, 218, 162, 84, 29, 7, 3, 0],
                    [0.2, 0.3, 0.6, 0.9, 3.4, 5.4, 6.9, 8.3, 9.8, 10.8, 11.4, 12.0, 12.6, 12.9]),
    # feature 152, cutoff 1e-5
    "late": ([5, 25, 114, 259, 432, 450, 371, 261, 141, 51, 12, 3, 1, 0],
             [0.2, 0.4, 0.6, 1.2, 2.4, 4.5, 6.6, 9.3, 11.7, 13.0, 13.4, 13.8, 13.9, 14.0]),
}  # fmt: skip


@pytest.mark.parametrize("name", GROWTHS)
def test_the_time_that_a_growth_takes_is_told_within_a_third_once_its_levels_become_smaller(name):
    paths, seconds = GROWTHS[name]
    told = [seconds_in_all(paths[: i + 1], at, 25 - i - 1) for i, at in enumerate(seconds)]
    known = [in_all for in_all in told if in_all is not None]
    assert all(2 / 3 <= in_all / seconds[-1] <= 4 / 3 for in_all in known)
    first = next(i for i, in_all in enumerate(told) if in_all is not None)
    assert seconds[first] < 0.65 * seconds[-1], "early enough to be of use"
    assert told[-1] is None


def test_the_time_in_all_by_head():
    assert seconds_in_all([100, 50], 10.0, 1) == 15.0  # a tenth of a second for each of fifty more
    assert seconds_in_all([100, 50], 10.0, 2) == pytest.approx(15.0 + 0.1 * 50 * 0.5 * 0.85)
    assert seconds_in_all([100, 100], 10.0, 20) is None
    assert seconds_in_all([5], 0.1, 20) is None


def growth(turns: Turns, answers: list):
    return only_latest(lambda: iter_closable(answers))(turns, turns.ask())


def iter_closable(answers):
    for answer in answers:
        if isinstance(answer, Exception):
            raise answer
        yield answer


def test_a_growth_ends_when_another_is_asked_for():
    turns = Turns()
    first = growth(turns, [1, 2, UserError("Nobody is told.")])
    assert next(first) == 1
    second = growth(turns, [3])
    assert list(first) == []
    assert turns.running, "the second is waited for"
    assert list(second) == [3]
    assert not turns.running
    with pytest.raises(UserError, match="Somebody"):
        list(growth(turns, [UserError("Somebody is told.")]))


def test_a_growth_that_was_stopped_does_not_begin_and_a_late_refusal_says_nothing_of_one_that_runs():
    turns = Turns()
    waiting = growth(turns, [1])
    turns.stop()
    assert not turns.running and list(waiting) == []
    running = growth(turns, [1, 2])
    next(running)
    turns.refuse()  # of one before
    assert turns.running
    turns.ask()
    turns.refuse()
    assert not turns.running
