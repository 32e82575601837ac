"""Directions made from what single tokens fire: by hand, and the map of a space that was made up with a known one."""

import pytest
import torch

from multitool.vectors.embedding import EmbeddingSpace
from multitool.vectors.scan_directions import embedding_map, mapped_half, usual_tokens, vocabulary_direction

# Three tokens around (1, 1): right of it, above it, and to the lower left.
THREE = EmbeddingSpace(torch.tensor([[3.0, 1.0], [1.0, 4.0], [-1.0, -2.0]]))


def direction(*activations: float, n: int = 20) -> tuple[list[float], list[int]]:
    found = vocabulary_direction(torch.tensor(activations).float(), THREE, n)
    return found.f.tolist(), found.token_ids.tolist()


def test_the_vocabulary_direction_adds_up_what_fires_each_from_the_centroid_by_how_strongly_it_fires():
    assert direction(5, 0, 0) == ([10, 0], [0])
    assert direction(1, 2, 0) == ([2, 6], [1, 0])  # 1 (2, 0) + 2 (0, 3), the strongest first
    assert direction(0, 0, 0.5) == ([-1, -1.5], [2])


def test_only_the_strongest_tokens_count():
    assert direction(1, 2, 3, n=2) == ([-6, -3], [2, 1])  # 3 (-2, -3) + 2 (0, 3)


def test_where_no_token_fires_there_is_no_direction():
    assert direction(0, 0, 0) == ([0, 0], [])


def test_what_lies_below_zero_does_not_fire():
    # A TopK feature that competes by size can be negative.
    assert direction(1, -7, 0) == ([2, 0], [0])


def test_by_default_twenty_tokens_count():
    space = EmbeddingSpace(torch.eye(50))
    assert vocabulary_direction(torch.arange(50.0), space).token_ids.tolist() == list(range(49, 29, -1))


def test_embeddings_in_half_precision_are_added_up_in_single_precision():
    half = vocabulary_direction(torch.tensor([1.0, 2.0, 0.0]), EmbeddingSpace(THREE.E.half())).f
    assert half.dtype == torch.float32
    assert half.tolist() == [2, 6]


def test_usual_tokens_are_at_most_twice_as_long_as_the_median():
    assert usual_tokens(torch.tensor([0.0, 9.0, 10.0, 20.0, 20.5])).tolist() == [True, True, True, True, False]


def test_the_mapped_half_is_half_of_the_tokens_and_always_the_same():
    assert mapped_half(1000).sum() == 500
    assert mapped_half(7).sum() == 3
    assert torch.equal(mapped_half(1000), mapped_half(1000))


def test_the_mapped_half_is_mixed_among_the_tokens():
    # Token ids go from frequent to rare: the first or every second one would not do.
    for part in mapped_half(1000).split(100):
        assert 30 < part.sum() < 70
    assert 150 < mapped_half(1000)[::2].sum() < 350


# The map. Residuals are the embeddings, from their centroid, under a known linear map; so is the answer.

V, D = 400, 8


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def made_up() -> tuple[EmbeddingSpace, torch.Tensor, torch.Tensor]:
    """Embeddings, residuals and the map A that leads from residuals to embeddings.

    All residuals are as long as one another, as the map takes them at unit length.
    """
    residuals = torch.nn.functional.normalize(random(V, D), dim=1) * 3
    A = random(D, D, seed=1) + 2 * torch.eye(D)
    return EmbeddingSpace(residuals @ A + 5), residuals, A


def parts(residuals: torch.Tensor, size: int = V):
    return [(slice(i, min(i + size, V)), residuals[i : i + size]) for i in range(0, V, size)]


def cosines(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    return torch.cosine_similarity(one, other, dim=1)


def test_the_map_finds_the_linear_map_that_there_is():
    space, residuals, A = made_up()
    M = embedding_map(parts(residuals), space)
    assert (M.shape, M.dtype) == ((D, D), torch.float32)
    x = random(50, D, seed=2)
    assert cosines(x @ M, x @ A).min() > 0.99
    # The residuals' length of 3 is put back by the map, but for what the ridge takes.
    assert ((x @ M).norm(dim=1) / (x @ A).norm(dim=1)).mean() == pytest.approx(3 / 1.1, rel=0.02)


def test_the_map_does_not_depend_on_how_long_a_residual_is():
    space, residuals, _ = made_up()
    M = embedding_map(parts(residuals), space)
    longer = residuals * random(V, 1, seed=3).exp()
    assert torch.allclose(embedding_map(parts(longer), space), M, atol=1e-4)


def test_an_offset_of_the_residuals_does_not_matter_where_it_keeps_their_length():
    # A ninth entry that is the same for all tokens tells nothing about them.
    space, residuals, A = made_up()
    with_bias = torch.cat([residuals, torch.full((V, 1), 2.0)], dim=1)
    space = EmbeddingSpace(torch.cat([space.E, torch.zeros(V, 1)], dim=1))
    M = embedding_map(parts(with_bias), space)
    x = random(50, D, seed=2)
    assert cosines(x @ M[:-1, :-1], x @ A).min() > 0.99
    assert M[-1].norm() < 1e-2 * M[:-1].norm()


def test_the_map_is_made_from_the_mapped_half_alone():
    space, residuals, _ = made_up()
    M = embedding_map(parts(residuals), space)
    other = residuals.where(mapped_half(V)[:, None], random(V, D, seed=4) * 1000)
    assert torch.equal(embedding_map(parts(other), space), M)
    seen = residuals.where(~mapped_half(V)[:, None], random(V, D, seed=4))
    assert not torch.allclose(embedding_map(parts(seen), space), M, atol=0.1)


def test_the_map_is_the_same_from_residuals_in_parts():
    space, residuals, _ = made_up()
    assert torch.allclose(embedding_map(parts(residuals, 33), space), embedding_map(parts(residuals), space), atol=1e-4)


def test_a_map_from_residuals_that_have_nothing_to_do_with_the_embeddings_says_little():
    space, residuals, A = made_up()
    noise = embedding_map(parts(random(V, D, seed=5)), space)
    assert noise.norm() < 0.5 * embedding_map(parts(residuals), space).norm()
