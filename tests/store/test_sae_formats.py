"""SAEs as people bring them: each format made by hand, by numbers that one can do in the head.

The names of the cases are the lines of the table in docs/your-own-sae.md.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from multitool.errors import UserError
from multitool.store.encoder import load_encoder
from multitool.store.entries import parse_hook
from multitool.store.folders import folder_sae
from multitool.store.registry import LOCAL_SAES_VARIABLE, find_sae, saes
from multitool.store.saes import load_sae, strongest_contexts

W_ENC = torch.tensor([[1.0, 0.0, 3.0], [0.0, 2.0, 4.0]])  # (d_model, d_sae)
W_DEC = torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 5.0]])  # (d_sae, d_model)
B_ENC, B_DEC = torch.zeros(3), torch.tensor([1.0, 0.0])
X = torch.tensor([[3.0, 4.0], [-1.0, 0.5]])
# (X - b_dec) W_enc is [[2, 8, 22], [-2, 1, -4]], and X W_enc [[3, 8, 25], [-1, 1, -1]].
RELU, TOP_1, ABOVE_5 = [[2, 8, 22], [0, 1, 0]], [[0, 0, 22], [0, 1, 0]], [[0, 8, 22], [0, 0, 0]]
RELU_OF_X, ABOVE_5_OF_X = [[3, 8, 25], [0, 1, 0]], [[0, 8, 25], [0, 0, 0]]
HOOK = "blocks.1.hook_resid_post"
SINCE_6 = {"metadata": {"hook_name": HOOK, "model_name": "some/model", "sae_lens_version": "6.5.0"}, "dtype": "float32",
           "d_in": 2, "d_sae": 3, "apply_b_dec_to_input": True, "normalize_activations": "none"}
BEFORE_6 = {"hook_point": "blocks.1.hook_resid_pre", "hook_point_layer": 1, "model_name": "some/model",
            "dtype": "torch.float32", "d_in": 2, "d_sae": 3, "device": "mps", "expansion_factor": 1.5}
LENS = {"W_enc": W_ENC, "W_dec": W_DEC, "b_enc": B_ENC, "b_dec": B_DEC}
SCOPE = {"threshold": torch.full((3,), 5.0)} | LENS


def tensors(folder: Path, name: str, weights: dict) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    save_file({key: value.clone().contiguous() for key, value in weights.items()}, folder / name)


def cfg(folder: Path, content: dict, name: str = "cfg.json") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps(content))


def lens(more: dict | None = None, old: bool = False, weights: dict | None = None) -> Callable[[Path], Path]:
    def build(folder):
        cfg(folder, (BEFORE_6 if old else SINCE_6 | {"architecture": "standard"}) | (more or {}))
        tensors(folder, "sae_weights.safetensors", weights or LENS)
        return folder

    return build


def sparsify(more: dict | None = None, hookpoint: str = "layers.1") -> Callable[[Path], Path]:
    def build(folder):
        cfg(folder, {"model": "some/model"}, "config.json")
        cfg(folder / hookpoint, {"d_in": 2, "num_latents": 3, "k": 1, "activation": "topk"} | (more or {}))
        tensors(folder / hookpoint, "sae.safetensors",
                {"encoder.weight": W_ENC.T, "encoder.bias": B_ENC, "W_dec": W_DEC, "b_dec": B_DEC})
        return folder / hookpoint

    return build


LINEAR = {"encoder.weight": W_ENC.T, "encoder.bias": B_ENC, "decoder.weight": W_DEC.T}


def dictionary(dict_class: str, state: dict, **trainer) -> Callable[[Path], Path]:
    def build(folder):
        told = {"dict_class": dict_class, "activation_dim": 2, "dict_size": 3, "layer": 1, "lm_name": "some/model",
                "submodule_name": "resid_post_layer_1"} | trainer
        cfg(folder, {"trainer": told, "buffer": {"io": "out", "ctx_len": 128}}, "config.json")
        torch.save(state, folder / "ae.pt")
        return folder

    return build


def scope(folder: Path) -> Path:
    folder = folder / "gemma-scope-2b-pt-res" / "layer_1" / "width_16k" / "average_l0_71"
    folder.mkdir(parents=True)
    np.savez(folder / "params.npz", **{name: value.numpy() for name, value in SCOPE.items()})
    return folder


def scope_2(folder: Path) -> Path:
    cfg(folder, {"architecture": "jump_relu", "model_name": "some/model", "hf_hook_point_in": "model.layers.1.output"},
        "config.json")
    tensors(folder, "params.safetensors", {name.replace("W_", "w_"): value for name, value in SCOPE.items()})
    return folder


def plain(weights: dict) -> Callable[[Path], Path]:
    def build(folder):
        cfg(folder, {"hook_name": HOOK, "model_name": "some/model"})
        tensors(folder, "mine.safetensors", weights)
        return folder

    return build


@dataclass(frozen=True)
class Brought:
    """An SAE's folder, and what comes of it."""

    build: Callable[[Path], Path]
    activations: list | str = ""  # of X; or what is said in their place
    hook: str = HOOK
    refused: str = ""  # what is said of the whole
    W_dec: torch.Tensor = W_DEC
    W_enc: torch.Tensor = W_ENC


