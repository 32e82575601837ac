"""Loading models, tokenizers and SAE weights: from the demo, from a folder, from the hub.

The only module that touches transformers' and sae-lens' loaders. No file that can run code is read: weights come
from safetensors, and no model brings its own code.
"""

import json
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from multitool.demo_model import DEMO_MODEL, demo_model_folder
from multitool.errors import UserError, shown
from multitool.registry import SaeEntry, is_folder, read_cfg
from multitool.subject import Subject
from multitool.vector import FeatureWeights

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
DEVICES = ("auto", "cpu", "cuda")


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

    def feature(self, index: int) -> FeatureWeights:
        """The weights of one feature.

        Raises:
            UserError: there is no such feature.
        """
        if not 0 <= index < self.d_sae:
            raise UserError(
                f"feature is {index}; {self.entry.name} has {self.d_sae} features, numbered 0 to {self.d_sae - 1}."
            )
        return FeatureWeights(encoder=self.W_enc[:, index].float(), decoder=self.W_dec[index].float())


@dataclass(frozen=True)
class Context:
    """A place in a text where a feature fired."""

    before: str
    token: str
    after: str
    activation: float


class Library:
    """Models and SAEs by name, the most recently used ones kept in memory. Safe to share between threads.

    Args:
        dtype: a key of ``DTYPES``, or None for float32 on a CPU and bfloat16 on a GPU.
        device: one of ``DEVICES``.
        max_models: how many models to keep.
        max_saes: how many SAEs to keep.

    Raises:
        UserError: the dtype or device does not exist here.
    """

    def __init__(self, *, dtype: str | None = None, device: str = "auto", max_models: int = 1, max_saes: int = 8):
        if device not in DEVICES:
            raise UserError(f"device is {device!r}; valid are {', '.join(DEVICES)}.")
        if device == "cuda" and not torch.cuda.is_available():
            raise UserError("device is 'cuda', but PyTorch finds no CUDA GPU here. Use cpu or auto.")
        if dtype is not None and dtype not in DTYPES:
            raise UserError(f"dtype is {dtype!r}; valid are {', '.join(DTYPES)}.")
        self.device = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
        self.dtype = dtype or ("bfloat16" if self.device == "cuda" else "float32")
        self._lock = threading.Lock()
        self._models = _Recent(max_models)
        self._saes = _Recent(max_saes)

    def load(self, entry: SaeEntry, model: str | None = None) -> tuple[Sae, Subject]:
        """An SAE and its model, loaded or as kept.

        Args:
            model: another model than the SAE names: a hub id or a folder.

        Raises:
            UserError: something cannot be loaded, or the two do not fit.
        """
        with self._lock:
            sae = self._saes.get(entry, lambda: load_sae(entry))
            name = model or entry.model
            if not name:
                raise UserError(f"SAE {entry.name} does not say which model it was trained on; name it with --model.")
            subject = self._models.get(name, lambda: load_subject(name, self.dtype, self.device))
        if sae.d_model != subject.space.d_model:
            raise UserError(
                f"SAE {entry.name} and model {name} do not fit: the SAE's directions have {sae.d_model} entries, the "
                f"model's embeddings {subject.space.d_model}. The SAE was trained on {entry.model or 'another model'}."
            )
        return sae, subject


class _Recent:
    """A small least-recently-used cache."""

    def __init__(self, size: int):
        self._size = size
        self._items: OrderedDict = OrderedDict()

    def get(self, key, make: Callable):
        if key not in self._items:
            while len(self._items) >= self._size:
                self._items.popitem(last=False)
            self._items[key] = make()
        self._items.move_to_end(key)
        return self._items[key]


