"""The logit lens: on every architecture against its formula by hand, and against the model itself."""

import pickle
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from test_architectures import hooks_of
from tiny import ARCHITECTURES, N_ROWS, tiny_model

from multitool.errors import UserError
from multitool.model.logit_lens import lens_logits, read_directions
from multitool.model.tasks import LensTask

GEMMA_NORM = ("gemma", "gemma2", "gemma3_text", "gemma3", "qwen3_5")  # their weights are told as what is above 1
LAYER_NORM = ("gpt2", "gpt_neox")
CAPPED = {"gemma2": 30.0}
# The last one is so short that the norm's eps counts.
DIRECTIONS = torch.randn(3, 32, generator=torch.Generator().manual_seed(5)) * torch.tensor([[1.0], [50.0], [1e-3]])


def final_norm(model):
    decoder = model.get_decoder()
    return next(module for name, module in decoder.named_children() if name in ("norm", "ln_f", "final_layer_norm"))


@pytest.fixture(scope="module")
def model(architecture):
    """With weights of the final norm, which are all the same in a new model."""
    model = tiny_model(architecture)
    generator = torch.Generator().manual_seed(6)
    for parameter in final_norm(model).parameters():
        parameter.copy_(torch.randn(32, generator=generator))
    return model


def plain_logits(model, architecture: str, direction: torch.Tensor) -> list[float]:
    """One token after the other, in double precision."""
    x = direction.double().numpy()
    norm, config = final_norm(model), model.config.get_text_config()
    w = norm.weight.double().numpy()
    if architecture in LAYER_NORM:
        eps = config.layer_norm_epsilon if architecture == "gpt2" else config.layer_norm_eps
        x = (x - x.mean()) / np.sqrt(((x - x.mean()) ** 2).mean() + eps) * w + norm.bias.double().numpy()
    else:
        x = x / np.sqrt((x**2).mean() + config.rms_norm_eps) * (1 + w if architecture in GEMMA_NORM else w)
    W_U = model.get_output_embeddings().weight.double().numpy()
    logits = [sum(a * b for a, b in zip(row, x, strict=True)) for row in W_U]
    cap = CAPPED.get(architecture)
    return logits if cap is None else [cap * np.tanh(logit / cap) for logit in logits]


def test_the_logits_are_those_of_the_formula_by_hand(model, architecture):
    logits = lens_logits(model, DIRECTIONS)
    assert (logits.shape, logits.dtype) == ((3, N_ROWS), torch.float32)
    for row, direction in zip(logits, DIRECTIONS, strict=True):
        assert row.tolist() == pytest.approx(plain_logits(model, architecture, direction), rel=1e-4, abs=1e-4)


def test_the_logits_are_the_models_own_if_its_last_residual_is_the_direction(model):
    handle = final_norm(model).register_forward_pre_hook(lambda module, args: (DIRECTIONS[:, None],))
    try:
        with torch.inference_mode():
            expected = model(input_ids=torch.tensor([[7], [8], [9]])).logits[:, 0]
    finally:
        handle.remove()
    torch.testing.assert_close(lens_logits(model, DIRECTIONS), expected, rtol=1e-4, atol=1e-4)


def test_nothing_of_the_model_changes(model):
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    hooks = hooks_of(model)
    lens_logits(model, DIRECTIONS)
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert hooks_of(model) == hooks


def test_the_cap_on_logits_is_felt_in_this_test():
    capped = tiny_model("gemma2")
    logits = lens_logits(capped, DIRECTIONS)
    capped.config.final_logit_softcapping = None
    assert (lens_logits(capped, DIRECTIONS) - logits).abs().max() > 0.1
    assert set(CAPPED) <= set(ARCHITECTURES)


def test_a_model_in_half_precision_is_read_in_its_own():
    half = tiny_model("llama").to(torch.bfloat16)
    logits = lens_logits(half, DIRECTIONS)
    assert logits.dtype == torch.float32
    exact = lens_logits(tiny_model("llama"), DIRECTIONS)
    assert (logits - exact).abs().max() < 0.05 * exact.abs().max()


def test_a_task_and_its_answer_go_to_another_process_and_back():
    llama = tiny_model("llama")
    task = LensTask(model="tiny", folder=Path("nowhere"), directions=DIRECTIONS.numpy())
    logits, = read_directions(llama, pickle.loads(pickle.dumps(task)))
    assert (logits.shape, logits.dtype) == ((3, N_ROWS), np.float32)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(logits)), lens_logits(llama, DIRECTIONS).numpy())


def test_a_model_whose_final_norm_or_unembedding_is_not_found_is_refused():
    llama = tiny_model("llama")
    without_norm = SimpleNamespace(get_output_embeddings=llama.get_output_embeddings, get_decoder=lambda: llama)
    without_unembedding = SimpleNamespace(get_output_embeddings=lambda: None, get_decoder=llama.get_decoder)
    for strange in (without_norm, without_unembedding):
        with pytest.raises(UserError, match="final norm or the unembedding of a SimpleNamespace .* another measure"):
            lens_logits(strange, DIRECTIONS)
