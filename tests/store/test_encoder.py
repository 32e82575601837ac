"""SAEs that read: sae-lens' own numbers for every class, whole and one feature at a time, and what is refused."""

import json
import threading
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import random_sae, write_sae

from multitool.errors import UserError
from multitool.store import encoder as encoder_module
from multitool.store.encoder import Encoder, load_encoder
from multitool.store.folders import folder_sae
from multitool.store.registry import demo_saes, find_sae

D_MODEL, D_SAE = 8, 12
CLASSES = {
    "standard": {},
    "jumprelu": {"threshold": 0.5},
    "gated": {"b_gate": 0.3, "b_mag": -0.2, "r_mag": 0.4},
    "topk": {"k": 3},
    "topk rescaled": {"k": 3, "rescale_acts_by_decoder_norm": True},
    "abstopk": {"k": 3},
}
NORMALISATIONS = ("none", "layer_norm", "constant_norm_rescale")
X = torch.randn(40, D_MODEL, generator=torch.Generator().manual_seed(1)) * 3 + 1


def write(folder, kind: str, **cfg):
    """A random SAE of one of the classes, with all of its biases in use."""
    architecture = kind.split()[0]
    options = CLASSES[kind]
    weights = {name for name, value in options.items() if isinstance(value, float)}
    cfg = {name: value for name, value in options.items() if name not in weights} | cfg
    random_sae(folder, D_MODEL, D_SAE, architecture=architecture, **cfg)
    path = folder / "sae_weights.safetensors"
    tensors, generator = load_file(path), torch.Generator().manual_seed(2)
    for name in ("b_enc", "b_dec"):
        tensors[name] = torch.randn(tensors[name].shape, generator=generator)
    if architecture == "gated":
        del tensors["b_enc"]
    for name in sorted(weights):
        tensors[name] = options[name] + 0.3 * torch.rand(D_SAE, generator=generator)
    save_file(tensors, path)
    return folder


def loaded(folder):
    return load_encoder(folder_sae(folder))


def of_sae_lens(folder):
    from sae_lens import SAE

    return SAE.load_from_disk(str(folder), dtype="float32")


def refusal(folder) -> str:
    with pytest.raises(UserError) as caught:
        loaded(folder)
    message = str(caught.value)
    assert len(message) < 800
    assert "\n" not in message
    return message


def test_two_features_in_two_dimensions_in_the_head(tmp_path):
    folder = write_sae(tmp_path / "sae", W_enc=torch.tensor([[1.0, 0.0], [0.0, 2.0]]), W_dec=torch.eye(2))
    x = torch.tensor([[3.0, 4.0], [-1.0, 0.5]])
    encoder = loaded(folder)
    assert (encoder.d_model, encoder.d_sae, encoder.centred) == (2, 2, False)
    assert encoder.encode(x).tolist() == [[3, 8], [0, 1]]
    assert encoder.encode_feature(x, 1).tolist() == [8, 1]
    assert encoder.encode_feature(x, [1, 0, 1]).tolist() == [[8, 3, 8], [1, 0, 1]]


def test_a_threshold_and_a_bias_in_the_head(tmp_path):
    folder = write_sae(tmp_path / "sae", W_enc=torch.eye(2), W_dec=torch.eye(2), architecture="jumprelu")
    tensors = load_file(folder / "sae_weights.safetensors")
    save_file(tensors | {"threshold": torch.tensor([0.0, 5.0]), "b_dec": torch.tensor([1.0, 0.0])},
              folder / "sae_weights.safetensors")
    # 3 - 1 is above 0; 4 is below 5, and 6 is above.
    assert loaded(folder).encode(torch.tensor([[3.0, 4.0], [3.0, 6.0]])).tolist() == [[2, 0], [2, 6]]