def load_subject(name: str, dtype: str, device: str) -> Subject:
    """The model ``name``: the demo's, a folder in Hugging Face format, or a hub id.

    Raises:
        UserError: it cannot be loaded.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    source = demo_model_folder() if name == DEMO_MODEL else Path(name) if is_folder(name) else name
    logging.set_verbosity(logging.CRITICAL)
    options = {"local_files_only": isinstance(source, Path), "trust_remote_code": False}
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, **options)
        model, report = AutoModelForCausalLM.from_pretrained(
            source, dtype=DTYPES[dtype], use_safetensors=True, output_loading_info=True, **options
        )
    except Exception as error:  # a damaged folder makes transformers raise nearly anything
        raise UserError(_model_problem(name, source, error)) from error
    if report["missing_keys"]:
        raise UserError(_model_problem(name, source, f"its weights lack {sorted(report['missing_keys'])[0]}."))
    if not tokenizer.is_fast:
        raise UserError(f"The tokenizer of {name} has no fast version (tokenizer.json), which the tool needs.")
    model.requires_grad_(False)
    return Subject(model.to(device).eval(), tokenizer, name)


def _model_problem(name: str, source, error) -> str:
    reason = " ".join(str(error).split())[:300]
    if isinstance(source, Path):
        return (
            f"The model in folder {source} cannot be loaded: {reason} A model folder holds config.json, the "
            "tokenizer's files and *.safetensors, as save_pretrained() writes them."
        )
    return (
        f"Model {shown(name)} cannot be loaded: {reason} It must be a folder on this machine, or the hub id of a "
        "model that your token may read (HF_TOKEN or `hf auth login`), with a network that reaches the hub."
    )


def load_sae(entry: SaeEntry) -> Sae:
    """The weights of an SAE.

    Raises:
        UserError: they are missing, damaged, or not of an SAE on a residual stream.
    """
    W_enc, W_dec = _read_folder(entry.folder) if entry.folder else _read_hub(entry)
    if W_enc.ndim != 2 or W_enc.shape != W_dec.shape[::-1]:
        raise UserError(
            f"SAE {entry.name} is damaged: W_enc is {tuple(W_enc.shape)} and W_dec {tuple(W_dec.shape)}; they must be "
            "(d_model, d_sae) and (d_sae, d_model)."
        )
    return Sae(entry, W_enc, W_dec)


def _read_folder(folder: Path) -> tuple[Tensor, Tensor]:
    path = folder / "sae_weights.safetensors"
    read_cfg(folder)
    try:
        with safe_open(path, framework="pt") as weights:
            missing = {"W_enc", "W_dec"} - set(weights.keys())
            if missing:
                raise UserError(f"{path} has no {' and no '.join(sorted(missing))}; its features have no directions.")
            return weights.get_tensor("W_enc"), weights.get_tensor("W_dec")
    except (OSError, SafetensorError) as error:
        raise UserError(
            f"{path} cannot be read ({error}). It is missing, cut short or damaged; copy or write it again."
        ) from error


def _read_hub(entry: SaeEntry) -> tuple[Tensor, Tensor]:
    from sae_lens import SAE  # seconds to import, so only where it is needed

    try:
        sae = SAE.from_pretrained(entry.release, entry.sae_id, device="cpu")
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise UserError(
            f"SAE {entry.name} cannot be loaded from the hub: {str(error).strip().splitlines()[0]} "
            "Check the network; the demo's SAEs (demo/…) need none."
        ) from error
    W_dec = sae.W_dec.detach()
    W_enc = getattr(sae, "W_enc", None)
    # An SAE with tied weights has only the decoder's.
    return (W_dec.T if W_enc is None else W_enc.detach()), W_dec


def strongest_contexts(entry: SaeEntry, feature: int) -> list[Context]:
    """Where the feature fired most in the texts that were kept with the SAE; empty where none were."""
    if entry.folder is None:
        return []
    listed = _contexts_file(entry.folder / "contexts.json")
    return [Context(*context) for context in listed[feature]] if feature < len(listed) else []


@lru_cache(maxsize=8)
def _contexts_file(path: Path) -> list:
    return json.loads(path.read_text(encoding="utf-8"))["features"] if path.is_file() else []
