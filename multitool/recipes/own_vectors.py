"""A vector of one's own in the place of a feature: its numbers, where it lies, what it is called."""

import hashlib
from collections.abc import Sequence
from typing import Annotated

import numpy as np
from pydantic import Field

from multitool.errors import UserError, shown
from multitool.recipes.fields import ListAsTuple, Valid

LONGEST_VECTOR = 20_000  # numbers; more than any model's d_model
LARGEST = 1e15  # number in one
LONGEST_VECTOR_NAME = 100  # characters
_PLACE = "model:"  # begins the name of a place in a model, which stands where an SAE's does

VectorNumbers = Annotated[
    tuple[Annotated[float, Field(ge=-LARGEST, le=LARGEST, title="a number of vector")], ...], ListAsTuple,
    Valid(f"it must be a list of at most {LONGEST_VECTOR:,} numbers, as many as the model's embeddings have"),
    Field(max_length=LONGEST_VECTOR, description=(
        "a vector of your own in the place of the feature, as many numbers as the model's embeddings have: a probe, a "
        "steering direction; it lies where the SAE reads, or where sae says as model:NAME@HOOK"
    )),
]


def plain_numbers(vector) -> list[float]:
    """One row of numbers from a list, a numpy array or a tensor. Raises UserError if it is none."""
    rows = vector.detach().cpu().double() if hasattr(vector, "detach") else vector
    rows = rows.tolist() if hasattr(rows, "tolist") else rows
    if not isinstance(rows, Sequence) or isinstance(rows, (str, bytes)) or not rows:
        raise UserError(f"vector is {shown(vector)}; it must be one row of numbers: a list, an array or a tensor.")
    if isinstance(rows[0], (list, tuple)):
        raise UserError(
            f"vector is {len(rows)} rows; it must be one row of numbers, (d_model,). Take one of them, e.g. vector[0]."
        )
    return [float(number) if type(number) is int else number for number in rows]


def rounded_numbers(numbers: Sequence[float]) -> tuple[float, ...]:
    """The numbers as float32 has them, each by the shortest decimal that tells it there.

    Raises:
        UserError: all are zero.
    """
    rounded = tuple(float(str(number)) for number in np.asarray(numbers, np.float32))
    if not any(rounded):
        raise UserError("vector is all zeros, so it points nowhere. Give another one.")
    return rounded


def vector_hash(numbers: Sequence[float]) -> str:
    """By which two vectors are told apart: eight hexadecimal digits of the SHA-256 of their float32 bytes."""
    return hashlib.sha256(np.asarray(numbers, "<f4").tobytes()).hexdigest()[:8]


def vector_told(numbers: Sequence[float], name: str = "") -> str:
    """What a vector is called: its name and its hash.

    >>> vector_told((1.0, 2.0), "a probe")
    'a probe (vector b9c80b5a)'
    """
    return f"{name} (vector {vector_hash(numbers)})" if name else f"vector {vector_hash(numbers)}"


def place_named(model: str, hook: str | None = None) -> str:
    """A place in a model as recipes name it in their field ``sae``.

    >>> place_named("google/gemma-2b", "blocks.6.hook_resid_post")
    'model:google/gemma-2b@blocks.6.hook_resid_post'
    """
    return f"{_PLACE}{model}@{hook or 'hook_embed'}"


def is_place(name: str) -> bool:
    """Whether a name in the place of an SAE's is one of ``place_named``."""
    return name.startswith(_PLACE)


def place_parts(name: str) -> tuple[str, str]:
    """Model and hook. Raises UserError if it does not tell both."""
    model, _, hook = name.removeprefix(_PLACE).rpartition("@")
    if not model or not hook:
        raise UserError(
            f"sae is {shown(name)}; a place in a model is named model:NAME@HOOK, e.g. model:gpt2@hook_embed."
        )
    return model, hook


def place_told(name: str) -> str:
    """A place or an SAE's, for a reader."""
    return name.removeprefix(_PLACE)
