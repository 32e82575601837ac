"""Rows of numbers that a running model gives once and that are kept on disk: of a vocabulary scan, of a layers' matrix.

Each is a folder of its own in the cache. One that was interrupted goes on where it stopped, and any number of threads
and processes may work on the same: they write the same rows to the same places.
"""

import hashlib
import json
import os
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from cachetools import LRUCache
from torch import Tensor

from multitool.errors import UserError, size_shown
from multitool.model.tasks import Task
from multitool.store.folders import cache_folder, unfinished
from multitool.store.problems import STORING_ROWS, said

MAX_BYTES = 10 * 10**9  # of all that lie in one folder together

# Each row divided by its norm, so that float16 holds any of them; the norms apart, NaN where a row is not there yet.
_NORMS, _TASK = "norms.float32", "task.json"
_CHECKED_AT_ONCE = 1024  # rows; a few megabytes


@dataclass(frozen=True, kw_only=True)
class RowsTask(Task):
    """Rows to be computed and kept. What its time does not suffice for can be computed another time."""

    where: ClassVar[str]  # the folder in the cache that all of this kind lie in
    file: ClassVar[str]  # of the rows
    format: ClassVar[int] = 1  # to be raised when the same task would give other numbers
    doing: ClassVar[str]  # what is done to compute them, in words,
    counted: ClassVar[str]  # and what is counted meanwhile

    hook: str
    d_model: int
    dtype: str  # the precision that the model runs in
    path: Path  # the rows' own folder

    @property
    def n_rows(self) -> int:
        raise NotImplementedError

    @property
    def what(self) -> str:
        """What the rows are, within a sentence behind "The"."""
        raise NotImplementedError

    @property
    def facts(self) -> dict:
        """What tells the rows from others of the kind."""
        raise NotImplementedError

    @property
    def heading(self) -> str:
        """What is done, in words, to somebody who waits for it."""
        return f"{self.doing} (once for this model and layer)"

    def told(self, done: int) -> str:
        """How far it is, in words."""
        return f"{self.heading}: {done:,} of {self.n_rows:,} {self.counted}"

    @property
    def n_bytes(self) -> int:
        """What they take on disk."""
        return self.n_rows * (self.d_model * 2 + 4)


@dataclass(frozen=True, kw_only=True)
class MatrixTask(RowsTask):
    """The rows of a matrix of a model and a hook, (d_model, d_model)."""

    file = "rows.float16"

    @property
    def n_rows(self) -> int:
        return self.d_model


def rows_path(kind: type[RowsTask], model: str, folder: Path, hook: str, dtype: str, *identity) -> Path:
    """Where rows lie: a name to recognise them by, and a hash of all that their numbers depend on.

    Args:
        identity: what they depend on besides model, hook and precision.
    """
    held = [*folder.glob("*.safetensors")] or [*folder.glob("*.bin")]  # as model_weights finds them
    files = sorted([*held, *folder.glob("config.json")])
    weights = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    told = json.dumps([kind.format, model, str(folder.resolve()), weights, hook, *identity, dtype])
    readable = re.sub(r"[^A-Za-z0-9]+", "-", f"{model[-60:]} {hook[-40:]} {dtype[-10:]}").strip("-")
    return cache_folder() / kind.where / f"{readable}-{hashlib.sha256(told.encode()).hexdigest()[:16]}"


def compute_rows(
    task: RowsTask, prepare: Callable[[], tuple[int, Callable[[int, int], Tensor]]], max_bytes: float = MAX_BYTES
) -> Iterator[int]:
    """Compute what is missing. Yields how many rows are there, first those from before, then after every batch.

    Args:
        prepare: called if any is missing: how many rows at a time, and what gives those from one number up to before
            another, (n, d_model) in float32 on the CPU.
        max_bytes: of all of the kind together; those used longest ago make room.

    Raises:
        UserError: the disk is full, or the cache cannot be written.
    """
    started = time.perf_counter()
    with _disk(task):
        _make_place(task, max_bytes)
        done = _n_done(task)
    yield done
    if done == task.n_rows:
        return
    batch, rows_of = prepare()
    for first in range(0, task.n_rows, batch):
        last = min(first + batch, task.n_rows)
        with _disk(task):  # asked anew: another process may have been here
            missing = np.isnan(_norms(task)[first:last]).any()
        if missing:
            rows = rows_of(first, last)
            with _disk(task):
                _write(task, first, rows)
                done = _n_done(task)
            yield done
            if task.seconds is not None and time.perf_counter() - started > task.seconds:
                return
    if done < task.n_rows:  # others did the last ones meanwhile
        yield task.n_rows


