"""Many features' directions against one: cosines without a second matrix of them all."""

from collections.abc import Iterator

import torch
from torch import Tensor

_NUMBERS_AT_ONCE = 1 << 22  # of a matrix, in float32


def cosines(rows: Tensor, target: Tensor, norms: Tensor | None = None) -> Tensor:
    """``cos(w_i, t)`` for every row: (n,) float32; NaN for a row of zeros.

    Args:
        rows: (n, d), of any precision.
        target: (d,).
        norms: (n,), by what the products are divided in the place of ``|w_i||t|``.
    """
    found = torch.empty(len(rows))
    for place, part in chunks(rows):
        product = part @ target
        found[place] = product / (part.norm(dim=1) * target.norm()) if norms is None else product / norms[place]
    return found


def carried_cosines(rows: Tensor, matrix: Tensor, norms: Tensor, target: Tensor) -> Tensor:
    """``cos(w_i M, t)`` for every row, as ``w_i·(M t)``: no row is carried. (n,) float32.

    Args:
        matrix: M, (d, d).
        norms: ``|w_i M|``, by ``carried_norms``.
    """
    return cosines(rows, matrix @ target, norms * target.norm())


def carried_norms(rows: Tensor, matrix: Tensor) -> Tensor:
    """``|w_i M|`` for every row: (n,) float32."""
    return torch.cat([(part @ matrix).norm(dim=1) for _, part in chunks(rows)])


def mixed_cosines(one: Tensor, other: Tensor, share: float, target: Tensor) -> Tensor:
    """``cos(a·u(w_i) + (1-a)·u(x_i), t)`` for the rows w of ``one`` and x of ``other``, a their share: (n,) float32."""
    found = torch.empty(len(one))
    for (place, part), (_, partner) in zip(chunks(one), chunks(other), strict=True):
        mixed = share * part / part.norm(dim=1, keepdim=True) + (1 - share) * partner / partner.norm(
            dim=1, keepdim=True)
        found[place] = mixed @ target / (mixed.norm(dim=1) * target.norm())
    return found


def chunks(rows: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """The rows some at a time in float32, each part with its place."""
    at_once = max(1, _NUMBERS_AT_ONCE // rows.shape[1])
    for first in range(0, len(rows), at_once):
        place = slice(first, first + at_once)
        yield place, rows[place].float()


def best(values: Tensor, n: int, among: Tensor | None = None) -> Tensor:
    """The places of the ``n`` largest values, the largest first; those that are not finite are none.

    Args:
        among: (len(values),) bool, which may be chosen.
    """
    chosen = values.isfinite() if among is None else values.isfinite() & among
    order = values.where(chosen, -torch.inf)
    return order.topk(min(n, int(chosen.sum()))).indices
