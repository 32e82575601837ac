"""Token lists: the real tokens nearest to a vector, discounting those near to everything."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from multitool.embedding import EmbeddingSpace


@dataclass(frozen=True)
class TokenList:
    """Tokens by falling fit (rising score); all arrays have one entry per listed token."""

    token_id: np.ndarray  # int64
    score: np.ndarray  # float64, smaller fits better
    distance_to_vector: np.ndarray  # 1 - cos(v, E_t)
    distance_to_centroid: np.ndarray  # 1 - cos(c, E_t)


def token_list(
    space: EmbeddingSpace, v: Tensor, *, exponent: float = 1.4, top: int = 100, activations: Tensor | None = None
) -> TokenList:
    """The ``top`` tokens with the smallest ``(1 - cos(v, E_t))^exponent / (1 - cos(c, E_t))``.

    Rows of zeros have no direction and are left out.

    Args:
        v: (d_model,), not zero.
        exponent: trades closeness to the vector (large) against distance from the centroid (small).
        activations: (V,); then the tokens with the largest of these above 0 are listed instead, with their scores.
    """
    with torch.inference_mode():
        near, far = space.cosine_distance(v).double(), space.distance_to_centroid.double()
        score = _score(near, far, exponent)
        fit = -score if activations is None else activations.where(activations > 0, -torch.inf)
        best = fit.topk(min(top, int(fit.isfinite().sum())), sorted=True).indices
        return TokenList(*(column.cpu().numpy() for column in (best, score[best], near[best], far[best])))


def token_scores(space: EmbeddingSpace, vs: Tensor, exponent: float = 1.4) -> np.ndarray:
    """The score of every token for each of ``vs`` (n, d_model): (n, V) float64, infinite for rows of zeros."""
    with torch.inference_mode():
        return _score(space.cosine_distance(vs).double(), space.distance_to_centroid.double(), exponent).numpy()


def _score(near: Tensor, far: Tensor, exponent: float) -> Tensor:
    score = near.pow(exponent) / far
    return torch.where(score.isnan(), torch.inf, score)
