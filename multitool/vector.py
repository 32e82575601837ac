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
    """What an SAE says of one feature."""

    encoder: Tensor  # W_enc[:, i], (d_model,)
    decoder: Tensor  # W_dec[i], (d_model,)


@dataclass(frozen=True)
class FeatureVector:
    """A ghost token's embedding row, and where it lies."""

    v: Tensor  # (d_model,), float32, in the units of E
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


# The one place where a kind of direction is added: from the weights and the encoder's share to a unit vector.
DIRECTIONS: dict[str, Callable[[FeatureWeights, float], Tensor]] = {
    "encoder": lambda weights, share: unit(weights.encoder),
    "decoder": lambda weights, share: unit(weights.decoder),
    "mix": lambda weights, share: unit(_whole(share * unit(weights.encoder) + (1 - share) * unit(weights.decoder))),
}


def mix_components(f: Tensor, components: Tensor, pca: Sequence[float]) -> Tensor:
    """``g = (1 - sum w_k) f + sum w_k p_k``, not normalised again (so that published settings reproduce)."""
    if not pca:
        return f
    w = torch.tensor(list(pca), dtype=f.dtype, device=f.device)
    return (1 - w.sum()) * f + w @ components[: len(w)]


def feature_vector(
    weights: FeatureWeights,
    space: EmbeddingSpace,
    *,
    kind: str,
    encoder_share: float = 0.5,
    centroid: bool = True,
    scale: float | None = None,
    pca: Sequence[float] = (),
) -> FeatureVector:
    """``v = c + scale * g`` (or ``scale * g`` without the centroid) in the space of the token embeddings.

    Args:
        kind: a key of ``DIRECTIONS``.
        encoder_share: the encoder's share of ``mix``, 0 to 1.
        scale: the length given to the direction, in the units of E; None takes the mean token distance.
        pca: weights of the first principal components of E.

    Raises:
        UserError: the weights are zero or not finite, the directions cancel, or there are too many components.
    """
    for name, row in (("encoder", weights.encoder), ("decoder", weights.decoder)):
        if kind in (name, "mix") and not (torch.isfinite(row).all() and row.norm() > 0):
            raise UserError(
                f"The {name} weights of this feature are all zero or not finite, so they point nowhere (a dead "
                "feature?). Use the other weights or another feature."
            )
    if len(pca) > space.d_model:
        raise UserError(f"pca has {len(pca)} weights; this model's embeddings have {space.d_model} components.")
    scale = space.mean_distance if scale is None else float(scale)
    device = space.E.device
    rows = FeatureWeights(weights.encoder.float().to(device), weights.decoder.float().to(device))
    with torch.inference_mode():
        f = DIRECTIONS[kind](rows, encoder_share)
        g = mix_components(f, space.components, pca) if pca else f
        if not (torch.isfinite(g).all() and g.norm() > 1e-6):
            raise UserError(
                "These settings give a zero vector: the directions that they mix cancel. Change encoder_share or pca."
            )
        v = space.centroid + scale * g if centroid else scale * g
        return FeatureVector(
            v=v,
            scale=scale,
            norm=float(v.norm()),
            distance_from_centroid=float((v - space.centroid).norm()),
            mean_token_distance=space.mean_distance,
        )
