"""NaN and infinity: damaged weights, a precision that is too narrow, a push that is too strong. Each ends in one
sentence that names what was found, whatever was asked for; never in an empty result."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import PROMPT, random_sae, tiny_model, write_model

from multitool.cli import main
from multitool.errors import UserError
from multitool.jobs.features import resolve
from multitool.jobs.local import (
    check_tree,
    definition_tree,
    definition_trees,
    describer,
    finish,
    suggest,
    token_table,
)
from multitool.jobs.text import text_job
from multitool.jobs.tree import continuation_job
from multitool.recipes.atlas import AtlasRecipe
from multitool.recipes.recipe import ListRecipe, TreeRecipe, VectorRecipe
from multitool.store.library import Library
from multitool.trees.document import read_tree

HOOK = "blocks.1.hook_resid_post"
TREE = TreeRecipe(prompt=PROMPT, cutoff=0.01, max_depth=3, max_nodes=30)
LENS = ListRecipe(measure="logit_lens", top=5)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SAE_MULTITOOL_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def brought(tmp_path, tokenizer):
    """A user's model folder, damaged as told, with an SAE on it: a library and a vector of it."""

    def make(damage=lambda model: None, dtype: str = "float32") -> tuple[Library, VectorRecipe]:
        model = tiny_model("llama_untied")
        with torch.no_grad():
            damage(model)
        write_model(tmp_path / "model", model, tokenizer)
        sae = random_sae(tmp_path / "sae", 32, 30, hook=HOOK, model=str(tmp_path / "model"))
        library = Library(dtype=dtype, device="cpu", allow_folder=True, bars=False)
        return library, VectorRecipe(sae=str(sae), feature=2, weights="encoder")

    return make


def one_number(model) -> None:
    model.model.layers[1].mlp.up_proj.weight[3, 5] = torch.nan


def refused(work, *arguments, **settings) -> str:
    with pytest.raises(UserError) as caught:
        work(*arguments, **settings)
    return str(caught.value)


def whole_list(library, vector, recipe, evidence=False):
    return token_table(library, vector, recipe, evidence=evidence)


WHATEVER = {
    "tree": lambda library, vector: definition_tree(library, vector, TREE),
    "tree without stop": lambda library, vector: definition_tree(library, vector, replace(TREE, stop=False, top_k=0)),
    "suggestion": lambda library, vector: suggest(library, vector, TREE),
    "list by activation": lambda library, vector: whole_list(library, vector, ListRecipe(measure="activation")),
    "list with evidence": lambda library, vector: whole_list(library, vector, ListRecipe(), True),
    "vocabulary weights": lambda library, vector: definition_tree(library, replace(vector, weights="vocabulary"), TREE),
    "activity": lambda library, vector: finish(text_job(library, vector, "A dog barks."), library),
}


@pytest.mark.parametrize("asked", WHATEVER)
def test_one_number_in_one_layer_is_named(brought, asked):
    library, vector = brought(one_number)
    message = refused(WHATEVER[asked], library, vector)
    assert "its weights model.layers.1.mlp.up_proj.weight hold such numbers. Fetch or copy" in message
    assert message.startswith("In float32, ") and "--dtype" not in message


def test_a_tree_that_was_there_is_neither_checked_nor_grown_on_by_damaged_weights(brought, monkeypatch):
    library, vector = brought()
    whole = definition_tree(library, vector, TREE)
    begun = next(definition_trees(library, vector, TREE))
    assert not begun.complete and len(begun.tree)
    one_number(library.run(whole.settings["model"], resolve(library, vector).subject.folder))
    for message in (
        refused(check_tree, library, whole),
        refused(lambda: finish(continuation_job(library, read_tree(begun.to_json())), library)),
    ):
        assert "model.layers.1.mlp.up_proj.weight hold such numbers" in message


def test_numbers_that_leave_half_precision_name_the_precision(brought):
    def large(model):
        model.model.norm.weight.fill_(6e4)

    library, vector = brought(large, "float16")
    for message in (
        refused(definition_tree, library, vector, TREE), refused(whole_list, library, vector, LENS),
    ):
        assert message.startswith("In float16, ") and "oad it in bfloat16 or float32 (--dtype" in message
    assert "even without the vector" in refused(definition_tree, library, vector, TREE)
    library = Library(dtype="float32", device="cpu", allow_folder=True, bars=False)
    assert len(definition_tree(library, vector, TREE).tree)


def test_a_list_by_lens_of_a_damaged_unembedding(brought):
    def damage(model):
        model.lm_head.weight[7, 1] = torch.inf

    library, vector = brought(damage)
    assert "lm_head.weight hold such numbers" in refused(whole_list, library, vector, LENS)


