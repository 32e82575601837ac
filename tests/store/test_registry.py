"""Which SAEs there are and which of them can be served. Counts are those of sae-lens 6.54; later ones add to them."""

import ast
import glob
import json
import os
import re
import subprocess
import sys
import time
from collections import Counter, defaultdict
from fnmatch import fnmatchcase
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tiny import random_sae, write_sae

from multitool.errors import UserError
from multitool.store.demo_models import DEMO_MODEL, DEMO_MODELS
from multitool.store.entries import SERVED_KINDS, SaeEntry, hub_id, registry_facts
from multitool.store.folders import folder_sae
from multitool.store.library import Library
from multitool.store.models import load_subject
from multitool.store.registry import (
    LOCAL_SAES_VARIABLE,
    allowed,
    demo_saes,
    find_sae,
    local_saes,
    models,
    operator_saes,
    saes,
)
from multitool.store.registry_file import registry_saes

# sae-lens' conversion_func of every loader that serves SAEs on the residual stream; None is its own format.
LOADERS = (
    None,
    "deepseek_r1",
    "dictionary_learning_1",
    "gemma_2",
    "gemma_3",
    "goodfire",
    "llama_scope",
    "llama_scope_r1_distill",
    "qwen_scope",
    "temporal",
)


def served_from_the_hub() -> list[SaeEntry]:
    return [entry for entry in registry_saes().values() if entry.served]


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
    assert "unknown" not in others
    assert len(registry_saes()) >= 13_857


def test_every_served_sae_knows_its_layer_its_models_hub_id_and_where_it_lies():
    for entry in served_from_the_hub():
        assert (entry.layer is None) == (entry.kind == "embed"), entry.name
        assert re.fullmatch(r"hook_embed|blocks\.\d+\.hook_resid_(pre|mid|post)", entry.hook), entry.name
        assert re.fullmatch(r"[\w.-]+/[\w.-]+", entry.model), entry.name
        assert re.fullmatch(r"[\w.-]+/[\w.-]+", entry.repo_id), entry.name
        assert entry.path, entry.name
        assert entry.loader in LOADERS, entry.name


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


def test_the_model_is_the_one_that_the_repository_and_the_loader_name():
    # The registry says gemma-2-9b of this release.
    assert {entry.model for entry in saes("gemma-scope-9b-it-res")} == {"google/gemma-2-9b-it"}


# How many features


@pytest.mark.parametrize(
    ("name", "d_sae"),
    [
        ("demo/hook_embed", 2_048),
        ("gemma-2b-res-jb/blocks.6.hook_resid_post", 16_384),
        ("gemma-2b-res-jb/blocks.17.hook_resid_post", 16_384),
        ("gemma-2-2b-res-matryoshka-dc/blocks.12.hook_resid_post", 32_768),
        ("gemma-scope-2b-pt-res/embedding/width_4k/average_l0_6", 4_096),
        ("gemma-scope-2b-pt-res-canonical/layer_12/width_16k/canonical", 16_384),
        ("gemma-scope-2b-pt-res-canonical/layer_12/width_65k/canonical", 65_536),
        ("gemma-scope-2b-pt-res-canonical/layer_12/width_262k/canonical", 262_144),
        ("gemma-scope-2b-pt-res-canonical/layer_12/width_524k/canonical", 524_288),
        ("gemma-scope-2b-pt-res-canonical/layer_12/width_1m/canonical", 2**20),
        ("gemma-scope-27b-pt-res-canonical/layer_10/width_131k/canonical", 131_072),
        ("gemma-scope-2-1b-it-res-all/layer_9_width_262k_l0_small", 262_144),
        ("goodfire-llama-3.3-70b-instruct/layer_50", 65_536),
        ("gpt2-small-res-jb/blocks.8.hook_resid_pre", 24_576),
        ("gpt2-small-res-jb-feature-splitting/blocks.8.hook_resid_pre_768", 768),
        ("gpt2-small-res_scefr-ajt/blocks.6.hook_resid_pre", 46_080),
        ("gpt2-small-resid-mid-v5-32k/blocks.3.hook_resid_mid", 32_768),
        ("gpt2-small-resid-post-v5-128k/blocks.3.hook_resid_post", 131_072),
        ("llama_scope_lxr_8x/l5r_8x", 32_768),
        ("llama_scope_lxr_32x/l5r_32x", 131_072),
        ("llama_scope_r1_distill/l0r_800m_slimpajama", 32_768),
        ("pythia-70m-deduped-res-sm/blocks.0.hook_resid_pre", 32_768),
        ("qwen-scope-3-1.7b-base-w32k-l50/layer0", 32_768),
        ("qwen-scope-3.5-27b-w80k-l100/layer63", 81_920),
        ("sae_bench_gemma-2-2b_topk_width-2pow12_date-1109/blocks.12.hook_resid_post__trainer_0", 4_096),
        ("sae_bench_pythia70m_sweep_topk_ctx128_0730/blocks.3.hook_resid_post__trainer_0", 4_096),
        ("saebench_gemma-2-2b_width-2pow16_date-0107/blocks.12.hook_resid_post__trainer_0", 65_536),
        ("temporal-sae-gemma-2-2b/blocks.12.hook_resid_post", None),  # only its own configuration tells
    ],
)
def test_the_number_of_features_is_exact_or_unknown(name, d_sae):
    assert find_sae(name).d_sae == d_sae


