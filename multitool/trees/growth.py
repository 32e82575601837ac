"""Growing definition trees, level by level, from anything that continues tokens: one tree, or many at once."""

import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np

from multitool.trees.tree import ROOT, Tree, at_larger_cutoff, most_probable

Answer = TypeVar("Answer")
_SMALL_BATCH = 32  # so many paths take hardly longer than one
_ROUNDING = 1e-6  # relative: float32 must not lose a token that is exactly at the cutoff


@dataclass(frozen=True)
class Next:
    """What may come next after each of n paths."""

    row: np.ndarray  # (m,) int64: which path, rising
    token_id: np.ndarray  # (m,) int64
    prob: np.ndarray  # (m,) float32, falling within a row
    beyond: np.ndarray  # (n,) float64: probability of tokens that are wanted but beyond the top_k


class NextTokens(Protocol):
    """The most probable next tokens, for many paths at once. Rows are numbered as in the last answer.

    ``least``, (n,), is the smallest probability of a next token that is wanted after each path; None: any.

    Attributes:
        entropies: of the first token after the prompt, in nats: (n_trees,) float64; None before a start, and after one
            with ``paths``.
    """

    entropies: np.ndarray | None

    def start(self, paths: np.ndarray | None = None, least: np.ndarray | None = None) -> Next:
        """After the prompt, one row (for a forest one for each tree), or after the prompt and each of ``paths``, (n, k)
        token ids."""

    def advance(self, rows: np.ndarray, token_ids: np.ndarray, least: np.ndarray | None = None) -> Next:
        """After each of ``rows`` of the last answer (n,), rising, continued by ``token_ids`` (n,)."""


@dataclass(frozen=True)
class Growth:
    """A tree as far as it has grown. Its tokens are known by their ids; ``Tree.spelled`` adds their texts."""

    tree: Tree
    depth: int  # levels grown so far
    effective_cutoff: float  # the cutoff that gives this tree
    done: bool  # False: there is more to grow
    seconds: float  # since the growth began
    entropy: float | None = None  # nats: of the first token, over the whole vocabulary; None if it was not asked anew


