"""The job of a suggestion: many settings are tried on a feature, and the evidence chooses among them."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from multitool.errors import UserError
from multitool.jobs.candidates import INJECTION, PUBLISHED, Candidate, candidate_columns, candidates_for
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
from multitool.text import data_frame

if TYPE_CHECKING:
    from pandas import DataFrame


def suggest_job(
    library: Library, vector_recipe: VectorRecipe, tree_recipe: TreeRecipe = TreeRecipe(), *, model: str | None = None,
    candidates: Sequence[Candidate] | None = None,
) -> Job["Suggestion"]:
    """The settings that suit a feature best.

    Args:
        tree_recipe: how small trees are grown to judge by; it comes back with the injection that goes with the best.
        model: another model than the SAE names: a hub id or a folder.
        candidates: what is tried; those of ``candidates_for`` if none are named.

    Raises:
        UserError: the recipe cannot be followed.
    """
    target = yield from resolve_scanned(library, vector_recipe, model)
    if candidates is None:
        candidates = candidates_for(target.sae.entry, target.subject)
    target = yield from prepare_features(target, [target.index], candidates)
    tried = yield Prepare(partial(with_candidates, target, [target.index], candidates), "vectors")
    if not tried.vectors:
        raise UserError(
            f"Feature {target.index} of {target.recipe.sae} has no direction by any setting (a dead feature?). Use "
            "another one."
        )
    tasks = yield Prepare(partial(candidate_tasks, target, tried, tree_recipe), "vectors")
    controls, task = yield from control_task(target, tree_recipe)
    asked = yield from ask_ghosts(tasks, "candidates")
    control_answers = yield from ask_ghosts((task,), "controls")
    trials = yield Prepare(lambda: Judge(target, controls, control_answers).trials(tried, asked), "judge_settings")
    return _suggestion(target, tree_recipe, trials)


@dataclass(frozen=True)
class Suggestion:
    """What came of trying settings on one feature."""

    recipe: VectorRecipe  # with the best setting
    tree: TreeRecipe  # the growth that goes with it: it may inject the vector
    trials: tuple[Trial, ...]  # the best first
    dtype: str  # in which the model ran

    columns = (
        "weights", "scale", "components", "injected", "chosen by", "score", "hit rate", "AUROC", "rank", "list AP",
    )

    def __repr__(self) -> str:
        return f"Suggestion({len(self.trials)} settings tried, the best: {self.best.candidate})"

    def to_pandas(self) -> "DataFrame":
        """One row per trial, the best first."""
        return data_frame(self.columns, self.rows)

    @property
    def best(self) -> Trial:
        return self.trials[0]

    @property
    def growth(self) -> dict:
        """The settings of the tree that belong to the best one, by their names."""
        return {name: getattr(self.tree, name) for name in INJECTION}

    @property
    def rows(self) -> list[list]:
        """One list per trial, in the order of ``columns``; the scale in units of the mean token distance.

        ``chosen by`` is the score of the half that chose, what follows is of the other half.
        """
        return [
            [
                *candidate_columns(trial.candidate),
                round(trial.choosing.score, 3), round(trial.judged.score, 3), round(trial.judged.hit_rate, 2),
                round(trial.judged.auroc, 3), round(trial.judged.rank, 1),
                figure_rounded(trial.judged.list_average_precision),
            ]
            for trial in self.trials
        ]

    @property
    def sentence(self) -> str:
        """What was found, for a reader."""
        said = f"Of {len(self.trials)} settings the best is {self.best.candidate}."
        published = next((trial for trial in self.trials if trial.candidate == PUBLISHED[0]), None)
        if published and published is not self.best:
            said += f" Its score is {self.best.judged.score:.2f}, that of {published.candidate} is "
            said += f"{published.judged.score:.2f}."
        said += " One half of the definitions and tokens chose, the figures behind “chosen by” are of the other half."
        if self.best.judged.hit_rate == 0 and not self.best.judged.list_average_precision:
            said += " None of them says anything that fires the feature: trust none."
        return said

    def to_dict(self) -> dict:
        """For JSON. ``growth``: the settings of a tree that belong to the best one."""
        return {
            "schema": "sae-multitool/suggestion/1",
            "recipe": self.recipe.settings(),
            "growth": self.growth,
            "dtype": self.dtype,
            "sentence": self.sentence,
            "trials": [trial_facts(trial) for trial in self.trials],
        }


def _suggestion(target: Resolved, tree_recipe: TreeRecipe, trials: Sequence[Trial]) -> Suggestion:
    ranked = sorted(trials, key=lambda trial: -trial.choosing.score)
    best = ranked[0].candidate
    return Suggestion(best.of(target.recipe, target.subject), best.growth(tree_recipe), tuple(ranked), target.precision)
