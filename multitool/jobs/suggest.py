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
    Tried,
    candidate_tasks,
    control_task,
    figure_rounded,
    prepare_features,
    trial_facts,
    with_candidates,
)
from multitool.model.tasks import Asked
from multitool.recipes.recipe import TreeRecipe, VectorRecipe
from multitool.store.library import Library
from multitool.text import data_frame
from multitool.trees.tree import definitions

if TYPE_CHECKING:
    from pandas import DataFrame

_DEFINITIONS_TOLD = 5


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
    said = _first_definitions(target, tried, asked, tree_recipe)
    settings = [
        Setting(
            trial, trial.candidate.of(target.recipe, target.subject), trial.candidate.growth(tree_recipe),
            said[trial.candidate],
        )
        for trial in sorted(trials, key=lambda trial: -trial.choosing.score)
    ]
    return Suggestion(tuple(settings), target.precision)


@dataclass(frozen=True)
class Setting:
    """A setting that was tried on a feature, as it can be followed, and what came of it."""

    trial: Trial
    recipe: VectorRecipe
    tree: TreeRecipe  # the growth that goes with it: it may inject the vector
    definitions: tuple[str, ...]  # the first ones, complete ones before beginnings, which end in an ellipsis


@dataclass(frozen=True)
class Suggestion:
    """What came of trying settings on one feature."""

    settings: tuple[Setting, ...]  # the best first
    dtype: str  # in which the model ran

    columns = (
        "weights", "scale", "components", "injected", "chosen by", "score", "hit rate", "AUROC", "rank", "list AP",
        "first definitions",
    )

    def __repr__(self) -> str:
        return f"Suggestion({len(self.trials)} settings tried, the best: {self.best.candidate})"

    def to_pandas(self) -> "DataFrame":
        """One row per trial, the best first."""
        return data_frame(self.columns, self.rows)

    @property
    def recipe(self) -> VectorRecipe:
        """With the best setting."""
        return self.settings[0].recipe

    @property
    def tree(self) -> TreeRecipe:
        """The growth that goes with the best one."""
        return self.settings[0].tree

    @property
    def trials(self) -> tuple[Trial, ...]:
        """The best first."""
        return tuple(setting.trial for setting in self.settings)

    @property
    def best(self) -> Trial:
        return self.settings[0].trial

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
                *candidate_columns(setting.trial.candidate), *figures_rounded(setting.trial),
                " · ".join(setting.definitions),
            ]
            for setting in self.settings
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
            "trials": [
                trial_facts(setting.trial)
                | {"scale": setting.recipe.scale, "definitions": list(setting.definitions)}
                for setting in self.settings
            ],
        }


def figures_rounded(trial: Trial) -> list[float | None]:
    """Of a trial those that tables have: the score that it was chosen by, then what the other half says."""
    judged = trial.judged
    return [
        round(trial.choosing.score, 3), round(judged.score, 3), round(judged.hit_rate, 2), round(judged.auroc, 3),
        round(judged.rank, 1), figure_rounded(judged.list_average_precision),
    ]


def _first_definitions(
    target: Resolved, tried: Tried, asked: Sequence[Asked], tree_recipe: TreeRecipe
) -> dict[Candidate, tuple[str, ...]]:
    """What the model says of one feature by each of the candidates.

    Args:
        asked: in the order of ``tried.together``.
    """
    numbers = [number for together in tried.together for number in together]
    texts = target.subject.token_texts
    return {
        tried.candidates[number]: tuple(
            found.text if found.complete else f"{found.text} …"
            for found in definitions(answer.tree.spelled(texts), _DEFINITIONS_TOLD, tree_recipe.closing_quote)
        )
        for number, answer in zip(numbers, asked, strict=True)
    }
