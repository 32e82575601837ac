"""Loading an SAE's weights: from the package, from a folder, from the hub.

No file that can run code is read: weights come from safetensors, npz without pickles, or PyTorch's weights-only files.
"""

import json
import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from safetensors import safe_open
from torch import Tensor

from multitool.errors import UserError
from multitool.store.entries import SaeEntry
from multitool.store.folders import read_cfg
from multitool.store.hub import UNLIMITED, DownloadOptions, fetch_sae_files
from multitool.store.problems import FETCH_AGAIN, HOLDING, READING_WEIGHTS, reading_by_sae_lens, said
from multitool.vectors.vector import FeatureWeights

_OWN_FORMAT = ("cfg.json", "sae_weights.safetensors")


@dataclass(frozen=True)
class Sae:
    """An SAE's directions. Weights as stored; a feature's rows are read in float32."""

    entry: SaeEntry
    W_enc: Tensor  # (d_model, d_sae)
    W_dec: Tensor  # (d_sae, d_model)

    @property
    def d_model(self) -> int:
        return self.W_dec.shape[1]

    @property
    def d_sae(self) -> int:
        return self.W_dec.shape[0]

    def check(self, index: int) -> None:
        """Raises UserError if there is no such feature."""
        if not 0 <= index < self.d_sae:
            raise UserError(
                f"feature is {index}; {self.entry.name} has {self.d_sae} features, numbered 0 to {self.d_sae - 1}."
            )

    def feature(self, index: int) -> FeatureWeights:
        """The weights of one feature.

        Raises:
            UserError: there is no such feature.
        """
        self.check(index)
        return FeatureWeights(encoder=self.W_enc[:, index].float(), decoder=self.W_dec[index].float())


@dataclass(frozen=True)
class Context:
    """A place in a text where a feature fired."""

    before: str
    token: str
    after: str
    activation: float


def load_sae(entry: SaeEntry, download: DownloadOptions = UNLIMITED) -> Sae:
    """The weights of an SAE.

    Args:
        download: how it is fetched, if it is not here.

    Raises:
        UserError: they are missing, damaged, or not of an SAE on a residual stream.
    """
    with said(HOLDING, sae=entry.folder or entry.name):
        W_enc, W_dec = read_folder(entry.folder) if entry.folder else _read_hub(entry, download)
    if W_enc.ndim != 2 or W_enc.shape != W_dec.shape[::-1]:
        raise UserError(
            f"SAE {entry.name} is damaged: W_enc is {tuple(W_enc.shape)} and W_dec {tuple(W_dec.shape)}; they must be "
            "(d_model, d_sae) and (d_sae, d_model)."
        )
    return Sae(entry, W_enc, W_dec)


def read_folder(folder: Path) -> tuple[Tensor, Tensor]:
    """W_enc and W_dec of an SAE folder in sae-lens' own format, as stored.

    Raises:
        UserError: something is missing or damaged.
    """
    path = folder / "sae_weights.safetensors"
    read_cfg(folder)
    with said(READING_WEIGHTS, file=path), safe_open(path, framework="pt") as weights:
        missing = {"W_enc", "W_dec"} - set(weights.keys())
        if missing:
            raise UserError(f"{path} has no {' and no '.join(sorted(missing))}; its features have no directions.")
        return weights.get_tensor("W_enc"), weights.get_tensor("W_dec")


def _read_hub(entry: SaeEntry, download: DownloadOptions) -> tuple[Tensor, Tensor]:
    folder = fetch_sae(entry, download)
    if entry.loader is None:  # sae-lens' own format, which needs none of its loaders
        return read_fetched(entry, folder)
    sae = sae_lens_sae(entry, folder)
    W_dec = sae.W_dec.detach()
    W_enc = getattr(sae, "W_enc", None)
    # An SAE with tied weights has only the decoder's.
    return (W_dec.T if W_enc is None else W_enc.detach()), W_dec


def fetch_sae(entry: SaeEntry, download: DownloadOptions) -> Path:
    """The folder of an SAE's repository in the hub's cache, with the SAE's files in it.

    Raises:
        UserError: they cannot be had, or would be read in a way that could run code.
    """
    if entry.pickled and os.environ.get("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "").lower() in ("1", "y", "yes", "true"):
        raise UserError(
            f"SAE {entry.name} is kept in a pickle, which is read as plain weights only; "
            "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD would run what is in it. Unset that variable."
        )
    return fetch_sae_files(entry.repo_id, entry.hub_files, entry.name, download)


def read_fetched(entry: SaeEntry, folder: Path) -> tuple[Tensor, Tensor]:
    """As ``read_folder``, of an SAE in sae-lens' own format in a repository that was fetched.

    Raises:
        UserError: something is missing or damaged.
    """
    missing = [name for name in _OWN_FORMAT if not (folder / entry.path / name).is_file()]
    if missing:
        raise UserError(
            f"The hub's repository {entry.repo_id} has no {missing[0]} for SAE {entry.name}. Use another SAE."
        )
    try:
        return read_folder(folder / entry.path)
    except UserError as error:
        raise UserError(
            f"SAE {entry.name} was fetched, but its sae_weights.safetensors or cfg.json cannot be read. "
            f"{FETCH_AGAIN.format(kept=folder.parents[1])}"
        ) from error


def sae_lens_sae(entry: SaeEntry, folder: Path):
    """sae-lens' own object of an SAE that was fetched into ``folder``, in float32 on the CPU.

    Raises:
        UserError: sae-lens cannot read it.
    """
    from sae_lens import SAE  # seconds to import, so only where one of its loaders is needed

    with reading_by_sae_lens(entry, folder):
        return SAE.from_pretrained(entry.release, entry.sae_id, device="cpu")


def strongest_contexts(entry: SaeEntry, feature: int) -> list[Context]:
    """Where the feature fired most in the texts that were kept with the SAE; empty where none were."""
    if entry.folder is None:
        return []
    listed = _contexts_file(entry.folder / "contexts.json")
    return [Context(*context) for context in listed[feature]] if feature < len(listed) else []


@lru_cache(maxsize=8)
def _contexts_file(path: Path) -> list:
    return json.loads(path.read_text(encoding="utf-8"))["features"] if path.is_file() else []