def test_nearly_all_served_saes_know_their_number_of_features():
    assert sum(entry.d_sae is None for entry in served_from_the_hub()) <= 9


def test_the_number_of_features_agrees_with_the_rounded_one_on_neuronpedia():
    exact = {f"{2**bits // 1000}k": 2**bits for bits in range(12, 20)} | {"1m": 2**20}
    agree = Counter()
    for entry in served_from_the_hub():
        if rounded := re.search(r"-res-(\d+[km])(?:__|-l0|$)", entry.neuronpedia_id or ""):
            agree[entry.d_sae == exact[rounded[1]]] += 1
    # The registry gives gemma-scope-9b-pt-res/layer_2/width_16k/average_l0_8 the page of another SAE.
    assert agree[False] <= 1
    assert agree[True] > 1_000


def test_the_number_of_features_agrees_with_the_loaders_that_know_it_without_a_download():
    from sae_lens.loading.pretrained_sae_loaders import NAMED_PRETRAINED_SAE_CONFIG_GETTERS as GETTERS

    for entry in served_from_the_hub():
        if entry.loader in ("deepseek_r1", "gemma_2", "goodfire", "qwen_scope"):
            cfg = GETTERS[entry.loader](entry.repo_id, entry.path, device=None)
            assert (cfg["d_sae"], cfg["hook_name"]) == (entry.d_sae, entry.hook), entry.name


# Licences and pickles


def test_of_every_model_it_is_known_whether_it_needs_a_licence():
    gated, free = (set(registry_facts()["models"][kind]) for kind in ("gated", "free"))
    assert {entry.model for entry in served_from_the_hub()} == gated | free
    assert not gated & free


@pytest.mark.parametrize(
    ("name", "page"),
    [
        ("gemma-2b-res-jb/blocks.6.hook_resid_post", "https://huggingface.co/google/gemma-2b"),
        ("mistral-7b-res-wg/blocks.8.hook_resid_pre", "https://huggingface.co/mistralai/Mistral-7B-v0.1"),
        ("llama_scope_lxr_8x/l5r_8x", "https://huggingface.co/meta-llama/Llama-3.1-8B"),
        ("llama_scope_r1_distill/l0r_800m_slimpajama", None),
        ("gpt2-small-res-jb/blocks.8.hook_resid_pre", None),
        ("qwen-scope-3-1.7b-base-w32k-l50/layer0", None),
        ("demo/hook_embed", None),
    ],
)
def test_a_gated_model_has_a_page_where_its_licence_is_accepted(name, page):
    entry = find_sae(name)
    assert entry.licence_page == page
    assert entry.gated == (page is not None)


