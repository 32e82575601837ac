"""The job of an atlas: many features of an SAE described together, a row for each feature and setting.

A row holds what trees, lists and checks one by one give; here what differs between features only in the ghost goes
through the model together, and what is the same for all is done once. (One thing differs: what other features say, to
compare with, is always asked by the small recipe of the tree's own; where ``max_nodes`` keeps a tree above the small
cutoff, ``check_job`` asks it at the tree's effective one.)
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from torch import Tensor

from multitool._version import __version__
from multitool.errors import GhostError, UserError
from multitool.evidence.verdicts import tree_verdict
from multitool.jobs.check import RANDOM_GHOSTS
from multitool.jobs.features import (
    FeatureSource,
    LoadedTerm,
    Resolved,
    ScannedSource,
    compared,
    feature_sources,
    kept_for_all,
    resolve,
    vector_of,
    with_pullbacks,
    with_weights,
)
from multitool.jobs.judging import (
    DEFINITIONS_ASKED,
    Controls,
    ReadText,
    activations_on,
    ask_task,
    control_features,
    control_sources,
    cosine,
    judged_texts,
    lifts_of,
    random_ghosts,
    read_judged,
    rows_of,
    scores_of,
    share_that_fires,
    small_recipe,
    small_tree,
)
from multitool.jobs.steering import interventions
from multitool.jobs.steps import Ask, Job, Prepare, ask_ghosts
from multitool.jobs.tree import ghost_row, vector_figures
from multitool.model.interventions import Interventions
from multitool.model.questions import likeliest_texts, text_of
from multitool.model.tasks import GHOSTS_AT_ONCE, Asked, ForestTask, PathsTask, Place, ReadTask, Text, growth_task
from multitool.recipes.atlas import AtlasRecipe
from multitool.recipes.directions import needs_layers, needs_scan
from multitool.recipes.recipe import ListRecipe, TreeRecipe, VectorRecipe
from multitool.store.encoder import Encoder
from multitool.store.library import Library
from multitool.trees.atlas_rows import tree_columns
from multitool.trees.growth import Growth
from multitool.trees.tree import Definition, Tree, definitions, tree_of_paths
from multitool.vectors.ranking import TokenList, token_lists
from multitool.vectors.vector import FeatureVector

STRONGEST_TOKENS = 10  # kept of a vocabulary scan
_FEATURES_AT_ONCE = 128  # whose activations on the whole vocabulary are in memory together
_SCORES_AT_ONCE = 1 << 22  # of tokens, by several vectors' lists
_ACTIVATIONS_AT_ONCE = 1 << 24  # of all features, on tokens of definitions
_LISTS = ListRecipe()

Row = dict


@dataclass(frozen=True)
class Setting:
    """One of the ways in which every feature's vectors are made. The feature in the recipes does not matter."""

    tree: Resolved
    list: Resolved


@dataclass(frozen=True)
class PreparedAtlas:
    """An SAE whose features can be described: all is fetched, and what is the same for all has been asked."""

    settings: tuple[Setting, ...]
    tree_recipe: TreeRecipe
    atlas_recipe: AtlasRecipe
    controls: tuple[Controls, ...]  # other features' definitions for each setting; none without evidence

    @property
    def target(self) -> Resolved:
        """The SAE and the model that all settings have in common."""
        return self.settings[0].tree

    @property
    def scan(self) -> bool:
        """Whether it takes a vocabulary scan."""
        return _needs_scan(self.settings, self.tree_recipe, self.atlas_recipe)


