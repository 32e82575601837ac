"""Settings that find themselves: tried in one batch, judged on what did not choose them."""

import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny import random_sae, tiny_model, write_model

from multitool.errors import UserError
from multitool.jobs import trials
from multitool.jobs.candidates import GRID, INJECTED, PUBLISHED, RANDOM, Candidate, candidates_for
from multitool.jobs.local import definition_tree, finish, scan_if_missing, suggest, try_features
from multitool.jobs.study import Study
from multitool.jobs.suggest import Setting, Suggestion, suggest_job
from multitool.jobs.trials import Figures, Trial
from multitool.recipes.recipe import TreeRecipe, VectorRecipe
from multitool.store.library import Library

TREE = TreeRecipe(cutoff=0.02, max_depth=4)


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    place = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SAE_MULTITOOL_CACHE", str(place))
        yield Library(dtype="float32", device="cpu", allow_folder=True)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory, library, tokenizer):
    """Feature 1 of a random SAE on a tiny model, whose vocabulary is scanned."""
    place = tmp_path_factory.mktemp("folders")
    model = write_model(place / "model", tiny_model("llama"), tokenizer)
    found = VectorRecipe(sae=str(random_sae(place / "sae", d_model=32, d_sae=40, model=str(model))), feature=1)
    scan_if_missing(library, found, always=True)
    return found


def figures(**known) -> Figures:
    plain = {"hit_rate": 0.5, "auroc": 0.5, "rank": 2.0, "found": 0.5, "list_average_precision": 0.1, "list_auroc": 0.5}
    return Figures(**plain | known)


def trial(feature: int, candidate: Candidate, judged: float, choosing: float | None = None, **known) -> Trial:
    scores = judged if choosing is None else choosing, judged
    halves = [figures(found=score, list_average_precision=score) for score in scores]
    return Trial(feature, candidate, *halves, known.get("text_rank"), known.get("self_similarity", 0.0))


def tried(library: Library, recipe: VectorRecipe, features, candidates) -> list[Trial]:
    parts = try_features(library, recipe, features, TREE, candidates=candidates)
    return [trial for part in parts for trial in part]


ENCODER, DECODER = PUBLISHED


def test_the_grid_holds_the_published_settings_and_nothing_twice():
    assert set(PUBLISHED) < set(GRID)
    assert len(set(GRID)) == len(GRID) == 5 * 4 * 2
    assert RANDOM not in GRID


def test_a_candidates_recipe_has_the_scale_in_the_models_units(library, recipe):
    _, subject = library.load(library.find(recipe.sae))
    doubled = Candidate("decoder", 2.0, (0.2,)).of(recipe, subject)
    assert doubled == replace(recipe, weights="decoder", scale=2 * subject.space.mean_distance, pca=(0.2,))
    assert ENCODER.of(recipe, subject).scale is None, "the usual scale stays the usual scale"


def test_the_score_is_the_mean_of_being_found_and_of_the_list():
    assert figures(found=0.4, list_average_precision=0.2).score == pytest.approx(0.3)
    assert figures(found=0.4, list_average_precision=None).score == pytest.approx(0.4)


def test_one_half_chooses_and_the_other_is_shown(recipe):
    lucky, good = trial(1, ENCODER, judged=0.1, choosing=0.9), trial(1, DECODER, judged=0.6, choosing=0.5)
    settings = [Setting(trial, recipe, TREE, said) for trial, said in ((lucky, ()), (good, ("a dog", "the …")))]
    found = Suggestion(tuple(settings), "float32")
    assert found.best is lucky
    score = found.columns.index("score")
    assert [row[score] for row in found.rows] == pytest.approx([0.1, 0.6])
    assert [row[score - 1] for row in found.rows] == pytest.approx([0.9, 0.5])
    told = found.to_dict()["trials"]
    assert [facts["score"] for facts in told] == pytest.approx([0.1, 0.6])
    assert [facts["definitions"] for facts in told] == [[], ["a dog", "the …"]]
    assert [row[-1] for row in found.rows] == ["", "a dog · the …"]