def test_pickles_are_what_sae_lens_reads_with_torch_load():
    source = Path(find_spec("sae_lens").origin).with_name("loading") / "pretrained_sae_loaders.py"
    text = source.read_text(encoding="utf-8")
    body = {node.name: ast.get_source_segment(text, node) for node in ast.parse(text).body if hasattr(node, "name")}
    table = text.partition("NAMED_PRETRAINED_SAE_LOADERS: ")[2].partition("}")[0]
    loaders = dict(re.findall(r'"(\w+)": (\w+),', table))
    assert len(loaders) >= 15
    reads_pickles = {name for name, function in loaders.items() if "torch.load(" in body[function]}
    assert reads_pickles == set(registry_facts()["pickle_loaders"])
    for entry in registry_saes().values():
        assert entry.pickled == ((entry.loader or "sae_lens") in reads_pickles)
    assert sum(entry.pickled for entry in served_from_the_hub()) >= 1_385
    assert not any(entry.pickled for entry in demo_saes())


# Files on the hub


@pytest.mark.parametrize(
    ("name", "repo_id", "files"),
    [
        ("gemma-2b-res-jb/blocks.6.hook_resid_post", "jbloom/Gemma-2b-Residual-Stream-SAEs",
         {f"gemma_2b_blocks.6.hook_resid_post_16384_anthropic_fast_lr/{file}"
          for file in ("cfg.json", "sae_weights.safetensors", "sparsity.safetensors")}),
        ("deepseek-r1-distill-llama-8b-qresearch/blocks.19.hook_resid_post",
         "qresearch/DeepSeek-R1-Distill-Llama-8B-SAE-l19", {"DeepSeek-R1-Distill-Llama-8B-SAE-l19.pt"}),
        ("llama-3.1-8b-instruct-andyrdt/resid_post_layer_3_trainer_1", "andyrdt/saes-llama-3.1-8b-instruct",
         {"resid_post_layer_3/trainer_1/config.json", "resid_post_layer_3/trainer_1/ae.pt"}),
        ("gemma-scope-2b-pt-res-canonical/layer_0/width_16k/canonical", "google/gemma-scope-2b-pt-res",
         {"layer_0/width_16k/average_l0_105/params.npz"}),
        ("gemma-scope-2-1b-it-res-all/layer_9_width_262k_l0_small", "google/gemma-scope-2-1b-it",
         {f"resid_post_all/layer_9_width_262k_l0_small/{file}" for file in ("config.json", "params.safetensors")}),
        ("goodfire-llama-3.1-8b-instruct/layer_19", "Goodfire/Llama-3.1-8B-Instruct-SAE-l19",
         {"Llama-3.1-8B-Instruct-SAE-l19.pth"}),
        ("llama_scope_lxr_8x/l1r_8x", "fnlp/Llama3_1-8B-Base-LXR-8x",
         {f"Llama3_1-8B-Base-L1R-8x/{file}" for file in ("hyperparams.json", "checkpoints/final.safetensors")}),
        ("llama_scope_r1_distill/l0r_800m_slimpajama", "fnlp/Llama-Scope-R1-Distill",
         {f"800M-Slimpajama-0-OpenR1-Math-220k/L0R/{file}" for file in ("config.json", "sae_weights.safetensors")}),
        ("qwen-scope-3-1.7b-base-w32k-l50/layer1", "Qwen/SAE-Res-Qwen3-1.7B-Base-W32K-L0_50", {"layer1.sae.pt"}),
        ("temporal-sae-gemma-2-2b/blocks.12.hook_resid_post", "canrager/temporalSAEs",
         {f"gemma-2-2B/layer_12/temporal/{file}" for file in ("conf.yaml", "latest_ckpt.safetensors")}),
    ],
)  # fmt: skip
def test_the_files_of_an_sae_on_the_hub_are_known(name, repo_id, files):
    entry = find_sae(name)
    assert (entry.repo_id, set(entry.hub_files)) == (repo_id, files)


@pytest.mark.parametrize("loader", LOADERS)
def test_sae_lens_asks_for_exactly_these_files(loader, tmp_path, monkeypatch):
    from sae_lens.loading import pretrained_sae_loaders

    entries = [entry for entry in served_from_the_hub() if entry.loader == loader]
    by_kind = {entry.kind: entry for entry in entries}
    hub = Hub(tmp_path)
    monkeypatch.setattr(pretrained_sae_loaders, "hf_hub_download", hub.download)
    monkeypatch.setattr(pretrained_sae_loaders, "get_safetensors_tensor_shapes", hub.shapes)
    load = pretrained_sae_loaders.NAMED_PRETRAINED_SAE_LOADERS[loader or "sae_lens"]
    for entry in by_kind.values():
        hub.asked.clear()
        load(repo_id=entry.repo_id, folder_name=entry.path, device="cpu", force_download=False, cfg_overrides=None)
        assert hub.asked == {(entry.repo_id, file) for file in entry.hub_files}


