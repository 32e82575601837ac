"""How long a picture takes: what the page shows by default, of small and large trees."""

from functools import partial

import numpy as np

from benchmarks.material import grown, prepared
from benchmarks.measuring import Reach, Row, ratios, side_by_side, timed
from multitool.pictures.drawing import DEFAULT_NODES
from multitool.pictures.figure import render

_MOST_DRAWN = 250  # that the page offers


def drawing(repeats: int, smoke: bool) -> list[Row]:
    """A picture (PNG) of the most probable nodes of trees of several sizes; one large tree is grown and trimmed."""
    sizes = (3, 5, 10) if smoke else (200, 1000, 5000)
    whole = prepared(1e-3 if smoke else 1e-6, sizes[-1])
    document = whole.document(grown(whole.task))
    best_first = -np.sort(-document.tree.cumulative_prob)
    trees = {size: document.trimmed(float(best_first[size - 1])) for size in sizes}
    runs = {f"{len(tree.tree):,} nodes": timed(partial(render, tree, ["png"])) for tree in trees.values()}
    first, *_, largest = runs
    runs["more drawn"] = timed(partial(render, trees[sizes[-1]], ["png"], max_nodes=_MOST_DRAWN))
    seconds = side_by_side(repeats, runs)

    reach = Reach("at most", 0.5, of="picture")
    rows = [
        Row(f"{name}, {DEFAULT_NODES} drawn; ratio: to {first}", {"picture": seconds[name]},
            ratio=ratios(seconds, name, first), reach=reach)
        for name in list(runs)[:-1]
    ]
    return [*rows, Row(f"{largest}, {_MOST_DRAWN} drawn; ratio: to {DEFAULT_NODES} drawn",
                       {"picture": seconds["more drawn"]}, ratio=ratios(seconds, "more drawn", largest))]
