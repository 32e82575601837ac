"""How good an exported SAE is: reconstruction, sparsity, and what the language model loses with it."""

import math
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as functional

from training.sae_training import OUTLIER
from training.subject_model import EMBED, replaced_output

MAJORITY = 3  # times the median distance from the mean


@torch.inference_mode()
def reconstruction(sae, vectors: torch.Tensor, mean: torch.Tensor, typical: float) -> dict:
    """Unexplained variance (summed error over summed distance from ``mean``), L0, features never active.

    The unexplained variance comes three times: for the vectors that training uses (no outliers), for all,
    and for the plain majority without the few that are several times as long and carry much of the variance.
    """
    errors, active = [], 0
    fired = torch.zeros(sae.cfg.d_sae, dtype=torch.bool)
    for block in vectors.split(2048):
        acts = sae.encode(block)
        errors.append((block - sae.decode(acts)).square().sum(1, dtype=torch.float64))
        active += (acts > 0).sum().item()
        fired |= (acts > 0).any(0)
    error = torch.cat(errors)
    spread = (vectors - mean).square().sum(1, dtype=torch.float64)

    def unexplained(limit: float) -> float:
        near = spread <= (limit * typical) ** 2
        return (error[near].sum() / spread[near].sum()).item()

    return {
        "unexplained_variance": unexplained(OUTLIER),
        "unexplained_variance_of_all": unexplained(math.inf),
        "unexplained_variance_of_majority": unexplained(MAJORITY),
        "outlier_share": (spread > (OUTLIER * typical) ** 2).double().mean().item(),
        "beyond_majority_share": (spread > (MAJORITY * typical) ** 2).double().mean().item(),
        "l0": active / len(vectors),
        "never_active_share": 1 - fired.float().mean().item(),
        "vectors": len(vectors),
    }


@torch.inference_mode()
def language_model_loss(model, sae, contexts: np.ndarray, mean: torch.Tensor, batch: int = 8) -> dict:
    """Cross-entropy in nats per token: as it is, with the SAE in place, with zeros or the mean in its place.

    Position 0 of a context is replaced only on the embedding: the layers' SAEs are not made for it.
    The first token that is predicted is number 2, everywhere.
    """
    hook_name = sae.cfg.metadata.hook_name
    first = 0 if hook_name == EMBED else 1

    def replace_with(value: Callable[[torch.Tensor], torch.Tensor]):
        def change(output: torch.Tensor) -> torch.Tensor:
            return torch.cat([output[:, :first], value(output[:, first:])], dim=1)

        return change

    changes = {
        "with_sae": replace_with(lambda x: sae(x)),
        "zero_ablated": replace_with(torch.zeros_like),
        "mean_ablated": replace_with(lambda x: mean.expand_as(x)),
    }
    loss = {"clean": _loss(model, contexts, batch)}
    for name, change in changes.items():
        with replaced_output(model, hook_name, change):
            loss[name] = _loss(model, contexts, batch)
    for ablation in ("zero", "mean"):
        gap = loss[f"{ablation}_ablated"] - loss["clean"]
        loss[f"recovered_from_{ablation}"] = (loss[f"{ablation}_ablated"] - loss["with_sae"]) / gap
    return loss | {"tokens": len(contexts) * (contexts.shape[1] - 2)}


def _loss(model, contexts: np.ndarray, batch: int) -> float:
    total = 0.0
    for start in range(0, len(contexts), batch):
        ids = torch.from_numpy(contexts[start : start + batch].astype(np.int64))
        logits = model(ids, use_cache=False).logits[:, 1:-1]
        total += functional.cross_entropy(logits.flatten(0, 1), ids[:, 2:].flatten(), reduction="sum").item()
    return total / (len(contexts) * (contexts.shape[1] - 2))
