"""Which SAEs there are and which of them can be served. Counts are those of sae-lens 6.54; later ones add to them."""

import json
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
import torch
from tiny import random_sae, write_sae

from multitool.demo_model import DEMO_MODEL
from multitool.errors import UserError
from multitool.registry import (
    LOCAL_SAES_VARIABLE,
    SERVED_KINDS,
    demo_saes,
    find_sae,
    folder_sae,
    operator_saes,
    registry_saes,
    saes,
)


def refusal(name: str, **options) -> str:
    with pytest.raises(UserError) as caught:
        find_sae(name, **options)
    message = str(caught.value)
    assert len(message) < 1500
    return message


def test_every_residual_stream_and_embedding_sae_of_the_registry_is_served():
    served = Counter(entry.kind for entry in registry_saes().values() if entry.served)
    assert served >= Counter(resid_post=4775, resid_pre=42, resid_mid=24, embed=8)


def test_what_else_the_registry_holds_is_known_for_what_it_is():
    others = Counter(entry.kind for entry in registry_saes().values() if not entry.served)
    assert others >= Counter(mlp_out=2598, attn_z=2480, attn_out=94, transcoder=3836)


def test_every_served_sae_knows_its_layer_and_its_models_hub_id():
    for entry in registry_saes().values():
        if entry.served:
            assert (entry.layer is None) == (entry.kind == "embed"), entry.name
            assert "/" in entry.model, entry.name


def test_the_home_case_is_there_with_its_neuronpedia_ids():
    entries = [entry for entry in saes("gemma-2b-res-jb") if entry.release == "gemma-2b-res-jb"]
    assert {entry.layer for entry in entries} == {0, 6, 10, 12, 17}
    for entry in entries:
        assert entry.name == f"gemma-2b-res-jb/blocks.{entry.layer}.hook_resid_post"
        assert entry.hook == f"blocks.{entry.layer}.hook_resid_post"
        assert entry.model == "google/gemma-2b"
        # Layer 17 is not on Neuronpedia.
        assert entry.neuronpedia_id == (None if entry.layer == 17 else f"gemma-2b/{entry.layer}-res-jb")


@pytest.mark.parametrize(
    ("name", "model", "hook"),
    [
        ("gpt2-small-res-jb/blocks.8.hook_resid_pre", "openai-community/gpt2", "blocks.8.hook_resid_pre"),
        ("gpt2-small-resid-mid-v5-32k/blocks.3.hook_resid_mid", "openai-community/gpt2", "blocks.3.hook_resid_mid"),
        ("gemma-scope-2b-pt-res/embedding/width_4k/average_l0_6", "google/gemma-2-2b", "hook_embed"),
        ("gemma-scope-2b-pt-res-canonical/layer_20/width_16k/canonical", "google/gemma-2-2b",
         "blocks.20.hook_resid_post"),
        ("llama_scope_lxr_8x/l5r_8x", "meta-llama/Llama-3.1-8B", "blocks.5.hook_resid_post"),
    ],
)  # fmt: skip
def test_each_loaders_way_of_naming_is_understood(name, model, hook):
    entry = find_sae(name)
    assert (entry.name, entry.model, entry.hook) == (name, model, hook)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("mlp_out", "the output of an MLP layer"),
        ("attn_out", "the output of an attention layer"),
        ("attn_z", "attention heads before their output projection"),
        ("transcoder", "transcoder"),
    ],
)
def test_what_is_not_on_the_residual_stream_is_refused_with_the_reason(kind, reason):
    entry = next(entry for entry in registry_saes().values() if entry.kind == kind)
    message = refusal(entry.name)
    assert entry.name in message
    assert reason in message
    assert "not on the residual stream" in message


def test_a_refusal_names_releases_of_the_same_model_that_are_served():
    entry = next(e for e in registry_saes().values() if e.kind == "mlp_out" and e.model == "google/gemma-2-2b")
    named = refusal(entry.name).partition("Residual releases for google/gemma-2-2b: ")[2]
    assert {name.split(" and ")[0].strip(".") for name in named.split(", ")} <= {e.release for e in saes("gemma-2-2b")}
    assert named