def atlas_facts(
    library: Library, vector_recipes: Sequence[VectorRecipe], tree_recipe: TreeRecipe, atlas_recipe: AtlasRecipe, *,
    model: str | None = None,
) -> dict:
    """What all rows have in common, for JSON: whose they are, the settings in their order with their weights told,
    recipes, versions. Nothing is loaded for it, unless the precision depends on the model.

    Arguments and errors as for ``prepare_atlas``, as far as names tell.
    """
    from multitool.store.atlas_schema import SCHEMA  # pyarrow takes its time to import

    _check_one_sae(vector_recipes)
    settings = []
    for recipe in vector_recipes:
        found = with_weights(library, recipe).settings()
        del found["feature"]
        found |= {"list_weights": with_weights(library, recipe, for_list=True).kind}
        if found in settings:
            raise UserError(f"Two settings are the same, with weights {found['weights']}. Each makes rows of its own; "
                            "name it once.")
        settings.append(found)
    sae = vector_recipes[0].sae
    model = library.model_of(library.find(sae), model)
    versions = {name: version(name) for name in ("torch", "transformers", "sae-lens")}
    return {
        "schema": SCHEMA,
        "sae": sae,
        "model": model,
        "dtype": library.precision(model),
        "settings": settings,
        "tree": asdict(tree_recipe),
        "atlas": asdict(atlas_recipe),
        "versions": {"multitool": __version__} | versions,
    }


def prepare_atlas(
    library: Library, vector_recipes: Sequence[VectorRecipe], tree_recipe: TreeRecipe, atlas_recipe: AtlasRecipe, *,
    model: str | None = None,
) -> Job[PreparedAtlas]:
    """Make ready what describing features of an SAE takes; ``describe_job`` then describes some.

    Args:
        vector_recipes: the settings. They differ in how a vector is made; their features do not matter.
        model: another model than the SAE names: a hub id or a folder.

    Raises:
        UserError: the recipes cannot be followed.
    """
    settings = yield Prepare(partial(_settings, library, vector_recipes, model))
    target = settings[0].tree
    yield Prepare(partial(_check_growth, target, tree_recipe), "vectors")
    yield from kept_for_all(
        target, scan=_needs_scan(settings, tree_recipe, atlas_recipe), layers=_needs_layers(settings, atlas_recipe)
    )
    controls: tuple[Controls, ...] = ()
    if atlas_recipe.evidence:
        controls = yield from _controls(settings, tree_recipe)
    return PreparedAtlas(settings, tree_recipe, atlas_recipe, controls)


def _check_one_sae(recipes: Sequence[VectorRecipe]) -> None:
    if not recipes or len({recipe.sae for recipe in recipes}) > 1:
        named = ", ".join(sorted({recipe.sae for recipe in recipes})) or "none"
        raise UserError(f"An atlas is of one SAE, and these settings name {named}. Make one for each SAE.")
    if any(recipe.vector for recipe in recipes):
        raise UserError("An atlas is of an SAE's features, and a vector of your own is none. Grow its tree instead.")


def _settings(library: Library, recipes: Sequence[VectorRecipe], model: str | None) -> tuple[Setting, ...]:
    _check_one_sae(recipes)
    found = []
    for recipe in recipes:
        recipe = replace(recipe, feature=0)
        target = resolve(library, recipe, model)
        found.append(Setting(target, target.by(with_weights(library, recipe, for_list=True))))
    return tuple(found)


def _check_growth(target: Resolved, recipe: TreeRecipe) -> None:
    """Raises UserError where no feature's tree could be grown: the prompt does not suit the model, or the layer."""
    wanted = interventions(target, replace(recipe, steer_strength=0.0, clamp=None))
    growth_task(target.subject, torch.zeros(1, target.subject.space.d_model), recipe, interventions=wanted)


def _needs_scan(settings: Sequence[Setting], tree_recipe: TreeRecipe, atlas_recipe: AtlasRecipe) -> bool:
    scanned = any(needs_scan(kind) for kind in _kinds(settings, atlas_recipe))
    return scanned or atlas_recipe.evidence or tree_recipe.clamp is not None


def _needs_layers(settings: Sequence[Setting], atlas_recipe: AtlasRecipe) -> bool:
    return any(needs_layers(kind) for kind in _kinds(settings, atlas_recipe))


def _kinds(settings: Sequence[Setting], atlas_recipe: AtlasRecipe) -> set[str]:
    """Of all directions that are made."""
    targets = [setting.tree for setting in settings]
    targets += [setting.list for setting in settings if atlas_recipe.top]
    targets += [compared(setting.tree) for setting in settings if atlas_recipe.evidence]
    return {target.recipe.kind for target in targets}


