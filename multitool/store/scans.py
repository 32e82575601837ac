"""The vocabulary scan: every token read alone by the model, and the residual at its place kept on disk.

A scan belongs to a model, a hook and a precision, and serves every SAE there. How it is kept: ``kept_rows``.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from multitool.model.finite import finite
from multitool.model.kv_cache import cache_bytes, repeated
from multitool.model.residual_stream import EMBEDDING, residuals
from multitool.store.kept_rows import MAX_BYTES, RowsTask, compute_rows, rows_path

_BATCH = {"cpu": 512, "cuda": 4096}  # tokens in one forward pass
BATCH_BYTES = 1 << 30


@dataclass(frozen=True, kw_only=True)
class ScanTask(RowsTask):
    """A vocabulary to scan."""

    where = "scans"
    file = "residuals.float16"
    doing, counted = "Scanning the vocabulary", "tokens"

    n_tokens: int  # V
    bos_id: int | None  # the token before each one; None: nothing stands before it
    batch: int | None = None  # tokens in one forward pass; None: what suits the device
    batch_bytes: int = BATCH_BYTES  # memory that the keys and values of a batch may take

    @property
    def n_rows(self) -> int:
        return self.n_tokens

    @property
    def what(self) -> str:
        return f"scan of {self.model}'s vocabulary"

    @property
    def facts(self) -> dict:
        names = ("model", "hook", "n_tokens", "d_model", "bos_id", "dtype")
        return {name: getattr(self, name) for name in names}


def scan_task(
    model: str, folder: Path, hook: str, *, n_tokens: int, d_model: int, bos_id: int | None, dtype: str
) -> ScanTask:
    """The scan of a model's whole vocabulary at a hook; see ``ScanTask``."""
    path = scan_path(model, folder, hook, bos_id=bos_id, dtype=dtype)
    return ScanTask(
        model=model, folder=folder, hook=hook, n_tokens=n_tokens, d_model=d_model, bos_id=bos_id, dtype=dtype, path=path
    )


def scan_path(model: str, folder: Path, hook: str, *, bos_id: int | None, dtype: str) -> Path:
    """Where a scan lies."""
    return rows_path(ScanTask, model, folder, hook, dtype, bos_id)


def scan_vocabulary(model, task: ScanTask, max_bytes: float = MAX_BYTES) -> Iterator[int]:
    """Scan what is missing. Yields how many tokens are there, as ``compute_rows``.

    Args:
        model: the running model that the task names.

    Raises:
        UserError: as ``compute_rows``; or the hook does not exist.
        NotFiniteError: the model does not compute finite numbers.
    """

    def prepare():
        prefix = _prefix(model, task)
        return _batch_size(model, task, prefix), partial(_read_tokens, model, task, prefix)

    return compute_rows(task, prepare, max_bytes)


def _prefix(model, task: ScanTask):
    """The model's cache of what stands before every token. It is the same for all, so it is computed once."""
    if task.bos_id is None or task.hook == EMBEDDING:
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


def _read_tokens(model, task: ScanTask, prefix, first: int, last: int) -> Tensor:
    """Their residuals, (n, d_model) in float32 on the CPU."""
    cache = None if prefix is None else repeated(prefix, last - first)
    ids = torch.arange(first, last)[:, None]
    vectors = residuals(model, task.hook, input_ids=ids, cache=cache)[:, -1].float().cpu()
    finite(vectors.norm(dim=1))
    return vectors
