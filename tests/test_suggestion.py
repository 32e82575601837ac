"""Settings that find themselves: tried in one batch, judged on what did not choose them."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny import random_sae, tiny_model, write_model

from multitool.engine import definition_tree, scan_if_missing, suggest
from multitool.errors import UserError
from multitool.library import Library
from multitool.recipe import TreeRecipe, VectorRecipe
from multitool.suggestion import (
    GRID,
    MEASURED,
    PUBLISHED,
    RANDOM,
    Figures,
    Setting,
    Study,
    Suggestion,
    Trial,
    try_features,
)

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


def trial(feature: int, setting: Setting, judged: float, choosing: float | None = None, **known) -> Trial:
    scores = judged if choosing is None else choosing, judged
    halves = [figures(found=score, list_average_precision=score) for score in scores]
    return Trial(feature, setting, *halves, known.get("text_rank"), known.get("self_similarity", 0.0))


ENCODER, DECODER = PUBLISHED


def test_the_grid_holds_the_published_settings_and_nothing_twice():
    assert set(PUBLISHED) < set(GRID)
    assert len(set(GRID)) == len(GRID) == 4 * 4 * 2
    assert RANDOM not in GRID


def test_a_settings_recipe_has_the_scale_in_the_models_units(library, recipe):
    _, subject = library.load(library.find(recipe.sae))
    doubled = Setting("decoder", 2.0, (0.2,)).of(recipe, subject)
    assert doubled == replace(recipe, weights="decoder", scale=2 * subject.space.mean_distance, pca=(0.2,))
    assert ENCODER.of(recipe, subject).scale is None, "the usual scale stays the usual scale"


def test_the_score_is_the_mean_of_being_found_and_of_the_list():
    assert figures(found=0.4, list_average_precision=0.2).score == pytest.approx(0.3)
    assert figures(found=0.4, list_average_precision=None).score == pytest.approx(0.4)


def test_one_half_chooses_and_the_other_is_shown(recipe):
    lucky, good = trial(1, ENCODER, judged=0.1, choosing=0.9), trial(1, DECODER, judged=0.6, choosing=0.5)
    found = Suggestion(replace(recipe, weights="encoder"), (lucky, good))
    assert found.best is lucky
    score = found.columns.index("score")
    assert [row[score] for row in found.rows] == pytest.approx([0.1, 0.6])
    assert [row[score - 1] for row in found.rows] == pytest.approx([0.9, 0.5])
    assert [facts["score"] for facts in found.to_dict()["trials"]] == pytest.approx([0.1, 0.6])


def test_a_suggestion_has_every_setting_and_says_which_is_best(library, recipe):
    found = suggest(library, recipe, TREE)
    assert {trial.setting for trial in found.trials} == set(GRID)
    chosen_by = [trial.choosing.score for trial in found.trials]
    assert chosen_by == sorted(chosen_by, reverse=True)
    assert found.recipe.weights == found.best.setting.weights
    assert str(found.best.setting) in found.sentence
    assert all(len(row) == len(found.columns) for row in found.rows)
    definition_tree(library, found.recipe, TREE)  # it can be followed


def test_trials_are_the_same_one_by_one_and_together(library, recipe):
    settings = [ENCODER, Setting("vocabulary", 0.7), RANDOM]
    together = [trial for part in try_features(library, recipe, TREE, [1, 5], settings) for trial in part]
    alone = [trial for i in (1, 5) for part in try_features(library, recipe, TREE, [i], settings) for trial in part]
    tried = [(trial.feature, trial.setting) for trial in together]
    assert tried == [(i, setting) for i in (1, 5) for setting in settings]
    for one, other in zip(together, alone, strict=True):
        assert one.judged.rank == other.judged.rank
        assert one.judged.score == pytest.approx(other.judged.score, abs=1e-4)


def test_random_directions_score_at_chance(library, recipe):
    study = Study([trial for part in try_features(library, recipe, TREE, range(40), [RANDOM]) for trial in part])
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
    assert study.settings[0] == ENCODER
    assert [row[3] for row in study.rows] == [3, 2]


def test_a_study_chooses_for_each_feature_by_its_choosing_half():
    study = Study([
        trial(0, ENCODER, judged=0.2, choosing=0.9), trial(0, DECODER, judged=0.8, choosing=0.1),
        trial(1, ENCODER, judged=0.2, choosing=0.1), trial(1, DECODER, judged=0.8, choosing=0.9),
    ])
    assert [found.setting for found in study.chosen_each()] == [ENCODER, DECODER]


def test_what_nobody_could_measure_is_left_out():
    study = Study([trial(0, ENCODER, 0.1, self_similarity=None), trial(1, ENCODER, 0.1, text_rank=11),
                   trial(2, ENCODER, 0.1, text_rank=10)])
    assert study.mean(ENCODER, "text tokens@10")[0] == 0.5
    assert math.isnan(Study([trial(0, ENCODER, 0.1)]).mean(ENCODER, "text tokens@10")[0])
    assert Study([trial(0, ENCODER, 0.1)]).rows[0][4 + list(MEASURED).index("text tokens@10")] is None


def test_a_feature_that_is_not_there_is_refused(library, recipe):
    with pytest.raises(UserError, match="feature is 40"):
        list(try_features(library, recipe, TREE, [40], [ENCODER]))


def test_the_tokens_that_fire_a_feature_most_count_for_no_setting(library, recipe, monkeypatch):
    """Whatever a setting says: on those tokens neither its definitions nor its list are judged."""
    from multitool import suggestion as module

    seen = []
    monkeypatch.setattr(
        module, "strongest", lambda fires, text, used: seen.append(used) or np.zeros(fires.shape[1])
    )
    counted = []
    monkeypatch.setattr(module, "average_precision", lambda fit, fires: counted.append(fires) or 0.0)
    list(try_features(library, recipe, TREE, [1], [ENCODER]))
    entry = library.find(recipe.sae)
    scan = library.scan(entry, library.subject(entry.model))
    fires = library.activations(entry, scan, [1])[1:300, 0]  # those that texts are made of
    most = set((1 + torch.where(fires > fires.sort().values[-15])[0]).tolist())
    assert most <= set(np.flatnonzero(seen[0]))
    assert all(np.array_equal(used, seen[0]) for used in seen)
    assert sum(map(np.sum, counted)) <= int((fires > 0).sum()) - 20
