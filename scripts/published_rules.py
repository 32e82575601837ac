"""When a tree or a list of ours agrees with a published one: rules on numbers and texts, without model or file.

docs/published.md says why they are these.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from multitool.text import join_tokens
from multitool.trees.tree import ROOT, Tree

SURELY_THERE = 1.2  # times the cutoff: so probable a node must not be missing
PER_TOKEN = 0.05  # by how much a token's probability may differ, of the published one
SHARED = 0.95  # of a list's tokens; the author's own repeats share 97 to 99 of 100
FIRST = 5  # tokens of a list that come in the same order, but for neighbours


@dataclass(frozen=True)
class Node:
    """A node of a tree in the order of a log: each followed by what comes behind it."""

    depth: int  # from 1
    text: str  # behind the opening quote, without blanks at its end
    probability: float  # cumulative


@dataclass(frozen=True)
class ComparedNode:
    """A published node beside ours."""

    published: Node
    ours: float | None  # its cumulative probability; None: there is no such node
    tokens: int  # since the nearest node before it that is published: behind one, its own token alone
    factor: float | None  # ours to published for each of these tokens: their geometric mean

    @property
    def is_off(self) -> bool:
        """Whether it is there, and its tokens' probabilities are not the published ones."""
        return self.factor is not None and abs(self.factor - 1) > PER_TOKEN


@dataclass(frozen=True)
class ComparedTree:
    """A published tree beside ours."""

    nodes: tuple[ComparedNode, ...]  # in the published order
    beyond: tuple[Node, ...]  # of ours, what a whole log does not have though it is probable enough; else none
    cutoff: float

    @cached_property
    def missing(self) -> tuple[ComparedNode, ...]:
        """Nodes that should be there. Those near the cutoff may be on either side of it."""
        least = SURELY_THERE * self.cutoff
        return tuple(node for node in self.nodes if node.ours is None and node.published.probability >= least)

    @cached_property
    def off(self) -> tuple[ComparedNode, ...]:
        return tuple(node for node in self.nodes if node.is_off)

    @property
    def factors(self) -> list[float]:
        """Of the nodes that are there."""
        return [node.factor for node in self.nodes if node.factor is not None]

    @property
    def reasons(self) -> list[str]:
        """Why it does not agree."""
        missing, off, beyond = len(self.missing), len(self.off), len(self.beyond)
        return [
            *[f"{missing} of {len(self.nodes)} nodes missing"] * bool(missing),
            *[f"{_nodes(off)} with a token's probability more than {PER_TOKEN:.0%} off"] * bool(off),
            *[f"{_nodes(beyond)} that the published tree does not have"] * bool(beyond),
        ]

    @property
    def agrees(self) -> bool:
        return not self.reasons


@dataclass(frozen=True)
class ComparedList:
    """A published token list beside ours."""

    published: tuple[str, ...]
    ours: tuple[str, ...]  # more than are published, so that the places of those that are not shared are known
    turned: tuple[str, ...] | None = None  # what ours would be with the component's sign turned; None: no component

    @cached_property
    def shared(self) -> int:
        """How many tokens both have."""
        return _in_both(self.published, self.ours)

    @cached_property
    def shared_when_turned(self) -> int | None:
        return None if self.turned is None else _in_both(self.published, self.turned)

    @cached_property
    def ranks(self) -> tuple[int | None, ...]:
        """Our rank, from 1, of each published token; None beyond what we have."""
        found = {token: rank for rank, token in reversed(list(enumerate(self.ours, 1)))}
        return tuple(found.get(token) for token in self.published)

    @property
    def first_in_order(self) -> bool:
        """Whether the first published tokens stand where they stood, or have changed places with a neighbour."""
        return all(rank is not None and abs(rank - at) <= 1 for at, rank in enumerate(self.ranks[:FIRST], 1))

    @property
    def enough(self) -> int:
        """How many must be shared."""
        return math.ceil(SHARED * len(self.published))

    @property
    def sign(self) -> str | None:
        """Which sign of the component the published list has: "ours" or "turned"; "unknown" if both signs or neither
        give it; None without a component."""
        if self.shared_when_turned is None:
            return None
        fits = self.shared >= self.enough, self.shared_when_turned >= self.enough
        return {(True, False): "ours", (False, True): "turned"}.get(fits, "unknown")

    @property
    def reasons(self) -> list[str]:
        """Why it does not agree."""
        return [
            *[f"{self.shared} of {len(self.published)} tokens shared, where {self.enough} must be"]
            * (self.shared < self.enough),
            *[f"the first {FIRST} in another order"] * (not self.first_in_order),
            *["the component's sign is the other one"] * (self.sign == "turned"),
            *["the component's sign is not proven"] * (self.sign == "unknown"),
        ]

    @property
    def agrees(self) -> bool:
        return not self.reasons


