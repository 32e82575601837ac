"""Jacobian lenses that are fitted already: the local models', and those that Neuronpedia has put on the hub.

A lens is a matrix for a model and a hook (``model.jacobian_lens``). Those on the hub were fitted with the lens'
reference implementation (https://github.com/anthropics/jacobian-lens), whose file format this reads: a dictionary that
``torch.save`` wrote, with the matrices in ``J`` by the number of the layer at whose output they begin, in half
precision, to be multiplied with a direction from the left.
"""

import re
import zipfile
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from multitool.errors import UserError
from multitool.store.demo_models import DEMO_MODELS
from multitool.store.entries import registry_facts
from multitool.store.hub import UNLIMITED, DownloadOptions, fetch_lens_file
from multitool.store.problems import READING_PICKLE, refuse_pointer, said
from multitool.store.sae_files import refuse_unpickling, safetensors_file

LENS_FILE = "jacobian_lens.safetensors"
_RESIDUAL = re.compile(r"blocks\.(\d{1,4})\.hook_resid_(pre|post)")


@dataclass(frozen=True)
class FittedLens:
    """A Jacobian lens."""

    J: Tensor  # (d_model, d_model), float32: a direction d at the hook becomes J @ d
    source: str  # where it is from, in words

    def carry(self, directions: Tensor) -> Tensor:
        """Directions at the hook, (n, d_model), as they are after the last layer."""
        return directions @ self.J.T


def is_fitted(model: str, hook: str) -> bool:
    """Whether ``fitted_lens`` has a lens for a hook of a model."""
    return _shipped(model, hook) is not None or _on_hub(model, hook) is not None


def is_shipped(model: str, hook: str) -> bool:
    """Whether that lens is a local model's, which lies here."""
    return _shipped(model, hook) is not None


def fitted_lens(model: str, hook: str, d_model: int, download: DownloadOptions = UNLIMITED) -> FittedLens:
    """The lens for a hook of a model, one of those of which ``is_fitted`` says that there is one.

    Raises:
        UserError: it cannot be had or read.
    """
    if path := _shipped(model, hook):
        J, source = safetensors_file(path).read("J"), "the demo's"
    else:
        found = _on_hub(model, hook)
        assert found
        repo_id, file, layer = found
        path = fetch_lens_file(repo_id, file, download) / file
        J, source = _layer_of(path, layer), f"{repo_id} on the hub"
    if tuple(J.shape) != (d_model, d_model) or not J.is_floating_point():
        raise UserError(
            f"The Jacobian lens in {path} is a matrix {tuple(J.shape)} of {J.dtype}, and the residual stream of "
            f"{model} has {d_model} entries. Name the model's folder with --model, so that a lens is fitted here."
        )
    return FittedLens(J.float(), source)


def _shipped(model: str, hook: str) -> Path | None:
    """The lens that lies beside a local model's SAE of that hook, if there is one."""
    path = DEMO_MODELS[model].saes / hook / LENS_FILE if model in DEMO_MODELS else None
    return path if path and path.is_file() else None


def _on_hub(model: str, hook: str) -> tuple[str, str, int] | None:
    """Repository, file and layer. Fitted are the outputs of layers; the input of one is the output of that below it."""
    known, match = registry_facts()["jacobian_lenses"], _RESIDUAL.fullmatch(hook)
    if match is None or model not in known["files"]:
        return None
    layer = int(match[1]) - (match[2] == "pre")
    return (known["repo_id"], known["files"][model], layer) if layer >= 0 else None


def _layer_of(path: Path, layer: int) -> Tensor:
    """One layer's matrix out of a lens file, mapped into memory: of the others nothing is read.

    Raises:
        UserError: it cannot be read, or not without the risk of running what is in it, or lacks the layer.
    """
    refuse_unpickling(str(path))
    refuse_pointer(path)
    with said(READING_PICKLE, file=path):
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    matrices = state.get("J") if isinstance(state, dict) else None
    J = matrices.get(layer) if isinstance(matrices, dict) else None
    if not isinstance(J, Tensor) or J.layout != torch.strided or J.nbytes > J.untyped_storage().nbytes():
        raise UserError(
            f"{path} holds no Jacobian lens for the output of layer {layer} (a matrix of that number in J). Name the "
            "model's folder with --model, so that a lens is fitted here."
        )
    return J.detach()
