"""The trees, lists and found features that pages show: kept in memory within a bound, the latest ones of all visitors
together.

What Gradio keeps of a page is something ``Held``, which costs nothing; what no page shows any more is gone with it.
"""

import itertools
import weakref
from threading import Lock
from typing import Any

from multitool.errors import UserError
from multitool.jobs.find import FoundFeatures
from multitool.jobs.token_table import TokenTable
from multitool.trees.document import DefinitionTree

# In bytes: a node with its columns, a text with an emoji in it and all that a text is besides, a cell of a table.
_NODE, _CHARACTER, _CELL, _REST = 150, 4, 80, 10_000

Thing = DefinitionTree | TokenTable | FoundFeatures

_GONE = (
    "This tree or list is not kept any more: so many others have been opened or made since that it had to make room. "
    "Make it again, find the features again, or open it from a file."
)
_USES = itertools.count()


class Held:
    """A tree, a list or found features on a shelf, or what has had to make room."""

    def __init__(self, thing: Thing):
        self._thing: Thing | None = thing
        self.n_bytes = size(thing)
        self.used = next(_USES)

    def __deepcopy__(self, _memo) -> "Held":
        return self  # what it holds is never changed, and Gradio makes a copy for each visitor

    def take(self) -> Thing:
        """The thing. Raises UserError if it is gone."""
        thing, self.used = self._thing, next(_USES)
        if thing is None:
            raise UserError(_GONE)
        return thing

    def drop(self) -> None:
        self._thing, self.n_bytes = None, 0


class Shelf:
    """Holds things within a bound; the one that was looked at longest ago makes room.

    Args:
        n_bytes: of memory, in all.
    """

    def __init__(self, n_bytes: float):
        self._n_bytes = n_bytes
        self._lock = Lock()
        self._held: list[weakref.ref[Held]] = []

    def put(self, value: Any) -> Any:
        """A tree, a list or found features as something held; any other value as it is. Raises UserError if it is too
        large by itself."""
        if not isinstance(value, (DefinitionTree, TokenTable, FoundFeatures)):
            return value
        held = Held(value)
        if held.n_bytes > self._n_bytes:
            raise UserError(
                f"This needs {held.n_bytes / 1e6:,.0f} MB of memory, more than all that pages show may take here "
                f"({self._n_bytes / 1e6:,.0f} MB)."
            )
        with self._lock:
            there = [(one, known) for one in self._held if (known := one()) is not None and known.n_bytes]
            left = self._n_bytes - held.n_bytes - sum(known.n_bytes for _, known in there)
            for _, known in sorted(there, key=lambda one: one[1].used):
                if left >= 0:
                    break
                left += known.n_bytes
                known.drop()
            self._held = [one for one, known in there if known.n_bytes] + [weakref.ref(held)]
        return held

    @property
    def n_bytes(self) -> int:
        """What is held takes so many."""
        with self._lock:
            return sum(known.n_bytes for one in self._held if (known := one()) is not None)


def taken(value: Any) -> Any:
    """What is held, or any other value as it is. Raises UserError if it is gone."""
    return value.take() if isinstance(value, Held) else value


def size(thing: Thing) -> int:
    """About how many bytes of memory it takes."""
    told = _REST + len(str(thing.settings))
    if isinstance(thing, FoundFeatures):
        told += _CHARACTER * sum(len(feature.description) for feature in thing.features)
        cells = len(thing.features) * (3 + len(thing.columns)) + sum(1 + 2 * len(one.features) for one in thing.tokens)
        return told + _CELL * cells
    told += len(str(thing.evidence))
    if isinstance(thing, TokenTable):
        return told + _CELL * len(thing.rows) * len(thing.columns)
    return told + _NODE * len(thing.tree) + _CHARACTER * sum(map(len, thing.tree.token))
