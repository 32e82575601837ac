"""Many features' directions against one: cosines from products and lengths, without a second matrix of them all.

The lengths do not depend on what the directions are held against, so they are worth keeping.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

_NUMBERS_AT_ONCE = 1 << 22  # of a matrix, in float32


def products(rows: Tensor, target: Tensor) -> Tensor:
    """``w_i·t`` for every row: (n,) float32.

    Args:
        rows: (n, d), of any precision.
        target: (d,).
    """
    return torch.cat([part @ target for part in _chunks(rows)])


def lengths(rows: Tensor, matrix: Tensor | None = None) -> Tensor:
    """``|w_i|`` for every row, or ``|w_i M|`` with a matrix M (d, d): (n,) float32."""
    return torch.cat([(part if matrix is None else part @ matrix).norm(dim=1) for part in _chunks(rows)])


def mixed_lengths(one: Tensor, other: Tensor, share: float) -> Tensor:
    """``|a·u(w_i) + (1-a)·u(x_i)|`` for the rows w of ``one`` and x of ``other``, a their share: (n,) float32."""
    unit = torch.nn.functional.normalize
    return torch.cat([
        (share * unit(part) + (1 - share) * unit(partner)).norm(dim=1)
        for part, partner in zip(_chunks(one), _chunks(other), strict=True)
    ])


def best(values: Tensor, n: int, among: Tensor | None = None) -> Tensor:
    """The places of the ``n`` largest values, the largest first; those that are not finite are none.

    Args:
        among: (len(values),) bool, which may be chosen.
    """
    chosen = values.isfinite() if among is None else values.isfinite() & among
    order = values.where(chosen, -torch.inf)
    return order.topk(min(n, int(chosen.sum()))).indices


def _chunks(rows: Tensor) -> Iterator[Tensor]:
    """The rows some at a time, in float32."""
    return (part.float() for part in rows.split(max(1, _NUMBERS_AT_ONCE // rows.shape[1])))
