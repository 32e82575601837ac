"""The job of a study: settings tried on many features, and what that says on average."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from multitool.evidence.statistics import mean_with_interval
from multitool.jobs.candidates import PUBLISHED, Candidate, candidate_columns, candidates_for
from multitool.jobs.features import Resolved, resolve_scanned
from multitool.jobs.steps import Job, Prepare, ask_ghosts
from multitool.jobs.trials import (
    Judge,
    Trial,
    candidate_tasks,
    control_task,
    figure_rounded,
    prepare_features,
    trial_facts,
    with_candidates,
)
from multitool.recipes.recipe import TreeRecipe, VectorRecipe
from multitool.store.library import Library

_GHOSTS_KEPT = 512  # of many features: bounds what is kept of the answers


@dataclass(frozen=True)
class PreparedStudy:
    """Candidates that can be tried on many features of an SAE."""

    target: Resolved
    candidates: Sequence[Candidate]
    tree_recipe: TreeRecipe
    judge: Judge

    def parts(self, features: Sequence[int]) -> list[Sequence[int]]:
        """Features in parts that are tried together."""
        step = max(1, _GHOSTS_KEPT // len(self.candidates))
        return [features[first : first + step] for first in range(0, len(features), step)]


def prepare_study(
    library: Library, vector_recipe: VectorRecipe, tree_recipe: TreeRecipe, *, model: str | None = None,
    candidates: Sequence[Candidate] | None = None,
) -> Job[PreparedStudy]:
    """Make ready what trying candidates on many features takes; ``part_job`` then tries them on some.

    Args:
        candidates: what is tried; those of ``candidates_for`` if none are named.

    Raises:
        UserError: the recipe cannot be followed.
    """
    target = yield from resolve_scanned(library, vector_recipe, model)
    if candidates is None:
        candidates = candidates_for(target.sae.entry, target.subject)
    controls, task = yield from control_task(target, tree_recipe)
    asked = yield from ask_ghosts((task,), "controls")
    judge = yield Prepare(partial(Judge, target, controls, asked), "judge_settings")
    return PreparedStudy(target, candidates, tree_recipe, judge)


def part_job(study: PreparedStudy, features: Sequence[int]) -> Job[list[Trial]]:
    """Candidates tried on some features. A feature is left out where none gives it a vector.

    Raises:
        UserError: there is no such feature.
    """
    target = yield from prepare_features(study.target, features, study.candidates)
    tried = yield Prepare(partial(with_candidates, target, features, study.candidates), "vectors")
    if not tried.vectors:
        return []
    tasks = yield Prepare(partial(candidate_tasks, target, tried, study.tree_recipe), "vectors")
    asked = yield from ask_ghosts(tasks, "candidates")
    return (yield Prepare(partial(study.judge.trials, tried, asked), "judge_settings"))


# What a study reports of a trial, by the names of its columns.
STUDY_COLUMNS: dict[str, Callable[[Trial], float | None]] = {
    "hit rate": lambda trial: trial.judged.hit_rate,
    "AUROC": lambda trial: trial.judged.auroc,
    "MRR": lambda trial: 1 / trial.judged.rank,
    "recall@10": lambda trial: float(trial.judged.rank <= 10),
    "list AP": lambda trial: trial.judged.list_average_precision,
    "list AUROC": lambda trial: trial.judged.list_auroc,
    "text tokens@10": lambda trial: None if trial.text_rank is None else float(trial.text_rank <= 10),
    "self-similarity": lambda trial: trial.self_similarity,
    "score": lambda trial: trial.judged.score,
}


class Study:
    """What came of trying settings on many features.

    Args:
        dtype: in which the model ran.

    Means are over features, each with its 95 % confidence interval; what is compared is compared feature by feature.
    """

    def __init__(self, trials: Sequence[Trial], dtype: str | None = None):
        self.trials = tuple(trials)
        self.dtype = dtype
        self._by_candidate: dict[Candidate, dict[int, Trial]] = {}
        for trial in trials:
            self._by_candidate.setdefault(trial.candidate, {})[trial.feature] = trial

    columns = ("weights", "scale", "components", "injected", "features", *STUDY_COLUMNS)

    @property
    def candidates(self) -> list[Candidate]:
        """Those tried, the best on average first."""
        return sorted(self._by_candidate, key=lambda candidate: -self.mean(candidate, "score")[0])

    def n_features(self, candidate: Candidate) -> int:
        """How many features have a vector by it."""
        return len(self._by_candidate[candidate])

    def mean(self, candidate: Candidate, measure: str) -> tuple[float, float, float]:
        """A measure's mean and interval over the features; NaN if no feature has it."""
        values = [STUDY_COLUMNS[measure](trial) for trial in self._by_candidate[candidate].values()]
        values = [value for value in values if value is not None]
        return mean_with_interval(values) if values else (math.nan,) * 3

    def difference(self, one: Candidate, other: Candidate, measure: str) -> tuple[float, float, float]:
        """How much larger a measure is by one setting than by the other, on the features that have both."""
        ones, others = self._by_candidate[one], self._by_candidate[other]
        figure = STUDY_COLUMNS[measure]
        pairs = [(figure(ones[i]), figure(others[i])) for i in ones.keys() & others.keys()]
        differences = [a - b for a, b in pairs if a is not None and b is not None]
        return mean_with_interval(differences) if differences else (math.nan,) * 3

    def chosen_each(self) -> list[Trial]:
        """For every feature the setting that its own choosing half likes best."""
        by_feature: dict[int, list[Trial]] = {}
        for trial in self.trials:
            by_feature.setdefault(trial.feature, []).append(trial)
        return [max(tried, key=lambda trial: trial.choosing.score) for tried in by_feature.values()]

    @property
    def rows(self) -> list[list]:
        """One list per setting, in the order of ``columns``: means."""
        return [
            [
                *candidate_columns(candidate), self.n_features(candidate),
                *(figure_rounded(self.mean(candidate, measure)[0]) for measure in STUDY_COLUMNS),
            ]
            for candidate in self.candidates
        ]

    @property
    def sentence(self) -> str:
        """What was found, for a reader."""
        best = self.candidates[0]
        said = f"Of {len(self.candidates)} settings the best on average is {best}."
        if PUBLISHED[0] in self._by_candidate and best != PUBLISHED[0]:
            mean, low, high = self.difference(best, PUBLISHED[0], "score")
            said += (
                f" Its score is {mean:.3f} above that of {PUBLISHED[0]} (95 % interval {low:.3f} to {high:.3f}), on "
                "the halves of definitions and tokens that did not choose."
            )
        return said

    def to_dict(self) -> dict:
        """For JSON."""
        return {
            "schema": "sae-multitool/study/1",
            "sentence": self.sentence,
            "dtype": self.dtype,
            "settings": [dict(zip(self.columns, row, strict=True)) for row in self.rows],
            "trials": [trial_facts(trial) for trial in self.trials],
        }