TRAINED = {"topk_threshold": torch.tensor(5.0, dtype=torch.float64)} | LENS
CHECKPOINT = {"k": 1.0, "rescale_acts_by_decoder_norm": False}
OLD_HOOK = BEFORE_6["hook_point"]
AVERAGE = "expected_average_only_in"
CASES = {
    "sae-lens 6 and later": Brought(lens(), RELU),
    "sae-lens before 6 (`hook_point`, `dtype: \"torch.float32\"`)": Brought(lens(old=True), RELU, OLD_HOOK),
    "sae-lens, `activation_fn_str: \"topk\"` with a `k`": Brought(
        lens({"activation_fn_str": "topk", "activation_fn_kwargs": {"k": 1}}, old=True), TOP_1, OLD_HOOK),
    "sae-lens, `activation_fn_str: \"topk\"` without a `k`": Brought(
        lens({"activation_fn_str": "topk"}, old=True), "has no k", OLD_HOOK),
    "sae-lens, another activation function than ReLU and TopK": Brought(
        lens({"activation_fn_str": "tanh-relu"}, old=True), "'tanh-relu'", OLD_HOOK),
    "sae-lens, `finetuning_scaling_factor: true`": Brought(
        lens({"finetuning_scaling_factor": True}, old=True,
             weights=LENS | {"scaling_factor": torch.tensor([1.0, 2.0, 3.0])}),
        RELU, OLD_HOOK, W_dec=torch.tensor([[1.0, 0.0], [0.0, 4.0], [9.0, 15.0]])),
    "sae-lens, a `scaling_factor` other than 1 and `finetuning_scaling_factor: false`": Brought(
        lens({"finetuning_scaling_factor": False}, old=True, weights=LENS | {"scaling_factor": torch.ones(3) * 2}),
        "scaling_factor other than 1", OLD_HOOK),
    "sae-lens, a checkpoint `batchtopk`": Brought(
        lens({"architecture": "batchtopk"} | CHECKPOINT, weights=TRAINED), ABOVE_5),
    "sae-lens, a checkpoint `matryoshka_batchtopk`": Brought(
        lens({"architecture": "matryoshka_batchtopk", "matryoshka_widths": [1, 3]} | CHECKPOINT, weights=TRAINED),
        ABOVE_5),
    "sae-lens, tied (`tied_weights: true`, no `W_enc`)": Brought(
        lens({"tied_weights": True}, weights={name: LENS[name] for name in ("W_dec", "b_enc", "b_dec")}),
        [[2, 8, 26], [0, 1, 0]], W_enc=W_DEC.T),
    "sae-lens, `matching_pursuit` (tied)": Brought(
        lens({"architecture": "matching_pursuit", "max_iterations": 1, "apply_b_dec_to_input": False, "d_sae": 2},
             weights={"W_dec": torch.eye(2), "b_dec": torch.zeros(2)}), [[0, 4], [0, 0.5]],
        W_enc=torch.eye(2), W_dec=torch.eye(2)),
    "sae-lens, `expected_average_only_in` with its `activation_scaler.json`, as in checkpoints": Brought(
        # 2 X; minus the bias that is [2, 0] / 2, which the factor has made of [2, 0]
        lambda folder: cfg(folder, {"scaling_factor": 2.0}, "activation_scaler.json") or lens(
            {"normalize_activations": AVERAGE}, weights=LENS | {"b_dec": 2 * B_DEC})(folder),
        [[4, 16, 44], [0, 2, 0]]),
    "sae-lens, `expected_average_only_in` without it": Brought(
        lens({"normalize_activations": AVERAGE}), "times a factor"),
    "sae-lens, `covariance_whitening`": Brought(
        lens({"normalize_activations": "covariance_whitening"}), refused="trained on whitened activations"),
    "sparsify, TopK": Brought(sparsify(), TOP_1),
    "sparsify, signed TopK": Brought(sparsify({"signed": True}), "signed"),
    "sparsify, groupmax": Brought(sparsify({"activation": "groupmax"}), "'groupmax'"),
    "dictionary_learning, `AutoEncoder`": Brought(dictionary("AutoEncoder", LINEAR | {"bias": B_DEC}), RELU),
    "dictionary_learning, `AutoEncoderNew`": Brought(
        dictionary("AutoEncoderNew", LINEAR | {"decoder.bias": B_DEC}), RELU_OF_X),
    "dictionary_learning, `GatedAutoEncoder`": Brought(
        # The gate opens above 5; the magnitude is the double.
        dictionary("GatedAutoEncoder", {name: LINEAR[name] for name in ("encoder.weight", "decoder.weight")} | {
            "decoder_bias": B_DEC, "gate_bias": torch.full((3,), -5.0), "mag_bias": torch.zeros(3),
            "r_mag": torch.full((3,), np.log(2.0))}), [[0, 16, 44], [0, 0, 0]]),
    "dictionary_learning, `JumpReluAutoEncoder`": Brought(dictionary("JumpReluAutoEncoder", SCOPE), ABOVE_5_OF_X),
    "dictionary_learning, `AutoEncoderTopK`": Brought(
        dictionary("AutoEncoderTopK", LINEAR | {"b_dec": B_DEC, "k": torch.tensor(1), "threshold": torch.tensor(-1.0)}),
        TOP_1),
    "dictionary_learning, `BatchTopKSAE`": Brought(
        dictionary("BatchTopKSAE", LINEAR | {"b_dec": B_DEC, "k": torch.tensor(1), "threshold": torch.tensor(5.0)}),
        ABOVE_5),
    "dictionary_learning, `MatryoshkaBatchTopKSAE`": Brought(
        dictionary("MatryoshkaBatchTopKSAE", LENS | {"k": torch.tensor(1), "threshold": torch.tensor(5.0)}), ABOVE_5),
    "dictionary_learning, another class": Brought(dictionary("MyOwnSAE", LENS), "'MyOwnSAE'"),
    "Gemma Scope (`params.npz`)": Brought(scope, ABOVE_5_OF_X),
    "Gemma Scope 2 (`params.safetensors`)": Brought(scope_2, ABOVE_5_OF_X),
    "one safetensors file of two matrices, wider than high or higher than wide": Brought(
        plain({"encoder.weight": W_ENC.T, "decoder.weight": W_DEC.T}), "does not tell how"),
    "one safetensors file of two square matrices": Brought(
        plain({"W_enc": torch.eye(2), "W_dec": torch.eye(2)}), refused="as wide as high"),
    "a transcoder": Brought(lens({"architecture": "transcoder"}), refused="a transcoder"),
    "a crosscoder": Brought(lens({"architecture": "crosscoder"}), refused="a crosscoder"),
    "an SAE on the output of an MLP or an attention layer, or inside one": Brought(
        lens({"metadata": {"hook_name": "model.layers.1.mlp"}}), refused="inside an MLP layer ('model.layers.1.mlp')"),
    "a folder of SAEs' folders": Brought(lambda folder: scope(folder) and folder, refused="average_l0_71"),
    "anything else": Brought(lambda folder: tensors(folder, "a.safetensors", LENS) or cfg(folder, {}, "b.safetensors")
                             or folder, refused="'a.safetensors', 'b.safetensors'"),
}


