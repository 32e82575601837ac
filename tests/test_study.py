"""The study of the demo: what it keeps, how it goes on, and the page that it makes."""

import json
from functools import partial

import numpy as np
import pytest
from tiny import random_sae, tiny_model, write_model

from multitool.jobs.candidates import RANDOM
from multitool.recipes.recipe import LENSES
from multitool.store.library import Library
from multitool.trees.tree import ROOT, Tree
from scripts.lens_study import measured as lenses_measured
from scripts.study import measure
from scripts.study_bench import joined, kind_of, ordered_texts
from scripts.study_page import STUDIES, _lenses, page
from scripts.study_records import ONE_TOKEN, Records, bound, chosen, separated

HEAD = {"sae": "demo/hook_embed", "default": {"lists": "encoder", "trees": "encoder"}, "published": ["encoder"],
        "choosing": 2, "held_out": 2, "d_sae": 8}


def records(path, **more) -> Records:
    return Records(path / "figures.jsonl", HEAD | more)


def tree(parent, token_id, prob) -> Tree:
    n = len(parent)
    return Tree(np.array(parent), np.array(token_id), ("",) * n, np.ones(n), np.array(prob), np.zeros(n, dtype=bool))


def test_figures_are_there_again_and_a_line_that_was_cut_off_is_not(tmp_path):
    kept = records(tmp_path)
    kept.add("lists", [("encoder", 3, {"list AP": 0.5}), ("encoder", 4, None)])
    file = tmp_path / "figures.jsonl"
    with file.open("a") as at_the_end:
        at_the_end.write('["lists", "encoder", 5, {"list')
    again = records(tmp_path)
    assert [again.has("lists", "encoder", feature) for feature in (3, 4, 5)] == [True, True, False]
    assert again.figures("lists", "encoder") == {3: {"list AP": 0.5}}, "a feature without a vector has no figures"
    again.add("lists", [("encoder", 5, {"list AP": 0.7})])
    assert Records(file).mean("lists", "encoder", "list AP")[0] == pytest.approx(0.6)
    assert all(json.loads(line) for line in file.read_text().splitlines())


def test_figures_of_another_run_are_not_mixed_in(tmp_path):
    records(tmp_path)
    with pytest.raises(ValueError, match="another run"):
        records(tmp_path, choosing=3)


def test_a_difference_is_taken_feature_by_feature(tmp_path):
    kept = records(tmp_path)
    kept.add("trees", [("a", 1, {"MRR": 0.5}), ("a", 2, {"MRR": 0.9}), ("a", 3, {"MRR": 1.0}),
                       ("b", 1, {"MRR": 0.25}), ("b", 2, {"MRR": 0.65}), ("b", 3, None)])
    assert kept.difference("trees", "a", "b", "MRR") == pytest.approx((0.25, 0.25, 0.25))


def test_what_chooses_is_the_mean_over_all_features_and_neither_chance_nor_a_bound_is_chosen(tmp_path):
    kept = records(tmp_path)
    kept.add("choose lists", [("few", 1, {"list AP": 0.9}), ("few", 2, None), ("all", 1, {"list AP": 0.5}),
                              ("all", 2, {"list AP": 0.5}), (str(RANDOM), 1, {"list AP": 1.0}),
                              (separated(0.4), 1, {"list AP": 1.0}), (separated(0.1), 1, {"list AP": 0.2})])
    assert chosen(kept, "lists") == "all"
    assert bound(kept) == separated(0.4)


def test_joined_trees_share_what_they_have_in_common():
    one, other = tree([ROOT, 0], [5, 6], [1, 1]), tree([ROOT, 0, 0], [5, 7, 6], [1, 1, 1])
    whole, places = joined([one, other])
    assert len(whole) == 3
    assert [place.tolist() for place in places] == [[0, 1], [0, 2, 1]]
    assert whole.token_id.tolist() == [5, 6, 7] and whole.parent.tolist() == [ROOT, 0, 0]


