"""Models and SAEs by name, the most recently used ones kept in memory."""

import gc
import logging
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from cachetools import LRUCache
from torch import Tensor

from multitool.errors import UserError, shown, some
from multitool.model.logit_lens import lens_logits
from multitool.model.subject import Subject
from multitool.model.tasks import Base, Place, Task, Text
from multitool.recipes.fields import check
from multitool.recipes.own_vectors import is_place, place_parts
from multitool.recipes.plain_texts import PASSAGES
from multitool.recipes.recipe import Device, Dtype
from multitool.store.atlases import DEMO_ATLAS, Atlas, open_atlas
from multitool.store.capacity import Machine
from multitool.store.devices import Gpu, gpu_here, machine_memory, placement, suited_precision
from multitool.store.encoder import Encoder, load_encoder
from multitool.store.entries import SERVED_KINDS, SaeEntry, hub_id, parse_hook
from multitool.store.folders import HOOKS, folder_state, is_folder
from multitool.store.given import MINE, GivenModel, GivenSae, given_model, given_sae
from multitool.store.hub import DownloadOptions
from multitool.store.hub_saes import HUB_PREFIX
from multitool.store.kept_rows import KeptRows, RowsTask, open_rows
from multitool.store.lens_rows import LensRowsTask, lens_rows_task
from multitool.store.lenses import FittedLens, fitted_lens, is_fitted, is_shipped
from multitool.store.models import load_model, load_reader, load_subject, model_size
from multitool.store.problems import WORKING, out_of_memory, said
from multitool.store.prose import ProseRowsTask, mean_maximum, prose_rows_task
from multitool.store.pullbacks import PullbackRowsTask, pullback_rows_task, read_shipped, shipped_pullback
from multitool.store.registry import find_sae, models
from multitool.store.saes import NOTHING_FIRES, Sae, load_sae
from multitool.store.scans import ScanTask, scan_task
from multitool.store.worker import work_on
from multitool.vectors.scan_directions import embedding_map

_ROWS_AT_ONCE = 8192  # of a scan in memory

_LOG = logging.getLogger(__name__)