def _controls(settings: Sequence[Setting], tree_recipe: TreeRecipe) -> Job[tuple[Controls, ...]]:
    """For each setting what other features say, by the same setting, and what fires on it."""
    target = settings[0].tree
    found: dict[VectorRecipe, tuple[list[int], Tensor]] = {}
    for setting in settings:
        others = compared(setting.tree)
        if others.recipe not in found:
            others = yield from with_pullbacks(others, control_features(target.sae))
            vectors = yield Prepare(partial(control_sources, others), "vectors")
            rows = rows_of([vector for _, vector in vectors], target.subject.space.d_model)
            found[others.recipe] = [source.index for source, _ in vectors], rows
    vs = torch.cat([rows for _, rows in found.values()])
    task = ask_task(target, vs, small_recipe(tree_recipe), DEFINITIONS_ASKED)
    asked = iter((yield from ask_ghosts((task,), "controls")))
    encoder = yield Prepare(partial(target.library.encoder, target.sae.entry))
    read: dict[VectorRecipe, Controls] = {}
    for recipe, (features, _) in found.items():
        answers = [next(asked) for _ in features]
        work = partial(_control_texts, target, encoder, features, answers)
        read[recipe] = yield Prepare(work, "judge_settings")
    return tuple(read[compared(setting.tree).recipe] for setting in settings)


def _control_texts(target: Resolved, encoder: Encoder, features: Sequence[int], asked: Sequence[Asked]) -> Controls:
    return Controls(read_judged(encoder, features, asked, target.subject.token_texts))


# Describing


@dataclass(frozen=True)
class _Ghost:
    """A feature by a setting: its vector, and what goes into the model of it."""

    source: FeatureSource
    setting: int
    vector: FeatureVector
    row: Tensor  # (d_model,)
    wanted: Interventions | None  # what else is done to the stream


@dataclass(frozen=True)
class _Said:
    """What the model says of a ghost."""

    ghost: _Ghost
    growth: Growth
    tree: Tree  # with its texts
    definitions: list[Definition]  # those that are kept
    judged: list[Text]  # of a small tree those that are judged


@dataclass(frozen=True)
class _Asked:
    """What is asked about some ghosts' definitions, to judge them."""

    read: ReadTask
    paths: PathsTask
    nodes: list[list[int]]  # of each ghost's definitions the last one, among the paths' nodes
    randoms: list[slice]  # of each ghost the random ghosts as far out, among the paths' ghosts


def describe_job(prepared: PreparedAtlas, features: Sequence[int]) -> Job[list[Row]]:
    """A row of ``store.atlas_schema`` for each feature and setting: feature by feature, for each all settings.

    A feature that has no vector by a setting has a row that says why, and so has one with whose vector the model's
    numbers are not finite. The same features give the same rows.

    Raises:
        UserError: there is no such feature, or the model's numbers are not finite whatever the vector.
    """
    for feature in features:
        prepared.target.sae.check(feature)
    rows: list[Row] = []
    for first in range(0, len(features), _FEATURES_AT_ONCE):
        rows += yield from _described(prepared, features[first : first + _FEATURES_AT_ONCE])
    return rows


def _described(prepared: PreparedAtlas, features: Sequence[int]) -> Job[list[Row]]:
    sae = prepared.target.sae
    readable = [feature for feature in features if sae.has_numbers(feature)]
    always = _needs_layers(prepared.settings, prepared.atlas_recipe)
    target = yield from with_pullbacks(prepared.target, readable, always=always)
    sources = yield Prepare(partial(feature_sources, target, sae, readable, scan=prepared.scan), "vectors")
    ghosts, problems = yield Prepare(partial(_ghosts, prepared, sources), "vectors")
    lists = yield Prepare(partial(_lists, prepared, ghosts), "list")
    found: dict[tuple[int, int], Row] = {}
    for first in range(0, len(ghosts), GHOSTS_AT_ONCE):
        part = slice(first, first + GHOSTS_AT_ONCE)
        for row, listed in zip((yield from _rows_each(prepared, ghosts[part])), lists[part], strict=True):
            if row["problem"] is None:
                row |= {"tokens": listed}
            found[row["feature"], row["setting"]] = row
    for feature in features:
        for setting in range(len(prepared.settings)):
            if (feature, setting) not in found:
                problem = problems.get((feature, setting)) or sae.problem(feature)
                found[feature, setting] = _blank(prepared, feature, setting) | {"problem": problem}
    return [found[feature, setting] for feature in features for setting in range(len(prepared.settings))]