def test_definitions_are_read_in_the_order_that_is_asked_for():
    grown = tree([ROOT, ROOT, 0], [5, 6, 7], [0.5, 0.4, 0.1])
    assert ordered_texts(grown, grown.cumulative_prob) == [(6,), (5, 7)]
    assert ordered_texts(grown, np.array([0.0, 1.0, 2.0])) == [(5, 7), (6,)]


def test_kinds_of_tokens():
    ids = {" dog": 1, " The": 2}
    kind = partial(kind_of, token_ids=ids)
    assert [kind(token) for token in (" the", " dog", "dog", "Dog", "ogs", " 7", ".")] == [
        "function word", "word", "word", "word", *["fragment or sign"] * 3]


@pytest.fixture
def tiny_sae(tmp_path, tokenizer, monkeypatch) -> str:
    monkeypatch.setenv("SAE_MULTITOOL_CACHE", str(tmp_path / "cache"))
    model = write_model(tmp_path / "model", tiny_model("llama"), tokenizer)
    return str(random_sae(tmp_path / "sae", d_model=32, d_sae=40, model=str(model)))


@pytest.mark.slow
def test_a_study_of_lenses_tells_how_each_agrees_with_what_features_write(tiny_sae):
    library = Library(dtype="float32", device="cpu", allow_folder=True)
    found = lenses_measured(library, tiny_sae, 3, (0.1, 0.2))
    assert found["features"] == 3 and set(found["lenses"]) == set(LENSES)
    for figures in found["lenses"].values():
        assert sum(figures["verdicts"].values()) == 3
        intervals = [interval for name, interval in figures.items() if name != "verdicts"]
        assert all(low <= mean <= high for mean, low, high in intervals)
    gain, (logit, jacobian) = found["gain"]["auroc"], (found["lenses"][lens]["auroc"] for lens in LENSES)
    assert gain[0] == pytest.approx(jacobian[0] - logit[0])
    told = {"features": 3, "strengths": [0.1, 0.2], "saes": {"demo/blocks.1.hook_resid_post": found}}
    said = _lenses(told)
    assert "## What features write" in said and "by 0.1 and 0.2 mean residual norms" in said
    assert said.count("| layer 1 | ") == 2 and "| jacobian lens | " in said


@pytest.mark.slow
def test_a_study_of_a_tiny_model_goes_on_where_it_was_and_makes_a_page(tiny_sae, tmp_path):
    library, file = Library(dtype="float32", device="cpu", allow_folder=True), tmp_path / "figures.jsonl"
    measure(library, tiny_sae, file, 2, 2)
    whole = Records(file)
    assert whole.mean("trees", ONE_TOKEN, "hit rate")[0] >= 0
    assert len(whole.figures("trees", whole.head["default"]["trees"])) == 2
    lines = file.read_text().splitlines(keepends=True)
    half = tmp_path / "half.jsonl"
    half.write_text("".join(lines[: len(lines) // 2]))
    measure(library, tiny_sae, half, 2, 2)
    again = Records(half)
    for part in ("lists", "trees", "prompts", "read-outs", "verdicts", "features", "examples"):
        assert set(again.settings(part)) == set(whole.settings(part)) != set()
        for setting in whole.settings(part):
            assert again.figures(part, setting).keys() == whole.figures(part, setting).keys()
    for measured in ("hit rate", "MRR"):
        assert again.mean("trees", chosen(whole, "trees"), measured) == pytest.approx(
            whole.mean("trees", chosen(whole, "trees"), measured), abs=1e-3)
    said = page(STUDIES["SmolLM2-135M-Instruct"], {"demo/blocks.1.hook_resid_post": whole})
    assert "| layer 1 | lists: " in said and chosen(whole, "trees").partition(",")[0] in said
    assert max(map(len, said.splitlines())) < 400, "tables fit the page"
