"""Candidates tried on features: what the model is asked for them, and the figures that come of it.

What is chosen on cannot judge: every other definition and half of the tokens choose, the rest give the figures that
are shown. Tokens that a direction was made from count in neither.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import groupby

import numpy as np
import torch

from multitool.errors import UserError
from multitool.evidence.statistics import auroc, average_precision
from multitool.evidence.verdicts import Others, definition_scores, list_rank, strongest
from multitool.jobs.candidates import Candidate
from multitool.jobs.features import Resolved, ScannedSource, scanned_sources, vectors_of, with_pullbacks
from multitool.jobs.judging import (
    Controls,
    ReadText,
    ask_task,
    control_features,
    control_sources,
    cosine,
    read_definitions,
    small_recipe,
    tokens_in_texts,
)
from multitool.jobs.steering import interventions
from multitool.jobs.steps import Job, Prepare
from multitool.jobs.tree import ghost_row
from multitool.model.tasks import Asked, AskTask
from multitool.recipes.directions import needs_layers
from multitool.recipes.recipe import TreeRecipe
from multitool.vectors.ranking import token_scores
from multitool.vectors.scan_directions import mapped_half
from multitool.vectors.vector import FeatureVector

DEFINITIONS_TRIED = 20  # half of them choose, half of them judge


@dataclass(frozen=True)
class Figures:
    """What one half of the evidence says of a candidate."""

    hit_rate: float  # share of its definitions on which the feature fires
    auroc: float  # of the activation on its definitions against that on other features'
    rank: float  # of the feature when all are asked
    found: float  # 1 - ln rank / ln d_sae: 1 if it comes first, 0 if last
    list_average_precision: float | None  # of the token list; None if no token is left that fires the feature
    list_auroc: float | None

    @property
    def score(self) -> float:
        """The mean of ``found`` and the list's average precision: what candidates are chosen by."""
        parts = [part for part in (self.found, self.list_average_precision) if part is not None]
        return float(np.mean(parts))


@dataclass(frozen=True)
class Trial:
    """A candidate tried on a feature."""

    feature: int
    candidate: Candidate
    choosing: Figures  # of the half that chooses
    judged: Figures  # of the other half
    text_rank: int | None  # in the list: the best place of a token that fires the feature most in real texts
    # Cosine of W_dec and the residual at the prompt's end; None on the embedding, and of an injected vector.
    self_similarity: float | None


def trial_facts(trial: Trial) -> dict:
    """A trial for JSON, flat: the setting, and the judged figures."""
    facts = {"feature": trial.feature} | asdict(trial.candidate) | {"pca": list(trial.candidate.pca)}
    facts |= asdict(trial.judged) | {"score": trial.judged.score, "choosing_score": trial.choosing.score}
    return facts | {"text_rank": trial.text_rank, "self_similarity": trial.self_similarity}


@dataclass(frozen=True)
class Tried:
    """Features with the candidates that give them a vector, in columns: each feature with all its own in a row."""

    sources: list[ScannedSource]
    candidates: list[Candidate]
    vectors: list[FeatureVector]

    @property
    def together(self) -> list[list[int]]:
        """Indices of candidates that fit into one task: those with the same injection settings."""
        found: dict[tuple, list[int]] = {}
        for number, candidate in enumerate(self.candidates):
            found.setdefault(tuple(candidate.injection.values()), []).append(number)
        return list(found.values())


def prepare_features(
    target: Resolved, features: Sequence[int], candidates: Sequence[Candidate]
) -> Job[Resolved]:
    """The same with what the candidates need of the features, but for the scan. Errors as for ``with_pullbacks``."""
    always = any(needs_layers(candidate.weights) for candidate in candidates)
    return (yield from with_pullbacks(target, features, always=always))


def with_candidates(target: Resolved, features: Sequence[int], candidates: Sequence[Candidate]) -> Tried:
    """Features of an SAE with the candidates that give them a vector.

    The vocabulary scan and ``prepare_features`` must have been done.

    Raises:
        UserError: there is no such feature.
    """
    subject = target.subject
    found = [
        (source, candidate, vector)
        for source in scanned_sources(target, target.sae, features)
        for candidate in candidates
        for _, vector in vectors_of([source], subject, candidate.of(target.recipe, subject))
    ]
    return Tried(*map(list, zip(*found, strict=True))) if found else Tried([], [], [])


def candidate_tasks(target: Resolved, tried: Tried, tree_recipe: TreeRecipe) -> tuple[AskTask, ...]:
    """The definitions of all that is tried, a task for each kind of injection; the ghosts in the order of
    ``tried.together``."""
    tasks = []
    for numbers in tried.together:
        growth = tried.candidates[numbers[0]].growth(small_recipe(tree_recipe))
        wanted = interventions(target, growth)
        ghosts = [tried.vectors[number] for number in numbers]
        vs = torch.stack([ghost_row(ghost, wanted) for ghost in ghosts])
        tasks.append(ask_task(target, vs, small_recipe(tree_recipe), DEFINITIONS_TRIED, wanted))
    return tuple(tasks)


def control_task(target: Resolved, tree_recipe: TreeRecipe) -> Job[tuple[list[int], AskTask]]:
    """Other features, and their definitions by the weights that suit the SAE; the same for every feature of it. A scan
    that these need must be there.

    Raises:
        UserError: they have no directions.
    """
    plain = Candidate(target.sae.entry.default_weights).of(target.recipe, target.subject)
    ready = yield from with_pullbacks(target.by(plain), control_features(target.sae))
    return (yield Prepare(partial(_control_task, ready, tree_recipe), "vectors"))


