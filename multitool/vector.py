"""The feature vector: from an SAE feature's weights to the embedding row of a ghost token.

Pure tensor arithmetic on float32 vectors of length d_model.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from multitool.embedding import EmbeddingSpace
from multitool.errors import UserError


@dataclass(frozen=True)
class FeatureWeights:
    """What a feature's direction can be made from; each (d_model,)."""

    encoder: Tensor  # W_enc[:, i]
    decoder: Tensor  # W_dec[i]
    vocabulary: Tensor | None = None  # of the tokens that fire it, by firing.vocabulary_direction
    mapped: Tensor | None = None  # W_dec[i] @ M with the M of firing.embedding_map
    tokens: Tensor | None = None  # nothing of the feature: the arithmetic.offset of real tokens,
    random: Tensor | None = None  # or random_row, for comparison


@dataclass(frozen=True)
class FeatureVector:
    """A ghost token's embedding row, and where it lies."""

    v: Tensor  # (d_model,), float32, in the units of E
    direction: Tensor  # g, (d_model,): with the components mixed in, before scale and centroid
    scale: float  # the length given to the direction
    norm: float  # |v|
    distance_from_centroid: float  # |v - c|
    mean_token_distance: float  # the mean of |E_t - c|


def unit(x: Tensor) -> Tensor:
    """``x / |x|``; the caller has checked that x is not zero."""
    return x / x.norm()


def _whole(x: Tensor) -> Tensor:
    """``x``, or zero where it is only what rounding left of two unit vectors that cancel."""
    return x if x.norm() > 1e-6 else x * 0


@dataclass(frozen=True)
class Direction:
    """A kind of direction."""

    made_from: tuple[str, ...]  # fields of FeatureWeights
    make: Callable[..., Tensor]  # from those and the encoder's share: a unit vector, or zero if they cancel
    help: str
    of_feature: bool = True  # False: a control, which no feature of the SAE has a part in
    own_length: bool = False  # the default scale is the length of what it is made from


# The one place where a kind of direction is added.
DIRECTIONS: dict[str, Direction] = {
    "encoder": Direction(("encoder",), lambda encoder, share: unit(encoder), "what the feature looks for"),
    "decoder": Direction(("decoder",), lambda decoder, share: unit(decoder), "what it writes"),
    "mix": Direction(
        ("encoder", "decoder"),
        lambda encoder, decoder, share: unit(_whole(share * unit(encoder) + (1 - share) * unit(decoder))),
        "both, with the encoder's share",
    ),
    "vocabulary": Direction(
        ("vocabulary",), lambda vocabulary, share: unit(vocabulary), "the tokens that fire it, from a vocabulary scan"
    ),
    "mapped": Direction(
        ("mapped",), lambda mapped, share: unit(mapped), "the decoder, carried over to the embeddings by a linear map"
    ),
    "tokens": Direction(
        ("tokens",), lambda tokens, share: unit(tokens), "real tokens instead of the feature, such as king - man + "
        "woman", of_feature=False, own_length=True,
    ),
    "random": Direction(
        ("random",), lambda random, share: unit(random), "a random direction instead, always the same one for a "
        "feature's number; a control", of_feature=False,
    ),
    "centroid": Direction(
        (), lambda share: torch.zeros(1), "no direction, only the centroid, and components where they have weights; a "
        "control", of_feature=False,
    ),
}


def needs_scan(kind: str) -> bool:
    """Whether a kind of direction is made from a vocabulary scan."""
    return not {"vocabulary", "mapped"}.isdisjoint(DIRECTIONS[kind].made_from)


_DEAD = (
    "The {} weights of this feature are all zero or not finite, so they point nowhere (a dead feature?). Use the other "
    "weights or another feature."
)
_NOWHERE = {
    "encoder": _DEAD.format("encoder"),
    "decoder": _DEAD.format("decoder"),
    "vocabulary": "No token fires this feature when it stands alone, so the vocabulary gives it no direction. Use "
    "decoder or mapped weights, or another feature.",
    "mapped": _DEAD.format("decoder"),
    "tokens": "These tokens cancel, so their sum points nowhere. Use other tokens or weights.",
}


def random_row(feature: int, d_model: int) -> Tensor:
    """Drawn from a standard normal with the feature's number as seed, on any machine the same: (d_model,)."""
    return torch.randn(d_model, generator=torch.Generator().manual_seed(feature))


@dataclass(frozen=True)
class Heading:
    """Where a vector goes from its starting point."""

    f: Tensor  # (d_model,), float32: a unit vector, or zeros for the centroid alone
    scale: float  # how far, in the units of E, where a recipe does not tell


def feature_heading(
    weights: FeatureWeights, space: EmbeddingSpace, kind: str, encoder_share: float = 0.5
) -> Heading:
    """The direction of that kind.

    Args:
        kind: a key of ``DIRECTIONS``.
        encoder_share: the encoder's share of ``mix``, 0 to 1.

    Raises:
        UserError: the weights that it needs are zero or not finite.
    """
    made = DIRECTIONS[kind]
    rows = [getattr(weights, name).float().to(space.E.device) for name in made.made_from]
    for name, row in zip(made.made_from, rows, strict=True):
        if not (torch.isfinite(row).all() and row.norm() > 0):
            raise UserError(_NOWHERE[name])
    f = made.make(*rows, share=encoder_share).expand(space.d_model)
    return Heading(f, float(rows[0].norm()) if made.own_length else space.mean_distance)


def mix_components(f: Tensor, components: Tensor, pca: Sequence[float]) -> Tensor:
    """``g = (1 - sum w_k) f + sum w_k p_k``, not normalised again (so that published settings reproduce)."""
    if not pca:
        return f
    w = torch.tensor(list(pca), dtype=f.dtype, device=f.device)
    return (1 - w.sum()) * f + w @ components[: len(w)]


def combined(headings: Sequence[Heading], weights: Sequence[float]) -> Heading:
    """``f = u(sum w_j f_j)``: several features in one direction; NaN if they cancel, which ``placed`` refuses."""
    largest = max(map(abs, weights)) or 1.0
    total = sum(weight / largest * one.f for one, weight in zip(headings, weights, strict=True))
    return Heading(unit(_whole(total)), headings[0].scale)


def placed(
    heading: Heading,
    space: EmbeddingSpace,
    *,
    centroid: bool = True,
    scale: float | None = None,
    pca: Sequence[float] = (),
) -> FeatureVector:
    """``v = c + scale * g`` (or ``scale * g`` without the centroid) in the space of the token embeddings.

    Args:
        scale: the length given to the direction, in the units of E; None takes the heading's own.
        pca: weights of the first principal components of E.

    Raises:
        UserError: the directions cancel, or there are too many components.
    """
    if len(pca) > space.d_model:
        raise UserError(f"pca has {len(pca)} weights; this model's embeddings have {space.d_model} components.")
    scale = heading.scale if scale is None else float(scale)
    with torch.inference_mode():
        g = mix_components(heading.f, space.components, pca) if pca else heading.f
        only_centroid = centroid and not heading.f.any()
        if not torch.isfinite(g).all() or (g.norm() <= 1e-6 and not only_centroid):
            raise UserError(
                "These settings give a zero vector: the directions that they mix cancel, or there is none. Change what "
                "is mixed (feature, encoder_share, pca), or start from the centroid."
            )
        v = space.centroid + scale * g if centroid else scale * g
        return FeatureVector(
            v=v,
            direction=g,
            scale=scale,
            norm=float(v.norm()),
            distance_from_centroid=float((v - space.centroid).norm()),
            mean_token_distance=space.mean_distance,
        )
