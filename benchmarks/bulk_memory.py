"""How much memory an atlas takes, whatever the number of its features."""

import tempfile

from benchmarks.material import RECIPE, library
from benchmarks.measuring import PeakRise, Reach, Row, in_child, ratios
from multitool.jobs.local import atlas
from multitool.recipes.atlas import ATLAS_TREE, AtlasRecipe
from multitool.recipes.recipe import TreeRecipe

_MOST = 1500  # megabytes


def memory_of_atlas(repeats: int, smoke: bool) -> list[Row]:
    """How far memory rises above the loaded model while few and many features are described, evidence included."""
    few, many = (2, 8) if smoke else (64, 512)
    tree, per_part = (TreeRecipe(cutoff=5e-2), 2) if smoke else (ATLAS_TREE, 64)
    found = {
        f"{n} features": [in_child(_rise, n, tree, per_part) for _ in range(repeats)] for n in (few, many)
    }  # fmt: skip
    first, last = found
    return [Row(f"an atlas in parts of {per_part} features, above the loaded model; ratio: {last} to {first}", found,
                unit="MB", ratio=None if smoke else ratios(found, last, first),
                reach=Reach("at most", _MOST, of=last, always=True), facts={"cutoff": tree.cutoff})]


def _rise(n_features: int, tree: TreeRecipe, per_part: int) -> float:
    """In megabytes."""
    first = _described(1, tree, per_part)  # loads the model and the SAE, and does what is done once
    assert first == 1
    with PeakRise() as peak:
        assert _described(n_features, tree, per_part) == n_features
    return peak.megabytes


def _described(n_features: int, tree: TreeRecipe, per_part: int) -> int:
    """How many features."""
    with tempfile.TemporaryDirectory() as out:
        *_, last = atlas(
            library(), [RECIPE], range(n_features), out, tree, AtlasRecipe(evidence=True), per_part=per_part
        )
    return last.done
