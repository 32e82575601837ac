"""Every way to make a vector, on every architecture, against the same by plain loops over lists of numbers."""

import json
import math
import random
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from plain_recursion import PlainRecursion, assert_same_tree
from tiny import PROMPT, random_sae, tiny_model, write_model

from multitool.errors import UserError
from multitool.jobs.features import FeatureSource, missing_scan, recipe_vector, resolve, vector_of
from multitool.jobs.local import check_tree, definition_tree, scan_if_missing, suggest, token_table
from multitool.model.ghost_prompt import ghost_prompt
from multitool.model.subject import tokens_meant
from multitool.recipes.recipe import ListRecipe, TreeRecipe, VectorRecipe, recipes
from multitool.store.library import Library
from multitool.trees.document import read_tree
from multitool.trees.growth import grow
from multitool.vectors.vector import FeatureVector, FeatureWeights, random_row

FEATURE = 3
D = 32  # of the tiny models


def recipe(**settings) -> VectorRecipe:
    return VectorRecipe(**({"sae": "x/y", "feature": FEATURE, "weights": "encoder"} | settings))


@pytest.fixture(scope="module")
def source() -> FeatureSource:
    rows = torch.randn(2, D, generator=torch.Generator().manual_seed(4))
    return FeatureSource(FEATURE, FeatureWeights(*rows))


# The plain way: lists of Python's numbers and loops, nothing of torch


def added(x: list, y: list, times: float = 1.0) -> list:
    return [a + times * b for a, b in zip(x, y, strict=True)]


def scaled(x: list, times: float) -> list:
    return [times * a for a in x]


def length(x: list) -> float:
    return math.sqrt(sum(a * a for a in x))


def unit(x: list) -> list:
    return scaled(x, 1 / length(x))


def plain_embeddings(subject) -> tuple[list, list]:
    """The rows, and their mean."""
    rows = subject.space.E.tolist()
    mean = [0.0] * D
    for row in rows:
        mean = added(mean, row)
    return rows, scaled(mean, 1 / len(rows))


def plain_vector(subject, f: list, settings: VectorRecipe, usual: float | None = None) -> list:
    """The formulas of the README, from the direction on."""
    rows, c = plain_embeddings(subject)
    if usual is None:
        usual = sum(length(added(row, c, -1)) for row in rows) / len(rows)
    g = scaled(f, 1 - sum(settings.pca))
    for weight, p in zip(settings.pca, subject.space.components.tolist(), strict=False):
        g = added(g, p, weight)
    v = scaled(g, usual if settings.scale is None else settings.scale)
    return added(c, v) if settings.centroid else v


def made(subject, source, settings: VectorRecipe) -> list:
    return vector_of(source, subject, settings).v.tolist()


EIGHT = (0.2, -0.1, 0.05, -0.3, 0.0, 0.15, -0.02, 0.4)


@pytest.mark.parametrize("settings", [
    recipe(), recipe(centroid=False, scale=1.5), recipe(pca=EIGHT), recipe(pca=EIGHT, centroid=False, scale=0.7),
], ids=["plain", "from zero", "components", "components from zero"])  # fmt: skip
def test_a_feature_with_eight_components(subject, source, settings):
    expected = plain_vector(subject, unit(source.weights.encoder.tolist()), settings)
    assert made(subject, source, settings) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("centroid", [True, False], ids=["centroid", "zero"])
@pytest.mark.parametrize("more", [{}, {"scale": 2.0}, {"pca": EIGHT}], ids=["own", "scale", "components"])
def test_token_arithmetic(subject, source, centroid, more):
    settings = recipe(weights="tokens", tokens='#77 - "a"*0.5 + #99*0.25', centroid=centroid, **more)
    rows, c = plain_embeddings(subject)
    a = subject.token_texts.index("a")
    o = [0.0] * D
    for token_id, weight in ((77, 1.0), (a, -0.5), (99, 0.25)):
        o = added(o, added(rows[token_id], c, -1.0 if centroid else 0.0), weight)
    expected = plain_vector(subject, unit(o), settings, usual=length(o))
    assert made(subject, source, settings) == pytest.approx(expected, abs=1e-4)


