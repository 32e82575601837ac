"""Building blocks of evidence: definitions read by the SAE, control features, the evidence for a list."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
import torch

from multitool.evidence.verdicts import (
    CONTROL_FEATURES,
    DEFINITIONS_JUDGED,
    RANDOM_LISTS,
    DefinitionScores,
    ListEvidence,
    Others,
    WrittenEvidence,
    definition_scores,
    list_evidence,
    strongest,
    written_evidence,
)
from multitool.jobs.features import (
    FeatureSource,
    Resolved,
    ScannedSource,
    feature_sources,
    vectors_of,
)
from multitool.model.interventions import Interventions
from multitool.model.subject import Subject
from multitool.model.tasks import Asked, AskTask, Place, Text, growth_task
from multitool.recipes.directions import needs_scan
from multitool.recipes.recipe import ListRecipe, TreeRecipe
from multitool.store.encoder import Encoder
from multitool.store.saes import Sae, strongest_contexts
from multitool.text import join_tokens, spelling_key
from multitool.trees.tree import Tree, most_probable, narrowed, trim
from multitool.vectors.ranking import token_scores
from multitool.vectors.vector import FeatureVector

_MOST_LIFT = 50.0  # nats; a path that a control rules out would have an infinite one
DEFINITIONS_ASKED = 2 * DEFINITIONS_JUDGED  # the first that say different things are judged
# Definitions are judged on small trees: others' must be grown for comparison.
_SMALL = TreeRecipe(cutoff=2e-3, max_depth=12, max_nodes=40)


def judge_list(
    target: Resolved, source: ScannedSource, list_recipe: ListRecipe, vector: FeatureVector
) -> ListEvidence:
    """The evidence for a token list by its own measure, which needs the source's activations.

    A list by activation agrees with the activations by itself; of it the score is judged. A list of words is judged on
    words. (A list by lens: ``judge_lens``.)
    """
    subject = target.subject
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
        source.made_from(target.recipe, subject),
        [token_id for token_id in tokens_in_texts(target.sae, subject, source.index) if among[token_id]],
    )


def judge_lens(subject: Subject, list_recipe: ListRecipe, logits: np.ndarray, changes: np.ndarray) -> WrittenEvidence:
    """The evidence for a list by lens: does the feature write its tokens? A list of words is judged on words.

    Args:
        logits: (1 + r, V), by the lens: of the list's direction, and of r random ones.
        changes: (V,), what a push along the feature's decoder changes of each token's log-probability.
    """
    judged = subject.words if list_recipe.words else subject.in_texts
    scores = logits if list_recipe.negative else -logits
    return written_evidence(scores.astype(np.float64), changes, judged, other_end=list_recipe.negative)


def random_directions(n: int, d_model: int, seed: int = 0) -> torch.Tensor:
    """Random directions, the same for a seed: (n, d_model), of norm 1."""
    directions = torch.randn(n, d_model, generator=torch.Generator().manual_seed(seed))
    return directions / directions.norm(dim=1, keepdim=True)


def random_ghosts(subject: Subject, distance: float, n: int, seed: int = 0) -> torch.Tensor:
    """Random vectors at that distance from the centroid, the same for a seed: (n, d_model)."""
    return subject.space.centroid + distance * random_directions(n, subject.space.d_model, seed)


def tokens_in_texts(sae: Sae, subject: Subject, feature: int) -> list[int]:
    """The tokens of the contexts kept with an SAE on which the feature fires most, strongest first.

    None for an SAE on the embedding, whose "contexts" are the tokens themselves.
    """
    if sae.entry.kind == "embed":
        return []
    found = []
    for context in strongest_contexts(sae.entry, feature):
        ids = subject.tokenizer(context.token, add_special_tokens=False)["input_ids"]
        if len(ids) == 1 and ids[0] < subject.space.n_tokens and ids[0] not in found:
            found.append(ids[0])
    return found


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
    assert tree.lifts is not None
    weights = tree.cumulative_prob[nodes]
    return weights @ tree.lifts[nodes] / weights.sum() if weights.sum() else np.zeros(2)


@dataclass(frozen=True)
class ReadText:
    """A definition of a feature, and what fires on it."""

    feature: int
    text: Text
    fires: np.ndarray  # (tokens, d_sae)


def read_definitions(encoder: Encoder, features: Sequence[int], asked: Sequence[Asked]) -> Iterator[ReadText]:
    """The definitions of some features with what fires on them, in order."""
    for feature, answer in zip(features, asked, strict=True):
        for text, fires in zip(answer.texts, activations_on(encoder, answer.residuals), strict=True):
            yield ReadText(feature, text, fires)


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
) -> Iterator[ReadText]:
    """Of the definitions of some features those that are judged, as ``read_definitions``."""
    chosen = []
    for answer in asked:
        rows = dict(zip(answer.texts, answer.residuals, strict=True))
        texts = [text for text, _ in judged_texts(answer.texts, token_texts)]
        chosen.append(replace(answer, texts=texts, residuals=[rows[text] for text in texts]))
    return read_definitions(encoder, features, chosen)


def share_that_fires(feature: int, definitions: Sequence[ReadText]) -> float:
    """Of its definitions, whatever their tokens; 0 if there are none."""
    return float(np.mean([found.fires[:, feature].max() > 0 for found in definitions])) if definitions else 0.0


class Controls:
    """What fires on the definitions of other features, to judge any number of features by.

    What is the same for all of these is done once. Of the activations those above or below 0 are kept, a few in a
    thousand.
    """

    def __init__(self, definitions: Iterable[ReadText]):
        rows, features = [], []
        self._texts: list[Text] = []
        self._fires: list[tuple] = []  # of each text: the shape, as ``np.nonzero`` tells where any fires, how strongly
        for found in definitions:
            where = np.nonzero(found.fires)
            rows.append(found.fires.max(axis=0))
            features.append(found.feature)
            self._texts.append(found.text)
            self._fires.append((found.fires.shape, where, found.fires[where]))
        self._features = np.array(features, dtype=np.int64)
        self._strongest = np.stack(rows) if rows else np.empty((0, 0), dtype=np.float32)
        # All their tokens, and of which text each is.
        self._token_id = np.array([token_id for text in self._texts for token_id in text], dtype=np.int64)
        self._text = np.repeat(np.arange(len(self._texts)), [len(text) for text in self._texts])
        self._all = Others(self._strongest)

    def others(self, feature: int, made_from: np.ndarray) -> Others:
        """All features' strongest activations on each of those definitions that are not the feature's own.

        Args:
            made_from: (V,) bool, tokens that do not count.
        """
        spoilt = np.unique(self._text[made_from[self._token_id]])
        rest = self._features != feature
        if rest.all() and not len(spoilt):
            return self._all
        found = self._strongest.copy()
        for row in spoilt:
            shape, where, values = self._fires[row]
            fires = np.zeros(shape, dtype=found.dtype)
            fires[where] = values
            found[row] = strongest(fires, self._texts[row], made_from)
        return Others(found if rest.all() else found[rest])


def scores_of(
    feature: int, own: Sequence[ReadText], controls: Controls, made_from: np.ndarray
) -> DefinitionScores | None:
    """The scores of a feature's definitions against those of other features; None if there are none.

    Args:
        controls: definitions of other features; should the feature be among these, its own do not count.
        made_from: (V,) bool, tokens that do not count.
    """
    others = controls.others(feature, made_from)
    if not own or not len(others.strongest):
        return None
    return definition_scores(
        np.stack([strongest(found.fires, found.text, made_from) for found in own]), others, feature
    )


def activations_on(encoder: Encoder, residuals: Sequence[np.ndarray]) -> list[np.ndarray]:
    """All features' activations on some texts: of each (tokens, d_sae), from its residuals (tokens, d_model)."""
    if not residuals:
        return []
    fires = encoder.encode(torch.from_numpy(np.concatenate(residuals))).numpy()
    return np.split(fires, np.cumsum([len(rows) for rows in residuals])[:-1])