@pytest.mark.parametrize(
    ("wrong", "near"),
    [
        ("gemma-2b-res-jb/blocks.7.hook_resid_post", "blocks.6.hook_resid_post"),
        ("gemma-2b-res-jb/", "blocks.6.hook_resid_post"),
        ("gemma-2b-res-jb", "blocks.6.hook_resid_post"),
        ("gemma-2b-resjb/blocks.6.hook_resid_post", "gemma-2b-res-jb"),
        ("demo/hook_embd", "hook_embed"),
        ("demos/hook_embed", "demo"),
    ],
)
def test_an_unknown_name_is_answered_with_near_ones(wrong, near):
    message = refusal(wrong)
    assert f"There is no SAE {wrong!r}" in message
    assert near in message.replace(wrong, "")


@pytest.mark.parametrize("name", ["nothing like it", "gone/../gone", "a\0b", "💥", "%s{}", "demo/../demo"], ids=repr)
@pytest.mark.parametrize("allow_folder", [True, False])
def test_nonsense_is_no_sae(name, allow_folder):
    assert "There is no SAE" in refusal(name, allow_folder=allow_folder)


@pytest.mark.parametrize("name", ["", "/", ".", "..", "/tmp", "~"], ids=repr)
def test_a_place_on_the_machine_is_no_sae_where_folders_are_not_allowed(name):
    assert "There is no SAE" in refusal(name)


@pytest.mark.parametrize("name", ["x" * 5_000, "gemma-scope-2b-pt-res/" + "layer_1/" * 1_000], ids=["x", "layers"])
@pytest.mark.parametrize("allow_folder", [True, False])
def test_a_name_of_any_length_is_answered_soon_and_shortly(name, allow_folder):
    registry_saes()
    started = time.perf_counter()
    refusal(name, allow_folder=allow_folder)
    assert time.perf_counter() - started < 3


def test_the_demos_saes_come_first_and_by_layer():
    names = [entry.name for entry in demo_saes()]
    assert names[0] == "demo/hook_embed"
    layers = [entry.layer for entry in demo_saes()]
    assert layers == [None, *sorted(layer for layer in layers if layer is not None)]
    assert all(entry.model == DEMO_MODEL and entry.served for entry in demo_saes())
    assert [entry.name for entry in saes()][: len(names)] == names


def test_searching_takes_words_of_the_name_or_the_model_in_any_case():
    assert {entry.model for entry in saes("GPT2 resid_pre")} == {"openai-community/gpt2"}
    assert all(entry.kind == "resid_pre" for entry in saes("GPT2 resid_pre"))
    assert len(saes("demo hook_embed")) == 1
    assert saes("no such thing") == []
    assert len(saes()) == len(demo_saes()) + sum(entry.served for entry in registry_saes().values())


# Folders


def test_a_folder_is_an_sae_only_where_folders_are_allowed(tmp_path):
    folder = random_sae(tmp_path / "mine", d_model=4, hook="blocks.3.hook_resid_pre", model="gpt2-small")
    entry = find_sae(str(folder), allow_folder=True)
    assert (entry.name, entry.hook, entry.model) == ("local/mine", "blocks.3.hook_resid_pre", "openai-community/gpt2")
    assert entry.folder == folder
    assert "There is no SAE" in refusal(str(folder))
    assert "folder" not in refusal(str(folder)).partition("Name one as")[2]


def test_a_folder_named_from_inside_has_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(random_sae(tmp_path / "mine", d_model=4))
    assert find_sae(".", allow_folder=True).name == "local/mine"


def test_the_operators_folders_are_served_by_name(tmp_path, monkeypatch):
    folders = [random_sae(tmp_path / name, d_model=4, model="some/model") for name in ("one", "two")]
    monkeypatch.setenv(LOCAL_SAES_VARIABLE, ":".join(map(str, folders)))
    assert [entry.name for entry in operator_saes()] == ["local/one", "local/two"]
    assert find_sae("local/two").folder == folders[1]
    assert {"local/one", "local/two"} <= {entry.name for entry in saes()}
    assert len(saes("some/model")) == 2


def test_without_the_variable_no_folder_is_served(monkeypatch):
    monkeypatch.delenv(LOCAL_SAES_VARIABLE, raising=False)
    assert operator_saes() == ()
    assert "There is no SAE" in refusal("local/one")


