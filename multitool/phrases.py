"""What of a tree to show, and as which phrases: the form that a picture or a printed outline is made from."""

from dataclasses import dataclass, field

import numpy as np

from multitool.document import DefinitionTree
from multitool.text import join_tokens, visible
from multitool.tree import ROOT, Tree, last_words, most_probable

END = "■"  # stands where a definition ends


@dataclass(frozen=True)
class Phrase:
    """A run of tokens without a fork: nodes with one shown child are folded into what follows.

    Tokens that only close a definition (``"``, ``."``) are no phrases of their own: they make ``ended``.
    """

    text: str  # as shown: on one line, nothing hidden
    cumulative_prob: float  # at its last token
    ended: float  # probability that the definition ends right after it
    hidden: int  # nodes that continue it but are not shown
    lift: float | None = None  # nats, at its last token; None if the tree was not checked
    children: list["Phrase"] = field(default_factory=list)

    @property
    def leaves(self) -> int:
        return sum(child.leaves for child in self.children) or 1


def phrases(document: DefinitionTree, max_nodes: int) -> list[Phrase]:
    """The phrases after the prompt for the ``max_nodes`` most probable nodes, by falling probability."""
    tree, quote = document.tree, document.closing_quote
    mask = most_probable(tree.cumulative_prob, max_nodes)
    hidden = _hidden_below(tree, mask)[np.flatnonzero(mask)]
    shown = tree.select(mask)
    ending = {node: last_words(shown.token[node], quote) for node in np.flatnonzero(shown.end)}
    closers = {node for node, words in ending.items() if not any(character.isalnum() for character in words)}
    children = shown.children()
    spoken = [[child for child in listed if child not in closers] for listed in children]

    def phrase(node: int) -> Phrase:
        run = [node]
        while len(children[run[-1]]) == len(spoken[run[-1]]) == 1:
            run.append(spoken[run[-1]][0])
        last = run[-1]
        words = [ending.get(i, shown.token[i]) for i in run]
        closing = [child for child in children[last] if child in closers] or ([last] if last in ending else [])
        return Phrase(
            text=visible(join_tokens(words)),
            cumulative_prob=float(shown.cumulative_prob[last]),
            ended=float(shown.cumulative_prob[closing].sum()),
            hidden=int(hidden[run].sum()),
            lift=None if shown.lift is None else float(shown.lift[last]),
            children=[phrase(child) for child in spoken[last]],
        )

    return [phrase(node) for node in children[ROOT]]


def outline(document: DefinitionTree, max_nodes: int) -> str:
    """The most probable part of a tree as indented text, one phrase a line behind its probability."""
    lines: list[str] = []

    def add(phrase: Phrase, indent: int) -> None:
        marks = (f" {END}" if phrase.ended else "") + (f" … +{phrase.hidden}" if phrase.hidden else "")
        lines.append(f"{phrase.cumulative_prob:8.2%}  {'    ' * indent}{phrase.text.strip()}{marks}")
        for child in phrase.children:
            add(child, indent + 1)

    for phrase in phrases(document, max_nodes):
        add(phrase, 0)
    return "\n".join(lines)


def _hidden_below(tree: Tree, mask: np.ndarray) -> np.ndarray:
    """For every shown node, how many nodes below it are not shown, up to the next shown ones: (n,)."""
    hidden = np.zeros(len(tree), dtype=np.int64)
    # Children stand after their parents, so one pass backwards carries every count up.
    for node in range(len(tree) - 1, -1, -1):
        parent = tree.parent[node]
        if not mask[node] and parent != ROOT:
            hidden[parent] += 1 + hidden[node]
    return hidden
