"""Token lists: the published score and the other measures, on small matrices."""

import numpy as np
import pytest
import torch

from multitool.recipes.recipe import LENSES, MEASURES
from multitool.vectors.embedding import EmbeddingSpace
from multitool.vectors.ranking import token_list, token_lists, token_scores

UP = torch.tensor([0.0, 1.0])


def hand_made() -> EmbeddingSpace:
    """Four tokens with their centroid at (1, 0)."""
    return EmbeddingSpace(torch.tensor([[2.0, 0.0], [0.0, 3.0], [-1.0, 0.0], [3.0, -3.0]]))


def random_space() -> EmbeddingSpace:
    return EmbeddingSpace(torch.randn(200, 5, generator=torch.Generator().manual_seed(0)) + 0.5)


def naive(E: np.ndarray, v: np.ndarray, exponent: float) -> list[tuple[int, float]]:
    """(token id, score), best first, by a plain loop in double precision."""

    def cos(a, b):
        return a @ b / np.sqrt(a @ a) / np.sqrt(b @ b)

    c = E.mean(axis=0)
    scores = [(t, (1 - cos(v, row)) ** exponent / (1 - cos(c, row))) for t, row in enumerate(E)]
    return sorted(scores, key=lambda scored: scored[1])


def test_the_list_is_ordered_by_the_published_score():
    # The vector points up. Token 1 does too; 2 is at a right angle to it and opposite to the centroid; 3 points down.
    # Token 0 lies in the centroid's direction: it is near to everything, its score is infinite, it is not listed.
    listed = token_list(hand_made(), UP, exponent=1)
    assert listed.token_id.tolist() == [1, 2, 3]
    down, right = 1 + np.sqrt(0.5), 1 - np.sqrt(0.5)
    assert listed.score == pytest.approx([0 / 1, 1 / 2, down / right], abs=1e-5)
    assert listed.distance_to_vector == pytest.approx([0, 1, down], abs=1e-6)
    assert listed.distance_to_centroid == pytest.approx([1, 2, right], abs=1e-6)


def test_the_exponent_weighs_the_distance_to_the_vector():
    squared = token_list(hand_made(), UP, exponent=2)
    assert squared.score == pytest.approx([0, 1 / 2, (1 + np.sqrt(0.5)) ** 2 / (1 - np.sqrt(0.5))], abs=1e-5)


@pytest.mark.parametrize("exponent", [0.5, 1.0, 1.4, 3.0])
def test_scores_are_those_of_a_plain_loop(exponent):
    space, v = random_space(), torch.tensor([1.0, -2.0, 0.5, 3.0, 0.0])
    expected = naive(space.E.double().numpy(), v.double().numpy(), exponent)
    listed = token_list(space, v, exponent=exponent, top=len(expected))
    assert listed.score == pytest.approx([score for _, score in expected], rel=1e-4)
    assert listed.token_id.tolist() == [token_id for token_id, _ in expected]


def test_the_default_exponent_is_the_published_one():
    space, v = random_space(), torch.ones(5)
    assert token_list(space, v).score.tolist() == token_list(space, v, exponent=1.4).score.tolist()


def test_only_the_best_are_listed_and_a_hundred_by_default():
    space, v = random_space(), torch.ones(5)
    assert len(token_list(space, v).token_id) == 100
    three = token_list(space, v, top=3)
    assert three.token_id.tolist() == token_list(space, v).token_id[:3].tolist()


def test_asking_for_more_than_there_are_gives_what_there_is():
    assert len(token_list(random_space(), torch.ones(5), top=10_000).token_id) == 200


def test_rows_of_zeros_have_no_direction_and_are_left_out():
    rows = torch.cat([random_space().E[:9], torch.zeros(2, 5)])
    listed = token_list(EmbeddingSpace(rows), torch.ones(5), top=11)
    assert sorted(listed.token_id.tolist()) == list(range(9))
    assert np.isfinite(listed.score).all()


def test_the_length_of_the_vector_does_not_matter():
    space, v = random_space(), torch.ones(5)
    near, far = token_list(space, v), token_list(space, 1000 * v)
    assert near.token_id.tolist() == far.token_id.tolist()
    assert near.score == pytest.approx(far.score, rel=1e-4)


