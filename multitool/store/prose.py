"""Plain prose as a model reads it: its residuals at a hook, kept on disk. What features do on everything shows there.

It belongs to a model, a hook and a precision, and serves every SAE there.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from multitool.model.questions import read_texts
from multitool.model.tasks import Place, Text
from multitool.store.encoder import Encoder
from multitool.store.kept_rows import MAX_BYTES, KeptRows, RowsTask, compute_rows, rows_path

LONGEST_PASSAGE = 128  # tokens; what is longer is cut, for models with short contexts


@dataclass(frozen=True, kw_only=True)
class ProseRowsTask(RowsTask):
    """The residuals of passages, token by token, one passage after the other."""

    where = "prose"
    file = "residuals.float16"
    doing, counted = "Reading plain prose", "tokens"

    texts: tuple[Text, ...]
    bos_id: int | None  # the token before each one; None: nothing stands before it

    @property
    def n_rows(self) -> int:
        return sum(map(len, self.texts))

    @property
    def what(self) -> str:
        return f"reading of plain prose by {self.model}"

    @property
    def facts(self) -> dict:
        names = ("model", "hook", "d_model", "bos_id", "dtype")
        return {name: getattr(self, name) for name in names} | {"texts": [list(text) for text in self.texts]}


def prose_rows_task(
    model: str, folder: Path, place: Place, texts: Sequence[Text], *, d_model: int, dtype: str
) -> ProseRowsTask:
    """All of it; see ``ProseRowsTask``.

    Args:
        texts: token ids of the passages, without what stands before them.
    """
    read = tuple(tuple(text[:LONGEST_PASSAGE]) for text in texts)
    path = rows_path(ProseRowsTask, model, folder, place.hook, dtype, place.bos_id, read)
    return ProseRowsTask(
        model=model, folder=folder, hook=place.hook, d_model=d_model, dtype=dtype, path=path, texts=read,
        bos_id=place.bos_id,
    )


def read_prose(model, task: ProseRowsTask, max_bytes: float = MAX_BYTES) -> Iterator[int]:
    """Read what is missing. Yields how many tokens are there, as ``compute_rows``.

    Args:
        model: the running model that the task names.

    Raises:
        UserError: as ``compute_rows``; or the hook does not exist.
        NotFiniteError: the model does not compute finite numbers.
    """

    def prepare():
        read = torch.from_numpy(np.concatenate(read_texts(model, task.texts, Place(task.hook, task.bos_id))))
        return task.n_rows, lambda first, last: read[first:last]

    return compute_rows(task, prepare, max_bytes)


def mean_maximum(encoder: Encoder, task: ProseRowsTask, kept: KeptRows) -> Tensor:
    """The mean over the passages of each feature's maximum: (d_sae,) float32.

    Args:
        kept: the task's rows.
    """
    total, first = torch.zeros(encoder.d_sae), 0
    for text in task.texts:
        fires = encoder.encoded(kept.part(first, first + len(text)))
        total += torch.stack([part.amax(0) for _, part in fires]).amax(0)
        first += len(text)
    return total / len(task.texts)
