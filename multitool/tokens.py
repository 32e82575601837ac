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


def token_list(space: EmbeddingSpace, v: Tensor, *, exponent: float = 1.4, top: int = 100) -> TokenList:
    """The ``top`` tokens with the smallest ``(1 - cos(v, E_t))^exponent / (1 - cos(c, E_t))``.

    Rows of zeros have no direction and are left out.

    Args:
        v: (d_model,), not zero.
        exponent: trades closeness to the vector (large) against distance from the centroid (small).
    """
    with torch.inference_mode():
        near = space.cosine_distance(v).double()
        far = space.distance_to_centroid.double()
        score = near.pow(exponent) / far
        score = torch.where(score.isnan(), torch.inf, score)
        top = min(top, int(score.isfinite().sum()))
        best = score.topk(top, largest=False, sorted=True).indices
        return TokenList(*(column.cpu().numpy() for column in (best, score[best], near[best], far[best])))
