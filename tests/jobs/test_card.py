"""A feature's card against a slow reading of what its parts say; where nothing is known, parts are left out."""

import numpy as np
import pytest
import torch
from tiny import random_sae, tiny_model, write_model, write_sae

from multitool.errors import UserError
from multitool.jobs.card import begun, card_job, reading_job, with_fires
from multitool.jobs.feature_card import (
    FeatureCard,
    Firing,
    Neighbour,
    Reading,
    card_from,
    differing,
    histogram,
    reading_of,
    strongest_places,
)
from multitool.jobs.local import definition_tree, feature_card, finish
from multitool.model.logit_lens import lens_logits
from multitool.model.questions import read_texts
from multitool.model.residual_stream import final_norm
from multitool.model.tasks import Place
from multitool.recipes.plain_texts import PASSAGES
from multitool.recipes.recipe import TreeRecipe, VectorRecipe
from multitool.store.library import Library
from multitool.store.prose import LONGEST_PASSAGE, ProseRowsTask
from multitool.store.saes import Context
from multitool.trees.document import DefinitionTree
from multitool.trees.tree import ROOT, Tree

D, FEATURES, FEATURE = 32, 40, 7
HOOK = "blocks.1.hook_resid_post"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("card")


@pytest.fixture(scope="module")
def model(folder, tokenizer) -> str:
    return str(write_model(folder / "model", tiny_model("llama"), tokenizer))


@pytest.fixture(scope="module")
def sae(folder, model) -> str:
    return str(random_sae(folder / "sae", D, FEATURES, hook=HOOK, model=model))


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SAE_MULTITOOL_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def library():
    return Library(device="cpu", dtype="float32", allow_folder=True)


# Parts from numbers and texts


def test_the_strongest_words_of_texts_come_with_what_stands_around_them():
    texts = [["A", " small", " warm", "ing", ".\n", "The"], [" warm", "ing", " again"]]
    values = [0, 1, 2, 5, 0, 0, 3, 4, 9]
    assert strongest_places(texts, values) == (
        Context("warming ", "again", "", 9.0), Context("small ", "warming", ".", 5.0), Context("", "warming", "", 4.0),
        Context("A ", "small", " warming.", 1.0),
    )  # a word once, by its strongest token
    assert [place.activation for place in strongest_places(texts, values, n=2)] == [9, 5]
    assert strongest_places(texts, [0] * 9) == ()
    repeated = strongest_places([[" rain", " Rain", " rain", " sun"]], [4, 3, 2, 1])
    assert [place.token for place in repeated] == ["rain", "Rain", "sun"], "of a word two places"


def test_a_histogram_counts_what_fires_in_bins_of_equal_width():
    found = histogram(np.array([0, 0, 0.5, 1, 2, 4.0, 0, 0, 0, 0], np.float32), "ten tokens", bins=4)
    assert (found.n_tokens, found.firing, found.most, found.counts) == (10, 4, 4.0, (1, 1, 1, 1))
    assert found.share == 0.4
    silent = histogram(np.zeros(3, np.float32), "three", bins=2)
    assert (silent.firing, silent.most, silent.counts, silent.share) == (0, 0.0, (0, 0), 0.0)


def test_tokens_that_differ_in_case_and_spaces_alone_count_once():
    pairs = [(" rain", 4.0), ("Rain", 3.0), (" ", 2.5), ("\n", 2.0), (" snow", 1.0), (" sun", 0.5)]
    assert differing(pairs, 2) == (Firing(" rain", 4.0), Firing(" snow", 1.0))


def a_tree(lifts=None, evidence=None) -> DefinitionTree:
    """Two definitions, "rain" and "snow", each ended by a quote; rain is the more probable, snow has the lift."""
    tree = Tree(
        parent=np.array([ROOT, ROOT, 0, 1]), token_id=np.arange(4), token=("rain", "snow", '"', '"'),
        prob=np.array([0.4, 0.2, 0.9, 0.9]), cumulative_prob=np.array([0.4, 0.2, 0.36, 0.18]),
        end=np.array([False, False, True, True]),
        lifts=None if lifts is None else np.repeat(np.array(lifts, float)[:, None], 2, axis=1),
        activation=None if lifts is None else np.full(4, np.nan),
    )
    return DefinitionTree(tree, {"prompt": 'It is "'}, {}, 0.1, True, 1.0, evidence=evidence)


def test_a_tree_is_read_in_a_sentence():
    read = reading_of(a_tree())
    assert read == Reading(("rain", "snow"), by_lift=False)
    assert read.sentence == "The model reads this feature as: rain, snow."
    checked = reading_of(a_tree([1, 5, 1, 5], {"hits": 3, "n_definitions": 10}))
    assert checked == Reading(("snow", "rain"), True, 3, 10)
    assert checked.sentence.endswith("It fires on 3 of its 10 likeliest definitions.")
    assert Reading(("rain",), False, 0, 4).sentence.endswith("It fires on none of its 4 likeliest definitions.")
    assert Reading(("rain",), False, 0, 1).sentence.endswith("It does not fire on its one definition.")
    assert reading_of(a_tree(evidence={"hits": "many", "n_definitions": 2})).hits is None, "it may be anybody's"
    assert Reading((), False).sentence == ""


# The job


