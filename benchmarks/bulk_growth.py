"""Trees of many features grown together: against the machine's limit, and against one after another."""

from collections.abc import Sequence
from functools import partial
from itertools import cycle, islice

import numpy as np
import torch

import multitool as mt
from benchmarks.material import demo_model, library, passes
from benchmarks.measuring import PeakRise, Reach, Row, in_child, ratios, side_by_side, timed
from benchmarks.trees import products, seconds_per_token
from multitool.jobs.features import recipe_vector, resolve
from multitool.jobs.tree import PreparedTree, prepare_tree
from multitool.model.passes import Continuations
from multitool.recipes.recipe import TreeRecipe, VectorRecipe
from multitool.trees.document import DefinitionTree
from multitool.trees.growth import finished, grow_forest
from tests.plain_recursion import as_paths, assert_same_tree

_CUTOFF, _LOWER_CUTOFF = 2e-3, 1e-3
# The first features whose trees have 60 to 100 nodes at the lower cutoff.
_MIDDLING = (
    0, 11, 12, 19, 21, 22, 30, 32, 35, 37, 44, 45, 52, 53, 60, 61, 69, 88, 90, 95, 99, 103, 104, 106, 114, 121, 123,
    133, 139, 147, 150, 153, 156, 163, 166, 169, 171, 180, 185, 187, 199, 207, 209, 210, 212, 235, 236, 240, 243, 256,
    258, 263, 265, 267, 269, 271, 276, 279, 290, 292, 301, 302, 307, 309,
)
_ALONE = 8  # so many trees one after another stand for all of them in a repeat


def growth_in_bulk(repeats: int, smoke: bool) -> list[Row]:
    """Trees of many features of the demo together."""
    if smoke:
        return [*_trees(range(3), 2e-2, repeats, n_alone=1, batches=(8,), warm=False), _memory(range(3), 2e-2, repeats)]
    reaches = Reach("at most", 1.3), Reach("at least", 3)
    return [
        *_trees(_MIDDLING, _LOWER_CUTOFF, repeats, reaches=reaches),
        *_trees(range(64), _CUTOFF, repeats),
        _memory(range(128), _CUTOFF, repeats),
    ]


def _trees(
    features: Sequence[int], cutoff: float, repeats: int, *, n_alone: int = _ALONE, warm: bool = True,
    batches: tuple[int, ...] = (64, 128, 256, 512), reaches: tuple[Reach | None, Reach | None] = (None, None),
) -> list[Row]:
    """All trees together against the matrix products for as many tokens, and against some of them one by one."""
    model, turns = demo_model(), cycle(features)
    together: dict[int, DefinitionTree] = {}
    alone: dict[int, DefinitionTree] = {}

    def all_together() -> None:
        together.update(_grown_together(features, cutoff))

    def one_by_one() -> None:
        for feature in islice(turns, n_alone):
            alone[feature] = mt.definition_tree(library(), _recipe(feature), TreeRecipe(cutoff=cutoff))

    done = passes(model, all_together)
    n_tokens, n_paths = sum(each.tokens for each in done), sum(each.paths for each in done)
    seconds = side_by_side(repeats, {
        "together": timed(all_together),
        "best": partial(seconds_per_token, model, batches, n_paths / n_tokens),
        "own": timed(partial(products, model, done)),
        "alone": timed(one_by_one),
    }, warm=warm)  # fmt: skip
    for feature, document in alone.items():
        assert_same_tree(document.tree, as_paths(together[feature].tree))

    sizes = [len(document.tree) for document in together.values()]
    what = f"{len(features)} trees of {min(sizes)} to {max(sizes)} nodes (median {np.median(sizes):.0f})"
    best = {"growth": seconds["together"], "products": [each * n_tokens for each in seconds["best"]]}
    own = {"growth": seconds["together"], "products": seconds["own"]}
    per_feature = {"one by one": [each / n_alone for each in seconds["alone"]],
                   "together": [each / len(features) for each in seconds["together"]]}
    facts = {"nodes": sum(sizes), "tokens": n_tokens}
    return [
        Row(f"{what}, {n_tokens:,} tokens, against the products at the best batch", best, ratio=ratios(best, *best),
            reach=reaches[0], facts=facts),
        Row(f"{what}, against the products at its own batches", own, ratio=ratios(own, *own), facts=facts),
        Row(f"{what}, per feature", per_feature, ratio=ratios(per_feature, *per_feature), reach=reaches[1],
            facts=facts | {"same_tree": True, "compared": f"{len(alone)} trees"}),
    ]


def _memory(features: Sequence[int], cutoff: float, repeats: int) -> Row:
    rises = [in_child(_rise_of_growth, features, cutoff) for _ in range(repeats)]
    return Row(f"{len(features)} trees together, above the loaded model", {"rise": rises}, unit="MB",
               reach=Reach("at most", 1000, of="rise", always=True))


def _rise_of_growth(features: Sequence[int], cutoff: float) -> float:
    """In megabytes."""
    _grown_together(features[:1], 0.5)  # loads the model, and whatever the first growth keeps
    with PeakRise() as peak:
        _grown_together(features, cutoff)
    return peak.megabytes


def _grown_together(features: Sequence[int], cutoff: float) -> dict[int, DefinitionTree]:
    """From the features' numbers to their trees, as ``mt.definition_tree`` gives each."""
    trees = [_prepared(feature, cutoff) for feature in features]
    task = trees[0].task
    vs = torch.from_numpy(np.stack([tree.task.v for tree in trees]))
    grown = finished(grow_forest(
        Continuations(demo_model(), task.prompt, vs, task.top_k, task.max_depth), len(trees),
        cutoff=task.cutoff, max_depth=task.max_depth, max_nodes=task.max_nodes, ends=task.ends,
    ))  # fmt: skip
    return {feature: tree.document(growth) for feature, tree, growth in zip(features, trees, grown, strict=True)}


def _prepared(feature: int, cutoff: float) -> PreparedTree:
    target = resolve(library(), _recipe(feature))
    return prepare_tree(target, recipe_vector(target), TreeRecipe(cutoff=cutoff))


def _recipe(feature: int) -> VectorRecipe:
    return VectorRecipe(sae="demo/hook_embed", feature=feature, weights="encoder")