@pytest.mark.parametrize("subtract", [True, False])
@pytest.mark.parametrize("normalisation", NORMALISATIONS)
@pytest.mark.parametrize("kind", CLASSES)
def test_every_class_reads_as_in_sae_lens_whole_and_by_feature(tmp_path, kind, normalisation, subtract):
    folder = write(tmp_path / "sae", kind, normalize_activations=normalisation, apply_b_dec_to_input=subtract)
    encoder = loaded(folder)
    expected = of_sae_lens(folder).encode(X).detach()
    assert 0 < (expected != 0).float().mean() < 1
    found = encoder.encode(X)
    torch.testing.assert_close(found, expected)
    assert not found.requires_grad
    for feature in range(D_SAE):
        torch.testing.assert_close(encoder.encode_feature(X, feature), expected[:, feature])
    torch.testing.assert_close(encoder.encode_feature(X, [7, 2, 7]), expected[:, [7, 2, 7]])
    # In small parts too.
    encoder = replace(encoder, chunk_bytes=4 * 6 * D_SAE * 7)
    torch.testing.assert_close(encoder.encode(X), expected)
    torch.testing.assert_close(encoder.encode_feature(X, 4), expected[:, 4])


def test_setting_a_feature_in_the_head(tmp_path):
    folder = write_sae(tmp_path / "sae", W_enc=torch.tensor([[1.0, 0.0], [0.0, 2.0]]),
                       W_dec=torch.tensor([[1.0, 1.0], [0.0, 3.0]]))
    # Feature 1 is at 8 and at 1: to get to 5 it loses 3 and gains 4, each time [0, 3].
    found = loaded(folder).change_by_setting(torch.tensor([[3.0, 4.0], [-1.0, 0.5]]), 1, 5.0)
    assert found.tolist() == [[0, -9], [0, 12]]


@pytest.mark.parametrize("normalisation", NORMALISATIONS)
@pytest.mark.parametrize("kind", CLASSES)
def test_setting_a_feature_changes_what_sae_lens_decodes(tmp_path, kind, normalisation):
    folder = write(tmp_path / "sae", kind, normalize_activations=normalisation)

    def decoded(value: float | None):
        sae = of_sae_lens(folder)  # anew: it notes at encoding what decoding undoes
        z = sae.encode(X)
        if value is not None:
            z[:, 3] = value
        return sae.decode(z).detach()

    expected = decoded(2.5) - decoded(None)
    encoder = loaded(folder)
    torch.testing.assert_close(encoder.change_by_setting(X, 3, 2.5), expected, rtol=1e-4, atol=1e-4)
    encoder = replace(encoder, chunk_bytes=4 * 6 * D_SAE * 7)  # in small parts too
    torch.testing.assert_close(encoder.change_by_setting(X, 3, 2.5), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["standard", "topk"])
def test_as_many_features_as_dimensions(tmp_path, kind):
    """Where a bias of the input is as long as one of the features."""
    folder = random_sae(tmp_path / "sae", D_MODEL, D_MODEL, architecture=kind, **({"k": 2} if kind == "topk" else {}))
    expected = of_sae_lens(folder).encode(X).detach()
    torch.testing.assert_close(loaded(folder).encode_feature(X, 5), expected[:, 5])


def test_an_sae_that_reads_texts_reads_every_residual_as_a_text_of_its_own():
    from sae_lens.saes.temporal_sae import TemporalSAE, TemporalSAEConfig

    torch.manual_seed(0)
    sae = TemporalSAE(TemporalSAEConfig(d_in=8, d_sae=16, n_heads=2, n_attn_layers=1, bottleneck_factor=1))
    encoder = Encoder(demo_saes()[0], False, sae)
    expected = torch.stack([sae.encode(row[None, None])[0, 0] for row in X]).detach()
    torch.testing.assert_close(encoder.encode(X), expected)
    torch.testing.assert_close(encoder.encode_feature(X, 3), expected[:, 3])