def test_a_suggestion_has_every_setting_and_says_which_is_best(library, recipe):
    found = suggest(library, recipe, TREE)
    sae, subject = library.load(library.find(recipe.sae))
    assert {trial.candidate for trial in found.trials} == set(candidates_for(sae.entry, subject)) > set(GRID)
    chosen_by = [trial.choosing.score for trial in found.trials]
    assert chosen_by == sorted(chosen_by, reverse=True)
    assert found.recipe.weights == found.best.candidate.weights
    assert str(found.best.candidate) in found.sentence
    assert all(len(row) == len(found.columns) for row in found.rows)
    assert found.tree == found.best.candidate.growth(TREE)
    assert [facts["scale"] for facts in found.to_dict()["trials"]] == [one.recipe.scale for one in found.settings]
    # Each can be followed, and then says what it said when it was tried: here none grows beyond the small tree.
    for setting in (found.settings[0], found.settings[len(found.settings) // 2]):
        grown = definition_tree(library, setting.recipe, setting.tree)
        said = [one.text if one.complete else f"{one.text} …" for one in grown.definitions(5)]
        assert said and list(setting.definitions) == said


def test_injections_are_tried_where_an_sae_reads_behind_a_layer_and_one_is_left_to_read_them(library, recipe):
    entry = library.find(recipe.sae)

    def of_layers(n_layers: int | None):
        return SimpleNamespace(n_layers=n_layers)

    assert candidates_for(entry, of_layers(1)) == GRID
    assert candidates_for(entry, of_layers(None)) == candidates_for(entry, of_layers(30)) == (*GRID, *INJECTED)
    some = candidates_for(entry, of_layers(3))[len(GRID):]  # after layers 0 and 1 there is one left
    assert some == tuple(candidate for candidate in INJECTED if candidate.inject_layer <= 1)
    on_the_embedding = candidates_for(replace(entry, kind="embed", layer=None), of_layers(30))
    assert on_the_embedding == tuple(candidate for candidate in GRID if candidate.weights != "pullback")
    assert all(candidate.inject_layer >= 0 and not candidate.pca for candidate in INJECTED)


INJECTED_HERE = Candidate("decoder", inject_layer=0)


def test_an_injected_candidates_recipes_are_the_plain_vector_and_a_growth_that_injects_it(library, recipe):
    _, subject = library.load(library.find(recipe.sae))
    assert INJECTED_HERE.of(recipe, subject) == replace(recipe, weights="decoder")
    added = Candidate("decoder", inject_layer=0, inject_mode="add", inject_scale=2.0)
    assert added.growth(TREE) == replace(TREE, inject_layer=0, inject_mode="add", inject_scale=2.0)
    grown = INJECTED_HERE.growth(replace(added.growth(TREE), clamp=1.0))
    assert (grown.inject_layer, grown.inject_mode, grown.inject_scale) == (0, "replace", 1.0)
    assert (grown.clamp, grown.cutoff) == (1, TREE.cutoff), "what else the tree is grown with stays"
    assert ENCODER.growth(grown).inject_layer == -1
    assert str(INJECTED_HERE) == "decoder, put in after layer 0"
    assert str(added) == "decoder, added 2 × after layer 0"


def test_an_injected_trial_reads_the_definitions_of_the_injected_tree(library, recipe, monkeypatch):
    asked, do = [], library.do

    def noted(task):
        for part in do(task):
            asked.append((task, part))
            yield part

    monkeypatch.setattr(library, "do", noted)
    plain, injected = tried(library, recipe, [1], [DECODER, INJECTED_HERE])
    (_, _), (first, (embedded,)), (second, (put_in,)) = asked  # the controls, and a task for each place
    assert first.growth.interventions is None
    assert second.growth.interventions.injection.layer == 0
    grown = definition_tree(library, INJECTED_HERE.of(recipe, None), INJECTED_HERE.growth(TREE))
    assert sorted(put_in.tree.token_id) == sorted(grown.tree.token_id)
    assert sorted(put_in.tree.token_id) != sorted(embedded.tree.token_id)
    assert put_in.last_residual is None and injected.self_similarity is None and plain.self_similarity is not None
    # The list is that of the plain vector.
    assert injected.judged.list_average_precision == plain.judged.list_average_precision


def test_what_is_suggested_with_an_injection_tells_it(library, recipe):
    found = finish(suggest_job(library, recipe, TREE, candidates=(INJECTED_HERE,)), library)
    assert found.tree == replace(TREE, inject_layer=0)
    assert found.to_dict()["growth"] == {"inject_layer": 0, "inject_mode": "replace", "inject_scale": 1.0}
    assert found.to_dict()["trials"][0]["inject_layer"] == 0
    assert found.rows[0][: found.columns.index("injected") + 1] == ["decoder", 1.0, "", "layer 0"]
    assert definition_tree(library, found.recipe, found.tree).settings["inject_layer"] == 0


def test_a_table_tells_an_injection_in_short():
    added = Candidate("decoder", inject_layer=1, inject_mode="add", inject_scale=3.0)
    study = Study([trial(0, added, 0.2), trial(0, ENCODER, 0.1)])
    assert [row[study.columns.index("injected")] for row in study.rows] == ["layer 1, +3 ×", ""]


def test_trials_are_the_same_one_by_one_and_together(library, recipe):
    candidates = [ENCODER, INJECTED_HERE, Candidate("vocabulary", 0.7), RANDOM]
    together = tried(library, recipe, [1, 5], candidates)
    alone = [trial for i in (1, 5) for trial in tried(library, recipe, [i], candidates)]
    assert [(trial.feature, trial.candidate) for trial in together] == [(i, one) for i in (1, 5) for one in candidates]
    for one, other in zip(together, alone, strict=True):
        assert one.judged.rank == other.judged.rank
        assert one.judged.score == pytest.approx(other.judged.score, abs=1e-4)


def test_random_directions_score_at_chance(library, recipe):
    study = Study(tried(library, recipe, range(40), [RANDOM]))
    _, low, high = study.mean(RANDOM, "AUROC")
    assert low < 0.5 + 0.05
    assert high > 0.5 - 0.05
    ranks = [trial.judged.rank for trial in study.trials]
    assert np.mean(ranks) == pytest.approx(20.5, abs=6)
    _, low, high = study.mean(RANDOM, "list AUROC")
    assert low < 0.55
    assert high > 0.45


def test_a_study_compares_feature_by_feature():
    study = Study([
        trial(0, ENCODER, 0.1), trial(1, ENCODER, 0.3), trial(2, ENCODER, 0.9),
        trial(0, DECODER, 0.3), trial(1, DECODER, 0.5),
    ])
    assert study.n_features(ENCODER) == 3
    assert study.mean(DECODER, "score")[0] == pytest.approx(0.4)
    mean, low, high = study.difference(DECODER, ENCODER, "score")  # on features 0 and 1
    assert (mean, low, high) == pytest.approx((0.2, 0.2, 0.2))
    assert study.candidates[0] == ENCODER
    assert [row[study.columns.index("features")] for row in study.rows] == [3, 2]


def test_a_study_chooses_for_each_feature_by_its_choosing_half():
    study = Study([
        trial(0, ENCODER, judged=0.2, choosing=0.9), trial(0, DECODER, judged=0.8, choosing=0.1),
        trial(1, ENCODER, judged=0.2, choosing=0.1), trial(1, DECODER, judged=0.8, choosing=0.9),
    ])
    assert [found.candidate for found in study.chosen_each()] == [ENCODER, DECODER]


def test_what_nobody_could_measure_is_left_out():
    study = Study([trial(0, ENCODER, 0.1, self_similarity=None), trial(1, ENCODER, 0.1, text_rank=11),
                   trial(2, ENCODER, 0.1, text_rank=10)])
    assert study.mean(ENCODER, "text tokens@10")[0] == 0.5
    assert math.isnan(Study([trial(0, ENCODER, 0.1)]).mean(ENCODER, "text tokens@10")[0])
    study = Study([trial(0, ENCODER, 0.1)])
    assert study.rows[0][study.columns.index("text tokens@10")] is None


def test_a_feature_that_is_not_there_is_refused(library, recipe):
    with pytest.raises(UserError, match="feature is 40"):
        tried(library, recipe, [40], [ENCODER])


def test_the_tokens_that_fire_a_feature_most_count_for_no_setting(library, recipe, monkeypatch):
    """Whatever a setting says: on those tokens neither its definitions nor its list are judged."""
    seen = []
    monkeypatch.setattr(
        trials, "strongest", lambda fires, text, used: seen.append(used) or np.zeros(fires.shape[1])
    )
    counted = []
    monkeypatch.setattr(trials, "average_precision", lambda fit, fires: counted.append(fires) or 0.0)
    tried(library, recipe, [1], [ENCODER])
    entry = library.find(recipe.sae)
    scan = library.scan(entry, library.subject(entry.model))
    fires = library.activations(entry, scan, [1])[1:300, 0]  # those that texts are made of
    most = set((1 + torch.where(fires > fires.sort().values[-15])[0]).tolist())
    assert most <= set(np.flatnonzero(seen[0]))
    assert all(np.array_equal(used, seen[0]) for used in seen)
    assert sum(map(np.sum, counted)) <= int((fires > 0).sum()) - 20
