"""The job of a token list: recipe → vector → ranking, with evidence if it is asked for."""

from dataclasses import asdict, dataclass
from functools import partial

import numpy as np
import torch

from multitool._version import __version__
from multitool.errors import UserError
from multitool.evidence.verdicts import RANDOM_LISTS, ListEvidence, WrittenEvidence
from multitool.jobs.features import (
    Resolved,
    ScannedSource,
    ready,
    recipe_vector,
    resolve,
    scanned_sources,
    vector_of,
)
from multitool.jobs.judging import judge_lens, judge_list, random_directions
from multitool.jobs.lenses import fitted
from multitool.jobs.steering import change_task, decoder
from multitool.jobs.steps import Ask, Job, Prepare
from multitool.jobs.token_table import TOKEN_COLUMNS, TokenTable
from multitool.jobs.tree import resolved_settings
from multitool.model.tasks import ChangeTask, LensTask
from multitool.recipes.directions import needs_layers, needs_scan
from multitool.recipes.recipe import ListRecipe, VectorRecipe
from multitool.store.lenses import FittedLens
from multitool.store.library import Library
from multitool.vectors.ranking import token_list
from multitool.vectors.vector import FeatureVector


def list_job(
    library: Library, vector_recipe: VectorRecipe, list_recipe: ListRecipe, *, model: str | None = None,
    evidence: bool = False,
) -> Job[TokenTable]:
    """A token list.

    Args:
        model: another model than the SAE names: a hub id or a folder.
        evidence: add how strongly each token fires the feature, and judge the list by it; needs the scan. Of a list by
            lens: add how much each token rises when the model is pushed along the feature's decoder, and judge it by
            that.

    Raises:
        UserError: the recipe cannot be followed.
    """
    by_scan = list_recipe.needs_activations(evidence=evidence)
    if evidence or by_scan:
        vector_recipe.single_feature()
    if list_recipe.by_lens and vector_recipe.weights is None:
        vector_recipe = vector_recipe.by("decoder")  # a lens reads what the feature writes
    target = yield Prepare(partial(resolve, library, vector_recipe, model, for_list=True))
    target = yield from ready(target, always=by_scan)
    lens = (yield from fitted(target)) if list_recipe.measure == "jacobian_lens" else None
    prepared = yield Prepare(partial(prepare_list, target, list_recipe, lens, evidence=evidence), "vectors")
    logits = changes = None
    if prepared.lens is not None:
        logits, = yield Ask((prepared.lens,), "lens")
    if prepared.pushes is not None:
        changes, = yield Ask((prepared.pushes,), "writing", shared=True)
    return (yield Prepare(partial(prepared.table, logits, changes), "list"))


@dataclass(frozen=True)
class PreparedList:
    """A token list that can be made: everything is checked and fetched, nothing has been asked of the model yet."""

    target: Resolved
    recipe: ListRecipe
    source: ScannedSource | None  # where the scan tells what fires
    vector: FeatureVector
    evidence: bool
    jacobian: FittedLens | None  # by what the direction is carried before it is read
    lens: LensTask | None  # what a list by lens needs of the model: its direction first, then random ones to judge it
    pushes: ChangeTask | None  # and its evidence

    def table(self, logits: np.ndarray | None = None, changes: np.ndarray | None = None) -> TokenTable:
        """The list.

        Args:
            logits, changes: what the model answers to ``lens`` and ``pushes``.
        """
        recipe, subject, source = self.recipe, self.target.subject, self.source
        values = None if logits is None else torch.from_numpy(logits[0])
        if source and recipe.measure == "activation":
            values = source.activations.where(source.countable, 0.0)
        listed = token_list(
            subject.space,
            self.vector.v,
            measure=recipe.measure,
            exponent=recipe.exponent,
            top=recipe.top,
            values=values,
            negative=recipe.negative,
            among=torch.from_numpy(subject.words) if recipe.words else None,
        )
        columns = dict(zip(TOKEN_COLUMNS[2:], (
            listed.token_id, listed.score, listed.distance_to_vector, listed.distance_to_centroid,
        ), strict=True))
        columns.setdefault(recipe.measure, listed.value)  # of the score there is a column anyway
        if source:
            columns["activation"] = source.activations.numpy()[listed.token_id]
        if changes is not None:
            columns["change"] = changes[0].astype(np.float64)[listed.token_id]
        rows = [
            [rank, subject.token_texts[token_id], token_id, *numbers]
            for rank, (token_id, *numbers) in enumerate(zip(*map(np.ndarray.tolist, columns.values()), strict=True), 1)
        ]
        judged: ListEvidence | WrittenEvidence | None = None
        if logits is not None and changes is not None:
            judged = judge_lens(subject, recipe, logits, changes[0])
        elif source and self.evidence:
            judged = judge_list(self.target, source, recipe, self.vector)
        return TokenTable((*TOKEN_COLUMNS[:2], *columns), rows, self._settings, self.vector.figures, judged)

    @property
    def _settings(self) -> dict:
        """The recipe with every default resolved, as results carry it."""
        kind = self.target.recipe.kind
        runs = self.lens or self.source or needs_scan(kind) or needs_layers(kind)
        dtype = self.target.precision if runs else str(self.target.subject.space.E.dtype).split(".")[-1]
        found = resolved_settings(self.target, self.vector) | asdict(self.recipe)
        lens = {"lens": self.jacobian.source} if self.jacobian else {}
        return found | lens | {"dtype": dtype, "version": __version__}


def prepare_list(
    target: Resolved, recipe: ListRecipe, jacobian: FittedLens | None = None, *, evidence: bool
) -> PreparedList:
    """Build the vector, and what the model is to be asked. A vocabulary scan that is needed must be there.

    Args:
        jacobian: the lens of a list by jacobian_lens.

    Raises:
        UserError: the recipe cannot be followed.
    """
    source = None
    if recipe.needs_activations(evidence=evidence):
        source, = scanned_sources(target, target.sae, [target.index])
    vector = vector_of(source, target.subject, target.recipe) if source else recipe_vector(target)
    lens, pushes = None, None
    if recipe.by_lens:
        if not vector.direction.any():
            raise UserError(
                f"The centroid alone has no direction for the {recipe.measure.replace('_', ' ')} to read. Choose other "
                "weights, mix in principal components, or list by another measure."
            )
        # Without the centroid, which lies among the embeddings and not in the residual stream.
        directions = (vector.scale * vector.direction)[None]
        if evidence:
            along = decoder(target.sae, target.index, "List without evidence, or use another feature.")
            pushes = change_task(target.sae, target.subject, along[None])
            chance = random_directions(RANDOM_LISTS, directions.shape[1])
            directions = torch.cat([directions, directions.norm() * chance])
        if jacobian:
            directions = jacobian.carry(directions)
        subject = target.subject
        lens = LensTask(model=subject.name, folder=subject.folder, directions=directions.numpy())
    return PreparedList(target, recipe, source, vector, evidence, jacobian, lens, pushes)
