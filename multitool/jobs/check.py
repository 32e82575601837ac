"""From a result to its evidence: what must be asked of the model and the SAE, and what comes of the answers."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch

from multitool.errors import UserError, shown
from multitool.evidence.verdicts import (
    DEFINITIONS_JUDGED,
    TreeEvidence,
    VectorEvidence,
    strongest,
)
from multitool.jobs.features import (
    FeatureSource,
    Resolved,
    check_reads,
    compared,
    feature_source,
    recipe_vector,
    resolve,
    scans,
    vector_of,
    vectors_of,
    with_pullbacks,
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
    mean_lifts,
    random_ghosts,
    read_judged,
    rows_of,
    scores_of,
    share_that_fires,
    small_recipe,
    small_tree,
)
from multitool.jobs.steering import known_maximum, scan_for_clamp
from multitool.jobs.steps import Ask, Job, Prepare, ask_ghosts
from multitool.jobs.tree import check_grown, tree_task
from multitool.model.questions import likeliest_texts, text_of
from multitool.model.subject import Subject
from multitool.model.tasks import Asked, AskTask, Checked, CheckTask, Place, Text
from multitool.recipes.recipe import VectorRecipe, recipes
from multitool.store.encoder import Encoder
from multitool.store.library import Library
from multitool.trees.document import DefinitionTree
from multitool.trees.tree import Tree
from multitool.vectors.ranking import token_list
from multitool.vectors.vector import FeatureVector

RANDOM_GHOSTS = 4
TEXTS_READ = 50  # definitions of a tree whose activations are shown


def check_job(library: Library, document: DefinitionTree, *, model: str | None = None) -> Job[DefinitionTree]:
    """A tree with its evidence: figures and a verdict, at each node its lifts, at the definitions what fires there.

    Args:
        document: may be anybody's file.
        model: another model than the SAE names: a hub id or a folder.

    Raises:
        UserError: the tree's recipe cannot be followed.
    """
    vector_recipe, tree_recipe = recipes(document.settings)
    if vector_recipe.vector:
        return (yield from _check_vector(library, document, model))
    vector_recipe.single_feature()
    target = yield Prepare(partial(resolve, library, vector_recipe, model))
    yield from scans(compared(target), always=scan_for_clamp(target, tree_recipe))
    target = yield from with_pullbacks(target)
    others = yield from with_pullbacks(compared(target), control_features(target.sae))
    target = replace(target, pulled=others.pulled)
    prepared = yield Prepare(partial(prepare_check, target, document), "vectors")
    asked = yield from ask_ghosts((prepared.ask,), "controls")
    checked, = yield Ask((prepared.check,), "check")
    return (yield Prepare(partial(prepared.evidence, checked, asked), "judge_tree"))


def _check_vector(library: Library, document: DefinitionTree, model: str | None) -> Job[DefinitionTree]:
    """The tree of a vector of one's own with what can be said of it: its lifts. Errors as for ``check_job``."""
    vector_recipe, tree_recipe = recipes(document.settings)
    target = yield Prepare(partial(resolve, library, vector_recipe, model))
    target = yield from with_pullbacks(target)

    def prepare() -> CheckTask:
        _check_tree(target, document)
        vector, subject = recipe_vector(target), target.subject
        growth = tree_task(target, vector, tree_recipe)
        check_grown(growth, subject, document.tree)
        return CheckTask(
            model=subject.name, folder=subject.folder, place=Place(target.sae.entry.hook, subject.bos_id),
            growth=growth, tree=document.tree, controls=_other_ghosts(subject, vector), texts=[],
        )

    task = yield Prepare(prepare, "vectors")
    checked, = yield Ask((task,), "check")
    tree = replace(
        document.tree, lifts=lifts_of(checked.log_probs[0], checked.log_probs[1:]),
        activation=np.full(len(document.tree), np.nan),
    )
    leaves = [definition.node for definition in document.definitions(DEFINITIONS_JUDGED)]
    found = VectorEvidence(*mean_lifts(tree, leaves).tolist(), *checked.entropies[:2].tolist())
    return replace(document, tree=tree, evidence=found.to_dict())


def _other_ghosts(subject: Subject, vector: FeatureVector) -> np.ndarray:
    """What a tree's paths are held against: the centroid, and RANDOM_GHOSTS vectors as far out, (m, d_model)."""
    random = random_ghosts(subject, vector.distance_from_centroid, RANDOM_GHOSTS)
    return torch.cat([subject.space.centroid[None], random]).numpy()