def said(call, *args, **options) -> str:
    with pytest.raises(UserError) as caught:
        call(*args, **options)
    message = str(caught.value)
    assert len(message) < 1500
    assert "\n" not in message
    return message


@pytest.mark.parametrize("brought", CASES.values(), ids=CASES)
def test_what_people_bring(tmp_path, brought):
    folder = brought.build(tmp_path / "mine")
    if brought.refused:
        assert brought.refused in said(lambda: load_sae(find_sae(str(folder), allow_folder=True)))
        return
    entry = find_sae(str(folder), allow_folder=True)
    assert (entry.hook, entry.model) == (brought.hook, "google/gemma-2-2b" if "gemma" in str(folder) else "some/model")
    sae = load_sae(entry)
    assert torch.equal(sae.W_enc, brought.W_enc)
    assert torch.equal(sae.W_dec, brought.W_dec)
    assert entry.d_sae in (None, sae.d_sae)
    if isinstance(brought.activations, str):
        message = said(load_encoder, entry)
        assert brought.activations in message
        assert "weights encoder" in message
    else:
        expected = torch.tensor(brought.activations, dtype=torch.float32)
        torch.testing.assert_close(load_encoder(entry).encode(X), expected)


def test_the_page_has_a_line_for_each_case_and_says_what_comes_of_it():
    page = (Path(__file__).parents[2] / "docs" / "your-own-sae.md").read_text(encoding="utf-8")
    section = page.partition("## Formats")[2].partition("\nThe files, by format")[0]
    rows = dict(re.findall(r"^\| (.+?) +\| (.+?) +\|$", section, re.MULTILINE)[1:])
    assert list(rows) == list(CASES)
    for line, told in rows.items():
        case = CASES[line]
        works = "not" if case.refused else "works without activations" if isinstance(case.activations, str) else "works"
        assert told.startswith(works), line
        assert ("without activations" in told) == (works == "works without activations"), line


# As sae-lens itself reads them


@pytest.mark.parametrize("rescaled", [False, True])
@pytest.mark.parametrize("architecture", ["batchtopk", "matryoshka_batchtopk"])
def test_a_checkpoint_reads_as_the_inference_form_that_sae_lens_saves(tmp_path, architecture, rescaled):
    import sae_lens

    name = "BatchTopKTrainingSAE" if architecture == "batchtopk" else "MatryoshkaBatchTopKTrainingSAE"
    more = {} if architecture == "batchtopk" else {"matryoshka_widths": [4, 12]}
    config = getattr(sae_lens, f"{name}Config")(d_in=8, d_sae=12, k=3, rescale_acts_by_decoder_norm=rescaled, **more)
    torch.manual_seed(0)
    trained = getattr(sae_lens, name)(config)
    trained.topk_threshold = torch.tensor(0.2, dtype=torch.double)
    with torch.no_grad():
        trained.W_dec *= torch.linspace(0.5, 20, 12)[:, None]
    trained.cfg.metadata.hook_name = HOOK
    trained.save_model(tmp_path / "checkpoint")
    trained.save_inference_model(tmp_path / "inference")
    entry = folder_sae(tmp_path / "checkpoint")
    x = torch.randn(20, 8, generator=torch.Generator().manual_seed(1))
    expected = sae_lens.SAE.load_from_disk(str(tmp_path / "inference")).encode(x).detach()
    assert 0 < (expected > 0).float().mean() < 1
    torch.testing.assert_close(load_encoder(entry).encode(x), expected)
    torch.testing.assert_close(load_encoder(entry).encode_feature(x, 4), expected[:, 4])
    # What was read has not been changed meanwhile.
    assert torch.equal(load_sae(entry).W_dec, trained.W_dec)