def grow(
    source: NextTokens,
    *,
    cutoff: float,
    max_depth: int,
    max_nodes: int,
    ends: np.ndarray | None = None,
    begun: Tree | None = None,
    seconds: float | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> Iterator[Growth]:
    """Grow the tree of all nodes with a cumulative probability of at least ``cutoff``; yield after every level.

    If there are more than ``max_nodes`` of them, the result is exactly the ``max_nodes`` most probable: a node
    below the ``max_nodes``-th best found so far can neither be among those nor have a descendant that is, so it
    is not followed up.

    Args:
        ends: (V,) bool, tokens that end a definition and are not continued; None lets every token go on.
        begun: a tree that these settings gave before it was stopped; it is grown on.
        seconds: start no level that is expected to end after this time.
        clock: tells the time in seconds.
    """
    growing = _Growing(cutoff, max_depth, max_nodes, ends, begun, clock)
    if not len(growing.paths):  # ``begun`` was whole
        yield growing.growth
        return
    level_began = 0.0
    known = None if begun is None else np.array([begun.token_id[begun.path(node)] for node in growing.paths])
    found = source.start(known, growing.least)
    growing.entropy = None if source.entropies is None else float(source.entropies[0])
    while True:
        n_paths = len(growing.paths)
        growth = growing.take(found)
        yield growth
        # The next level takes as much longer as it has more paths, unless both fit into one small batch.
        expected = (growth.seconds - level_began) * max(1.0, len(growing.paths) / max(n_paths, _SMALL_BATCH))
        if growth.done or (seconds is not None and growth.seconds + expected > seconds):
            return
        level_began = growing.seconds
        found = source.advance(growing.rows, growing.token_ids, growing.least)


def grow_forest(
    source: NextTokens,
    n_trees: int,
    *,
    cutoff: float,
    max_depth: int,
    max_nodes: int,
    ends: np.ndarray | None = None,
) -> Generator[None, None, list[Growth]]:
    """Grow many trees at once, the paths of all of them in the same batches; each is what ``grow`` gives alone.

    A generator that yields after every level, so that it can be left there.

    Args:
        source: its ``start`` answers with one row per tree.
        cutoff, max_depth, max_nodes, ends: of each tree, as for ``grow``.

    Returns:
        The whole trees, in the order of those rows. Their ``seconds`` are since the growth of all began.
    """
    if not n_trees:
        return []
    trees = [_Growing(cutoff, max_depth, max_nodes, ends) for _ in range(n_trees)]
    found = source.start(least=np.concatenate([tree.least for tree in trees]))
    if source.entropies is not None:
        for tree, entropy in zip(trees, source.entropies, strict=True):
            tree.entropy = float(entropy)
    while True:
        # Each tree's paths follow those of the trees before it.
        bounds = np.cumsum([0] + [len(tree.paths) for tree in trees])
        rows = []
        for tree, first, last in zip(trees, bounds[:-1], bounds[1:], strict=True):
            if first < last:
                tree.take(_of_rows(found, first, last))
                rows.append(first + tree.rows)
        if not sum(map(len, rows)):
            return [tree.growth for tree in trees]
        yield
        found = source.advance(
            np.concatenate(rows), np.concatenate([tree.token_ids for tree in trees]),
            np.concatenate([tree.least for tree in trees]),
        )


def finished(work: Generator[None, None, Answer]) -> Answer:
    """What work that can be left after every step comes to."""
    while True:
        try:
            next(work)
        except StopIteration as end:
            return end.value


def _of_rows(found: Next, first: int, last: int) -> Next:
    """The part of an answer that is about the rows from ``first`` to before ``last``."""
    part = slice(*np.searchsorted(found.row, [first, last]))
    return Next(found.row[part] - first, found.token_id[part], found.prob[part], found.beyond[first:last])


class _Growing:
    """A tree on its way: which paths' next tokens it wants, and what comes of them. It asks nobody itself.

    Attributes:
        paths: nodes whose next tokens are wanted, (n,); none when the tree is whole.
        rows: where the parents of ``paths`` stood among the paths before, (n,), rising.
        token_ids: the tokens of ``paths``, (n,).
        growth: the tree so far; from the first level on.
        entropy: of the first token, as ``Growth`` tells it.
    """

    growth: Growth

    def __init__(
        self, cutoff: float, max_depth: int, max_nodes: int, ends: np.ndarray | None, begun: Tree | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ):
        self._clock, self._started = clock, clock()
        self._cutoff, self._max_depth, self._max_nodes, self._ends = cutoff, max_depth, max_nodes, ends
        self._columns = _Columns()
        self._depth, self._threshold = 0, cutoff
        self._full = False  # whether max_nodes has kept out nodes that reach the cutoff
        self.paths = np.array([ROOT])
        self.entropy: float | None = None
        if begun is not None:
            self._go_on_from(begun)

    @property
    def seconds(self) -> float:
        """Since the growth began."""
        return self._clock() - self._started

    @property
    def least(self) -> np.ndarray:
        """The smallest probability of a next token that can be kept, for each of ``paths``: (n,)."""
        # As long as nothing had to be left out, it matters whether there is more down to the cutoff.
        wanted = self._threshold if self._full else self._cutoff
        return (1 - _ROUNDING) * wanted / self._columns.cumulative_prob(self.paths)

    def take(self, found: Next) -> Growth:
        """Grow by a level: what comes next after ``paths``."""
        reached = self._columns.cumulative_prob(self.paths)[found.row] * found.prob.astype(np.float64)
        keep = reached >= self._threshold
        self._full |= bool(np.count_nonzero(keep) < np.count_nonzero(reached >= self._cutoff))
        self._columns.set_beyond(self.paths, found.beyond)
        row, token_id = found.row[keep], found.token_id[keep]
        level = Tree(
            parent=self.paths[row],
            token_id=token_id,
            token=("",) * len(row),
            prob=found.prob[keep].astype(np.float64),
            cumulative_prob=reached[keep],
            end=np.zeros(len(row), dtype=bool) if self._ends is None else self._ends[token_id],
        )
        first = self._columns.append(level)
        self._depth += 1
        self._threshold = max(self._cutoff, self._columns.nth_best(self._max_nodes))
        open_ = self._open(level)
        self.paths, self.rows, self.token_ids = first + open_, row[open_], level.token_id[open_]
        tree = self._columns.tree(self._max_nodes)
        self._full |= self._columns.count > len(tree)
        self.growth = self._so_far(tree, self.seconds)
        return self.growth

    def _go_on_from(self, begun: Tree) -> None:
        self._columns.append(begun)
        unknown = np.full(len(begun) + 1, np.nan)
        beyond = unknown if begun.beyond is None else begun.beyond
        self._columns.set_beyond(np.append(np.arange(len(begun)), ROOT), beyond)
        self._full = len(begun) >= self._max_nodes
        self._threshold = max(self._cutoff, self._columns.nth_best(self._max_nodes))
        depths = begun.depth
        self._depth = int(depths.max())
        open_ = self._open(begun)
        self.paths = open_[depths[open_] == self._depth]
        self.growth = self._so_far(begun, 0.0)

    def _open(self, level: Tree) -> np.ndarray:
        """The nodes that may have children worth keeping."""
        if self._depth >= self._max_depth:
            return np.empty(0, dtype=np.int64)
        return np.flatnonzero(~level.end & (level.cumulative_prob >= self._threshold))

    def _so_far(self, tree: Tree, seconds: float) -> Growth:
        effective_cutoff = self._cutoff
        if self._full:
            tree, effective_cutoff = at_larger_cutoff(tree), float(tree.cumulative_prob.min())
        return Growth(tree, self._depth, effective_cutoff, not len(self.paths), seconds, self.entropy)


class _Columns:
    """All nodes found so far, level after level."""

    def __init__(self):
        self._levels: list[Tree] = []
        self._beyond = np.zeros(1)  # as Tree has it
        self.count = 0

    def append(self, level: Tree) -> int:
        """Add nodes whose parents are here already; the index of the first of them."""
        first = self.count
        self._levels.append(level)
        self._beyond = np.insert(self._beyond, first, np.zeros(len(level)))
        self.count += len(level)
        return first

    def set_beyond(self, nodes: np.ndarray, beyond: np.ndarray) -> None:
        """Note of nodes (ROOT: the prompt) what comes next that is beyond the top_k."""
        self._beyond[nodes] = beyond

    def cumulative_prob(self, nodes: np.ndarray) -> np.ndarray:
        """Of these nodes; the root's is 1."""
        return np.append(self._column("cumulative_prob"), 1.0)[nodes] if self.count else np.ones(len(nodes))

    def nth_best(self, n: int) -> float:
        """The ``n``-th highest cumulative probability, or 0 while there are fewer nodes."""
        if self.count < n:
            return 0.0
        return float(np.partition(self._column("cumulative_prob"), self.count - n)[self.count - n])

    def tree(self, max_nodes: int) -> Tree:
        names = ("parent", "token_id", "prob", "cumulative_prob", "end")
        columns = {name: self._column(name) for name in names}
        beyond = None if np.isnan(self._beyond).any() else self._beyond.copy()
        whole = Tree(token=("",) * self.count, beyond=beyond, **columns)
        return whole.select(most_probable(whole.cumulative_prob, max_nodes)) if self.count > max_nodes else whole

    def _column(self, name: str) -> np.ndarray:
        return np.concatenate([getattr(level, name) for level in self._levels])