def test_the_card_is_that_of_the_formulas(library, sae, model, tokenizer):
    card = feature_card(library, sae, FEATURE)
    entry = library.find(sae)
    loaded, subject = library.load(entry)
    running = library.run(subject.name, subject.folder)

    ids = [tuple(tokenizer(text, add_special_tokens=False)["input_ids"])[:LONGEST_PASSAGE] for text in PASSAGES]
    read = read_texts(running, ids, Place(HOOK, subject.bos_id))
    fires = library.encoder(entry).encode(torch.from_numpy(np.concatenate(read)))[:, FEATURE]
    tolerance = 2e-3 * float(fires.max())  # prose is kept in half precision
    assert card.histogram.n_tokens == len(fires) and card.histogram.most == pytest.approx(float(fires.max()), tolerance)
    assert abs(card.histogram.firing - int((fires > 0).sum())) <= 2
    assert sum(card.histogram.counts) == card.histogram.firing
    assert card.contexts[0].activation == pytest.approx(float(fires.max()), abs=tolerance)
    assert card.contexts_of == f"{len(fires):,} tokens of plain prose"

    cosines = torch.nn.functional.normalize(loaded.W_dec, dim=1) @ torch.nn.functional.normalize(
        loaded.W_dec[FEATURE], dim=0)
    cosines[FEATURE] = -2
    assert [one.feature for one in card.nearest] == cosines.topk(5).indices.tolist()
    assert [one.cosine for one in card.nearest] == pytest.approx(cosines.topk(5).values.tolist(), abs=1e-5)

    logits = lens_logits(running, loaded.W_dec[FEATURE][None])[0].where(torch.from_numpy(subject.in_texts), -torch.inf)
    assert card.written.lens == "logit lens"
    assert card.written.more[0].value == pytest.approx(float(logits.max()), abs=1e-4)
    assert card.written.less[0].value == pytest.approx(float(logits[logits.isfinite()].min()), abs=1e-4)
    assert (card.strongest, card.described, card.label) == ((), "", ""), "no scan is made for it"
    assert card_from(card.to_dict()) == card


def test_a_tree_of_the_feature_tells_how_the_model_reads_it(library, sae):
    tree = definition_tree(library, VectorRecipe(sae=sae, feature=FEATURE), TreeRecipe(cutoff=1e-2, max_depth=4))
    card = feature_card(library, sae, FEATURE, tree=tree, label=False)
    assert card.sentence.startswith("The model reads this feature as: ")
    assert card.to_dict()["sentence"] == card.sentence
    assert ["reads as", card.sentence] in card.rows
    assert 0 <= card.reading.hits <= card.reading.judged <= 10
    with pytest.raises(UserError, match=f"feature {FEATURE}, and the card of .* feature 3"):
        feature_card(library, sae, 3, tree=tree)


def test_the_count_is_that_of_the_check(library, sae):
    from multitool.jobs.local import check_tree

    tree = definition_tree(library, VectorRecipe(sae=sae, feature=FEATURE), TreeRecipe(cutoff=1e-2, max_depth=4))
    read = finish(reading_job(library, tree), library)
    evidence = check_tree(library, tree).evidence
    assert (read.hits, read.judged) == (evidence["hits"], evidence["n_definitions"])


def test_prose_is_read_once_and_only_where_the_model_may_run(library, sae, monkeypatch):
    asked, do = [], library.do

    def noting(task, **options):
        asked.append(type(task))
        return do(task, **options)

    monkeypatch.setattr(library, "do", noting)
    card = begun(library, sae, FEATURE)
    without = finish(with_fires(library, card, runs=False), library)
    assert without == card and not asked
    filled = finish(with_fires(library, card), library)
    assert filled.histogram and asked == [ProseRowsTask]
    assert finish(with_fires(library, card, runs=False), library) == filled, "as it is kept now"
    assert asked == [ProseRowsTask]


def test_a_feature_that_is_none_is_refused_and_a_silent_one_is_not(library, folder, model):
    W = torch.randn(D, 3, generator=torch.Generator().manual_seed(0))
    W_dec = W.T.clone()
    W_dec[1], W_dec[2] = 0, torch.nan
    sae = str(write_sae(folder / "dead", W_enc=W, W_dec=W_dec, hook=HOOK, model=model))
    for feature, why in ((3, "numbered 0 to 2"), (2, "has NaN or infinity")):
        with pytest.raises(UserError, match=why):
            finish(card_job(library, sae, feature), library)
    silent = feature_card(library, sae, 1)
    assert silent.nearest == () and silent.written is None and silent.histogram


def test_what_is_known_is_shown_as_a_table():
    card = FeatureCard("some/sae", 3, "model", (Context("a ", "dog", " barks", 2.0),), "texts", described="<b>",
                       nearest=(Neighbour(4, 0.5, "cats"),))
    assert card.rows == [["fires on", "a [dog] barks"], ["nearest", "4 (0.50) cats"], ["atlas", "<b>"]]
    assert "<b>" not in card._repr_html_().replace("<b>some", "")


def test_what_is_written_is_read_without_the_running_model_of_any_architecture(tmp_path, architecture, tokenizer):
    running = tiny_model(architecture)
    with torch.no_grad():  # a norm that matters
        for weight in final_norm(running).parameters():
            weight.normal_(1, 0.5)
    model = str(write_model(tmp_path / "model", running, tokenizer))
    library = Library(device="cpu", dtype="float32", allow_folder=True)
    directions = torch.randn(3, D, generator=torch.Generator().manual_seed(0))
    read = library.read_by_lens(library.subject(model), directions)
    assert torch.allclose(read, lens_logits(running, directions), atol=1e-4)
