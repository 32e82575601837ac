"""Growing a definition tree, level by level, from anything that continues tokens."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from multitool.tree import ROOT, Tree, most_probable

_SMALL_BATCH = 32  # so many paths take hardly longer than one


class NextTokens(Protocol):
    """The most probable next tokens, for many paths at once. Rows are numbered as in the last answer."""

    def start(self, paths: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """(token ids, probabilities), by falling probability: each (1, top_k) after the prompt, or
        (n, top_k) after the prompt and each of ``paths``, (n, k) token ids."""

    def advance(self, rows: np.ndarray, token_ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The same after each of ``rows`` of the last answer (n,), rising, continued by ``token_ids`` (n,):
        each (n, top_k)."""


@dataclass(frozen=True)
class Growth:
    """A tree as far as it has grown. Its tokens are known by their ids; ``Tree.spelled`` adds their texts."""

    tree: Tree
    depth: int  # levels grown so far
    effective_cutoff: float  # the cutoff that gives this tree
    done: bool  # False: there is more to grow
    seconds: float  # since the growth began


def grow(
    source: NextTokens,
    *,
    cutoff: float,
    max_depth: int,
    max_nodes: int,
    ends: np.ndarray | None = None,
    begun: Tree | None = None,
    seconds: float | None = None,
) -> Iterator[Growth]:
    """Grow the tree of all nodes with a cumulative probability of at least ``cutoff``; yield after every level.

    If there are more than ``max_nodes`` of them, the result is exactly the ``max_nodes`` most probable: a node
    below the ``max_nodes``-th best found so far can neither be among those nor have a descendant that is, so it
    is not followed up.

    Args:
        ends: (V,) bool, tokens that end a definition and are not continued; None lets every token go on.
        begun: a tree that these settings gave before it was stopped; it is grown on.
        seconds: start no level that is expected to end after this time.
    """
    started = level_started = time.perf_counter()
    columns = _Columns()
    if begun is None:
        paths, grown, bitten, threshold = np.array([ROOT]), 0, False, cutoff
        ids, probs = source.start()
    else:
        columns.append(begun)
        bitten, threshold = len(begun) >= max_nodes, max(cutoff, columns.nth_best(max_nodes))
        depths = begun.depth
        grown = int(depths.max())
        paths = np.flatnonzero((depths == grown) & ~begun.end & (begun.cumulative_prob >= threshold))
        if grown >= max_depth or not len(paths):  # it was whole
            yield Growth(begun, grown, float(begun.cumulative_prob.min()) if bitten else cutoff, True, 0.0)
            return
        ids, probs = source.start(np.array([begun.token_id[begun.path(node)] for node in paths]))
    for depth in range(grown + 1, max_depth + 1):
        cumulative = columns.cumulative_prob(paths)[:, None] * probs.astype(np.float64)
        row, rank = np.nonzero(cumulative >= threshold)
        bitten |= len(row) < np.count_nonzero(cumulative >= cutoff)
        level = Tree(
            parent=paths[row],
            token_id=ids[row, rank].astype(np.int64),
            token=("",) * len(row),
            prob=probs[row, rank].astype(np.float64),
            cumulative_prob=cumulative[row, rank],
            end=np.zeros(len(row), dtype=bool) if ends is None else ends[ids[row, rank]],
        )
        first = columns.append(level)
        threshold = max(cutoff, columns.nth_best(max_nodes))
        open_ = np.flatnonzero(~level.end & (level.cumulative_prob >= threshold))
        done = depth == max_depth or not len(open_)
        tree = columns.tree(max_nodes)
        bitten |= columns.count > len(tree)
        now = time.perf_counter()
        yield Growth(tree, depth, float(tree.cumulative_prob.min()) if bitten else cutoff, done, now - started)
        # The next level takes as much longer as it has more paths, unless both fit into one small batch.
        expected = (now - level_started) * max(1.0, len(open_) / max(len(paths), _SMALL_BATCH))
        if done or (seconds is not None and (now - started) + expected > seconds):
            return
        level_started = time.perf_counter()
        ids, probs = source.advance(row[open_], level.token_id[open_])
        paths = first + open_


class _Columns:
    """All nodes found so far, level after level."""

    def __init__(self):
        self._levels: list[Tree] = []
        self.count = 0

    def append(self, level: Tree) -> int:
        """Add nodes whose parents are here already; the index of the first of them."""
        first = self.count
        self._levels.append(level)
        self.count += len(level)
        return first

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
        whole = Tree(token=("",) * self.count, **{name: self._column(name) for name in names})
        return whole.select(most_probable(whole.cumulative_prob, max_nodes)) if self.count > max_nodes else whole

    def _column(self, name: str) -> np.ndarray:
        return np.concatenate([getattr(level, name) for level in self._levels])