@pytest.mark.parametrize("architecture", ["standard", "jumprelu", "topk", "batchtopk"])
def test_a_checkpoint_on_scaled_inputs_reads_as_what_sae_lens_saves_in_the_end(tmp_path, architecture):
    import sae_lens
    from sae_lens.training.activation_scaler import ActivationScaler

    name = {"jumprelu": "JumpReLU", "topk": "TopK", "batchtopk": "BatchTopK"}.get(architecture, "Standard")
    more = {"k": 3} if "topk" in architecture else {}
    config = getattr(sae_lens, f"{name}TrainingSAEConfig")(d_in=8, d_sae=12, normalize_activations=AVERAGE, **more)
    torch.manual_seed(0)
    trained = getattr(sae_lens, f"{name}TrainingSAE")(config)
    with torch.no_grad():
        trained.b_dec += torch.randn(8)
        trained.b_enc += torch.randn(12)
    if architecture == "batchtopk":
        trained.topk_threshold = torch.tensor(0.2, dtype=torch.double)
    trained.cfg.metadata.hook_name = HOOK
    trained.save_model(tmp_path / "checkpoint")
    ActivationScaler(0.25).save(str(tmp_path / "checkpoint" / "activation_scaler.json"))
    trained.fold_activation_norm_scaling_factor(0.25)
    trained.save_inference_model(tmp_path / "inference")
    x = 4 * torch.randn(20, 8, generator=torch.Generator().manual_seed(1))
    expected = sae_lens.SAE.load_from_disk(str(tmp_path / "inference")).encode(x).detach()
    assert 0 < (expected > 0).float().mean() < 1
    torch.testing.assert_close(load_encoder(folder_sae(tmp_path / "checkpoint")).encode(x), expected)


@pytest.mark.parametrize("factor", [None, "2", -1, True])
def test_a_factor_that_is_none_is_not_taken(tmp_path, factor):
    folder = lens({"normalize_activations": AVERAGE})(tmp_path / "mine")
    cfg(folder, {"scaling_factor": factor}, "activation_scaler.json")
    assert "times a factor" in said(load_encoder, folder_sae(folder))


@pytest.mark.parametrize(("told", "factor", "reason"), [
    (True, torch.ones(2) * 2, "is (2,); it must be a number for each of 3 features"),
    ("true", torch.ones(3) * 2, "does not say"),
])
def test_a_scaling_factor_that_cannot_count_is_told_for_what_it_is(tmp_path, told, factor, reason):
    weights = LENS | {"scaling_factor": factor}
    folder = lens({"finetuning_scaling_factor": told}, old=True, weights=weights)(tmp_path / "mine")
    assert reason in said(load_encoder, folder_sae(folder))


@pytest.mark.parametrize("old", [{}, {"hook_point": "blocks.{layer}.hook_resid_pre"}, {"normalize_activations": None},
                                 {"activation_fn_str": "relu", "activation_fn_kwargs": None}], ids=str)
def test_an_old_folder_reads_as_sae_lens_reads_it(tmp_path, old):
    from sae_lens import SAE

    folder = lens(old, old=True)(tmp_path / "mine")
    entry = folder_sae(folder)
    assert (entry.hook, entry.d_sae) == (OLD_HOOK, 3)
    if "activation_fn_kwargs" in old:  # which sae-lens cannot read
        cfg(tmp_path / "theirs", BEFORE_6)
        tensors(tmp_path / "theirs", "sae_weights.safetensors", LENS)
        folder = tmp_path / "theirs"
    torch.testing.assert_close(load_encoder(entry).encode(X), SAE.load_from_disk(str(folder)).encode(X).detach())


def test_a_k_at_the_top_level_makes_a_topk_sae(tmp_path):
    folder = lens({"activation_fn_str": "topk", "k": 1}, old=True)(tmp_path / "mine")
    assert load_encoder(folder_sae(folder)).encode(X).tolist() == TOP_1


def test_a_scaling_factor_counts_where_a_feature_is_set(tmp_path):
    weights = LENS | {"scaling_factor": torch.tensor([1.0, 2.0, 3.0])}
    entry = folder_sae(lens({"finetuning_scaling_factor": True}, old=True, weights=weights)(tmp_path / "mine"))
    # Feature 1 is at 8; from there to 9 it adds one of its rows, [0, 2] times 2.
    assert load_encoder(entry).change_by_setting(X[:1], 1, 9.0).tolist() == [[0, 4]]


def test_a_scaling_factor_of_ones_is_nothing(tmp_path):
    folder = lens(old=True, weights=LENS | {"scaling_factor": torch.ones(3)})(tmp_path / "mine")
    assert load_encoder(folder_sae(folder)).encode(X).tolist() == RELU


def test_gemma_scopes_embeddings_are_read_in_their_own_units(tmp_path):
    folder = tmp_path / "gemma-scope-2b-pt-res" / "embedding" / "width_4k" / "average_l0_6"
    folder.mkdir(parents=True)
    arrays = SCOPE | {"threshold": torch.ones(3)}
    np.savez(folder / "params.npz", **{name: value.numpy() for name, value in arrays.items()})
    entry = folder_sae(folder)
    assert (entry.hook, entry.d_sae) == ("hook_embed", 3)
    # It was trained on embeddings times the root of d_model = 2.
    torch.testing.assert_close(load_encoder(entry).encode(X[:1] * 2**0.5), torch.tensor([RELU_OF_X[0]]).float())


def test_a_plain_file_is_turned_by_its_shapes_or_by_what_stands_beside_it(tmp_path):
    rows = {"encoder": W_ENC.T, "decoder": W_DEC}  # both with features as rows
    sae = load_sae(folder_sae(plain(rows)(tmp_path / "rows")))
    assert torch.equal(sae.W_enc, W_ENC)
    assert torch.equal(sae.W_dec, W_DEC)
    # Fewer features than dimensions, which only the configuration tells.
    folder = plain({"W_enc": W_DEC, "W_dec": W_ENC})(tmp_path / "narrow")
    cfg(folder, {"hook_name": HOOK, "d_in": 3})
    assert torch.equal(load_sae(folder_sae(folder)).W_enc, W_DEC)
    cfg(folder, {"hook_name": HOOK, "d_in": 7})
    assert "says 7 dimensions" in said(load_sae, folder_sae(folder))
    other = plain({"a": W_ENC, "b": W_DEC})(tmp_path / "other")
    assert "'a', 'b'" in said(folder_sae, other)


