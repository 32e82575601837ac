"""Token lists the whole way on a tiny model: every measure with its column, its settings and its evidence."""

import json
from dataclasses import dataclass

import csv_files
import numpy as np
import pytest
import torch
from tiny import random_sae, tiny_model, write_model, write_sae

from multitool.errors import UserError
from multitool.jobs.features import feature_source, resolve
from multitool.jobs.lenses import fitted
from multitool.jobs.local import finish, scan_if_missing, token_table
from multitool.jobs.steering import STRENGTHS
from multitool.jobs.token_table import TOKEN_COLUMNS
from multitool.model.logit_lens import lens_logits
from multitool.model.token_change import change_tokens
from multitool.recipes.recipe import LENSES, MEASURES, ListRecipe, VectorRecipe
from multitool.store.library import Library

EVERYTHING = 10_000
OWN_COLUMN = ("cosine", "dot", *LENSES)


@dataclass(frozen=True)
class World:
    library: Library
    model: object
    vector: VectorRecipe

    def table(self, recipe: ListRecipe, **options):
        vector = options.pop("vector", self.vector)
        return token_table(self.library, vector, recipe, **options)


@pytest.fixture(scope="module")
def world(tmp_path_factory, tokenizer):
    folder = tmp_path_factory.mktemp("lists")
    model = tiny_model("llama_untied")
    write_model(folder / "model", model, tokenizer)
    sae = random_sae(folder / "sae", 32, model=str(folder / "model"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SAE_MULTITOOL_CACHE", str(folder / "cache"))
        library = Library(dtype="float32", device="cpu", allow_folder=True, bars=False)
        vector = VectorRecipe(sae=str(sae), feature=2, weights="encoder")
        scan_if_missing(library, vector, always=True)
        yield World(library, model, vector)


def column(table, name: str) -> list:
    return [row[table.columns.index(name)] for row in table.rows]


@pytest.mark.parametrize("evidence", [False, True])
@pytest.mark.parametrize("measure", MEASURES)
def test_a_list_by_another_measure_has_a_column_more(world, measure, evidence):
    table = world.table(ListRecipe(measure=measure, top=7), evidence=evidence)
    own = (measure,) if measure in OWN_COLUMN else ()
    fires = ("activation",) if evidence or measure == "activation" else ()
    more = ("change",) * evidence if measure in LENSES else fires
    assert table.columns == (*TOKEN_COLUMNS, *own, *more)
    recipe, (header, *rows) = csv_files.read(table.to_csv())
    assert recipe.items() >= (table.settings | {"vector": table.vector}).items()
    assert header == list(table.columns)
    written = json.loads(json.dumps(table.to_dict(), allow_nan=False))
    assert [list(token.values()) for token in written["tokens"]] == table.rows
    assert all(tuple(token) == table.columns for token in written["tokens"])
    assert [row[1] for row in rows] == column(table, "token")


@pytest.mark.parametrize("negative", [False, True])
@pytest.mark.parametrize("measure", [measure for measure in MEASURES if measure != "activation"])
def test_the_settings_of_a_list_make_it_again(world, measure, negative):
    table = world.table(ListRecipe(measure=measure, top=7, negative=negative, words=True))
    settings = json.loads(json.dumps(table.to_dict()))["settings"]
    recipe = ListRecipe(**{name: settings[name] for name in ListRecipe.__dataclass_fields__})
    assert (recipe.measure, recipe.negative, recipe.words) == (measure, negative, True)
    assert world.table(recipe) == table


@pytest.mark.parametrize("measure", [measure for measure in MEASURES if measure != "activation"])
def test_both_ends_are_one_list_and_only_words_leaves_the_others_out(world, measure):
    whole, other_end = (
        world.table(ListRecipe(measure=measure, top=EVERYTHING, negative=negative)) for negative in (False, True)
    )
    values = column(whole, measure)
    assert len(values) == 304
    assert values == sorted(values, reverse=measure != "score")
    assert column(other_end, measure) == values[::-1]
    assert column(other_end, "token_id") == column(whole, "token_id")[::-1]
    words = column(world.table(ListRecipe(measure=measure, top=EVERYTHING, words=True)), "token")
    assert words == [word for word in column(whole, "token") if word.startswith(" ") and word[1:].isalpha()]
    assert len(words) > 10


def test_a_list_of_no_words_has_its_columns_too(world, monkeypatch):
    subject = world.library.subject(world.library.find(world.vector.sae).model)
    monkeypatch.setattr(subject, "words", np.zeros(304, dtype=bool))
    table = world.table(ListRecipe(measure="dot", words=True))
    assert (table.rows, table.columns) == ([], (*TOKEN_COLUMNS, "dot"))
    assert csv_files.read(table.to_csv())[1] == [list(table.columns)]


@pytest.mark.parametrize("vector", [{}, {"centroid": False}, {"pca": [0.3, -0.2], "scale": 2.0}], ids=str)
def test_the_logit_lens_reads_the_direction_without_the_centroid(world, vector):
    recipe = VectorRecipe(**vars(world.vector) | vector)
    table = world.table(ListRecipe(measure="logit_lens", top=EVERYTHING), vector=recipe)
    target = resolve(world.library, recipe)
    encoder, space = feature_source(target).weights.encoder, target.subject.space
    f = encoder / encoder.norm()
    g = (1 - sum(recipe.pca)) * f + sum(w * p for w, p in zip(recipe.pca, space.components, strict=False))
    expected = lens_logits(world.model, (recipe.scale or space.mean_distance) * g[None])[0]
    assert column(table, "logit_lens") == pytest.approx(expected[column(table, "token_id")].tolist(), abs=1e-4)
    assert table.settings["dtype"] == "float32"


def test_no_other_measure_runs_the_model(world, monkeypatch):
    def run(*_):
        raise AssertionError("the model was asked for")

    monkeypatch.setattr(world.library, "run", run)
    for measure in MEASURES:
        if measure in LENSES:
            with pytest.raises(AssertionError, match="asked for"):
                world.table(ListRecipe(measure=measure))
        else:
            assert world.table(ListRecipe(measure=measure), evidence=True).rows


@pytest.mark.parametrize("words", [False, True])
@pytest.mark.parametrize("negative", [False, True])
@pytest.mark.parametrize("measure", ["score", "cosine", "dot"])
def test_a_list_is_judged_by_its_own_order(world, measure, negative, words):
    table = world.table(
        ListRecipe(measure=measure, negative=negative, words=words, top=EVERYTHING), evidence=True
    )
    source = feature_source(resolve(world.library, world.vector), scan=True)
    judged = [row for row in table.rows if source.countable[row[2]]]
    fires = [row[-1] > 0 for row in judged]
    places = [place for place, one in enumerate(fires, 1) if one]
    found = table.evidence
    assert (found.judged_on, found.firing, found.hits) == (len(judged), len(places), sum(fires[:10]))
    assert found.average_precision == pytest.approx(np.mean([n / place for n, place in enumerate(places, 1)]))
    assert 0 <= found.beaten_by <= 1 and found.average_precision_chance != found.average_precision


@pytest.mark.parametrize("negative", [False, True])
@pytest.mark.parametrize("measure", LENSES)
def test_a_list_by_lens_is_judged_by_what_the_feature_writes(world, monkeypatch, measure, negative):
    finish(fitted(resolve(world.library, world.vector)), world.library)
    asked, do = [], world.library.do
    monkeypatch.setattr(world.library, "do", lambda task: asked.append(task) or do(task))
    # Not by its weights, here the encoder's, but by the decoder's pushes; and no scan is needed.
    monkeypatch.setattr(world.library, "scan", None)
    recipe = ListRecipe(measure=measure, negative=negative, words=True, top=EVERYTHING)
    table = world.table(recipe, evidence=True)
    lens, pushes = asked
    target = resolve(world.library, world.vector)
    assert lens.directions.shape == (21, 32)
    assert np.linalg.norm(pushes.directions, axis=1) == pytest.approx([1])
    row = target.sae.feature(2).decoder.numpy()
    assert pushes.directions[0] @ row == pytest.approx(np.linalg.norm(row), rel=1e-5)
    assert (len(pushes.prompts), pushes.strengths) == (64, STRENGTHS)
    *_, (changes,) = change_tokens(world.model, pushes)
    assert column(table, "change") == pytest.approx(changes[column(table, "token_id")].tolist(), abs=1e-4)
    found, words = table.evidence, np.flatnonzero(target.subject.words)
    rise = -changes[words] if negative else changes[words]
    most = set(words[np.argsort(-rise)[:min(100, (rise > 0).sum())]].tolist())
    assert (found.judged_on, found.rising, found.other_end) == (len(words), len(most), negative)
    assert found.hits == len(most & set(column(table, "token_id")[:10]))
    places = [place for place, token in enumerate(column(table, "token_id"), 1) if token in most]
    assert found.average_precision == pytest.approx(np.mean([n / place for n, place in enumerate(places, 1)]))
    assert found.average_precision_chance != found.average_precision and table.to_dict()["evidence"]["verdict"]


def test_the_jacobian_lens_reads_the_direction_as_it_is_behind_the_last_layer(world):
    recipe = VectorRecipe(**vars(world.vector) | {"weights": "decoder", "scale": 3.0})
    target = resolve(world.library, recipe)
    lens = finish(fitted(target), world.library)
    table = world.table(ListRecipe(measure="jacobian_lens", top=EVERYTHING), vector=recipe)
    row = target.sae.feature(2).decoder
    expected = lens_logits(world.model, (lens.J @ (3 * row / row.norm()))[None])[0]
    assert column(table, "jacobian_lens") == pytest.approx(expected[column(table, "token_id")].tolist(), abs=1e-4)
    assert table.settings["lens"] == "fitted on 6 texts"


@pytest.mark.parametrize("measure", LENSES)
def test_a_lens_has_nothing_to_read_of_the_centroid_and_no_evidence_of_a_dead_decoder(world, tmp_path, measure):
    with pytest.raises(UserError, match=f"no direction for the {measure.replace('_', ' ')} to read"):
        world.table(ListRecipe(measure=measure), vector=world.vector.by("centroid"))
    target = resolve(world.library, world.vector)
    W = torch.eye(32, 4)
    dead = write_sae(tmp_path / "sae", W_enc=W, W_dec=0 * W.T, model=target.sae.entry.model)
    recipe = VectorRecipe(sae=str(dead), feature=0, weights="encoder")
    assert world.table(ListRecipe(measure=measure, top=3), vector=recipe).rows
    with pytest.raises(UserError, match="no direction to steer in .* List without evidence"):
        world.table(ListRecipe(measure=measure), vector=recipe, evidence=True)
