"""The residual stream at every hook, against transformers' own hidden states and layers done by hand."""

import threading

import pytest
import torch
from tiny import DEVICE, tiny_model
from torch import nn

from multitool.errors import UserError
from multitool.model.residual_stream import model_layers, residuals

pytestmark = pytest.mark.cuda

IDS = torch.tensor(
    [[5, 17, 40, 8, 99, 3, 250, 11, 12, 13], [301, 7, 7, 60, 61, 62, 63, 64, 65, 66]], device=DEVICE
)


@pytest.fixture(scope="session")
def model(subject):
    return subject.model


def n_layers(model) -> int:
    return model.config.get_text_config().num_hidden_layers


def close(one: torch.Tensor, other: torch.Tensor, tolerance: float = 1e-4) -> bool:
    return one.shape == other.shape and bool((one - other).norm() <= tolerance * other.norm())


def same(one: torch.Tensor, other: torch.Tensor) -> bool:
    return close(one, other, 1e-6)


def test_every_layer_is_as_transformers_tells_it(model):
    states = model(IDS, output_hidden_states=True).hidden_states
    assert len(states) == n_layers(model) + 1
    for layer in range(n_layers(model)):
        assert same(residuals(model, f"blocks.{layer}.hook_resid_pre", input_ids=IDS), states[layer])
        after = residuals(model, f"blocks.{layer}.hook_resid_post", input_ids=IDS)
        if layer + 1 < n_layers(model):
            assert same(after, states[layer + 1])
        else:
            # transformers tells the last one behind the final norm.
            norm = getattr(model.get_decoder(), "norm", None) or getattr(
                model.get_decoder(), "ln_f", None) or model.get_decoder().final_layer_norm
            assert same(norm(after), states[-1])
            assert not close(after, states[-1], 1e-2)


def test_the_embedding_is_what_the_first_layer_gets(model, architecture):
    embedded, first = (residuals(model, hook, input_ids=IDS) for hook in ("hook_embed", "blocks.0.hook_resid_pre"))
    if architecture == "gpt2":  # which adds its positions afterwards
        first = first - model.transformer.wpe.weight[: IDS.shape[1]]
        assert close(embedded, first)
    else:
        assert torch.equal(embedded, first)
    d_model = embedded.shape[-1]
    factor = d_model**0.5 if architecture.startswith("gemma") else 1
    assert close(embedded, factor * model.get_input_embeddings().weight[IDS])


def test_embeddings_in_the_place_of_tokens(model):
    embedded = residuals(model, "hook_embed", input_ids=IDS)
    assert residuals(model, "hook_embed", input_ids=IDS, inputs_embeds=embedded) is embedded
    hook = "blocks.1.hook_resid_post"
    assert same(residuals(model, hook, input_ids=IDS, inputs_embeds=embedded), residuals(model, hook, input_ids=IDS))


def test_between_attention_and_mlp_the_stream_is_the_layers_output_without_its_mlp(model, architecture):
    hook = "blocks.1.hook_resid_mid"
    if architecture == "gpt_neox":  # whose MLP lies beside the attention
        with pytest.raises(UserError, match=r"no blocks\.1\.hook_resid_mid.*GPTNeoXLayer"):
            residuals(model, hook, input_ids=IDS)
        return
    after = residuals(model, "blocks.1.hook_resid_post", input_ids=IDS)
    middle = residuals(model, hook, input_ids=IDS)
    assert not close(middle, after, 1e-2)
    assert not close(middle, residuals(model, "blocks.1.hook_resid_pre", input_ids=IDS), 1e-2)
    layer = model_layers(model)[1]
    before_mlp = layer.ln_2 if architecture == "gpt2" else (
        layer.pre_feedforward_layernorm if architecture.startswith(("gemma2", "gemma3")) else
        layer.post_attention_layernorm
    )
    added = layer.mlp(before_mlp(middle))
    added = added[0] if isinstance(added, tuple) else added
    if architecture.startswith(("gemma2", "gemma3")):
        added = layer.post_feedforward_layernorm(added)
    assert close(middle + added, after)


def test_a_layer_that_adds_one_adds_one():
    """Layers so plain that every place can be told in the head: layer N adds N + 1 to what comes in."""
    model = tiny_model("llama")
    for n, layer in enumerate(model_layers(model)):
        layer.forward = lambda hidden_states, n=n, **_: hidden_states + n + 1
    ones = torch.ones(1, 2, 32, device=DEVICE)
    places = {"hook_embed": 1, "blocks.0.hook_resid_pre": 1, "blocks.0.hook_resid_post": 2,
              "blocks.1.hook_resid_pre": 2, "blocks.1.hook_resid_post": 4, "blocks.2.hook_resid_post": 7}
    for hook, value in places.items():
        assert torch.equal(residuals(model, hook, input_ids=IDS[:1, :2], inputs_embeds=ones), ones * value), hook


