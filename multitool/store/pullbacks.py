"""Every direction of a place carried back to the embeddings: a matrix for a model and a hook, kept on disk.

With it the pullback of any feature is a product, where ``model.pullback`` would take a backward pass for each.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from multitool.model.pullback import Pullback
from multitool.model.tasks import Base
from multitool.store.demo_models import DEMO_MODELS
from multitool.store.kept_rows import MAX_BYTES, MatrixTask, compute_rows, rows_path
from multitool.store.sae_files import safetensors_file

_AT_LEAST = 16  # rows between two writes


@dataclass(frozen=True, kw_only=True)
class PullbackRowsTask(MatrixTask):
    """The pullbacks of all unit directions of a place, the transpose of the layers' average Jacobian."""

    where = "pullbacks"
    doing, counted = "Carrying all directions back through the layers", "directions"

    base: Base

    @property
    def what(self) -> str:
        return f"Jacobian of {self.model} up to {self.hook}"

    @property
    def facts(self) -> dict:
        base = asdict(self.base)["place"] | {"token_ids": list(self.base.token_ids)}
        return {name: getattr(self, name) for name in ("model", "d_model", "dtype")} | base


def pullback_rows_task(model: str, folder: Path, base: Base, *, d_model: int, dtype: str) -> PullbackRowsTask:
    """The whole matrix; see ``PullbackRowsTask``."""
    hook = base.place.hook
    path = rows_path(PullbackRowsTask, model, folder, hook, dtype, base.place.bos_id, base.token_ids)
    return PullbackRowsTask(
        model=model, folder=folder, hook=hook, d_model=d_model, dtype=dtype, path=path, base=base
    )


def pull_back_all(model, task: PullbackRowsTask, max_bytes: float = MAX_BYTES) -> Iterator[int]:
    """Compute the rows that are missing. Yields how many are there, as ``compute_rows``.

    Args:
        model: the running model that the task names.

    Raises:
        UserError: as ``compute_rows``; or the hook does not exist.
        NotFiniteError: the model does not compute finite numbers.
    """

    def prepare():
        pullback = Pullback(model, task.base)

        def rows_of(first: int, last: int) -> Tensor:
            unit_directions = torch.eye(task.d_model)[first:last]
            return torch.cat([pullback.of(part) for part in unit_directions.split(pullback.at_once)])

        return max(_AT_LEAST, pullback.at_once), rows_of

    return compute_rows(task, prepare, max_bytes)


# Those of the local models are shipped with their SAEs

_SHIPPED = "pullback.safetensors"


def shipped_pullback(task: PullbackRowsTask) -> Path | None:
    """The file that holds the task's matrix, if one came with an SAE of that hook: a local model's, made on it."""
    path = DEMO_MODELS[task.model].saes / task.hook / _SHIPPED if task.model in DEMO_MODELS else None
    return path if path and path.is_file() else None


def read_shipped(path: Path) -> Tensor:
    """The matrix in such a file, (d_model, d_model) float32, up to a factor. Raises UserError if it cannot be read."""
    return safetensors_file(path).read("pullback").float()


def write_shipped(folder: Path, matrix: Tensor) -> Path:
    """Keep a matrix beside an SAE, in half precision. Its length says nothing, so the largest entry becomes 1."""
    path = folder / _SHIPPED
    save_file({"pullback": (matrix / matrix.abs().max()).half()}, path)
    return path
