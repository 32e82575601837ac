"""Vectors from encoders carried back through the layers, from a recipe to tree, list, evidence and suggestion."""

from dataclasses import replace
from operator import attrgetter

import pytest
import torch
from tiny import random_sae, tiny_model, write_model, write_sae

from multitool.errors import UserError
from multitool.jobs import features
from multitool.jobs.features import pulled_at_once, recipe_vector, resolve, with_pullbacks
from multitool.jobs.local import (
    check_tree,
    definition_tree,
    finish,
    scan_if_missing,
    suggest,
    token_table,
    try_features,
)
from multitool.model.pullback import Pullback
from multitool.model.tasks import PullbackTask
from multitool.recipes.recipe import ListRecipe, TreeRecipe, VectorRecipe
from multitool.store.library import Library
from multitool.store.pullbacks import PullbackRowsTask
from multitool.store.registry import demo_saes

TREE = TreeRecipe(cutoff=2e-2, max_nodes=20, max_depth=4)
FEATURES = 6


@pytest.fixture(scope="module")
def library():
    return Library(device="cpu", dtype="float32", allow_folder=True)


@pytest.fixture(scope="module")
def saes(tmp_path_factory, tokenizer) -> dict[str, str]:
    """Random SAEs on a tiny model, by hook."""
    folder = tmp_path_factory.mktemp("pullbacks")
    model = str(write_model(folder / "model", tiny_model("llama"), tokenizer))
    hooks = ("hook_embed", "blocks.0.hook_resid_post", "blocks.1.hook_resid_post")
    return {hook: str(random_sae(folder / hook, 32, FEATURES, seed, hook=hook, model=model))
            for seed, hook in enumerate(hooks)}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SAE_MULTITOOL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def recipe(saes) -> VectorRecipe:
    return VectorRecipe(sae=saes["blocks.1.hook_resid_post"], feature=2, weights="pullback")


def direction(library, recipe: VectorRecipe) -> torch.Tensor:
    target = finish(with_pullbacks(resolve(library, recipe)), library)
    return recipe_vector(target).direction


def by_hand(library, sae: str, feature: int) -> torch.Tensor:
    target = resolve(library, VectorRecipe(sae=sae, feature=feature))
    subject, entry = target.subject, target.sae.entry
    model = library.run(subject.name, subject.folder)
    back = Pullback(model, library.pullback_task(entry, subject).base)
    return torch.nn.functional.normalize(back.of(target.sae.feature(feature).encoder[None])[0], dim=0)


def asked(library, monkeypatch) -> list[type]:
    """What the running model is asked from now on."""
    kinds, do = [], library.do

    def noting(task, **options):
        kinds.append(type(task))
        return do(task, **options)

    monkeypatch.setattr(library, "do", noting)
    return kinds


def test_a_feature_alone_takes_a_backward_pass_and_no_scan(library, recipe, cache, monkeypatch):
    kinds = asked(library, monkeypatch)
    assert torch.allclose(direction(library, recipe), by_hand(library, recipe.sae, 2), atol=1e-5)
    assert kinds == [PullbackTask]
    assert not list(cache.glob("*/*"))


def test_many_take_the_matrix_once_which_is_kept_and_says_the_same(library, recipe, monkeypatch):
    alone = {feature: direction(library, replace(recipe, feature=feature)) for feature in range(FEATURES)}
    monkeypatch.setattr(features, "_MANY", 3)
    kinds = asked(library, monkeypatch)
    target = finish(with_pullbacks(resolve(library, recipe), range(FEATURES)), library)
    assert kinds == [PullbackRowsTask]
    for (_, feature), row in target.pulled.items():
        assert torch.allclose(torch.nn.functional.normalize(row, dim=0), alone[feature], atol=2e-3)
    # From now on it serves a feature alone too, and the model need not run.
    assert torch.allclose(direction(library, recipe), alone[2], atol=2e-3)
    assert kinds == [PullbackRowsTask]
    assert pulled_at_once(resolve(library, recipe))


def test_without_it_nothing_is_told_at_once(library, recipe):
    assert pulled_at_once(resolve(library, recipe)) is None
    plain = resolve(library, replace(recipe, weights="encoder"))
    assert pulled_at_once(plain) is plain


