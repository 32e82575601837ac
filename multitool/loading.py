"""Loading models, tokenizers and SAE weights: from the demo, from a folder, from the hub.

The only module that touches transformers' and sae-lens' loaders. No file that can run code is read: models come from
safetensors and bring no code of their own, SAEs from safetensors, npz without pickles, or weights-only files.
"""

import errno
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from pickle import UnpicklingError

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from multitool.demo_model import DEMO_MODEL, demo_model_folder
from multitool.errors import UserError, shown
from multitool.loading_hub import ANY_TERMS, Terms, fetch_model, fetch_sae_files, problem
from multitool.registry import SaeEntry, is_folder, read_cfg
from multitool.subject import Subject
from multitool.vector import FeatureWeights

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
DEVICES = ("auto", "cpu", "cuda")
_OWN_FORMAT = ("cfg.json", "sae_weights.safetensors")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}(/[A-Za-z0-9][\w.-]{0,95})?")


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


def out_of_memory(error: Exception) -> bool:
    """Whether an error says that the memory does not suffice, as PyTorch and the system say it."""
    # The last one: what cuBLAS takes for itself, past PyTorch's allocator.
    allocator = any(said in str(error) for said in ("allocate memory", "out of memory", "STATUS_ALLOC_FAILED"))
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or allocator


def load_subject(name: str, terms: Terms = ANY_TERMS) -> Subject:
    """The embeddings and tokens of the model ``name``: the demo's, a folder in Hugging Face format, or a hub id.

    Args:
        terms: of a download.

    Raises:
        UserError: they cannot be had.
    """
    from transformers import AutoConfig, AutoTokenizer, GenerationConfig

    folder = _model_folder(name, terms)
    options = {"local_files_only": True, "trust_remote_code": False}
    with _quiet_transformers():
        try:
            config = AutoConfig.from_pretrained(folder, **options)
            tokenizer = AutoTokenizer.from_pretrained(folder, **options)
            listed = (folder / "generation_config.json").is_file()
            generation_config = GenerationConfig.from_pretrained(folder) if listed else None
            E = embedding_matrix(folder, config)
        except UserError:
            raise
        except Exception as error:  # a damaged folder makes transformers raise nearly anything
            if out_of_memory(error):
                raise UserError(
                    f"Model {shown(name)} does not fit into the memory. Choose a smaller model."
                ) from error
            raise _damaged(name, folder, error) from error
    if not tokenizer.is_fast:
        raise UserError(f"The tokenizer of {name} has no fast version (tokenizer.json), which the tool needs.")
    return Subject(E, tokenizer, config, name, folder, generation_config)


def _model_folder(name: str, terms: Terms) -> Path:
    if name == DEMO_MODEL:
        return demo_model_folder()
    if is_folder(name):
        return Path(name)
    if not _HUB_ID.fullmatch(name):
        raise UserError(
            f"There is no model {shown(name)}: it is neither a folder on this machine nor a hub id (OWNER/NAME, e.g. "
            "google/gemma-2b)."
        )
    return fetch_model(name, terms)


def embedding_matrix(folder: Path, config) -> Tensor:
    """The raw input embeddings (V, d_model) from a model's safetensors, in the precision in which they are stored.

    Reads nothing else of the weights. The tensor's name is that of the model's own module, as far as checkpoints
    agree with it: they may lack or add a prefix.

    Raises:
        UserError: they are not there, or not told apart.
    """
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    wanted = model.get_input_embeddings().weight
    name = next(name for name, parameter in model.named_parameters() if parameter is wanted)
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        files = {key: folder / file for key, file in json.loads(index.read_text())["weight_map"].items()}
    else:
        with safe_open(folder / "model.safetensors", framework="pt") as weights:
            files = dict.fromkeys(weights.keys(), folder / "model.safetensors")
    shared = {key: _shared_ending(key, name) for key in files}
    best = max(shared.values(), default=0)
    found = [key for key in files if shared[key] == best]
    if best < 2 or len(found) != 1:
        raise UserError(f"The model in {folder} has no input embeddings by the name of {name} among its weights.")
    path = files[found[0]]
    if path.parent != folder:
        raise UserError(f"The model in {folder} is damaged: its index names the file {shown(str(path))} outside of it.")
    with safe_open(path, framework="pt") as weights:
        E = weights.get_tensor(found[0])
    if E.shape != wanted.shape or not E.is_floating_point():
        raise UserError(
            f"The model in {folder} is damaged: {found[0]} is {tuple(E.shape)} of {E.dtype}, and its config.json "
            f"asks for {tuple(wanted.shape)}."
        )
    return E


