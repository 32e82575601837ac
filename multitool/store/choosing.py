"""Choosing among thousands of SAEs: the order in which they are offered, and menus that narrow each other."""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import inf, log
from typing import Any

from multitool.store.entries import SERVED_KINDS, SaeEntry

MENUS = ("release", "place", "width", "l0")  # each offers what there is of what was chosen in those before it


@dataclass(frozen=True)
class Menu:
    """What one of ``MENUS`` offers."""

    choices: tuple[tuple[str, str], ...]  # how each is shown, and its value
    value: str  # the chosen one


_AS_NUMBER: dict[str, Callable[[SaeEntry], Any]] = {
    "place": lambda entry: (-1 if entry.layer is None else entry.layer, SERVED_KINDS.index(entry.kind)),
    "width": lambda entry: entry.d_sae or inf,
    "l0": lambda entry: inf if entry.l0 is None else entry.l0,
}


def in_order(entries: Iterable[SaeEntry]) -> list[SaeEntry]:
    """SAEs as they are offered: those on this machine, canonical ones, those that Neuronpedia shows, the others; of
    each kind by model, release, layer, width and L0, as numbers."""
    return sorted(entries, key=_order)


def _order(entry: SaeEntry) -> tuple:
    return (
        entry.folder is None, not entry.canonical, entry.neuronpedia_id is None, _natural(entry.model),
        _natural(entry.release), *(number(entry) for number in _AS_NUMBER.values()), _natural(entry.sae_id),
    )


@lru_cache(maxsize=8192)
def _natural(name: str) -> tuple:
    """A name by which 9 comes before 10."""
    return tuple((part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in re.split(r"(\d+)", name))


def menus(of_model: Sequence[SaeEntry], chosen: SaeEntry) -> dict[str, Menu]:
    """What each of ``MENUS`` offers beside the SAE that is chosen; by their names.

    Args:
        of_model: all SAEs of its model, in order.
    """
    found: dict[str, Menu] = {}
    left = of_model
    for name in MENUS:
        offered = left if name == "release" else sorted(left, key=_AS_NUMBER[name])
        values = dict.fromkeys(_value(entry, name) for entry in offered)
        found[name] = Menu(tuple((_shown(left, name, value), value) for value in values), _value(chosen, name))
        left = [entry for entry in left if _value(entry, name) == found[name].value]
    return found


def narrowed(of_model: Sequence[SaeEntry], chosen: SaeEntry, name: str, value: str) -> SaeEntry:
    """The SAE that is chosen by another value in a menu: else as much like the one before as there is.

    Args:
        of_model: all SAEs of its model, in order.
        name: of the menu.
        value: one that it offers.
    """
    left = of_model
    for before in MENUS[:MENUS.index(name)]:
        left = [entry for entry in left if _value(entry, before) == _value(chosen, before)]
    return min((entry for entry in left if _value(entry, name) == value), key=lambda entry: _distance(entry, chosen))


def nearest_first(of_model: Sequence[SaeEntry], chosen: SaeEntry) -> list[SaeEntry]:
    """The SAEs of the chosen one's release: first those that differ from it in nothing that a menu tells."""
    release = [entry for entry in of_model if entry.release == chosen.release]
    return sorted(release, key=lambda entry: any(_value(entry, name) != _value(chosen, name) for name in MENUS))


def _value(entry: SaeEntry, menu: str) -> str:
    match menu:
        case "release":
            return entry.release
        case "place":
            return entry.hook
        case "width":
            return str(entry.d_sae or "")
    return "" if entry.l0 is None else f"{entry.l0:g}"


def _shown(left: Sequence[SaeEntry], menu: str, value: str) -> str:
    """How a value is shown in a menu that offers the values of ``left``."""
    if menu == "place":
        of_value = next(entry for entry in left if entry.hook == value)
        alike = {entry.kind for entry in left if entry.layer == of_value.layer}
        return layer_shown(of_value) + (f" ({of_value.kind})" if len(alike) > 1 else "")
    if not value:
        return "not known"
    return f"{int(value):,}" if menu == "width" else value


def layer_shown(entry: SaeEntry) -> str:
    """Where in its model an SAE reads, in a word."""
    return "embedding" if entry.layer is None else str(entry.layer)


def _distance(entry: SaeEntry, other: SaeEntry) -> tuple:
    """How little one SAE is like another, the weightiest first."""
    return (
        _apart(entry.layer, other.layer), entry.kind != other.kind, _apart(entry.d_sae, other.d_sae),
        _apart(entry.l0, other.l0), _variant(entry) != _variant(other),
    )


def _apart(one: float | None, other: float | None) -> float:
    if one is None or other is None:
        return 0.0 if one is other else inf
    return abs(log((one + 1) / (other + 1)))


def _variant(entry: SaeEntry) -> str:
    """What an SAE's id tells beside its layer: which of a release's ways of training it came of."""
    return re.sub(rf"(?<!\d){entry.layer}(?!\d)", "", entry.sae_id, count=1)