def test_a_tokens_own_row_finds_that_token_first():
    space = random_space()
    assert token_list(space, space.E[42]).token_id[0] == 42


def test_a_matrix_in_half_precision_gives_nearly_the_same_scores():
    space = random_space()
    exact = token_list(space, torch.ones(5), top=200)
    half = token_list(EmbeddingSpace(space.E.bfloat16()), torch.ones(5), top=200)
    by_token = dict(zip(half.token_id.tolist(), half.distance_to_vector.tolist(), strict=True))
    assert [by_token[t] for t in exact.token_id.tolist()] == pytest.approx(exact.distance_to_vector.tolist(), abs=0.01)


# Several vectors, and lists by activation


def test_by_activation_only_tokens_that_fire_are_listed_the_strongest_first_with_their_scores():
    listed = token_list(hand_made(), UP, exponent=1, measure="activation", values=torch.tensor([0.5, 2.0, 0.0, 7.0]))
    assert listed.token_id.tolist() == [3, 1, 0]
    down, right = 1 + np.sqrt(0.5), 1 - np.sqrt(0.5)
    assert listed.score[:2] == pytest.approx([down / right, 0], abs=1e-5)
    assert listed.score[2] == np.inf, "a token in the centroid's direction may fire too"
    assert listed.distance_to_vector == pytest.approx([down, 0, 1], abs=1e-6)


def test_by_activation_only_the_strongest_are_listed():
    fires = torch.tensor([0.5, 2.0, 0.0, 7.0])
    listed = token_list(hand_made(), UP, measure="activation", top=2, values=fires)
    assert listed.token_id.tolist() == [3, 1]
    assert listed.value.tolist() == [7, 2]


def test_where_nothing_fires_the_list_by_activation_is_empty():
    for nothing in (torch.zeros(4), torch.tensor([-1.0, 0.0, -2.0, 0.0])):
        assert token_list(hand_made(), UP, measure="activation", values=nothing).token_id.tolist() == []


def test_the_scores_of_several_vectors_are_those_of_each():
    space, vs = random_space(), torch.eye(5)[:3] * 2
    scores = token_scores(space, vs)
    assert (scores.shape, scores.dtype) == ((3, 200), np.float64)
    for v, row in zip(vs, scores, strict=True):
        listed = token_list(space, v, top=200)
        assert row[listed.token_id] == pytest.approx(listed.score, rel=1e-5)


def test_the_lists_of_several_vectors_are_those_of_each():
    space, vs = random_space(), torch.eye(5)[:3] * 2
    lists = token_lists(space, vs, top=7)
    for v, listed in zip(vs, lists, strict=True):
        alone = token_list(space, v, top=7)
        assert listed.token_id.tolist() == alone.token_id.tolist()
        assert listed.score == pytest.approx(alone.score, rel=1e-6)


def test_the_scores_of_rows_of_zeros_are_infinite():
    space = EmbeddingSpace(torch.cat([random_space().E[:9], torch.zeros(2, 5)]))
    scores = token_scores(space, torch.eye(5)[:2])
    assert np.isinf(scores[:, 9:]).all()
    assert np.isfinite(scores[:, :9]).all()


# Other measures, from both ends

# Three tokens: askew and long, short and along the vector, and against it. Lengths 5, 1 and 2.
THREE = [[3.0, 4.0], [1.0, 0.0], [-2.0, 0.0]]
ALONG = torch.tensor([2.0, 0.0])


@pytest.mark.parametrize(
    ("measure", "order", "values"),
    [("cosine", [1, 0, 2], [1, 3 / 5, -1]), ("dot", [0, 1, 2], [6, 2, -4])],
)
def test_three_tokens_in_the_head(measure, order, values):
    space = EmbeddingSpace(torch.tensor(THREE))
    listed = token_list(space, ALONG, measure=measure)
    assert listed.token_id.tolist() == order
    assert listed.value == pytest.approx(values)
    assert listed.distance_to_vector == pytest.approx(np.array([2 / 5, 0, 2])[order], abs=1e-6)
    other_end = token_list(space, ALONG, measure=measure, negative=True)
    assert other_end.token_id.tolist() == order[::-1]
    assert other_end.value == pytest.approx(values[::-1])
    assert token_list(space, ALONG, measure=measure, negative=True, top=1).token_id.tolist() == order[-1:]