def _ghosts(
    prepared: PreparedAtlas, sources: Sequence[FeatureSource]
) -> tuple[list[_Ghost], dict[tuple[int, int], str]]:
    """Those of all features and settings; and by feature and setting why there is none."""
    ghosts, problems = [], {}
    for source in sources:
        for number, setting in enumerate(prepared.settings):
            target = setting.tree
            try:
                vector = vector_of(source, target.subject, target.recipe)
                wanted = interventions(_of_feature(target, source.index), prepared.tree_recipe)
                ghosts.append(_Ghost(source, number, vector, ghost_row(vector, wanted), wanted))
            except UserError as error:
                problems[source.index, number] = str(error)
    return ghosts, problems


def _of_feature(target: Resolved, feature: int) -> Resolved:
    """A recipe of another feature."""
    recipe = replace(target.recipe, feature=feature)
    return replace(target, recipe=recipe, terms=(LoadedTerm(target.sae, feature, 1.0),))


def _lists(prepared: PreparedAtlas, ghosts: Sequence[_Ghost]) -> list[list[dict] | None]:
    """The first tokens of each ghost's list; None where the list has no vector."""
    subject, top = prepared.target.subject, prepared.atlas_recipe.top
    if not top:
        return [[] for _ in ghosts]
    vectors: dict[int, Tensor] = {}
    for number, ghost in enumerate(ghosts):
        setting = prepared.settings[ghost.setting]
        if setting.list.recipe == setting.tree.recipe:
            vectors[number] = ghost.vector.v
            continue
        try:
            vectors[number] = vector_of(ghost.source, subject, setting.list.recipe).v
        except UserError:
            continue
    lists: list[list[dict] | None] = [None] * len(ghosts)
    numbers, at_once = list(vectors), max(1, _SCORES_AT_ONCE // subject.space.n_tokens)
    for first in range(0, len(numbers), at_once):
        part = numbers[first : first + at_once]
        vs = torch.stack([vectors[number] for number in part])
        for number, listed in zip(part, token_lists(subject.space, vs, exponent=_LISTS.exponent, top=top), strict=True):
            lists[number] = _listed(listed, subject.token_texts)
    return lists


def _listed(listed: TokenList, token_texts: Sequence[str]) -> list[dict]:
    return [
        {"token": token_texts[token_id], "token_id": token_id, "score": score}
        for token_id, score in zip(listed.token_id.tolist(), listed.score.tolist(), strict=True)
    ]


def _rows_each(prepared: PreparedAtlas, ghosts: Sequence[_Ghost]) -> Job[list[Row]]:
    """Of some ghosts, all but their lists. Where the model's numbers are not finite with one, its row says so; the half
    without it is described together."""
    try:
        return (yield from _rows(prepared, ghosts))
    except GhostError as error:
        if len(ghosts) == 1:
            return [_blank(prepared, ghosts[0].source.index, ghosts[0].setting) | {"problem": str(error)}]
    middle = len(ghosts) // 2
    before = yield from _rows_each(prepared, ghosts[:middle])
    return before + (yield from _rows_each(prepared, ghosts[middle:]))


def _rows(prepared: PreparedAtlas, ghosts: Sequence[_Ghost]) -> Job[list[Row]]:
    """Of some ghosts, all but their lists."""
    tasks = yield Prepare(partial(_forests, prepared, ghosts), "vectors")
    parts = yield Ask(tasks, "trees")
    grown = [growth for part in parts for growth in part]
    said = yield Prepare(
        lambda: [_said(prepared, *both) for both in zip(ghosts, grown, strict=True)], "judge_tree"
    )
    rows = [_row(prepared, one) for one in said]
    if not prepared.atlas_recipe.evidence:
        return rows
    asked = yield Prepare(partial(_to_ask, prepared, said), "vectors")
    residuals, log_probs = yield Ask((asked.read, asked.paths), "check")
    return (yield Prepare(partial(_judged, prepared, said, rows, asked, residuals, log_probs), "judge_tree"))


def _forests(prepared: PreparedAtlas, ghosts: Sequence[_Ghost]) -> tuple[ForestTask, ...]:
    """All trees together; but where something is done to the stream that is each feature's own, each by itself."""
    recipe, subject = prepared.tree_recipe, prepared.target.subject
    own = recipe.steer_strength != 0 or recipe.clamp is not None
    parts = [[ghost] for ghost in ghosts] if own else [ghosts]
    tasks = []
    for part in parts:
        vs = torch.stack([ghost.row for ghost in part])
        growth = growth_task(subject, vs, recipe, interventions=part[0].wanted)
        tasks.append(ForestTask(model=subject.name, folder=subject.folder, growth=growth))
    return tuple(tasks)


def _said(prepared: PreparedAtlas, ghost: _Ghost, growth: Growth) -> _Said:
    recipe, token_texts = prepared.tree_recipe, prepared.target.subject.token_texts
    tree = growth.tree.spelled(token_texts)
    kept = definitions(tree, prepared.atlas_recipe.definitions, recipe.closing_quote)
    small = small_tree(tree, small_recipe(recipe, growth.effective_cutoff))
    likeliest = [text for text, _ in likeliest_texts(small, DEFINITIONS_ASKED)]
    return _Said(ghost, growth, tree, kept, [text for text, _ in judged_texts(likeliest, token_texts)])


def _blank(prepared: PreparedAtlas, feature: int, setting: int) -> Row:
    from multitool.store.atlas_schema import COLUMNS

    recipe = prepared.settings[setting].tree.recipe
    blank: Row = dict.fromkeys(COLUMNS.names)
    return blank | {"sae": recipe.sae, "feature": feature, "setting": setting, "weights": recipe.kind}


def _row(prepared: PreparedAtlas, said: _Said) -> Row:
    """What is known without evidence, but for the list."""
    ghost, growth, source = said.ghost, said.growth, said.ghost.source
    return _blank(prepared, source.index, ghost.setting) | {
        "scale": ghost.vector.scale,
        **vector_figures(ghost.vector, ghost.wanted),
        "nodes": len(said.tree),
        "effective_cutoff": growth.effective_cutoff,
        "first_token_entropy": growth.entropy,
        "definitions": [
            {"text": found.text, "probability": found.probability, "lift_centroid": None, "lift_random": None,
             "activation": None}
            for found in said.definitions
        ],
        "encoder_decoder_cosine": cosine(source.weights.encoder.numpy(), source.weights.decoder.numpy()),
        "strongest_tokens": _strongest_tokens(source, prepared.target.subject.token_texts),
        "tree": tree_columns(said.tree) if prepared.atlas_recipe.trees else None,
    }


def _strongest_tokens(source: FeatureSource, token_texts: Sequence[str]) -> list[dict] | None:
    if not isinstance(source, ScannedSource):
        return None
    token_ids = source.strongest_ids[:STRONGEST_TOKENS]
    return [
        {"token": token_texts[token_id], "token_id": token_id, "activation": activation}
        for token_id, activation in zip(token_ids.tolist(), source.activations[token_ids].tolist(), strict=True)
    ]


# Judging


def _to_ask(prepared: PreparedAtlas, said: Sequence[_Said]) -> _Asked:
    """All texts once, and all paths to definitions in one tree: under the centroid's ghost, and under random ones."""
    target = prepared.target
    subject, space = target.subject, target.subject.space
    texts = dict.fromkeys(text for one in said for text in (*_texts(one), *one.judged) if text)
    tree, on_paths = tree_of_paths(
        one.tree.token_id[one.tree.path(found.node)].tolist() for one in said for found in one.definitions
    )
    paths = iter(on_paths)
    by_ghost = [[next(paths) for _ in one.definitions] for one in said]
    # As far out as a ghost but for rounding, so that those of many are the same.
    distances = [float(f"{one.ghost.vector.distance_from_centroid:.6g}") for one in said]
    places = {distance: 1 + RANDOM_GHOSTS * number for number, distance in enumerate(dict.fromkeys(distances))}
    ghosts = torch.cat([space.centroid[None], *(random_ghosts(subject, each, RANDOM_GHOSTS) for each in places)])
    randoms = [slice(places[distance], places[distance] + RANDOM_GHOSTS) for distance in distances]
    wanted = np.zeros((len(ghosts), len(tree)), dtype=bool)
    wanted[0] = True
    for where, own in zip(randoms, by_ghost, strict=True):
        wanted[where, [node for path in own for node in path]] = True
    given: dict[str, Any] = {"model": subject.name, "folder": subject.folder}
    return _Asked(
        read=ReadTask(**given, place=Place(target.sae.entry.hook, subject.bos_id), texts=list(texts)),
        paths=PathsTask(
            **given, growth=growth_task(subject, ghosts, small_recipe(prepared.tree_recipe)), tree=tree, wanted=wanted
        ),
        nodes=[[path[-1] for path in own] for own in by_ghost],
        randoms=randoms,
    )


def _texts(said: _Said) -> list[Text]:
    """Of its definitions, as token ids."""
    return [text_of(said.tree, found.node) for found in said.definitions]


def _judged(
    prepared: PreparedAtlas, said: Sequence[_Said], rows: Sequence[Row], asked: _Asked,
    residuals: Sequence[np.ndarray], log_probs: np.ndarray,
) -> list[Row]:
    """The rows with their evidence."""
    found = []
    fires_on = _fires(prepared, said, dict(zip(asked.read.texts, residuals, strict=True)))
    for one, row, fires, nodes, randoms in zip(said, rows, fires_on, asked.nodes, asked.randoms, strict=True):
        feature = one.ghost.source.index
        own = np.log(one.tree.cumulative_prob[[each.node for each in one.definitions]])
        lifts = lifts_of(own, np.concatenate([log_probs[:1, nodes], log_probs[randoms, nodes]]))
        kept = [
            told | {"lift_centroid": lift[0], "lift_random": lift[1],
                    "activation": float(fires[text][:, feature].max()) if text else None}
            for told, lift, text in zip(row["definitions"], lifts.tolist(), _texts(one), strict=True)
        ]
        found.append(row | {"definitions": kept} | _figures(prepared, one, fires))
    return found


def _figures(prepared: PreparedAtlas, said: _Said, fires: dict[Text, np.ndarray]) -> Row:
    ghost, target = said.ghost, prepared.settings[said.ghost.setting].tree
    feature, made_from = ghost.source.index, ghost.source.used_in_texts(target.recipe, target.subject)
    read = [ReadText(feature, text, fires[text]) for text in said.judged]
    scores = scores_of(feature, read, prepared.controls[ghost.setting], made_from)
    names = ("hits", "n_definitions", "hit_rate_chance", "auroc", "rank")
    verdict = tree_verdict(scores, share_that_fires(feature, read), int(made_from.sum()))
    return {name: getattr(scores, name, None) for name in names} | {"verdict": verdict}


def _fires(
    prepared: PreparedAtlas, said: Sequence[_Said], residuals: dict[Text, np.ndarray]
) -> Iterator[dict[Text, np.ndarray]]:
    """For each ghost its texts, each with all features' activations on it, (tokens, d_sae).

    As many ghosts' texts as fit are read together.
    """
    target = prepared.target
    encoder = target.library.encoder(target.sae.entry)
    most = _ACTIVATIONS_AT_ONCE // encoder.d_sae  # tokens
    texts = [{text for text in (*_texts(one), *one.judged) if text} for one in said]
    waiting: list[set[Text]] = []
    n_tokens = 0
    for n, own in enumerate(texts):
        waiting.append(own)
        n_tokens += sum(map(len, own))
        if n_tokens >= most or n == len(texts) - 1:
            chosen = sorted(set().union(*waiting))  # a set's own order is not always the same
            fires = dict(zip(chosen, activations_on(encoder, [residuals[text] for text in chosen]), strict=True))
            yield from (fires for _ in waiting)
            waiting, n_tokens = [], 0
