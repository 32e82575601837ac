"""The files that SAEs are kept in: JSON within bounds, and tensors whose shapes are known before they are read.

No file that can run code is read: pickles are read as plain weights only, arrays without pickles.
"""

import json
import math
import os
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors import safe_open

from multitool.errors import UserError, shown, size_shown
from multitool.store.problems import READING_CFG, READING_NPZ, READING_PICKLE, READING_WEIGHTS, refuse_pointer, said

if TYPE_CHECKING:
    from torch import Tensor

MAX_JSON_BYTES = 4 << 20
MAX_JSON_DEPTH = 40
_MOST_TENSORS = 256
_FLOATING = ("float16", "bfloat16", "float32", "float64")
_SAFETENSORS_DTYPES = {"F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64"}


def read_json(path: Path, max_bytes: int = MAX_JSON_BYTES) -> dict:
    """The JSON object in a file.

    Raises:
        UserError: it is missing or unreadable, too large or too deep, or no object.
    """
    with said(READING_CFG, file=path):
        size = path.stat().st_size
        if size > max_bytes:
            raise UserError(f"{path} is {size_shown(size)}; at most {size_shown(max_bytes)} of such a file are read.")
        if path.exists() and not path.is_file():
            raise UserError(f"{path} is no file.")
        content = json.loads(path.read_text(encoding="utf-8-sig"))  # some editors write a mark at its beginning
    if not isinstance(content, dict):
        raise UserError(f"{path} is not an SAE configuration: it holds no JSON object.")
    if deeper_than(content, MAX_JSON_DEPTH):
        raise UserError(f"{path} is nested more than {MAX_JSON_DEPTH} deep, as no SAE's configuration is.")
    return content


def deeper_than(content: Any, depth: int) -> bool:
    """Whether JSON values lie more than ``depth`` deep in each other."""
    level = [content]
    for _ in range(depth):
        values = (value.values() if isinstance(value, dict) else value for value in level)
        level = [inner for value in values for inner in value if isinstance(inner, (dict, list))]
        if not level:
            return False
    return True


@dataclass(frozen=True)
class Header:
    """What a file says of a tensor before it is read."""

    shape: tuple[int, ...]
    dtype: str

    def __str__(self) -> str:
        return f"{self.shape} of {self.dtype}"


@dataclass(frozen=True)
class Weights:
    """A file of tensors, none of them read yet."""

    path: Path
    headers: Mapping[str, Header]
    read: Callable[[str], "Tensor"]  # one of them, as stored

    def __contains__(self, name: str) -> bool:
        return name in self.headers

    def matrix(self, name: str) -> tuple[int, int]:
        """The shape of a matrix of floating-point numbers. Raises UserError if there is none of that name."""
        self.have(name)
        header = self.headers[name]
        if len(header.shape) != 2 or header.dtype not in _FLOATING:
            raise UserError(f"{self.path}: {name} is {header}, and must be a matrix of floating-point numbers.")
        return header.shape[0], header.shape[1]

    def have(self, *names: str) -> None:
        """Raises UserError if one of these tensors is missing."""
        missing = [name for name in names if name not in self.headers]
        if missing:
            raise UserError(
                f"{self.path} has no {' and no '.join(missing)}; its features have no directions. It has "
                f"{self.names()}."
            )

    def names(self) -> str:
        """The names of the first tensors, for a message."""
        names = [shown(name) for name in sorted(self.headers)]
        return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "") if names else "nothing"


def safetensors_file(path: Path) -> Weights:
    """Raises UserError if it cannot be read."""

    def read(name: str) -> "Tensor":
        with said(READING_WEIGHTS, file=path), safe_open(path, framework="pt") as file:
            return file.get_tensor(name)

    headers = {}
    refuse_pointer(path)
    with said(READING_WEIGHTS, file=path), safe_open(path, framework="np") as file:
        names = list(file.keys())
        _check_count(path, len(names))
        for name in names:
            part = file.get_slice(name)
            dtype = str(part.get_dtype())
            headers[name] = Header(tuple(part.get_shape()), _SAFETENSORS_DTYPES.get(dtype, dtype))
    return Weights(path, headers, read)


def npz_file(path: Path) -> Weights:
    """Raises UserError if it cannot be read."""

    def read(name: str) -> "Tensor":
        import torch

        with said(READING_NPZ, file=path), np.load(path, allow_pickle=False) as arrays:
            return torch.from_numpy(arrays[name])

    refuse_pointer(path)
    with said(READING_NPZ, file=path), zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        _check_count(path, len(members))
        headers = dict(_npz_header(path, archive, member) for member in members)
    return Weights(path, headers, read)


def _npz_header(path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> tuple[str, Header]:
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        if version not in readers:
            raise ValueError(f"{member.filename} is an array of version {version}")
        shape, _, dtype = readers[version](file)
        # What it unpacks to is what its shape takes, whatever a small file may promise.
        if dtype.hasobject or member.file_size - file.tell() != math.prod(shape) * dtype.itemsize:
            raise UserError(f"{path}: {shown(member.filename)} is not as large as its shape {shape} takes.")
    return member.filename.removesuffix(".npy"), Header(tuple(shape), str(dtype))


def pickle_file(path: Path) -> Weights:
    """A dictionary of tensors that ``torch.save`` wrote, mapped into memory where its kind of file can be.

    Raises:
        UserError: it cannot be read, or not without the risk of running what is in it.
    """
    import torch

    refuse_unpickling(str(path))
    refuse_pointer(path)
    with said(READING_PICKLE, file=path):
        # Files from before PyTorch 1.6 are no archives, and cannot be mapped.
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    if not isinstance(state, dict):
        raise UserError(f"{path} holds a {type(state).__name__}, and must hold a dictionary of tensors by name.")
    tensors = {name: tensor for name, tensor in state.items() if isinstance(name, str) and torch.is_tensor(tensor)}
    _check_count(path, len(tensors))
    for name, tensor in tensors.items():
        # A few bytes can be repeated into a tensor of any size.
        if tensor.layout != torch.strided or tensor.nbytes > tensor.untyped_storage().nbytes():
            raise UserError(f"{path}: {shown(name)} is no plain tensor, or is larger than what is stored of it.")
    headers = {name: Header(tuple(one.shape), str(one.dtype).removeprefix("torch.")) for name, one in tensors.items()}
    return Weights(path, headers, lambda name: tensors[name].detach())


def refuse_unpickling(what: str) -> None:
    """Raises UserError where the environment makes PyTorch run what is in pickles."""
    if os.environ.get("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "").lower() in ("1", "y", "yes", "true"):
        raise UserError(
            f"{what} is kept in a pickle, which is read as plain weights only; TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD would "
            "run what is in it. Unset that variable."
        )


def _check_count(path: Path, n: int) -> None:
    if n > _MOST_TENSORS:
        raise UserError(f"{path} holds {n} tensors, more than any SAE has ({_MOST_TENSORS} are read at most).")


def folders_below(folder: Path, most: int = 2000, depth: int = 4) -> Iterator[tuple[Path, list[str]]]:
    """Folders in a folder, not itself, with the names of their files; not deeper than ``depth``, ``most`` at most."""
    for place, folders, files in islice(os.walk(folder), most):
        here = Path(place)
        folders.sort()
        if len(here.relative_to(folder).parts) >= depth:
            folders.clear()
        if here != folder:
            yield here, files
