"""How fast features are described in bulk: evidence against checks one by one, and where the time goes."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from benchmarks.material import RECIPE, library
from benchmarks.measuring import Reach, Row, ratios, side_by_side
from multitool.jobs.atlas import PreparedAtlas, describe_job, prepare_atlas
from multitool.jobs.local import check_tree, definition_tree, finish
from multitool.jobs.steps import Ask, Job, Keep, Prepare, Result
from multitool.model.tasks import ForestTask, PathsTask, ReadTask, Task
from multitool.recipes.atlas import ATLAS_TREE, AtlasRecipe
from multitool.recipes.recipe import VectorRecipe

_EVIDENCE = AtlasRecipe(evidence=True)
_PARTS: dict[type[Task], str] = {ForestTask: "growth", ReadTask: "reading", PathsTask: "lifts"}
_PREPARED = {"vectors": "vectors and scan", "list": "lists", "judge_tree": "activations and judging"}
_FOR_EVIDENCE = ("reading", "lifts", "activations and judging", "controls")


def evidence_in_bulk(repeats: int, smoke: bool) -> list[Row]:
    """Evidence in bulk, what is asked once for all included, against ``check_tree`` of a sample, scaled."""
    features, sample = (range(6), [2]) if smoke else (range(200), range(0, 200, 10))
    prepared = finish(prepare_atlas(library(), [RECIPE], ATLAS_TREE, _EVIDENCE), library())
    trees = [definition_tree(library(), _of(feature), ATLAS_TREE) for feature in sample]

    def one_by_one() -> float:
        started = time.perf_counter()
        for tree in trees:
            check_tree(library(), tree)
        return (time.perf_counter() - started) * len(features) / len(sample)

    parts: list[dict[str, float]] = []

    def bulk() -> float:
        parts.append(parts_of(prepared, features))
        _, seconds = _by_part(prepare_atlas(library(), [RECIPE], ATLAS_TREE, _EVIDENCE))
        parts[-1]["controls"] = sum(seconds.values())
        return sum(parts[-1].get(name, 0.0) for name in _FOR_EVIDENCE)

    seconds = side_by_side(repeats, {"one by one": one_by_one, "bulk": bulk}, warm=not smoke)
    found = [Row(
        f"evidence of {len(features)} features; one by one sampled, {len(sample)} of them", seconds,
        ratio=ratios(seconds, "one by one", "bulk"), reach=Reach("at least", 5), facts={"features": len(features)},
    )]
    measured = parts[-repeats:]
    names = list(measured[0])
    whole = [sum(each.values()) for each in measured]
    shares = {name: [100 * each.get(name, 0.0) / total for each, total in zip(measured, whole, strict=True)]
              for name in names}
    found.append(Row(f"where the time of these {len(features)} goes", shares, unit="%",
                     facts={"features_per_second": [len(features) / total for total in whole]}))
    return found


def parts_of(prepared: PreparedAtlas, features: Sequence[int], at_once: int = 128) -> dict[str, float]:
    """Describe some features; the seconds that each part of it takes."""
    total: dict[str, float] = {}
    for first in range(0, len(features), at_once):
        _, seconds = _by_part(describe_job(prepared, features[first : first + at_once]))
        for name, value in seconds.items():
            total[name] = total.get(name, 0.0) + value
    return total


def _by_part(job: Job[Result]) -> tuple[Result, dict[str, float]]:
    """What comes of a job, and the seconds that each part of it takes."""
    seconds: dict[str, float] = {}

    def note(part: str, work: Callable):
        started = time.perf_counter()
        answer = work()
        seconds[part] = seconds.get(part, 0.0) + time.perf_counter() - started
        return answer

    answer = None
    while True:
        try:
            step = job.send(answer)
        except StopIteration as end:
            return end.value, seconds
        match step:
            case Prepare():
                answer = note(_PREPARED.get(step.purpose, "other"), step.work)
            case Keep():
                answer = note("scan", lambda step=step: list(library().do(step.task)) and None)
            case Ask():
                answer = []
                for task in step.tasks:
                    part = _PARTS.get(type(task), "other")
                    answer += note(part, lambda task=task: list(library().do(task)))


def _of(feature: int) -> VectorRecipe:
    return replace(RECIPE, feature=feature)
