"""The Jacobian lens: on every architecture against finite differences, and against its formula by hand."""

from functools import partial

import pytest
import torch
from test_architectures import hooks_of
from tiny import LAYER_INPUTS, tiny_model

from multitool.errors import UserError
from multitool.model.finite import NotFiniteError
from multitool.model.jacobian_lens import JacobianLens
from multitool.model.residual_stream import last_residuals

GENERATOR = torch.Generator().manual_seed(3)
# The second is too short to count.
TEXTS = [torch.randint(3, 290, (n,), generator=GENERATOR).tolist() for n in (21, 10, 24)]
COUNTED = slice(16, -1)
MIXTURES = ("gpt_oss", "qwen3_moe")
HOOKS = ("hook_embed", "blocks.0.hook_resid_pre", "blocks.1.hook_resid_mid", "blocks.1.hook_resid_post")


def fitted(model, hook: str, texts=TEXTS, rows=range(32), **options) -> torch.Tensor:
    lens = JacobianLens(model, hook, texts, **options)
    parts = range(0, len(rows), lens.at_once)
    return torch.cat([lens.rows(rows[first : first + lens.at_once]) for first in parts])


def _moved(stream: torch.Tensor, by: torch.Tensor) -> torch.Tensor:
    return stream + by.to(stream.dtype)


def by_differences(model, hook: str, direction: torch.Tensor, step: float) -> torch.Tensor:
    """J @ d: what comes of moving the stream by a little of the direction at all counted positions at once."""
    total, n = torch.zeros(32, dtype=torch.float64), 0
    for text in TEXTS:
        moved = torch.zeros(len(text), 1)
        moved[COUNTED] = step
        ends = []
        for sign in (1, -1):
            with torch.no_grad():
                by = sign * moved * direction
                last = last_residuals(model, hook, partial(_moved, by=by), input_ids=torch.tensor([text]))
            ends.append(last[0, COUNTED].double().sum(dim=0))
        total += (ends[0] - ends[1]) / (2 * step)
        n += max(0, len(text) - 17)
    return total / n


@pytest.mark.parametrize("hook", HOOKS)
def test_it_carries_directions_as_finite_differences_do(architecture, hook):
    if architecture == "gpt_neox" and hook.endswith("mid"):
        return  # it has no such place
    model = tiny_model(architecture)
    if architecture in MIXTURES:
        model.set_experts_implementation("eager")  # the other one multiplies no doubles
    model = model.double()
    J = fitted(model, hook).double()
    for seed in (4, 5):
        direction = torch.randn(32, generator=torch.Generator().manual_seed(seed))
        # Most architectures' norms round to single precision, and a mixture of experts jumps from one to another: each
        # wants a step of its own.
        errors = []
        for step in (2e-3, 2e-4, 2e-5):
            expected = by_differences(model, hook, direction, step)
            errors.append(float((J @ direction.double() - expected).norm() / expected.norm()))
        assert min(errors) < 0.02


def test_it_sums_over_what_follows_and_averages_over_where_the_direction_stood():
    """Two counted positions, by PyTorch's own Jacobian: (d r16/d x16 + d r17/d x16 + d r17/d x17) / 2."""
    model, text = tiny_model("llama").double(), TEXTS[2][:19]
    embedded = model.get_input_embeddings()(torch.tensor([text])).detach()

    def last(x):
        return last_residuals(model, "hook_embed", lambda _: x, input_ids=torch.tensor([text]))[0]

    whole = torch.autograd.functional.jacobian(last, embedded)[:, :, 0]  # (position, entry, position, entry)
    expected = (whole[16, :, 16] + whole[17, :, 16] + whole[17, :, 17]) / 2
    torch.testing.assert_close(fitted(model, "hook_embed", [text]).double(), expected, rtol=1e-4, atol=1e-4)


def test_behind_the_last_layer_nothing_is_left_to_carry():
    J = fitted(tiny_model("llama"), "blocks.2.hook_resid_post")
    torch.testing.assert_close(J, torch.eye(32), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("architecture", ["qwen3", "gemma3_text", "qwen3_5"])
@pytest.mark.parametrize(("tokens", "at_once"), [(1, 16), (30, 16), (50, 1), (150, 3), (10_000, 32)])
def test_rows_are_the_same_in_any_parts(architecture, tokens, at_once):
    """Text after text, all texts at once, and those in several copies: as many as the memory holds."""
    model = tiny_model(architecture)
    of_token = 64 * 32 * model.config.num_hidden_layers * 4
    lens = JacobianLens(model, "blocks.0.hook_resid_post", TEXTS, graph_bytes=tokens * of_token)
    assert lens.at_once == at_once
    whole = fitted(model, "blocks.0.hook_resid_post")
    torch.testing.assert_close(lens.rows([5, 0, 31, 7]), whole[[5, 0, 31, 7]], rtol=1e-3, atol=1e-3)


def test_numbers_that_are_none_are_noticed():
    model = tiny_model("llama")
    model.get_decoder().layers[2].mlp.down_proj.weight[0, 0] = torch.nan
    with pytest.raises(NotFiniteError):
        fitted(model, "blocks.0.hook_resid_post")


def test_a_longer_text_counts_for_more():
    model, hook = tiny_model("gpt2"), "blocks.0.hook_resid_post"
    first, second = (fitted(model, hook, [text]) for text in (TEXTS[0], TEXTS[2]))
    torch.testing.assert_close(fitted(model, hook), (4 * first + 7 * second) / 11, rtol=1e-4, atol=1e-4)


def test_under_inference_mode_and_after_it_the_rows_are_the_same_and_the_model_is_as_before():
    model, hook = tiny_model("gemma2"), "blocks.1.hook_resid_post"
    expected = fitted(model, hook)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with torch.inference_mode():
        model(input_ids=torch.tensor([TEXTS[0]]))
        assert torch.equal(fitted(model, hook), expected)
    assert torch.equal(fitted(model, hook), expected)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert not any(weight.requires_grad or weight.grad is not None for weight in model.parameters())
    assert not hooks_of(model) or hooks_of(model) == hooks_of(tiny_model("gemma2"))


def test_what_cannot_be_fitted_is_refused():
    with pytest.raises(UserError, match="no blocks.7.hook_resid_post"):
        fitted(tiny_model("llama"), "blocks.7.hook_resid_post")
    with pytest.raises(UserError, match="2 streams"):
        fitted(tiny_model(next(iter(LAYER_INPUTS))), "blocks.0.hook_resid_post")
    with pytest.raises(ValueError, match="17 tokens"):
        fitted(tiny_model("llama"), "hook_embed", [[1] * 17])


def test_a_model_in_half_precision_gives_about_the_same_rows():
    hook = "blocks.1.hook_resid_post"
    exact, half = fitted(tiny_model("llama"), hook), fitted(tiny_model("llama").to(torch.bfloat16), hook)
    assert half.dtype == torch.float32
    assert torch.cosine_similarity(exact.flatten(), half.flatten(), dim=0) > 0.99
