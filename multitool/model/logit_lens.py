"""The logit lens: what the model would say if its residual stream held nothing but a direction.

Source: nostalgebraist, "interpreting GPT: the logit lens" (2020). Only the final norm and the unembedding run; nothing
of the model changes.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from multitool.errors import UserError
from multitool.model.finite import finite
from multitool.model.residual_stream import final_norm
from multitool.model.tasks import LensTask


def read_directions(model, task: LensTask) -> Iterator[np.ndarray]:
    """One answer: the logits of every direction, (n, V) float32. Raises as ``lens_logits``, and NotFiniteError."""
    yield finite(lens_logits(model, torch.from_numpy(task.directions))).cpu().numpy()


@torch.inference_mode()
def lens_logits(model, directions: Tensor) -> Tensor:
    """``W_U · norm(x)`` for each of the directions x: (n, V) float32, on the model's device.

    With the model's own final norm (RMSNorm or LayerNorm, with its weights) and unembedding, in its own precision; and
    with its cap on logits, ``cap · tanh(logits / cap)``, where it has one (Gemma 2).

    Args:
        model: a transformers causal LM in eval mode.
        directions: (n, d_model).

    Raises:
        UserError: the model's final norm or unembedding is not found.
    """
    unembedding = model.get_output_embeddings()
    norm = final_norm(model)
    if unembedding is None or norm is None:
        raise UserError(
            f"The final norm or the unembedding of a {type(model).__name__} is not found, so it has no logit lens. "
            "Choose another measure."
        )
    weight = unembedding.weight
    logits = unembedding(norm(directions.to(weight.device, weight.dtype))).float()
    cap = getattr(model.config.get_text_config(), "final_logit_softcapping", None)
    return logits if cap is None else cap * torch.tanh(logits / cap)
