"""What can go wrong for a user, said so that the user can put it right."""

import math
import re
from collections.abc import Iterable, Mapping
from typing import TypeGuard

_LONGEST = 200  # characters of a value in a message
# Where a message names a field: as its first word, which is no sentence's, or by a name that is no word.
_FIELD = re.compile(r"\A[a-z_]+\b|\b[a-z]+(?:_[a-z]+)+\b")


class UserError(Exception):
    """Something a user asked for cannot be done.

    The message is one sentence or two, shown as it is: what was wrong (with the value), what is
    valid, and what to do. The command line exits with status 2, the page shows it, the API returns it.
    One that refuses the value of a field begins with the field's name.

    >>> try:
    ...     mt.TreeRecipe(cutoff=2)
    ... except mt.UserError as error:
    ...     print(error)
    cutoff is 2; ...
    """

    def told(self, names: Mapping[str, str]) -> str:
        """The message with fields called otherwise: on the page, by the labels of their controls.

        >>> mt.UserError("cutoff is 2; it must be below 1.").told({"cutoff": "Cutoff"})
        '“Cutoff” is 2; it must be below 1.'
        """
        return _FIELD.sub(lambda name: f"“{names[name[0]]}”" if name[0] in names else name[0], str(self))


class GhostError(UserError):
    """The model's numbers are too large or none with a ghost in the prompt, and not without it."""


def size_shown(n_bytes: int) -> str:
    """A size as a message shows it."""
    return f"{n_bytes / 1e9:.1f} GB" if n_bytes >= 5e7 else f"{n_bytes / 1e6:.1f} MB"


def shown(value) -> str:
    """``repr`` of a value as a message shows it: shortened, whatever it is."""
    if isinstance(value, (str, bytes, list, tuple)):
        value = value[:_LONGEST + 1]  # of millions the first will do
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # thousands of digits, or of levels
        return f"a {type(value).__name__}"
    return text if len(text) <= _LONGEST else text[:_LONGEST] + "…"


def some(names: Iterable[str], most: int) -> str:
    """The first names of many as a message lists them, and how many more there are."""
    names = list(names)
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def is_number(value) -> TypeGuard[float]:
    """Whether ``value`` is a number, no truth value, and finite as a float."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number too large for a float
        return False
