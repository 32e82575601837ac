"""What two results share: nodes and definitions of two trees, tokens of two lists. Pure data, no model.

Things are the same if they are spelled the same, so results of different models can be compared too.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from multitool.text import join_tokens
from multitool.trees.document import DefinitionTree
from multitool.trees.tree import ROOT, Tree


@dataclass(frozen=True)
class Comparison:
    """What a tree and another one share."""

    nodes: np.ndarray  # (n,) bool: the other tree has a node that is spelled the same from the prompt on
    other_nodes: np.ndarray  # the same for the other tree's nodes
    definitions: dict[str, tuple[float, float]]  # complete in both, by their keys: the probability here, and there

    @property
    def overlap(self) -> float:
        """Probability of giving the same complete definition: the sum of the smaller ones, as 1 is all."""
        return sum(min(both) for both in self.definitions.values())


def compare_trees(document: DefinitionTree, other: DefinitionTree) -> Comparison:
    """What two trees share."""
    here, there = (_spelled(one.tree) for one in (document, other))
    mine, others = (
        {found.key: found.probability for found in one.definitions() if found.complete} for one in (document, other)
    )
    return Comparison(
        nodes=_among(here, set(there)),
        other_nodes=_among(there, set(here)),
        definitions={key: (mine[key], others[key]) for key in mine if key in others},
    )


def ranks_in(tokens: Sequence[str], other: Sequence[str]) -> list[int | None]:
    """The rank of each token in another list, from 1; None where it is not in it."""
    ranks = {token: rank for rank, token in reversed(list(enumerate(other, 1)))}
    return [ranks.get(token) for token in tokens]


def _spelled(tree: Tree) -> list[str]:
    """The text from the prompt to each node, itself included."""
    spelled: list[str] = []
    for node, parent in enumerate(tree.parent):
        spelled.append((spelled[parent] if parent != ROOT else "") + tree.token[node])
    return [join_tokens([text]) for text in spelled]


def _among(texts: list[str], others: set[str]) -> np.ndarray:
    return np.array([text in others for text in texts], dtype=bool)