class Library:
    """Models and SAEs by name, the most recently used ones kept in memory. Safe to share between threads.

    A model comes in two parts: its ``Subject`` (embeddings and tokens, always on the CPU, enough for token lists and
    vectors) and the running model, which only the tasks of ``do`` need.

    >>> library = mt.Library(device="cpu", dtype="float32")
    >>> library.find("demo/hook_embed").model
    'demo/SmolLM2-135M-Instruct-Q4_1'

    Args:
        dtype: of running models, one of ``Dtype``; None for float32 on a CPU, bfloat16 on a GPU that has it, and on
            others what suits the model: see ``precision``.
        device: of the running model, one of ``Device``.
        allow_folder: whether an SAE may be named by a folder of this machine, or of any repository on the hub as
            hf://OWNER/REPO/PATH (never for what comes from a web page).
        patterns: which SAEs of the registry are to be had, as in ``registry.allowed``; none: all.
        max_models: how many running models to keep.
        max_saes: how many SAEs to keep.
        max_model_bytes: refuse to fetch larger models.
        bars: draw the progress of downloads on standard error, as the hub's client does; else ``progress`` tells it.
        fetching: is told instead how far a download is: what is fetched, bytes there, bytes in all.
        gpu: tells the GPU that there is; None: PyTorch does.
        atlas: where what is told of features stands, as ``open_atlas`` takes it; None: the demo's atlas.

    What a user may not expect of device and precision stands in ``notes``, and in the log; ``machine`` tells what there
    is for models to run on. ``Library(**options)`` makes
    another one like it, in another process or on another machine.

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
        fetching: Callable[[str, int, int], None] | None = None,
        gpu: Callable[[], Gpu | None] | None = None,
        atlas: str | None = None,
    ):
        check(device, "device", Device)
        check(dtype, "dtype", Dtype | None)
        card = None if device == "cpu" else (gpu or gpu_here)()
        self._placement = placement(device, dtype, card, torch.backends.mps.is_available())
        self.device, self.notes = self._placement.device, self._placement.notes
        for note in self.notes:
            _LOG.warning("note: %s", note)
        self.options = {
            "dtype": self._placement.dtype, "device": device, "allow_folder": allow_folder, "patterns": patterns,
            "max_models": max_models, "max_saes": max_saes, "max_model_bytes": max_model_bytes, "bars": bars,
        }
        self.machine = Machine(
            self.device, self._placement.dtype, machine_memory(), self._placement.memory or None, max_model_bytes
        )
        self.patterns = patterns
        self._allow_folder = allow_folder
        self._download = DownloadOptions(max_bytes=max_model_bytes)
        self._bars = bars
        self._tell_fetching = fetching
        self._found = _MadeOnce(256)  # SAEs of any repository on the hub, by name
        self._models = _MadeOnce(max_models)
        self._readers = _MadeOnce(2)  # models with nothing but final norm and unembedding
        self._subjects = _MadeOnce(max_models + 2)
        self._precisions = _MadeOnce(32)
        self._saes = _MadeOnce(max_saes)
        self._encoders = _MadeOnce(2)
        self._maps = _MadeOnce(4)
        self._atlas_at = (DEMO_ATLAS if DEMO_ATLAS.is_dir() else None) if atlas is None else atlas
        self._atlases = _MadeOnce(1)
        self._prose = _MadeOnce(16)  # a number for each feature, as these
        self._lengths = _MadeOnce(32)
        self._fetching: dict[str, str] = {}
        self._given_models: dict[str, GivenModel] = {}
        self._given_saes: dict[str, GivenSae] = {}

    def __repr__(self) -> str:
        given = {"models": list(self._given_models), "SAEs": list(self._given_saes)}
        told = "".join(f", given {kind}: {some(names, 4)}" for kind, names in given.items() if names)
        return f"Library(device={self.device!r}, dtype={self._placement.dtype!r}{told})"

    def add_model(self, model, tokenizer=None, name: str | None = None) -> str:
        """A model that is loaded already, to be run as it is: in its precision, where it is, with no copy of its
        weights, which are never written. What asks for a model of its name gets it from then on.

        >>> from transformers import AutoModelForCausalLM, AutoTokenizer
        >>> name = library.add_model(  # doctest: +SKIP
        ...     AutoModelForCausalLM.from_pretrained("gpt2"), AutoTokenizer.from_pretrained("gpt2"))

        Args:
            model: a causal LM of transformers; or a TransformerLens bridge that holds one and leaves it its cache,
                which is tried (a HookedTransformer holds none).
            tokenizer: the model's fast tokenizer; a bridge has its own.
            name: how results call it; None: by where transformers loaded it from, so that published SAEs of it read
                this one. Give a model whose weights were changed a name of its own, and one that changes later anew.

        Returns:
            Its name.

        Raises:
            UserError: it is no such model, is in training mode, or its tokenizer is missing.
        """
        given = given_model(model, tokenizer, name)
        self._given_models[given.subject.name] = given
        return given.subject.name

    def add_sae(self, sae, name: str | None = None, *, model: str | None = None, hook: str | None = None) -> str:
        """An SAE that is loaded already, in place of one by name.

        >>> from sae_lens import SAE
        >>> name = library.add_sae(SAE.from_pretrained("gpt2-small-res-jb", "hook_resid_pre"))  # doctest: +SKIP

        Args:
            sae: a ``sae_lens.SAE``; it stays as it is, and its weights are shared where they are float32 on the CPU.
            name: how recipes call it, RELEASE/SAE_ID; None: mine/ and its hook. One of the same name is replaced.
            model, hook: the model that it was trained on and where it reads, where its cfg.metadata does not say so.

        Returns:
            Its name, for ``VectorRecipe(sae=…)``.

        Raises:
            UserError: it is no such SAE, or model or hook are not known; or another one has that name already, and
                ``name`` is not given.
        """
        given = given_sae(sae, name, model=model, hook=hook)
        before = self._given_saes.get(given.entry.name)
        if before and before.sae is not sae and name is None:
            raise UserError(
                f"There is another SAE {given.entry.name} here already. Name this one, e.g. "
                f"name={given.entry.name + '-2'!r}; or name it the same, to replace the other."
            )
        self._given_saes[given.entry.name] = given
        return given.entry.name

    @property
    def given(self) -> tuple[str, ...]:
        """The names of models and SAEs that came as objects. Another process has none of them."""
        return (*self._given_models, *self._given_saes)

    def place(self, name: str) -> SaeEntry:
        """Where a vector of one's own lies: in the place of the SAE of that name, or of any at ``model:NAME@HOOK``.

        Raises:
            UserError: there is no such SAE, place or model here.
        """
        if not is_place(name):
            return self.find(name)
        model, hook = place_parts(name)
        kind, layer = parse_hook(hook)
        if kind not in SERVED_KINDS:
            raise UserError(f"hook is {shown(hook)}, which is no place on the residual stream. Valid are {HOOKS}.")
        known = hub_id(model)
        if not (self._allow_folder or known in self._given_models or known in models(self.patterns)):
            raise UserError(
                f"There is no model {shown(model)} here: it is none that has SAEs. Others, of the hub or of a folder, "
                "are for the command line, and for Python with allow_folder=True."
            )
        return SaeEntry(release=MINE, sae_id=hook, model=known, kind=kind, layer=layer)

    def find(self, name: str) -> SaeEntry:
        """The SAE of that name among those to be had here. Raises UserError if there is none."""
        if name in self._given_saes:
            return self._given_saes[name].entry
        find = partial(find_sae, name, allow_folder=self._allow_folder, patterns=self.patterns)
        if not name.startswith(HUB_PREFIX):
            return find()
        return self._found.get(name, partial(self._reported, name, lambda download: find(download=download)))

    def state(self, name: str) -> tuple:
        """What changes when an SAE's files or its model's do, where they lie in folders of this machine; of a place the
        model's.

        Raises:
            UserError: there is no SAE of that name.
        """
        entry = self.place(name)
        return self._sae_as_it_is(entry)[1:], _as_it_is(entry.model)[1:]

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
        name = self.model_of(entry, model)
        sae = self.sae(entry)
        return sae, self.fitting(sae, name)

    def fitting(self, sae: Sae, model: str) -> Subject:
        """The model of that name, which an SAE's directions fit.

        Raises:
            UserError: it cannot be had, or they do not fit.
        """
        subject = self.subject(model)
        _check_fit(sae, subject)
        return subject

    def model_of(self, entry: SaeEntry, model: str | None = None) -> str:
        """The name of the model that ``load`` loads, by which results call it. Raises UserError if there is none."""
        name = model or entry.model
        if not name:
            told = f" (no model_name in {entry.folder / 'cfg.json'}, for instance)" if entry.folder else ""
            raise UserError(
                f"SAE {entry.name} does not say which model it was trained on{told}; name it with --model (in Python "
                "model=)."
            )
        return name if name in self._given_models or is_folder(name) else hub_id(name)

    def sae(self, entry: SaeEntry) -> Sae:
        """An SAE's weights. Raises UserError if they cannot be had."""
        given = self._given(entry)
        make = given.directions if given else partial(self._reported, entry.name, partial(load_sae, entry))
        return self._saes.get(self._sae_as_it_is(entry), make)

    def encoder(self, entry: SaeEntry) -> Encoder:
        """An SAE to read with. Raises UserError if it cannot be had, or is a vector of one's own."""
        if entry.of_vector:
            raise UserError(NOTHING_FIRES)
        given = self._given(entry)
        make = given.encoder if given else partial(self._reported, entry.name, partial(load_encoder, entry))
        return self._encoders.get(self._sae_as_it_is(entry), make)

    def _given(self, entry: SaeEntry) -> GivenSae | None:
        found = self._given_saes.get(entry.name)
        return found if found and found.entry == entry else None

    def _sae_as_it_is(self, entry: SaeEntry) -> tuple:
        """What an SAE is kept by, as ``_as_it_is``."""
        given = self._given(entry)
        return (entry, given.number) if given else (entry, *(folder_state(entry.folder) if entry.folder else ()))

    def scan_task(self, entry: SaeEntry, subject: Subject) -> ScanTask:
        """The vocabulary scan that an SAE needs, for ``do``; see also ``scan``."""
        return scan_task(
            subject.name, subject.folder, entry.hook, n_tokens=subject.space.n_tokens, d_model=subject.space.d_model,
            bos_id=subject.bos_id, dtype=self.precision(subject.name),
        )

    def scan(self, entry: SaeEntry, subject: Subject) -> KeptRows | None:
        """The vocabulary scan that an SAE needs, if it is there. Raises UserError if it cannot be read."""
        return open_rows(self.scan_task(entry, subject))

    def keeps(self, task: RowsTask) -> bool:
        """Whether a scan, or another task's rows, are there. Raises UserError if they cannot be read."""
        return open_rows(task) is not None

    def pullback_task(self, entry: SaeEntry, subject: Subject) -> PullbackRowsTask:
        """The matrix that carries directions at an SAE's hook back to the embeddings, for ``do``; see ``pullback``."""
        base = Base(Place(entry.hook, subject.bos_id), subject.base_ids)
        return pullback_rows_task(
            subject.name, subject.folder, base, d_model=subject.space.d_model, dtype=self.precision(subject.name)
        )

    def pullback(self, entry: SaeEntry, subject: Subject) -> Tensor | None:
        """That matrix, (d_model, d_model): ``w @ M`` for a direction w; None where it is not kept.

        Raises:
            UserError: it cannot be read.
        """
        task = self.pullback_task(entry, subject)
        if shipped := shipped_pullback(task):
            return self._maps.get(shipped, partial(read_shipped, shipped))
        kept = open_rows(task)
        return None if kept is None else self._maps.get(task, lambda: kept.part(0, task.n_rows))

    def lens_task(self, entry: SaeEntry, subject: Subject) -> LensRowsTask:
        """The Jacobian lens from an SAE's hook on, to be fitted by ``do``; see ``lens``."""
        return lens_rows_task(
            subject.name, subject.folder, Place(entry.hook, subject.bos_id), _passages(subject),
            d_model=subject.space.d_model, dtype=self.precision(subject.name),
        )

    def lens(self, entry: SaeEntry, subject: Subject) -> FittedLens | None:
        """That lens: the demo's, one that others fitted, fetched or as kept, or the one fitted here; None where it must
        be fitted first.

        Raises:
            UserError: it cannot be had or read.
        """
        model, hook, d_model = subject.name, entry.hook, subject.space.d_model
        if is_fitted(model, hook):
            make = partial(self._reported, entry.name, partial(fitted_lens, model, hook, d_model))
            return self._maps.get((model, hook), make)
        kept = open_rows(self.lens_task(entry, subject))
        if kept is None:
            return None
        return self._maps.get(kept.task, lambda: FittedLens(kept.part(0, d_model), f"fitted on {len(PASSAGES)} texts"))

    def lens_here(self, entry: SaeEntry, subject: Subject) -> FittedLens | None:
        """That lens, where it takes neither a download nor fitting; else None. Raises UserError if it cannot be read.
        """
        model, hook = subject.name, entry.hook
        fetched = is_fitted(model, hook) and not is_shipped(model, hook)
        return None if fetched and (model, hook) not in self._maps else self.lens(entry, subject)

    def read_by_lens(self, subject: Subject, directions: Tensor) -> Tensor:
        """The logits of directions behind the last layer, (n, d_model), by the logit lens: (n, V) float32 on the CPU.

        Not by the running model but by its final norm and unembedding alone, as they are stored.

        Raises:
            UserError: these are not found.
        """
        given = self._given_models.get(subject.name)
        model = given.running() if given else self._readers.get(
            subject.folder, lambda: load_reader(subject.name, subject.folder, subject.space.E)
        )
        return lens_logits(model, directions).cpu()

    def embedding_map(self, scan: KeptRows, subject: Subject) -> Tensor:
        """The map from the scan's hook to the embeddings, (d_model, d_model); computed once."""
        return self._maps.get(scan.task, lambda: embedding_map(scan.chunks(_ROWS_AT_ONCE), subject.space))

    def activations(self, entry: SaeEntry, scan: KeptRows, features: Sequence[int]) -> Tensor:
        """How strongly each token alone fires the features: (V, k) in float32."""
        encoder = self.encoder(entry)
        return torch.cat([encoder.encode_feature(rows, features) for _, rows in scan.chunks(_ROWS_AT_ONCE)])

    def atlas(self) -> Atlas | None:
        """What bulk runs have told of features; None where there is none. Raises UserError if it cannot be read."""
        where = self._atlas_at
        return None if where is None else self._atlases.get(where, partial(open_atlas, where, download=self._download))

    def prose_task(self, entry: SaeEntry, subject: Subject) -> ProseRowsTask:
        """Plain prose to be read at an SAE's hook, for ``do``; see ``on_prose``."""
        return prose_rows_task(
            subject.name, subject.folder, Place(entry.hook, subject.bos_id), _passages(subject),
            d_model=subject.space.d_model, dtype=self.precision(subject.name),
        )

    def on_prose(self, entry: SaeEntry, subject: Subject) -> Tensor | None:
        """How strongly each feature fires on plain prose: the mean over ``PASSAGES`` of its maximum, (d_sae,) float32.

        None where the prose has not been read at the SAE's hook.

        Raises:
            UserError: the SAE cannot be had, or what was read is damaged.
        """
        task = self.prose_task(entry, subject)
        kept = open_rows(task)
        if kept is None:
            return None
        return self._prose.get((self._sae_as_it_is(entry), task), lambda: mean_maximum(self.encoder(entry), task, kept))

    def fires_on_prose(
        self, entry: SaeEntry, subject: Subject, feature: int
    ) -> tuple[tuple[Text, ...], Tensor] | None:
        """The passages of plain prose, and how strongly a feature fires on each of their tokens, (n,) float32.

        None, and errors, as in ``on_prose``.
        """
        task = self.prose_task(entry, subject)
        kept = open_rows(task)
        if kept is None:
            return None
        return task.texts, self.encoder(entry).encode_feature(kept.part(0, task.n_rows), feature)

    def lengths(
        self, entry: SaeEntry, kind: str, compute: Callable[[], Tensor], subject: Subject | None = None
    ) -> Tensor:
        """A number for each feature of an SAE, (d_sae,), such as ``|W_dec[i]|``; computed once for each kind.

        Args:
            subject: the model whose matrices have a part in it.
        """
        return self._lengths.get((self._sae_as_it_is(entry), kind, subject and (subject.name, subject.folder)), compute)

    def pin(self, entry: SaeEntry) -> None:
        """From now on, delete neither this SAE nor its model to make room on a Space's disk."""
        self._download = replace(self._download, keep=frozenset({entry.model, entry.repo_id} - {""}))

    def subject(self, name: str) -> Subject:
        """A model's embeddings and tokens, by a name as ``load_subject`` takes it or as TransformerLens has it.

        Raises:
            UserError: they cannot be had.
        """
        if given := self._given_models.get(name) or self._given_models.get(hub_id(name)):
            return given.subject
        name = name if is_folder(name) else hub_id(name)
        make, key = partial(self._reported, name, partial(load_subject, name)), _as_it_is(name)
        subject = self._subjects.get(key, make)
        if subject.folder.is_dir():
            return subject
        # Its files had to make room for another model's; without them it could not run.
        self._subjects.drop(key, subject)
        return self._subjects.get(key, make)

    def has(self, entry: SaeEntry) -> bool:
        """Whether an SAE and its model's embeddings are in memory: no wait for them."""
        return self._sae_as_it_is(entry) in self._saes and _as_it_is(entry.model) in self._subjects

    def at_hand(self, entry: SaeEntry) -> bool:
        """Whether a model's embeddings are in memory, and an SAE too or in a folder here: a short wait for both."""
        return self.has(entry) or (entry.folder is not None and _as_it_is(entry.model) in self._subjects)

    def progress(self, entry: SaeEntry) -> str:
        """How far the fetching of an SAE and its model is, in words; empty if nothing is being fetched."""
        return self._fetching.get(entry.name) or self._fetching.get(entry.model) or ""

    def precision(self, model: str) -> str:
        """In which precision a model runs here, one of ``Dtype``: what was asked for, or suits the device, or the model
        where the device has no bfloat16 of its own. Results tell it.

        Args:
            model: by its name, as ``subject`` takes it.

        Raises:
            UserError: it depends on the model, which cannot be had.
        """
        if given := self._given_models.get(model):
            return given.dtype
        place = self._placement
        if place.dtype:
            return place.dtype
        subject = self.subject(model)
        return self._precisions.get(
            subject.folder, lambda: suited_precision(*model_size(subject.name, subject.folder), place.memory)
        )

    def run(self, name: str, folder: Path):
        """A model ready to run. Raises UserError if it cannot be loaded."""
        given = self._given_models.get(name)
        if given and given.subject.folder == folder:
            return given.running()
        # A newer revision of a model on the hub lies in another folder.
        key = (_as_it_is(name), folder)
        return self._models.get(key, lambda: load_model(name, folder, self.precision(name), self.device))

    def do(self, task: Task, *, pulse: bool = False) -> Iterator:
        """The model's work on a task, as it comes: levels of a tree, batches of answers, tokens scanned.

        Args:
            pulse: answer with None too, wherever the work can be left: who closes the iterator there ends it.

        Raises:
            UserError: the model cannot be loaded, or the memory does not suffice.
        """
        started = time.perf_counter()
        model = self.run(task.model, task.folder)
        left = None if task.seconds is None else task.seconds - (time.perf_counter() - started)
        with said(WORKING, model=task.model, device=self.device):
            try:
                for answer in work_on(model, replace(task, seconds=left), self.encoder):
                    if pulse or answer is not None:
                        yield answer
            except (MemoryError, RuntimeError) as error:
                _let_go(error)
                raise

    def _reported(self, name: str, load: Callable):
        """What ``load`` gives, while ``progress`` tells how far it is."""
        if self._bars and not self._tell_fetching:
            return load(self._download)

        def report(there: int, total: int) -> None:
            if self._tell_fetching:
                self._tell_fetching(name, there, total)
            if there < total:
                self._fetching[name] = f"Fetching {name}: {there / 1e6:,.0f} of {total / 1e6:,.0f} MB"
            else:
                self._fetching.pop(name, None)

        try:
            return load(replace(self._download, report=report))
        finally:
            self._fetching.pop(name, None)