def test_tokens_whose_weights_sum_to_one_give_the_plain_sum_of_their_embeddings(subject, source):
    rows, _ = plain_embeddings(subject)
    expected = added(added(rows[77], rows[88], -1), rows[99])
    for centroid in (True, False):
        settings = recipe(weights="tokens", tokens="#77 - #88 + #99", centroid=centroid)
        assert made(subject, source, settings) == pytest.approx(expected, abs=1e-5)
    alone = vector_of(source, subject, recipe(weights="tokens", tokens="#77"))
    assert alone.v.tolist() == pytest.approx(rows[77], abs=1e-5)
    assert alone.scale == pytest.approx(alone.distance_from_centroid, rel=1e-4)


@pytest.mark.parametrize("settings", [recipe(weights="random"), recipe(weights="random", pca=EIGHT, centroid=False)],
                         ids=["plain", "components from zero"])
def test_a_random_direction_is_always_the_same_of_a_feature(subject, source, settings):
    expected = plain_vector(subject, unit(random_row(FEATURE, D).tolist()), settings)
    assert made(subject, source, settings) == pytest.approx(expected, abs=1e-4)
    assert made(subject, replace(source, index=4), settings) != pytest.approx(expected, abs=0.1)


@pytest.mark.parametrize("settings", [
    recipe(weights="centroid"), recipe(weights="centroid", scale=9.0), recipe(weights="centroid", pca=EIGHT),
    recipe(weights="centroid", pca=EIGHT, centroid=False),
], ids=["alone", "whatever the scale", "with components", "components alone"])  # fmt: skip
def test_the_centroid_alone_or_with_components(subject, source, settings):
    expected = plain_vector(subject, [0.0] * D, settings)
    assert made(subject, source, settings) == pytest.approx(expected, abs=1e-4)


def test_neither_centroid_nor_direction_is_refused(subject, source):
    with pytest.raises(UserError, match="zero vector"):
        made(subject, source, recipe(weights="centroid", centroid=False))
    with pytest.raises(UserError, match="These tokens cancel"):
        made(subject, source, recipe(weights="tokens", tokens="#77*0.1 + #77*0.2 - #77*0.3"))


def test_a_ghost_with_a_real_tokens_embedding_grows_the_tree_of_that_token(subject, source, architecture):
    """Compared with a model whose prompt has exactly that token in the ghost's place, written over by nothing."""
    depth, cutoff, token_id = 3, 2e-2, 77
    prompt = ghost_prompt(subject, PROMPT, depth)
    vector = vector_of(source, subject, recipe(weights="tokens", tokens=f"#{token_id}"))
    *_, grown = grow(subject.next_tokens(prompt, vector.v, 5, depth), cutoff=cutoff, max_depth=depth, max_nodes=10_000)
    plain = PlainRecursion(subject.model, prompt.token_ids, prompt.position, torch.zeros(D))
    assert not torch.equal(plain.model.get_input_embeddings().weight, subject.model.get_input_embeddings().weight)
    plain.model = subject.model  # no row of it is changed
    plain.prompt[prompt.position] = token_id
    nodes = plain.tree(top_k=5, cutoff=cutoff, max_depth=depth)
    assert max(map(len, nodes)) > 1
    assert_same_tree(grown.tree, nodes, 1e-4 if architecture == "qwen3_5" else 2e-5)


def test_random_rows_do_not_change_from_machine_to_machine():
    assert random_row(0, D)[:3].tolist() == pytest.approx([-1.1258398, -1.1523602, -0.2505786])


# Which token a word is


def meant(subject, text: str) -> list[str]:
    return [subject.token_texts[token_id] for token_id, _ in tokens_meant(subject, text)]


@pytest.fixture(scope="module")
def words():
    """A vocabulary in which one can see what is meant."""
    texts = ("king", " king", "queen", " a", "b", "<end>")
    return SimpleNamespace(
        name="a model", token_texts=texts, token_ids={text: i for i, text in enumerate(texts)},
        space=SimpleNamespace(n_tokens=6), tokenizer=lambda text, add_special_tokens: {"input_ids": [3, 4]},
    )


def test_a_word_is_the_token_behind_a_blank_or_else_the_one_without(words):
    assert meant(words, 'king + "king" + queen + <end> + #4') == [" king", "king", "queen", "<end>", "b"]