def _control_task(target: Resolved, tree_recipe: TreeRecipe) -> tuple[list[int], AskTask]:
    found = control_sources(target)
    if not found:
        raise UserError(
            f"Nothing can be judged on {target.recipe.sae}: the features to compare with have no directions."
        )
    vs = torch.stack([vector.v for _, vector in found])
    return [source.index for source, _ in found], ask_task(target, vs, small_recipe(tree_recipe), DEFINITIONS_TRIED)


class Judge:
    """Judges candidates by the definitions and the lists that they give.

    Args:
        target: of the SAE whose features they are tried on.
        control_features: other features;
        controls: their definitions, in that order.
    """

    def __init__(self, target: Resolved, control_features: Sequence[int], controls: Sequence[Asked]):
        subject = target.subject
        self._sae = target.sae
        self._subject = subject
        self._encoder = encoder = target.library.encoder(target.sae.entry)
        self._controls = Controls(read_definitions(encoder, control_features, controls))
        ids = torch.arange(subject.space.n_tokens)
        other_half = ~mapped_half(subject.space.n_tokens)
        self._token_halves = [(other_half & (ids % 2 == half)).numpy() for half in (0, 1)]

    def trials(self, tried: Tried, asked: Sequence[Asked]) -> list[Trial]:
        """Every candidate tried, in order.

        Args:
            asked: what the model said, in the order of ``tried.together``.
        """
        numbers = [number for together in tried.together for number in together]
        answers = dict(zip(numbers, asked, strict=True))
        found = []
        for source, grouped in groupby(range(len(numbers)), lambda number: tried.sources[number]):
            group = list(grouped)
            found += self._of_feature(
                source, [tried.candidates[number] for number in group],
                torch.stack([tried.vectors[number].v for number in group]), [answers[number] for number in group],
            )
        return found

    def _of_feature(
        self, source: ScannedSource, candidates: Sequence[Candidate], vs: torch.Tensor, asked: Sequence[Asked]
    ) -> list[Trial]:
        others = self.others(source)
        in_texts = tokens_in_texts(self._sae, self._subject, source.index)
        trials = []
        for candidate, listed, answer in zip(candidates, self.lists(source, vs, in_texts), asked, strict=True):
            own = self.own(source, read_definitions(self._encoder, [source.index], [answer]))
            choosing, judged = (
                _figures(own[half::2], others, source.index, listed.halves[half]) for half in (0, 1)
            )
            similar = None
            # On the embedding it is the same whatever the ghost.
            if self._sae.entry.kind != "embed" and answer.last_residual is not None:
                similar = cosine(answer.last_residual, source.weights.decoder.numpy())
            trials.append(Trial(source.index, candidate, choosing, judged, listed.text_rank, similar))
        return trials

    def lists(
        self, source: ScannedSource, vs: torch.Tensor, in_texts: Sequence[int] = (), halves: Sequence[int] = (0, 1)
    ) -> list["ListFigures"]:
        """The lists of some vectors of a feature, (n, d_model).

        Args:
            in_texts: ids of tokens on which the feature fires most in real texts.
            halves: of the tokens, those that are asked: 0 chooses, 1 judges.
        """
        fires = source.activations.numpy() > 0
        countable = source.countable.numpy() & ~self.used(source)
        tokens = [np.flatnonzero(self._token_halves[half] & countable) for half in halves]
        return [
            ListFigures(
                tuple((average_precision(-score[ids], fires[ids]), auroc(-score[ids], fires[ids])) for ids in tokens),
                min((list_rank(score, token_id) for token_id in in_texts), default=None),
            )
            for score in token_scores(self._subject.space, vs)
        ]

    def used(self, source: ScannedSource) -> np.ndarray:
        """The tokens that count for no setting: those that the vocabulary direction is made from, (V,) bool."""
        used = np.zeros(self._subject.space.n_tokens, dtype=bool)
        used[source.strongest_ids.numpy()] = True
        return used

    def own(self, source: ScannedSource, said: Iterable[ReadText]) -> np.ndarray:
        """Every feature's strongest activation on each of a feature's definitions: (n, d_sae)."""
        used = self.used(source)
        return np.array([strongest(found.fires, found.text, used) for found in said])

    def others(self, source: ScannedSource) -> Others:
        """The same on other features' definitions."""
        return self._controls.others(source.index, self.used(source))


@dataclass(frozen=True)
class ListFigures:
    """A vector's token list, judged."""

    halves: tuple[tuple[float | None, float | None], ...]  # of each half that was asked: average precision, AUROC
    text_rank: int | None  # as ``Trial`` has it


def _figures(
    own: np.ndarray, others: Others, feature: int, listed: tuple[float | None, float | None]
) -> Figures:
    lists = dict(zip(("list_average_precision", "list_auroc"), listed, strict=True))
    n_features = others.strongest.shape[1]
    if not len(own):  # nothing was said
        return Figures(hit_rate=0.0, auroc=0.5, rank=(n_features + 1) / 2, found=0.0, **lists)
    scores = definition_scores(own, others, feature)
    return Figures(scores.hit_rate, scores.auroc, scores.rank, place_score(scores.rank, n_features), **lists)


def place_score(rank: float, n_features: int) -> float:
    """``1 - ln rank / ln n``: 1 for a feature that comes first, 0 for the last."""
    return 1 - math.log(rank) / math.log(n_features) if n_features > 1 else 1.0


def figure_rounded(value: float | None) -> float | None:
    """A figure as tables have it."""
    return None if value is None or math.isnan(value) else round(value, 3)
