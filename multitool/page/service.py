"""Serves the page and the API: takes recipes, yields progress messages, then the result.

The sequence of every job is in ``jobs``; here its steps are done for visitors: within the operator's limits, the model
where the GPU is, each vocabulary scan by one visitor while others wait, and answers kept that many ask for.
"""

import contextlib
import hashlib
import os
import pickle
import time
from collections import defaultdict
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from functools import partial
from threading import Lock
from typing import Any

from cachetools import LRUCache

from multitool.errors import UserError
from multitool.jobs.card import begun, card_job, reading_job, with_fires, with_label, with_neighbours, with_written
from multitool.jobs.check import check_job
from multitool.jobs.components import PrincipalComponent, components_job
from multitool.jobs.continuation import SteeredTexts, steer_job
from multitool.jobs.feature_card import FeatureCard, Reading, reading_of
from multitool.jobs.features import missing_scan, pulled_at_once, recipe_heading, resolve, vector_to, with_weights
from multitool.jobs.find import (
    FoundFeatures,
    find_by_text_job,
    find_by_tokens_job,
    find_like_job,
    fires_at_job,
    search_atlas,
)
from multitool.jobs.progress import left_told, seconds_left
from multitool.jobs.steps import COUNTED, Ask, Grow, Job, Keep, Prepare, Result
from multitool.jobs.suggest import Suggestion, suggest_job
from multitool.jobs.text import Activity, text_job
from multitool.jobs.token_list import list_job
from multitool.jobs.token_table import TokenTable
from multitool.jobs.tree import continuation_job, grown, prepare_trees, tree_job
from multitool.model.tasks import Task
from multitool.page.callers import Callers, Waiting, this_caller
from multitool.page.settings import ServerSettings
from multitool.page.shelf import Shelf
from multitool.page.zero_gpu import POLL_SECONDS, Worker, too_long
from multitool.recipes.atlas import AtlasSearch
from multitool.recipes.continuation import SteerRecipe
from multitool.recipes.finding import LikenessSearch, TextSearch, TokenSearch
from multitool.recipes.recipe import LENSES, ListRecipe, TreeRecipe, VectorRecipe, recipes
from multitool.store.entries import SaeEntry
from multitool.store.kept_rows import RowsTask
from multitool.store.library import Library
from multitool.store.neuronpedia import may_ask
from multitool.trees.document import DefinitionTree
from multitool.vectors.vector import FeatureVector

LIGHT_CALLS, MOST_LIGHT_CALLS = 16, 96  # of one caller, and of all, at a time, where that is limited
_LOADING = 256  # threads, of work that mostly waits,
_COMPUTING = max(4, os.cpu_count() or 1)  # and of work that does not: each takes memory, some hundreds of megabytes
_TREES_KEPT = 100
_HEADINGS_KEPT = 200  # of a large model 20 kB each
_CARDS_KEPT = 300  # some kilobytes each
_ANSWERS_KEPT = 8  # of other features; of a large model up to 20 MB each
_PULLBACKS_KEPT = 100  # of a feature up to 20 kB each, of those to compare with 17 times as much
LONGEST_TEXT = 2000  # characters
MOST_PROMPTS = 8  # in one go

# What is said during a step, by its purpose; of many ghosts with how many have answered.
_WORDS = {
    "vectors": "Preparing …",
    "list": "Listing the tokens …",
    "find": "Looking for features …",
    "pullback": "Carrying the encoder back through the layers …",
    "writing": "Pushing the model along the feature's decoder, to see what it then says …",
    "check": "Holding the tree against other ghosts, and reading its definitions …",
    "judge_tree": "Asking the SAE what fires …",
    "judge_settings": "Judging the settings …",
} | COUNTED