def test_a_jacobian_lens_of_damaged_layers_and_evidence_of_a_damaged_unembedding(brought):
    def damage(model):
        model.model.layers[2].mlp.up_proj.weight[0, 0] = torch.nan

    library, vector = brought(damage)
    message = refused(whole_list, library, vector, replace(LENS, measure="jacobian_lens"))
    assert "layers.2.mlp.up_proj.weight hold such numbers" in message
    assert "hold such numbers" in refused(whole_list, library, vector, LENS, True)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"steer_strength": 100.0, "steer_at": "all"}, "steer_strength 100"),
        ({"inject_layer": 0, "inject_scale": 1000.0}, "inject_scale 1000"),
    ],
)
def test_what_is_done_too_strongly_is_named(brought, settings, said):
    def near_the_edge(model):  # the stream stays within half precision as it is, and not a hundred times as long
        for layer in model.model.layers:
            layer.mlp.down_proj.weight.mul_(300)

    library, vector = brought(near_the_edge, "float16")
    assert len(definition_tree(library, vector, TREE).tree)
    message = refused(definition_tree, library, vector, replace(TREE, **settings))
    assert f"with {said}; without, its answer to the prompt is finite. Use a smaller value, or load it in bf" in message


def test_a_vector_that_is_too_long_is_named(brought):
    library, vector = brought(dtype="float16")
    message = refused(definition_tree, library, replace(vector, scale=1e6), TREE)
    assert "with this vector, and not without it. Use a smaller scale, or load it in bfloat16 or float32" in message


def test_in_an_atlas_a_vector_that_is_too_long_is_a_row_that_says_so(brought):
    library, vector = brought(dtype="float16")
    kept = AtlasRecipe(top=3)
    rows = describer(library, [vector, replace(vector, scale=1e6)], TREE, kept)([0, 1, 2])
    assert [(row["feature"], row["setting"]) for row in rows] == [(f, s) for f in (0, 1, 2) for s in (0, 1)]
    for row, alone in zip(rows[::2], describer(library, [vector], TREE, kept)([0, 1, 2]), strict=True):
        assert row["problem"] is None and len(row["tokens"]) == 3 and row["nodes"] == alone["nodes"] > 0
    for row in rows[1::2]:
        assert "with this vector, and not without it. Use a smaller scale" in row["problem"]
        assert row["nodes"] is row["tokens"] is row["scale"] is None


def test_an_atlas_of_damaged_weights_ends_with_what_is_damaged(brought):
    library, vector = brought(one_number)
    message = refused(lambda: describer(library, [vector], TREE, AtlasRecipe())([0, 1]))
    assert "model.layers.1.mlp.up_proj.weight hold such numbers" in message


@pytest.mark.parametrize("wrong", [torch.nan, torch.inf])
def test_one_number_in_the_embedding_is_told_with_its_row(brought, wrong):
    def damage(model):
        model.model.embed_tokens.weight[77, 3] = wrong

    library, vector = brought(damage)
    for work in (
        lambda: definition_tree(library, vector, TREE), lambda: whole_list(library, vector, ListRecipe()),
        lambda: whole_list(library, vector, LENS), lambda: definition_tree(library, replace(vector, scale=1.0), TREE),
    ):
        assert "token embeddings hold NaN or infinity (row 77 is the first)" in refused(work)


@pytest.mark.parametrize("job", ["check", "activity", "list"])
def test_a_feature_whose_encoder_is_none_is_not_read_as_one_that_never_fires(brought, job, tmp_path):
    library, vector = brought()
    tree = definition_tree(library, replace(vector, weights="decoder"), TREE)
    weights = load_file(tmp_path / "sae" / "sae_weights.safetensors")
    weights["W_enc"][4, 2] = torch.nan
    save_file(weights, tmp_path / "sae" / "sae_weights.safetensors")
    library = Library(dtype="float32", device="cpu", allow_folder=True, bars=False)
    asked = {
        "check": lambda: check_tree(library, tree),
        "activity": lambda: WHATEVER["activity"](library, vector),
        "list": lambda: whole_list(library, replace(vector, weights="decoder"), ListRecipe(), True),
    }
    assert "W_enc of SAE local/sae has NaN or infinity at feature 2." in refused(asked[job])


@pytest.mark.parametrize("command", ["tree", "tokens"])
def test_on_the_command_line_it_is_one_line_and_nothing_is_written(brought, command, tmp_path, capsys):
    _, vector = brought(one_number)
    more = ["--measure", "activation"] if command == "tokens" else ["--prompt", PROMPT]
    found = tmp_path / "found.json"
    assert main([command, "--sae", vector.sae, "--feature", "2", "--device", "cpu", "--json", str(found), *more]) == 2
    shown = capsys.readouterr()
    assert shown.err.count("model.layers.1.mlp.up_proj.weight hold such numbers") == 1
    assert "Traceback" not in shown.err and not found.exists()


def test_a_tree_without_nodes_is_still_one_where_nothing_reaches_the_cutoff(brought):
    library, vector = brought()
    tree = definition_tree(library, vector, replace(TREE, cutoff=0.999999))
    assert not len(tree.tree) and tree.complete
    assert json.loads(tree.to_json())["result"]["nodes"] == 0
