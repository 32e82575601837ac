"""What the page and the API ask for: recipes in; results out, and words in between on what is being waited for."""

import hashlib
import pickle
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from functools import partial
from threading import Lock

import torch

from multitool import engine
from multitool.asking import Asked, AskTask, Place, ReadTask
from multitool.checks import prepare_check
from multitool.component import Component
from multitool.document import DefinitionTree
from multitool.engine import PreparedTree, TokenTable
from multitool.errors import UserError
from multitool.library import Library
from multitool.recipe import ListRecipe, TreeRecipe, VectorRecipe, recipes
from multitool.scan import ScanTask
from multitool.settings import Settings
from multitool.sources import compared, missing_scan, recipe_heading, resolved, sae_and_subject
from multitool.steering import scans_for_clamp
from multitool.suggestion import Suggestion, prepare_suggestion
from multitool.ui_gpu import Worker
from multitool.vector import FeatureVector, placed

_TREES_KEPT = 100
_HEADINGS_KEPT = 200  # of a large model 20 kB each
_CONTROLS_KEPT = 8  # answers of other features; of a large model up to 20 MB each
_CONTROLS = "Other features' definitions, to compare with"
_POLL_SECONDS = 0.3
LONGEST_TEXT = 2000  # characters
MOST_PROMPTS = 8  # in one go
_MOST_TOKENS = 1000

Activity = list[tuple[str, float]]  # token by token: its text, and how strongly the feature fires there


