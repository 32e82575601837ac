"""From a result to its evidence: what must be asked of the model and the SAE, and what comes of the answers."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from multitool.asking import Asked, AskTask, Checked, CheckTask, Place, Text, likeliest_texts, text_of
from multitool.document import DefinitionTree
from multitool.errors import UserError, shown
from multitool.evidence import (
    CONTROL_FEATURES,
    DEFINITIONS_JUDGED,
    RANDOM_LISTS,
    DefinitionScores,
    ListEvidence,
    TreeEvidence,
    definition_scores,
    list_evidence,
    strongest,
)
from multitool.library import Library
from multitool.loading import Sae, strongest_contexts
from multitool.loading_encoder import Encoder
from multitool.recipe import ListRecipe, TreeRecipe, VectorRecipe, recipes
from multitool.sources import (
    FeatureSource,
    compared,
    feature_sources,
    resolved,
    sae_and_subject,
    vector_of,
    vectors_of,
)
from multitool.steering import known_maximum, tree_task
from multitool.subject import Subject
from multitool.task import growth_task
from multitool.text import join_tokens, spelling_key
from multitool.tokens import token_list, token_scores
from multitool.tree import Tree, most_probable, narrowed, trim
from multitool.vector import FeatureVector, needs_scan

RANDOM_GHOSTS = 4
_MOST_LIFT = 50.0  # nats; a path that a control rules out would have an infinite one
DEFINITIONS_ASKED = 2 * DEFINITIONS_JUDGED  # the first that say different things are judged
TEXTS_READ = 50  # definitions of a tree whose activations are shown
# Definitions are judged on small trees: others' must be grown for comparison.
_SMALL = {"cutoff": 2e-3, "max_depth": 12, "max_nodes": 40}


def judge_list(
    sae: Sae,
    subject: Subject,
    source: FeatureSource,
    vector_recipe: VectorRecipe,
    list_recipe: ListRecipe,
    vector: FeatureVector,
) -> ListEvidence:
    """The evidence for a token list by its own measure, which needs the source's activations.

    A list by activation agrees with the activations by itself; of it the score is judged. A list of words is judged on
    words. A list by logit_lens is not judged.
    """
    if list_recipe.measure == "logit_lens":
        return ListEvidence(source.activations.numpy())
    among = subject.words if list_recipe.words else np.ones(subject.space.n_tokens, dtype=bool)
    vs = torch.cat([vector.v[None], random_ghosts(subject, vector.distance_from_centroid, RANDOM_LISTS)])
    scores = token_scores(
        subject.space,
        vs,
        list_recipe.exponent,
        measure="score" if list_recipe.measure == "activation" else list_recipe.measure,
        negative=list_recipe.negative,
        among=torch.from_numpy(among),
    )
    return list_evidence(
        scores,
        source.activations.numpy(),
        source.countable.numpy() & among,
        source.made_from(vector_recipe, subject),
        [token_id for token_id in tokens_in_texts(sae, subject, source.index) if among[token_id]],
    )


def random_ghosts(subject: Subject, distance: float, n: int, seed: int = 0) -> torch.Tensor:
    """Random vectors at that distance from the centroid, the same for a seed: (n, d_model)."""
    generator = torch.Generator().manual_seed(seed)
    directions = torch.randn(n, subject.space.d_model, generator=generator)
    return subject.space.centroid + distance * directions / directions.norm(dim=1, keepdim=True)


def tokens_in_texts(sae: Sae, subject: Subject, feature: int) -> list[int]:
    """The tokens of the contexts kept with an SAE on which the feature fires most, strongest first.

    None for an SAE on the embedding, whose "contexts" are the tokens themselves.
    """
    if sae.entry.kind == "embed":
        return []
    found = []
    for context in strongest_contexts(sae.entry, feature):
        ids = subject.tokenizer(context.token, add_special_tokens=False)["input_ids"]
        if len(ids) == 1 and ids[0] not in found:
            found.append(ids[0])
    return found


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
        similar = [None, None]
        # On the embedding it is the same whatever the ghost.
        if self.check.place.hook != "hook_embed" and checked.last_residuals is not None:
            similar = [cosine(row, self._decoder) for row in checked.last_residuals[:2]]
        read = [ReadText(self._feature, *found) for found in zip(self._small_texts, own, strict=True)]
        return TreeEvidence(
            scores=scores_of(
                self._feature,
                read,
                read_judged(self._encoder, self.control_features, asked, self._token_texts),
                self._made_from,
            ),
            fires_at_all=float(np.mean([fires[:, self._feature].max() > 0 for fires in own])) if own else 0.0,
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


def lifts_of(own: np.ndarray, controls: np.ndarray) -> np.ndarray:
    """The lifts of a tree's nodes, (n, 2), as in ``Tree``.

    Args:
        own: (n,), log-probability of each node's path under its own ghost.
        controls: (1 + r, n): the same under the centroid's ghost and under r random ones.
    """
    randoms = np.logaddexp.reduce(controls[1:], axis=0) - np.log(len(controls) - 1)
    return np.clip((own - np.stack([controls[0], randoms])).T, -_MOST_LIFT, _MOST_LIFT)


def mean_lifts(tree: Tree, nodes: Sequence[int]) -> np.ndarray:
    """The mean of both lifts over some nodes by their probability: (2,)."""
    weights = tree.cumulative_prob[nodes]
    return weights @ tree.lifts[nodes] / weights.sum() if weights.sum() else np.zeros(2)


@dataclass(frozen=True)
class ReadText:
    """A definition of a feature, and what fires on it."""

    feature: int
    text: Text
    fires: np.ndarray  # (tokens, d_sae)


def read_definitions(encoder: Encoder, features: Sequence[int], asked: Sequence[Asked]) -> list[ReadText]:
    """The definitions of some features with what fires on them, in order."""
    return [
        ReadText(feature, text, fires)
        for feature, answer in zip(features, asked, strict=True)
        for text, fires in zip(answer.texts, activations_on(encoder, answer.residuals), strict=True)
    ]


def judged_texts(texts: Sequence[Text], token_texts: Sequence[str]) -> list[tuple[Text, str]]:
    """The definitions that are judged, and what they spell: the first ``DEFINITIONS_JUDGED`` that say different things.

    "rain", "Rain" and "rain." are one: what fires on the one fires on the others, and would count three times.

    Args:
        texts: the most probable ones first.
        token_texts: of all tokens by id.
    """
    found: dict[str, tuple[Text, str]] = {}
    for text in texts:
        spelled = join_tokens(token_texts[token_id] for token_id in text).strip()
        found.setdefault(spelling_key(spelled), (text, spelled))
    return list(found.values())[:DEFINITIONS_JUDGED]


def read_judged(
    encoder: Encoder, features: Sequence[int], asked: Sequence[Asked], token_texts: Sequence[str]
) -> list[ReadText]:
    """Of the definitions of some features those that are judged, as ``read_definitions``."""
    chosen = []
    for answer in asked:
        rows = dict(zip(answer.texts, answer.residuals, strict=True))
        texts = [text for text, _ in judged_texts(answer.texts, token_texts)]
        chosen.append(replace(answer, texts=texts, residuals=[rows[text] for text in texts]))
    return read_definitions(encoder, features, chosen)


def scores_of(
    feature: int, own: Sequence[ReadText], controls: Sequence[ReadText], made_from: np.ndarray
) -> DefinitionScores | None:
    """The scores of a feature's definitions against those of other features; None if there are none.

    Args:
        controls: definitions of other features; should the feature be among these, its own do not count.
        made_from: (V,) bool, tokens that do not count.
    """
    others = [found for found in controls if found.feature != feature]
    if not own or not others:
        return None
    return definition_scores(*(
        np.stack([strongest(found.fires, found.text, made_from) for found in listed]) for listed in (own, others)
    ), feature)


def activations_on(encoder: Encoder, residuals: Sequence[np.ndarray]) -> list[np.ndarray]:
    """All features' activations on some texts: of each (tokens, d_sae), from its residuals (tokens, d_model)."""
    if not residuals:
        return []
    fires = encoder.encode(torch.from_numpy(np.concatenate(residuals))).numpy()
    return np.split(fires, np.cumsum([len(rows) for rows in residuals])[:-1])


