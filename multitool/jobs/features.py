"""A recipe's features: found, loaded, and made into a vector.

``resolve`` finds and loads everything that a vector recipe names, once; what it gives is handed on from there.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from multitool.errors import UserError, size_shown
from multitool.jobs.steps import Ask, Job, Keep, Prepare
from multitool.model.subject import Subject, tokens_meant
from multitool.model.tasks import PullbackTask
from multitool.recipes.directions import DIRECTIONS, needs_layers, needs_scan
from multitool.recipes.recipe import VectorRecipe
from multitool.store.entries import OWN_VECTOR, SaeEntry
from multitool.store.kept_rows import MAX_BYTES, KeptRows
from multitool.store.library import Library
from multitool.store.saes import NOTHING_FIRES, Sae, own_vector
from multitool.store.scans import ScanTask
from multitool.vectors.scan_directions import mapped_half, usual_tokens, vocabulary_direction
from multitool.vectors.vector import (
    FeatureVector,
    FeatureWeights,
    Heading,
    combined,
    feature_heading,
    placed,
    random_row,
    token_sum,
)


@dataclass(frozen=True)
class LoadedTerm:
    """A feature of a vector, loaded."""

    sae: Sae
    index: int
    weight: float


Pulled = Mapping[tuple[SaeEntry, int], Tensor]  # a feature's W_enc[:, i] carried back, (d_model,)


@dataclass(frozen=True)
class Resolved:
    """A vector recipe together with the loaded SAEs and the model that it names. The model does not run."""

    library: Library
    recipe: VectorRecipe  # its weights are told
    subject: Subject
    terms: tuple[LoadedTerm, ...]  # its features; those of a single one are ``sae`` and ``index``
    pulled: Pulled = field(default_factory=dict)  # of the features for which ``with_pullbacks`` was asked

    @property
    def sae(self) -> Sae:
        """That of the recipe's one feature."""
        return self.terms[0].sae

    @property
    def index(self) -> int:
        """The recipe's one feature. Raises UserError if there are several."""
        return self.recipe.single_feature()

    @property
    def precision(self) -> str:
        """That in which the model runs."""
        return self.library.precision(self.subject.name)

    def by(self, recipe: VectorRecipe) -> "Resolved":
        """The same features by a recipe that differs in how their vector is made."""
        return replace(self, recipe=recipe)


def resolve(
    library: Library, recipe: VectorRecipe, model: str | None = None, *, for_list: bool = False
) -> Resolved:
    """Find and load what a recipe names; where it names no weights, those that suit its SAE.

    Args:
        model: another model than the SAE names: a hub id or a folder.
        for_list: a token list is wanted of it.

    Raises:
        UserError: an SAE or its model cannot be had, belongs to another model than the recipe's, or lacks the feature.
    """
    own = own_entry(library, recipe)
    entries = [library.find(term.sae) if term.sae else own for term in recipe.terms]
    for entry in entries:
        if entry.model != own.model:
            raise UserError(
                f"feature has a term of {entry.name}, which belongs to {entry.model}, and {own.name} belongs to "
                f"{own.model}. The features of one vector must be of SAEs of the same model."
            )
    terms = []
    for term, entry in zip(recipe.terms, entries, strict=True):
        if entry.of_vector:
            sae = own_vector(entry, recipe.vector)
            subject = library.fitting(sae, library.model_of(entry, model))
        else:
            sae, subject = library.load(entry, model)
        sae.check(term.feature)
        terms.append(LoadedTerm(sae, term.feature, term.weight))
    return Resolved(library, with_weights(library, recipe, for_list=for_list), subject, tuple(terms))


def own_entry(library: Library, recipe: VectorRecipe) -> SaeEntry:
    """What is known of a recipe's SAE; of a vector of one's own, of the vector in the place of one.

    Raises:
        UserError: there is no such SAE, or place.
    """
    if not recipe.vector:
        return library.find(recipe.sae)
    there = library.place(recipe.sae)
    return SaeEntry(
        release=OWN_VECTOR, sae_id=recipe.vector_told, model=there.model, kind=there.kind, layer=there.layer, d_sae=1
    )


def with_weights(library: Library, recipe: VectorRecipe, *, for_list: bool = False) -> VectorRecipe:
    """The recipe with the weights that suit its SAE, where it names none. Raises UserError if there is no such SAE.

    Args:
        for_list: a token list is wanted of it.
    """
    if recipe.weights:
        return recipe
    entry = own_entry(library, recipe)
    return replace(recipe, weights=entry.list_weights if for_list else entry.default_weights)


