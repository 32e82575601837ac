"""The job of a token list: recipe → vector → ranking, with evidence if it is asked for."""

from dataclasses import asdict, dataclass
from functools import partial

import numpy as np
import torch

from multitool._version import __version__
from multitool.errors import UserError
from multitool.jobs.features import (
    Resolved,
    ScannedSource,
    ready,
    recipe_vector,
    resolve,
    scanned_sources,
    vector_of,
)
from multitool.jobs.judging import judge_list
from multitool.jobs.steps import Ask, Job, Prepare
from multitool.jobs.token_table import TOKEN_COLUMNS, TokenTable
from multitool.jobs.tree import resolved_settings
from multitool.model.tasks import LensTask
from multitool.recipes.recipe import ListRecipe, VectorRecipe
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
        evidence: add how strongly each token fires the feature, and judge the list by it; needs the scan.

    Raises:
        UserError: the recipe cannot be followed.
    """
    by_scan = list_recipe.needs_activations(evidence=evidence)
    if by_scan:
        vector_recipe.single_feature()
    target = yield Prepare(partial(resolve, library, vector_recipe, model))
    target = yield from ready(target, always=by_scan)
    prepared = yield Prepare(partial(prepare_list, target, list_recipe, by_scan=by_scan), "vectors")
    logits = None
    if prepared.task is not None:
        logits, = yield Ask((prepared.task,), "lens")
    return (yield Prepare(partial(prepared.table, logits, evidence=evidence), "list"))


@dataclass(frozen=True)
class PreparedList:
    """A token list that can be made: everything is checked and fetched, nothing has been asked of the model yet."""

    target: Resolved
    recipe: ListRecipe
    source: ScannedSource | None  # where the scan tells what fires
    vector: FeatureVector
    task: LensTask | None  # what the list needs of the model, if anything

    def table(self, logits: np.ndarray | None = None, *, evidence: bool = False) -> TokenTable:
        """The list.

        Args:
            logits: what the model answers to ``task``.
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
        rows = [
            [rank, subject.token_texts[token_id], token_id, *numbers]
            for rank, (token_id, *numbers) in enumerate(zip(*map(np.ndarray.tolist, columns.values()), strict=True), 1)
        ]
        judged = judge_list(self.target, source, recipe, self.vector) if source and evidence else None
        return TokenTable((*TOKEN_COLUMNS[:2], *columns), rows, self._settings, self.vector.figures, judged)

    @property
    def _settings(self) -> dict:
        """The recipe with every default resolved, as results carry it."""
        dtype = self.target.library.dtype if self.task else str(self.target.subject.space.E.dtype).split(".")[-1]
        found = resolved_settings(self.target, self.vector) | asdict(self.recipe)
        return found | {"dtype": dtype, "version": __version__}


def prepare_list(target: Resolved, recipe: ListRecipe, *, by_scan: bool) -> PreparedList:
    """Build the vector, and what the model is to be asked. A vocabulary scan that is needed must be there.

    Args:
        by_scan: the list needs what the scan tells of the feature.

    Raises:
        UserError: the recipe cannot be followed.
    """
    source = None
    if by_scan:
        source, = scanned_sources(target, target.sae, [target.index])
    vector = vector_of(source, target.subject, target.recipe) if source else recipe_vector(target)
    task = None
    if recipe.measure == "logit_lens":
        if not vector.direction.any():
            raise UserError(
                "The centroid alone has no direction for the logit lens to read. Choose other weights, mix in "
                "principal components, or list by another measure."
            )
        # Without the centroid, which lies among the embeddings and not in the residual stream.
        directions = (vector.scale * vector.direction)[None]
        task = LensTask(model=target.subject.name, folder=target.subject.folder, directions=directions.numpy())
    return PreparedList(target, recipe, source, vector, task)
