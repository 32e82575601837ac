"""A definition tree to explore in a browser: what its view is given, and the view as a file of its own.

The scripts in ``explorer/`` draw what ``payload`` gives; they are the same on the page and in the file. Tokens are
anybody's text: the scripts only ever set them as text, and the file allows no request and no other script.
"""

import json
from html import escape
from pathlib import Path
from string import Template

import numpy as np

from multitool.recipes.captions import readable, title_told
from multitool.text import visible
from multitool.trees.document import DefinitionTree, feature_maximum
from multitool.trees.phrases import Phrase, phrases

FOLDER = Path(__file__).parent
_SCRIPTS = ("elements", "phrases", "outline", "branches", "icicle", "explorer")  # each uses those before it
SCRIPT = "\n".join((FOLDER / f"{name}.js").read_text(encoding="utf-8") for name in _SCRIPTS)
STYLE = (FOLDER / "explorer.css").read_text(encoding="utf-8")
_PAGE = Template((FOLDER / "explorer.html").read_text(encoding="utf-8"))
# Inside a script element these could end it, or a line of it.
_UNSAFE = str.maketrans({character: f"\\u{ord(character):04x}" for character in "<>&\u2028\u2029"})


def payload(document: DefinitionTree, shared: np.ndarray | None = None) -> dict:
    """What the view shows, as columns with one entry per phrase; parents stand before their children.

    Args:
        shared: (n_nodes,) bool: nodes that another tree has too, to be marked.

    Returns:
        ``parent`` (-1: the prompt), ``text``, ``p`` (cumulative probability), ``ended`` (probability that the
        definition ends right after it), ``defined`` (probability of that definition in all its spellings), ``nodes``
        (how many of the tree it holds); where known ``lift``, ``activation`` (null: not read) and ``shared``; and
        ``total``, the tree's nodes, ``maximum``, how strongly the feature fires where it fires most (null: not known),
        and ``blank``, the numbers of the phrases that only a space tells from another beside them.
    """
    tree = document.tree
    found: list[tuple[int, Phrase]] = []
    waiting = [(-1, phrase) for phrase in reversed(phrases(document, len(tree)))]
    while waiting:
        parent, phrase = waiting.pop()
        found.append((parent, phrase))
        waiting += [(len(found) - 1, child) for child in reversed(phrase.children)]
    columns = {
        "total": len(tree),
        "parent": [parent for parent, _ in found],
        "text": [phrase.text for _, phrase in found],
        "p": [_short(phrase.cumulative_prob) for _, phrase in found],
        "ended": [_short(phrase.ended) for _, phrase in found],
        "defined": [_short(phrase.definition) for _, phrase in found],
        "nodes": [len(phrase.nodes) for _, phrase in found],
        "blank": [number for number, (_, phrase) in enumerate(found) if phrase.blank],
    }
    if tree.lifts is not None:
        columns["lift"] = [round(phrase.lift, 1) for _, phrase in found if phrase.lift is not None]
    if tree.activation is not None:
        columns["activation"] = [_strongest(tree.activation[list(phrase.nodes)]) for _, phrase in found]
        columns["maximum"] = feature_maximum(document.evidence)
    if shared is not None:
        columns["shared"] = [int(shared[phrase.last]) for _, phrase in found]
    return columns


def standalone(document: DefinitionTree) -> str:
    """The view as one HTML file that needs nothing else, with the whole recipe."""
    settings = document.settings
    title = visible(title_told(settings))[:300]
    told = {"settings": readable(settings), "vector": document.vector, "result": document.result}
    return _PAGE.substitute(
        title=escape(title),
        model=escape(visible(str(settings.get("model")))[:300]),
        prompt=escape(visible(document.asked)),
        told=escape(json.dumps(told, ensure_ascii=False, indent=2)),
        style=STYLE, script=SCRIPT,
        data=json.dumps(payload(document), ensure_ascii=False, allow_nan=False).translate(_UNSAFE),
    )


def _short(number: float) -> float:
    return float(f"{number:.4g}")


def _strongest(activations: np.ndarray) -> float | None:
    read = activations[~np.isnan(activations)]
    return _short(float(read.max())) if len(read) else None
