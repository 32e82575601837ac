"""Loading models, tokenizers and SAE weights: from the demo, from a folder, from the hub.

The only module that touches transformers' and sae-lens' loaders. No file that can run code is read: models come from
safetensors and bring no code of their own, SAEs from safetensors, npz without pickles, or weights-only files.
"""

import errno
import gc
import json
import os
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from multitool.continuations import Continuations
from multitool.demo_model import DEMO_MODEL, demo_model_folder
from multitool.errors import UserError, shown
from multitool.growth import Growth, grow
from multitool.loading_hub import Report, fetch_model, fetch_sae_files, problem
from multitool.registry import SaeEntry, find_sae, is_folder, read_cfg
from multitool.subject import Subject
from multitool.task import GrowthTask
from multitool.vector import FeatureWeights

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
DEVICES = ("auto", "cpu", "cuda")
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

    A model comes in two parts: its ``Subject`` (embeddings and tokens, always on the CPU, enough for token lists and
    vectors) and the running model, which only the growth of a tree needs.

    Args:
        dtype: of the running model, a key of ``DTYPES``; None for float32 on a CPU and bfloat16 on a GPU.
        device: of the running model, one of ``DEVICES``.
        allow_folder: whether an SAE may be named by a folder of this machine (never for what comes from a web page).
        patterns: which SAEs of the registry are to be had, as in ``registry.allowed``; none: all.
        max_models: how many running models to keep.
        max_saes: how many SAEs to keep.
        max_model_bytes: refuse to fetch larger models.
        bars: draw the progress of downloads on standard error, as the hub's client does; else ``progress`` tells it.

    Raises:
        UserError: the dtype or device does not exist here.
    """

    def __init__(
        self,
        *,
        dtype: str | None = None,
        device: str = "auto",
        allow_folder: bool = False,
        patterns: tuple[str, ...] = (),
        max_models: int = 1,
        max_saes: int = 8,
        max_model_bytes: int | None = None,
        bars: bool = True,
    ):
        if device not in DEVICES:
            raise UserError(f"device is {device!r}; valid are {', '.join(DEVICES)}.")
        if device == "cuda" and not torch.cuda.is_available():
            raise UserError("device is 'cuda', but PyTorch finds no CUDA GPU here. Use cpu or auto.")
        if dtype is not None and dtype not in DTYPES:
            raise UserError(f"dtype is {dtype!r}; valid are {', '.join(DTYPES)}.")
        self.device = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
        self.dtype = dtype or ("bfloat16" if self.device == "cuda" else "float32")
        self.patterns = patterns
        self._allow_folder = allow_folder
        self._max_model_bytes = max_model_bytes
        self._bars = bars
        self._models = _Kept(max_models)
        self._subjects = _Kept(max_models + 2)
        self._saes = _Kept(max_saes)
        self._fetching: dict[str, str] = {}

    def find(self, name: str) -> SaeEntry:
        """The SAE of that name among those to be had here. Raises UserError if there is none."""
        return find_sae(name, allow_folder=self._allow_folder, patterns=self.patterns)

    def offers(self, name: str) -> bool:
        """Whether ``find`` would find it."""
        try:
            self.find(name)
        except UserError:
            return False
        return True

    def load(self, entry: SaeEntry, model: str | None = None) -> tuple[Sae, Subject]:
        """An SAE and the model it belongs to, fetched or as kept. The model does not run yet.

        Args:
            model: another model than the SAE names: a hub id or a folder.

        Raises:
            UserError: something cannot be had, or the two do not fit.
        """
        name = model or entry.model
        if not name:
            raise UserError(f"SAE {entry.name} does not say which model it was trained on; name it with --model.")
        sae, subject = self.sae(entry), self.subject(name)
        _check_fit(sae, subject)
        return sae, subject

    def sae(self, entry: SaeEntry) -> Sae:
        """An SAE's weights. Raises UserError if they cannot be had."""
        return self._saes.get(entry, lambda: load_sae(entry, self._reporter(entry.name)))

    def subject(self, name: str) -> Subject:
        """A model's embeddings and tokens. Raises UserError if they cannot be had."""
        make = lambda: load_subject(name, self._reporter(name), self._max_model_bytes)  # noqa: E731
        return self._subjects.get(name, make)

    def has(self, entry: SaeEntry) -> bool:
        """Whether an SAE and its model's embeddings are in memory: no wait for them."""
        return entry in self._saes and entry.model in self._subjects

    def progress(self, entry: SaeEntry) -> str:
        """How far the fetching of an SAE and its model is, in words; empty if nothing is being fetched."""
        return self._fetching.get(entry.name) or self._fetching.get(entry.model) or ""

    def run(self, name: str, folder: Path):
        """A model ready to run. Raises UserError if it cannot be loaded."""
        # A newer revision of a model on the hub lies in another folder.
        return self._models.get((name, folder), lambda: load_model(name, folder, self.dtype, self.device))

    def grow(self, task: GrowthTask) -> Iterator[Growth]:
        """The tree of a task as it grows.

        Raises:
            UserError: the model cannot be loaded, or the memory does not suffice.
        """
        started = time.perf_counter()
        model = self.run(task.model, task.folder)
        loading = time.perf_counter() - started
        try:
            yield from grow(
                Continuations(model, task.prompt, torch.from_numpy(task.v), task.top_k, task.max_depth),
                cutoff=task.cutoff,
                max_depth=task.max_depth,
                max_nodes=task.max_nodes,
                ends=task.ends,
                begun=task.begun,
                seconds=None if task.seconds is None else task.seconds - loading,
            )
        except (MemoryError, RuntimeError) as error:
            if not _out_of_memory(error):
                raise
            _give_memory_back()
            raise UserError(
                f"Out of memory while the tree grew on {task.model} ({self.device}). Ask for fewer nodes (max_nodes), "
                "a larger cutoff, or a smaller model."
            ) from error

    def _reporter(self, name: str) -> Report | None:
        if self._bars:
            return None

        def report(there: int, total: int) -> None:
            if there < total:
                self._fetching[name] = f"Fetching {name}: {there / 1e6:,.0f} of {total / 1e6:,.0f} MB"
            else:
                self._fetching.pop(name, None)

        return report


