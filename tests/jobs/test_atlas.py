"""Rows of an atlas against the same by trees, checks and lists one by one."""

from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pytest
import torch
from tiny import PROMPT, random_sae, tiny_model, write_model, write_sae

from multitool.errors import GhostError, UserError
from multitool.jobs.atlas import atlas_facts
from multitool.jobs.features import missing_scan, recipe_vector, resolve
from multitool.jobs.local import atlas, check_tree, definition_tree, describer, token_table
from multitool.model.tasks import ForestTask
from multitool.recipes.atlas import ATLAS_TREE, AtlasRecipe
from multitool.recipes.recipe import ListRecipe, TreeRecipe, VectorRecipe
from multitool.store.atlas_schema import COLUMNS
from multitool.store.library import Library

D_SAE, DEAD, BROKEN = 30, 4, 11
TREE = TreeRecipe(prompt=PROMPT, cutoff=0.02, max_depth=4)  # that ``max_nodes`` does not bound
ALL = AtlasRecipe(evidence=True)
PLAIN = AtlasRecipe()
JUDGED = ("hits", "n_definitions", "hit_rate_chance", "auroc", "rank", "verdict")
SETTINGS = (
    {"weights": "encoder"}, {"weights": "vocabulary"}, {"weights": "decoder", "pca": (0.3,), "scale": 4.0},
    {"weights": "pullback"}, {"weights": "random"},
)


@dataclass(frozen=True)
class World:
    library: Library
    sae: str
    others: dict[str, str]

    def recipe(self, feature: int = 0, sae: str | None = None, **settings) -> VectorRecipe:
        return VectorRecipe(sae=sae or self.sae, feature=feature, **settings)

    def rows(self, features, *settings, tree=TREE, atlas=ALL, sae=None, at_once=128) -> list[dict]:
        recipes = [self.recipe(sae=sae, **each) for each in settings or ({},)]
        describe = describer(self.library, recipes, tree, atlas)
        parts = [features[first : first + at_once] for first in range(0, len(features), at_once)]
        return [row for part in parts for row in describe(part)]