def test_a_word_of_several_tokens_is_told_how_it_splits(words):
    with pytest.raises(UserError, match="'ab', which is no single token of a model: it splits into ' a', 'b'"):
        meant(words, "ab")
    with pytest.raises(UserError, match="tokens has #6; a model has 6 tokens, #0 to #5"):
        meant(words, "#6")


# The whole way


@pytest.fixture(scope="module")
def tiny(tmp_path_factory, tokenizer):
    """A library and the name of an SAE on the first layer of a tiny model."""
    with pytest.MonkeyPatch.context() as patch:
        place = tmp_path_factory.mktemp("tiny")
        patch.setenv("SAE_MULTITOOL_CACHE", str(place / "cache"))
        model = write_model(place / "model", tiny_model("llama"), tokenizer)
        sae = random_sae(place / "sae", d_model=D, model=str(model))
        yield Library(dtype="float32", device="cpu", allow_folder=True, bars=False), str(sae)


# Several features


@pytest.fixture(scope="module")
def layers(architecture, subject, tmp_path_factory):
    """A library that has the subject and two SAEs on layers of it, and the SAEs' names."""
    folder = tmp_path_factory.mktemp("layers")
    saes = [
        random_sae(folder / f"layer-{layer}", d_model=D, seed=layer, model=subject.name,
                   hook=f"blocks.{layer}.hook_resid_post")
        for layer in (0, 2)
    ]
    library = Library(dtype="float32", device="cpu", allow_folder=True, bars=False)
    library.subject = lambda name: subject
    return library, [str(sae) for sae in saes]


def vector_by(library: Library, settings: VectorRecipe) -> FeatureVector:
    return recipe_vector(resolve(library, settings))


@pytest.mark.parametrize("weights", ["encoder", "decoder", "mix"])
@pytest.mark.parametrize("across", [False, True], ids=["one layer", "two layers"])
def test_several_features_with_weights(subject, layers, weights, across):
    library, (one, other) = layers
    second = f"{other}:4" if across else "4"
    settings = VectorRecipe(sae=one, feature=f"1*1.5 + {second}*-0.5", weights=weights, encoder_share=0.3, pca=EIGHT)
    f = [0.0] * D
    for sae, feature, weight in ((one, 1, 1.5), (other if across else one, 4, -0.5)):
        rows = library.sae(library.find(sae)).feature(feature)
        encoder, decoder = unit(rows.encoder.tolist()), unit(rows.decoder.tolist())
        shares = {"encoder": (1, 0), "decoder": (0, 1), "mix": (0.3, 0.7)}[weights]
        f = added(f, unit(added(scaled(encoder, shares[0]), decoder, shares[1])), weight)
    target = resolve(library, settings)
    assert target.subject is subject
    assert recipe_vector(target).v.tolist() == pytest.approx(plain_vector(subject, unit(f), settings), abs=1e-4)


@pytest.mark.parametrize("architecture", ["llama"], scope="session")
def test_several_features_that_cannot_be_mixed(layers, tmp_path):
    library, (one, other) = layers

    def refused(feature: str, said: str, **more) -> None:
        with pytest.raises(UserError, match=said):
            vector_by(library, VectorRecipe(sae=one, **{"feature": feature, "weights": "encoder"} | more))

    refused("1 - 1", "directions that they mix cancel")
    refused("1*0", "directions that they mix cancel")
    refused("1 + 6", "feature is 6; .* has 6 features")
    refused(f"1 + {other}:9", "feature is 9; local/layer-2 has 6 features")
    refused("1 + no/such:2", "no SAE")
    foreign = random_sae(tmp_path / "foreign", d_model=D, model="gpt2")
    refused(f"1 + {foreign}:2", "term of local/foreign, which belongs to openai-community/gpt2, and local/layer-0")


@pytest.mark.parametrize("architecture", ["llama"], scope="session")
def test_a_tiny_weight_is_a_weight(layers):
    library, (one, _) = layers
    alone = vector_by(library, VectorRecipe(sae=one, feature=1, weights="encoder"))
    tiny_weight = vector_by(library, VectorRecipe(sae=one, feature="1*1e-9", weights="encoder"))
    assert torch.allclose(tiny_weight.v, alone.v, atol=1e-5)


SMALL = TreeRecipe(cutoff=0.05, max_depth=3)
KINDS = {"tokens": {"tokens": "#77 - #88*0.5"}, "random": {}, "centroid": {"pca": (0.5,)}}


