"""The job of a feature's card: what is known of it, gathered part by part, the cheapest parts first.

``begun`` reads files that lie here; ``with_neighbours`` and ``with_written`` need the weights of SAE and model;
``with_fires`` also the SAE as a reader and, once, the running model. So a page can show each part when it is there.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from multitool.errors import UserError
from multitool.evidence.verdicts import strongest
from multitool.jobs.check import activations_on
from multitool.jobs.feature_card import (
    CONTEXTS,
    FeatureCard,
    Neighbour,
    Reading,
    Written,
    at_whole_words,
    differing,
    histogram,
    reading_of,
    strongest_places,
)
from multitool.jobs.features import Resolved, countable_tokens, feature_source, missing_scan, resolve
from multitool.jobs.find import find_like_job
from multitool.jobs.judging import DEFINITIONS_ASKED, judged_texts, small_recipe, small_tree
from multitool.jobs.steps import Ask, Job, Keep, Prepare
from multitool.jobs.text import read_task
from multitool.model.questions import likeliest_texts
from multitool.model.subject import check_tokens
from multitool.model.tasks import Text
from multitool.recipes.finding import LikenessSearch
from multitool.recipes.recipe import VectorRecipe, recipes
from multitool.store.entries import SaeEntry
from multitool.store.library import Library
from multitool.store.neuronpedia import feature_page, fetch_label
from multitool.store.saes import strongest_contexts
from multitool.text import spelling_key
from multitool.trees.document import DefinitionTree

NEAREST, TOKENS = 5, 8
_MOST_READ = 1e12  # products of numbers that reading the vocabulary may take: some ten seconds


def card_job(
    library: Library, sae: str, feature: int, *, model: str | None = None, tree: DefinitionTree | None = None,
    label: bool = True,
) -> Job[FeatureCard]:
    """A feature's whole card. Plain prose that has not been read at its hook is read first; no vocabulary is scanned.

    Args:
        model: another model than the SAE names: a hub id or a folder.
        tree: of the feature, for the sentence on what the model reads it as.
        label: ask Neuronpedia, where the SAE is there.

    Raises:
        UserError: the SAE or its model cannot be had, there is no such feature or it has no numbers, or the tree is
            another feature's.
    """
    card = yield Prepare(partial(begun, library, sae, feature))
    yield Prepare(partial(_read_feature, library, card, model))
    if label:
        card = yield from with_label(library, card)
    card = yield from with_neighbours(library, card, model)
    card = yield from with_written(library, card, model)
    card = yield from with_fires(library, card, model)
    if tree is not None:
        recipe, _ = recipes(tree.settings)
        of = None if recipe.vector else (library.find(recipe.sae), recipe.single_feature())
        if of != (library.find(sae), feature):
            raise UserError(
                f"The tree is of {recipe.sae}, feature {recipe.feature}, and the card of {card.sae}, feature "
                f"{card.feature}. Give the tree of the same feature."
            )
        card = replace(card, reading=(yield from reading_job(library, tree, model)))
    return card


def begun(library: Library, sae: str, feature: int) -> FeatureCard:
    """What the files tell that lie here: contexts kept with the SAE, the atlas. Loads nothing.

    Raises:
        UserError: there is no such SAE.
    """
    entry = library.find(sae)
    kept, alone = strongest_contexts(entry, feature), entry.kind == "embed"
    if alone:  # tokens of the vocabulary: "rain" and "Rain" are one
        strongest_last = {spelling_key(context.token): context for context in reversed(kept)}
        kept = sorted(strongest_last.values(), key=lambda context: -context.activation)
    contexts = tuple(at_whole_words(context) for context in kept[:TOKENS if alone else CONTEXTS])
    return FeatureCard(
        sae=sae, feature=feature, model=entry.model, contexts=contexts,
        contexts_of=("tokens of the vocabulary" if alone else "the texts kept with the SAE") if contexts else "",
        described=_of_atlas(library, entry, feature),
        page=feature_page(entry, feature),
    )


def _of_atlas(library: Library, entry: SaeEntry, feature: int) -> str:
    atlas = library.atlas()
    return atlas.describe(entry.name, [feature])[0] if atlas else ""


def _target(library: Library, card: FeatureCard, model: str | None) -> Resolved:
    return resolve(library, VectorRecipe(sae=card.sae, feature=card.feature), model)


def _read_feature(library: Library, card: FeatureCard, model: str | None) -> None:
    _target(library, card, model).sae.feature(card.feature)


def with_label(library: Library, card: FeatureCard) -> Job[FeatureCard]:
    """The card with Neuronpedia's label, if the SAE is there and it answers soon."""
    label = yield Prepare(partial(fetch_label, library.find(card.sae), card.feature))
    return replace(card, label=label)


def with_neighbours(library: Library, card: FeatureCard, model: str | None = None) -> Job[FeatureCard]:
    """The card with the features of the same SAE whose decoders are nearest. Errors as in ``card_job``.

    A feature whose decoder is zero has none.
    """
    target = yield Prepare(partial(_target, library, card, model))
    if not target.sae.feature(card.feature).decoder.any():
        return card
    asked = LikenessSearch(sae=card.sae, feature=card.feature, among=(card.sae,), top=NEAREST)
    found = yield from find_like_job(library, asked, model=model)
    return replace(card, nearest=tuple(
        Neighbour(one.feature, float(one.figures["cosine"] or 0), one.description) for one in found.features
    ))


