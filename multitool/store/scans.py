"""The vocabulary scan: every token read alone by the model, and the residual at its place kept on disk.

A scan is a folder of its own in the cache. It belongs to a model, a hook and a precision, and serves every SAE there.
One that was interrupted goes on where it stopped.
"""

import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from multitool.errors import UserError, size_shown
from multitool.model.finite import finite
from multitool.model.kv_cache import cache_bytes, repeated
from multitool.model.residual_stream import residuals
from multitool.model.tasks import Task
from multitool.store.folders import cache_folder, unfinished
from multitool.store.problems import STORING_SCAN, said

MAX_BYTES = 10 * 10**9  # of all scans together

_FORMAT = 1  # to be raised when the same task would give other numbers
# Each row divided by its norm, so that float16 holds any of them; the norms apart, NaN where a row is not there yet.
_ROWS, _NORMS, _TASK = "residuals.float16", "norms.float32", "task.json"
_BATCH = {"cpu": 512, "cuda": 4096}  # tokens in one forward pass
BATCH_BYTES = 1 << 30


@dataclass(frozen=True, kw_only=True)
class ScanTask(Task):
    """A vocabulary to scan. What its time does not suffice for can be scanned another time."""

    hook: str
    n_tokens: int  # V
    d_model: int
    bos_id: int | None  # the token before each one; None: nothing stands before it
    dtype: str  # the precision that the model runs in
    path: Path  # the scan's own folder
    batch: int | None = None  # tokens in one forward pass; None: what suits the device
    batch_bytes: int = BATCH_BYTES  # memory that the keys and values of a batch may take

    @property
    def n_bytes(self) -> int:
        """What the scan takes on disk."""
        return self.n_tokens * (self.d_model * 2 + 4)


def scan_task(
    model: str, folder: Path, hook: str, *, n_tokens: int, d_model: int, bos_id: int | None, dtype: str
) -> ScanTask:
    """The scan of a model's whole vocabulary at a hook; see ``ScanTask``."""
    path = scan_path(model, folder, hook, bos_id=bos_id, dtype=dtype)
    return ScanTask(
        model=model, folder=folder, hook=hook, n_tokens=n_tokens, d_model=d_model, bos_id=bos_id, dtype=dtype, path=path
    )


def scan_path(model: str, folder: Path, hook: str, *, bos_id: int | None, dtype: str) -> Path:
    """Where a scan lies: a name to recognise it by, and a hash of all that its numbers depend on."""
    files = sorted([*folder.glob("*.safetensors"), *folder.glob("config.json")])
    weights = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    identity = json.dumps([_FORMAT, model, str(folder.resolve()), weights, hook, bos_id, dtype])
    readable = re.sub(r"[^A-Za-z0-9]+", "-", f"{model[-60:]} {hook[-40:]} {dtype[-10:]}").strip("-")
    return cache_folder() / "scans" / f"{readable}-{hashlib.sha256(identity.encode()).hexdigest()[:16]}"


def scan_vocabulary(model, task: ScanTask, max_bytes: float = MAX_BYTES) -> Iterator[int]:
    """Scan what is missing. Yields how many tokens are there, first those from before, then after every batch.

    Any number of threads and processes may scan the same task at once: they write the same rows to the same places.

    Args:
        model: the running model that the task names.
        max_bytes: of all scans together; those used longest ago make room.

    Raises:
        UserError: the disk is full, or the cache cannot be written; or the hook does not exist.
        NotFiniteError: the model does not compute finite numbers.
    """
    started = time.perf_counter()
    with _disk(task):
        _make_place(task, max_bytes)
        done = _n_done(task)
    yield done
    if done == task.n_tokens:
        return
    prefix = _prefix(model, task)
    batch = _batch_size(model, task, prefix)
    for first in range(0, task.n_tokens, batch):
        ids = torch.arange(first, min(first + batch, task.n_tokens))
        with _disk(task):  # asked anew: another process may have been here
            missing = np.isnan(_norms(task)[first : first + batch]).any()
        if missing:
            vectors = _read_tokens(model, task, prefix, ids)
            with _disk(task):
                _write(task, first, vectors)
                done = _n_done(task)
            yield done
            if task.seconds is not None and time.perf_counter() - started > task.seconds:
                return
    if done < task.n_tokens:  # others did the last ones meanwhile
        yield task.n_tokens


def _prefix(model, task: ScanTask):
    """The model's cache of what stands before every token. It is the same for all, so it is computed once."""
    if task.bos_id is None or task.hook == "hook_embed":
        return None
    ids = torch.tensor([[task.bos_id]], device=model.get_input_embeddings().weight.device)
    with torch.no_grad():
        return model(input_ids=ids, use_cache=True).cache


