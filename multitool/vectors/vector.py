"""The feature vector: from an SAE feature's weights to the embedding row of a ghost token.

Pure tensor arithmetic on float32 vectors of length d_model.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from multitool.errors import UserError
from multitool.recipes.directions import DIRECTIONS, NOWHERE, or_zero, unit
from multitool.vectors.embedding import EmbeddingSpace


@dataclass(frozen=True)
class FeatureWeights:
    """A feature's own rows; each (d_model,)."""

    encoder: Tensor  # W_enc[:, i]
    decoder: Tensor  # W_dec[i]
    vocabulary: Tensor | None = None  # of the tokens that fire it, by scan_directions.vocabulary_direction
    mapped: Tensor | None = None  # W_dec[i] @ M with the M of scan_directions.embedding_map
    pullback: Tensor | None = None  # W_enc[:, i] carried back through the layers, as model.pullback tells


@dataclass(frozen=True)
class FeatureVector:
    """A ghost token's embedding row, and where it lies."""

    v: Tensor  # (d_model,), float32, in the units of E
    direction: Tensor  # g, (d_model,): with the components mixed in, before scale and centroid
    scale: float  # the length given to the direction
    norm: float  # |v|
    distance_from_centroid: float  # |v - c|
    mean_token_distance: float  # the mean of |E_t - c|

    @property
    def figures(self) -> dict[str, float]:
        """What a result tells of it."""
        names = ("norm", "distance_from_centroid", "mean_token_distance")
        return {name: getattr(self, name) for name in names}


def random_row(feature: int, d_model: int) -> Tensor:
    """Drawn from a standard normal with the feature's number as seed, on any machine the same: (d_model,)."""
    return torch.randn(d_model, generator=torch.Generator().manual_seed(feature))


@dataclass(frozen=True)
class Heading:
    """Where a vector goes from its starting point."""

    f: Tensor  # (d_model,), float32: a unit vector, or zeros for the centroid alone
    scale: float  # how far, in the units of E, where a recipe does not tell


def feature_heading(
    ingredient: Callable[[str], Tensor], space: EmbeddingSpace, kind: str, encoder_share: float = 0.5
) -> Heading:
    """The direction of that kind.

    Args:
        ingredient: what a direction is made from, (d_model,), by its name in ``DIRECTIONS``.
        kind: a key of ``DIRECTIONS``.
        encoder_share: the encoder's share of ``mix``, 0 to 1.

    Raises:
        UserError: the weights that it needs are zero or not finite.
    """
    made = DIRECTIONS[kind]
    rows = [ingredient(name).float().to(space.E.device) for name in made.made_from]
    for name, row in zip(made.made_from, rows, strict=True):
        if name in NOWHERE and not (torch.isfinite(row).all() and row.norm() > 0):
            raise UserError(NOWHERE[name])
    f = made.make(*rows, share=encoder_share)
    return Heading(f, float(rows[0].norm()) if made.own_length else made.relative_scale * space.mean_distance)


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
    return Heading(unit(or_zero(total)), headings[0].scale)


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


def token_sum(space: EmbeddingSpace, tokens: list[tuple[int, float]], *, centroid: bool) -> Tensor:
    """``sum w_t (E_t - c)``, or without the centroid ``sum w_t E_t``: (d_model,), float32; zeros if they cancel.

    The arithmetic is that of Mikolov, Yih and Zweig, "Linguistic Regularities in Continuous Space Word
    Representations", NAACL 2013.
    """
    token_ids, weights = zip(*tokens, strict=True)
    rows = space.E[list(token_ids)].float()
    terms = torch.tensor(weights)[:, None] * (rows - space.centroid if centroid else rows)
    total = terms.sum(0)
    # What rounding left of tokens that cancel is no direction.
    return total if total.norm() > 1e-6 * terms.norm() else torch.zeros_like(total)