def with_fires(
    library: Library, card: FeatureCard, model: str | None = None, *, runs: bool = True
) -> Job[FeatureCard]:
    """The card with what the SAE says where it fires: on plain prose, and on the tokens of a scan that is kept.

    Args:
        runs: the model may read plain prose, once for a model and a hook; else only what is kept counts.
    """
    target = yield Prepare(partial(_target, library, card, model))
    entry, subject = target.sae.entry, target.subject
    yield Prepare(partial(library.encoder, entry))
    prose = library.prose_task(entry, subject)
    if runs and not (yield Prepare(partial(library.keeps, prose))):
        yield Keep(prose)
    return (yield Prepare(partial(_fires, target, card), "find"))


def _fires(target: Resolved, card: FeatureCard) -> FeatureCard:
    library, entry, subject = target.library, target.sae.entry, target.subject
    scan = library.scan(entry, subject)
    if scan is not None and library.encoder(entry).products(scan.task.n_rows) < _MOST_READ:
        values = library.activations(entry, scan, [card.feature])[:, 0].where(countable_tokens(subject, scan), 0.0)
        top = values.topk(min(4 * TOKENS, len(values)))
        pairs = zip(top.indices.tolist(), top.values.tolist(), strict=True)
        tokens = [(subject.token_texts[token_id], value) for token_id, value in pairs if value > 0]
        card = replace(card, strongest=differing(tokens, TOKENS))
    on_prose = library.fires_on_prose(entry, subject, card.feature)
    if on_prose is None:
        return card
    texts, values = on_prose
    of = f"{sum(map(len, texts)):,} tokens of plain prose"
    card = replace(card, histogram=histogram(values.numpy(), of))
    if card.contexts:
        return card
    spelt = [[subject.token_texts[token_id] for token_id in text] for text in texts]
    contexts = strongest_places(spelt, values.tolist())
    return replace(card, contexts=contexts, contexts_of=of if contexts else "")


def with_written(library: Library, card: FeatureCard, model: str | None = None) -> Job[FeatureCard]:
    """The card with what the feature's decoder writes: read by the Jacobian lens where one lies here, else by the
    unembedding alone.

    Raises:
        UserError: as in ``card_job``; or the model has no final norm or unembedding.
    """
    target = yield Prepare(partial(_target, library, card, model))
    entry, subject = target.sae.entry, target.subject
    decoder = target.sae.feature(card.feature).decoder[None]
    if not decoder.any():
        return card
    lens = yield Prepare(partial(library.lens_here, entry, subject))
    directions = decoder if lens is None else lens.carry(decoder)
    logits = yield Prepare(lambda: library.read_by_lens(subject, directions)[0].numpy(), "find")
    ends = [_outermost(target, sign * logits, sign) for sign in (1, -1)]
    return replace(card, written=Written("logit lens" if lens is None else "Jacobian lens", *ends))


def _outermost(target: Resolved, values: np.ndarray, sign: int):
    """The tokens of texts with the largest values, which are told times ``sign``."""
    values = np.where(target.subject.in_texts, values, -np.inf)
    order = np.argsort(-values)[:4 * TOKENS].tolist()
    return differing([(target.subject.token_texts[token_id], sign * float(values[token_id])) for token_id in order],
                     TOKENS)


def reading_job(library: Library, document: DefinitionTree, model: str | None = None) -> Job[Reading]:
    """What a tree says that its feature means, and on how many of its likeliest definitions the feature fires.

    Where the tree was checked the check's count is told; else the model reads them, as the check does.

    Args:
        document: may be anybody's file.
        model: as in ``card_job``.

    Raises:
        UserError: it is no tree of one feature, or of no tokens of this model.
    """
    vector_recipe, tree_recipe = recipes(document.settings)
    vector_recipe.single_feature()
    reading = reading_of(document)
    if reading.hits is not None or not reading.definitions:
        return reading
    target = yield Prepare(partial(resolve, library, vector_recipe, model))
    if (yield Prepare(partial(missing_scan, target))):
        return reading  # a file's tree: what its direction was made from is not known here
    check_tokens(target.subject, document.tree.token_id, "The tree")
    small = small_tree(document.tree, small_recipe(tree_recipe, document.effective_cutoff))
    likeliest = [text for text, _ in likeliest_texts(small, DEFINITIONS_ASKED)]
    judged = [text for text, _ in judged_texts(likeliest, target.subject.token_texts)]
    if not judged:
        return reading
    yield Prepare(partial(library.encoder, target.sae.entry))
    residuals, = yield Ask((read_task(target.sae.entry, target.subject, judged),), "text")
    hits = yield Prepare(partial(_hits, target, judged, residuals), "judge_tree")
    return replace(reading, hits=hits, judged=len(judged))


def _hits(target: Resolved, texts: Sequence[Text], residuals: Sequence[np.ndarray]) -> int:
    """On how many texts the feature fires, but on tokens that its direction was made from."""
    made_from = feature_source(target).used_in_texts(target.recipe, target.subject)
    fires = activations_on(target.library.encoder(target.sae.entry), residuals)
    own = (strongest(rows, text, made_from)[target.index] for text, rows in zip(texts, fires, strict=True))
    return sum(bool(value > 0) for value in own)
