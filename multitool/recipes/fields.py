"""How a field of what can be asked for is declared: once, with its type, range, help and default.

    top_k: Annotated[Whole, Field(ge=0, le=100, description="how many next tokens are looked at")] = 5

pydantic checks values; the sentence of a refusal follows from the type and its range. Command line, API, links and
environment variables offer the field as ``recipe_fields`` tells it.
"""

from contextlib import suppress
from dataclasses import dataclass, fields
from functools import cache, lru_cache, reduce
from inspect import Parameter, Signature
from operator import or_
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from multitool.errors import UserError, shown
from multitool.text import is_text

_STRICT = ConfigDict(strict=True, allow_inf_nan=False)  # neither truth values nor texts are numbers
_BOUNDS = ("ge", "gt", "le", "lt")
_PARTS = {str: "characters", list: "items", tuple: "items"}
_TRUTHS = {"true": True, "false": False}  # in a text
_IN_WORDS: dict[Any, str] = {
    bool: "true or false", int: "a whole number", float: "a number", str: "a text", tuple: "a list", list: "a list",
    dict: "an object",
}


@dataclass(frozen=True)
class Valid:
    """In an annotation: the clause of a refusal that tells what is valid, where it is not that of type and range."""

    clause: str


# A float without a fraction will do: JSON has only those.
Whole = Annotated[int, BeforeValidator(lambda x: int(x) if isinstance(x, float) and x.is_integer() else x)]
ListAsTuple = BeforeValidator(lambda x: tuple(x) if isinstance(x, list) else x)


@dataclass(frozen=True)
class Declared:
    """A base of frozen dataclasses whose fields are declared so: their values are checked and kept as declared.

    A ``__post_init__`` of their own calls this one first. Raises UserError for a value that cannot be.
    """

    __signature__ = Signature()  # what help() shows: the plain types

    def __init_subclass__(cls):
        types = get_type_hints(cls)
        cls.__signature__ = Signature([
            Parameter(name, Parameter.KEYWORD_ONLY, default=getattr(cls, name, Parameter.empty), annotation=types[name])
            for name in cls.__annotations__
        ])

    def __post_init__(self):
        for field in recipe_fields(type(self)):  # type: ignore[arg-type]  # it takes them for unhashable
            self._keep(field.name, check(getattr(self, field.name), field.name, field.kind))

    def _keep(self, name: str, value) -> None:
        object.__setattr__(self, name, value)


@dataclass(frozen=True)
class RecipeField:
    """A field as command line, API, links and environment variables offer it."""

    name: str
    type: Any  # without "or None"
    default: Any  # MISSING: it must be given
    help: str  # a sentence without its full stop
    kind: Any  # the annotation

    def read(self, text: str):
        """What a text says; the text itself where it says no such value, which ``check`` then refuses."""
        return _read(self.type, text)


@cache
def recipe_fields(declared: type[Declared]) -> tuple[RecipeField, ...]:
    """The fields of a declared class, in their order."""
    plain, annotated = get_type_hints(declared), get_type_hints(declared, include_extras=True)
    return tuple(
        RecipeField(field.name, _without_none(plain[field.name]), field.default,
                    FieldInfo.from_annotation(annotated[field.name]).description or "", annotated[field.name])
        for field in fields(declared)
    )


def check(value, name: str, kind, *, told=None):
    """``value`` as an annotation wants it.

    Args:
        name: what a message calls the value.
        told: what a message shows of it, if not the value.

    Raises:
        UserError: it is something else.

    >>> check(5.0, "top_k", Annotated[Whole, Field(ge=0, le=100)])
    5
    """
    if isinstance(value, str) and not is_text(value):  # from JSON, or a file's name
        raise UserError(f"{name} is {shown(value)}; it holds half a surrogate pair, no character. Leave that out.")
    try:
        return _adapter(kind).validate_python(value)
    except ValidationError as error:
        place = error.errors(include_url=False, include_context=False, include_input=False)[0]["loc"]
    if place and isinstance(place[0], int):  # an item of a list
        kind, value = get_args(FieldInfo.from_annotation(kind).annotation)[0], value[place[0]]
        name = FieldInfo.from_annotation(kind).title or name
    raise UserError(f"{name} is {shown(value if told is None else told)}; {_valid(kind)}.")


def written(value) -> str:
    """A value as the text that ``RecipeField.read`` reads."""
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(repr, value)) if isinstance(value, tuple) else str(value)


def whole(value, name: str, low: int, high: int) -> int:
    """``value`` as an int from ``low`` to ``high``. Raises UserError if it is something else."""
    return check(value, name, Annotated[Whole, Field(ge=low, le=high)])


@lru_cache(128)
def _adapter(kind) -> TypeAdapter:
    return TypeAdapter(kind, config=_STRICT)


def _read(kind, text: str):
    if get_origin(kind) is tuple:
        return tuple(_read(get_args(kind)[0], part) for part in text.replace(",", " ").split())
    if kind is bool:
        return _TRUTHS.get(text.lower(), text)
    if kind in (int, float):
        with suppress(ValueError):
            return float(text)
    return text


def _valid(kind) -> str:
    """What is valid, as a clause."""
    declared = FieldInfo.from_annotation(kind)
    plain, marks = declared.annotation, declared.metadata
    if get_origin(plain) in (Union, UnionType):  # the first of several is what one would give
        return _valid(Annotated[(get_args(plain)[0], *marks, Field(examples=declared.examples))])
    for mark in marks:
        if isinstance(mark, Valid):
            return mark.clause
    if get_origin(plain) is Literal:
        return f"valid are {', '.join(get_args(plain))}"
    example = f", e.g. {declared.examples[0]}" if declared.examples else ""
    return f"it must be {_IN_WORDS[get_origin(plain) or plain]}{_range(marks)}{_length(plain, marks)}{example}"


def _range(marks: list) -> str:
    told = {bound: _digits(getattr(mark, bound)) for mark in marks for bound in _BOUNDS if hasattr(mark, bound)}
    match told:
        case {"ge": low, "le": high}:
            return f" within ±{high}" if low == f"-{high}" else f" from {low} to {high}"
        case {"gt": low, "lt": high}:
            return f" between {low} and {high} (both excluded)"
        case {"gt": low, "le": high}:
            return f" above {low} and at most {high}"
        case {"ge": low}:
            return f" from {low} up"
        case _:
            return ""


def _length(plain, marks: list) -> str:
    most = [mark.max_length for mark in marks if getattr(mark, "max_length", None) is not None]
    return f" of at most {min(most):,} {_PARTS[get_origin(plain) or plain]}" if most else ""


def _digits(bound: float) -> str:
    return str(bound) if isinstance(bound, int) else f"{bound:g}".replace("e+0", "e")


def _without_none(kind):
    if get_origin(kind) not in (Union, UnionType):
        return kind
    return reduce(or_, (part for part in get_args(kind) if part is not NoneType))