class Service:
    """Answers requests of visitors within the operator's limits.

    Args:
        library: where models and SAEs come from.
        settings: the operator's limits; ``callers`` and ``light_callers`` count by them.
        work: does a task on the machine that has the model.
        poll_seconds: how often a request that waits tells what for.
        trees_kept: how many trees are kept for those who ask the same.
    """

    def __init__(
        self, library: Library, settings: ServerSettings, work: Worker, *, poll_seconds: float = POLL_SECONDS,
        trees_kept: int = _TREES_KEPT,
    ):
        self.library = library
        self.settings = settings
        self.callers = Callers(settings.calls, settings.queue + settings.concurrency)
        limited = settings.calls is not None
        self.light_callers = Callers(*(LIGHT_CALLS, MOST_LIGHT_CALLS) if limited else ())  # of what takes no model
        # Of the work of requests, also of those that have left it behind.
        self._workers = Callers(None if settings.calls is None else settings.calls + LIGHT_CALLS)
        self.shelf = Shelf(settings.trees_mb * 1e6)  # of what pages show
        self._work = work
        self._poll_seconds = poll_seconds
        # Apart, so that nobody's list waits behind another one's downloads; nobody's download, for those of others.
        self._loading = ThreadPoolExecutor(_LOADING, thread_name_prefix="loading")
        self._computing = ThreadPoolExecutor(_COMPUTING, thread_name_prefix="computing")
        self._lock = Lock()  # of the caches, and of what is computed for the disk
        self._trees: LRUCache = LRUCache(trees_kept)  # whole ones, by their recipes
        self._answers: LRUCache = LRUCache(_ANSWERS_KEPT)  # by the tasks
        self._pullbacks: LRUCache = LRUCache(_PULLBACKS_KEPT)  # the same, apart: of these there are many and small ones
        self._headings: LRUCache = LRUCache(_HEADINGS_KEPT)  # by their recipes without scale and components
        self._cards: LRUCache = LRUCache(_CARDS_KEPT)  # with the names of the parts that have been looked for
        self._rows: dict[object, _RunningRows] = defaultdict(_RunningRows)  # by the folder that they are kept in

    def trees(self, vector: VectorRecipe, tree: TreeRecipe) -> Iterator[str | DefinitionTree]:
        """The tree as it grows; before that, in words, what it waits for. The same request again costs nothing.

        The last one may be incomplete: its time was up. ``continued`` goes on from there.

        Raises:
            UserError: it cannot be done, or not here.
        """
        self._check(tree)
        vector = with_weights(self.library, vector)
        key = vector, tree, self._files(vector)
        document = self._kept(self._trees, key)
        if document:
            yield document
            return
        for answer in self._run(vector.sae, tree_job(self.library, vector, tree)):
            self._keep_tree(key, answer)
            yield answer

    def keeps(self, vector: VectorRecipe, tree: TreeRecipe) -> bool:
        """Whether the tree is kept, so that ``trees`` takes none of the model's time. Raises UserError if there is no
        such SAE."""
        vector = with_weights(self.library, vector)
        return self._kept(self._trees, (vector, tree, self._files(vector))) is not None

    def trees_of_prompts(
        self, vector: VectorRecipe, trees: Sequence[TreeRecipe]
    ) -> Iterator[str | list[DefinitionTree]]:
        """The trees of several prompts: after each, those that there are; in between, in words, what is waited for.

        Raises:
            UserError: there are no prompts or too many, or a tree cannot be grown here.
        """
        check_prompts(trees)
        for tree in trees:
            self._check(tree)
        vector = with_weights(self.library, vector)
        files = self._files(vector)
        known = {tree: self._kept(self._trees, (vector, tree, files)) for tree in trees}
        to_grow = [tree for tree, document in known.items() if document is None]
        preparing = prepare_trees(self.library, vector, to_grow)  # all are checked before the first one grows
        prepared = (yield from self._run(vector.sae, preparing)) if to_grow else []
        growing = dict(zip(to_grow, prepared, strict=True))
        documents: list[DefinitionTree] = []
        left = self._budget()
        for tree in trees:
            if known[tree] is None:
                # Each has an equal part of the time that those before it have left.
                part = left.part(len(growing))
                for answer in self._run(vector.sae, grown(growing.pop(tree)), part):
                    if isinstance(answer, str):
                        yield f"Prompt {len(documents) + 1} of {len(trees)}: {answer}"
                    else:
                        self._keep_tree((vector, tree, files), answer)
                        known[tree] = answer
                left.used += part.used
            documents.append(known[tree])
            yield documents.copy()

    def continued(self, document: DefinitionTree) -> Iterator[str | DefinitionTree]:
        """The rest of a tree whose growth was stopped. Answers and errors as in ``trees``."""
        vector, tree = recipes(document.settings)
        self._check(tree)
        yield from self._run(vector.sae, continuation_job(self.library, document))

    def table(
        self, vector: VectorRecipe, recipe: ListRecipe, *, evidence: bool = False
    ) -> Iterator[str | TokenTable]:
        """The token list; before it, in words, what it waits for. Raises UserError if it cannot be made.

        Args:
            evidence: judge it, as ``list_job`` does.
        """
        yield (yield from self._run(vector.sae, list_job(self.library, vector, recipe, evidence=evidence)))

    def lists_at_once(self, vector: VectorRecipe, recipe: ListRecipe) -> bool:
        """Whether a token list takes neither loading nor a vocabulary scan, and no GPU of ZeroGPU."""
        try:
            vector = with_weights(self.library, vector, for_list=True)
            if self.settings.zero_gpu:
                return recipe.measure not in (*LENSES, "activation") and self.vector(vector) is not None
            entries = [self.library.place(term.sae or vector.sae) for term in vector.terms]
            if not all(map(self.library.has, entries)):
                return False
            target = resolve(self.library, vector, for_list=True)
            if recipe.measure == "jacobian_lens" and not self.library.lens_here(entries[0], target.subject):
                return False
            return missing_scan(target, always=recipe.needs_activations(evidence=False)) is None
        except UserError:
            return False

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
        yield (yield from self._run(vector.sae, check_job(self.library, document)))

    def card(self, sae: str, feature: int, *, read: bool = False) -> Iterator[str | FeatureCard]:
        """What is known of a feature, as it becomes known; at once what lies in files here. Nothing is fetched for it
        but Neuronpedia's label, nothing is loaded that does not lie here, and no GPU of ZeroGPU is asked for.

        Args:
            read: where SAE and model are in memory, the SAE and the model may read for it too.

        Raises:
            UserError: there is no such SAE. What else cannot be had is left out.
        """
        entry, library, runs = self.library.find(sae), self.library, not self.settings.zero_gpu
        parts: dict[str, tuple[bool, Callable[..., Job[FeatureCard]]]] = {
            "nearest": (library.at_hand(entry), with_neighbours), "label": (may_ask(entry), with_label),
            "written": (library.at_hand(entry), with_written),
            "fires": (read and library.has(entry), partial(with_fires, runs=runs)),
        }
        card, done = self._card(sae, feature)
        yield card
        for name, (wanted, part) in parts.items():
            if not wanted or name in done:
                continue
            with contextlib.suppress(UserError):
                card = yield from self._run(sae, part(library, card))
            if name != "fires" or card.histogram:  # else prose may be kept another time
                done |= {name}
            self.keep_card(card, done)
            yield card

    def card_at_once(self, sae: str, feature: int) -> FeatureCard:
        """The card as far as it is known without a wait. Raises UserError if there is no such SAE."""
        card, _ = self._card(sae, feature)
        return card

    def _card(self, sae: str, feature: int) -> tuple[FeatureCard, frozenset[str]]:
        """A card, and which parts have been looked for."""
        kept = self._kept(self._cards, (sae, feature, self.library.state(sae)))
        return kept or (begun(self.library, sae, feature), frozenset())

    def keep_card(
        self, card: FeatureCard, done: frozenset[str] = frozenset({"nearest", "label", "written", "fires"})
    ) -> None:
        """Keep a card for those who look at the same feature.

        Args:
            done: the parts that have been looked for.
        """
        self._keep(self._cards, (card.sae, card.feature, self.library.state(card.sae)), (card, done))

    def whole_card(self, sae: str, feature: int) -> Iterator[str | FeatureCard]:
        """A feature's card with all its parts; before it, in words, what it waits for. The model runs for it. Raises
        UserError as ``card_job``."""
        number = VectorRecipe(sae=sae, feature=feature).single_feature()
        yield (yield from self._run(sae, card_job(self.library, sae, number)))

    def reading(self, document: DefinitionTree) -> Iterator[str | Reading]:
        """What a tree says that its feature means; where that takes neither loading nor a GPU of ZeroGPU, also on how
        many of its definitions the feature fires. The tree may be anybody's file."""
        reading, sae = reading_of(document), str(document.settings.get("sae"))
        if reading.hits is None and not self.settings.zero_gpu:
            with contextlib.suppress(UserError):
                if self.library.has(self.library.find(sae)):
                    reading = yield from self._run(sae, reading_job(self.library, document))
        yield reading

    def activity(self, recipe: VectorRecipe, text: str) -> Iterator[str | Activity]:
        """Where a feature fires in a text; before it, what it waits for. Raises UserError if one of them is invalid."""
        check_text(text)
        yield (yield from self._run(recipe.sae, text_job(self.library, recipe, text)))

    def continuations(self, vector: VectorRecipe, recipe: SteerRecipe) -> Iterator[str | SteeredTexts]:
        """A text continued with and without a feature, as it is written; before it, in words, what it waits for.

        The last answer may be incomplete: its time was up.

        Raises:
            UserError: it cannot be done, or not here.
        """
        check_text(recipe.text)
        yield from self._run(vector.sae, steer_job(self.library, vector, recipe))

    def found_by_text(self, asked: TextSearch) -> Iterator[str | FoundFeatures]:
        """The features that fire on a text; before them, in words, what they wait for. Raises UserError if they cannot
        be told."""
        check_text(asked.text)
        yield (yield from self._run(asked.sae, find_by_text_job(self.library, asked)))

    def fires_at(self, found: FoundFeatures, place: int) -> Iterator[str | FoundFeatures]:
        """What fires at a token of the text that features were found by. Answers and errors as in ``found_by_text``."""
        yield (yield from self._run(found.settings["sae"], fires_at_job(self.library, found, place)))

    def found_by_tokens(self, asked: TokenSearch) -> Iterator[str | FoundFeatures]:
        """The features near to tokens. Answers and errors as in ``found_by_text``."""
        yield (yield from self._run(asked.sae, find_by_tokens_job(self.library, asked)))

    def found_like(self, asked: LikenessSearch) -> Iterator[str | FoundFeatures]:
        """The features near to a feature. Answers and errors as in ``found_by_text``."""
        yield (yield from self._run(asked.sae, find_like_job(self.library, asked)))

    def found_in_atlas(self, asked: AtlasSearch) -> Iterator[str | FoundFeatures]:
        """The features of the atlas that are looked for, of SAEs that are served. Answers and errors as in
        ``found_by_text``."""
        work = partial(search_atlas, self.library, asked, offered=True)
        yield (yield from self._prepared(None, Prepare(work, "find")))

    def suggestion(self, vector: VectorRecipe, tree: TreeRecipe) -> Iterator[str | Suggestion]:
        """The best of many settings for a feature; before it, in words, what it waits for. Raises UserError if there is
        none."""
        self._check(tree)
        yield (yield from self._run(vector.sae, suggest_job(self.library, vector, tree)))

    def components(self, sae: str, **numbers) -> Iterator[str | list[PrincipalComponent]]:
        """The first principal components of an SAE's model, as ``components_job`` tells them; before them, in words,
        what they wait for."""
        yield (yield from self._run(sae, components_job(self.library, sae, **numbers)))

    def vector(self, recipe: VectorRecipe) -> FeatureVector | None:
        """The vector of a recipe, where that takes neither loading nor a vocabulary scan; else None.

        Quick, so that it can follow a control that is moved: what only scale and components change is not made again.

        Raises:
            UserError: there is no such vector.
        """
        recipe = with_weights(self.library, recipe)
        entries = [self.library.place(term.sae or recipe.sae) for term in recipe.terms]
        if not all(map(self.library.has, entries)):
            return None
        key = replace(recipe, scale=None, pca=()), self._files(recipe)
        heading = self._kept(self._headings, key)
        if heading is None:
            target = resolve(self.library, recipe)
            pulled = None if missing_scan(target) else pulled_at_once(target)
            if pulled is None:
                return None
            heading = recipe_heading(pulled)
            self._keep(self._headings, key, heading)
        return vector_to(heading, self.library.subject(entries[0].model), recipe)

    # Doing the steps of a job

    def _run(self, sae: str, job: Job[Result], budget: "_Budget | None" = None) -> Generator[Any, None, Result]:
        """Do the steps of a job: in words what it waits for, and what grows as it does. Returns the job's result.

        Args:
            sae: what is being loaded, if something is.
            budget: the model's time; None: what one request has.
        """
        entry, answer, budget = self.library.place(sae), None, budget or self._budget()
        while True:
            try:
                step = job.send(answer)
            except StopIteration as end:
                return end.value
            match step:
                case Prepare():
                    answer = yield from self._prepared(entry, step)
                case Keep():
                    answer = None
                    yield from self._kept_on_disk(entry, step.task)
                case Ask():
                    answer = yield from self._asked(sae, step, budget)
                case Grow():
                    answer = yield from self._grown(step, budget)

    def _prepared(self, entry: SaeEntry | None, step: Prepare) -> Generator[str, None, Any]:
        """What the step's work gives, in a thread of its own.

        A visitor who leaves does not cancel the work that has begun: others may be waiting for the same download. It
        counts as that visitor's until it ends.
        """
        leave = self._workers.enter(this_caller())
        pool = self._loading if step.purpose == "load" else self._computing
        future = pool.submit(step.work)
        future.add_done_callback(lambda _: leave())
        try:
            while not wait([future], timeout=self._poll_seconds).done:
                loading = f"Loading {entry.name} and {entry.model} …" if entry else "Loading …"
                fetching = self.library.progress(entry) if entry else ""
                yield fetching or _WORDS.get(step.purpose, loading)
            return future.result()
        finally:
            future.cancel()

    def _kept_on_disk(self, entry: SaeEntry, task: RowsTask) -> Generator[str, None, None]:
        """A vocabulary scan, say. One visitor's request does it and the others wait; broken off, the next goes on."""
        with self._lock:
            running = self._rows[task.path]
        while not running.turn.acquire(timeout=self._poll_seconds):
            yield running.told(task)
        try:
            there = yield from self._prepared(entry, Prepare(partial(self.library.keeps, task)))
            if not there:  # nobody has done it meanwhile
                yield self._first_words()
                running.began = None
                for answer in self._work(task):
                    if isinstance(answer, int):
                        running.now(answer)
                    yield str(answer) if isinstance(answer, Waiting) else running.told(task)
        finally:
            running.turn.release()

    def _asked(self, sae: str, step: Ask, budget: "_Budget") -> Generator[str, None, list]:
        """The answers to a step's tasks; those that many requests share are kept."""
        cache = self._pullbacks if step.purpose == "pullback" else self._answers
        key = (_content(step.tasks), self.library.state(sae)) if step.shared else None
        answers = self._kept(cache, key)
        if answers is not None:
            return answers
        words = _WORDS.get(step.purpose)
        n_ghosts = step.n_ghosts
        yield (said := words if words and not n_ghosts else self._first_words())
        answers = []
        for task in step.tasks:
            for some in self._on_model(task, budget):
                if isinstance(some, Waiting):
                    yield str(some)
                    continue
                if some is not None:
                    answers.append(some)
                if n_ghosts:
                    said = f"{words}: {sum(map(len, answers))} of {n_ghosts}"
                yield said
        if step.shared:
            self._keep(cache, key, answers)
        return answers

    def _grown(self, step: Grow, budget: "_Budget") -> Generator[Any, None, Any]:
        """A tree, say, as it grows."""
        yield self._first_words()
        # Gradio can stop a request only after its first answer; before, it would go on to its end for nobody.
        yield (document := step.begun)
        if budget.left is not None and budget.left <= 0:
            return document
        for growth in self._on_model(step.task, budget):
            if isinstance(growth, Waiting):
                yield str(growth)
            elif growth is not None:
                yield (document := step.document(growth))
        return document

    def _on_model(self, task: Task, budget: "_Budget") -> Iterator:
        """The model's answers to a task, within what is left of the time. Raises UserError if nothing is."""
        if budget.left is not None and budget.left <= 0:
            raise too_long(self.settings)
        began = time.monotonic()
        for answer in self._work(replace(task, seconds=budget.left)):
            if isinstance(answer, Waiting):
                began = time.monotonic()  # that was not the model's
            yield answer
        budget.used += time.monotonic() - began

    def _budget(self) -> "_Budget":
        """Of one request. On ZeroGPU every loan of a GPU has its own."""
        return _Budget(None if self.settings.zero_gpu else self.settings.seconds)

    def _keep_tree(self, key: tuple[VectorRecipe, TreeRecipe, tuple], answer: str | DefinitionTree) -> None:
        """Keep a whole tree for those who ask the same. (Not one that goes on from another: that may be anybody's.)"""
        if isinstance(answer, DefinitionTree) and answer.complete:
            self._keep(self._trees, key, answer)

    def _files(self, recipe: VectorRecipe) -> tuple:
        """What changes when the files do that a recipe's SAEs and model are in."""
        return tuple(self.library.state(term.sae or recipe.sae) for term in recipe.terms)

    def _first_words(self) -> str:
        return "Waiting for a GPU …" if self.settings.zero_gpu else "Starting …"

    def _kept(self, cache: LRUCache, key):
        with self._lock:
            return cache.get(key)

    def _keep(self, cache: LRUCache, key, value) -> None:
        with self._lock:
            cache[key] = value

    def _check(self, tree: TreeRecipe) -> None:
        if tree.max_nodes > self.settings.max_nodes:
            raise UserError(f"max_nodes is {tree.max_nodes}; here it can be at most {self.settings.max_nodes}.")
        length = len(tree.prompt + tree.answer)
        if length > self.settings.max_prompt:
            raise UserError(
                f"The prompt has {length} characters; here it can have at most {self.settings.max_prompt}."
            )


