"""A Jacobian lens that is fitted here: a matrix for a model and a hook, kept on disk."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from multitool.model.jacobian_lens import JacobianLens
from multitool.model.tasks import Place, Text
from multitool.store.kept_rows import MAX_BYTES, MatrixTask, compute_rows, rows_path

LONGEST_TEXT = 128  # tokens, as in the lens' reference implementation
_AT_LEAST = 8  # rows between two writes


@dataclass(frozen=True, kw_only=True)
class LensRowsTask(MatrixTask):
    """The rows of ``J``; a direction at the hook becomes ``J @ d``."""

    where = "lenses"
    doing, counted = "Fitting the Jacobian lens", "rows"

    texts: tuple[Text, ...]  # running text, each with what stands before it

    @property
    def what(self) -> str:
        return f"Jacobian lens of {self.model} from {self.hook} on"

    @property
    def facts(self) -> dict:
        facts = {name: getattr(self, name) for name in ("model", "hook", "d_model", "dtype")}
        return facts | {"texts": [list(text) for text in self.texts]}


def lens_rows_task(
    model: str, folder: Path, place: Place, texts: Sequence[Text], *, d_model: int, dtype: str
) -> LensRowsTask:
    """The whole lens; see ``LensRowsTask``.

    Args:
        texts: token ids of running text, without what stands before it.
    """
    before = () if place.bos_id is None else (place.bos_id,)
    read = tuple((*before, *text)[:LONGEST_TEXT] for text in texts)
    path = rows_path(LensRowsTask, model, folder, place.hook, dtype, read)
    return LensRowsTask(
        model=model, folder=folder, hook=place.hook, d_model=d_model, dtype=dtype, path=path, texts=read
    )


def fit_lens(model, task: LensRowsTask, max_bytes: float = MAX_BYTES) -> Iterator[int]:
    """Compute the rows that are missing. Yields how many are there, as ``compute_rows``.

    Args:
        model: the running model that the task names.

    Raises:
        UserError: as ``compute_rows``; or the hook does not exist.
        NotFiniteError: the model does not compute finite numbers.
    """

    def prepare():
        lens = JacobianLens(model, task.hook, task.texts)
        return max(_AT_LEAST, lens.at_once), lambda first, last: lens.rows(range(first, last))

    return compute_rows(task, prepare, max_bytes)