# Hooks


@pytest.mark.parametrize(("hook", "place"), [
    ("blocks.1.hook_resid_pre", ("resid_pre", 1)),
    ("blocks.1.hook_resid_mid", ("resid_mid", 1)),
    ("blocks.1.hook_resid_post", ("resid_post", 1)),
    ("blocks.1.hook_in", ("resid_pre", 1)),
    ("blocks.1.hook_out", ("resid_post", 1)),
    ("model.layers.1", ("resid_post", 1)),
    ("model.layers.1.output", ("resid_post", 1)),
    ("model.layers.1.input", ("resid_pre", 1)),
    ("transformer.h.1", ("resid_post", 1)),
    ("gpt_neox.layers.1", ("resid_post", 1)),
    ("model.language_model.layers.1", ("resid_post", 1)),
    ("language_model.model.layers.1", ("resid_post", 1)),
    ("model.decoder.layers.1", ("resid_post", 1)),
    ("layers.1", ("resid_post", 1)),
    ("hook_embed", ("embed", None)),
    ("embed.hook_out", ("embed", None)),
    ("model.embed_tokens", ("embed", None)),
    ("model.language_model.embed_tokens", ("embed", None)),
    ("transformer.wte", ("embed", None)),
    ("gpt_neox.embed_in", ("embed", None)),
    ("blocks.1.hook_mlp_out", ("mlp_out", 1)),
    ("blocks.1.mlp.hook_out", ("mlp", 1)),
    ("blocks.1.attn.hook_out", ("attention", 1)),
    ("model.layers.1.mlp.down_proj", ("mlp", 1)),
    ("model.layers.1.self_attn", ("attention", 1)),
    ("gpt_neox.layers.1.attention.dense", ("attention", 1)),
    ("transformer.h.1.attn", ("attention", 1)),
    ("model.layers.1.input_layernorm", ("inside", 1)),
    # No names of the kind, or more than one.
    ("vision_tower.encoder.layers.1", ("unknown", None)),
    ("my blocks.1.hook_resid_post", ("unknown", None)),
    ("blocks.1.hook_resid_post,blocks.2.hook_resid_post", ("unknown", None)),
    ("blocks.1.hook_resid_post\n", ("unknown", None)),
    ("blocks.-1.hook_resid_post", ("unknown", None)),
    ("blocks.١.hook_resid_post", ("unknown", None)),
    ("blocks." + "9" * 5000 + ".hook_resid_post", ("unknown", None)),
    ("resid_post", ("unknown", None)),
    ("", ("unknown", None)),
])
def test_a_hook_is_the_whole_name_of_a_place(hook, place):
    assert parse_hook(hook) == place


@pytest.mark.parametrize(("told", "hook"), [
    ({"metadata": {"hf_hook_name": "model.layers.1"}}, HOOK),
    ({"metadata": {"hook_name": "sae_in", "hf_hook_name": "model.layers.1"}}, HOOK),
    ({"hook_name": "blocks.1.hook_out"}, HOOK),
    ({"hook_point": "blocks.1.hook_in", "hook_name": ""}, OLD_HOOK),
    ({"hook_name": "transformer.wte"}, "hook_embed"),
], ids=str)
def test_fields_that_name_the_hook(tmp_path, told, hook):
    folder = lens({"metadata": None} | told)(tmp_path / "mine")
    assert find_sae(str(folder), allow_folder=True).hook == hook


def test_a_hook_that_is_not_told_or_not_known_is_named_with_its_field_and_file(tmp_path, monkeypatch):
    folder = lens({"metadata": {}})(tmp_path / "mine")
    message = said(find_sae, str(folder), allow_folder=True)
    assert "hook_name" in message
    assert "--hook" in message
    assert str(folder) in message
    cfg(folder, {"hook_point": "blocks." + "9" * 5000 + ".hook_resid_post"})
    message = said(find_sae, str(folder), allow_folder=True)
    assert f"hook_point in {folder / 'cfg.json'}" in message
    # It stands in no list.
    monkeypatch.setenv(LOCAL_SAES_VARIABLE, str(folder))
    assert not [entry for entry in saes() if entry.release == "local"]
    monkeypatch.setenv(LOCAL_SAES_VARIABLE, f"{folder}@model.layers.1")
    assert [entry.hook for entry in saes() if entry.release == "local"] == [HOOK]


def test_a_hook_that_is_given_says_what_files_do_not(tmp_path):
    folder = tmp_path / "layer_1"
    folder.mkdir()
    np.savez(folder / "params.npz", **{name: value.numpy() for name, value in SCOPE.items()})
    assert "--hook" in said(find_sae, str(folder), allow_folder=True)
    for hook in (HOOK, "model.layers.1"):
        entry = find_sae(str(folder), hook=hook, allow_folder=True)
        assert entry.hook == HOOK
        assert find_sae(f"{folder}@{hook}", allow_folder=True) == entry
        assert load_encoder(entry).encode(X).tolist() == ABOVE_5_OF_X
    assert "no place on the residual stream" in said(find_sae, f"{folder}@model.layers.1.mlp", allow_folder=True)
    told = str(lens()(tmp_path / "told"))
    assert find_sae(told, hook="model.layers.1", allow_folder=True).hook == HOOK  # the same place
    assert "metadata.hook_name in" in said(find_sae, told, hook="blocks.2.hook_resid_post", allow_folder=True)
    mlp = str(lens({"metadata": {"hook_name": "blocks.1.hook_mlp_out"}})(tmp_path / "mlp"))
    assert "output of an MLP" in said(find_sae, mlp, hook=HOOK, allow_folder=True)


