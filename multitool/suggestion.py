"""Settings that find themselves: many are tried on a feature, each is judged by the evidence.

What is chosen on cannot judge: every other definition and half of the tokens choose, the rest give the figures that
are shown. Tokens that a direction was made from count in neither.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import groupby

import numpy as np
import torch

from multitool.asking import Asked, AskTask, Place
from multitool.checks import (
    control_sources,
    cosine,
    read_definitions,
    small_recipe,
    tokens_in_texts,
)
from multitool.errors import UserError
from multitool.evidence import definition_scores, list_rank, strongest
from multitool.firing import mapped_half
from multitool.interventions import Interventions
from multitool.library import Library
from multitool.loading import Sae
from multitool.loading_encoder import Encoder
from multitool.measures import auroc, average_precision, mean_with_interval
from multitool.recipe import TreeRecipe, VectorRecipe
from multitool.registry import SaeEntry
from multitool.sources import FeatureSource, feature_sources, resolved, sae_and_subject, vectors_of
from multitool.steering import interventions
from multitool.subject import Subject
from multitool.task import growth_task
from multitool.tokens import token_scores
from multitool.vector import FeatureVector

WEIGHTS = ("encoder", "decoder", "vocabulary", "mapped")
SCALES = (0.4, 0.7, 1.0, 1.5)  # times the model's mean token distance
COMPONENTS = ((), (0.2,))
INJECTION = ("inject_layer", "inject_mode", "inject_scale")
DEFINITIONS_TRIED = 20  # half of them choose, half of them judge
_GHOSTS_AT_ONCE = 512  # of many features: bounds what is kept of the answers


@dataclass(frozen=True)
class Setting:
    """What is tried: the weights, the scale in units of the model's mean token distance, the components; and behind
    which layer the vector is injected, if it is."""

    weights: str
    relative_scale: float = 1.0  # of an injected vector that of its token list
    pca: tuple[float, ...] = ()
    inject_layer: int = -1
    inject_mode: str = "replace"
    inject_scale: float = 1.0  # in mean residual norms

    @property
    def injection(self) -> dict:
        """The settings of the tree that say it, by their names: alike for those that can be asked together."""
        return {name: getattr(self, name) for name in INJECTION}

    def of(self, recipe: VectorRecipe, subject: Subject) -> VectorRecipe:
        """The recipe with this setting in it."""
        # The usual scale stays unsaid, so that the recipe is the plain one.
        scale = None if self.relative_scale == 1 else self.relative_scale * subject.space.mean_distance
        return recipe.by(self.weights, scale=scale, pca=self.pca)

    def growth(self, recipe: TreeRecipe) -> TreeRecipe:
        """The growth that goes with it: the recipe's, with the vector injected where it is, and nowhere else."""
        return replace(recipe, **self.injection)

    def __str__(self) -> str:
        if self.inject_layer >= 0:
            how = "added" if self.inject_mode == "add" else "put in"
            times = f" {self.inject_scale:g} ×" if self.inject_scale != 1 else ""
            return f"{self.weights}, {how}{times} behind layer {self.inject_layer}"
        components = f", components {', '.join(map(str, self.pca))}" if self.pca else ""
        return f"{self.weights}, {self.relative_scale:g} × the usual scale{components}"


PUBLISHED = (Setting("encoder"), Setting("decoder"))  # the first is the default
RANDOM = Setting("random")  # a random direction for every feature: what is chance
GRID = tuple(
    Setting(weights, scale, pca) for weights in WEIGHTS for scale in SCALES for pca in COMPONENTS
)
# Tried besides, of SAEs behind a layer. Added so, the decoder's definitions are worth twice as much as among the
# embeddings (``Figures.found`` 0.24 against 0.12, on 24 features of the demo's layers 6 and 12), and now and then more
# than those of any other weights. Put in, they seldom are, but then clearly. Less came of the encoder, of other lengths
# and layers, and of SAEs on the embedding; vocabulary and mapped weights are better among the embeddings.
INJECTED = (
    Setting("decoder", inject_layer=0, inject_mode="add", inject_scale=2.0),
    Setting("decoder", inject_layer=1, inject_mode="add", inject_scale=3.0),
    Setting("decoder", inject_layer=1),
)


