"""What agents write: texts in place of numbers, truth values, lists and null, as their frameworks send them."""

import json
from collections.abc import Sequence
from typing import Literal, get_args, get_origin

from multitool.page.api import Parameter

_LONGEST = 100_000  # characters of a number, a truth value or a list; longer ones stay texts
_PYTHON = {"True": True, "False": False, "None": None}


def values_of(parameters: Sequence[Parameter], given: dict) -> dict:
    """The values given, with texts read where a parameter takes something else. A text that says no such value stays,
    for a check to refuse."""
    return given | {
        parameter.name: _read(given[parameter.name], parameter.type, optional=parameter.default is None)
        for parameter in parameters if isinstance(given.get(parameter.name), str)
    }


def _read(text: str, kind, *, optional: bool):
    if optional and text.strip().lower() in ("null", "none"):
        return None
    if takes_text(kind) or len(text) > _LONGEST:
        return text
    try:
        value = _PYTHON[text.strip()] if text.strip() in _PYTHON else json.loads(text, parse_constant=_no_number)
    except (ValueError, RecursionError):
        return text
    return value if _is(value, get_origin(kind) or kind) else text


def takes_text(kind) -> bool:
    """Whether a parameter of this type can mean the text itself."""
    return kind is str or get_origin(kind) is Literal or str in get_args(kind) and get_origin(kind) is not list


def _is(value, kind: type) -> bool:
    if kind in (int, float):  # that it is a whole one is checked later
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    return isinstance(value, kind)


def _no_number(constant: str):
    raise ValueError(constant)  # NaN and Infinity are no JSON
