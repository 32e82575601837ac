"""Training one SAE with sae-lens' own trainer, and writing it as a small float16 folder."""

import json
import math
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from sae_lens.config import SAETrainerConfig
from sae_lens.saes.batchtopk_sae import BatchTopKTrainingSAEConfig
from sae_lens.saes.topk_sae import TopKTrainingSAE, TopKTrainingSAEConfig
from sae_lens.training.sae_trainer import SAETrainer
from safetensors.torch import load_file, save_file

from training.fast_batchtopk import FastBatchTopKTrainingSAE
from training.subject_model import EMBED, TrainedOn, hf_module_name

OUTLIER = 10  # times the median distance from the mean


@dataclass(frozen=True)
class Recipe:
    """What one SAE is trained with."""

    hook_name: str
    kind: str  # "topk" or "batchtopk"
    d_sae: int
    k: int
    passes: float
    batch: int
    lr: float
    dead_window: int  # steps without firing after which a feature counts as dead and is revived
    seed: int = 0


def recipe_for(trained_on: TrainedOn, hook_name: str, passes: float) -> Recipe:
    """Args: passes: over the text, for a layer's SAE; that on the embedding has its own number."""
    if hook_name == EMBED:
        return Recipe(
            EMBED, "topk", d_sae=trained_on.embed_features, k=8, passes=trained_on.embed_passes, batch=1024, lr=1e-3,
            dead_window=96,
        )
    return Recipe(hook_name, "batchtopk", d_sae=3072, k=32, passes=passes, batch=1024, lr=1e-3, dead_window=150)


def shuffled_batches(rows: np.ndarray, chosen: np.ndarray, batch: int, seed: int) -> Iterator[torch.Tensor]:
    """Batches of the chosen rows in float32, pass after pass without end, each in a new random order."""
    order = np.random.default_rng(seed)
    while True:
        permutation = order.permutation(chosen)
        for start in range(0, len(chosen) - batch + 1, batch):
            # Sorted within the batch: the same batch, read faster from disk.
            yield torch.from_numpy(rows[np.sort(permutation[start : start + batch])].astype(np.float32))


def typical_mean(rows: np.ndarray) -> tuple[torch.Tensor, float]:
    """The mean of the rows that are no outliers, and the median distance of all rows from it."""
    sample = torch.from_numpy(rows[:: max(1, len(rows) // 100_000)].astype(np.float32))
    distances = (sample - sample.median(0).values).norm(dim=1)
    mean = sample[distances <= OUTLIER * distances.median()].mean(0)
    return mean, (sample - mean).norm(dim=1).median().item()


def _distances(rows: np.ndarray, mean: torch.Tensor) -> np.ndarray:
    blocks = (rows[start : start + 20_000].astype(np.float32) for start in range(0, len(rows), 20_000))
    return np.concatenate([np.linalg.norm(block - mean.numpy(), axis=1) for block in blocks])


def train(recipe: Recipe, rows: np.ndarray):
    """Train on ``rows`` (n, d). Returns the SAE in the units of the rows, samples seen, and rows used."""
    torch.manual_seed(recipe.seed)
    mean, typical = typical_mean(rows)
    # A single vector a hundred times as long as the others would outweigh its whole batch.
    distances = _distances(rows, mean)
    chosen = np.flatnonzero(distances <= OUTLIER * typical)
    scale = math.sqrt(rows.shape[1]) / float(distances[chosen].mean())
    steps = int(recipe.passes * (len(chosen) // recipe.batch))
    sae = _new_sae(recipe, rows.shape[1])
    # From zero, the bias would spend a thousand steps on learning the mean, and features die meanwhile.
    sae.b_dec.data = mean * scale
    trainer = SAETrainer(
        SAETrainerConfig(
            total_training_samples=steps * recipe.batch,
            train_batch_size_samples=recipe.batch,
            lr=recipe.lr,
            lr_end=recipe.lr / 10,
            lr_warm_up_steps=min(200, steps // 10),
            lr_decay_steps=int(steps * 0.6),
            dead_feature_window=recipe.dead_window,
            feature_sampling_window=500,
        ),
        sae,
        shuffled_batches(rows, chosen, recipe.batch, recipe.seed),
    )
    # Given, so that the trainer does not estimate its own; it folds the factor into the weights at the end.
    trainer.activation_scaler.scaling_factor = scale
    trainer.fit()
    return sae, steps * recipe.batch, len(chosen)


def _new_sae(recipe: Recipe, d_in: int):
    kinds = {
        "topk": (TopKTrainingSAE, TopKTrainingSAEConfig),
        "batchtopk": (FastBatchTopKTrainingSAE, BatchTopKTrainingSAEConfig),
    }
    sae_class, config_class = kinds[recipe.kind]
    return sae_class(
        config_class(
            d_in=d_in, d_sae=recipe.d_sae, k=recipe.k, device="cpu", dtype="float32",
            normalize_activations="expected_average_only_in",
        )
    )


def export(sae, trained_on: TrainedOn, recipe: Recipe, target: Path, metadata: dict) -> None:
    """Write the inference form of ``sae`` to ``target``, whole or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".unfinished-") as work:
        fresh = Path(work) / "sae"
        weights_path, config_path = sae.save_inference_model(fresh)
        weights = {name: value.half().contiguous() for name, value in load_file(weights_path).items()}
        save_file(weights, weights_path)
        config = json.loads(config_path.read_text())
        config["dtype"] = "float16"
        config["metadata"] = config["metadata"] | metadata | {
            "model_name": trained_on.hub_id,
            "hook_name": recipe.hook_name,
            "hf_hook_name": hf_module_name(recipe.hook_name),
            "seed": recipe.seed,
        }
        config_path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
        weights_path.chmod(0o644)
        if target.exists():
            target.rename(Path(work) / "old")
        fresh.rename(target)
        shutil.rmtree(Path(work) / "old", ignore_errors=True)
