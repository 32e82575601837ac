"""Jacobian lenses: what a list by one needs, and a direction carried by one."""

from functools import partial

from torch import Tensor

from multitool.errors import UserError
from multitool.jobs.features import Resolved
from multitool.jobs.steps import Job, Prepare


def fitted(target: Resolved) -> Job[None]:
    """Have the Jacobian lens that a recipe needs, fetched or fitted.

    Raises:
        UserError: it cannot be had; or the recipe's features are of different hooks.
    """
    yield Prepare(partial(carried, target, None))


def carried(target: Resolved, directions: Tensor) -> Tensor:
    """Directions at the recipe's hook, (n, d_model), as they are behind the last layer."""
    raise NotImplementedError