def check_prompts(prompts: Sequence) -> None:
    """Raises UserError if there are none or too many for one go."""
    if not 1 <= len(prompts) <= MOST_PROMPTS:
        raise UserError(f"There are {len(prompts)} prompts; give 1 to {MOST_PROMPTS} in one go.")


def check_text(text: str) -> None:
    """Raises UserError if a text is longer than any that is read here, or is none."""
    if not text or len(text) > LONGEST_TEXT:
        raise UserError(f"The text has {len(text or ''):,} characters; it must have 1 to {LONGEST_TEXT:,}.")


def _content(tasks: Sequence[Task]) -> bytes:
    """A key for what is asked, whoever asks it and however much time there is for it."""
    return hashlib.sha256(pickle.dumps([replace(task, seconds=None) for task in tasks])).digest()


@dataclass
class _Budget:
    """The model's time for a request."""

    seconds: float | None  # in all; None: as long as it takes
    used: float = 0.0

    @property
    def left(self) -> float | None:
        return None if self.seconds is None else self.seconds - self.used

    def part(self, n: int) -> "_Budget":
        """An ``n``-th of what is left."""
        return _Budget(None if self.left is None else self.left / n)


@dataclass
class _RunningRows:
    """What is kept on disk once it is there, and visitors wait for: a vocabulary scan, or the layers' Jacobian."""

    turn: Lock = field(default_factory=Lock)  # held by the one who does it
    done: int = 0
    before: int = 0  # how much there was when it
    began: float | None = None  # in seconds; None: nothing tells yet how long it takes

    def now(self, done: int) -> None:
        """So much is there."""
        if self.began is None:
            self.began, self.before = time.monotonic(), done
        self.done = done

    def told(self, task: RowsTask) -> str:
        """How far it is, and how long the rest takes, in words."""
        began, told = self.began, task.told(self.done)
        left = None if began is None else seconds_left(self.done, task.n_rows, self.before, time.monotonic() - began)
        return told if left is None else f"{told} · {left_told(left)}"