def test_a_folder_with_an_at_in_its_name_is_that_folder(tmp_path):
    folder = lens()(tmp_path / f"mine@{HOOK}")
    assert find_sae(str(folder), allow_folder=True).folder == folder


def test_a_folder_with_a_hook_is_named_only_where_folders_may_be(tmp_path):
    folder = lens({"metadata": {}})(tmp_path / "mine")
    assert "There is no SAE" in said(find_sae, f"{folder}@{HOOK}")
    assert "There is no SAE" in said(find_sae, str(folder), hook=HOOK)


def test_a_file_in_place_of_its_folder_is_told(tmp_path):
    folder = lens()(tmp_path / "mine")
    assert "is a file" in said(find_sae, str(folder / "sae_weights.safetensors"), allow_folder=True)


def test_names_that_are_too_long_count_as_none(tmp_path):
    told = {"hook_name": HOOK, "model_name": "x" * 300, "neuronpedia_id": "y" * 300}
    entry = folder_sae(lens({"metadata": told})(tmp_path / "mine"))
    assert (entry.model, entry.neuronpedia_id) == ("", None)


@pytest.mark.parametrize("name", ["demo/hook_embed", "gemma-2b-res-jb/blocks.6.hook_resid_post"])
def test_a_hook_goes_with_folders_only(name):
    assert "says itself" in said(find_sae, name, hook=HOOK)
    assert "says itself" in said(find_sae, f"{name}@{HOOK}", allow_folder=True)


@pytest.mark.parametrize(("trainer", "hook"), [
    ({"submodule_name": "model.layers.1"}, HOOK),
    ({"submodule_name": "resid_pre_layer_1"}, OLD_HOOK),
])
def test_dictionary_learnings_submodules(tmp_path, trainer, hook):
    folder = dictionary("AutoEncoder", LINEAR | {"bias": B_DEC}, **trainer)(tmp_path / "mine")
    assert find_sae(str(folder), allow_folder=True).hook == hook


def test_dictionary_learnings_submodule_may_be_told_by_a_folders_name(tmp_path):
    build = dictionary("AutoEncoder", LINEAR | {"bias": B_DEC}, submodule_name=None)
    for name, hook in (("resid_post_layer_1", HOOK), ("resid_pre_layer_1", OLD_HOOK)):
        folder = build(tmp_path / name / "trainer_10")
        assert find_sae(str(folder), allow_folder=True).hook == hook
    mlp = build(tmp_path / "mlp_out_layer_1" / "trainer_0")
    assert "output of an MLP" in said(find_sae, str(mlp), allow_folder=True)


@pytest.mark.parametrize(("told", "model"), [
    ("gemma-v3-270m-pt", "google/gemma-3-270m"), ("gemma-v3-270m-it", "google/gemma-3-270m-it"),
    ("gemma-v3-4b-pt", "google/gemma-3-4b-pt"), ("gemma-v3-12b-it", "google/gemma-3-12b-it"),
])
def test_the_models_of_gemma_scope_2_by_their_names_on_the_hub(tmp_path, told, model):
    folder = scope_2(tmp_path / "mine")
    cfg(folder, {"hf_hook_point_in": "model.layers.1.output", "model_name": told}, "config.json")
    assert folder_sae(folder).model == model


@pytest.mark.parametrize(("trainer", "reason"), [
    ({"submodule_name": "mlp_out_layer_1"}, "output of an MLP"),
    ({"submodule_name": "model.layers.1.mlp"}, "inside an MLP"),
    ({"submodule_name": "post_mlp_residual"}, "trainer.submodule_name in"),
    ({"submodule_name": None}, "do not say at which place"),  # the layer's number does not tell
    ({"dict_class": "CrossCoder"}, "crosscoder"),
])
def test_dictionary_learning_elsewhere(tmp_path, trainer, reason):
    told = {"dict_class": "AutoEncoder"} | trainer
    folder = dictionary(state=LINEAR | {"bias": B_DEC}, **told)(tmp_path / "mine")
    assert reason in said(find_sae, str(folder), allow_folder=True)


@pytest.mark.parametrize("more", [{"transcode": True}, {"skip_connection": True}])
def test_sparsifys_transcoders(tmp_path, more):
    assert "a transcoder" in said(find_sae, str(sparsify(more)(tmp_path)), allow_folder=True)


def test_sparsify_on_an_mlp_and_on_the_embedding(tmp_path):
    assert "inside an MLP" in said(find_sae, str(sparsify(hookpoint="layers.1.mlp")(tmp_path)), allow_folder=True)
    assert folder_sae(sparsify(hookpoint="embed_tokens")(tmp_path)).hook == "hook_embed"


@pytest.mark.parametrize(("place", "name"), [
    ("jbloom/GPT2-Small-SAEs-Reformatted/blocks.8.hook_resid_pre", "gpt2-small-res-jb/blocks.8.hook_resid_pre"),
    ("google/gemma-scope-2b-pt-res/layer_20/width_16k/average_l0_71",
     "gemma-scope-2b-pt-res/layer_20/width_16k/average_l0_71"),
])
def test_what_the_registry_has_is_read_as_it_says_by_its_place_on_the_hub_too(place, name):
    """Else GPT-2's would be read on residuals with their mean. Nothing is fetched to find it."""
    assert find_sae(f"hf://{place}", allow_folder=True) == find_sae(name)


