"""How much faster two workers by Ray describe features than one process does, each with one thread."""

import os
import time
from collections.abc import Sequence
from functools import partial

import torch

from benchmarks.measuring import Reach, Row, ratios, side_by_side
from multitool.jobs.atlas_ray import DescribePart, described_by_ray
from multitool.jobs.local import describer
from multitool.recipes.atlas import ATLAS_TREE, AtlasRecipe
from multitool.recipes.recipe import VectorRecipe
from multitool.store.atlas_files import Part
from multitool.store.library import Library

_SAE = "demo/hook_embed"
_WORKERS = 2
_PER_PART = 16
_PARTS = 10


def bulk_ray(repeats: int, smoke: bool) -> list[Row] | str:
    """Features per second once all is loaded: start-up is left out of both."""
    try:
        import ray  # noqa: F401
    except ImportError as error:
        return f"Ray cannot be imported: {error}"
    per_part, n_parts = (1, 8) if smoke else (_PER_PART, _PARTS)
    parts = [tuple(range(first, first + per_part)) for first in range(0, per_part * n_parts, per_part)]
    found = side_by_side(repeats, {
        "two workers": partial(_by_workers, parts),
        "one process": partial(_by_one, parts),
    }, warm=False)  # each loads anew, and does a part before it counts
    return [Row(
        f"two workers by Ray, one thread each, against one process with one thread; {per_part} features a part, trees "
        f"at cutoff {ATLAS_TREE.cutoff}",
        found, unit="features/s", ratio=ratios(found, "two workers", "one process"), reach=Reach("at least", 1.6),
        facts={"parts": n_parts, "features of a part": per_part, "SAE": _SAE},
    )]


def _describer() -> DescribePart:
    library = Library(dtype="float32", device="cpu")
    return describer(library, [VectorRecipe(sae=_SAE, feature=0)], ATLAS_TREE, AtlasRecipe())


def _with_process() -> DescribePart:
    """Rows that tell who made them."""
    describe = _describer()
    return lambda part: [row | {"process": os.getpid()} for row in describe(part)]


def _by_workers(parts: Sequence[Part]) -> float:
    """From when both have done a part until one has no more to do."""
    seen: set[int] = set()
    started = ended = 0.0
    done = features = 0
    for part, rows in described_by_ray(_with_process, parts, workers=_WORKERS, use_gpus=False):
        now, done = time.perf_counter(), done + 1
        if len(seen) == _WORKERS and done <= len(parts) - _WORKERS + 1:
            features, ended = features + len(part), now
        elif len(seen) < _WORKERS:
            seen.add(rows[0]["process"])
            started = now
    return features / (ended - started) if features else 0.0  # one had done all before the other was loaded


def _by_one(parts: Sequence[Part]) -> float:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        describe = _describer()
        describe(parts[0])
        started = time.perf_counter()
        for part in parts[_WORKERS:]:
            describe(part)
        return sum(map(len, parts[_WORKERS:])) / (time.perf_counter() - started)
    finally:
        torch.set_num_threads(threads)
