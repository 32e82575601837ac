"""Steering, clamping and injection on every architecture, against a copy of the model with its layers' code replaced.

The copy runs one full forward pass per node, without a cache and without hooks.
"""

import threading

import numpy as np
import pytest
import torch
from plain_recursion import (
    PlainRecursion,
    as_paths,
    assert_same_tree,
    cutoff_after,
    edit_stream,
    safe_cut,
    trimmed,
)
from tiny import DEVICE, N_ROWS, RunningSubject, random_sae, tiny_model

from multitool.errors import UserError
from multitool.model.ghost_prompt import ghost_prompt
from multitool.model.interventions import (
    AppliedInterventions,
    Clamp,
    Injection,
    Interventions,
    Push,
    mean_residual_norm,
)
from multitool.model.passes import WHAT_FITS, Batches, Continuations
from multitool.model.residual_stream import changed, model_layers, residuals
from multitool.recipes.recipe import POSITIONS
from multitool.store.encoder import load_encoder
from multitool.store.folders import folder_sae
from multitool.store.saes import load_sae
from multitool.trees.growth import grow

pytestmark = pytest.mark.cuda

PROMPT = '"{ghost}" "'  # short, so that the random models look at the ghost
DEPTH = 3
CUTOFF = 8e-3
D_MODEL = 32
PROSE = (5, 17, 40, 8, 99, 3, 250, 11, 12, 13)
HOOK, LATER = "blocks.0.hook_resid_post", "blocks.1.hook_resid_post"
HOOKS = ("hook_embed", "blocks.1.hook_resid_pre", HOOK)


def unit(seed: int) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.randn(D_MODEL, generator=torch.Generator().manual_seed(seed)), dim=0)


PUSH, GHOST = unit(3), unit(4)
PUSH_THERE, GHOST_THERE = PUSH.to(DEVICE), GHOST.to(DEVICE)  # where the model is


@pytest.fixture(scope="module")
def saes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saes")
    return {hook: folder_sae(random_sae(folder / hook, D_MODEL, hook=hook)) for hook in HOOKS}


def weights_of(entry):
    sae = load_sae(entry)
    return sae.W_enc.to(DEVICE), sae.W_dec.to(DEVICE)


@pytest.fixture
def tolerance(architecture):
    return 1e-4 if architecture == "qwen3_5" else 2e-5


def prompt_of(subject: RunningSubject):
    return ghost_prompt(subject, PROMPT, DEPTH)


def ghost_row(subject: RunningSubject) -> torch.Tensor:
    return subject.space.centroid + subject.space.mean_distance * GHOST


def grown(
    subject: RunningSubject, wanted: Interventions, encoder=None, *, cutoff=CUTOFF, begun=None, batches=WHAT_FITS
):
    prompt = prompt_of(subject)
    v = GHOST if wanted.injection else ghost_row(subject)
    changes = AppliedInterventions(subject.model, prompt, wanted, encoder)
    source = Continuations(subject.model, prompt, v, 4, DEPTH, changes, batches)
    steps = list(grow(source, cutoff=cutoff, max_depth=DEPTH, max_nodes=10_000, begun=begun))
    assert steps[-1].done
    return steps