def compared_tree(published: Sequence[Node], ours: Sequence[Node], *, cutoff: float, whole: bool) -> ComparedTree:
    """A published log beside ours, both in the order of a log.

    A node's token is compared by its probability behind the nearest node before it that is published. Where that is its
    parent, this is the token's own probability; where nodes between are not known, it is that of several tokens, and
    what is compared is their geometric mean. A cumulative probability alone would blame a node for those before it.

    Of ours that spell the same at the same place, in other tokens, the most probable one counts.

    Args:
        whole: whether what is not in the published log was not in the tree.
    """
    start = Node(0, "", 1.0)
    found: list[int | None] = []  # ours, for each published node
    compared = []
    for node, before in zip(published, nearest(published), strict=True):
        at = None if before is None else found[before]
        if before is not None and at is None:
            best = None  # what it stands behind is not there
        else:
            best = _at_the_same_place(node, ours, range(len(ours)) if at is None else below(ours, at))
        found.append(best)
        theirs, reached = start if before is None else published[before], start if at is None else ours[at]
        tokens = node.depth - theirs.depth
        if best is None:
            compared.append(ComparedNode(node, None, tokens, None))
        else:
            probability = ours[best].probability
            ratio = (probability / reached.probability) / (node.probability / theirs.probability)
            compared.append(ComparedNode(node, probability, tokens, ratio ** (1 / tokens)))
    known = {(node.depth, node.text) for node in published}
    beyond = [
        node for node in ours if node.probability >= SURELY_THERE * cutoff and (node.depth, node.text) not in known
    ]
    return ComparedTree(tuple(compared), tuple(beyond) if whole else (), cutoff)


def _at_the_same_place(node: Node, log: Sequence[Node], among: range) -> int | None:
    same = [i for i in among if (log[i].depth, log[i].text) == (node.depth, node.text)]
    return max(same, key=lambda i: log[i].probability, default=None)


def logged(tree: Tree) -> list[Node]:
    """A tree of ours as a log has it: each node followed by what comes behind it, siblings by falling probability."""
    children, depth = tree.children(), tree.depth
    waiting: list[tuple[int, tuple[str, ...]]] = [(node, ()) for node in reversed(children[ROOT])]
    nodes = []
    while waiting:
        node, before = waiting.pop()
        tokens = (*before, tree.token[node])
        text = join_tokens(tokens).rstrip()
        nodes.append(Node(int(depth[node]), text, float(tree.cumulative_prob[node])))
        waiting += [(child, tokens) for child in reversed(children[node])]
    return nodes


def nearest(log: Sequence[Node]) -> list[int | None]:
    """Of each node the nearest one on its path that the log has; None: none. In a log with gaps it may be no parent."""
    path: list[int] = []
    found: list[int | None] = []
    for i, node in enumerate(log):
        while path and log[path[-1]].depth >= node.depth:
            path.pop()
        found.append(path[-1] if path else None)
        path.append(i)
    return found


def below(log: Sequence[Node], at: int) -> range:
    """The nodes behind a node of a log without gaps."""
    end = at + 1
    while end < len(log) and log[end].depth > log[at].depth:
        end += 1
    return range(at + 1, end)


def turned(scale: float, weight: float) -> tuple[float, float]:
    """Scale and weight that give the vector of one component with its sign turned.

    ``scale·((1 - w)·f - w·p) = s·((1 - x)·f + x·p)`` where ``s·x = -scale·w`` and ``s·(1 - x) = scale·(1 - w)``.
    """
    s = scale * (1 - 2 * weight)
    return s, -scale * weight / s


def _nodes(n: int) -> str:
    return "1 node" if n == 1 else f"{n} nodes"


def _in_both(one: Sequence[str], other: Sequence[str]) -> int:
    """How many tokens of ``one`` are among as many of ``other``."""
    return (Counter(one) & Counter(other[: len(one)])).total()
