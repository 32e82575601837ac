"""The weights of a model folder: which of its files hold them, and in which form.

As transformers looks for them: ``model.safetensors``, then the files that an index lists. Where there is neither also
safetensors files without an index, and ``pytorch_model*.bin``, which are pickles and are read as plain weights only.
"""

import json
import re
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError

import torch
from safetensors import safe_open
from torch import Tensor

from multitool.errors import UserError, shown
from multitool.store.problems import refuse_pointer
from multitool.store.sae_files import refuse_unpickling

_ADAPTER = "adapter_config.json"
_LARGEST_POINTER = 1024  # bytes
_PART = re.compile(r"(.*-)(\d{1,5})-of-(\d{1,5})(\.\w+)")
_IN_A_COMMAND = re.compile(r"[\w./:~+-]+")  # what needs no quotes and does nothing there
_MERGE = (
    "python -c \"from peft import AutoPeftModelForCausalLM as M; from transformers import AutoTokenizer as T; "
    "M.from_pretrained('{adapter}').merge_and_unload().save_pretrained('MERGED'); "
    "T.from_pretrained('{base}').save_pretrained('MERGED')\""
)


@dataclass(frozen=True)
class ModelWeights:
    """Where each tensor of a model lies."""

    files: dict[str, Path]  # by the tensor's name
    found_by_transformers: bool  # else transformers is given the tensors

    def tensor(self, name: str) -> Tensor:
        """One tensor, as stored."""
        path = self.files[name]
        if path.suffix == ".bin":
            return _plain_weights(path)[name]
        with safe_open(path, framework="pt") as weights:
            return weights.get_tensor(name)

    def tensors(self) -> dict[str, Tensor]:
        """All of them, as stored, mapped from the files."""
        found: dict[str, Tensor] = {}
        for path in dict.fromkeys(self.files.values()):
            if path.suffix == ".bin":
                found |= _plain_weights(path)
            else:
                with safe_open(path, framework="pt") as weights:
                    found |= {name: weights.get_tensor(name) for name in list(weights.keys())}
        return found


def model_weights(folder: Path, whose: str) -> ModelWeights:
    """Where the weights in a model folder lie.

    Args:
        whose: the model, as the beginning of a sentence.

    Raises:
        UserError: there are none that can be read, or not all of them.
    """
    one, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if one.is_file():
        return ModelWeights(_in_files([one], whose), True)
    if index.is_file():
        return ModelWeights(_listed(index, whose), True)
    several = sorted(path for path in folder.glob("*.safetensors") if not path.name.startswith("adapter_"))
    if several:
        return ModelWeights(_in_files(several, whose), False)
    index = folder / "pytorch_model.bin.index.json"
    if index.is_file():
        return ModelWeights(_listed(index, whose), False)
    if pickles := sorted(folder.glob("pytorch_model*.bin")):
        return ModelWeights(_in_files(pickles, whose), False)
    others = sorted(path.name for path in folder.iterdir() if path.suffix in _OTHER_FORMS)
    instead = f" What is there ({', '.join(others[:5])}) is not read." if others else ""
    raise UserError(f"{whose} has no weights: no *.safetensors, and no pytorch_model.bin.{instead}")


_OTHER_FORMS = (".gguf", ".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".onnx", ".npz")


def _in_files(paths: list[Path], whose: str) -> dict[str, Path]:
    """By tensor, the file that holds it, where no index tells."""
    if missing := _missing_parts(path.name for path in paths):
        raise UserError(f"{whose} is not whole: of its weights {_some(missing)} is not there. Copy it too.")
    files: dict[str, Path] = {}
    for path in paths:
        names = _plain_weights(path) if path.suffix == ".bin" else _names(path)
        for name in names:
            if name in files:
                raise UserError(
                    f"{whose} has {shown(name)} in two files, {files[name].name} and {path.name}, and no index "
                    "(model.safetensors.index.json) that tells which one counts. Move away what does not belong to it."
                )
            files[name] = path
    return files


def _missing_parts(names: Iterable[str]) -> list[str]:
    """The files that are missing among those that are numbered as parts of a whole (``…-00001-of-00003…``)."""
    there = {name for name in names if _PART.fullmatch(name)}
    missing = set()
    for name in there:
        begin, number, n_parts, end = _PART.fullmatch(name).groups()  # type: ignore[union-attr]  # as above
        for part in range(1, min(int(n_parts), 1000) + 1):
            missing.add(f"{begin}{part:0{len(number)}}-of-{n_parts}{end}")
    return sorted(missing - there)


def _names(path: Path) -> list[str]:
    with safe_open(path, framework="pt") as weights:
        return list(weights.keys())


def _listed(index: Path, whose: str) -> dict[str, Path]:
    """By tensor, the file that an index says it is in."""
    try:
        listed = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        files = {str(name): index.parent / file for name, file in listed.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{whose} has a damaged index: {index.name} has no map of tensors to files.") from error
    for path in dict.fromkeys(files.values()):
        if path.parent != index.parent or path.name in ("", "..") or path.suffix not in (".safetensors", ".bin"):
            raise UserError(f"{whose} has an index that names {shown(str(path))}, outside of its folder or no weights.")
    if missing := [path.name for path in dict.fromkeys(files.values()) if not path.is_file()]:
        raise UserError(f"{whose} is not whole: its {index.name} names {_some(missing)}, which is not there.")
    return files


def _plain_weights(path: Path) -> dict[str, Tensor]:
    refuse_unpickling(str(path))
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except (UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise UserError(
            f"{path} is a pickle that is damaged or holds more than plain weights, and was not read: such a file can "
            "run code. Copy it again, or bring the model in safetensors: save_pretrained() writes model.safetensors."
        ) from error
    if not isinstance(weights, dict) or not all(isinstance(weight, Tensor) for weight in weights.values()):
        raise UserError(f"{path} holds no weights by name, as save_pretrained() writes them.")
    return weights


def refuse_pointers(folder: Path) -> None:
    """Raises UserError if a file of a model is only a pointer of Git LFS."""
    for path in sorted(folder.iterdir()):
        if path.is_file() and path.stat().st_size < _LARGEST_POINTER:
            refuse_pointer(path)


def refuse_adapter(folder: Path, whose: str) -> None:
    """Raises UserError if a folder holds an adapter (LoRA and the like), with the command that makes a model of it."""
    if not (folder / _ADAPTER).is_file():
        return
    try:
        base = json.loads((folder / _ADAPTER).read_text(encoding="utf-8"))["base_model_name_or_path"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        base = None
    # Both end in a command that is copied: what could do anything else there is left out.
    base, adapter = (
        name if isinstance(name, str) and len(name) <= 200 and _IN_A_COMMAND.fullmatch(name) else instead
        for name, instead in ((base, "BASE_MODEL"), (str(folder), "ADAPTER"))
    )
    merge = _MERGE.format(adapter=adapter, base=base)
    if any(folder.glob("model*.safetensors")) or any(folder.glob("pytorch_model*.bin")):
        raise UserError(
            f"{whose} has a model's weights and an adapter's settings ({_ADAPTER}) too, and does not say whether the "
            f"one has the other in it. If it has, move {_ADAPTER} away; else merge them: {merge}"
        )
    raise UserError(
        f"{whose} is an adapter of {base} (LoRA or the like), and no whole model. Merge the two once (pip install "
        f"peft): {merge} and name the folder MERGED as the model."
    )


def _some(names: list[str]) -> str:
    return names[0] + (f" (and {len(names) - 1} more)" if len(names) > 1 else "")
