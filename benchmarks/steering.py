"""What steering and clamping add to the growth of a tree."""

import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from benchmarks.material import demo_model, grown, library, prepared, random_matrix
from benchmarks.measuring import Row, ratios, side_by_side, timed
from multitool.jobs.steering import prose
from multitool.model.interventions import Clamp, Interventions, Push
from multitool.model.tasks import GrowthTask
from multitool.store.folders import folder_sae
from tests.plain_recursion import as_paths, assert_same_tree
from tests.tiny import write_sae

_HOOK = "blocks.6.hook_resid_post"
_TINY = 1e-7  # so small a change that the tree stays the same


def steering(repeats: int, smoke: bool) -> list[Row]:
    """Trees with the residual stream changed at every token, so little that they are the plain one, against that."""
    task = prepared(2e-2 if smoke else 5e-5).task
    small, large = (8, 16) if smoke else (16_384, 65_536)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        changes: dict[str, dict] = {
            "steered": _push(),
            f"clamped, a standard SAE of {small:,} features": _clamp(folder / "standard", small),
            f"clamped, a TopK SAE of {small:,}": _clamp(folder / "topk", small, architecture="topk", k=4),
            f"clamped, a TopK SAE of {large:,}": _clamp(folder / "large", large, architecture="topk", k=4),
        }
        tasks = {name: _changed(task, change) for name, change in changes.items()}
        plain = as_paths(grown(task).tree)
        for changed in tasks.values():
            assert_same_tree(grown(changed).tree, plain)
        runs = {"plain": task} | tasks
        found = side_by_side(repeats, {name: timed(partial(grown, one)) for name, one in runs.items()},
                             warm=not smoke)
    return [
        Row(
            f"{len(plain)} nodes, {name}",
            {"changed": found[name], "plain": found["plain"]},
            ratio=ratios(found, name, "plain"),
            facts={"nodes": len(plain), "same_tree": True, "compared": "all nodes"},
        )
        for name in tasks
    ]


def _changed(task: GrowthTask, change: dict) -> GrowthTask:
    subject = library().subject(task.model)
    return replace(task, interventions=Interventions(where="all", prose=prose(subject), **change))


def _push() -> dict:
    direction = torch.nn.functional.normalize(torch.ones(_d_model()), dim=0)
    return {"pushes": (Push(_HOOK, direction.numpy(), _TINY),)}


def _clamp(folder: Path, d_sae: int, **cfg) -> dict:
    W_enc = random_matrix((_d_model(), d_sae), torch.float32)
    write_sae(folder, W_enc=W_enc, W_dec=_TINY * W_enc.T, hook=_HOOK, **cfg)
    entry = folder_sae(folder)
    return {"clamp": Clamp(entry, entry.hook, 0, 1.0, 1.0)}


def _d_model() -> int:
    return demo_model().config.hidden_size