class Service:
    """Answers requests of visitors within the operator's limits.

    Args:
        library: where models and SAEs come from.
        settings: the operator's limits.
        work: does a task on the machine that has the model.
    """

    def __init__(self, library: Library, settings: Settings, work: Worker):
        self.library = library
        self.settings = settings
        self._work = work
        self._loading = ThreadPoolExecutor(max_workers=16, thread_name_prefix="loading")
        self._trees = _Recent(_TREES_KEPT)  # whole ones by their recipes
        self._headings = _Recent(_HEADINGS_KEPT)  # by their recipes without scale and components
        self._controls = _Recent(_CONTROLS_KEPT)
        self._lock = Lock()
        self._scans: dict[object, _RunningScan] = defaultdict(_RunningScan)  # by the scan's folder

    def trees(self, vector: VectorRecipe, tree: TreeRecipe) -> Iterator[str | DefinitionTree]:
        """The tree as it grows; before that, in words, what it waits for. The same request again costs nothing.

        The last one may be incomplete: its time was up. ``continued`` goes on from there.

        Raises:
            UserError: it cannot be done, or not here.
        """
        self._check(tree)
        key = (vector := resolved(self.library, vector), tree)
        known = self._trees.get(key)
        if known:
            yield known
            return
        yield from self._scanned(vector, always=scans_for_clamp(self.library, vector, tree))
        prepared = yield from self._waiting(vector.sae, engine.prepare_tree, vector, tree)
        for answer in self._grown(prepared):
            if isinstance(answer, DefinitionTree) and answer.complete:
                self._trees.keep(key, answer)
            yield answer

    def trees_of_prompts(
        self, vector: VectorRecipe, trees: Sequence[TreeRecipe]
    ) -> Iterator[str | list[DefinitionTree]]:
        """The trees of several prompts: after each, those that there are; in between, in words, what is waited for.

        Raises:
            UserError: there are no prompts or too many, or a tree cannot be grown here.
        """
        if not 1 <= len(trees) <= MOST_PROMPTS:
            raise UserError(f"There are {len(trees)} prompts; give 1 to {MOST_PROMPTS} in one go.")
        for tree in trees:
            self._check(tree)
        grown: list[DefinitionTree] = []
        for tree in trees:
            for answer in self.trees(vector, tree):
                if isinstance(answer, str):
                    yield f"Prompt {len(grown) + 1} of {len(trees)}: {answer}"
            grown.append(answer)
            yield grown.copy()

    def continued(self, document: DefinitionTree) -> Iterator[str | DefinitionTree]:
        """The rest of a tree whose growth was stopped. Answers and errors as in ``trees``.

        Nothing of it is kept for others: what it goes on from may be anybody's file.
        """
        vector, tree = recipes(document.settings)
        self._check(tree)
        yield from self._scanned(vector, always=scans_for_clamp(self.library, vector, tree))
        yield from self._grown((yield from self._waiting(vector.sae, engine.prepare_continuation, document)))

    def table(
        self, vector: VectorRecipe, recipe: ListRecipe, *, evidence: bool = False
    ) -> Iterator[str | TokenTable]:
        """The token list; before it, in words, what it waits for. Raises UserError if it cannot be made.

        Args:
            evidence: judge it by how strongly each token fires the feature.
        """
        yield from self._scanned(vector, always=recipe.needs_activations(evidence=evidence))
        prepared = yield from self._waiting(
            vector.sae, partial(engine.prepare_list, evidence=evidence), vector, recipe
        )
        answers = ()
        if prepared.task is not None:
            yield self._first_words()
            answers = self._work(prepared.task)
        make = partial(prepared.table, *answers)
        yield (yield from self._waiting(vector.sae, lambda _: make(), otherwise="Listing the tokens …"))

    def checked(self, document: DefinitionTree) -> Iterator[str | DefinitionTree]:
        """The tree with its evidence; before it, in words, what it waits for. The tree may be anybody's file.

        Raises:
            UserError: it is too large, or no tree that can be checked here.
        """
        if len(document.tree) > self.settings.max_nodes:
            raise UserError(
                f"This tree has {len(document.tree):,} nodes; to be checked here it can have at most "
                f"{self.settings.max_nodes:,}. Trim it first."
            )
        vector, tree = recipes(document.settings)
        vector.single_feature()
        self._check(tree)
        yield from self._scanned(
            compared(self.library, resolved(self.library, vector)), always=scans_for_clamp(self.library, vector, tree)
        )
        prepared = yield from self._waiting(vector.sae, prepare_check, document)
        asked = yield from self._asked([prepared.ask], _CONTROLS)
        yield "Holding the tree against other ghosts, and reading its definitions …"
        checked, = self._work(prepared.check)
        judge = partial(prepared.evidence, checked, asked)
        yield (yield from self._waiting(vector.sae, lambda _: judge(), otherwise="Asking the SAE what fires …"))

    def activity(self, recipe: VectorRecipe, text: str) -> Iterator[str | Activity]:
        """Where a feature fires in a text; before it, in words, what it waits for. Raises UserError if it cannot be."""
        if not text or len(text) > LONGEST_TEXT:
            raise UserError(f"The text has {len(text or ''):,} characters; it must have 1 to {LONGEST_TEXT:,}.")
        entry, feature = self.library.find(recipe.sae), recipe.single_feature()

        def prepare(library: Library):
            sae, subject = sae_and_subject(library, recipe, None)
            return subject, _text_task(subject, sae.entry.hook, text), library.encoder(entry)

        subject, task, encoder = yield from self._waiting(recipe.sae, prepare)
        yield self._first_words()
        (residuals,), = self._work(task)
        fires = encoder.encode_feature(torch.from_numpy(residuals), feature)
        yield [(subject.token_texts[token_id], value)
               for token_id, value in zip(task.texts[0], fires.tolist(), strict=True)]

    def suggestion(self, vector: VectorRecipe, tree: TreeRecipe) -> Iterator[str | Suggestion]:
        """The best of many settings for a feature; before it, in words, what it waits for. Raises UserError if there is
        none."""
        self._check(tree)
        yield from self._scanned(vector, always=True)
        prepared = yield from self._waiting(vector.sae, prepare_suggestion, vector, tree)
        asked = yield from self._asked(prepared.asks, "Settings tried")
        controls = yield from self._asked([prepared.controls], _CONTROLS)
        judge = partial(prepared.suggestion, asked, controls)
        yield (yield from self._waiting(vector.sae, lambda _: judge(), otherwise="Judging the settings …"))

    def components(self, sae: str, **numbers) -> Iterator[str | list[Component]]:
        """The first principal components of an SAE's model, as ``engine.components`` tells them; before them, in words,
        what they wait for."""
        yield (yield from self._waiting(sae, partial(engine.components, **numbers), sae))

    def vector(self, recipe: VectorRecipe) -> FeatureVector | None:
        """The vector of a recipe, where that takes neither loading nor a vocabulary scan; else None.

        Quick, so that it can follow a control that is moved: what only scale and components change is not made again.

        Raises:
            UserError: there is no such vector.
        """
        recipe = resolved(self.library, recipe)
        entries = [self.library.find(term.sae or recipe.sae) for term in recipe.terms]
        if not all(map(self.library.has, entries)):
            return None
        key = replace(recipe, scale=None, pca=())
        heading = self._headings.get(key)
        if heading is None:
            if missing_scan(self.library, recipe):
                return None
            _, heading = recipe_heading(self.library, recipe, None)
            self._headings.keep(key, heading)
        space = self.library.subject(entries[0].model).space
        return placed(heading, space, centroid=recipe.centroid, scale=recipe.scale, pca=recipe.pca)

    def _grown(self, prepared: PreparedTree) -> Iterator[str | DefinitionTree]:
        yield self._first_words()
        # Gradio can stop a request only after its first answer; before, it would go on to its end for nobody.
        yield prepared.begun
        for growth in self._work(prepared.task):
            yield prepared.document(growth)

    def _first_words(self) -> str:
        return "Waiting for a GPU …" if self.settings.zero_gpu else "Starting …"

    def _scanned(self, vector: VectorRecipe, *, always: bool = False) -> Iterator[str]:
        """In words how far it is, until the vocabulary scans that a vector needs are there.

        Args:
            always: the scan is needed whatever the vector's direction.
        """
        missing = partial(self._waiting, vector.sae, partial(missing_scan, always=always), vector)
        while task := (yield from missing()):
            yield from self._scanned_once(task, missing)

    def _scanned_once(self, task: ScanTask, missing: Callable) -> Iterator[str]:
        """One of them. One visitor's request does the work and the others wait for it; broken off, the next goes on."""
        with self._lock:
            scan = self._scans[task.path]
        while not scan.turn.acquire(timeout=_POLL_SECONDS):
            yield scan.words(task.n_tokens)
        try:
            if (yield from missing()) == task:  # nobody has done it meanwhile
                yield self._first_words()
                for scan.done in self._work(task):
                    yield scan.words(task.n_tokens)
        finally:
            scan.turn.release()

    def _asked(self, tasks: Sequence[AskTask], what: str) -> Iterator[str]:
        """The answers to tasks that many requests share; in words how far it is, until they are there."""
        key = hashlib.sha256(pickle.dumps([replace(task, seconds=None) for task in tasks])).digest()
        answers: list[Asked] | None = self._controls.get(key)
        if answers is None:
            yield self._first_words()
            answers, n_ghosts = [], sum(len(task.growth.v) for task in tasks)
            for task in tasks:
                for some in self._work(task):
                    answers += some
                    yield f"{what}: {len(answers)} of {n_ghosts}"
            self._controls.keep(key, answers)
        return answers

    def _waiting(self, sae: str, work: Callable, *recipes, otherwise: str = ""):
        """What ``work`` makes of the recipes with the library, in a thread of its own; until then, in words, what it
        waits for.

        Who leaves does not stop the work: others may wait for the same download.

        Args:
            otherwise: the words where nothing is being fetched.
        """
        entry = self.library.find(sae)
        future = self._loading.submit(work, self.library, *recipes)
        while not wait([future], timeout=_POLL_SECONDS).done:
            yield self.library.progress(entry) or otherwise or f"Loading {entry.name} and {entry.model} …"
        return future.result()

    def _check(self, tree: TreeRecipe) -> None:
        if tree.max_nodes > self.settings.max_nodes:
            raise UserError(f"max_nodes is {tree.max_nodes}; here it can be at most {self.settings.max_nodes}.")
        length = len(tree.prompt + tree.answer)
        if length > self.settings.max_prompt:
            raise UserError(
                f"The prompt has {length} characters; here it can have at most {self.settings.max_prompt}."
            )