def compared(target: Resolved) -> Resolved:
    """The recipe for the vectors of control features: the same one, or by the SAE's default weights if the direction
    does not depend on a feature."""
    recipe = target.recipe
    return target if DIRECTIONS[recipe.kind].of_feature else target.by(recipe.by(target.sae.entry.default_weights))


def check_reads(target: Resolved) -> None:
    """That the SAE can tell what fires the recipe's one feature.

    Raises:
        UserError: its weights are no numbers; or it is a vector of one's own.
    """
    if target.sae.entry.of_vector:
        raise UserError(NOTHING_FIRES)
    target.sae.feature(target.index)


# Vocabulary scans


def scans(target: Resolved, *, always: bool = False) -> Job[None]:
    """Do the vocabulary scans that must be there before anything is made of a recipe.

    Args:
        always: one is needed whatever the recipe's direction, to know what fires its one feature.

    Raises:
        UserError: the scans of all layers are too large together, or one cannot be done; an SAE's activations cannot
            be read; a scan is ``always`` needed, and the recipe has several features.
    """
    while task := (yield Prepare(partial(missing_scan, target, always=always))):
        # It can take an hour: an SAE that cannot read what it gives is refused before.
        yield Prepare(lambda: [target.library.encoder(term.sae.entry) for term in target.terms])
        yield Keep(task)


def kept_for_all(target: Resolved, *, scan: bool, layers: bool) -> Job[None]:
    """What vectors of any features of the recipe's one SAE need, done once: the vocabulary scan, and the matrix that
    carries encoders back through the layers.

    Raises:
        UserError: as ``scans`` and ``with_pullbacks``.
    """
    library, entry, subject = target.library, target.sae.entry, target.subject
    if scan and not (yield Prepare(partial(library.scan, entry, subject))):
        yield Prepare(partial(library.encoder, entry))  # as in ``scans``
        yield Keep(library.scan_task(entry, subject))
    if layers and entry.kind != "embed":
        yield from pullback_matrix(target, entry)


def ready(target: Resolved, *, always: bool = False) -> Job[Resolved]:
    """The same with all that its vector is made from. Arguments and errors as for ``scans`` and ``with_pullbacks``."""
    yield from scans(target, always=always)
    return (yield from with_pullbacks(target))


def resolve_scanned(library: Library, recipe: VectorRecipe, model: str | None = None) -> Job[Resolved]:
    """Resolve a recipe of one feature, and do the vocabulary scan that tells what fires it.

    Raises:
        UserError: as ``resolve`` and ``scans``; or the recipe is of several features.
    """
    recipe.single_feature()
    target = yield Prepare(partial(resolve, library, recipe, model))
    yield from scans(target, always=True)
    return target


def missing_scan(target: Resolved, *, always: bool = False, max_bytes: int = MAX_BYTES) -> ScanTask | None:
    """The first of the vocabulary scans that ``scans`` has to do, if any: features of several layers need several.

    Args:
        always: as for ``scans``; so are the errors.
        max_bytes: how large the scans of several layers may be together.
    """
    if always:
        check_reads(target)
    elif not needs_scan(target.recipe.kind):
        return None
    library = target.library
    entries = {library.scan_task(term.sae.entry, target.subject): term.sae.entry for term in target.terms}
    n_bytes = sum(task.n_bytes for task in entries)
    if len(entries) > 1 and n_bytes > max_bytes:
        raise UserError(
            f"The features of this vector need vocabulary scans of {len(entries)} layers, {size_shown(n_bytes)} in "
            f"all; {size_shown(max_bytes)} are kept. Use features of fewer layers, or encoder or decoder weights."
        )
    return next((task for task, entry in entries.items() if not library.scan(entry, target.subject)), None)


def countable_tokens(subject: Subject, scan: KeptRows) -> Tensor:
    """Tokens of texts whose residual is not out of the ordinary: (V,) bool."""
    return torch.from_numpy(subject.in_texts) & usual_tokens(torch.from_numpy(scan.norms))


# Directions carried back through the layers

_MANY = 64  # from so many features of a hook on, the whole matrix is worth its time


