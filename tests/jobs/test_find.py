"""Features found by a text, by tokens and by likeness, against a slow reading of the formulas."""

import json
from functools import partial

import atlas_material
import csv_files
import pytest
import torch
from tiny import random_sae, tiny_model, write_model, write_sae

from multitool.errors import UserError
from multitool.jobs.features import recipe_heading, resolve, scans, with_pullbacks
from multitool.jobs.find import described
from multitool.jobs.local import find_by_text, find_by_tokens, find_like, finish
from multitool.model.questions import read_texts
from multitool.model.tasks import Place, ReadTask
from multitool.recipes.finding import LikenessSearch, TextSearch, TokenSearch
from multitool.recipes.plain_texts import PASSAGES
from multitool.recipes.recipe import VectorRecipe
from multitool.store.library import Library
from multitool.store.prose import LONGEST_PASSAGE, ProseRowsTask
from multitool.store.pullbacks import PullbackRowsTask
from multitool.store.scans import ScanTask
from multitool.vectors.vector import token_sum

D, FEATURES = 32, 40
HOOK = "blocks.1.hook_resid_post"
TEXT = "A small brown dog that barks."


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("find")


@pytest.fixture(scope="module")
def model(folder, tokenizer) -> str:
    return str(write_model(folder / "model", tiny_model("llama"), tokenizer))


@pytest.fixture(scope="module")
def sae(folder, model) -> str:
    return str(random_sae(folder / "sae", D, FEATURES, hook=HOOK, model=model))


@pytest.fixture(scope="module")
def other(folder, model) -> str:
    """Another SAE of the model, at the same hook."""
    return str(random_sae(folder / "other", D, 10, seed=1, hook=HOOK, model=model))


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SAE_MULTITOOL_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def library():
    return Library(device="cpu", dtype="float32", allow_folder=True)


@pytest.fixture
def asked(library, monkeypatch) -> list[type]:
    """What the running model is asked."""
    kinds, do = [], library.do

    def noting(task, **options):
        kinds.append(type(task))
        return do(task, **options)

    monkeypatch.setattr(library, "do", noting)
    return kinds


def features(found) -> list[int]:
    return [one.feature for one in found.features]


def activations(library, sae: str, texts: list[tuple[int, ...]]) -> list[torch.Tensor]:
    target = resolve(library, VectorRecipe(sae=sae, feature=0))
    subject, entry = target.subject, target.sae.entry
    read = read_texts(library.run(subject.name, subject.folder), texts, Place(entry.hook, subject.bos_id))
    return [library.encoder(entry).encode(torch.from_numpy(residuals)) for residuals in read]


# By a text


