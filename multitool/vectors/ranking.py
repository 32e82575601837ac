"""Token lists: the real tokens ordered by a measure, above all those nearest to a vector, discounting those near to
everything.

What the measures are: ``recipes.recipe.ListRecipe``.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from multitool.vectors.embedding import EmbeddingSpace


@dataclass(frozen=True)
class TokenList:
    """Tokens by falling fit; all arrays have one entry per listed token."""

    token_id: np.ndarray  # int64
    value: np.ndarray  # float64, of the measure that they are ordered by
    score: np.ndarray  # float64, smaller fits better
    distance_to_vector: np.ndarray  # 1 - cos(v, E_t)
    distance_to_centroid: np.ndarray  # 1 - cos(c, E_t)


def token_list(
    space: EmbeddingSpace,
    v: Tensor,
    *,
    measure: str = "score",
    exponent: float = 1.4,
    top: int = 100,
    values: Tensor | None = None,
    negative: bool = False,
    among: Tensor | None = None,
) -> TokenList:
    """The ``top`` tokens that fit best: with the smallest score, or the largest value by another measure.

    Rows of zeros have no direction and are left out. By activation, so are tokens without any.

    Args:
        v: (d_model,), not zero.
        measure: a key of ``recipe.MEASURES``.
        exponent: of the score ``(1 - cos(v, E_t))^exponent / (1 - cos(c, E_t))``: trades closeness to the vector
            (large) against distance from the centroid (small).
        values: (V,), of a measure that ``v`` alone does not give: a lens, activation.
        negative: those that fit worst instead, the worst first.
        among: (V,) bool, tokens that may be listed.
    """
    listed, = token_lists(
        space, v[None], measure=measure, exponent=exponent, top=top, values=None if values is None else values[None],
        negative=negative, among=among,
    )
    return listed


def token_lists(
    space: EmbeddingSpace,
    vs: Tensor,
    *,
    measure: str = "score",
    exponent: float = 1.4,
    top: int = 100,
    values: Tensor | None = None,
    negative: bool = False,
    among: Tensor | None = None,
) -> list[TokenList]:
    """The lists of several vectors, (n, d_model), each as ``token_list``; ``values`` are (n, V)."""
    with torch.inference_mode():
        near, score, values = _measured(space, vs, measure, exponent, values)
        order = _order(space, values, measure, negative, among)
        to_centroid = space.distance_to_centroid.double()
        lists = []
        for row, ordered in enumerate(order):
            best = ordered.topk(min(top, int(ordered.isfinite().sum())), largest=False, sorted=True).indices
            columns = (values[row].double(), score[row], near[row], to_centroid)
            lists.append(TokenList(best.cpu().numpy(), *(column[best].cpu().numpy() for column in columns)))
        return lists


def token_scores(
    space: EmbeddingSpace,
    vs: Tensor,
    exponent: float = 1.4,
    *,
    measure: str = "score",
    values: Tensor | None = None,
    negative: bool = False,
    among: Tensor | None = None,
) -> np.ndarray:
    """By what ``token_list`` orders all tokens for each of ``vs`` (n, d_model), smaller fits better: (n, V) float64.

    That is the score, or minus the value by another measure (``negative``: the opposite); infinite for tokens that are
    not listed. Arguments as in ``token_list``, ``values`` being (n, V).
    """
    with torch.inference_mode():
        _, _, values = _measured(space, vs, measure, exponent, values)
        return _order(space, values, measure, negative, among).numpy()


def _measured(
    space: EmbeddingSpace, v: Tensor, measure: str, exponent: float, values: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Every token's distance to the vector, its score, and its value by the measure."""
    products = space.products(v)
    near = space.cosine_distance(v, products).double()
    score = near.pow(exponent) / space.distance_to_centroid.double()
    score = torch.where(score.isnan(), torch.inf, score)
    found = {"score": score, "cosine": 1 - near, "dot": products}
    return near, score, found[measure] if values is None else values


def _order(
    space: EmbeddingSpace, values: Tensor, measure: str, negative: bool, among: Tensor | None
) -> Tensor:
    """The values turned so that the smallest come first, infinite where a token is not listed."""
    listed = values.isfinite() & (space.norms > 0)
    if measure == "activation":
        listed &= values > 0
    if among is not None:
        listed &= among
    order = values.double() if (measure == "score") != negative else -values.double()
    return order.where(listed, torch.inf)