def prepare_check(library: Library, document: DefinitionTree, model: str | None = None) -> PreparedCheck:
    """Make ready what a tree's evidence takes: its vector again, random ghosts, and other features to compare with.

    A vocabulary scan that ``compared`` of the tree's recipe needs must be there (``missing_scan``).

    Args:
        model: another model than the SAE names: a hub id or a folder.

    Raises:
        UserError: the tree is no tree of its recipe's model, or its recipe cannot be followed.
    """
    vector_recipe, tree_recipe = recipes(document.settings)
    vector_recipe = resolved(library, vector_recipe)
    sae, subject = sae_and_subject(library, vector_recipe, model)
    grown_on = document.settings.get("model")
    if grown_on != subject.name:
        raise UserError(
            f"This tree was grown on {shown(grown_on)}, and {sae.entry.name} belongs to {subject.name}. Only a tree on "
            "the SAE's own model can be checked here."
        )
    tree = document.tree
    if not len(tree):
        raise UserError("This tree is empty, so there is nothing to check. Grow it with a lower cutoff.")
    if document.least_lift is not None:
        raise UserError("This tree was pruned by lift, so what is left speaks for itself. Check the whole tree.")
    if tree.token_id.max() >= subject.space.n_tokens or tree.depth.max() > tree_recipe.max_depth:
        raise UserError("This tree JSON is damaged: it has tokens or a depth that its own settings do not allow.")
    source, = feature_sources(library, sae, subject, [vector_recipe.feature], scan=needs_scan(vector_recipe.weights))
    vector = vector_of(source, subject, vector_recipe)
    growth = tree_task(library, subject, vector, vector_recipe, tree_recipe, model=model)
    if growth.prompt.placeholder_id in tree.token_id:
        raise UserError("This tree JSON is damaged: it has the token that stands for the ghost, which no tree has.")
    found = control_sources(library, sae, subject, compared(library, vector_recipe))
    small = small_recipe(tree_recipe, document.effective_cutoff)
    place = Place(sae.entry.hook, subject.bos_id)
    leaves = [definition.node for definition in document.definitions(TEXTS_READ)]
    leaves = [leaf for leaf in leaves if text_of(tree, leaf)]
    likeliest = [text for text, _ in likeliest_texts(small_tree(tree, small), DEFINITIONS_ASKED)]
    judged = judged_texts(likeliest, subject.token_texts)
    small_texts = [text for text, _ in judged]
    given = {"model": subject.name, "folder": subject.folder, "place": place}
    space = subject.space
    ghosts = torch.cat([space.centroid[None], random_ghosts(subject, vector.distance_from_centroid, RANDOM_GHOSTS)])
    return PreparedCheck(
        document=document,
        check=CheckTask(
            **given,
            growth=growth,
            tree=tree,
            controls=ghosts.numpy(),
            texts=[text_of(tree, leaf) for leaf in leaves] + small_texts,
        ),
        ask=AskTask(
            **given,
            growth=growth_task(subject, _rows([vector.v for _, vector in found], space.d_model), small),
            n_definitions=DEFINITIONS_ASKED,
        ),
        control_features=tuple(control.index for control, _ in found),
        _feature=source.index,
        _made_from=source.used_in_texts(vector_recipe, subject),
        _small_texts=small_texts,
        _spelled=[spelled for _, spelled in judged],
        _token_texts=subject.token_texts,
        _leaves=leaves,
        _encoder=library.encoder(sae.entry),
        _decoder=source.weights.decoder.numpy(),
        _encoder_decoder_cosine=cosine(source.weights.encoder.numpy(), source.weights.decoder.numpy()),
        _lists_shared=_lists_shared(source, subject, vector_recipe),
        _feature_maximum=known_maximum(library, sae, subject, source.index),
    )