class _Kept:
    """Things by key, the most recently used ones kept; each is made once, however many ask for it at a time."""

    def __init__(self, size: int):
        self._size = size
        self._lock = threading.Lock()  # held for moments only: a forked process must not inherit it taken
        self._items: OrderedDict[object, Future] = OrderedDict()

    def __contains__(self, key) -> bool:
        with self._lock:
            item = self._items.get(key)
            return item is not None and item.done()

    def get(self, key, make: Callable):
        with self._lock:
            item, mine = self._items.get(key), False
            if item is None:
                mine, dropped = True, False
                item = self._items[key] = Future()
                while len(self._items) > self._size:  # before the new one takes memory
                    self._items.popitem(last=False)
                    dropped = True
            self._items.move_to_end(key)
        if not mine:
            return item.result()
        if dropped:
            _give_memory_back()
        try:
            item.set_result(make())
        except BaseException as error:
            with self._lock:
                self._items.pop(key, None)
            item.set_exception(error)
        return item.result()


def _give_memory_back() -> None:
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def _out_of_memory(error: Exception) -> bool:
    allocator = "allocate memory" in str(error) or "out of memory" in str(error)
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or allocator


def _check_fit(sae: Sae, subject: Subject) -> None:
    entry = sae.entry
    trained_on = f"The SAE was trained on {entry.model or 'another model'}."
    if sae.d_model != subject.space.d_model:
        raise UserError(
            f"SAE {entry.name} and model {subject.name} do not fit: the SAE's directions have {sae.d_model} entries, "
            f"the model's embeddings {subject.space.d_model}. {trained_on}"
        )
    if entry.layer is not None and subject.n_layers is not None and entry.layer >= subject.n_layers:
        raise UserError(
            f"SAE {entry.name} and model {subject.name} do not fit: the SAE reads {entry.hook}, and the model's "
            f"{subject.n_layers} layers are numbered 0 to {subject.n_layers - 1}. {trained_on}"
        )


def load_subject(name: str, report: Report | None = None, max_bytes: int | None = None) -> Subject:
    """The embeddings and tokens of the model ``name``: the demo's, a folder in Hugging Face format, or a hub id.

    Args:
        report: told of the progress of a download.
        max_bytes: refuse to fetch more.

    Raises:
        UserError: they cannot be had.
    """
    from transformers import AutoConfig, AutoTokenizer, GenerationConfig

    folder = _model_folder(name, report, max_bytes)
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
            raise _damaged(name, folder, error) from error
    if not tokenizer.is_fast:
        raise UserError(f"The tokenizer of {name} has no fast version (tokenizer.json), which the tool needs.")
    return Subject(E, tokenizer, config, name, folder, generation_config)


def _model_folder(name: str, report: Report | None, max_bytes: int | None) -> Path:
    if name == DEMO_MODEL:
        return demo_model_folder()
    if is_folder(name):
        return Path(name)
    if not _HUB_ID.fullmatch(name):
        raise UserError(
            f"There is no model {shown(name)}: it is neither a folder on this machine nor a hub id (OWNER/NAME, e.g. "
            "google/gemma-2b)."
        )
    return fetch_model(name, report, max_bytes)


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
            if _out_of_memory(error):
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
    where = f"in folder {folder}" if is_folder(name) else shown(name)
    return UserError(
        f"The model {where} cannot be loaded: {reason} A model folder holds config.json, the "
        "tokenizer's files and *.safetensors, as save_pretrained() writes them."
    )


def load_sae(entry: SaeEntry, report: Report | None = None) -> Sae:
    """The weights of an SAE.

    Args:
        report: told of the progress of a download.

    Raises:
        UserError: they are missing, damaged, or not of an SAE on a residual stream.
    """
    W_enc, W_dec = _read_folder(entry.folder) if entry.folder else _read_hub(entry, report)
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


def _read_hub(entry: SaeEntry, report: Report | None) -> tuple[Tensor, Tensor]:
    if entry.pickled and os.environ.get("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "").lower() in ("1", "y", "yes", "true"):
        raise UserError(
            f"SAE {entry.name} is kept in a pickle, which is read as plain weights only; "
            "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD would run what is in it. Unset that variable."
        )
    folder = fetch_sae_files(entry.repo_id, entry.hub_files, entry.name, report)
    if entry.loader is None:  # sae-lens' own format, which needs none of its loaders
        return _read_folder(folder / entry.path)
    from sae_lens import SAE  # seconds to import, so only where one of its loaders is needed

    try:
        sae = SAE.from_pretrained(entry.release, entry.sae_id, device="cpu")
    except Exception as error:  # each loader raises in its own way
        if _out_of_memory(error):
            raise UserError(f"SAE {entry.name} does not fit into the memory. Choose a smaller one.") from error
        if isinstance(error, OSError) and error.errno != errno.ENOENT:
            raise problem(error, entry.repo_id) from error
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise UserError(
            f"SAE {entry.name} was fetched, but sae-lens cannot read it: {reason} The file may be damaged; delete "
            f"{folder} to have it fetched again."
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