def settings_for(entry: SaeEntry, subject: Subject) -> tuple[Setting, ...]:
    """What is tried on an SAE: an injection only where it reads behind a layer, and a layer is left to read it."""
    if entry.kind == "embed":
        return GRID
    last = math.inf if subject.n_layers is None else subject.n_layers - 2
    return (*GRID, *(setting for setting in INJECTED if setting.inject_layer <= last))


@dataclass(frozen=True)
class Figures:
    """What one half of the evidence says of a setting."""

    hit_rate: float  # share of its definitions on which the feature fires
    auroc: float  # of the activation on its definitions against that on other features'
    rank: float  # of the feature when all are asked
    found: float  # 1 - ln rank / ln d_sae: 1 if it comes first, 0 if last
    list_average_precision: float | None  # of the token list; None if no token is left that fires the feature
    list_auroc: float | None

    @property
    def score(self) -> float:
        """The mean of ``found`` and the list's average precision: what settings are chosen by."""
        parts = [part for part in (self.found, self.list_average_precision) if part is not None]
        return float(np.mean(parts))


@dataclass(frozen=True)
class Trial:
    """A setting tried on a feature."""

    feature: int
    setting: Setting
    choosing: Figures  # of the half that chooses
    judged: Figures  # of the other half
    text_rank: int | None  # in the list: the best place of a token that fires the feature most in real texts
    # Cosine of W_dec and the residual at the prompt's end; None on the embedding, and of an injected vector.
    self_similarity: float | None


@dataclass(frozen=True)
class Suggestion:
    """What came of trying settings on one feature."""

    recipe: VectorRecipe  # with the best setting
    tree: TreeRecipe  # the growth that goes with it: it may inject the vector
    trials: tuple[Trial, ...]  # the best first

    columns = (
        "weights", "scale", "components", "injected", "chosen by", "score", "hit rate", "AUROC", "rank", "list AP",
    )

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
                *_columns(trial.setting),
                round(trial.choosing.score, 3), round(trial.judged.score, 3), round(trial.judged.hit_rate, 2),
                round(trial.judged.auroc, 3), round(trial.judged.rank, 1),
                _rounded(trial.judged.list_average_precision),
            ]
            for trial in self.trials
        ]

    @property
    def sentence(self) -> str:
        """What was found, for a reader."""
        said = f"Of {len(self.trials)} settings the best is {self.best.setting}."
        published = next((trial for trial in self.trials if trial.setting == PUBLISHED[0]), None)
        if published and published is not self.best:
            said += f" Its score is {self.best.judged.score:.2f}, that of {published.setting} is "
            said += f"{published.judged.score:.2f}."
        said += " One half of the definitions and tokens chose, the figures behind “chosen by” are of the other half."
        if self.best.judged.hit_rate == 0 and not self.best.judged.list_average_precision:
            said += " None of them says anything that fires the feature: trust none."
        return said

    def to_dict(self) -> dict:
        """For JSON. ``growth``: the settings of a tree that belong to the best one."""
        return {
            "schema": "sae-multitool/suggestion/1",
            "recipe": asdict(self.recipe) | {"pca": list(self.recipe.pca)},
            "growth": self.growth,
            "sentence": self.sentence,
            "trials": [trial_facts(trial) for trial in self.trials],
        }


def _columns(setting: Setting) -> list:
    """Weights, scale, components, injected: as tables tell a setting; with a plus what is added to the stream."""
    injected = ""
    if setting.inject_layer >= 0:
        added = f", +{setting.inject_scale:g} ×" if setting.inject_mode == "add" else ""
        injected = f"layer {setting.inject_layer}{added}"
    return [setting.weights, setting.relative_scale, ", ".join(map(str, setting.pca)), injected]


def trial_facts(trial: Trial) -> dict:
    """A trial for JSON, flat: the setting, and the judged figures."""
    facts = {"feature": trial.feature} | asdict(trial.setting) | {"pca": list(trial.setting.pca)}
    facts |= asdict(trial.judged) | {"score": trial.judged.score, "choosing_score": trial.choosing.score}
    return facts | {"text_rank": trial.text_rank, "self_similarity": trial.self_similarity}