def _batch_size(model, task: ScanTask, prefix) -> int:
    device = model.get_input_embeddings().weight.device.type
    limit = task.batch or _BATCH["cpu" if device == "cpu" else "cuda"]
    if prefix is None:
        return limit
    return int(min(limit, max(1, task.batch_bytes // max(1, cache_bytes(prefix)))))


def _read_tokens(model, task: ScanTask, prefix, ids: Tensor) -> Tensor:
    """Their residuals, (n, d_model) in float32 on the CPU."""
    cache = None if prefix is None else repeated(prefix, len(ids))
    vectors = residuals(model, task.hook, input_ids=ids[:, None], cache=cache)[:, -1].float().cpu()
    finite(vectors.norm(dim=1))
    return vectors


# On disk


def _make_place(task: ScanTask, max_bytes: float) -> None:
    """The scan's folder, with the rows of before or with none yet, and room for what is missing."""
    scans = task.path.parent
    scans.mkdir(parents=True, exist_ok=True)
    there = _n_done(task) if _is_place(task) else 0
    needed = (task.n_tokens - there) * task.d_model * 2
    _keep_within_limit(task, max_bytes)
    free = shutil.disk_usage(scans).free
    if needed > free:
        raise UserError(
            f"The scan of {task.model}'s vocabulary takes {size_shown(needed)} on disk, and {scans} has "
            f"{size_shown(free)} left. Make room there, or name a folder on a larger disk in SAE_MULTITOOL_CACHE."
        )
    if _is_place(task):
        (task.path / _TASK).touch()
        return
    with unfinished(scans) as work:
        fresh = work / "scan"
        fresh.mkdir()
        with (fresh / _ROWS).open("wb") as file:
            file.truncate(task.n_tokens * task.d_model * 2)
        np.full(task.n_tokens, np.nan, np.float32).tofile(fresh / _NORMS)
        (fresh / _TASK).write_text(json.dumps(_facts(task), indent=1), encoding="utf-8")
        # A rename is atomic: of two who begin at once, the second finds the first one's folder.
        try:
            fresh.rename(task.path)
        except OSError:
            if not _is_place(task):  # but a damaged one
                shutil.rmtree(task.path)
                fresh.rename(task.path)


def _write(task: ScanTask, first: int, vectors: Tensor) -> None:
    # Through the file and not through a memory map, where a full disk would end the process.
    norms = vectors.norm(dim=1)
    rows = vectors / norms.clamp_min(torch.finfo(torch.float32).tiny)[:, None]
    _write_at(task.path / _ROWS, first * task.d_model * 2, rows.to(torch.float16))
    # Only when the rows are safe do the norms say so.
    _write_at(task.path / _NORMS, first * 4, norms)


def _write_at(path: Path, position: int, values: Tensor) -> None:
    with path.open("r+b") as file:
        file.seek(position)
        file.write(values.numpy().tobytes())
        file.flush()
        os.fsync(file.fileno())


def _norms(task: ScanTask) -> np.ndarray:
    return np.fromfile(task.path / _NORMS, np.float32)


def _n_done(task: ScanTask) -> int:
    return task.n_tokens - int(np.isnan(_norms(task)).sum())


def _is_place(task: ScanTask) -> bool:
    """Whether the task's folder is there and is its own, however much of the scan is done."""
    sizes = {_ROWS: task.n_tokens * task.d_model * 2, _NORMS: task.n_tokens * 4}
    try:
        right = all((task.path / name).stat().st_size == size for name, size in sizes.items())
        return right and json.loads((task.path / _TASK).read_text(encoding="utf-8")) == _facts(task)
    except (OSError, ValueError):
        return False


def _facts(task: ScanTask) -> dict:
    """What tells the scan from others."""
    names = ("model", "hook", "n_tokens", "d_model", "bos_id", "dtype")
    return {name: getattr(task, name) for name in names} | {"format": _FORMAT, "folder": str(task.folder)}


def _keep_within_limit(task: ScanTask, max_bytes: float) -> None:
    """Delete scans, those used longest ago first, until this one fits among the others."""
    others = [(_last_used(folder), folder) for folder in task.path.parent.iterdir() if folder != task.path]
    sizes = {folder: _bytes(folder) for _, folder in others}
    total = task.n_bytes + sum(sizes.values())
    for _, folder in sorted(others):
        if total <= max_bytes:
            return
        shutil.rmtree(folder, ignore_errors=True)
        total -= sizes[folder]


def _last_used(folder: Path) -> int:
    """When a scan was opened or grew last."""
    return max((stat.st_mtime_ns for stat in _stats(folder)), default=0)


def _bytes(folder: Path) -> int:
    return sum(stat.st_size for stat in _stats(folder))


def _stats(folder: Path) -> list[os.stat_result]:
    stats = []
    with suppress(OSError):  # deleted by another process meanwhile
        for file in folder.rglob("*"):
            stats.append(file.stat())
    return stats


def _disk(task: ScanTask) -> AbstractContextManager[None]:
    size = size_shown(task.n_tokens * task.d_model * 2)
    return said(STORING_SCAN, model=task.model, folder=task.path.parent, size=size)


# Reading


@dataclass(frozen=True)
class Scan:
    """A complete scan: the residual of every token. It stays on disk and is read in parts."""

    task: ScanTask
    rows: np.memmap  # (V, d_model) float16, of norm 1
    norms: np.ndarray  # (V,) float32

    def residuals(self, first: int, last: int) -> Tensor:
        """The tokens' from ``first`` up to before ``last``: (n, d_model) in float32, exact to float16's 11 bits."""
        rows = torch.from_numpy(self.rows[first:last].astype(np.float32))
        return rows.mul_(torch.from_numpy(self.norms[first:last])[:, None])

    def chunks(self, rows_at_once: int) -> Iterator[tuple[slice, Tensor]]:
        """All of them, at most ``rows_at_once`` in memory at a time, each part with its place."""
        for first in range(0, self.task.n_tokens, rows_at_once):
            last = min(first + rows_at_once, self.task.n_tokens)
            yield slice(first, last), self.residuals(first, last)


def open_scan(task: ScanTask) -> Scan | None:
    """The scan, if all of it is there. It counts as used now.

    Raises:
        UserError: it is there and cannot be read.
    """
    if not _is_place(task):
        return None
    with _disk(task):
        norms = _norms(task)
        if np.isnan(norms).any():
            return None
        with suppress(PermissionError):  # a cache that somebody else filled
            (task.path / _TASK).touch()
        rows = np.memmap(task.path / _ROWS, np.float16, "r", shape=(task.n_tokens, task.d_model))
    return Scan(task, rows, norms)