def norm_at(model, hook: str) -> float:
    """Of the prose's tokens behind the first, those that are at most twice as long as the median."""
    states = model(torch.tensor([PROSE], device=DEVICE), output_hidden_states=True).hidden_states
    if hook == "hook_embed":
        stream = model.get_input_embeddings()(torch.tensor([PROSE], device=DEVICE))
    else:
        stream = states[int(hook.split(".")[1]) + hook.endswith("post")]
    norms = [float(row.norm()) for row in stream[0, 1:]]
    median = sorted(norms)[(len(norms) - 1) // 2]
    return float(np.mean([norm for norm in norms if norm <= 2 * median]))


class PlainChanges(PlainRecursion):
    """The plain recursion on a copy of the model, the code of one place of which is replaced."""

    def change(self, hook: str, edit, positions) -> None:
        """From now on the stream at ``hook`` goes on as ``edit(row)`` at some positions of the whole text."""

        def edited(stream):
            rows = [
                torch.stack([edit(row) if position in positions else row for position, row in enumerate(text)])
                for text in stream
            ]
            return torch.stack(rows)

        edit_stream(self.model, hook, edited)


def plain(subject: RunningSubject, *, ghost: bool = True) -> PlainChanges:
    prompt = prompt_of(subject)
    row = ghost_row(subject) if ghost else subject.space.E[prompt.placeholder_id].clone()
    return PlainChanges(subject.model, prompt.token_ids, prompt.position, row)


def positions(subject: RunningSubject, where: str) -> range:
    prompt = prompt_of(subject)
    return {"ghost": range(prompt.position, prompt.position + 1), "prompt": range(len(prompt.token_ids)),
            "all": range(1000)}[where]


def assert_is(subject, wanted, expected: PlainChanges, tolerance, encoder=None, batches=WHAT_FITS) -> None:
    everything = expected.tree(top_k=4, cutoff=CUTOFF, max_depth=DEPTH, ends=())
    cutoff = cutoff_after(everything, safe_cut(everything, len(everything) * 3 // 4, len(everything) - 1))
    nodes = trimmed(everything, cutoff)
    assert max(map(len, nodes)) > 1
    found = grown(subject, wanted, encoder, cutoff=cutoff, batches=batches)
    assert_same_tree(found[-1].tree, nodes, tolerance)
    untouched = dict(plain(subject, ghost=wanted.injection is None).next_tokens((), N_ROWS))
    changes = [abs(prob - untouched[token_id]) for token_id, prob in expected.next_tokens((), N_ROWS)]
    assert max(changes) > 5 * tolerance, "too little is changed to be seen"
    # Stopped and gone on with, it is the same.
    again = grown(subject, wanted, encoder, cutoff=cutoff, begun=found[0].tree, batches=batches)
    assert_same_tree(again[-1].tree, nodes, tolerance)


@pytest.mark.parametrize("where", POSITIONS)
def test_steering_is_a_push_at_the_positions_that_are_meant(subject, where, tolerance):
    expected = plain(subject)
    push = 0.8 * norm_at(subject.model, HOOK) * PUSH_THERE
    expected.change(HOOK, lambda row: row + push, positions(subject, where))
    wanted = Interventions(pushes=(Push(HOOK, PUSH.numpy(), 0.8),), where=where, prose=PROSE)
    assert_is(subject, wanted, expected, tolerance)


@pytest.mark.parametrize("where", POSITIONS)
@pytest.mark.parametrize("architecture", ["llama"], scope="session")
def test_positions_of_the_prompt_that_are_spared_are_left_alone_but_the_ghosts_never(subject, where, tolerance):
    prompt = prompt_of(subject)
    spared = (0, prompt.position, len(prompt.token_ids) - 1)
    expected = plain(subject)
    push = 0.8 * norm_at(subject.model, HOOK) * PUSH_THERE
    meant = (set(positions(subject, where)) - set(spared)) | {prompt.position}
    expected.change(HOOK, lambda row: row + push, meant)
    wanted = Interventions(pushes=(Push(HOOK, PUSH.numpy(), 0.8),), where=where, spared=spared, prose=PROSE)
    assert_is(subject, wanted, expected, tolerance)


@pytest.mark.parametrize("where", POSITIONS)
def test_a_clamp_sets_one_activation_and_keeps_the_rest(subject, where, tolerance, saes):
    entry = saes[HOOK]
    W_enc, W_dec = weights_of(entry)
    target = 1.5 * norm_at(subject.model, HOOK)
    expected = plain(subject)
    # With biases of 0, an activation is max(0, x · W_enc[:, i]).
    expected.change(HOOK, lambda x: x + (target - (x @ W_enc[:, 2]).clamp(min=0)) * W_dec[2], positions(subject, where))
    wanted = Interventions(clamp=Clamp(entry, entry.hook, 2, 0.5, 2 * target), where=where)
    assert_is(subject, wanted, expected, tolerance, load_encoder(entry))


@pytest.mark.parametrize("hook", HOOKS[:2])
def test_both_act_at_the_other_hooks_too_the_clamp_last(subject, hook, tolerance, saes):
    entry = saes[hook]
    W_enc, W_dec = weights_of(entry)
    norm = norm_at(subject.model, hook)

    def edit(x):
        x = x + 0.7 * norm * PUSH_THERE
        return x + (norm - (x @ W_enc[:, 1]).clamp(min=0)) * W_dec[1]

    expected = plain(subject)
    expected.change(hook, edit, positions(subject, "all"))
    wanted = Interventions(
        pushes=(Push(hook, PUSH.numpy(), 0.7),), clamp=Clamp(entry, entry.hook, 1, 1.0, norm), where="all", prose=PROSE
    )
    assert_is(subject, wanted, expected, tolerance, load_encoder(entry))


@pytest.mark.parametrize("replace", [True, False], ids=["replace", "add"])
@pytest.mark.parametrize("layer", [0, 1])
def test_an_injected_vector_takes_the_ghosts_place_behind_its_layer(subject, layer, replace, tolerance):
    hook = f"blocks.{layer}.hook_resid_post"
    injected = 1.3 * norm_at(subject.model, hook) * GHOST_THERE
    expected = plain(subject, ghost=False)
    expected.change(hook, lambda row: injected + (0 if replace else row), positions(subject, "ghost"))
    wanted = Interventions(injection=Injection(layer, replace, 1.3), prose=PROSE)
    assert_is(subject, wanted, expected, tolerance)


def test_all_together_in_their_order_and_in_small_batches(subject, tolerance, saes):
    entry, norm = saes[HOOK], norm_at(subject.model, HOOK)
    W_enc, W_dec = weights_of(entry)
    expected = plain(subject, ghost=False)
    expected.change(HOOK, lambda row: norm * GHOST_THERE, positions(subject, "ghost"))
    expected.change(HOOK, lambda row: row + 0.6 * norm * PUSH_THERE, positions(subject, "all"))
    expected.change(HOOK, lambda x: x + (-norm - (x @ W_enc[:, 4]).clamp(min=0)) * W_dec[4], positions(subject, "all"))
    wanted = Interventions(
        Injection(0, True, 1.0), (Push(HOOK, PUSH.numpy(), 0.6),), Clamp(entry, entry.hook, 4, -1.0, norm), "all", PROSE
    )
    assert_is(subject, wanted, expected, tolerance, load_encoder(entry), Batches(max_paths=2))


def test_several_ghosts_are_injected_each_into_its_own_row(subject):
    prompt, vs = prompt_of(subject), torch.stack([unit(1), unit(2), unit(3)])
    wanted = Interventions(injection=Injection(1, True, 1.0), prose=PROSE)

    def probabilities(vs):
        changes = AppliedInterventions(subject.model, prompt, wanted)
        found = Continuations(subject.model, prompt, vs, N_ROWS, DEPTH, changes).start()
        ids, probs = (column.reshape(-1, N_ROWS) for column in (found.token_id, found.prob))
        return np.take_along_axis(probs, ids.argsort(axis=1), axis=1)

    together, alone = probabilities(vs), np.concatenate([probabilities(v) for v in vs])
    assert np.allclose(together, alone, atol=1e-5)
    assert not np.allclose(together[0], together[1], atol=3e-4)


def test_between_attention_and_mlp_the_change_goes_through_the_mlp_and_past_it(subject, architecture):
    hook, ids = "blocks.1.hook_resid_mid", torch.tensor([PROSE], device=DEVICE)
    if architecture == "gpt_neox":
        with pytest.raises(UserError, match="no place between"), changed(subject.model, hook, lambda x: x):
            raise AssertionError("entered")
        return
    layer = model_layers(subject.model)[1]
    gemma = architecture.startswith(("gemma2", "gemma3"))
    norm = layer.ln_2 if architecture == "gpt2" else (
        layer.pre_feedforward_layernorm if gemma else layer.post_attention_layernorm
    )
    with torch.no_grad():
        middle = residuals(subject.model, hook, input_ids=ids) + PUSH_THERE
        out = layer.mlp(norm(middle))
        out = out[0] if isinstance(out, tuple) else out
        expected = middle + (layer.post_feedforward_layernorm(out) if gemma else out)
    with changed(subject.model, hook, lambda stream: stream + PUSH_THERE):
        found = residuals(subject.model, LATER, input_ids=ids)
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_the_mean_residual_norm_leaves_out_the_first_token_and_outliers():
    """In a model whose layers do nothing, with embeddings of known lengths."""
    model = tiny_model("llama")
    for layer in model_layers(model):
        layer.forward = lambda hidden_states, **_: hidden_states
    E = model.get_input_embeddings().weight
    with torch.no_grad():
        for token_id, length in enumerate([50.0, 1.0, 2.0, 3.0, 100.0]):
            E[token_id] = length * unit(7)
    assert mean_residual_norm(model, HOOK, (0, 1, 2, 3, 4)) == pytest.approx(2)
    assert mean_residual_norm(model, "hook_embed", (0, 1, 3)) == pytest.approx(1)  # the lower of two is the median


WANTED = {
    "plain": Interventions(),
    "steered": Interventions(pushes=(Push(HOOK, PUSH.numpy(), 0.8),), where="all", prose=PROSE),
    "other way": Interventions(pushes=(Push(HOOK, PUSH.numpy(), -0.8),), where="all", prose=PROSE),
    "injected": Interventions(injection=Injection(1, True, 1.0), prose=PROSE),
}


def hooks_of(model) -> list:
    return [list(hooks.values()) for module in model.modules()
            for hooks in (module._forward_hooks, module._forward_pre_hooks)]


def test_growths_at_once_in_threads_give_what_they_give_alone_and_leave_no_trace(subject):
    before = {name: tensor.clone() for name, tensor in subject.model.state_dict().items()}
    hooks = hooks_of(subject.model)  # transformers leaves some of its own
    alone = {name: as_paths(grown(subject, wanted)[-1].tree) for name, wanted in WANTED.items()}
    assert len({frozenset(paths.items()) for paths in alone.values()}) == len(WANTED)
    together, ready = {name: [] for name in WANTED}, threading.Barrier(len(WANTED))

    def request(name: str) -> None:
        ready.wait()
        together[name] += [as_paths(grown(subject, WANTED[name])[-1].tree) for _ in range(2)]

    threads = [threading.Thread(target=request, args=(name,)) for name in WANTED]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert together == {name: [alone[name]] * 2 for name in WANTED}
    assert hooks_of(subject.model) == hooks
    after = subject.model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_pass_that_runs_while_another_threads_is_steered_is_not():
    """The meeting made certain: while the steered pass waits in its last layer, another runs the whole model."""
    model = tiny_model("llama")
    ids = torch.tensor([PROSE], device=DEVICE)
    with torch.no_grad():
        plain_logits = model(ids).logits
    with changed(model, LATER, lambda stream: stream + 5 * PUSH_THERE), torch.no_grad():
        steered_logits = model(ids).logits
    assert not torch.allclose(plain_logits, steered_logits, atol=0.1)
    inside, go_on, got = threading.Event(), threading.Event(), []

    def steered():
        with changed(model, LATER, lambda stream: stream + 5 * PUSH_THERE), torch.no_grad():
            got.append(model(ids).logits)

    thread = threading.Thread(target=steered, daemon=True)

    def wait(*_):
        if threading.current_thread() is thread:
            inside.set()
            assert go_on.wait(30)

    model_layers(model)[0].register_forward_hook(wait)
    thread.start()
    assert inside.wait(30)
    assert model_layers(model)[1]._forward_hooks
    with torch.no_grad():
        assert torch.equal(model(ids).logits, plain_logits)
    go_on.set()
    thread.join(30)
    assert torch.equal(got[0], steered_logits)


def test_an_error_inside_a_block_takes_the_hook_away():
    model = tiny_model("llama")
    with pytest.raises(RuntimeError, match="broken"), changed(model, "blocks.0.hook_resid_mid", lambda x: x):
        raise RuntimeError("broken")
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    with pytest.raises(UserError, match="numbered 0 to 2"), changed(model, "blocks.9.hook_resid_post", lambda x: x):
        raise AssertionError("entered")