def control_sources(
    library: Library, sae: Sae, subject: Subject, recipe: VectorRecipe
) -> list[tuple[FeatureSource, FeatureVector]]:
    """Features to compare with, and their vectors by the recipe: always the same features of an SAE.

    One more than are needed, should one of them be the feature itself.
    """
    features = np.random.default_rng(0).permutation(sae.d_sae)[: CONTROL_FEATURES + 1].tolist()
    sources = feature_sources(library, sae, subject, features, scan=needs_scan(recipe.weights))
    return vectors_of(sources, subject, recipe)


def _rows(vs: list[torch.Tensor], d_model: int) -> torch.Tensor:
    return torch.stack(vs) if vs else torch.empty(0, d_model)


def _lists_shared(source: FeatureSource, subject: Subject, recipe: VectorRecipe) -> int:
    """How many tokens the lists of the encoder's and of the decoder's vector share."""
    lists = [
        token_list(subject.space, vector.v).token_id
        for kind in ("encoder", "decoder")
        for _, vector in vectors_of([source], subject, recipe.by(kind))
    ]
    return len(np.intersect1d(*lists)) if len(lists) == 2 else 0


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    """0 where one of them is zero or not finite (a dead feature's unused weights)."""
    lengths = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / lengths if 0 < lengths < np.inf else 0.0


def small_recipe(recipe: TreeRecipe, effective_cutoff: float = 0.0) -> TreeRecipe:
    """The settings of the small trees whose definitions are judged; they grow undisturbed."""
    return replace(
        recipe,
        steer_strength=0.0,
        clamp=None,
        inject_layer=-1,
        # So few nodes of all next tokens would be nothing but beginnings.
        top_k=min(recipe.top_k or TreeRecipe.top_k, TreeRecipe.top_k),
        cutoff=max(_SMALL["cutoff"], recipe.cutoff, effective_cutoff),
        max_depth=min(_SMALL["max_depth"], recipe.max_depth),
        max_nodes=min(_SMALL["max_nodes"], recipe.max_nodes),
    )


def small_tree(tree: Tree, recipe: TreeRecipe) -> Tree:
    """What would have grown by a ``small_recipe``, from a tree that holds it."""
    tree = narrowed(trim(tree, recipe.cutoff), recipe.top_k)
    tree = tree.select(tree.depth <= recipe.max_depth)
    return tree.select(most_probable(tree.cumulative_prob, recipe.max_nodes))