# Files that are not as they should be


def test_a_pickle_that_holds_more_than_weights_is_not_read(tmp_path, monkeypatch):
    class Payload:
        def __reduce__(self):
            return open, (str(tmp_path / "it was run"), "w")

    folder = dictionary("AutoEncoder", {"encoder.weight": Payload()})(tmp_path / "mine")
    assert "can run code" in said(load_sae, folder_sae(folder))
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    assert "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD" in said(load_sae, folder_sae(folder))
    assert not (tmp_path / "it was run").exists()


@pytest.mark.parametrize("old", [False, True])
def test_a_file_of_pytorch_old_or_new(tmp_path, old):
    folder = dictionary("AutoEncoder", {})(tmp_path / "mine")
    torch.save(LINEAR | {"bias": B_DEC}, folder / "ae.pt", _use_new_zipfile_serialization=not old)
    assert load_encoder(folder_sae(folder)).encode(X).tolist() == RELU


@pytest.mark.parametrize(("state", "reason"), [
    ([W_ENC], "must hold a dictionary"),
    ({}, "has no encoder.weight and no decoder.weight"),
    (LINEAR | {"encoder.weight": torch.ones(1).expand(10**6, 10**6)}, "larger than what is stored"),
    (LINEAR | {"encoder.weight": torch.ones(3, 2, dtype=torch.int64)}, "int64"),
    (LINEAR | {"encoder.weight": torch.ones(2, 3)}, "do not fit together"),
    ({str(n): torch.zeros(1) for n in range(300)}, "more than any SAE has"),
], ids=range(6))
def test_a_dictionary_of_something_else(tmp_path, state, reason):
    folder = dictionary("AutoEncoder", state)(tmp_path / "mine")
    assert reason in said(load_sae, folder_sae(folder))