def test_two_operators_folders_of_one_name_are_refused(tmp_path, monkeypatch):
    folders = [random_sae(tmp_path / place / "mine", d_model=4) for place in ("here", "there")]
    monkeypatch.setenv(LOCAL_SAES_VARIABLE, ":".join(map(str, folders)))
    with pytest.raises(UserError, match="same last name"):
        saes()


def test_an_operators_folder_that_is_not_there_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv(LOCAL_SAES_VARIABLE, str(tmp_path / "gone"))
    with pytest.raises(UserError, match="gone.cfg.json cannot be read"):
        operator_saes()


def test_an_older_configuration_names_hook_and_model_at_the_top(tmp_path):
    folder = random_sae(tmp_path / "old", d_model=4, metadata=None, hook_name="hook_embed", model_name="gemma-2b")
    entry = folder_sae(folder)
    assert (entry.kind, entry.model) == ("embed", "google/gemma-2b")


@pytest.mark.parametrize(
    ("hook", "kind"),
    [
        ("blocks.5.hook_mlp_out", "mlp_out"),
        ("blocks.5.hook_attn_out", "attn_out"),
        ("blocks.5.attn.hook_z", "attn_z"),
        ("blocks.5.mlp.hook_post", "unknown"),
        ("blocks.5.ln2.hook_normalized", "unknown"),
        ("", "unknown"),
    ],
)
def test_a_folder_trained_elsewhere_is_refused(tmp_path, hook, kind):
    folder = random_sae(tmp_path / "sae", d_model=4, hook=hook)
    assert folder_sae(folder).kind == kind
    assert kind not in SERVED_KINDS
    assert "not on the residual stream" in refusal(str(folder), allow_folder=True)


def test_a_transcoder_is_refused_whatever_its_hook_is_called(tmp_path):
    folder = random_sae(tmp_path / "sae", d_model=4, architecture="jumprelu_transcoder")
    assert "transcoder" in refusal(str(folder), allow_folder=True)


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "null", '"text"', b"\xff\xfe\x00\x01", "[" * 50_000], ids=lambda text: repr(text[:4])
)
def test_a_damaged_configuration_is_refused_with_its_path(tmp_path, content):
    folder = random_sae(tmp_path / "sae", d_model=4)
    (folder / "cfg.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    assert str(folder / "cfg.json") in refusal(str(folder), allow_folder=True)


def test_a_folder_without_a_configuration_is_refused_with_what_belongs_there(tmp_path):
    message = refusal(str(tmp_path), allow_folder=True)
    assert str(tmp_path / "cfg.json") in message
    assert "cfg.json and sae_weights.safetensors" in message


@pytest.mark.parametrize(
    "cfg",
    [
        {"metadata": []},
        {"metadata": "x"},
        {"metadata": {"hook_name": 5}},
        {"metadata": {"hook_name": ["blocks.0.hook_resid_post"], "model_name": {}}},
        {"architecture": None},
        {"architecture": ["transcoder"]},
    ],
    ids=str,
)
def test_odd_values_in_a_configuration_do_no_harm(tmp_path, cfg):
    folder = write_sae(tmp_path / "sae", W_enc=torch.ones(2, 3), W_dec=torch.ones(3, 2), **cfg)
    assert folder_sae(folder).name == "local/sae"
    json.dumps([str(value) for value in vars(folder_sae(folder)).values()])


# What importing and reading cost


def test_listing_everything_imports_no_model_library_and_no_page():
    code = (
        "import sys; from multitool.registry import saes; assert len(saes()) > 4000; "
        "print(sorted({'sae_lens', 'transformers', 'transformer_lens', 'gradio', 'matplotlib'} & set(sys.modules)))"
    )
    root = Path(__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_registry_agrees_with_what_sae_lens_itself_says():
    from sae_lens.loading.pretrained_saes_directory import get_pretrained_saes_directory

    releases = get_pretrained_saes_directory()
    entries = registry_saes()
    assert len(entries) == sum(len(release.saes_map) for release in releases.values())
    for name, release in releases.items():
        for sae_id in release.saes_map:
            entry = entries[f"{name}/{sae_id}"]
            assert entry.neuronpedia_id == (release.neuronpedia_id or {}).get(sae_id), entry.name