@pytest.mark.parametrize("entry", demo_saes(), ids=lambda entry: entry.hook)
def test_the_demos_saes(entry):
    encoder = load_encoder(entry)
    sae = of_sae_lens(entry.folder)
    assert not encoder.centred
    # Inputs as the SAE knows them: a few of its features together, and its own mean.
    generator = torch.Generator().manual_seed(3)
    mix = (torch.rand(60, encoder.d_sae, generator=generator) - 0.99).relu() * 500
    x = mix @ sae.W_dec.detach() + sae.b_dec.detach()
    expected = sae.encode(x).detach()
    torch.testing.assert_close(encoder.encode(x), expected, rtol=1e-4, atol=1e-3)
    features = expected.mean(0).topk(5).indices.tolist()
    torch.testing.assert_close(encoder.encode_feature(x, features), expected[:, features], rtol=1e-4, atol=1e-3)
    assert expected[:, features].max() > 0


def test_half_precision_on_disk_is_read_in_single_precision(tmp_path):
    folder = random_sae(tmp_path / "sae", D_MODEL, dtype="float16")
    path = folder / "sae_weights.safetensors"
    save_file({name: tensor.half() for name, tensor in load_file(path).items()}, path)
    assert loaded(folder).encode(X.bfloat16()).dtype == torch.float32


CENTRED, NOT_CENTRED = ({"model_from_pretrained_kwargs": {"center_writing_weights": value}} for value in (True, False))
NOW = {"sae_lens_version": "6.50.0", "hook_name": "blocks.0.hook_resid_pre"}


@pytest.mark.parametrize("cfg", [{"metadata": NOW | CENTRED}, CENTRED], ids=["as written now", "as written before"])
def test_residuals_lose_their_mean_where_the_model_was_centred(tmp_path, cfg):
    centred = loaded(random_sae(tmp_path / "centred", D_MODEL, **cfg))
    plain = loaded(random_sae(tmp_path / "plain", D_MODEL))
    assert centred.centred
    torch.testing.assert_close(centred.encode(X), plain.encode(X - X.mean(1, keepdim=True)))
    torch.testing.assert_close(centred.encode(X), centred.encode(X + 100), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("more", [{}, NOT_CENTRED, {"model_from_pretrained_kwargs": None}])
def test_by_default_nothing_is_taken_off(tmp_path, more):
    assert not loaded(random_sae(tmp_path / "sae", D_MODEL, metadata=NOW | more)).centred


def from_the_hub(name: str, folder, monkeypatch):
    """The SAE of the registry, with a folder in the place of what would be fetched."""
    entry = find_sae(name)
    monkeypatch.setattr(encoder_module, "fetch_sae", lambda entry, download: folder.parent)
    return load_encoder(replace(entry, path=folder.name))


def test_what_the_registry_says_about_an_sae_holds(tmp_path, monkeypatch):
    """GPT-2's first SAEs come from a centred model, Mistral's read unit vectors, one of Gemma's has a factor."""
    folder = random_sae(tmp_path / "sae", D_MODEL)
    plain = loaded(folder).encode
    gpt2 = from_the_hub("gpt2-small-res-jb/blocks.8.hook_resid_pre", folder, monkeypatch)
    assert gpt2.centred
    torch.testing.assert_close(gpt2.encode(X), plain(X - X.mean(1, keepdim=True)))
    mistral = from_the_hub("mistral-7b-res-wg/blocks.8.hook_resid_pre", folder, monkeypatch)
    assert not mistral.centred
    torch.testing.assert_close(mistral.encode(X), plain(X / X.norm(dim=1, keepdim=True) * D_MODEL**0.5))


def test_a_factor_of_the_registry_is_folded_into_the_weights(tmp_path, monkeypatch):
    from sae_lens.loading.pretrained_saes_directory import get_norm_scaling_factor

    from multitool.store.registry import saes

    names = [entry for entry in saes("gemma-2b-res-jb") if get_norm_scaling_factor(entry.release, entry.sae_id)]
    (entry,) = names
    factor = get_norm_scaling_factor(entry.release, entry.sae_id)
    folder = write(tmp_path / "sae", "standard", normalize_activations="expected_average_only_in")
    found = from_the_hub(entry.name, folder, monkeypatch)
    # As the SAE was trained: inputs times the factor.
    torch.testing.assert_close(found.encode(X), of_sae_lens(folder).encode(X * factor).detach())


def test_threads_share_an_sae_that_notes_something_on_itself(tmp_path):
    encoder = loaded(write(tmp_path / "sae", "topk", normalize_activations="constant_norm_rescale"))
    inputs = [X * scale for scale in (0.01, 1, 100, 7)]
    expected, wrong = encoder.encode(X), []

    def work(x):
        try:
            for _ in range(50):
                torch.testing.assert_close(encoder.encode(x), expected, rtol=1e-3, atol=1e-3)
        except AssertionError as error:
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(x,)) for x in inputs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_reading_one_feature_computes_that_one_alone(tmp_path, monkeypatch):
    encoder = loaded(write(tmp_path / "sae", "jumprelu"))
    shapes, encode = [], encoder_module._encode

    def noted(sae, *more):
        shapes.append(sae.cfg.d_sae)
        return encode(sae, *more)

    monkeypatch.setattr(encoder_module, "_encode", noted)
    encoder.encode_feature(X, 3)
    assert shapes == [1]