def _text_task(subject, hook: str, text: str) -> ReadTask:
    ids = tuple(subject.tokenizer(text, add_special_tokens=False)["input_ids"])
    most = min(_MOST_TOKENS, (subject.max_length or _MOST_TOKENS + 1) - 1)  # one stands before them
    if len(ids) > most:
        raise UserError(f"The text has {len(ids):,} tokens; it can have at most {most:,}. Shorten it.")
    place = Place(hook, subject.bos_id)
    return ReadTask(model=subject.name, folder=subject.folder, place=place, texts=[ids])


@dataclass
class _RunningScan:
    """A vocabulary scan that visitors wait for."""

    turn: Lock = field(default_factory=Lock)  # held by the one who does it
    done: int = 0

    def words(self, n_tokens: int) -> str:
        return f"Scanning the vocabulary (once for this model and layer): {self.done:,} of {n_tokens:,} tokens"


class _Recent:
    """Results by key, the most recently made ones kept."""

    def __init__(self, size: int):
        self._size = size
        self._lock = Lock()
        self._items: OrderedDict[object, object] = OrderedDict()

    def get(self, key):
        with self._lock:
            if key in self._items:
                self._items.move_to_end(key)
            return self._items.get(key)

    def keep(self, key, value) -> None:
        with self._lock:
            self._items[key] = value
            if len(self._items) > self._size:
                self._items.popitem(last=False)