class Hub:
    """Answers sae-lens' loaders with files that each of them can read; notes what they ask for."""

    CONFIGURATION = {
        "architecture": "jump_relu",
        "buffer": {"ctx_len": 8},
        "d_in": 2,
        "d_model": 2,
        "d_sae": 2,
        "data": {"dtype": "float32"},
        "dataset_average_activation_norm": {"in": 1.0},
        "dtype": "float32",
        "expansion_factor": 1,
        "hook_point_in": "blocks.0.hook_resid_post",
        "jump_relu_threshold": 0.1,
        "llm": {"dimin": 2},
        "model_name": "some/model",
        "sae": {
            "bottleneck_factor": 1,
            "exp_factor": 1,
            "kval_topk": 1,
            "n_attn_layers": 1,
            "n_heads": 1,
            "sae_diff_type": "topk",
            "scaling_factor": 1.0,
            "tied_weights": False,
        },
        "trainer": {
            "activation_dim": 2,
            "dict_class": "AutoEncoder",
            "dict_size": 2,
            "layer": 0,
            "lm_name": "some/model",
        },
    }
    TENSORS = [
        *("W_enc", "W_dec", "b_enc", "b_dec", "w_enc", "w_dec", "threshold", "log_jumprelu_threshold", "sparsity"),
        *("D", "E", "b"),
        *(f"{part}.{kind}" for part in ("encoder", "decoder") for kind in ("weight", "bias")),
        *(f"{part}_linear.{kind}" for part in ("encoder", "decoder") for kind in ("weight", "bias")),
    ]

    def __init__(self, folder: Path):
        self.folder = folder
        self.asked: set[tuple[str, str]] = set()

    def download(self, repo_id, filename, subfolder=None, **_):
        name = f"{subfolder}/{filename}" if subfolder else filename
        self.asked.add((repo_id, name))
        path = self.folder / repo_id / name
        path.parent.mkdir(parents=True, exist_ok=True)
        tensors = {name: torch.ones(2, 2) for name in self.TENSORS}
        match path.suffix:
            case ".json" | ".yaml":
                path.write_text(json.dumps(self.CONFIGURATION), encoding="utf-8")
            case ".safetensors":
                save_file(tensors, path)
            case ".npz":
                np.savez(path, **{name: tensors[name].numpy() for name in ("w_enc", "w_dec", "b_enc", "threshold")})
            case _:
                torch.save(tensors, path)
        return str(path)

    def shapes(self, repo_id, filename):
        self.asked.add((repo_id, filename))
        return {"w_enc": [2, 2], "w_dec": [2, 2]}


def test_no_pattern_matches_a_file_of_another_sae():
    owners = defaultdict(set)
    for entry in served_from_the_hub():
        assert entry.hub_files, entry.name
        for pattern in entry.hub_files:
            # Without wildcards a pattern matches only itself.
            assert not glob.has_magic(pattern), entry.name
            assert not pattern.endswith("/"), entry.name
            owners[entry.repo_id, pattern].add(entry.path)
    # Two releases may hold the same SAE; but one file is never of two.
    assert all(len(paths) == 1 for paths in owners.values())
    # Nor is a file among the paths of the SAEs that are not served.
    others = {(entry.repo_id, entry.path) for entry in registry_saes().values() if not entry.served}
    assert not others & set(owners)


def test_signs_that_patterns_would_read_are_taken_as_they_are():
    entry = SaeEntry("r", "x", "m", "resid_post", 0, repo_id="o/r", path="a[1]*?/layer_1", loader="gemma_2")
    (pattern,) = entry.hub_files
    assert fnmatchcase("a[1]*?/layer_1/params.npz", pattern)
    assert not fnmatchcase("a1xy/layer_1/params.npz", pattern)