def with_pullbacks(target: Resolved, features: Sequence[int] = (), *, always: bool = False) -> Job[Resolved]:
    """The same with the encoders of its features carried back through the layers, if its direction is made from that.

    Where the matrix of the hook is kept already, or many features are meant, they are products with it; else each takes
    a backward pass. On the embedding the encoder is there already.

    Args:
        features: others of its one SAE instead.
        always: whatever the recipe's direction.

    Raises:
        UserError: an SAE's hook is none of the model's, or a matrix cannot be kept.
    """
    if not (always or needs_layers(target.recipe.kind)):
        return target
    wanted: dict[str, list[tuple[Sae, int]]] = {}
    for sae, index in [(target.sae, index) for index in features] or [(term.sae, term.index) for term in target.terms]:
        wanted.setdefault(sae.entry.hook, []).append((sae, index))
    pulled = dict(target.pulled)
    for of_hook in wanted.values():
        encoders = torch.stack([sae.feature(index).encoder.float() for sae, index in of_hook])
        rows = yield from _pulled_back(target, of_hook[0][0].entry, encoders)
        pulled |= {(sae.entry, index): row for (sae, index), row in zip(of_hook, rows, strict=True)}
    return replace(target, pulled=pulled)


def pulled_at_once(target: Resolved) -> Resolved | None:
    """As ``with_pullbacks``, where it takes no running model; else None."""
    job = with_pullbacks(target)
    answer = None
    while True:
        try:
            step = job.send(answer)
        except StopIteration as end:
            return end.value
        if not isinstance(step, Prepare):
            return None
        answer = step.work()


def _pulled_back(target: Resolved, entry: SaeEntry, encoders: Tensor) -> Job[Tensor]:
    """Directions at an SAE's hook, carried back: (n, d_model)."""
    library, subject = target.library, target.subject
    if entry.kind == "embed":
        return encoders
    matrix = yield Prepare(partial(library.pullback, entry, subject))
    if matrix is not None:
        return encoders @ matrix
    task = library.pullback_task(entry, subject)
    if len(encoders) >= min(_MANY, subject.space.d_model):
        return encoders @ (yield from pullback_matrix(target, entry))
    asked = PullbackTask(model=subject.name, folder=subject.folder, base=task.base, directions=encoders.numpy())
    found, = yield Ask((asked,), "pullback", shared=True)
    return torch.from_numpy(found)


def pullback_matrix(target: Resolved, entry: SaeEntry) -> Job[Tensor]:
    """The matrix that carries directions at an SAE's hook back, (d_model, d_model), made first where it is not kept.

    Raises:
        UserError: the hook is none of the model's, or the matrix cannot be kept.
    """
    library, subject = target.library, target.subject
    matrix = yield Prepare(partial(library.pullback, entry, subject))
    if matrix is None:
        yield Keep(library.pullback_task(entry, subject))
        matrix = yield Prepare(partial(library.pullback, entry, subject))
    return matrix


# What a direction is made from


@dataclass(frozen=True)
class FeatureSource:
    """A feature, and what its direction can be made from."""

    index: int
    weights: FeatureWeights

    def made_from(self, recipe: VectorRecipe, subject: Subject) -> np.ndarray:
        """The tokens, standing alone, that a direction was made from: (V,) bool. No list is judged on them."""
        if "mapped" in DIRECTIONS[recipe.kind].made_from:
            return mapped_half(subject.space.n_tokens).numpy() | self.used_in_texts(recipe, subject)
        return self.used_in_texts(recipe, subject)

    def used_in_texts(self, recipe: VectorRecipe, subject: Subject) -> np.ndarray:
        """Tokens that the direction was built from because they fire the feature, or that it is given as: (V,) bool. No
        text is judged on them.

        The map is none of that: it was made without looking at any feature.
        """
        used = np.zeros(subject.space.n_tokens, dtype=bool)
        if "tokens" in DIRECTIONS[recipe.kind].made_from:
            used[[token_id for token_id, _ in tokens_meant(subject, recipe.tokens)]] = True
        return used


@dataclass(frozen=True)
class ScannedSource(FeatureSource):
    """A feature with what a vocabulary scan tells of it."""

    activations: Tensor  # (V,) on each token alone
    strongest_ids: Tensor  # tokens that the vocabulary direction is made from
    countable: Tensor  # (V,) bool, as ``countable_tokens``

    def used_in_texts(self, recipe: VectorRecipe, subject: Subject) -> np.ndarray:
        used = super().used_in_texts(recipe, subject)
        if "vocabulary" in DIRECTIONS[recipe.kind].made_from:
            used[self.strongest_ids.numpy()] = True
        return used


