"""What of a tree to show, and as which phrases: the form that a picture or a printed outline is made from."""

from collections import Counter
from dataclasses import dataclass, field, replace

import numpy as np

from multitool.text import END_PUNCTUATION, join_tokens, percent, visible
from multitool.trees.document import DefinitionTree
from multitool.trees.tree import ROOT, Tree, definition_probabilities, last_words, most_probable

END = "■"  # stands where a definition ends


@dataclass(frozen=True)
class Phrase:
    """A run of tokens without a fork: nodes with one shown child are folded into what follows.

    Tokens that only close a definition (``"``, ``."``, ``.`` and then ``"``) are no phrases of their own: they make
    ``ended``.
    """

    text: str  # as shown: on one line, nothing hidden
    cumulative_prob: float  # at its last token
    ended: float  # probability that the definition ends right after it
    hidden: int  # nodes that continue it but are not shown
    hidden_prob: float  # probability that an answer goes on to one of those
    lift: float | None = None  # nats, at its last token; None if the tree was not checked
    definition: float = 0.0  # probability of the definition that ends there, in all its spellings; 0: none ends
    nodes: tuple[int, ...] = ()  # of the whole tree: its tokens, and what closes a definition after them
    last: int = ROOT  # of the whole tree: its last token
    children: list["Phrase"] = field(default_factory=list)
    blank: bool = False  # a blank before it is all that tells it from another phrase beside it

    @property
    def label(self) -> str:
        """The text without the spaces around it, but for one that matters."""
        return "␣" * self.blank + self.text.strip() or "␣"

    @property
    def leaves(self) -> int:
        return sum(child.leaves for child in self.children) or 1


@dataclass(frozen=True)
class Shown:
    """The part of a tree that is shown."""

    phrases: list[Phrase]  # after the prompt, by falling probability
    nodes: int
    covered: float  # probability that an answer runs along shown nodes to one without shown continuations
    hidden: int  # nodes after first tokens that are not shown, those included
    hidden_prob: float  # probability of such a first token


def shown_part(document: DefinitionTree, max_nodes: int) -> Shown:
    """The ``max_nodes`` most probable nodes, and how much of the tree is left out where."""
    tree, quote = document.tree, document.closing_quote
    mask = most_probable(tree.cumulative_prob, max_nodes)
    hidden, hidden_prob = _hidden_below(tree, mask)
    at = np.append(np.flatnonzero(mask), ROOT)  # the shown nodes' places in the tree; the prompt's last
    hidden, hidden_prob = hidden[at], hidden_prob[at]
    shown = tree.select(mask)
    children = shown.children()
    ending = {node: last_words(shown.token[node], quote) for node in np.flatnonzero(shown.end).tolist()}
    # A file from elsewhere may go on behind an end; such a node is a phrase, or what follows it would not be seen.
    closers = {node for node, words in ending.items()
               if not (children[node] or hidden[node] or any(character.isalnum() for character in words))}
    for node in range(len(shown) - 1, -1, -1):  # children stand after their parents
        only_punctuation = not shown.token[node].strip(f"{END_PUNCTUATION} ")
        if only_punctuation and children[node] and not hidden[node] and closers.issuperset(children[node]):
            closers.add(node)
    spoken = [[child for child in listed if child not in closers] for listed in children]
    defined = np.append(definition_probabilities(tree, quote), 0.0)[at]

    def closing(node: int) -> list[int]:
        """The closers behind a node."""
        behind = [child for child in children[node] if child in closers]
        return behind + [further for child in behind for further in closing(child)]

    def phrase(node: int) -> Phrase:
        run = [node]
        while len(children[run[-1]]) == len(spoken[run[-1]]) == 1:
            run.append(spoken[run[-1]][0])
        last = run[-1]
        words = [ending.get(i, shown.token[i]) for i in run]
        behind = closing(last)
        ends = [node for node in behind if node in ending] or ([last] if last in ending else [])
        return Phrase(
            text=visible(join_tokens(words)),
            cumulative_prob=float(shown.cumulative_prob[last]),
            ended=float(shown.cumulative_prob[ends].sum()),
            hidden=int(hidden[run].sum()),
            hidden_prob=float(hidden_prob[run].sum()),
            lift=None if shown.lift is None else float(shown.lift[last]),
            definition=float(defined[ends].max(initial=0.0)),
            nodes=tuple(at[run + behind].tolist()),
            last=int(at[last]),
            children=_told_apart([phrase(child) for child in spoken[last]]),
        )

    return Shown(
        phrases=_told_apart([phrase(node) for node in children[ROOT]]),
        nodes=len(shown),
        covered=float(shown.cumulative_prob[shown.is_leaf].sum()),
        hidden=int(hidden[ROOT]),
        hidden_prob=float(hidden_prob[ROOT]),
    )


def phrases(document: DefinitionTree, max_nodes: int) -> list[Phrase]:
    """The phrases after the prompt for the ``max_nodes`` most probable nodes, by falling probability."""
    return shown_part(document, max_nodes).phrases


def outline(document: DefinitionTree, max_nodes: int) -> str:
    """The most probable part of a tree as indented text, one phrase a line behind its probability."""
    part = shown_part(document, max_nodes)
    lines: list[str] = []

    def add(phrase: Phrase, indent: int) -> None:
        marks = f" {END}" if phrase.ended else ""
        marks += f" … +{phrase.hidden} ({percent(phrase.hidden_prob)})" if phrase.hidden else ""
        lines.append(f"{phrase.cumulative_prob:8.2%}  {'    ' * indent}{phrase.label}{marks}")
        for child in phrase.children:
            add(child, indent + 1)

    for phrase in part.phrases:
        add(phrase, 0)
    if part.hidden:
        lines.append(f"{part.hidden_prob:8.2%}  … +{part.hidden}")
    return "\n".join(lines)


def _told_apart(beside: list[Phrase]) -> list[Phrase]:
    spelled = Counter(phrase.text.strip() for phrase in beside)
    return [
        replace(phrase, blank=True) if spelled[phrase.text.strip()] > 1 and phrase.text.startswith(" ") else phrase
        for phrase in beside
    ]


def _hidden_below(tree: Tree, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What below every shown node is not shown, up to the next shown ones; the last entry is the prompt's.

    Returns:
        How many nodes, and the probability of those right below: (n + 1,) each.
    """
    hidden = np.zeros(len(tree) + 1, dtype=np.int64)
    probability = np.zeros(len(tree) + 1)
    # Children stand after their parents, so one pass backwards carries every count up.
    for node in np.flatnonzero(~mask)[::-1]:
        parent = tree.parent[node]  # ROOT is the last entry
        hidden[parent] += 1 + hidden[node]
        probability[parent] += tree.cumulative_prob[node]
    return hidden, probability