@dataclass(frozen=True)
class PreparedCheck:
    """A tree whose evidence can be had: by ``check`` of itself, and by ``ask`` of other features' definitions."""

    document: DefinitionTree
    check: CheckTask
    ask: AskTask
    control_features: tuple[int, ...]  # those of ``ask``, in its order
    _feature: int
    _made_from: np.ndarray  # (V,) bool
    _small_texts: list[Text]
    _spelled: list[str]  # the same
    _token_texts: Sequence[str]
    _leaves: list[int]  # of the document's tree, those whose texts stand first in ``check``
    _encoder: Encoder
    _decoder: np.ndarray  # (d_model,)
    _encoder_decoder_cosine: float
    _lists_shared: int
    _feature_maximum: float | None

    def evidence(self, checked: Checked, asked: Sequence[Asked]) -> DefinitionTree:
        """The document with what was found: lifts and activations at its nodes, figures and a verdict beside it."""
        tree = self.document.tree
        of_texts = activations_on(self._encoder, checked.residuals)
        activation = np.full(len(tree), np.nan)
        for leaf, fires in zip(self._leaves, of_texts, strict=False):
            activation[leaf] = fires[:, self._feature].max()
        tree = replace(tree, lifts=lifts_of(checked.log_probs[0], checked.log_probs[1:]), activation=activation)
        own = of_texts[len(self._leaves) :]
        found = self._figures(checked, own, asked, tree)
        return replace(self.document, tree=tree, evidence=found.to_dict())

    def _figures(
        self, checked: Checked, own: list[np.ndarray], asked: Sequence[Asked], tree: Tree
    ) -> TreeEvidence:
        lifts = mean_lifts(tree, self._leaves[:DEFINITIONS_JUDGED])
        similar: list[float | None] = [None, None]
        # On the embedding it is the same whatever the ghost.
        if self.check.place.hook != "hook_embed" and checked.last_residuals is not None:
            similar = [cosine(row, self._decoder) for row in checked.last_residuals[:2]]
        read = [ReadText(self._feature, *found) for found in zip(self._small_texts, own, strict=True)]
        return TreeEvidence(
            scores=scores_of(
                self._feature,
                read,
                Controls(read_judged(self._encoder, self.control_features, asked, self._token_texts)),
                self._made_from,
            ),
            fires_at_all=share_that_fires(self._feature, read),
            lift_centroid=float(lifts[0]),
            lift_random=float(lifts[1]),
            entropy=float(checked.entropies[0]),
            entropy_centroid=float(checked.entropies[1]),
            self_similarity=similar[0],
            self_similarity_centroid=similar[1],
            encoder_decoder_cosine=self._encoder_decoder_cosine,
            lists_shared=self._lists_shared,
            left_out=int(self._made_from.sum()),
            feature_maximum=self._feature_maximum,
            judged=tuple(
                (text, float(strongest(found.fires, found.text, self._made_from)[self._feature]))
                for text, found in zip(self._spelled, read, strict=True)
            ),
        )


def prepare_check(target: Resolved, document: DefinitionTree) -> PreparedCheck:
    """Make ready what a tree's evidence takes: its vector again, random ghosts, and other features to compare with.

    A vocabulary scan that ``compared`` of the tree's recipe needs must be there.

    Raises:
        UserError: the tree is no tree of its recipe's model, or its recipe cannot be followed.
    """
    _, tree_recipe = recipes(document.settings)
    _check_tree(target, document)
    check_reads(target)
    tree, subject, recipe = document.tree, target.subject, target.recipe
    source = feature_source(target)
    vector = vector_of(source, subject, recipe)
    growth = tree_task(target, vector, tree_recipe)
    check_grown(growth, subject, tree)
    controls = control_sources(compared(target))
    small = small_recipe(tree_recipe, document.effective_cutoff)
    leaves = [definition.node for definition in document.definitions(TEXTS_READ)]
    leaves = [leaf for leaf in leaves if text_of(tree, leaf)]
    likeliest = [text for text, _ in likeliest_texts(small_tree(tree, small), DEFINITIONS_ASKED)]
    judged = judged_texts(likeliest, subject.token_texts)
    small_texts = [text for text, _ in judged]
    entry, space = target.sae.entry, subject.space
    place = Place(entry.hook, subject.bos_id)
    given: dict[str, Any] = {"model": subject.name, "folder": subject.folder, "place": place}
    return PreparedCheck(
        document=document,
        check=CheckTask(
            **given,
            growth=growth,
            tree=tree,
            controls=_other_ghosts(subject, vector),
            texts=[text_of(tree, leaf) for leaf in leaves] + small_texts,
        ),
        ask=ask_task(target, rows_of([vector for _, vector in controls], space.d_model), small, DEFINITIONS_ASKED),
        control_features=tuple(control.index for control, _ in controls),
        _feature=source.index,
        _made_from=source.used_in_texts(recipe, subject),
        _small_texts=small_texts,
        _spelled=[spelled for _, spelled in judged],
        _token_texts=subject.token_texts,
        _leaves=leaves,
        _encoder=target.library.encoder(entry),
        _decoder=source.weights.decoder.numpy(),
        _encoder_decoder_cosine=cosine(source.weights.encoder.numpy(), source.weights.decoder.numpy()),
        _lists_shared=_lists_shared(source, subject, recipe),
        _feature_maximum=known_maximum(target),
    )


def _check_tree(target: Resolved, document: DefinitionTree) -> None:
    """That a tree, which may be anybody's file, can be checked. Raises UserError if not."""
    tree, grown_on, subject = document.tree, document.settings.get("model"), target.subject
    if grown_on != subject.name:
        raise UserError(
            f"This tree was grown on {shown(grown_on)}, and {target.sae.entry.name} belongs to {subject.name}. Only a "
            "tree on the SAE's own model can be checked here."
        )
    if not len(tree):
        raise UserError("This tree is empty, so there is nothing to check. Grow it with a lower cutoff.")
    if document.least_lift is not None:
        raise UserError("This tree was pruned by lift, so what is left speaks for itself. Check the whole tree.")


def _lists_shared(source: FeatureSource, subject: Subject, recipe: VectorRecipe) -> int:
    """How many tokens the lists of the encoder's and of the decoder's vector share."""
    lists = [
        token_list(subject.space, vector.v).token_id
        for kind in ("encoder", "decoder")
        for _, vector in vectors_of([source], subject, recipe.by(kind))
    ]
    return len(np.intersect1d(lists[0], lists[1])) if len(lists) == 2 else 0



