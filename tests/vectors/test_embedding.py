"""What follows from an embedding matrix, on small matrices."""

import math
import threading

import numpy as np
import pytest
import torch

from multitool.vectors.embedding import EmbeddingSpace


def space(*rows) -> EmbeddingSpace:
    return EmbeddingSpace(torch.tensor(np.array(rows), dtype=torch.float32))


def random_rows(n: int = 50, d: int = 6) -> torch.Tensor:
    # Each entry has a spread of its own, so that no two components explain equally much.
    spread = torch.arange(1.0, d + 1)
    return torch.randn(n, d, generator=torch.Generator().manual_seed(0)) * spread + 5


def test_the_centroid_is_the_mean_of_all_rows():
    assert space([4, 1], [-2, 1], [1, 2], [1, 0]).centroid.tolist() == [1, 1]


def test_the_mean_distance_is_that_from_the_centroid():
    assert space([4, 1], [-2, 1], [1, 2], [1, 0]).mean_distance == pytest.approx((3 + 3 + 1 + 1) / 4)


def test_norms_are_from_the_origin():
    assert space([3, 4], [0, 2]).norms.tolist() == [5, 2]


def test_cosine_distance_is_zero_along_one_across_and_two_against_the_vector():
    distances = space([5, 0], [0, 3], [-2, 0], [1, 1]).cosine_distance(torch.tensor([7.0, 0.0]))
    assert distances.tolist() == pytest.approx([0, 1, 2, 1 - math.sqrt(0.5)], abs=1e-6)


def test_cosine_distance_is_never_below_zero():
    rows = random_rows()
    distances = [EmbeddingSpace(rows).cosine_distance(row) for row in rows]
    assert torch.stack(distances).min() >= 0


def test_a_row_of_zeros_has_no_cosine():
    assert space([0, 0], [1, 0]).cosine_distance(torch.tensor([1.0, 0.0])).isnan().tolist() == [True, False]


def test_components_come_by_falling_variance_with_the_largest_entry_positive():
    # Along (4, -3)/5 the rows spread by 10, across it by 1.
    along, across = np.array([4, -3]) / 5, np.array([3, 4]) / 5
    components = space(*(7 + 10 * along, 7 - 10 * along, 7 + across, 7 - across)).components
    assert components[0].tolist() == pytest.approx([0.8, -0.6], abs=1e-6)
    assert components[1].tolist() == pytest.approx([0.6, 0.8], abs=1e-6)


def test_each_component_tells_its_share_of_the_variance():
    # By 6, 2 and 0 from the middle: squared 36 and 4.
    of_it = space([7, 1, 0], [-5, 1, 0], [1, 3, 0], [1, -1, 0])
    assert of_it.explained_variance.tolist() == pytest.approx([0.9, 0.1, 0.0], abs=1e-6)


def test_shares_of_variance_are_those_of_the_singular_values():
    rows = random_rows()
    values = torch.linalg.svdvals(rows.double() - rows.double().mean(0)) ** 2
    shares = EmbeddingSpace(rows).explained_variance
    assert shares.tolist() == pytest.approx((values / values.sum()).tolist(), abs=1e-5)
    assert shares.sum() == pytest.approx(1, abs=1e-5)


def test_projections_are_measured_from_the_centroid():
    of_it = EmbeddingSpace(torch.tensor([[7.0, 1], [-5, 1], [1, 3], [1, -1]]), numbers_at_once=2 * 2)
    assert of_it.projections(torch.tensor([[1.0, 0.0], [0.0, -1.0]])).tolist() == [[6, -6, 0, 0], [0, 0, -2, 2]]


def test_components_are_those_of_the_singular_value_decomposition():
    rows = random_rows()
    expected = torch.linalg.svd(rows.double() - rows.double().mean(0), full_matrices=False).Vh
    components = EmbeddingSpace(rows).components
    assert components.shape == (6, 6)
    cosines = (components.double() * expected).sum(dim=1).abs()
    assert cosines.tolist() == pytest.approx([1] * 6, abs=1e-5)
    assert (components.gather(1, components.abs().argmax(1, keepdim=True)) > 0).all()


def test_components_of_fewer_tokens_than_dimensions_are_units_at_right_angles():
    components = EmbeddingSpace(random_rows(n=3)).components
    assert torch.allclose(components @ components.T, torch.eye(6), atol=1e-5)


def test_reading_a_large_matrix_in_pieces_changes_nothing():
    whole = EmbeddingSpace(random_rows())
    pieces = EmbeddingSpace(random_rows(), numbers_at_once=7 * 6)
    assert torch.allclose(pieces.components, whole.components, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_rows_give_what_they_give_in_single_precision(dtype):
    half = EmbeddingSpace(random_rows().to(dtype), numbers_at_once=7 * 6)
    single = EmbeddingSpace(random_rows().to(dtype).float(), numbers_at_once=7 * 6)
    v = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    for name in ("centroid", "norms", "distance_to_centroid", "components"):
        assert getattr(half, name).dtype == torch.float32
        assert torch.allclose(getattr(half, name), getattr(single, name), atol=1e-5), name
    assert torch.allclose(half.cosine_distance(v), single.cosine_distance(v), atol=1e-6)
    assert half.mean_distance == pytest.approx(single.mean_distance)
    assert half.E.dtype == dtype


def test_rounding_the_rows_to_bfloat16_moves_the_figures_little():
    exact, rounded = EmbeddingSpace(random_rows()), EmbeddingSpace(random_rows().bfloat16())
    assert rounded.mean_distance == pytest.approx(exact.mean_distance, rel=1e-2)
    assert torch.allclose(rounded.centroid, exact.centroid, atol=0.05)


def test_the_matrix_is_neither_copied_nor_changed():
    rows = random_rows()
    before = rows.clone()
    of_it = EmbeddingSpace(rows)
    _ = of_it.components, of_it.mean_distance, of_it.distance_to_centroid
    assert of_it.E.data_ptr() == rows.data_ptr()
    assert torch.equal(rows, before)


def test_figures_are_computed_once_even_when_many_ask():
    of_it = EmbeddingSpace(random_rows())
    found = []
    threads = [threading.Thread(target=lambda: found.append(of_it.components)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert all(components is found[0] for components in found)


def test_its_size_is_tokens_by_dimensions():
    of_it = EmbeddingSpace(random_rows(n=50, d=6))
    assert (of_it.n_tokens, of_it.d_model) == (50, 6)


def test_anything_but_a_matrix_is_refused():
    with pytest.raises(ValueError, match=r"\(V, d_model\)"):
        EmbeddingSpace(torch.zeros(3))


def test_cosine_distances_of_several_vectors_come_in_rows():
    of_it = space([5, 0], [0, 3], [-2, 0])
    distances = of_it.cosine_distance(torch.tensor([[7.0, 0.0], [0.0, 0.1]]))
    assert distances.shape == (2, 3)
    assert torch.allclose(distances, torch.tensor([[0.0, 1.0, 2.0], [1.0, 0.0, 1.0]]))
    assert of_it.cosine_distance(torch.tensor([[7.0, 0.0]])).shape == (1, 3)
    assert of_it.cosine_distance(torch.empty(0, 2)).shape == (0, 3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_each_of_several_vectors_has_the_distances_it_has_alone(dtype):
    of_it, vs = EmbeddingSpace(random_rows().to(dtype), numbers_at_once=7 * 6), random_rows(n=4)
    alone = torch.stack([of_it.cosine_distance(v) for v in vs])
    assert torch.allclose(of_it.cosine_distance(vs), alone, atol=1e-6)