@pytest.mark.parametrize("feature", [D_SAE, -1, 10**20, [0, D_SAE]])
def test_a_feature_that_the_sae_does_not_have_is_refused_with_the_range(tmp_path, feature):
    encoder = loaded(write(tmp_path / "sae", "standard"))
    with pytest.raises(UserError, match=f"numbered 0 to {D_SAE - 1}"):
        encoder.encode_feature(X, feature)


def without(name):
    def change(tensors, cfg):
        del tensors[name]
    return change


def with_cfg(**more):
    return lambda tensors, cfg: cfg.update(more)


def shortened(name):
    def change(tensors, cfg):
        tensors[name] = tensors[name][:-1].contiguous()
    return change


@pytest.mark.parametrize(
    "change",
    [without("W_enc"), without("b_enc"), without("b_dec"), without("threshold"), shortened("b_enc"), shortened("W_dec"),
     shortened("threshold"), with_cfg(architecture="nonsense"), with_cfg(d_sae=D_SAE + 1), with_cfg(d_in="many"),
     with_cfg(normalize_activations="nonsense"), with_cfg(architecture="topk", k=3), with_cfg(metadata=None)],
)
def test_a_damaged_sae_is_refused_with_its_folder(tmp_path, change):
    folder = write(tmp_path / "sae", "jumprelu")
    tensors, cfg = load_file(folder / "sae_weights.safetensors"), json.loads((folder / "cfg.json").read_text())
    change(tensors, cfg)
    save_file(tensors, folder / "sae_weights.safetensors")
    (folder / "cfg.json").write_text(json.dumps(cfg))
    assert str(folder) in refusal(folder)


def test_a_file_that_is_cut_short_or_gone_is_refused_as_elsewhere(tmp_path):
    folder = write(tmp_path / "sae", "standard")
    path = folder / "sae_weights.safetensors"
    entry = folder_sae(folder)
    path.write_bytes(path.read_bytes()[:-1])
    assert "cut short" in refusal(folder)
    path.unlink()
    assert "missing" in refusal(folder)
    with pytest.raises(UserError, match="is no folder|is missing|holds no SAE"):
        (folder / "cfg.json").unlink()
        load_encoder(entry)


def test_more_features_at_a_time_than_there_are_is_refused(tmp_path):
    assert "sae-lens cannot read" in refusal(random_sae(tmp_path / "sae", D_MODEL, architecture="topk", k=100))


def test_too_little_memory_is_told_as_that(tmp_path, monkeypatch):
    folder = write(tmp_path / "sae", "standard")

    def full(*_):
        raise MemoryError

    monkeypatch.setattr(encoder_module, "_of_parts", full)
    assert "does not fit into the memory" in refusal(folder)


def test_without_the_hub_an_sae_of_the_registry_cannot_be_had():
    with pytest.raises(UserError, match="network"):
        load_encoder(find_sae("gemma-2b-res-jb/blocks.6.hook_resid_post"))