@pytest.fixture(scope="module")
def world(tmp_path_factory, tokenizer):
    """A library, and SAEs with a dead feature, and with one whose weights are none."""
    folder = tmp_path_factory.mktemp("atlas")
    model = str(write_model(folder / "model", tiny_model("llama"), tokenizer))
    generator = torch.Generator().manual_seed(0)
    W_enc = torch.randn(32, D_SAE, generator=generator)
    W_dec = W_enc.T + 0.3 * torch.randn(D_SAE, 32, generator=generator)
    W_enc[:, DEAD] = 0
    W_dec[BROKEN, 3] = torch.nan
    hook = "blocks.1.hook_resid_post"
    sae = write_sae(folder / "sae", W_enc=W_enc, W_dec=W_dec, hook=hook, model=model)
    others = {
        "embedding": str(random_sae(folder / "embedding", 32, D_SAE, hook="hook_embed", model=model)),
        "unscanned": str(random_sae(folder / "unscanned", 32, 6, hook="blocks.0.hook_resid_post", model=model)),
        "few": str(random_sae(folder / "few", 32, 1, hook=hook, model=model)),
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SAE_MULTITOOL_CACHE", str(folder / "cache"))
        yield World(Library(dtype="float32", device="cpu", allow_folder=True, bars=False), str(sae), others)


def close(value):
    """What rounding may change of figures that single precision was reckoned in."""
    return None if value is None or np.isnan(value) else pytest.approx(value, rel=1e-5, abs=1e-4)


def assert_as_alone(library: Library, row: dict, recipe: VectorRecipe, tree_recipe: TreeRecipe, atlas: AtlasRecipe):
    """A row says what a tree, its check and a list say."""
    tree = definition_tree(library, recipe, tree_recipe)
    listed = token_table(library, recipe, ListRecipe(top=atlas.top))
    assert (row["sae"], row["feature"], row["weights"]) == (recipe.sae, recipe.feature, tree.settings["weights"])
    assert row["problem"] is None
    assert row["scale"] == pytest.approx(tree.settings["scale"])
    lengths = {name: close(tree.vector[name]) for name in tree.vector.keys() & row.keys()}
    assert {"norm", "mean_token_distance"} <= lengths.keys()
    assert {name: row[name] for name in lengths} == lengths
    assert (row["nodes"], row["effective_cutoff"]) == (len(tree.tree), pytest.approx(tree.effective_cutoff, rel=1e-4))
    assert row["first_token_entropy"] == close(tree.first_token_entropy)
    same_tree(row["tree"], tree.tree)
    assert [token["token_id"] for token in row["tokens"]] == [token_id for _, _, token_id, *_ in listed.rows]
    assert [token["score"] for token in row["tokens"]] == [close(score) for _, _, _, score, *_ in listed.rows]
    assert [token["token"] for token in row["tokens"]] == [token for _, token, *_ in listed.rows]
    kept = tree.definitions(atlas.definitions)
    assert [found["text"] for found in row["definitions"]] == [found.text for found in kept]
    assert [found["probability"] for found in row["definitions"]] == [
        pytest.approx(found.probability, rel=1e-4) for found in kept
    ]
    if not atlas.evidence:
        assert not any(row[name] for name in JUDGED)
        return
    checked = check_tree(library, tree)
    expected = {name: checked.evidence[name] for name in (*JUDGED, "encoder_decoder_cosine")}
    assert {name: row[name] for name in expected} == {
        name: close(value) if isinstance(value, float) else value for name, value in expected.items()
    }
    assert row["first_token_entropy"] == close(checked.evidence["entropy"])
    for found, alone in zip(row["definitions"], kept, strict=True):
        lifts = (found["lift_centroid"], found["lift_random"])
        assert lifts == tuple(map(close, checked.tree.lifts[alone.node])), found["text"]
        assert found["activation"] == close(checked.tree.activation[alone.node])


def same_tree(columns: dict, tree) -> None:
    for name in ("parent", "token_id", "end"):
        assert columns[name] == getattr(tree, name).tolist()
    assert columns["token"] == list(tree.token)
    for name in ("prob", "cumulative_prob"):
        np.testing.assert_allclose(columns[name], getattr(tree, name), rtol=1e-4)
    assert (columns["beyond"] is None) == (tree.beyond is None)
    if tree.beyond is not None:
        np.testing.assert_allclose(columns["beyond"], tree.beyond, atol=1e-5)


def test_a_ghost_that_the_model_cannot_bear_costs_the_others_nothing(world, monkeypatch):
    features, do = [0, 1, 2, 3, 5, 6, 7], world.library.do
    expected = world.rows(features)
    v = recipe_vector(resolve(world.library, world.recipe(3))).v.numpy()

    def picky(task, **more):
        if isinstance(task, ForestTask) and np.isclose(task.growth.v, v).all(axis=1).any():
            raise GhostError("It is too long.")
        yield from do(task, **more)

    monkeypatch.setattr(world.library, "do", picky)
    rows = world.rows(features)
    assert [row["problem"] for row in rows] == [None, None, None, "It is too long.", None, None, None]
    for row, other in zip(rows, expected, strict=True):
        if row["problem"] is None:
            assert (row["nodes"], row["verdict"]) == (other["nodes"], other["verdict"])
            assert row["tokens"] == other["tokens"]


@pytest.mark.slow
@pytest.mark.parametrize("sae", [None, "embedding"], ids=["layer", "embedding"])
def test_rows_are_what_trees_checks_and_lists_say_one_by_one(world, sae):
    sae = world.others.get(sae)
    first = 23 if sae else 5  # the first is one of the features to compare with
    rows = world.rows([first, 2, 17], *SETTINGS, sae=sae)
    asked = [(feature, settings) for feature in (first, 2, 17) for settings in SETTINGS]
    for row, (feature, settings) in zip(rows, asked, strict=True):
        assert row["setting"] == SETTINGS.index(settings)
        assert_as_alone(world.library, row, world.recipe(feature, sae, **settings), TREE, ALL)


@pytest.mark.slow
@pytest.mark.parametrize("more", [
    {"inject_layer": 0, "inject_mode": "add", "inject_scale": 2.0}, {"steer_strength": 0.5, "steer_at": "all"},
    {"clamp": 2.0}, {"stop": False}, {"top_k": 0}, {"cutoff": 0.9999}, {"prompt": 'A "{ghost}" is a'},
], ids=["injected", "steered", "clamped", "without ends", "all tokens", "empty", "no quote"])  # fmt: skip
def test_whatever_else_the_trees_recipe_asks_for(world, more):
    tree = replace(TREE, **more)
    atlas = ALL if more != {"cutoff": 0.9999} else PLAIN  # an empty tree cannot be checked
    for row in world.rows([7, 2], tree=tree, atlas=atlas):
        assert_as_alone(world.library, row, world.recipe(row["feature"]), tree, atlas)


@pytest.mark.slow
def test_a_tree_that_its_nodes_bound_differs_in_what_it_is_compared_with_alone(world):
    tree = replace(TREE, cutoff=2e-3, max_nodes=12)
    row, = world.rows([2], tree=tree)
    assert row["effective_cutoff"] > 0.01
    alone = check_tree(world.library, definition_tree(world.library, world.recipe(2), tree))
    assert (row["hits"], row["n_definitions"]) == tuple(alone.evidence[name] for name in ("hits", "n_definitions"))


def test_a_row_has_the_columns_of_the_schema_and_pyarrow_takes_it(world):
    rows = world.rows([2, DEAD], tree=replace(TREE, max_nodes=20))
    assert all(list(row) == COLUMNS.names for row in rows)
    read = pa.Table.from_pylist(rows, schema=COLUMNS).to_pylist()
    assert read[0]["definitions"][0]["text"] == rows[0]["definitions"][0]["text"]
    assert read[0]["strongest_tokens"][0]["activation"] == pytest.approx(rows[0]["strongest_tokens"][0]["activation"])
    activations = [token["activation"] for token in rows[0]["strongest_tokens"]]
    assert len(activations) == 10 and activations == sorted(activations, reverse=True) and activations[-1] > 0


def test_a_feature_without_a_vector_is_a_row_that_says_why(world):
    features, small = [2, DEAD, BROKEN], replace(TREE, max_nodes=10)
    rows = world.rows(features, {"weights": "encoder"}, {"weights": "decoder"}, tree=small)
    assert [(row["feature"], row["setting"]) for row in rows] == [(f, s) for f in features for s in (0, 1)]
    assert [row["problem"] is not None for row in rows] == [False, False, True, False, True, True]
    for row in rows:
        if row["problem"] is None:
            continue
        with pytest.raises(UserError) as caught:
            definition_tree(world.library, world.recipe(row["feature"], weights=row["weights"]), small)
        assert row["problem"] == str(caught.value)
        named = ("sae", "feature", "setting", "weights", "problem")
        assert all(value is None for name, value in row.items() if name not in named)


def test_the_same_features_give_the_same_rows(world):
    features, small = [1, 2, 3, 8], replace(TREE, max_nodes=20)
    once = world.rows(features, *SETTINGS[:2], tree=small)
    assert world.rows(features, *SETTINGS[:2], tree=small) == once
    by_two = world.rows(features, *SETTINGS[:2], tree=small, at_once=2)
    assert [row["tree"]["token_id"] for row in by_two] == [row["tree"]["token_id"] for row in once]
    assert [row["rank"] for row in by_two] == [row["rank"] for row in once]


def test_without_evidence_nothing_is_judged_and_no_vocabulary_scanned(world):
    atlas = AtlasRecipe(top=0, trees=False, definitions=2)
    sae = world.others["unscanned"]
    row, = world.rows([2], sae=sae, atlas=atlas)
    assert missing_scan(resolve(world.library, world.recipe(2, sae)), always=True) is not None
    assert (row["tokens"], row["tree"], row["strongest_tokens"], len(row["definitions"])) == ([], None, None, 2)
    assert not any(row[name] for name in JUDGED)
    found = row["definitions"][0]
    assert found["probability"] > 0
    assert [found[name] for name in ("lift_centroid", "lift_random", "activation")] == [None] * 3
    assert row["first_token_entropy"] > 0 and row["encoder_decoder_cosine"] > 0.5


def test_an_sae_with_nothing_to_compare_with_is_not_judged(world):
    row, = world.rows([0], sae=world.others["few"], tree=replace(TREE, max_nodes=10))
    assert (row["verdict"], row["hits"], row["rank"]) == ("unknown", None, None)
    assert row["definitions"][0]["lift_centroid"] is not None


@pytest.mark.parametrize(("ask", "said"), [
    (lambda world: world.rows([2, D_SAE]), "feature is 30; .* has 30 features"),
    (lambda world: describer(world.library, [], TREE, ALL), "settings name none"),
    (lambda world: world.rows([2], tree=replace(TREE, inject_layer=2)), "inject_layer is 2"),
    (lambda world: describer(
        world.library, [world.recipe(), world.recipe(sae=world.others["few"])], TREE, ALL), "is of one SAE"),
    (lambda world: atlas_facts(
        world.library, [world.recipe(feature=1), world.recipe(feature=2)], TREE, ALL), "Two settings are the same"),
    (lambda world: list(atlas(world.library, [world.recipe()], [2], "")), "out is empty"),
], ids=["no such feature", "no settings", "no such layer", "two SAEs", "a setting twice", "no folder"])  # fmt: skip
def test_what_cannot_be_described_at_all_is_refused(world, ask, said):
    with pytest.raises(UserError, match=said):
        ask(world)


@pytest.mark.parametrize(("sae", "features"), [
    ("demo/hook_embed", (927, 22, 5, 1000)), ("demo/blocks.6.hook_resid_post", (3, 150, 40)),
], ids=["embedding", "layer"])  # fmt: skip
def test_the_demos_rows_are_what_is_said_of_its_features_one_by_one(demo_library, sae, features):
    """By the weights that suit the SAE, which differ for trees and lists."""
    rows = describer(demo_library, [VectorRecipe(sae=sae, feature=0)], ATLAS_TREE, ALL)(features)
    for feature, row in zip(features, rows, strict=True):
        assert_as_alone(demo_library, row, VectorRecipe(sae=sae, feature=feature), ATLAS_TREE, ALL)
