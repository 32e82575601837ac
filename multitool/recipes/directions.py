"""The kinds of direction that a vector can have. This is the one place where a kind is added.

A kind is made from ingredients, vectors that ``jobs.features.ingredient`` gives by their names. The formulas work on
anything that can be added, scaled and measured, so nothing here imports torch.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Vector = Any  # a tensor (d_model,)


def unit(x: Vector) -> Vector:
    """``x / |x|``; the caller has checked that x is not zero."""
    return x / x.norm()


def or_zero(x: Vector) -> Vector:
    """``x``, or zero where it is only what rounding left of unit vectors that cancel."""
    return x if x.norm() > 1e-6 else x * 0


@dataclass(frozen=True)
class Direction:
    """A kind of direction."""

    made_from: tuple[str, ...]  # its ingredients
    make: Callable[..., Vector]  # from those and the encoder's share: a unit vector; NaN if they cancel
    help: str
    of_feature: bool = True  # False: a control, which no feature of the SAE has a part in
    own_length: bool = False  # the default scale is the length of what it is made from
    from_scan: bool = False  # it needs a vocabulary scan
    from_layers: bool = False  # it is carried through the model's layers, which must run for it
    relative_scale: float = 1.0  # the default scale, in mean token distances
    takes: tuple[str, ...] = ()  # fields of VectorRecipe that count with it and else do not: encoder_share, tokens


DIRECTIONS: dict[str, Direction] = {
    "encoder": Direction(("encoder",), lambda encoder, share: unit(encoder), "what the feature looks for"),
    "decoder": Direction(("decoder",), lambda decoder, share: unit(decoder), "what it writes"),
    "mix": Direction(
        ("encoder", "decoder"),
        lambda encoder, decoder, share: unit(or_zero(share * unit(encoder) + (1 - share) * unit(decoder))),
        "both, with the encoder's share", takes=("encoder_share",),
    ),
    "vocabulary": Direction(
        ("vocabulary",), lambda vocabulary, share: unit(vocabulary), "the tokens that fire it, from a vocabulary scan",
        from_scan=True,
    ),
    "mapped": Direction(
        ("mapped",), lambda mapped, share: unit(mapped), "the decoder, carried over to the embeddings by a linear map",
        from_scan=True,
    ),
    "pullback": Direction(
        ("pullback",), lambda pullback, share: unit(pullback), "the encoder, carried back through the layers to the "
        "embeddings", from_layers=True, relative_scale=0.45,
    ),
    "tokens": Direction(
        ("tokens",), lambda tokens, share: unit(tokens), "real tokens instead of the feature, such as king - man + "
        "woman", of_feature=False, own_length=True, takes=("tokens",),
    ),
    "random": Direction(
        ("random",), lambda random, share: unit(random), "a random direction instead, always the same one for a "
        "feature's number; a control", of_feature=False,
    ),
    "centroid": Direction(
        ("zero",), lambda zero, share: zero, "no direction, only the centroid, and components where they have weights; "
        "a control", of_feature=False,
    ),
}

_DEAD = (
    "The {} weights of this feature are all zero or not finite, so they point nowhere (a dead feature?). Use the other "
    "weights or another feature."
)
# What is said where an ingredient is zero or not finite. One that is not named here may be zero.
NOWHERE = {
    "encoder": _DEAD.format("encoder"),
    "decoder": _DEAD.format("decoder"),
    "vocabulary": "No token fires this feature when it stands alone, so the vocabulary gives it no direction. Use "
    "decoder or mapped weights, or another feature.",
    "mapped": _DEAD.format("decoder"),
    "pullback": _DEAD.format("encoder"),
    "tokens": "These tokens cancel, so their sum points nowhere. Use other tokens or weights.",
}


def takes(kind: object, field: str) -> bool:
    """Whether a field of a recipe counts with a kind of direction; with what is no kind it does not."""
    return isinstance(kind, str) and kind in DIRECTIONS and field in DIRECTIONS[kind].takes


def needs_layers(kind: str) -> bool:
    """Whether a kind of direction is carried through the model's layers."""
    return DIRECTIONS[kind].from_layers


def needs_scan(kind: str) -> bool:
    """Whether a kind of direction is made from a vocabulary scan."""
    return DIRECTIONS[kind].from_scan
