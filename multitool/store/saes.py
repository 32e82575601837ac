"""Loading an SAE's weights: from the package, from a folder, from the hub.

No file that can run code is read: weights come from safetensors, npz without pickles, or PyTorch's weights-only files.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from multitool.errors import UserError, is_number
from multitool.store.entries import SaeEntry
from multitool.store.hub import UNLIMITED, DownloadOptions, fetch_sae_files
from multitool.store.problems import FETCH_AGAIN, HOLDING, reading_by_sae_lens, said
from multitool.store.sae_files import refuse_unpickling
from multitool.store.sae_formats import directions
from multitool.store.saelens_format import SAE_LENS
from multitool.vectors.vector import FeatureWeights

_OWN_FORMAT = ("cfg.json", "sae_weights.safetensors")
_MAX_CONTEXTS_BYTES = 64 << 20
NOTHING_FIRES = (
    "Nothing tells when a vector of your own fires, as an SAE tells it of a feature: it has no activations, no clamp "
    "and no suggestion. It can steer, and a list by a lens has evidence of what it writes."
)


@dataclass(frozen=True)
class Sae:
    """An SAE's directions. Weights as stored; a feature's rows are read in float32."""

    entry: SaeEntry
    W_enc: Tensor  # (d_model, d_sae)
    W_dec: Tensor  # (d_sae, d_model)

    def __repr__(self) -> str:
        entry = self.entry
        return f"Sae({entry.name}: {self.d_sae:,} features, d_model {self.d_model:,}, {entry.hook} of {entry.model})"

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

    def problem(self, index: int) -> str | None:
        """Why a feature has no weights, in a sentence; None where they are numbers."""
        for name, row in (("W_enc", self.W_enc[:, index]), ("W_dec", self.W_dec[index])):
            if not row.isfinite().all():
                return (
                    f"{name} of SAE {self.entry.name} has NaN or infinity at feature {index}. Choose another "
                    "feature, or get the SAE's files from where they came."
                )
        return None

    def has_numbers(self, index: int) -> bool:
        """Whether a feature's weights are finite, which ``feature`` refuses otherwise."""
        return self.problem(index) is None

    def feature(self, index: int) -> FeatureWeights:
        """The weights of one feature.

        Raises:
            UserError: there is no such feature, or its weights are no numbers.
        """
        self.check(index)
        if problem := self.problem(index):
            raise UserError(problem)
        return FeatureWeights(encoder=self.W_enc[:, index].float(), decoder=self.W_dec[index].float())


def own_vector(entry: SaeEntry, numbers: Sequence[float]) -> Sae:
    """A vector of one's own as an SAE of one feature, whose encoder and decoder it is alike."""
    row = torch.tensor(numbers, dtype=torch.float32)[None]
    return Sae(entry, row.T, row)


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
        W_enc, W_dec = directions(entry.folder) if entry.folder else _read_hub(entry, download)
    if entry.folder and entry.d_sae not in (None, len(W_dec)):
        turned = " (or these are the wrong way round)" if entry.d_sae == W_dec.shape[1] else ""
        raise UserError(
            f"The configuration of the SAE in {entry.folder} says {entry.d_sae} features, and its weights have "
            f"{len(W_dec)}{turned}. Correct the one that is wrong."
        )
    if W_enc.ndim != 2 or W_enc.shape != W_dec.shape[::-1]:
        raise UserError(
            f"SAE {entry.name} is damaged: W_enc is {tuple(W_enc.shape)} and W_dec {tuple(W_dec.shape)}; they must be "
            "(d_model, d_sae) and (d_sae, d_model)."
        )
    return Sae(entry, W_enc, W_dec)


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
    if entry.pickled:
        refuse_unpickling(f"SAE {entry.name}")
    return fetch_sae_files(entry.repo_id, entry.hub_files, entry.name, download)


def read_fetched(entry: SaeEntry, folder: Path) -> tuple[Tensor, Tensor]:
    """W_enc and W_dec of an SAE in sae-lens' own format in a repository that was fetched, as stored.

    Raises:
        UserError: something is missing or damaged.
    """
    missing = [name for name in _OWN_FORMAT if not (folder / entry.path / name).is_file()]
    if missing:
        raise UserError(
            f"The hub's repository {entry.repo_id} has no {missing[0]} for SAE {entry.name}. Use another SAE."
        )
    try:
        return SAE_LENS.directions(folder / entry.path)
    except UserError as error:
        raise UserError(
            f"SAE {entry.name} was fetched, but cannot be read: {error} {FETCH_AGAIN.format(kept=folder.parents[1])}"
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
    """Where the feature fired most in the texts that were kept with the SAE; empty where none were.

    They only illustrate: a ``contexts.json`` that is not as it should be counts as none, and so does a feature's entry.
    """
    if entry.folder is None:
        return []
    listed = _contexts_file(entry.folder / "contexts.json")
    rows = listed[feature] if 0 <= feature < len(listed) else []
    if not (isinstance(rows, list) and all(map(_is_context, rows))):
        return []
    return [Context(*context) for context in rows]


def _is_context(row) -> bool:
    """Whether it is [before, token, after, activation]."""
    return isinstance(row, list) and len(row) == 4 and all(isinstance(text, str) for text in row[:3]) and (
        is_number(row[3]))


@lru_cache(maxsize=8)
def _contexts_file(path: Path) -> list:
    try:
        if not path.is_file() or path.stat().st_size > _MAX_CONTEXTS_BYTES:
            return []
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return []
    features = content.get("features") if isinstance(content, dict) else None
    return features if isinstance(features, list) else []