def test_on_the_embedding_it_is_the_encoder(library, saes, monkeypatch):
    kinds = asked(library, monkeypatch)
    one = VectorRecipe(sae=saes["hook_embed"], feature=3, weights="pullback")
    assert torch.allclose(direction(library, one), direction(library, replace(one, weights="encoder")), atol=1e-6)
    assert kinds == []


def test_its_usual_scale_is_less_than_half_of_the_mean_distance(library, recipe):
    table = token_table(library, recipe, ListRecipe(top=3))
    vector = table.vector
    assert vector["distance_from_centroid"] == pytest.approx(0.45 * vector["mean_token_distance"], rel=1e-4)
    assert token_table(library, replace(recipe, scale=1.0), ListRecipe(top=3)).vector[
        "distance_from_centroid"] == pytest.approx(1, rel=1e-4)


def test_a_sum_of_features_of_two_layers_is_the_sum_of_their_directions(library, saes, recipe):
    other = saes["blocks.0.hook_resid_post"]
    several = replace(recipe, feature=f"2 - {other}:4*0.5")
    expected = by_hand(library, recipe.sae, 2) - 0.5 * by_hand(library, other, 4)
    assert torch.allclose(direction(library, several), expected / expected.norm(), atol=1e-5)


def test_tree_and_evidence_and_list(library, recipe):
    tree = check_tree(library, definition_tree(library, recipe, TREE))
    assert tree.settings["weights"] == "pullback"
    assert tree.evidence["left_out"] == 0  # it owes the vocabulary nothing
    assert definition_tree(library, recipe, TREE).tree.cumulative_prob == pytest.approx(tree.tree.cumulative_prob)
    judged = token_table(library, recipe, evidence=True)
    assert judged.evidence and judged.settings["weights"] == "pullback"


def test_it_is_among_the_settings_of_a_suggestion_and_of_a_study(library, recipe):
    open_recipe = VectorRecipe(sae=recipe.sae, feature=2)
    scan_if_missing(library, open_recipe, always=True)
    tried = {trial.candidate for trial in suggest(library, open_recipe, TREE).trials}
    scales = {candidate.relative_scale for candidate in tried if candidate.weights == "pullback"}
    assert scales == {0.45, 0.7, 1.0, 1.5}
    pulled = [candidate for candidate in tried if candidate.weights == "pullback"]
    parts = try_features(library, open_recipe, [0, 1, 2], TREE, candidates=pulled)
    assert sum(map(len, parts)) == 3 * len(pulled)


def test_a_dead_feature_is_refused_and_spoils_no_other(library, saes, tmp_path):
    model = library.find(saes["hook_embed"]).model
    W_enc = torch.randn(32, 2, generator=torch.Generator().manual_seed(0))
    W_enc[:, 0] = 0
    sae = str(write_sae(tmp_path / "dead", W_enc=W_enc, W_dec=W_enc.T, model=model))
    recipe = VectorRecipe(sae=sae, feature=0, weights="pullback")
    with pytest.raises(UserError, match=r"encoder weights of this feature .* \(a dead feature\?\)"):
        direction(library, recipe)
    target = finish(with_pullbacks(resolve(library, recipe), [0, 1]), library)
    _, row = target.pulled.values()
    assert torch.allclose(torch.nn.functional.normalize(row, dim=0), by_hand(library, sae, 1), atol=1e-5)


@pytest.mark.parametrize("entry", [entry for entry in demo_saes() if entry.kind != "embed"], ids=attrgetter("name"))
def test_the_matrices_that_are_shipped_with_the_demo_are_the_models(entry, demo_library):
    _, subject = demo_library.load(entry)
    model = demo_library.run(subject.name, subject.folder)
    w = torch.randn(1, subject.space.d_model, generator=torch.Generator().manual_seed(0))
    back = Pullback(model, demo_library.pullback_task(entry, subject).base).of(w)
    shipped = w @ demo_library.pullback(entry, subject)
    assert torch.cosine_similarity(back, shipped).item() > 0.9999


def test_lists_of_the_demo_are_by_it_where_no_weights_are_named(demo_library):
    for entry in demo_saes():
        settings = token_table(demo_library, VectorRecipe(sae=entry.name, feature=7), ListRecipe(top=1)).settings
        assert settings["weights"] == "pullback"
