"""What the page tells while it grows and checks trees: answers by the names of the tree tab's components."""

import time

import gradio as gr
import numpy as np

from multitool.errors import UserError
from multitool.page.service import Service
from multitool.page.tree_views import link_query, pictures
from multitool.recipes.captions import title_told
from multitool.recipes.recipe import TreeRecipe, VectorRecipe
from multitool.trees.document import DefinitionTree

_BETWEEN_PICTURES = 0.5  # seconds
_FEWEST = 8  # paths: fewer take hardly less time
_FASTER = 0.85  # of the ratio of two levels to that of the two before, as measured on the demo


def grow(service: Service, vector: VectorRecipe, tree: TreeRecipe):
    """Grow a tree; after every level the tree so far, and in words how far it is. With its first level its title and
    link."""
    titled = False
    for answer in _progress(service.trees(vector, tree)):
        if not titled and "document" in answer:
            document, titled = answer["document"], True
            answer = answer | {"title": title_told(document.settings), "link": link_query(document)}
        yield answer


def go_on(service: Service, document: DefinitionTree | None):
    """Grow on a tree whose growth was stopped."""
    if document is None:
        raise UserError("There is no tree to go on with. Grow one first.")
    yield from _progress(service.continued(document))


def check(service: Service, document: DefinitionTree | None):
    """Find the evidence for the tree that is shown."""
    if document is None:
        raise UserError("There is no tree to check. Grow one first.")
    yield {"status": "Checking … (the first time for a model and a layer it takes a minute or more)"}
    for answer in service.checked(document):
        yield {"status": answer} if isinstance(answer, str) else {"document": answer, "status": "Checked."}


def _progress(answers):
    """The tree as it grows, or in words what it waits for.

    Pictures of it are made now and then: they may take a twentieth of the time at most.
    """
    hidden = gr.update(visible=False)
    yield {"status": "Starting …", "go_on": hidden, "offer": hidden, "reason": ""}
    next_picture, levels = 0.0, []
    for answer in answers:
        if isinstance(answer, str):
            yield {"status": answer}
            continue
        if not len(answer.tree):  # the tree that is shown stays until there is something to show
            continue
        levels.append(_open_paths(answer))
        found, began = {"document": answer, "status": _how_far(answer, levels)}, time.monotonic()
        if began >= next_picture:
            found |= pictures(answer)
            next_picture = began + max(_BETWEEN_PICTURES, 20 * (time.monotonic() - began))
        yield found


def _how_far(document: DefinitionTree, levels: list[int]) -> str:
    """In words how far a growing tree is, and how long it takes in all, where that can be told.

    Args:
        levels: how many paths each level has followed up, with the next one's behind.
    """
    words = (
        f"Growing: {document.depth_grown} tokens deep of at most {document.settings['max_depth']}, "
        f"{len(document.tree):,} nodes, {document.seconds:.1f} s"
    )
    in_all = seconds_in_all(levels, document.seconds, document.settings["max_depth"] - document.depth_grown)
    return words if in_all is None else f"{words}; some {in_all:.0f} s in all"


def seconds_in_all(levels: list[int], seconds: float, most: int) -> float | None:
    """How long a growth takes in all; None as long as its levels do not become smaller: then there is no telling.

    Every path takes about as long as those before. Levels become smaller faster and faster.

    Args:
        levels: how many paths each level has followed up, with the next one's behind.
        seconds: for those that have been followed up.
        most: levels that can follow.
    """
    *done, last = levels
    if not done or not last or last >= done[-1]:
        return None
    left, level, ratio = 0.0, float(last), last / done[-1]
    for _ in range(most):
        left += max(level, _FEWEST)
        ratio *= _FASTER
        level *= ratio
        if level < 1:
            break
    return seconds + left * seconds / sum(done)


def _open_paths(document: DefinitionTree) -> int:
    """How many paths the next level of a growing tree follows up."""
    tree = document.tree
    return int(np.count_nonzero((tree.depth == document.depth_grown) & ~tree.end))
