"""Directions among the token embeddings, made from what the model's residual stream holds for single tokens.

An SAE's own directions live in the residual stream. Where the model's layers write in other directions than its
embeddings lie in, they point nowhere among the embeddings; these here do, whatever the layer. They need a vocabulary
scan: every token's residual at the SAE's hook.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from multitool.vectors.embedding import EmbeddingSpace

TOKENS_USED = 20  # for the vocabulary direction
OUTLIER = 2.0  # times the median norm
RIDGE = 0.1  # of the map, in units of the residuals' standardised variance


def usual_tokens(norms: Tensor) -> Tensor:
    """Tokens whose residual is not out of the ordinary: at most ``OUTLIER`` times as long as the median, (V,) bool.

    On the others, a few in a thousand, the model parks attention, and features fire there that mean something else.
    """
    return norms <= OUTLIER * norms.median()


@dataclass(frozen=True)
class VocabularyDirection:
    """What the tokens that fire a feature have in common among the embeddings."""

    f: Tensor  # (d_model,), float32, not normalised; zeros if no token fires the feature
    token_ids: Tensor  # (n,), the tokens that it was made from, strongest first


def vocabulary_direction(activations: Tensor, space: EmbeddingSpace, n: int = TOKENS_USED) -> VocabularyDirection:
    """``sum a_t (E_t - c)`` over the ``n`` tokens t with the largest activation a_t above 0.

    Args:
        activations: (V,), of one feature on each token alone; 0 for tokens that are not to be used.
    """
    values, token_ids = activations.topk(min(n, len(activations)))
    token_ids, values = token_ids[values > 0], values[values > 0]
    centred = space.E[token_ids].float() - space.centroid
    return VocabularyDirection(values @ centred, token_ids)


def mapped_half(n_tokens: int) -> Tensor:
    """The tokens that the map is made from: (V,) bool, half of them, as good as random and always the same.

    The other half is left to judge the map by.
    """
    return torch.randperm(n_tokens, generator=torch.Generator().manual_seed(0)) < n_tokens // 2


def embedding_map(rows: Iterable[tuple[slice, Tensor]], space: EmbeddingSpace) -> Tensor:
    """A linear map M from the residual stream to the embeddings, (d_model, d_model): ``x @ M`` for a direction x.

    Ridge regression of ``E_t - c`` on the unit residuals ``r_t / |r_t|``, centred and each entry standardised, over
    the tokens of ``mapped_half``. (A unit residual: a few tokens' residuals are a hundred times as long as the rest.)

    Args:
        rows: residuals of all tokens, (n, d_model) float32 at a time, with the slice of the token ids they are of.
    """
    d, used = space.d_model, mapped_half(space.n_tokens)
    gram, cross = torch.zeros(d, d, dtype=torch.float64), torch.zeros(d, d, dtype=torch.float64)
    total, targets, n = torch.zeros(d, dtype=torch.float64), torch.zeros(d, dtype=torch.float64), 0
    for where, residuals in rows:
        keep = used[where]
        x = torch.nn.functional.normalize(residuals[keep], dim=1)
        y = space.E[where][keep].float() - space.centroid
        gram += (x.T @ x).double()
        cross += (x.T @ y).double()
        total += x.sum(0).double()
        targets += y.sum(0).double()
        n += len(x)
    mean = total / n
    covariance = gram / n - torch.outer(mean, mean)
    spread = covariance.diagonal().clamp(min=1e-12).sqrt()
    cross = cross / n - torch.outer(mean, targets / n)
    standard = covariance / torch.outer(spread, spread)
    solved = torch.linalg.solve(standard + RIDGE * torch.eye(d, dtype=torch.float64), cross / spread[:, None])
    return (solved / spread[:, None]).float()