class _MadeOnce:
    """Things by key, the most recently used ones kept; each is made once, however many ask for it at a time."""

    def __init__(self, size: int):
        self._lock = threading.Lock()  # held for moments only: a forked process must not inherit it taken
        self._items: LRUCache[object, Future] = LRUCache(size)

    def __contains__(self, key) -> bool:
        with self._lock:
            return key in self._items and self._items[key].done()

    def drop(self, key, value) -> None:
        """Forget a thing, unless another one has taken its place."""
        with self._lock:
            item = self._items.get(key)
            if item is not None and item.done() and item.result() is value:
                del self._items[key]

    def get(self, key, make: Callable):
        with self._lock:
            item, mine = self._items.get(key), False
            if item is None:
                mine, item = True, Future()
                full = len(self._items) == self._items.maxsize
                self._items[key] = item  # before the new one takes memory, one makes room
        if not mine:
            return item.result()
        if full:
            _give_memory_back()
        try:
            item.set_result(make())
        except BaseException as error:
            with self._lock:
                self._items.pop(key, None)
            _let_go(error)
            item.set_exception(error)
        return item.result()


def _passages(subject: Subject) -> tuple[Text, ...]:
    """Plain prose in the model's tokens."""
    return tuple(map(tuple, subject.tokenizer(list(PASSAGES), add_special_tokens=False)["input_ids"]))


def _as_it_is(model: str) -> tuple:
    """What a model is kept by: its name, and of a folder of this machine its files as they are now."""
    return (model, *(folder_state(Path(model)) if model and is_folder(model) else ()))


def _check_fit(sae: Sae, subject: Subject) -> None:
    entry = sae.entry
    if entry.of_vector and sae.d_model != subject.space.d_model:
        raise UserError(
            f"The vector has {sae.d_model:,} numbers, and the embeddings of {subject.name} have "
            f"{subject.space.d_model:,}. Give one of that model, or name another model."
        )
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


def _let_go(error: BaseException) -> None:
    """Where memory did not suffice, free what the frames of the error hold (caches, half a model).

    They would go with the error, and whoever tells it may keep that for long.
    """
    chain: list[BaseException] = [error]
    while cause := chain[-1].__cause__:
        chain.append(cause)
    if any(out_of_memory(one) for one in chain):
        for one in chain:
            traceback.clear_frames(one.__traceback__)
        _give_memory_back()


def _give_memory_back() -> None:
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