def test_the_other_end_of_the_score_is_the_largest_but_not_an_infinite_one():
    listed = token_list(hand_made(), UP, exponent=1, negative=True)
    assert listed.token_id.tolist() == [3, 2, 1]
    assert listed.value.tolist() == listed.score.tolist()
    assert listed.score[1:] == pytest.approx([1 / 2, 0], abs=1e-6)


def test_values_from_elsewhere_order_the_tokens_from_both_ends():
    space, logits = EmbeddingSpace(torch.tensor(THREE)), torch.tensor([-1.0, -5.0, 2.0])
    listed = token_list(space, ALONG, measure="logit_lens", values=logits)
    assert listed.token_id.tolist() == [2, 0, 1]
    assert listed.value.tolist() == [2, -1, -5]
    assert token_list(space, ALONG, measure="logit_lens", values=logits, negative=True).token_id.tolist() == [1, 0, 2]


@pytest.mark.parametrize("measure", MEASURES)
def test_only_tokens_among_which_to_choose_are_listed(measure):
    values = torch.tensor([4.0, 3.0, 2.0, 1.0]) if measure in (*LENSES, "activation") else None
    among = torch.tensor([False, True, False, True])
    listed = token_list(hand_made(), UP, measure=measure, values=values, among=among)
    assert listed.token_id.tolist() == [1, 3]
    assert token_list(hand_made(), UP, measure=measure, values=values, among=~torch.ones(4, dtype=bool)).value.size == 0


@pytest.mark.parametrize("measure", ["cosine", "dot", "logit_lens"])
@pytest.mark.parametrize("negative", [False, True])
def test_rows_of_zeros_are_in_no_list(measure, negative):
    space = EmbeddingSpace(torch.tensor([*THREE, [0.0, 0.0]]))
    values = torch.tensor([1.0, 2.0, 3.0, 9.0 - 18 * negative]) if measure == "logit_lens" else None
    listed = token_list(space, ALONG, measure=measure, values=values, negative=negative)
    assert sorted(listed.token_id.tolist()) == [0, 1, 2]


@pytest.mark.parametrize("negative", [False, True])
@pytest.mark.parametrize("measure", ["score", "cosine", "dot"])
def test_scores_of_several_vectors_put_the_tokens_in_the_order_of_their_lists(measure, negative):
    space, vs, among = random_space(), torch.eye(5)[:3] * 2, torch.arange(200) % 3 > 0
    settings = {"measure": measure, "negative": negative, "among": among}
    scores = token_scores(space, vs, **settings)
    for v, row in zip(vs, scores, strict=True):
        listed = token_list(space, v, top=200, **settings)
        assert np.argsort(row)[: among.sum()].tolist() == listed.token_id.tolist()
        assert np.isinf(row[~among.numpy()]).all()


def test_cosine_and_dot_are_those_of_a_plain_loop_on_every_architecture(subject):
    space, v = subject.space, subject.space.centroid + torch.randn(32, generator=torch.Generator().manual_seed(3))
    rows, plain_v = space.E.double().numpy(), v.double().numpy()
    dots, cosines = {}, {}
    for token_id, row in enumerate(rows):
        if row.any():  # Gemma 3's padding has a row of zeros
            dots[token_id] = sum(a * b for a, b in zip(row, plain_v, strict=True))
            cosines[token_id] = dots[token_id] / np.sqrt(sum(a * a for a in row)) / np.sqrt(sum(a * a for a in plain_v))
    for measure, expected in (("cosine", cosines), ("dot", dots)):
        for negative in (False, True):
            listed = token_list(space, v, measure=measure, top=10, negative=negative)
            assert listed.value == pytest.approx(sorted(expected.values(), reverse=not negative)[:10], rel=1e-4)
            assert listed.value == pytest.approx([expected[token_id] for token_id in listed.token_id], rel=1e-4)