def changed(name: str, change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes(change((folder / name).read_bytes()))


@pytest.mark.parametrize(("build", "name", "change", "reason"), [
    (lens(), "sae_weights.safetensors", lambda raw: raw[:-1], "is cut short"),
    (lens(), "sae_weights.safetensors", lambda raw: b"garbage" * 9, "as safetensors"),
    (scope, "params.npz", lambda raw: raw[:-30], "BadZipFile"),
    (scope, "params.npz", lambda raw: b"garbage" * 9, "BadZipFile"),
    (dictionary("AutoEncoder", LINEAR), "ae.pt", lambda raw: raw[:-30], "torch.load|plain weights"),
    (dictionary("AutoEncoder", LINEAR), "ae.pt", lambda raw: b"", "torch.load"),
], ids=range(6))
def test_a_damaged_file_is_named_with_what_the_library_said(tmp_path, build, name, change, reason):
    folder = build(tmp_path / "mine")
    changed(name, change)(folder)
    message = said(lambda: load_sae(folder_sae(folder)))
    assert re.search(reason, message)
    assert str(folder / name) in message


def test_an_array_that_promises_more_than_it_holds_is_not_read(tmp_path):
    folder = scope(tmp_path)
    with np.load(folder / "params.npz") as arrays:
        kept = dict(arrays)
    np.savez(folder / "params.npz", **kept | {"W_enc": np.array([{}], dtype=object)})
    assert "not as large as its shape" in said(lambda: load_sae(find_sae(f"{folder}", allow_folder=True)))
    np.savez(folder / "params.npz", **kept | {"W_enc": np.ones((2, 3), dtype=np.int8)})
    assert "int8" in said(load_sae, folder_sae(folder))


@pytest.mark.parametrize(("content", "reason"), [
    ('{"a": ' * 50 + "1" + "}" * 50, "nested more than 40"),
    ('{"a": ' + "9" * 5000 + "}", "digits"),
    (json.dumps({"a": "x" * (5 << 20)}), "4.2 MB|4.0 MB"),
    ("[]", "no JSON object"),
], ids=range(4))
def test_a_configuration_beyond_bounds_is_refused(tmp_path, content, reason):
    folder = lens()(tmp_path / "mine")
    (folder / "cfg.json").write_text(content)
    message = said(find_sae, str(folder), allow_folder=True)
    assert re.search(reason, message)
    assert str(folder / "cfg.json") in message


def test_a_folder_that_cannot_be_looked_into_is_named(tmp_path, monkeypatch):
    def denied(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "iterdir", denied)
    assert f"{tmp_path} cannot be looked into (Permission denied)" in said(find_sae, str(tmp_path), allow_folder=True)


def test_an_sae_that_gives_its_hook_as_its_output_too_is_no_transcoder(tmp_path):
    told = {"hook_name": HOOK, "hook_name_out": HOOK}
    assert folder_sae(lens({"metadata": told})(tmp_path / "mine")).hook == HOOK
    told["hook_name_out"] = "blocks.1.hook_mlp_out"
    assert "transcoder" in said(find_sae, str(lens({"metadata": told})(tmp_path / "other")), allow_folder=True)


def test_dictionary_learnings_earlier_name_of_a_bias(tmp_path):
    state = LINEAR | {"bias": B_DEC, "k": torch.tensor(1)}
    assert load_encoder(folder_sae(dictionary("AutoEncoderTopK", state)(tmp_path))).encode(X).tolist() == TOP_1


@pytest.mark.parametrize("missing", ["b_enc", "b_dec", "threshold"])
def test_a_tensor_that_activations_need_is_named(tmp_path, missing):
    folder = scope(tmp_path)
    np.savez(folder / "params.npz", **{name: value.numpy() for name, value in SCOPE.items() if name != missing})
    entry = folder_sae(folder)
    assert load_sae(entry).d_sae == 3
    assert f"has no {missing}" in said(load_encoder, entry)


def test_a_feature_whose_weights_are_no_numbers_is_refused_and_the_others_stay(tmp_path):
    weights = LENS | {"W_enc": W_ENC.clone(), "W_dec": W_DEC.clone()}
    weights["W_enc"][0, 1], weights["W_dec"][2, 0] = float("nan"), float("inf")
    sae = load_sae(folder_sae(lens(weights=weights)(tmp_path / "mine")))
    assert sae.feature(0).encoder.tolist() == [1, 0]
    assert "W_enc of SAE local/mine has NaN or infinity at feature 1" in said(sae.feature, 1)
    assert "W_dec" in said(sae.feature, 2)
    competing = lens({"activation_fn_str": "topk", "k": 1}, old=True, weights=weights)(tmp_path / "topk")
    assert "features compete" in said(load_encoder, folder_sae(competing))


def test_weights_of_another_width_than_the_configuration_says_are_refused(tmp_path):
    assert "says 5 features" in said(lambda: load_sae(folder_sae(lens({"d_sae": 5})(tmp_path / "mine"))))
    turned = lens(weights=LENS | {"W_enc": W_ENC.T, "W_dec": W_DEC.T})(tmp_path / "turned")
    assert "have 2 (or these are the wrong way round)" in said(load_sae, folder_sae(turned))


@pytest.mark.parametrize("content", [
    "", "[]", "[" * 100_000, '{"features": {}}', '{"features": [{}]}', '{"features": [[1]]}',
    '{"features": [[["a", "b", "c", "d"]]]}', '{"features": [[["a", null, "c", NaN]]]}', "\ud800",
], ids=range(9))
def test_contexts_that_are_not_as_they_should_be_count_as_none(tmp_path, content):
    folder = lens()(tmp_path / "mine")
    (folder / "contexts.json").write_bytes(content.encode(errors="surrogatepass"))
    assert strongest_contexts(folder_sae(folder), 0) == []


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "4d7a" * 16 + "\nsize 302000000\n"


@pytest.mark.parametrize(("build", "name"), [
    (lens(), "sae_weights.safetensors"), (scope, "params.npz"), (dictionary("AutoEncoder", LINEAR), "ae.pt"),
    (plain(LENS), "mine.safetensors"),
], ids=range(4))
def test_a_pointer_of_git_lfs_is_told_as_one(tmp_path, build, name):
    folder = build(tmp_path / "mine")
    (folder / name).write_text(POINTER)
    message = said(lambda: load_sae(folder_sae(folder)))
    assert f"{folder / name} is only a pointer" in message
    assert "git lfs pull" in message


def test_a_configuration_may_begin_with_the_mark_that_windows_editors_write(tmp_path):
    folder = lens()(tmp_path / "mine")
    changed("cfg.json", lambda raw: b"\xef\xbb\xbf" + raw)(folder)
    assert folder_sae(folder).hook == HOOK


def test_an_output_at_the_same_place_by_another_name_makes_no_transcoder(tmp_path):
    told = {"hook_name": HOOK, "hook_name_out": "model.layers.1"}
    assert folder_sae(lens({"metadata": told})(tmp_path / "mine")).hook == HOOK
    told = {"hook_name": "somewhere", "hook_name_out": "elsewhere"}  # neither is known
    assert folder_sae(lens({"metadata": told})(tmp_path / "other")).kind == "transcoder"


def test_gemma_scopes_transcoders_are_none_of_the_residual_stream_whatever_hook_is_given(tmp_path):
    folder = tmp_path / "gemma-scope-2b-pt-transcoders" / "layer_1" / "width_16k" / "average_l0_71"
    folder.mkdir(parents=True)
    np.savez(folder / "params.npz", **{name: value.numpy() for name, value in SCOPE.items()})
    for hook in (None, HOOK):
        assert "a place inside a layer" in said(find_sae, str(folder), hook=hook, allow_folder=True)


@pytest.mark.parametrize(("part", "told"), [
    ("resid_post", HOOK), ("resid_post_all", HOOK), ("mlp_out", "output of an MLP"),
    ("attn_out_all", "output of an attention layer"),
    ("transcoder_all", "inside an MLP layer"), ("clt", "do not say at which place"),
])
def test_gemma_scope_2_without_a_configuration_is_told_by_its_folders(tmp_path, part, told):
    folder = scope_2(tmp_path / "gemma-scope-2-270m-it" / part / "layer_1_width_16k_l0_small")
    (folder / "config.json").unlink()
    if told == HOOK:
        entry = find_sae(str(folder), allow_folder=True)
        assert (entry.hook, entry.model) == (HOOK, "google/gemma-3-270m-it")
    else:
        assert told in said(find_sae, str(folder), allow_folder=True)


def test_a_models_folder_is_no_saes(tmp_path):
    tensors(tmp_path / "model", "model.safetensors", {"model.embed_tokens.weight": W_DEC})
    cfg(tmp_path / "model", {"model_type": "llama"}, "config.json")
    assert "holds 'model.embed_tokens.weight'" in said(find_sae, str(tmp_path / "model"), allow_folder=True)
    cfg(tmp_path / "model", {}, "tokenizer_config.json")
    assert "holds a language model" in said(find_sae, str(tmp_path / "model"), hook=HOOK, allow_folder=True)