def test_what_is_not_served_from_the_hub_has_no_files_there():
    assert {entry.hub_files for entry in demo_saes()} == {()}
    assert {entry.hub_files for entry in registry_saes().values() if not entry.served} == {()}


# What lists say


def test_the_facts_of_an_sae_are_plain_json():
    assert find_sae("gemma-2b-res-jb/blocks.6.hook_resid_post").facts() == {
        "sae": "gemma-2b-res-jb/blocks.6.hook_resid_post",
        "model": "google/gemma-2b",
        "hook": "blocks.6.hook_resid_post",
        "layer": 6,
        "d_sae": 16_384,
        "l0": 56.0,
        "canonical": False,
        "model_parameters": 2_506_000_000,
        "gated": True,
        "neuronpedia_id": "gemma-2b/6-res-jb",
    }
    for entry in saes():
        assert json.loads(json.dumps(entry.facts())) == entry.facts()


def test_the_models_are_the_demos_and_then_by_name():
    names = models()
    assert names[0] == DEMO_MODEL
    from_the_hub = [name for name in names if name not in DEMO_MODELS]
    assert from_the_hub == sorted({entry.model for entry in served_from_the_hub()}, key=str.lower)
    limited = models(patterns=("gemma-2b-res-jb", "model:openai-community/gpt2"))
    assert limited[0] == DEMO_MODEL and limited[-2:] == ("google/gemma-2b", "openai-community/gpt2")
    assert set(limited[:-2]) <= set(DEMO_MODELS)


def test_an_operators_model_is_among_the_models(tmp_path, monkeypatch):
    folders = [random_sae(tmp_path / f"of-{model}", d_model=4, model=model) for model in ("a/model", "")]
    monkeypatch.setenv(LOCAL_SAES_VARIABLE, ":".join(map(str, folders)))
    assert [name for name in models() if name not in DEMO_MODELS][0] == "a/model"
    assert "" not in models()


# An operator's limit


@pytest.mark.parametrize(
    ("pattern", "name", "is_allowed"),
    [
        ("gemma-2b-res-jb", "gemma-2b-res-jb/blocks.6.hook_resid_post", True),
        ("gemma-2b-res-jb", "gemma-2b-it-res-jb/blocks.12.hook_resid_post", False),
        ("gemma-2b", "gemma-2b-res-jb/blocks.6.hook_resid_post", False),
        ("gemma-2b-res-jb/blocks.6.hook_resid_post", "gemma-2b-res-jb/blocks.6.hook_resid_post", True),
        ("gemma-2b-res-jb/blocks.6.hook_resid_post", "gemma-2b-res-jb/blocks.10.hook_resid_post", False),
        ("gemma-2b-res-jb/*.1?.*", "gemma-2b-res-jb/blocks.10.hook_resid_post", True),
        ("gemma-2b-res-jb/*.1?.*", "gemma-2b-res-jb/blocks.6.hook_resid_post", False),
        ("gemma-scope-2b-*/layer_1[0-9]/*", "gemma-scope-2b-pt-res-canonical/layer_12/width_16k/canonical", True),
        ("gemma-scope-2b-*/layer_1[0-9]/*", "gemma-scope-2b-pt-res-canonical/layer_1/width_16k/canonical", False),
        ("*", "gpt2-small-res-jb/blocks.8.hook_resid_pre", True),
        ("model:google/gemma-2b", "gemma-2b-res-jb/blocks.6.hook_resid_post", True),
        ("model:google/gemma-2b", "gemma-2b-it-res-jb/blocks.12.hook_resid_post", False),
        ("model:google/*", "gemma-2b-it-res-jb/blocks.12.hook_resid_post", True),
        ("google/gemma-2b", "gemma-2b-res-jb/blocks.6.hook_resid_post", False),
        ("gpt2-small-res-jb", "demo/hook_embed", True),
    ],
)
def test_an_operator_can_serve_releases_names_patterns_and_models(pattern, name, is_allowed):
    entry = find_sae(name)
    assert allowed(entry, (pattern,)) == is_allowed
    assert allowed(entry, ("no-such-release", pattern)) == is_allowed
    assert allowed(entry, ())
    if is_allowed:
        assert find_sae(name, patterns=(pattern,)) == entry
    else:
        message = refusal(name, patterns=(pattern,))
        assert name in message
        assert f"this server serves only {pattern}." in message
        assert "on your own machine" in message
    assert (entry in saes(patterns=(pattern,))) == is_allowed


