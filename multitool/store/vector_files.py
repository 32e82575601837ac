"""A vector of one's own from a file: a numpy array or a tensor. No file that can run code is read."""

from pathlib import Path

import numpy as np

from multitool.errors import UserError, shown, size_shown
from multitool.recipes.own_vectors import plain_numbers
from multitool.store.problems import Cases, said
from multitool.store.sae_files import safetensors_file

ENDINGS = (".npy", ".safetensors")
MOST_BYTES = 8 << 20  # of a file: a vector for each layer of a large model
_READING: Cases = (
    ((ValueError, EOFError), "{file} is no numpy array that is read here: {error}. Save one with numpy.save."),
    (OSError, "{file} cannot be read ({reason})."),
)


def read_vector(path: Path, name: str = "") -> tuple[list[float], str]:
    """A vector's numbers, and what it is called: its tensor's name, or the file's.

    Args:
        path: ends in one of ``ENDINGS``.
        name: which tensor is meant, where the file has several.

    Raises:
        UserError: it cannot be read, is too large, has no such tensor, or holds no single row of numbers.
    """
    if path.suffix.lower() not in ENDINGS:
        raise UserError(
            f"{shown(path.name)} ends in none of {', '.join(ENDINGS)}, which tell how a vector is kept in a file."
        )
    with said(_READING, file=shown(path.name)):
        size = path.stat().st_size
    if size > MOST_BYTES:
        raise UserError(f"{path.name} is {size_shown(size)}; at most {size_shown(MOST_BYTES)} of such a file are read.")
    row, called = _array(path) if path.suffix.lower() == ".npy" else _tensor(path, name)
    if not (row.ndim == 1 or row.ndim == 2 and row.shape[0] == 1):
        raise UserError(
            f"{path.name} holds numbers of the shape {tuple(row.shape)}; it must be one row, (d_model,)."
        )
    return plain_numbers(row.reshape(-1)), name or called


def _array(path: Path):
    with said(_READING, file=path.name):
        array = np.load(path, mmap_mode="r", allow_pickle=False)  # mapped, a header that promises more is no harm
    if array.dtype.kind not in "fiu":
        raise UserError(f"{path.name} holds {array.dtype}, and must hold numbers.")
    return array, path.stem


def _tensor(path: Path, name: str):
    weights = safetensors_file(path)
    names = list(weights.headers)
    if len(names) != 1 and name not in names:
        given = f"none is called {shown(name)}" if name else "it does not say which is meant"
        raise UserError(
            f"{path.name} has {len(names)} tensors, and {given}: {weights.names()}. Name one (--vector-name)."
        )
    chosen = name if name in names else names[0]
    if weights.headers[chosen].dtype not in ("float16", "bfloat16", "float32", "float64"):
        raise UserError(f"{path.name}: {chosen} is {weights.headers[chosen]}, and must hold floating-point numbers.")
    return weights.read(chosen), chosen