@pytest.mark.parametrize("kind", KINDS)
def test_a_tree_of_each_kind_is_repeated_from_its_json_and_checked(tiny, kind):
    library, sae = tiny
    settings = VectorRecipe(sae=sae, feature=1, weights=kind, **KINDS[kind])
    tree = definition_tree(library, settings, SMALL)
    again = read_tree(json.dumps(tree.to_dict()))
    assert replace(recipes(again.settings)[0], scale=None) == settings
    vector, growth = recipes(again.settings)
    repeated = definition_tree(library, vector, growth)
    assert repeated.tree.token_id.tolist() == tree.tree.token_id.tolist()
    np.testing.assert_allclose(repeated.tree.prob, tree.tree.prob, atol=1e-5)
    checked = check_tree(library, again)
    assert checked.evidence["left_out"] == (2 if kind == "tokens" else 0)
    # Other features are compared by weights that have something of the feature in them.
    assert checked.evidence["n_features"] == 6


def test_features_of_two_layers_by_their_scans_and_the_tree_from_its_json(tiny, tmp_path, monkeypatch):
    library, sae = tiny
    model = library.find(sae).model
    monkeypatch.setenv("SAE_MULTITOOL_CACHE", str(tmp_path / "cache"))
    other = random_sae(tmp_path / "other", d_model=D, model=model, hook="blocks.1.hook_resid_post", seed=3)
    settings = VectorRecipe(sae=sae, feature=f"1 - {other}:2*0.5", weights="vocabulary")
    target = resolve(library, settings)
    first = missing_scan(target)
    scanned = []
    scan_if_missing(library, settings, report=lambda told: scanned.append(told.done == told.total))
    assert (first.hook, scanned.count(True)) == ("blocks.0.hook_resid_post", 2)
    assert missing_scan(target) is None

    def alone(sae, feature):
        return vector_by(library, VectorRecipe(sae=str(sae), feature=feature, weights="vocabulary")).direction

    expected = unit(added(alone(sae, 1).tolist(), alone(other, 2).tolist(), -0.5))
    assert recipe_vector(target).direction.tolist() == pytest.approx(expected, abs=1e-5)
    tree = definition_tree(library, settings, SMALL)
    assert tree.settings["feature"] == f"1*1.0 + {other}:2*-0.5"
    assert replace(recipes(read_tree(tree.to_json()).settings)[0], scale=None) == settings
    assert len(token_table(library, settings, ListRecipe(top=5)).rows) == 5


def test_scans_of_several_layers_that_are_too_large_together_are_not_begun(tiny, tmp_path):
    library, sae = tiny
    other = random_sae(tmp_path / "other", d_model=D, model=library.find(sae).model, hook="blocks.1.hook_resid_post")

    def missing(feature: str) -> None:
        # One takes 304 times 68 bytes.
        missing_scan(resolve(library, VectorRecipe(sae=sae, feature=feature, weights="vocabulary")), max_bytes=30_000)

    with pytest.raises(UserError, match="scans of 2 layers, 0.0 MB in all"):
        missing(f"1 - {other}:2")
    missing("1 - 2")


def test_what_is_about_one_feature_says_so_of_several(tiny):
    library, sae = tiny
    several = VectorRecipe(sae=sae, feature="1 + 2", weights="encoder")
    tree = definition_tree(library, several, SMALL)
    for ask in (
        lambda: check_tree(library, tree),
        lambda: suggest(library, several, SMALL),
        lambda: token_table(library, several, ListRecipe(), evidence=True),
        lambda: token_table(library, several, ListRecipe(measure="activation")),
        lambda: missing_scan(resolve(library, several), always=True),
        lambda: scan_if_missing(library, several, always=True),
    ):
        with pytest.raises(UserError, match="Evidence is about one feature"):
            ask()


def test_token_arithmetic_drawn_at_random_keeps_its_spelling():
    drawn = random.Random(0)
    for _ in range(20):
        text = " - ".join(f"#{drawn.randrange(1000)}*{drawn.uniform(-9, 9)!r}" for _ in range(drawn.randrange(1, 9)))
        once = recipe(weights="tokens", tokens=text)
        assert recipe(weights="tokens", tokens=once.tokens) == once