def test_layers_behind_the_place_do_not_run():
    model = tiny_model("llama")

    def refuse(*_, **__):
        raise AssertionError("this layer must not run")

    model_layers(model)[2].forward = refuse
    assert residuals(model, "blocks.1.hook_resid_post", input_ids=IDS).shape == (2, 10, 32)
    assert residuals(model, "blocks.2.hook_resid_pre", input_ids=IDS).shape == (2, 10, 32)
    with pytest.raises(AssertionError):
        residuals(model, "blocks.2.hook_resid_post", input_ids=IDS)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_a_padded_batch_is_read_as_one_by_one(model, architecture):
    tolerance = 1e-3 if architecture == "qwen3_5" else 1e-5
    lengths = (10, 4, 1)
    padded, mask = torch.zeros(3, 10, dtype=torch.long), torch.zeros(3, 10, dtype=torch.long)
    for row, length in enumerate(lengths):
        padded[row, :length], mask[row, :length] = IDS[0, :length] + row, 1
    together = residuals(model, "blocks.2.hook_resid_post", input_ids=padded, attention_mask=mask)
    for row, length in enumerate(lengths):
        alone = residuals(model, "blocks.2.hook_resid_post", input_ids=padded[row : row + 1, :length])
        assert close(together[row, :length], alone[0], tolerance)


def test_what_comes_before_may_lie_in_a_cache(model, architecture):
    hook = f"blocks.{n_layers(model) - 1}.hook_resid_post"
    cache = model(IDS[:1, :3], use_cache=True).cache
    continued = residuals(model, hook, input_ids=IDS[:1, 3:4], cache=cache)
    whole = residuals(model, hook, input_ids=IDS[:1, :4])
    assert close(continued, whole[:, 3:], 1e-3 if architecture == "qwen3_5" else 1e-5)


def test_threads_that_read_and_a_thread_that_runs_the_model_do_not_meet():
    model = tiny_model("llama")
    hooks = [f"blocks.{layer}.hook_resid_{where}" for layer in range(3) for where in ("pre", "mid", "post")]
    hooks += hooks[-3:]  # two at the same place
    expected = {hook: residuals(model, hook, input_ids=IDS) for hook in hooks}
    logits = model(IDS).logits
    wrong, start, rounds = [], threading.Barrier(len(hooks) + 1), 40

    def checked(read, right, name):
        try:
            start.wait()
            for _ in range(rounds):
                if not same(read(), right):
                    wrong.append(name)
        except Exception as error:
            wrong.append((name, error))

    def reader(hook):
        return lambda: residuals(model, hook, input_ids=IDS)

    def run():
        with torch.no_grad():
            return model(IDS).logits

    threads = [threading.Thread(target=checked, args=(reader(hook), expected[hook], hook)) for hook in hooks]
    threads.append(threading.Thread(target=checked, args=(run, logits, "whole model")))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_another_threads_pass_through_the_place_is_neither_seen_nor_stopped():
    """The meeting made certain: while one thread's hook waits inside its pass, another runs the whole model."""
    model = tiny_model("llama")
    expected, logits = residuals(model, "blocks.2.hook_resid_post", input_ids=IDS), model(IDS).logits
    inside, go_on, got = threading.Event(), threading.Event(), []
    first = model_layers(model)[0]
    reader = threading.Thread(
        target=lambda: got.append(residuals(model, "blocks.2.hook_resid_post", input_ids=IDS)), daemon=True
    )

    def wait(*_):
        if threading.current_thread() is reader:
            inside.set()
            assert go_on.wait(30)

    first.register_forward_hook(wait)
    reader.start()
    assert inside.wait(30)
    assert model_layers(model)[2]._forward_hooks
    assert torch.equal(model(IDS).logits, logits)
    assert torch.equal(residuals(model, "blocks.2.hook_resid_post", input_ids=IDS + 1),
                       residuals(tiny_model("llama"), "blocks.2.hook_resid_post", input_ids=IDS + 1))
    go_on.set()
    reader.join(30)
    assert torch.equal(got[0], expected)


@pytest.mark.parametrize(
    "hook", ["", "blocks.x.hook_resid_post", "blocks.0.hook_mlp_out", "blocks.-1.hook_resid_post", "hook_embed ",
             "blocks.0.attn.hook_z", "blocks.0.hook_resid_post.more", "blocks." + "9" * 5000 + ".hook_resid_pre"]
)
def test_a_place_that_is_none_is_refused_with_the_valid_ones(hook):
    with pytest.raises(UserError, match=r"blocks\.N\.hook_resid_post") as caught:
        residuals(tiny_model("llama"), hook, input_ids=IDS)
    assert len(str(caught.value)) < 500


def test_a_layer_that_the_model_does_not_have_is_refused_with_those_it_has(model):
    n = n_layers(model)
    with pytest.raises(UserError, match=f"{n} layers are numbered 0 to {n - 1}"):
        residuals(model, f"blocks.{n}.hook_resid_post", input_ids=IDS)


def test_a_model_whose_layers_are_not_found_is_refused():
    model = tiny_model("llama")
    model.model.layers = nn.ModuleList(model.model.layers[:2])
    with pytest.raises(UserError, match="LlamaForCausalLM"):
        residuals(model, "blocks.0.hook_resid_post", input_ids=IDS)