def _shared_ending(key: str, name: str) -> int:
    """How many parts two dotted names share at their ends."""
    count = 0
    for one, other in zip(reversed(key.split(".")), reversed(name.split(".")), strict=False):
        if one != other:
            break
        count += 1
    return count


def load_model(name: str, folder: Path, dtype: str, device: str):
    """The running model from a folder: a transformers causal LM that is only ever read.

    Raises:
        UserError: it cannot be loaded.
    """
    from transformers import AutoModelForCausalLM

    with _quiet_transformers():
        try:
            model, report = AutoModelForCausalLM.from_pretrained(
                folder, dtype=DTYPES[dtype], use_safetensors=True, output_loading_info=True, local_files_only=True,
                trust_remote_code=False,
            )
            if report["missing_keys"]:
                raise ValueError(f"its weights lack {sorted(report['missing_keys'])[0]}.")
            model = model.requires_grad_(False).eval().to(device)
        except Exception as error:  # a damaged folder makes transformers raise nearly anything
            if out_of_memory(error):
                raise UserError(
                    f"Model {shown(name)} does not fit into the memory ({device}, {dtype}). Choose a smaller model, or "
                    "load it in half precision (--dtype bfloat16, SAE_MULTITOOL_DTYPE=bfloat16)."
                ) from error
            raise _damaged(name, folder, error) from error
    return model


@contextmanager
def _quiet_transformers():
    """No warnings and bars of transformers while it loads: what is wrong is said in our messages."""
    from transformers.utils import logging

    verbosity = logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity(logging.CRITICAL)
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)


def _damaged(name: str, folder: Path, error: Exception) -> UserError:
    reason = " ".join(str(error).split())[:300]
    if Path(name) == folder:
        return UserError(
            f"The model in folder {folder} cannot be loaded: {reason} A model folder holds config.json, the "
            "tokenizer's files and *.safetensors, as save_pretrained() writes them."
        )
    return UserError(f"The model {shown(name)} cannot be loaded: {reason} {_fetch_again(name, folder)}")


def _fetch_again(name: str, folder: Path) -> str:
    # The folder has links to the files, which lie beside it in the cache: without them they would be linked again.
    kept = folder if name == DEMO_MODEL else folder.parents[1]
    return f"A file may be damaged; delete {kept} to have it fetched again."


def load_sae(entry: SaeEntry, terms: Terms = ANY_TERMS) -> Sae:
    """The weights of an SAE.

    Args:
        terms: of a download.

    Raises:
        UserError: they are missing, damaged, or not of an SAE on a residual stream.
    """
    with enough_memory_for(entry):
        W_enc, W_dec = read_folder(entry.folder) if entry.folder else _read_hub(entry, terms)
    if W_enc.ndim != 2 or W_enc.shape != W_dec.shape[::-1]:
        raise UserError(
            f"SAE {entry.name} is damaged: W_enc is {tuple(W_enc.shape)} and W_dec {tuple(W_dec.shape)}; they must be "
            "(d_model, d_sae) and (d_sae, d_model)."
        )
    return Sae(entry, W_enc, W_dec)


