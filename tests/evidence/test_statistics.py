"""Measures on arrays so small that one sees the answer."""


import numpy as np
import pytest

from multitool.evidence.statistics import auroc, average_precision, mean_with_interval, rank, share_at_least


def array(*values) -> np.ndarray:
    return np.array(values, dtype=float)


def which(*values) -> np.ndarray:
    return np.array(values, dtype=bool)


@pytest.mark.parametrize(
    ("positive", "area"),
    [
        ((1, 1, 0, 0), 1.0),
        ((0, 0, 1, 1), 0.0),
        ((1, 0, 1, 0), 3 / 4),  # of the four pairs only (third, second) is the wrong way round
        ((0, 1, 0, 1), 1 / 4),
        ((0, 1, 1, 0), 2 / 4),
    ],
)
def test_auroc_is_the_share_of_pairs_in_which_the_positive_scores_higher(positive, area):
    assert auroc(array(4, 3, 2, 1), which(*positive)) == pytest.approx(area)


def test_auroc_counts_a_tie_half():
    assert auroc(array(1, 1), which(1, 0)) == pytest.approx(0.5)
    # (3, 2) is right, (3, 1) is right, (2, 2) is a tie, (2, 1) is right.
    assert auroc(array(3, 2, 2, 1), which(1, 1, 0, 0)) == pytest.approx(3.5 / 4)


@pytest.mark.parametrize("positive", [(0, 0, 0), (1, 1, 1)])
def test_auroc_is_unknown_without_positives_or_without_negatives(positive):
    assert auroc(array(1, 2, 3), which(*positive)) is None


@pytest.mark.parametrize(
    ("positive", "precision"),
    [
        ((1, 1, 0, 0), 1.0),
        ((1, 0, 1, 0), (1 / 1 + 2 / 3) / 2),
        ((0, 1, 0, 1), (1 / 2 + 2 / 4) / 2),
        ((0, 0, 0, 1), 1 / 4),
        ((1, 1, 1, 1), 1.0),
    ],
)
def test_average_precision_is_the_mean_precision_at_the_positives(positive, precision):
    assert average_precision(array(4, 3, 2, 1), which(*positive)) == pytest.approx(precision)


def test_average_precision_takes_equal_scores_together():
    # Down to the tie there are four, two of them positives, whichever stands first.
    assert average_precision(array(1, 1, 1, 1), which(1, 0, 0, 1)) == pytest.approx(1 / 2)
    assert average_precision(array(2, 1, 1), which(1, 0, 1)) == pytest.approx((1 / 1 + 2 / 3) / 2)


def test_average_precision_is_unknown_without_positives():
    assert average_precision(array(1, 2), which(0, 0)) is None


def test_the_rank_is_the_place_from_the_top():
    scores = array(10, 30, 20)
    assert [rank(scores, index) for index in range(3)] == [3, 1, 2]


def test_equals_share_the_mean_of_their_places():
    assert rank(array(5, 5), 0) == rank(array(5, 5), 1) == 1.5
    assert rank(array(9, 5, 5, 5, 1), 2) == 3  # of the places 2, 3 and 4
    assert rank(array(0, 0, 0, 0, 0), 4) == 3


def test_the_share_at_least_counts_equals():
    assert share_at_least(2, array(1, 2, 3, 1)) == 0.5
    assert share_at_least(4, array(1, 2, 3, 1)) == 0


def test_the_interval_holds_the_mean_and_lies_within_the_values():
    mean, low, high = mean_with_interval([0, 1, 2, 3, 4, 5, 6, 7, 8, 9])
    assert mean == 4.5
    assert 0 < low < 4.5 < high < 9
    # About 1.96 standard errors on each side: the values spread by 2.87, their mean by 2.87 / √10 = 0.91.
    assert (low, high) == pytest.approx((4.5 - 1.78, 4.5 + 1.78), abs=0.25)
    assert mean_with_interval([0, 1, 2, 3, 4, 5, 6, 7, 8, 9]) == (mean, low, high), "the same every time"


def test_the_interval_of_more_values_is_narrower():
    _, low, high = mean_with_interval([0, 1] * 8)
    _, lower, higher = mean_with_interval([0, 1] * 2)
    assert high - low < higher - lower


@pytest.mark.parametrize("values", [[3], [3, 3, 3]])
def test_one_value_or_equal_ones_have_no_width(values):
    assert mean_with_interval(values) == (3, 3, 3)
