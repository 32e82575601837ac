"""What vectors of an SAE's features are built from: its weights, and where it takes one, the vocabulary scan."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from multitool.arithmetic import offset, tokens_meant
from multitool.errors import UserError, size_shown
from multitool.firing import mapped_half, usual_tokens, vocabulary_direction
from multitool.library import Library
from multitool.loading import Sae
from multitool.recipe import VectorRecipe
from multitool.scan import MAX_BYTES, Scan, ScanTask
from multitool.subject import Subject
from multitool.vector import (
    DIRECTIONS,
    FeatureVector,
    FeatureWeights,
    Heading,
    combined,
    feature_heading,
    needs_scan,
    placed,
    random_row,
)


@dataclass(frozen=True)
class FeatureSource:
    """A feature, and what its direction can be made from."""

    index: int
    weights: FeatureWeights
    activations: Tensor | None = None  # (V,) on each token alone; None without a scan
    strongest_ids: Tensor | None = None  # tokens that the vocabulary direction is made from
    countable: Tensor | None = None  # (V,) bool: tokens of texts whose residual is not out of the ordinary

    def made_from(self, recipe: VectorRecipe, subject: Subject) -> np.ndarray:
        """The tokens, standing alone, that a direction was made from: (V,) bool. No list is judged on them."""
        if recipe.weights == "mapped":
            return mapped_half(subject.space.n_tokens).numpy()
        return self.used_in_texts(recipe, subject)

    def used_in_texts(self, recipe: VectorRecipe, subject: Subject) -> np.ndarray:
        """The tokens that a direction took from what fires this feature, or that it is: (V,) bool. No text is judged on
        them.

        The map is none of that: it was made without looking at any feature.
        """
        used = np.zeros(subject.space.n_tokens, dtype=bool)
        if recipe.weights == "vocabulary":
            used[self.strongest_ids.numpy()] = True
        elif recipe.weights == "tokens":
            used[[token_id for token_id, _ in tokens_meant(subject, recipe.tokens)]] = True
        return used


def resolved(library: Library, recipe: VectorRecipe) -> VectorRecipe:
    """The recipe with the weights that suit its SAE, where it names none. Raises UserError if there is no such SAE."""
    return recipe if recipe.weights else replace(recipe, weights=library.find(recipe.sae).default_weights)


def compared(library: Library, recipe: VectorRecipe) -> VectorRecipe:
    """How other features' vectors are made to compare with those of a resolved recipe: by the same recipe; or, where no
    feature has a part in that, by the weights that suit the SAE."""
    if DIRECTIONS[recipe.weights].of_feature:
        return recipe
    return recipe.by(library.find(recipe.sae).default_weights)


def sae_and_subject(library: Library, recipe: VectorRecipe, model: str | None) -> tuple[Sae, Subject]:
    """Both, loaded; the recipe's feature is there. Raises UserError if not."""
    sae, subject = library.load(library.find(recipe.sae), model)
    sae.check(recipe.single_feature())
    return sae, subject


def features_of(
    library: Library, recipe: VectorRecipe, model: str | None
) -> tuple[Subject, list[tuple[Sae, int, float]]]:
    """The recipe's model, and its features: of each the SAE, its number and its weight. All loaded, all are there.

    Raises:
        UserError: an SAE or its model cannot be had, belongs to another model than the recipe's, or lacks the feature.
    """
    own = library.find(recipe.sae)
    entries = [library.find(term.sae) if term.sae else own for term in recipe.terms]
    for entry in entries:
        if entry.model != own.model:
            raise UserError(
                f"feature has a term of {entry.name}, which belongs to {entry.model}, and {own.name} belongs to "
                f"{own.model}. The features of one vector must be of SAEs of the same model."
            )
    found = []
    for term, entry in zip(recipe.terms, entries, strict=True):
        sae, subject = library.load(entry, model)
        sae.check(term.feature)
        found.append((sae, term.feature, term.weight))
    return subject, found


def missing_scan(
    library: Library, recipe: VectorRecipe, model: str | None = None, *, always: bool = False
) -> ScanTask | None:
    """The vocabulary scan that must be done (by ``library.do``) before anything is made of this recipe, if any.

    The first one: features of several layers need several. Ask again until none is missing.

    Args:
        always: it is needed whatever the recipe's direction, to know what fires its one feature.

    Raises:
        UserError: an SAE, a feature or the model cannot be had; the scans of all layers are too large together.
    """
    if always:
        recipe.single_feature()
    elif not needs_scan(resolved(library, recipe).weights):
        return None
    subject, features = features_of(library, recipe, model)
    entries = {library.scan_task(sae.entry, subject): sae.entry for sae, _, _ in features}
    n_bytes = sum(task.n_bytes for task in entries)
    if len(entries) > 1 and n_bytes > MAX_BYTES:
        raise UserError(
            f"The features of this vector need vocabulary scans of {len(entries)} layers, {size_shown(n_bytes)} in "
            f"all; {size_shown(MAX_BYTES)} are kept. Use features of fewer layers, or encoder or decoder weights."
        )
    return next((task for task, entry in entries.items() if not library.scan(entry, subject)), None)


