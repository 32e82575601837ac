"""Products and lengths of many rows, in parts, by numbers done in the head."""

import pytest
import torch

from multitool.vectors import nearness
from multitool.vectors.nearness import best, lengths, mixed_lengths, products

ROWS = torch.tensor([[3.0, 4.0], [0.0, 2.0], [-1.0, 0.0], [0.0, 0.0]])


@pytest.fixture(params=[1, 3, 1 << 22], autouse=True)
def at_once(request, monkeypatch):
    monkeypatch.setattr(nearness, "_NUMBERS_AT_ONCE", request.param)


@pytest.mark.parametrize("rows", [ROWS, ROWS.T.contiguous().T, ROWS.bfloat16()])
def test_products_and_lengths_of_rows(rows):
    assert products(rows, torch.tensor([5.0, 1.0])).tolist() == [19, 2, -5, 0]
    assert lengths(rows).tolist() == pytest.approx([5, 2, 1, 0])


def test_lengths_of_rows_that_are_carried():
    turned = torch.tensor([[0.0, 2.0], [-1.0, 0.0]])  # (3, 4) becomes (-4, 6)
    assert lengths(ROWS, turned).tolist() == pytest.approx([52**0.5, 2, 2, 0])


def test_rows_are_mixed_as_unit_vectors():
    one, other = torch.tensor([[2.0, 0.0], [1.0, 0.0]]), torch.tensor([[0.0, 3.0], [1.0, 0.0]])
    assert mixed_lengths(one, other, 0.5).tolist() == pytest.approx([0.5**0.5, 1])
    assert mixed_lengths(one, other, 0.8).tolist() == pytest.approx([0.68**0.5, 1])


def test_the_best_are_finite_and_among_those_that_may_be_chosen():
    values = torch.tensor([1.0, torch.nan, 3.0, torch.inf, 2.0, -torch.inf])
    assert best(values, 9).tolist() == [2, 4, 0]
    assert best(values, 1).tolist() == [2]
    assert best(values, 9, values < 3).tolist() == [4, 0]
    assert best(values, 9, values > 9).tolist() == []