def test_what_lies_on_the_server_is_always_served(tmp_path, monkeypatch):
    folder = random_sae(tmp_path / "mine", d_model=4)
    monkeypatch.setenv(LOCAL_SAES_VARIABLE, str(folder))
    patterns = ("no-such-release",)
    assert [entry.name for entry in saes(patterns=patterns)] == [*(entry.name for entry in local_saes()), "local/mine"]
    assert find_sae("local/mine", patterns=patterns).folder == folder
    assert find_sae(str(folder), allow_folder=True, patterns=patterns).folder == folder
    assert saes("local", patterns=patterns) == [*operator_saes()]


def test_a_limited_server_suggests_only_what_it_serves():
    patterns = ("gemma-scope-2b-pt-res-canonical",)
    assert "gpt2" not in refusal("gpt2-small-res-j/blocks.8.hook_resid_pre", patterns=patterns).partition(".")[2]
    transcoder = next(e for e in registry_saes().values() if e.kind == "mlp_out" and e.model == "google/gemma-2-2b")
    message = refusal(transcoder.name, patterns=patterns)
    assert "the output of an MLP layer" in message
    assert message.endswith("Residual releases for google/gemma-2-2b: gemma-scope-2b-pt-res-canonical.")
    assert "not on the residual stream" in refusal(transcoder.name, patterns=("demo",))


def test_a_long_limit_is_named_in_part():
    message = refusal("gpt2-small-res-jb/blocks.8.hook_resid_pre", patterns=tuple(f"release-{i}" for i in range(100)))
    assert "release-7 and 92 more." in message


# What is not served


REASONS = {
    "mlp_out": "the output of an MLP layer",
    "attn_out": "the output of an attention layer",
    "attn_z": "attention heads before their output projection",
    "transcoder": "one place to predict another (a transcoder)",
}


@pytest.mark.parametrize(("kind", "reason"), REASONS.items())
def test_what_is_not_on_the_residual_stream_is_refused_with_the_reason(kind, reason):
    entry = next(entry for entry in registry_saes().values() if entry.kind == kind)
    message = refusal(entry.name)
    assert entry.name in message
    assert reason in message
    assert "not on the residual stream" in message


def test_every_release_that_is_not_served_is_refused_with_its_reason():
    one_of_each = {(e.release, e.kind): e for e in registry_saes().values() if not e.served}
    assert len(one_of_each) >= 83
    for entry in one_of_each.values():
        message = refusal(entry.name)
        assert f"SAE {entry.name} was trained on " in message
        assert REASONS[entry.kind] in message


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


def test_the_demos_layers_take_the_vocabularys_direction_its_lists_pullback_and_all_others_the_encoders():
    assert {entry.list_weights for entry in demo_saes()} == {"pullback"}
    assert {entry.list_weights for entry in registry_saes().values()} == {"encoder"}
    assert {entry.name: entry.default_weights for entry in demo_saes()} == {
        entry.name: "encoder" if entry.layer is None else "vocabulary" for entry in demo_saes()
    }
    assert {entry.default_weights for entry in registry_saes().values()} == {"encoder"}


def test_searching_takes_words_of_the_name_the_model_or_the_hook_in_any_case():
    assert {entry.model for entry in saes("GPT2 resid_pre")} == {"openai-community/gpt2"}
    assert all(entry.kind == "resid_pre" for entry in saes("GPT2 resid_pre"))
    assert len(saes("demo smollm2 hook_embed")) == 1
    assert {entry.kind for entry in saes("Gemma-Scope-2b-pt-res HOOK_EMBED")} == {"embed"}
    assert {entry.layer for entry in saes("gemma-2-9b blocks.20.")} == {20}
    assert saes("no such thing") == []


