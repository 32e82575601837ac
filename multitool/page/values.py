"""What an endpoint may be given: every parameter is checked here, before the endpoint does anything.

Gradio passes on whatever a client sent. The fields of recipes are checked, by the same means, where the recipe is made.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated, Any, Protocol

from pydantic import Field

from multitool.recipes.fields import Valid, Whole, check

BY_ITS_RECIPE: Any = Any  # as a parameter's kind
MOST_JSON = 20_000_000  # characters

TREE = Annotated[
    Annotated[str, Field(max_length=MOST_JSON)] | dict,
    Valid(f"it must be a tree JSON as /definition_tree returns it, an object or its text of at most {MOST_JSON:,} "
          "characters"),
]


class _Parameter(Protocol):
    name: str
    type: Any
    default: object
    kind: Any


def checked(parameters: Sequence[_Parameter], given: dict) -> dict:
    """The values as the parameters want them. Raises UserError, which names the first that cannot be."""
    return given | {
        parameter.name: check(given[parameter.name], parameter.name, _kind(parameter)) for parameter in parameters
        if parameter.name in given
    }


def checking(parameters: Sequence[_Parameter], run: Callable[[dict], Any]) -> Callable[[dict], Any]:
    """What an endpoint does, behind the check of what it is given."""
    return partial(_checked_run, parameters, run)


def _checked_run(parameters: Sequence[_Parameter], run: Callable[[dict], Any], given: dict):
    return run(checked(parameters, given))


def _kind(parameter: _Parameter):
    kind = parameter.kind
    if kind is None:
        kind = Whole if parameter.type is int else parameter.type
    return kind | None if parameter.default is None and kind is not BY_ITS_RECIPE else kind
