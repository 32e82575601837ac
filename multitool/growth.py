"""Growing a definition tree, level by level, from anything that continues tokens."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from multitool.tree import ROOT, Tree, most_probable


class NextTokens(Protocol):
    """The most probable next tokens, for many paths at once. Rows are numbered as in the last answer."""

    def start(self) -> tuple[np.ndarray, np.ndarray]:
        """(token ids, probabilities) after the prompt: each (1, top_k), by falling probability."""

    def advance(self, rows: np.ndarray, token_ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The same after each of ``rows`` of the last answer (n,), rising, continued by ``token_ids`` (n,):
        each (n, top_k)."""


@dataclass(frozen=True)
class Growth:
    """A tree as far as it has grown."""

    tree: Tree
    depth: int  # levels grown so far
    effective_cutoff: float  # the cutoff that gives this tree
    done: bool


def grow(
    source: NextTokens,
    *,
    cutoff: float,
    max_depth: int,
    max_nodes: int,
    token_text: Callable[[int], str],
    ends: np.ndarray | None = None,
) -> Iterator[Growth]:
    """Grow the tree of all nodes with a cumulative probability of at least ``cutoff``; yield after every level.

    If there are more than ``max_nodes`` of them, the result is exactly the ``max_nodes`` most probable: a node
    below the ``max_nodes``-th best found so far can neither be among those nor have a descendant that is, so it
    is not followed up.

    Args:
        ends: (V,) bool, tokens that end a definition and are not continued; None lets every token go on.
    """
    columns = _Columns()
    ids, probs = source.start()
    paths, reached = np.array([ROOT]), np.array([1.0])  # nodes that ``ids`` continues, and their probability
    threshold, bitten = cutoff, False
    for depth in range(1, max_depth + 1):
        cumulative = reached[:, None] * probs.astype(np.float64)
        row, rank = np.nonzero(cumulative >= threshold)
        bitten |= len(row) < np.count_nonzero(cumulative >= cutoff)
        level = _Level(
            parent=paths[row],
            token_id=ids[row, rank].astype(np.int64),
            prob=probs[row, rank].astype(np.float64),
            cumulative_prob=cumulative[row, rank],
            end=np.zeros(len(row), dtype=bool) if ends is None else ends[ids[row, rank]],
        )
        first = columns.append(level, token_text)
        threshold = max(cutoff, columns.nth_best(max_nodes))
        open_ = np.flatnonzero(~level.end & (level.cumulative_prob >= threshold))
        done = depth == max_depth or not len(open_)
        tree = columns.tree(max_nodes)
        bitten |= columns.count > len(tree)
        yield Growth(tree, depth, float(tree.cumulative_prob.min()) if bitten else cutoff, done)
        if done:
            return
        ids, probs = source.advance(row[open_], level.token_id[open_])
        paths, reached = first + open_, level.cumulative_prob[open_]


@dataclass(frozen=True)
class _Level:
    parent: np.ndarray
    token_id: np.ndarray
    prob: np.ndarray
    cumulative_prob: np.ndarray
    end: np.ndarray


class _Columns:
    """All nodes found so far, level after level."""

    def __init__(self):
        self._levels: list[_Level] = []
        self._tokens: list[str] = []

    @property
    def count(self) -> int:
        return len(self._tokens)

    def append(self, level: _Level, token_text: Callable[[int], str]) -> int:
        """Add a level; the index of its first node."""
        first = self.count
        self._levels.append(level)
        self._tokens += [token_text(int(token_id)) for token_id in level.token_id]
        return first

    def nth_best(self, n: int) -> float:
        """The ``n``-th highest cumulative probability, or 0 while there are fewer nodes."""
        if self.count < n:
            return 0.0
        return float(np.partition(self._column("cumulative_prob"), self.count - n)[self.count - n])

    def tree(self, max_nodes: int) -> Tree:
        names = ("parent", "token_id", "prob", "cumulative_prob", "end")
        whole = Tree(token=tuple(self._tokens), **{name: self._column(name) for name in names})
        return whole.select(most_probable(whole.cumulative_prob, max_nodes)) if self.count > max_nodes else whole

    def _column(self, name: str) -> np.ndarray:
        return np.concatenate([getattr(level, name) for level in self._levels])