def _rounded(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else round(value, 3)


@dataclass(frozen=True)
class PreparedSuggestion:
    """Settings that can be tried: everything is checked and fetched, nothing has been asked of the model yet."""

    asks: tuple[AskTask, ...]  # every setting's definitions
    controls: AskTask  # other features' definitions, to compare with
    _recipe: VectorRecipe
    _tree_recipe: TreeRecipe
    _tried: "Tried"
    _control_features: list[int]  # those of ``controls``, in its order
    _sae: Sae
    _subject: Subject
    _encoder: Encoder

    def suggestion(self, asked: Sequence[Asked], controls: Sequence[Asked]) -> Suggestion:
        """What comes of the answers: ``asked`` to all of ``asks``, one after another."""
        judge = Judge(self._sae, self._subject, self._encoder, self._control_features, controls)
        trials = judge.trials(self._tried, asked)
        ranked = sorted(trials, key=lambda trial: -trial.choosing.score)
        best = ranked[0].setting
        return Suggestion(best.of(self._recipe, self._subject), best.growth(self._tree_recipe), tuple(ranked))


def prepare_suggestion(
    library: Library, vector_recipe: VectorRecipe, tree_recipe: TreeRecipe, model: str | None = None
) -> PreparedSuggestion:
    """Make ready what trying settings on the recipe's feature takes.

    The vocabulary scan must be there (``missing_scan(…, always=True)``).

    Args:
        model: another model than the SAE names: a hub id or a folder.

    Raises:
        UserError: the recipe cannot be followed.
    """
    recipe = resolved(library, vector_recipe)
    sae, subject = sae_and_subject(library, recipe, model)
    sources = feature_sources(library, sae, subject, [recipe.feature], scan=True)
    tried = settings_tried(sources, subject, recipe, settings_for(sae.entry, subject))
    if not tried.vectors:
        raise UserError(
            f"Feature {recipe.feature} of {recipe.sae} has no direction by any setting (a dead feature?). Use another "
            "one."
        )
    control_features, controls = control_task(library, sae, subject, recipe, tree_recipe)
    return PreparedSuggestion(
        asks=ask_tasks(library, sae, subject, recipe, tried, tree_recipe, model),
        controls=controls,
        _control_features=control_features,
        _recipe=recipe,
        _tree_recipe=tree_recipe,
        _tried=tried,
        _sae=sae,
        _subject=subject,
        _encoder=library.encoder(sae.entry),
    )


@dataclass(frozen=True)
class Tried:
    """Features with the settings that give them a vector, in columns: each feature with all its settings in a row."""

    sources: list[FeatureSource]
    settings: list[Setting]
    vectors: list[FeatureVector]

    @property
    def together(self) -> list[list[int]]:
        """The numbers of those that are asked together: that are injected alike, or not at all."""
        found: dict[tuple, list[int]] = {}
        for number, setting in enumerate(self.settings):
            found.setdefault(tuple(setting.injection.values()), []).append(number)
        return list(found.values())


def settings_tried(
    sources: Sequence[FeatureSource], subject: Subject, recipe: VectorRecipe, settings: Sequence[Setting]
) -> Tried:
    """The features with the settings that give them a vector."""
    found = [
        (source, setting, vector)
        for source in sources
        for setting in settings
        for _, vector in vectors_of([source], subject, setting.of(recipe, subject))
    ]
    return Tried(*map(list, zip(*found, strict=True))) if found else Tried([], [], [])


def ask_tasks(
    library: Library, sae: Sae, subject: Subject, recipe: VectorRecipe, tried: Tried, tree_recipe: TreeRecipe,
    model: str | None = None,
) -> tuple[AskTask, ...]:
    """The definitions of all that is tried, a task for each kind of injection; the ghosts in the order of
    ``tried.together``."""
    tasks = []
    for numbers in tried.together:
        growth = tried.settings[numbers[0]].growth(small_recipe(tree_recipe))
        changes = interventions(library, recipe, growth, model)
        ghosts = [tried.vectors[number] for number in numbers]
        vs = torch.stack([ghost.direction if changes else ghost.v for ghost in ghosts])
        tasks.append(ask_task(sae, subject, vs, tree_recipe, changes))
    return tuple(tasks)


def ask_task(
    sae: Sae, subject: Subject, vs: torch.Tensor, recipe: TreeRecipe, changes: Interventions | None = None
) -> AskTask:
    """The definitions of many ghosts, on small trees."""
    return AskTask(
        model=subject.name,
        folder=subject.folder,
        place=Place(sae.entry.hook, subject.bos_id),
        growth=growth_task(subject, vs, small_recipe(recipe), interventions=changes),
        n_definitions=DEFINITIONS_TRIED,
    )


def control_task(
    library: Library, sae: Sae, subject: Subject, recipe: VectorRecipe, tree_recipe: TreeRecipe
) -> tuple[list[int], AskTask]:
    """Other features, and their definitions by the weights that suit the SAE; the same for every feature of an SAE."""
    plain = Setting(sae.entry.default_weights).of(recipe, subject)
    found = control_sources(library, sae, subject, plain)
    if not found:
        raise UserError(f"Nothing can be judged on {recipe.sae}: the features to compare with have no directions.")
    vs = torch.stack([vector.v for _, vector in found])
    return [source.index for source, _ in found], ask_task(sae, subject, vs, tree_recipe)


class Judge:
    """Judges settings by the definitions and the lists that they give.

    Args:
        control_features: other features;
        controls: their definitions, in that order.
    """

    def __init__(
        self, sae: Sae, subject: Subject, encoder: Encoder, control_features: Sequence[int], controls: Sequence[Asked]
    ):
        self._sae = sae
        self._subject = subject
        self._encoder = encoder
        self._controls = read_definitions(encoder, control_features, controls)
        ids = torch.arange(subject.space.n_tokens)
        other_half = ~mapped_half(subject.space.n_tokens)
        self._token_halves = [(other_half & (ids % 2 == half)).numpy() for half in (0, 1)]

    def trials(self, tried: Tried, asked: Sequence[Asked]) -> list[Trial]:
        """Every setting tried, in order.

        Args:
            asked: what the model said, in the order of ``tried.together``.
        """
        numbers = [number for together in tried.together for number in together]
        answers = dict(zip(numbers, asked, strict=True))
        found = []
        for source, group in groupby(range(len(numbers)), lambda number: tried.sources[number]):
            group = list(group)
            found += self._of_feature(
                source, [tried.settings[number] for number in group],
                torch.stack([tried.vectors[number].v for number in group]), [answers[number] for number in group],
            )
        return found

    def _of_feature(
        self, source: FeatureSource, settings: Sequence[Setting], vs: torch.Tensor, asked: Sequence[Asked]
    ) -> list[Trial]:
        # The same tokens for all settings: whoever was made from them.
        used = np.zeros(self._subject.space.n_tokens, dtype=bool)
        used[source.strongest_ids.numpy()] = True
        others = np.stack([
            strongest(found.fires, found.text, used) for found in self._controls if found.feature != source.index
        ])
        scores, fires = token_scores(self._subject.space, vs), source.activations.numpy() > 0
        countable = source.countable.numpy() & ~used
        in_texts = tokens_in_texts(self._sae, self._subject, source.index)
        trials = []
        for setting, score, answer in zip(settings, scores, asked, strict=True):
            said = read_definitions(self._encoder, [source.index], [answer])
            own = np.array([strongest(found.fires, found.text, used) for found in said])
            halves = [
                _figures(own[half::2], others, source.index, -score[tokens & countable], fires[tokens & countable])
                for half, tokens in enumerate(self._token_halves)
            ]
            text_rank = min((list_rank(score, token_id) for token_id in in_texts), default=None)
            similar = None
            # On the embedding it is the same whatever the ghost.
            if self._sae.entry.kind != "embed" and answer.last_residual is not None:
                similar = cosine(answer.last_residual, source.weights.decoder.numpy())
            trials.append(Trial(source.index, setting, *halves, text_rank, similar))
        return trials


def _figures(own: np.ndarray, others: np.ndarray, feature: int, fit: np.ndarray, fires: np.ndarray) -> Figures:
    lists = {"list_average_precision": average_precision(fit, fires), "list_auroc": auroc(fit, fires)}
    n_features = others.shape[1]
    if not len(own):  # nothing was said
        return Figures(hit_rate=0.0, auroc=0.5, rank=(n_features + 1) / 2, found=0.0, **lists)
    scores = definition_scores(own, others, feature)
    found = 1 - math.log(scores.rank) / math.log(n_features) if n_features > 1 else 1.0
    return Figures(scores.hit_rate, scores.auroc, scores.rank, found, **lists)


def try_features(
    library: Library,
    recipe: VectorRecipe,
    tree_recipe: TreeRecipe,
    features: Sequence[int],
    settings: Sequence[Setting] | None = None,
    model: str | None = None,
) -> Iterator[list[Trial]]:
    """Settings tried on many features of the recipe's SAE, some features at a time.

    The vocabulary scan must be there. A feature is left out where a setting gives it no vector.

    Args:
        settings: those of ``settings_for`` if none are named.

    Raises:
        UserError: the recipe cannot be followed, or there is no such feature.
    """
    recipe = resolved(library, recipe)
    sae, subject = sae_and_subject(library, recipe, model)
    encoder = library.encoder(sae.entry)
    settings = settings_for(sae.entry, subject) if settings is None else settings
    control_features, task = control_task(library, sae, subject, recipe, tree_recipe)
    controls = [found for part in library.do(task) for found in part]
    judge = Judge(sae, subject, encoder, control_features, controls)
    step = max(1, _GHOSTS_AT_ONCE // len(settings))
    for first in range(0, len(features), step):
        sources = feature_sources(library, sae, subject, features[first : first + step], scan=True)
        tried = settings_tried(sources, subject, recipe, settings)
        if tried.vectors:
            tasks = ask_tasks(library, sae, subject, recipe, tried, tree_recipe, model)
            yield judge.trials(tried, [found for task in tasks for part in library.do(task) for found in part])


# What a study reports of a trial, by the names of its columns.
MEASURED: dict[str, Callable[[Trial], float | None]] = {
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

    Means are over features, each with its 95 % confidence interval; what is compared is compared feature by feature.
    """

    def __init__(self, trials: Sequence[Trial]):
        self.trials = tuple(trials)
        self._by_setting: dict[Setting, dict[int, Trial]] = {}
        for trial in trials:
            self._by_setting.setdefault(trial.setting, {})[trial.feature] = trial

    columns = ("weights", "scale", "components", "injected", "features", *MEASURED)

    @property
    def settings(self) -> list[Setting]:
        """Those tried, the best on average first."""
        return sorted(self._by_setting, key=lambda setting: -self.mean(setting, "score")[0])

    def n_features(self, setting: Setting) -> int:
        """How many features have a vector by it."""
        return len(self._by_setting[setting])

    def mean(self, setting: Setting, measure: str) -> tuple[float, float, float]:
        """A measure's mean and interval over the features; NaN if no feature has it."""
        values = [MEASURED[measure](trial) for trial in self._by_setting[setting].values()]
        values = [value for value in values if value is not None]
        return mean_with_interval(values) if values else (math.nan,) * 3

    def difference(self, one: Setting, other: Setting, measure: str) -> tuple[float, float, float]:
        """How much larger a measure is by one setting than by the other, on the features that have both."""
        ones, others = self._by_setting[one], self._by_setting[other]
        pairs = [(MEASURED[measure](ones[i]), MEASURED[measure](others[i])) for i in ones.keys() & others.keys()]
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
                *_columns(setting), self.n_features(setting),
                *(_rounded(self.mean(setting, measure)[0]) for measure in MEASURED),
            ]
            for setting in self.settings
        ]

    @property
    def sentence(self) -> str:
        """What was found, for a reader."""
        best = self.settings[0]
        said = f"Of {len(self.settings)} settings the best on average is {best}."
        if PUBLISHED[0] in self._by_setting and best != PUBLISHED[0]:
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
            "settings": [dict(zip(self.columns, row, strict=True)) for row in self.rows],
            "trials": [trial_facts(trial) for trial in self.trials],
        }