@pytest.mark.parametrize(
    ("search", "found"),
    [
        ("16k layer 12 GEMMA-2-2b canonical", ["gemma-scope-2b-pt-res-canonical/layer_12/width_16k/canonical"]),
        ("width 16384 layer 12 gemma-2-2b canonical", ["gemma-scope-2b-pt-res-canonical/layer_12/width_16k/canonical"]),
        ("demo layer 1 smollm2", ["demo/blocks.1.hook_resid_post"]),  # and not layer 12
        ("l0 82 layer 12 gemma-scope 16384", [
            "gemma-scope-2b-pt-res/layer_12/width_16k/average_l0_82",
            "gemma-scope-2b-pt-res-canonical/layer_12/width_16k/canonical",
        ]),
        ("gemma-2b-res 6", ["gemma-2b-res-jb/blocks.6.hook_resid_post"]),
        ("embedding smollm2", ["demo/hook_embed"]),
    ],
)
def test_a_search_knows_layers_widths_and_l0_by_whole_numbers(search, found):
    assert [entry.name for entry in saes(search)] == found
    assert len(saes()) == len(local_saes()) + sum(entry.served for entry in registry_saes().values())


# Folders


def test_a_folder_is_an_sae_only_where_folders_are_allowed(tmp_path):
    folder = random_sae(tmp_path / "mine", d_model=4, hook="blocks.3.hook_resid_pre", model="gpt2-small")
    entry = find_sae(str(folder), allow_folder=True)
    assert (entry.name, entry.hook, entry.model) == ("local/mine", "blocks.3.hook_resid_pre", "openai-community/gpt2")
    assert (entry.folder, entry.d_sae) == (folder, 6)
    assert (entry.repo_id, entry.path, entry.loader, entry.hub_files, entry.pickled) == ("", "", None, (), False)
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


def test_the_operators_folders_are_read_again_only_where_they_changed(tmp_path, monkeypatch):
    folders = [random_sae(tmp_path / name, d_model=4) for name in ("one", "two")]
    monkeypatch.setenv(LOCAL_SAES_VARIABLE, ":".join(map(str, folders)))
    read = []
    noted = lambda folder, **more: read.append(folder) or folder_sae(folder, **more)  # noqa: E731
    monkeypatch.setattr("multitool.store.registry.folder_sae", noted)
    assert operator_saes() == operator_saes()
    assert read == folders
    path = folders[0] / "cfg.json"
    path.write_text(path.read_text().replace("blocks.0.", "blocks.2."))
    os.utime(path, ns=(1, 1))
    assert [entry.layer for entry in operator_saes()] == [2, 0]
    assert read == [*folders, folders[0]]
    path.unlink()
    with pytest.raises(UserError, match="one.cfg.json is missing"):
        operator_saes()


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
    with pytest.raises(UserError, match="gone is no folder"):
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
        ("blocks.5.mlp.hook_post", "mlp"),
        ("blocks.5.ln2.hook_normalized", "inside"),
        ("model.layers.5.self_attn.o_proj", "attention"),
        ("transformer.h.5.mlp", "mlp"),
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
        {"metadata": {"neuronpedia_id": {}}},
        {"architecture": None},
        {"architecture": ["transcoder"]},
        {"d_sae": "many"},
        {"d_sae": [3]},
    ],
    ids=str,
)
def test_odd_values_in_a_configuration_do_no_harm(tmp_path, cfg):
    folder = write_sae(tmp_path / "sae", W_enc=torch.ones(2, 3), W_dec=torch.ones(3, 2), **cfg)
    entry = folder_sae(folder)
    assert entry.name == "local/sae"
    assert entry in {entry}
    json.dumps(entry.facts(), allow_nan=False)


# What importing and reading cost


def test_listing_everything_imports_no_model_library_and_no_page():
    code = (
        "import sys; from multitool.store.registry import find_sae, models, saes; assert len(models()) > 30; "
        "assert len([(e.facts(), e.hub_files, e.pickled) for e in saes('', ('*',))]) > 4000; "
        "find_sae('gpt2-small-res-jb/blocks.8.hook_resid_pre'); "
        "print(sorted({'sae_lens', 'transformers', 'transformer_lens', 'gradio', 'matplotlib'} & set(sys.modules)))"
    )
    root = Path(__file__).parents[2]
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