# On disk


def _make_place(task: RowsTask, max_bytes: float) -> None:
    """The rows' folder, with those of before or with none yet, and room for what is missing."""
    others = task.path.parent
    others.mkdir(parents=True, exist_ok=True)
    there = _n_done(task) if _is_place(task) else 0
    needed = (task.n_rows - there) * task.d_model * 2
    _keep_within_limit(task, max_bytes)
    free = shutil.disk_usage(others).free
    if needed > free:
        raise UserError(
            f"The {task.what} takes {size_shown(needed)} on disk, and {others} has "
            f"{size_shown(free)} left. Make room there, or name a folder on a larger disk in SAE_MULTITOOL_CACHE."
        )
    if _is_place(task):
        (task.path / _TASK).touch()
        return
    with unfinished(others) as work:
        fresh = work / "rows"
        fresh.mkdir()
        with (fresh / task.file).open("wb") as file:
            file.truncate(task.n_rows * task.d_model * 2)
        np.full(task.n_rows, np.nan, np.float32).tofile(fresh / _NORMS)
        (fresh / _TASK).write_text(json.dumps(_told(task), indent=1), encoding="utf-8")
        # A rename is atomic: of two who begin at once, the second finds the first one's folder.
        try:
            fresh.rename(task.path)
        except OSError:
            if not _is_place(task):  # but a damaged one
                shutil.rmtree(task.path)
                fresh.rename(task.path)


def _write(task: RowsTask, first: int, vectors: Tensor) -> None:
    # Through the file and not through a memory map, where a full disk would end the process.
    norms = vectors.norm(dim=1)
    rows = vectors / norms.clamp_min(torch.finfo(torch.float32).tiny)[:, None]
    _write_at(task.path / task.file, first * task.d_model * 2, rows.to(torch.float16))
    # Only when the rows are safe do the norms say so.
    _write_at(task.path / _NORMS, first * 4, norms)


def _write_at(path: Path, position: int, values: Tensor) -> None:
    with path.open("r+b") as file:
        file.seek(position)
        file.write(values.numpy().tobytes())
        file.flush()
        os.fsync(file.fileno())


def _norms(task: RowsTask) -> np.ndarray:
    return np.fromfile(task.path / _NORMS, np.float32)


def _n_done(task: RowsTask) -> int:
    return task.n_rows - int(np.isnan(_norms(task)).sum())


def _is_place(task: RowsTask) -> bool:
    """Whether the task's folder is there and is its own, however many rows there are."""
    sizes = {task.file: task.n_rows * task.d_model * 2, _NORMS: task.n_rows * 4}
    try:
        right = all((task.path / name).stat().st_size == size for name, size in sizes.items())
        return right and json.loads((task.path / _TASK).read_text(encoding="utf-8")) == _told(task)
    except (OSError, ValueError):
        return False


def _told(task: RowsTask) -> dict:
    return task.facts | {"format": task.format, "folder": str(task.folder)}


def _keep_within_limit(task: RowsTask, max_bytes: float) -> None:
    """Delete what was used longest ago, until this fits among the others."""
    others = [(_last_used(folder), folder) for folder in task.path.parent.iterdir() if folder != task.path]
    sizes = {folder: _bytes(folder) for _, folder in others}
    total = task.n_bytes + sum(sizes.values())
    for _, folder in sorted(others):
        if total <= max_bytes:
            return
        shutil.rmtree(folder, ignore_errors=True)
        total -= sizes[folder]


def _last_used(folder: Path) -> int:
    """When rows were opened or grew last."""
    return max((stat.st_mtime_ns for stat in _stats(folder)), default=0)


def _bytes(folder: Path) -> int:
    return sum(stat.st_size for stat in _stats(folder))


def _stats(folder: Path) -> list[os.stat_result]:
    stats = []
    with suppress(OSError):  # deleted by another process meanwhile
        for file in folder.rglob("*"):
            stats.append(file.stat())
    return stats


