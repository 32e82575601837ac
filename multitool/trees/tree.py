"""A definition tree as data: the tree itself, its definitions, trimming.

Knows neither model nor torch: a tree read from a file is trimmed and ranked by the same code as a fresh one.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from multitool.text import join_tokens, spelling_key

ROOT = -1  # the parent of the first tokens: the prompt


@dataclass(frozen=True)
class Tree:
    """The nodes below the prompt, in columns of one entry per node.

    Parents stand before their children, and siblings in order of falling probability.
    """

    parent: np.ndarray  # int64, index of the parent node or ROOT
    token_id: np.ndarray  # int64
    token: tuple[str, ...]  # the exact text that the token adds
    prob: np.ndarray  # float64, of the token given its path
    cumulative_prob: np.ndarray  # float64, product of prob along the path
    end: np.ndarray  # bool, the definition ends here
    # (n + 1,) float64, the last entry is the prompt's: probability, given the path, of next tokens that reach the
    # growth's cutoff, but are beyond its top_k; None: not known (older files, and of a part: ``at_larger_cutoff``).
    beyond: np.ndarray | None = None
    # (n, 2) float64, nats: how much more probable the node's path is under its own ghost than under the centroid, and
    # than under random ghosts on average; None until it is measured.
    lifts: np.ndarray | None = None
    # (n,) float64: the feature's strongest activation on the definition that ends here, NaN where none was read; None
    # until it is measured.
    activation: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.parent)

    @property
    def depth(self) -> np.ndarray:
        """Tokens from the prompt to each node, itself included: (n,)."""
        depth = np.zeros(len(self), dtype=np.int64)
        for node, parent in enumerate(self.parent):
            depth[node] = 1 if parent == ROOT else depth[parent] + 1
        return depth

    @property
    def is_leaf(self) -> np.ndarray:
        """True for nodes without children: (n,)."""
        leaf = np.ones(len(self), dtype=bool)
        leaf[self.parent[self.parent != ROOT]] = False
        return leaf

    @property
    def lift(self) -> np.ndarray | None:
        """Of the two lifts the smaller one: (n,)."""
        return None if self.lifts is None else self.lifts.min(axis=1)

    @property
    def lift_per_token(self) -> np.ndarray | None:
        """The lift by the tokens down to the node, one that ends it included: (n,)."""
        return None if self.lifts is None else self.lift / self.depth

    def children(self) -> list[list[int]]:
        """Each node's children by falling probability; the last entry holds those of the prompt."""
        children: list[list[int]] = [[] for _ in range(len(self) + 1)]
        for node, parent in enumerate(self.parent):
            children[parent].append(node)
        return children

    def path(self, node: int) -> list[int]:
        """The nodes from the prompt down to ``node``, itself included."""
        path = []
        while node != ROOT:
            path.append(node)
            node = int(self.parent[node])
        return path[::-1]

    def spelled(self, texts: Sequence[str]) -> "Tree":
        """The same with each token's text, from the texts of all tokens by id."""
        return replace(self, token=tuple(texts[token_id] for token_id in self.token_id.tolist()))

    def select(self, keep: np.ndarray) -> "Tree":
        """The tree of the nodes where ``keep`` is true; a kept node's parent must be kept."""
        index = np.flatnonzero(keep)
        new_index = np.full(len(self) + 1, ROOT)
        new_index[index] = np.arange(len(index))
        return Tree(
            parent=new_index[self.parent[index]],
            token_id=self.token_id[index],
            token=tuple(map(self.token.__getitem__, index.tolist())),
            prob=self.prob[index],
            cumulative_prob=self.cumulative_prob[index],
            end=self.end[index],
            beyond=None if self.beyond is None else self.beyond[np.append(index, ROOT)],
            lifts=None if self.lifts is None else self.lifts[index],
            activation=None if self.activation is None else self.activation[index],
        )


NO_TREE = Tree(
    parent=np.empty(0, dtype=np.int64), token_id=np.empty(0, dtype=np.int64), token=(), prob=np.empty(0),
    cumulative_prob=np.empty(0), end=np.empty(0, dtype=bool),
)


def tree_of_paths(paths: Iterable[Sequence[int]]) -> tuple[Tree, list[list[int]]]:
    """The tree of some paths of token ids, what they share once, without probabilities; and of each path its nodes."""
    nodes: dict[tuple[int, int], int] = {}  # by parent and token
    found = []
    for path in paths:
        node, on_path = ROOT, []
        for token_id in path:
            node = nodes.setdefault((node, token_id), len(nodes))
            on_path.append(node)
        found.append(on_path)
    columns = np.array(list(nodes), dtype=np.int64).reshape(-1, 2)
    unknown = np.full(len(nodes), np.nan)
    no_end = np.zeros(len(nodes), dtype=bool)
    return Tree(columns[:, 0], columns[:, 1], ("",) * len(nodes), unknown, unknown, no_end), found


@dataclass(frozen=True)
class Definition:
    """What the model says, as a reader quotes it."""

    text: str  # as its most probable path spells it, without the closing quote and spaces around it
    probability: float  # of all paths that spell it, whatever their case, spaces and punctuation at the end
    complete: bool  # it came to its end; otherwise its continuations fell below the cutoff
    node: int  # the last one of the most probable path that spells it

    @property
    def key(self) -> str:
        """What it has in common with its other spellings."""
        return spelling_key(self.text)