def test_the_figures_of_a_text_are_those_of_the_formulas(library, sae, tokenizer):
    found = find_by_text(library, sae, TEXT, top=200)
    ids = [tuple(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in (TEXT, *PASSAGES)]
    fires, *passages = activations(library, sae, [ids[0], *(text[:LONGEST_PASSAGE] for text in ids[1:])])
    prose = sum(passage.amax(0) for passage in passages) / len(PASSAGES)
    expected = {
        feature: {"above_prose": float(column.max() - prose[feature]), "maximum": float(column.max()),
                  "mean": float(column.mean()), "fires_on": int((column > 0).sum()), "prose": float(prose[feature])}
        for feature, column in enumerate(fires.T) if column.any()
    }
    assert len(expected) > 10
    assert set(features(found)) == expected.keys(), "all that fire, and no other"
    for one in found.features:
        assert one.figures == pytest.approx(expected[one.feature], abs=2e-3 * float(fires.max()))
    above = [one.figures["above_prose"] for one in found.features]
    assert above == sorted(above, reverse=True)
    assert (found.by, found.columns) == ("text", ("above_prose", "maximum", "mean", "fires_on", "prose"))
    assert found.settings.items() >= {"text": TEXT, "top": 200}.items()

    assert "".join(token.token for token in found.tokens) == TEXT
    told = {one.feature: one.figures["prose"] for one in found.features}
    for token, row in zip(found.tokens, fires, strict=True):
        order = sorted(torch.nonzero(row)[:, 0].tolist(), key=lambda feature: told[feature] - float(row[feature]))
        assert [feature for feature, _ in token.features] == order[:10]
        assert [fired for _, fired in token.features] == pytest.approx(row[order[:10]].tolist(), rel=1e-4)


def test_of_few_the_best_are_told(library, sae):
    assert features(find_by_text(library, sae, TEXT, top=3)) == features(find_by_text(library, sae, TEXT))[:3]


def test_prose_is_read_once_for_all_saes_of_a_hook(library, sae, other, asked):
    find_by_text(library, sae, TEXT)
    assert asked == [ProseRowsTask, ReadTask]
    find_by_text(library, sae, "A house")
    find_by_text(library, other, TEXT)
    assert asked == [ProseRowsTask, ReadTask, ReadTask, ReadTask]


def test_a_long_text_is_encoded_in_parts(library, sae, monkeypatch):
    whole = find_by_text(library, sae, TEXT, top=200)
    entry = library.find(sae)
    encoder = library.encoder(entry)
    object.__setattr__(encoder, "chunk_bytes", 1)
    parts = find_by_text(library, sae, TEXT, top=200)
    assert features(parts) == features(whole)
    assert [one.figures for one in parts.features] == [pytest.approx(one.figures, rel=1e-4) for one in whole.features]
    assert len(parts.tokens) == len(whole.tokens)


# By tokens


@pytest.mark.parametrize("weights", ["encoder", "decoder", "mix", "mapped", "pullback"])
@pytest.mark.parametrize("tokens", ["#120", "#70 - #80*0.5 + #90"])
def test_the_cosine_is_that_of_each_features_own_direction(library, sae, weights, tokens, asked):
    found = find_by_tokens(library, sae, tokens, weights=weights, top=200)
    needs = {"mapped": [ScanTask], "pullback": [PullbackRowsTask]}
    assert asked == needs.get(weights, []), "else the weights alone"
    target = resolve(library, VectorRecipe(sae=sae, feature=0, weights=weights))
    meant = [(120, 1.0)] if tokens == "#120" else [(70, 1.0), (80, -0.5), (90, 1.0)]
    towards = torch.nn.functional.normalize(token_sum(target.subject.space, meant, centroid=True), dim=0)
    assert sorted(features(found)) == list(range(FEATURES))
    for one in found.features:
        target = resolve(library, VectorRecipe(sae=sae, feature=one.feature, weights=weights))
        finish(scans(target), library)
        heading = recipe_heading(finish(with_pullbacks(target), library))
        assert one.figures["cosine"] == pytest.approx(float(heading.f @ towards), abs=2e-3)
    cosines = [one.figures["cosine"] for one in found.features]
    assert cosines == sorted(cosines, reverse=True)


def test_a_feature_that_looks_for_a_token_is_found_by_it(library, folder, model, other):
    E = library.subject(model).space
    W_enc = (E.E[100:104] - E.centroid).T
    name = str(write_sae(folder / "of-tokens", W_enc=W_enc, W_dec=-W_enc.T, hook="hook_embed", model=model))
    found = find_by_tokens(library, name, "#102", top=1)
    assert features(found) == [2] and found.features[0].figures["cosine"] == pytest.approx(1)
    assert find_by_tokens(library, name, "#102", weights="decoder", top=4).features[-1].feature == 2
    assert find_by_tokens(library, name, "#102 + #103", top=2).features[1].figures["cosine"] > 0.5


def test_a_feature_without_a_direction_is_left_out(library, folder, model):
    W = torch.eye(D)[:, :4].clone()
    W[:, 1], W[0, 2] = 0, torch.nan
    name = str(write_sae(folder / "dead", W_enc=W, W_dec=W.T, hook="hook_embed", model=model))
    assert set(features(find_by_tokens(library, name, "#102"))) == {0, 3}
    assert set(features(find_like(library, name, 0))) == {3}


def test_what_fires_on_a_token_is_told_by_a_scan_or_by_reading_it(library, sae, asked):
    fires = activations(library, sae, [(120,)])[0][0]
    order = fires.argsort(descending=True).tolist()[: int((fires > 0).sum())]
    found = find_by_tokens(library, sae, "#120", measure="activation", top=200)
    assert features(found) == order and asked == [ReadTask]
    assert [one.figures["activation"] for one in found.features] == pytest.approx(fires[order].tolist())
    assert found.columns == ("cosine", "activation")
    assert find_by_tokens(library, sae, "#120").columns == ("cosine",)

    target = resolve(library, VectorRecipe(sae=sae, feature=0))
    finish(scans(target, always=True), library)
    asked.clear()
    scanned = find_by_tokens(library, sae, "#120", top=200)
    assert {one.feature: one.figures["activation"] for one in scanned.features} == pytest.approx(
        dict(enumerate(fires.tolist())), abs=2e-3 * float(fires.max()))
    assert features(find_by_tokens(library, sae, "#120", measure="activation", top=3)) == order[:3]
    assert find_by_tokens(library, sae, "#120*-1").columns == ("cosine",)  # away from a token: nothing fires on that
    assert asked == []


# By likeness


def test_the_features_nearest_to_a_feature_are_found_in_its_sae_and_in_others(library, folder, model, sae, other):
    W_enc, W_dec = torch.randn(2, D, 3, generator=torch.Generator().manual_seed(5))
    W_dec = W_dec.T
    W_dec[1] = 2 * library.sae(library.find(sae)).W_dec[7]
    W_enc[:, 2] = -library.sae(library.find(sae)).W_enc[:, 7]
    twin = str(write_sae(folder / "twin", W_enc=W_enc, W_dec=W_dec, hook=HOOK, model=model))
    found = find_like(library, sae, 7, among=[sae, twin], top=200)
    assert len(found.features) == FEATURES - 1 + 3
    assert (found.features[0].sae, found.features[0].feature) == (library.find(twin).name, 1)
    assert found.features[0].figures["cosine"] == pytest.approx(1)
    assert (library.find(sae).name, 7) not in [(one.sae, one.feature) for one in found.features]
    last = find_like(library, sae, 7, by="encoder", among=[twin], top=3).features[-1]
    assert (last.feature, last.figures["cosine"]) == (2, pytest.approx(-1))
    assert {one.sae for one in find_like(library, sae, 7).features} == {library.find(sae).name}
    assert found.settings["among"] == [library.find(sae).name, library.find(twin).name]


def test_saes_of_another_model_or_width_are_refused(library, folder, model, sae):
    small = str(random_sae(folder / "small", 16, 4, hook=HOOK, model=model))
    with pytest.raises(UserError, match="among has .*small, whose directions have 16 entries, and those of .* have 32"):
        find_like(library, sae, 1, among=[small])
    with pytest.raises(UserError, match="which belongs to demo/SmolLM2.*Features are compared among SAEs of the same"):
        find_like(library, sae, 1, among=["demo/hook_embed"])


# What is told of them


def test_a_description_is_of_what_fires_or_of_the_nearest_tokens(library, folder, model, tokenizer):
    E = library.subject(model).space
    W_enc = (E.E[[70, 71]] - E.centroid).T
    path = write_sae(folder / "told", W_enc=W_enc, W_dec=W_enc.T, hook="hook_embed", model=model)
    contexts = [[["", token, "", 1.0] for token in (" Rain", " rain", "\n", "rains", "x" * 99, "snow", "ice")], []]
    (path / "contexts.json").write_text(json.dumps({"features": contexts}), encoding="utf-8")
    target = resolve(library, VectorRecipe(sae=str(path), feature=0))
    kept, nearest = described(target, target.sae.entry, [0, 1])
    assert kept == f"Rain, rains, {'x' * 30}, snow"
    assert nearest.split(", ")[0] == target.subject.token_texts[71].strip() and len(nearest.split(", ")) == 4


def test_a_dead_feature_is_told_to_be_one(library, folder, model):
    W = torch.eye(D)[:, :3].clone()
    W[:, 1], W[0, 2] = 0, torch.nan
    path = write_sae(folder / "dead-told", W_enc=W, W_dec=torch.eye(D)[:3], hook="hook_embed", model=model)
    target = resolve(library, VectorRecipe(sae=str(path), feature=0))
    told = described(target, target.sae.entry, [0, 1, 2])
    assert not told[0].startswith("dead") and told[1] == told[2] == "dead: its encoder weights are zero, or no numbers"


def test_an_atlas_that_was_made_of_an_saes_folder_describes_it(tmp_path, sae):
    atlas = atlas_material.write_atlas(tmp_path / "atlas", [atlas_material.row(3, [("a dog", 0.5)], sae=sae)])
    library = Library(device="cpu", dtype="float32", allow_folder=True, atlas=str(atlas))
    target = resolve(library, VectorRecipe(sae=sae, feature=0))
    told, _ = described(target, target.sae.entry, [3, 4])
    assert told == "a dog"


def test_what_is_found_is_a_table_and_json(library, sae):
    found = find_by_tokens(library, sae, "#120", weights="decoder", top=2)
    assert found.headings == ("rank", "sae", "feature", "cosine", "description")
    assert [len(row) for row in found.rows] == [5, 5]
    recipe, rows = csv_files.read(found.to_csv())
    assert tuple(rows[0]) == found.headings and len(rows) == 3
    assert recipe == found.settings | {"schema": "sae-multitool/found-features/1", "sentence": found.sentence}
    told = found.to_dict()
    assert told["schema"] == "sae-multitool/found-features/1" and "tokens" not in told
    assert [one["feature"] for one in told["features"]] == features(found)
    assert told["settings"].items() >= {"tokens": "#120", "weights": "decoder", "measure": "cosine", "top": 2}.items()
    assert "<table>" in found._repr_html_()
    json.dumps(find_by_text(library, sae, TEXT).to_dict(), allow_nan=False)


# What cannot be


BY_TEXT, BY_TOKENS, LIKE = (partial(kind, sae="demo/x") for kind in (TextSearch, TokenSearch, LikenessSearch))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: BY_TEXT(text=7), "text is 7; it must be a text."),
        (lambda: BY_TEXT(text="x", top=0), "top is 0; it must be a whole number from 1 to 200."),
        (lambda: BY_TOKENS(tokens=""), "tokens is ''; it cannot be read."),
        (lambda: BY_TOKENS(tokens="king -man"), "it cannot be read from '-man' on"),
        (lambda: BY_TOKENS(tokens="rain", weights="vocabulary"), "valid are encoder, decoder, mix, mapped, pullback;"),
        (lambda: BY_TOKENS(tokens="rain", weights="centroid"), "so order by activation instead."),
        (lambda: BY_TOKENS(tokens="rain", measure="dot"), "measure is 'dot'; valid are cosine, activation."),
        (lambda: BY_TOKENS(tokens="king - man", measure="activation"), "features fire on real tokens only"),
        (lambda: BY_TOKENS(tokens="king*-1", measure="activation"), "features fire on real tokens only"),
        (lambda: LIKE(feature=-1), "feature is -1; it must be a whole number from 0 up."),
        (lambda: LIKE(feature=1, by="mix"), "by is 'mix'; valid are decoder, encoder."),
        (lambda: LIKE(feature=1, among=[7]), "a name in among is 7; it must be a text."),
        (lambda: LIKE(feature=1, among=["x"] * 33), "it must be a list of at most 32 SAEs' names"),
    ],
)
def test_what_cannot_be_looked_for_is_said_before_anything_is_loaded(make, said):
    with pytest.raises(UserError) as error:
        make()
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [("", "The text is empty."), (" \n", "The text is empty."), ("x" * 1_000_000, "The text has 1,000,000 characters"),
     ("x " * 2000, "tokens; it can have at most 255")],
)
def test_a_text_that_cannot_be_read_is_said_before_the_model_runs(library, sae, asked, text, said):
    with pytest.raises(UserError, match=said):
        find_by_text(library, sae, text)
    assert asked == []