def _disk(task: RowsTask) -> AbstractContextManager[None]:
    size = size_shown(task.n_rows * task.d_model * 2)
    return said(STORING_ROWS, what=task.what, folder=task.path.parent, size=size)


# Reading


@dataclass(frozen=True)
class KeptRows:
    """All rows of a task. They stay on disk and are read in parts."""

    task: RowsTask
    rows: np.memmap  # (n_rows, d_model) float16, of norm 1
    norms: np.ndarray  # (n_rows,) float32

    def part(self, first: int, last: int) -> Tensor:
        """Those from ``first`` up to before ``last``: (n, d_model) in float32, exact to float16's 11 bits."""
        rows = torch.from_numpy(self.rows[first:last].astype(np.float32))
        return rows.mul_(torch.from_numpy(self.norms[first:last])[:, None])

    def chunks(self, rows_at_once: int) -> Iterator[tuple[slice, Tensor]]:
        """All of them, at most ``rows_at_once`` in memory at a time, each part with its place."""
        for first in range(0, self.task.n_rows, rows_at_once):
            last = min(first + rows_at_once, self.task.n_rows)
            yield slice(first, last), self.part(first, last)


def open_rows(task: RowsTask) -> KeptRows | None:
    """The rows, if all of them are there. They count as used now.

    Rows that are none (a disk gives back zeros where it lost what was written) are found when a file is opened for the
    first time, and are missing from then on: the next to compute them goes on with these.

    Raises:
        UserError: they are there and cannot be read, or are damaged where nobody may write, or once more.
    """
    if not _is_place(task):
        return None
    with _disk(task):
        norms = _norms(task)
        if np.isnan(norms).any():
            return None
        with suppress(PermissionError):  # a cache that somebody else filled
            (task.path / _TASK).touch()
        rows = np.memmap(task.path / task.file, np.float16, "r", shape=(task.n_rows, task.d_model))
        kept = KeptRows(task, rows, norms)
        return kept if _is_whole(kept) else None


_checked: LRUCache[tuple, bool] = LRUCache(256)  # files that were found to be whole, by what changes when they do
_made_anew: LRUCache[Path, tuple] = LRUCache(256)  # those with rows that are none, as their file was then
_lock = threading.Lock()  # of the two; held for moments only, as a forked process may inherit it


def _is_whole(kept: KeptRows) -> bool:
    """Whether all rows are what was written, as their lengths tell. Those that are not are missing from now on."""
    path, names = kept.task.path, (kept.task.file, _NORMS)
    rows, norms = ((stat.st_ino, stat.st_mtime_ns) for stat in ((path / name).stat() for name in names))
    key = (path, rows, norms)
    with _lock:
        if key in _checked:
            return True
    damaged = np.flatnonzero(_is_no_row(kept))
    with _lock:
        if not len(damaged):
            _checked[key] = True
            return True
        again = _made_anew.setdefault(path, rows) != rows  # another thread may have found the same
    if not again:
        with suppress(OSError), (path / _NORMS).open("r+b") as file:
            for row in damaged:
                file.seek(int(row) * 4)
                file.write(np.float32(np.nan).tobytes())
            return False
    raise UserError(
        f"The {kept.task.what} in {path} is damaged: {len(damaged)} of its rows are not what was written. Delete that "
        "folder to have it made anew, or name another folder in SAE_MULTITOOL_CACHE."
    )


def _is_no_row(kept: KeptRows) -> np.ndarray:
    """(n_rows,) bool: those that cannot be what was written: of norm 1 but for what half precision rounds, or zeros."""
    lengths = torch.empty(kept.task.n_rows)
    for part in range(0, kept.task.n_rows, _CHECKED_AT_ONCE):
        place = slice(part, part + _CHECKED_AT_ONCE)
        rows = torch.from_numpy(kept.rows[place].astype(np.float32))
        lengths[place] = torch.linalg.vector_norm(rows, dim=1)
    found, norms = lengths.numpy(), kept.norms
    least = np.finfo(np.float32).tiny
    right = np.where(norms < least, (found < 1.01) & ((norms > 0) | (found == 0)), np.abs(found - 1) < 0.01)
    return ~right | ~np.isfinite(norms) | (norms < 0)