@contextmanager
def enough_memory_for(entry: SaeEntry) -> Iterator[None]:
    """Too little memory for an SAE, said to the user."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if not out_of_memory(error):
            raise
        raise UserError(
            f"SAE {entry.folder or entry.name} does not fit into the memory. Choose a smaller one."
        ) from error


def read_folder(folder: Path) -> tuple[Tensor, Tensor]:
    """W_enc and W_dec of an SAE folder in sae-lens' own format, as stored.

    Raises:
        UserError: something is missing or damaged.
    """
    path = folder / "sae_weights.safetensors"
    read_cfg(folder)
    try:
        with safe_open(path, framework="pt") as weights:
            missing = {"W_enc", "W_dec"} - set(weights.keys())
            if missing:
                raise UserError(f"{path} has no {' and no '.join(sorted(missing))}; its features have no directions.")
            return weights.get_tensor("W_enc"), weights.get_tensor("W_dec")
    except (OSError, SafetensorError) as error:
        if out_of_memory(error):
            raise
        raise UserError(
            f"{path} cannot be read ({error}). It is missing, cut short or damaged; copy or write it again."
        ) from error


def _read_hub(entry: SaeEntry, terms: Terms) -> tuple[Tensor, Tensor]:
    folder = fetch_sae(entry, terms)
    if entry.loader is None:  # sae-lens' own format, which needs none of its loaders
        return read_fetched(entry, folder)
    sae = read_by_sae_lens(entry, folder)
    W_dec = sae.W_dec.detach()
    W_enc = getattr(sae, "W_enc", None)
    # An SAE with tied weights has only the decoder's.
    return (W_dec.T if W_enc is None else W_enc.detach()), W_dec


def fetch_sae(entry: SaeEntry, terms: Terms) -> Path:
    """The folder of an SAE's repository in the hub's cache, with the SAE's files in it.

    Raises:
        UserError: they cannot be had, or would be read in a way that could run code.
    """
    if entry.pickled and os.environ.get("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "").lower() in ("1", "y", "yes", "true"):
        raise UserError(
            f"SAE {entry.name} is kept in a pickle, which is read as plain weights only; "
            "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD would run what is in it. Unset that variable."
        )
    return fetch_sae_files(entry.repo_id, entry.hub_files, entry.name, terms)


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
            f"{_fetch_again(entry.name, folder)}"
        ) from error


def read_by_sae_lens(entry: SaeEntry, folder: Path):
    """sae-lens' own object of an SAE that was fetched into ``folder``, in float32 on the CPU.

    Raises:
        UserError: sae-lens cannot read it.
    """
    from sae_lens import SAE  # seconds to import, so only where one of its loaders is needed

    with sae_lens_reading(entry, folder):
        return SAE.from_pretrained(entry.release, entry.sae_id, device="cpu")


@contextmanager
def sae_lens_reading(entry: SaeEntry, folder: Path) -> Iterator[None]:
    """What sae-lens' loaders raise, said to the user.

    Args:
        folder: the SAE's own, or that of the repository that was fetched.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # each loader raises in its own way
        if out_of_memory(error):
            raise
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        if entry.folder:
            raise UserError(
                f"sae-lens cannot read the SAE in {folder}: {reason} Its files are damaged or do not fit together; "
                "copy or write it again."
            ) from error
        if isinstance(error, UnpicklingError):
            raise UserError(
                f"SAE {entry.name} is kept in a pickle that is damaged or holds more than plain weights, and was not "
                f"read: such a file can run code. Use another SAE, or delete {folder.parents[1]} to have it fetched "
                "again."
            ) from error
        if isinstance(error, OSError) and error.errno != errno.ENOENT:
            raise problem(error, entry.repo_id) from error
        raise UserError(
            f"SAE {entry.name} was fetched, but sae-lens cannot read it: {reason} {_fetch_again(entry.name, folder)}"
        ) from error


def strongest_contexts(entry: SaeEntry, feature: int) -> list[Context]:
    """Where the feature fired most in the texts that were kept with the SAE; empty where none were."""
    if entry.folder is None:
        return []
    listed = _contexts_file(entry.folder / "contexts.json")
    return [Context(*context) for context in listed[feature]] if feature < len(listed) else []


@lru_cache(maxsize=8)
def _contexts_file(path: Path) -> list:
    return json.loads(path.read_text(encoding="utf-8"))["features"] if path.is_file() else []