def test_tokens_and_features_that_there_are_not_are_said(library, sae, asked):
    with pytest.raises(UserError, match="tokens has 'barking', which is no single token of .*: it splits into"):
        find_by_tokens(library, sae, "barking")
    with pytest.raises(UserError, match="These tokens cancel"):
        find_by_tokens(library, sae, "#5 - #5")
    with pytest.raises(UserError, match="feature is 40; .* has 40 features, numbered 0 to 39"):
        find_like(library, sae, 40)
    assert asked == []


# The demo


@pytest.mark.slow
def test_features_of_rain_are_found_in_the_demo(demo_library):
    find = partial(find_by_tokens, demo_library, "demo/hook_embed")
    for tokens in ("rain", '" rain"', "rain + snow"):
        assert features(find(tokens))[0] == 927, tokens
    assert "rain" in find("rain").features[0].description
    assert find("rain").settings["weights"] == "pullback", "what suits lists of the SAE"
    assert features(find("rain", measure="activation"))[0] == 927
    assert features(find_by_text(demo_library, "demo/hook_embed", "We had rain all day."))[0] == 927
    behind = "demo/blocks.6.hook_resid_post"
    found = find_by_text(demo_library, behind, "It was raining all day")
    assert 941 in features(found)[:3], "which fires on clouds and rain"
    assert dict(found.tokens[3].features).keys() >= {941} and found.tokens[3].token == "ining"
    assert features(find_by_tokens(demo_library, behind, "rain"))[0] == 941
    like = find_like(demo_library, behind, 150)
    assert like.settings["among"] == [behind, "demo/hook_embed", "demo/blocks.1.hook_resid_post",
                                      "demo/blocks.12.hook_resid_post"]
    assert like.features[0].sae == "demo/blocks.12.hook_resid_post" and like.features[0].feature == 731, "war"