def feature_sources(
    library: Library, sae: Sae, subject: Subject, features: Sequence[int], *, scan: bool
) -> list[FeatureSource]:
    """The features, with what the scan tells of them.

    Args:
        scan: use the vocabulary scan, which must be there.

    Raises:
        UserError: there is no such feature.
    """
    rows = [sae.feature(feature) for feature in features]
    if not scan:
        return [FeatureSource(feature, weights) for feature, weights in zip(features, rows, strict=True)]
    scanned = library.scan(sae.entry, subject)
    if scanned is None:
        raise ValueError("the vocabulary must be scanned first: see missing_scan")
    activations = library.activations(sae.entry, scanned, features)
    return _scanned(library, subject, scanned, features, rows, activations)


def countable_tokens(subject: Subject, scan: Scan) -> Tensor:
    """Tokens of texts whose residual is not out of the ordinary: (V,) bool."""
    return torch.from_numpy(subject.in_texts) & usual_tokens(torch.from_numpy(scan.norms))


def _scanned(
    library: Library, subject: Subject, scan: Scan, features: Sequence[int], rows: list[FeatureWeights],
    activations: Tensor,
) -> list[FeatureSource]:
    countable = countable_tokens(subject, scan)
    to_embeddings = library.embedding_map(scan, subject)
    sources = []
    for feature, weights, fires in zip(features, rows, activations.T, strict=True):
        found = vocabulary_direction(fires.where(countable, 0.0), subject.space)
        weights = FeatureWeights(weights.encoder, weights.decoder, found.f, weights.decoder @ to_embeddings)
        sources.append(FeatureSource(feature, weights, fires, found.token_ids, countable))
    return sources


def source_of(
    library: Library, recipe: VectorRecipe, model: str | None, *, scan: bool = False
) -> tuple[Sae, Subject, FeatureSource]:
    """The SAE, its model and the feature of a resolved recipe.

    Args:
        scan: with what the vocabulary scan tells, even if the recipe's direction does not need it.
    """
    sae, subject = sae_and_subject(library, recipe, model)
    source, = feature_sources(library, sae, subject, [recipe.feature], scan=scan or needs_scan(recipe.weights))
    return sae, subject, source


def heading_of(source: FeatureSource, subject: Subject, recipe: VectorRecipe) -> Heading:
    """The direction of a feature by a recipe. Raises UserError if there is none."""
    weights, space = source.weights, subject.space
    if recipe.weights == "tokens":
        tokens = tokens_meant(subject, recipe.tokens)
        weights = replace(weights, tokens=offset(space, tokens, centroid=recipe.centroid))
    elif recipe.weights == "random":
        weights = replace(weights, random=random_row(source.index, space.d_model))
    return feature_heading(weights, space, recipe.weights, recipe.encoder_share)


def recipe_heading(library: Library, recipe: VectorRecipe, model: str | None) -> tuple[Subject, Heading]:
    """The direction of a resolved recipe, of one feature or of several, ``u(sum w_j f_j)``; and its model.

    Raises:
        UserError: there is none.
    """
    scan = needs_scan(recipe.weights)
    subject, features = features_of(library, recipe, model)
    sources = [feature_sources(library, sae, subject, [feature], scan=scan)[0] for sae, feature, _ in features]
    headings = [heading_of(source, subject, recipe) for source in sources]
    if isinstance(recipe.feature, int):
        return subject, headings[0]
    return subject, combined(headings, [weight for _, _, weight in features])


def recipe_vector(
    library: Library, recipe: VectorRecipe, model: str | None = None
) -> tuple[Subject, FeatureVector]:
    """The vector of a resolved recipe, and its model; a scan that it needs must be there. Raises UserError if there is
    none."""
    subject, found = recipe_heading(library, recipe, model)
    return subject, placed(found, subject.space, centroid=recipe.centroid, scale=recipe.scale, pca=recipe.pca)


def vector_of(source: FeatureSource, subject: Subject, recipe: VectorRecipe) -> FeatureVector:
    """The vector of a feature by a recipe. Raises UserError if there is none."""
    found = heading_of(source, subject, recipe)
    return placed(found, subject.space, centroid=recipe.centroid, scale=recipe.scale, pca=recipe.pca)


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