# Models by TransformerLens' names


def test_every_short_name_of_transformer_lens_leads_to_the_model_that_it_names():
    # The file is TransformerLens' table as it was; read as a file, because importing it takes seconds.
    source = Path(find_spec("transformer_lens").origin).with_name("supported_models.py").read_text(encoding="utf-8")
    tables = [node for node in ast.parse(source).body if isinstance(node, ast.AnnAssign)]
    theirs = next(ast.literal_eval(node.value) for node in tables if node.target.id == "MODEL_ALIASES")
    kept = Path(find_spec("multitool.store").origin).with_name("transformer_lens_models.json")
    assert json.loads(kept.read_text(encoding="utf-8")) == theirs


@pytest.mark.parametrize(
    ("short", "model"),
    [
        ("pythia-160m-deduped", "EleutherAI/pythia-160m-deduped"),
        ("tiny-stories-1L-21M", "roneneldan/TinyStories-1Layer-21M"),
        ("gpt2-small", "openai-community/gpt2"),
        ("gpt2-xs", "distilbert/distilgpt2"),  # by way of an id that the hub has moved
        ("EleutherAI/pythia-1.3b", "EleutherAI/pythia-1.4b"),
        ("google/gemma-2b", "google/gemma-2b"),
        ("somebody/else", "somebody/else"),
    ],
)
def test_a_model_is_known_by_its_short_name(tmp_path, short, model):
    assert folder_sae(random_sae(tmp_path / "sae", d_model=4, model=short)).model == model


@pytest.mark.parametrize(("short", "said"), [("attn-only-2l", "TransformerLens' own"), ("llama-7b", "not on the hub")])
def test_a_name_of_transformer_lens_that_transformers_has_no_model_for_is_told_as_such(short, said):
    with pytest.raises(UserError, match=said):
        load_subject(hub_id(short))


def test_a_model_that_the_user_names_may_have_a_short_name_too(monkeypatch):
    asked = []
    monkeypatch.setattr("multitool.store.library.load_subject", lambda name, download: asked.append(name) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        Library(device="cpu").subject("pythia-160m-deduped")
    assert asked == ["EleutherAI/pythia-160m-deduped"]


def test_of_a_name_that_the_hub_was_never_asked_for_nothing_is_said_about_the_hub():
    with pytest.raises(UserError) as caught:
        load_subject("a--b/c")
    assert "cannot be a repository" in str(caught.value)
    assert "has no" not in str(caught.value)


# Repositories on the hub that are no release


def test_a_repository_that_is_no_release_is_answered_with_how_to_name_it_and_no_release_that_is_not_near():
    name = "chanind/sae-llama-3.2-1b-res/blocks.2.hook_resid_post"
    message = refusal(name, allow_folder=True)
    assert f"hf://{name}" in message
    assert "download it" in message
    for said in (message, refusal(name)):
        assert "Near" not in said
        assert "gemma" not in said


def test_the_repository_of_a_release_is_answered_with_the_saes_name():
    entry = registry_saes()["gemma-2b-res-jb/blocks.6.hook_resid_post"]
    assert f"is {entry.name}" in refusal(f"{entry.repo_id}/{entry.path}", allow_folder=True)


@pytest.mark.parametrize(
    "name",
    [
        "hf://", "hf://owner", "hf:///etc/passwd", "hf://owner/", "hf://owner/repo/..", "hf://owner/repo/a/../../b",
        "hf://owner/repo//etc", "hf://owner/repo/a//b", "hf://owner/repo/*", "hf://owner/repo/a[b]", "hf://../../a",
        "hf://owner/repo/a\\b", "hf://owner/repo/a\0b", "hf://owner/repo/a\nb", "hf://owner/repo@../b",
        "hf://datasets/owner/repo", "hf://-owner/repo/a", "hf://owner/repo/" + "a/" * 600,
    ],
    ids=lambda name: repr(name)[:30],
)  # fmt: skip
def test_a_name_that_leads_out_of_a_repository_is_refused_before_the_hub_is_asked(name, monkeypatch):
    monkeypatch.setattr("multitool.store.hub_saes.fetch_folder", None)
    assert "hf://" in refusal(name, allow_folder=True)