def feature_sources(target: Resolved, sae: Sae, features: Sequence[int], *, scan: bool) -> Sequence[FeatureSource]:
    """Features of one of the recipe's SAEs.

    Args:
        scan: as ``scanned_sources``.

    Raises:
        UserError: there is no such feature.
    """
    if scan:
        return scanned_sources(target, sae, features)
    return [FeatureSource(feature, _weights(target, sae, feature)) for feature in features]


def _weights(target: Resolved, sae: Sae, feature: int) -> FeatureWeights:
    return replace(sae.feature(feature), pullback=target.pulled.get((sae.entry, feature)))


def scanned_sources(target: Resolved, sae: Sae, features: Sequence[int]) -> list[ScannedSource]:
    """Features of one of the recipe's SAEs with what the vocabulary scan, which must be there, tells of them.

    Raises:
        UserError: there is no such feature.
    """
    library, subject = target.library, target.subject
    rows = [_weights(target, sae, feature) for feature in features]
    scanned = library.scan(sae.entry, subject)
    if scanned is None:
        raise ValueError("the vocabulary must be scanned first: see scans")
    countable = countable_tokens(subject, scanned)
    to_embeddings = library.embedding_map(scanned, subject)
    activations = library.activations(sae.entry, scanned, features)
    sources = []
    for feature, weights, fires in zip(features, rows, activations.T, strict=True):
        found = vocabulary_direction(fires.where(countable, 0.0), subject.space)
        weights = replace(weights, vocabulary=found.f, mapped=weights.decoder @ to_embeddings)
        sources.append(ScannedSource(feature, weights, fires, found.token_ids, countable))
    return sources


def feature_source(target: Resolved, *, scan: bool = False) -> FeatureSource:
    """The recipe's one feature.

    Args:
        scan: with what the vocabulary scan tells, even if the recipe's direction does not need it.
    """
    scan = scan or needs_scan(target.recipe.kind)
    source, = feature_sources(target, target.sae, [target.index], scan=scan)
    return source


# From there to a vector


def ingredient(name: str, source: FeatureSource, subject: Subject, recipe: VectorRecipe) -> Tensor:
    """What directions are made from, by the names in ``recipes.directions``: (d_model,)."""
    space = subject.space
    match name:
        case "tokens":
            return token_sum(space, tokens_meant(subject, recipe.tokens), centroid=recipe.centroid)
        case "random":
            return random_row(source.index, space.d_model)
        case "zero":
            return torch.zeros(space.d_model)
    row = getattr(source.weights, name)
    if row is None:
        raise ValueError(f"{name} must be prepared first: see scans and with_pullbacks")
    return row


def heading_of(source: FeatureSource, subject: Subject, recipe: VectorRecipe) -> Heading:
    """The direction of a feature by a recipe. Raises UserError if there is none."""
    made_from = partial(ingredient, source=source, subject=subject, recipe=recipe)
    return feature_heading(made_from, subject.space, recipe.kind, recipe.encoder_share)


def recipe_heading(target: Resolved) -> Heading:
    """The direction of a recipe, of one feature or of several, ``u(sum w_j f_j)``.

    A scan or pullbacks that it needs must be there.

    Raises:
        UserError: there is none.
    """
    subject, recipe = target.subject, target.recipe
    headings = [
        heading_of(source, subject, recipe)
        for term in target.terms
        for source in feature_sources(target, term.sae, [term.index], scan=needs_scan(recipe.kind))
    ]
    if isinstance(recipe.feature, int):
        return headings[0]
    return combined(headings, [term.weight for term in target.terms])


def vector_to(heading: Heading, subject: Subject, recipe: VectorRecipe) -> FeatureVector:
    """The vector that a recipe makes of a direction. Raises UserError if it is none."""
    return placed(heading, subject.space, centroid=recipe.centroid, scale=recipe.scale, pca=recipe.pca)


def recipe_vector(target: Resolved) -> FeatureVector:
    """The vector of a recipe. Raises UserError if there is none."""
    return vector_to(recipe_heading(target), target.subject, target.recipe)


def vector_of(source: FeatureSource, subject: Subject, recipe: VectorRecipe) -> FeatureVector:
    """The vector of a feature by a recipe. Raises UserError if there is none."""
    return vector_to(heading_of(source, subject, recipe), subject, recipe)


def vectors_of(
    sources: Sequence[FeatureSource], subject: Subject, recipe: VectorRecipe
) -> list[tuple[FeatureSource, FeatureVector]]:
    """The vectors of those features that have one by the recipe."""
    found = []
    for source in sources:
        try:
            found.append((source, vector_of(source, subject, recipe)))
        except UserError:  # a dead feature, or one that no token fires
            continue
    return found
