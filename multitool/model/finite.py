"""Numbers that are none (NaN) or infinite end the work: a growth that went on with them would end as an empty tree that
calls itself complete. ``causes`` finds out why they are there.
"""

from torch import Tensor


class NotFiniteError(ArithmeticError):
    """The model's numbers are too large for its precision, or none."""


def finite(values: Tensor) -> Tensor:
    """The same values. Raises NotFiniteError if not all of them are finite."""
    if not values.isfinite().all():
        raise NotFiniteError
    return values