@dataclass(frozen=True)
class Coverage:
    """Where the model's answers go, in shares of all probability."""

    complete: float  # come to their end in the tree
    unfinished: float  # run along the tree to a leaf and go on beyond it
    beyond: float | None  # leave the tree, or never enter it, by a token that top_k alone kept out; None: not known

    @property
    def in_tree(self) -> float:
        """Run along the tree as far as it goes."""
        return self.complete + self.unfinished

    @property
    def below(self) -> float:
        """Leave the tree, or never enter it, by a token that is too rare; or in any way, where ``beyond`` is not
        known."""
        return max(0.0, 1.0 - self.in_tree - (self.beyond or 0.0))


def coverage(tree: Tree) -> Coverage:
    """How much of the probability the tree holds."""
    ended = np.zeros(len(tree), dtype=bool)  # at the node or before it; where trees go on through an end
    first_end = np.zeros(len(tree), dtype=bool)
    for node, parent in enumerate(tree.parent):
        before = parent != ROOT and ended[parent]
        first_end[node] = tree.end[node] and not before
        ended[node] = tree.end[node] or before
    left = np.append(~tree.is_leaf & ~ended, True)  # nodes that answers can leave the tree from; the prompt's last
    return Coverage(
        complete=float(tree.cumulative_prob[first_end].sum()),
        unfinished=float(tree.cumulative_prob[tree.is_leaf & ~ended].sum()),
        beyond=None if tree.beyond is None else float((np.append(tree.cumulative_prob, 1.0) * tree.beyond)[left].sum()),
    )


def trim(tree: Tree, cutoff: float) -> Tree:
    """The nodes whose cumulative probability is at least ``cutoff``."""
    keep = tree.cumulative_prob >= cutoff
    return tree if keep.all() else at_larger_cutoff(tree.select(keep))


def at_larger_cutoff(tree: Tree) -> Tree:
    """A tree that is smaller than what its cutoff gave: how much of what was beyond the top_k would reach a larger
    cutoff is not known, unless there was nothing."""
    return tree if tree.beyond is None or not tree.beyond.any() else replace(tree, beyond=None)


def narrowed(tree: Tree, top_k: int) -> Tree:
    """The ``top_k`` most probable continuations of every node."""
    keep, n_children = np.zeros(len(tree), dtype=bool), [0] * (len(tree) + 1)
    for node, parent in enumerate(tree.parent):  # siblings stand by falling probability
        keep[node] = (parent == ROOT or keep[parent]) and n_children[parent] < top_k
        n_children[parent] += 1
    return tree.select(keep)


def lifted(tree: Tree, least: float) -> Tree:
    """The nodes whose lift is at least ``least`` nats, and those on the way to them. The lifts must be known."""
    assert tree.lifts is not None
    keep = tree.lifts.min(axis=1) >= least
    for node in range(len(tree) - 1, -1, -1):  # children stand after their parents
        if keep[node] and tree.parent[node] != ROOT:
            keep[tree.parent[node]] = True
    return replace(tree.select(keep), beyond=None)  # what is left out is no matter of top_k and cutoff


def most_probable(cumulative_prob: np.ndarray, n: int) -> np.ndarray:
    """Mask of the ``n`` most probable nodes; of equals, those that come first.

    A child never outranks its parent and comes after it, so the chosen nodes are again a tree.
    """
    if n >= len(cumulative_prob):
        return np.ones(len(cumulative_prob), dtype=bool)
    least = np.partition(cumulative_prob, -n)[-n] if n else np.inf
    mask = cumulative_prob > least
    mask[np.flatnonzero(cumulative_prob == least)[: n - np.count_nonzero(mask)]] = True
    return mask


def definitions(tree: Tree, n: int | None = None, closing_quote: str | None = '"') -> list[Definition]:
    """The most probable definitions: complete ones first, then beginnings (leaves that do not end).

    Paths that spell the same count together: split into other tokens or ended by another one, and whatever their case,
    their blanks, and the punctuation at their end.

    Args:
        n: how many at most; None for all.
        closing_quote: what ends a definition in this prompt; the text stops before it.
    """
    found = []
    for (complete, _), leaves in _same_spellings(tree, closing_quote).items():
        likeliest = max(leaves, key=lambda leaf: tree.cumulative_prob[leaf])
        found.append(Definition(
            text=_text(tree, likeliest, closing_quote),
            probability=float(tree.cumulative_prob[leaves].sum()),
            complete=complete,
            node=likeliest,
        ))
    return sorted(found, key=lambda found: (not found.complete, -found.probability, found.text))[:n]


def definition_probabilities(tree: Tree, closing_quote: str | None = '"') -> np.ndarray:
    """Of each node where a definition ends, or a beginning, the probability of that in all its spellings, as
    ``definitions`` counts them; 0 elsewhere: (n,)."""
    found = np.zeros(len(tree))
    for leaves in _same_spellings(tree, closing_quote).values():
        found[leaves] = tree.cumulative_prob[leaves].sum()
    return found


def _same_spellings(tree: Tree, closing_quote: str | None) -> dict[tuple[bool, str], list[int]]:
    """The ends of definitions and other leaves by what they spell; first whether it is complete."""
    found: dict[tuple[bool, str], list[int]] = {}
    for leaf in np.flatnonzero(tree.is_leaf | tree.end).tolist():
        key = bool(tree.end[leaf]), spelling_key(_text(tree, leaf, closing_quote))
        found.setdefault(key, []).append(leaf)
    return found


def _text(tree: Tree, leaf: int, closing_quote: str | None) -> str:
    tokens = [tree.token[node] for node in tree.path(leaf)]
    if tree.end[leaf]:
        tokens[-1] = last_words(tokens[-1], closing_quote)
    return join_tokens(tokens).strip()


def last_words(token: str, closing_quote: str | None) -> str:
    """What a token that ends a definition adds to it: what stands before the quote, nothing of an end of text."""
    if closing_quote and closing_quote in token:
        return token.partition(closing_quote)[0]
    return ""