def control_sources(target: Resolved) -> list[tuple[FeatureSource, FeatureVector]]:
    """Features to compare with, always the same ones of an SAE, and their vectors by the recipe.

    Scans and pullbacks that these need must be there.
    """
    sources = feature_sources(
        target, target.sae, control_features(target.sae), scan=needs_scan(target.recipe.kind)
    )
    return vectors_of(sources, target.subject, target.recipe)


def control_features(sae: Sae) -> list[int]:
    """One more than are needed, should one of them be the feature itself; none whose weights are no numbers."""
    drawn = np.random.default_rng(0).permutation(sae.d_sae).tolist()
    return list(islice(filter(sae.has_numbers, drawn), CONTROL_FEATURES + 1))


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    """0 where one of them is zero or not finite (a dead feature's unused weights)."""
    lengths = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / lengths if 0 < lengths < np.inf else 0.0


def rows_of(vectors: Sequence[FeatureVector], d_model: int) -> torch.Tensor:
    """Their embedding rows, (n, d_model)."""
    return torch.stack([vector.v for vector in vectors]) if vectors else torch.empty(0, d_model)


def ask_task(
    target: Resolved, vs: torch.Tensor, small: TreeRecipe, n_definitions: int, wanted: Interventions | None = None
) -> AskTask:
    """The definitions of many ghosts, (n, d_model), on small trees.

    Args:
        small: by ``small_recipe``.
    """
    subject = target.subject
    return AskTask(
        model=subject.name,
        folder=subject.folder,
        place=Place(target.sae.entry.hook, subject.bos_id),
        growth=growth_task(subject, vs, small, interventions=wanted),
        n_definitions=n_definitions,
    )


def small_recipe(recipe: TreeRecipe, effective_cutoff: float = 0.0) -> TreeRecipe:
    """The settings of the small trees whose definitions are judged; they grow undisturbed."""
    return replace(
        recipe,
        steer_strength=0.0,
        clamp=None,
        inject_layer=-1,
        # So few nodes of all next tokens would be nothing but beginnings.
        top_k=min(recipe.top_k or TreeRecipe.top_k, TreeRecipe.top_k),
        cutoff=max(_SMALL.cutoff, recipe.cutoff, effective_cutoff),
        max_depth=min(_SMALL.max_depth, recipe.max_depth),
        max_nodes=min(_SMALL.max_nodes, recipe.max_nodes),
    )


def small_tree(tree: Tree, recipe: TreeRecipe) -> Tree:
    """What would have grown by a ``small_recipe``, from a tree that holds it."""
    tree = narrowed(trim(tree, recipe.cutoff), recipe.top_k)
    tree = tree.select(tree.depth <= recipe.max_depth)
    return tree.select(most_probable(tree.cumulative_prob, recipe.max_nodes))
