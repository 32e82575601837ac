"""Directions carried back through the layers: against finite differences, and how a matrix of them is kept."""

import copy
import threading

import numpy as np
import pytest
import torch
from tiny import DEVICE, LAYER_INPUTS, N_ROWS, tiny_model, tiny_subject

from multitool.errors import UserError
from multitool.model import pullback, residual_stream
from multitool.model.finite import NotFiniteError
from multitool.model.layer_inputs import scaled_rows
from multitool.model.pullback import Pullback
from multitool.model.residual_stream import residuals
from multitool.model.tasks import Base, Place, PullbackTask
from multitool.store.kept_rows import open_rows
from multitool.store.pullbacks import pull_back_all, pullback_rows_task, read_shipped, write_shipped
from multitool.store.worker import work_on

pytestmark = pytest.mark.cuda

HOOK = "blocks.1.hook_resid_post"
TOKENS = (5, 77, 200)
BOS = 7


def directions(n: int, seed: int = 3) -> torch.Tensor:
    return torch.randn(n, 32, generator=torch.Generator().manual_seed(seed))


def pulled(model, wanted: torch.Tensor, hook: str = HOOK, bos_id: int | None = BOS) -> torch.Tensor:
    base = Base(Place(hook, bos_id), TOKENS)
    *_, answer = work_on(model, PullbackTask(model="", folder=None, base=base, directions=wanted.numpy()), None)
    return torch.from_numpy(answer)


def by_finite_differences(model, w: torch.Tensor, hook: str = HOOK, bos_id: int | None = BOS) -> torch.Tensor:
    """``mean_b ∂/∂e [u(r(e)) · w]``, one entry of ``e`` after the other."""
    h = 1e-3
    module = model.get_input_embeddings()
    rows = module.weight[list(TOKENS)]
    moved = (rows[:, None] + h * torch.cat([torch.eye(32), -torch.eye(32)]).to(rows)).flatten(0, 1)
    ids = torch.tensor(TOKENS, device=DEVICE).repeat_interleave(64)[:, None]
    embeddings = scaled_rows(module, moved)[:, None]
    if bos_id is not None:
        before = torch.full_like(ids, bos_id)
        ids, embeddings = torch.cat([before, ids], dim=1), torch.cat([module(before), embeddings], dim=1)
    r = residuals(model, hook, input_ids=ids, inputs_embeds=embeddings)[:, -1]
    turned = torch.nn.functional.normalize(r, dim=1) @ w.to(r)
    forth, back = turned.view(len(TOKENS), 2, 32).unbind(1)
    return ((forth - back) / (2 * h)).mean(0).cpu()


def close(found: torch.Tensor, expected: torch.Tensor, tolerance: float = 2e-2) -> bool:
    return bool((found.double() - expected.double()).norm() <= tolerance * expected.double().norm())


def test_it_is_the_gradient_on_every_architecture(subject):
    w, = directions(1)
    for hook in (HOOK, "blocks.1.hook_resid_pre"):
        assert close(pulled(subject.model, w[None], hook)[0], by_finite_differences(subject.model, w, hook)), hook


@pytest.mark.parametrize("name", [name for name in LAYER_INPUTS if name != "gemma3n_text"])
def test_where_layers_look_tokens_up_they_look_up_the_base_tokens(name):
    model, (w,) = tiny_model(name), directions(1)
    assert close(pulled(model, w[None])[0], by_finite_differences(model, w))


def test_without_a_token_that_begins_texts():
    model, (w,) = tiny_model("llama"), directions(1)
    assert close(pulled(model, w[None], bos_id=None)[0], by_finite_differences(model, w, bos_id=None))


@pytest.mark.parametrize("name", ["llama", "gemma"])
def test_on_the_embedding_it_is_the_encoder_itself(name):
    wanted = directions(2)
    found = pulled(tiny_model(name), wanted, "hook_embed")
    assert torch.allclose(found, wanted * (32**0.5 if name == "gemma" else 1), rtol=1e-5)


def test_what_normalising_takes_away_there_is_the_part_along_the_base_tokens():
    """Before layer 0 a llama's stream is the embedding: u(e) · w turns with w less its part along e, by 1/|e|."""
    model, (w,) = tiny_model("llama"), directions(1)
    rows = model.get_input_embeddings().weight[list(TOKENS)].cpu()
    lengths = rows.norm(dim=1, keepdim=True)
    units = rows / lengths
    expected = ((w - (units @ w)[:, None] * units) / lengths).mean(0)
    assert torch.allclose(pulled(model, w[None], "blocks.0.hook_resid_pre")[0], expected, atol=1e-6)


def test_many_directions_in_one_pass_are_those_one_by_one(monkeypatch):
    model, wanted = tiny_model("gemma2"), directions(5)
    one_by_one = pulled(model, wanted)
    monkeypatch.setitem(pullback._AT_ONCE, DEVICE, 3)
    assert torch.allclose(pulled(model, wanted), one_by_one, rtol=1e-4, atol=1e-6)


def test_the_matrix_gives_what_single_passes_give_and_is_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("SAE_MULTITOOL_CACHE", str(tmp_path))
    model, wanted = tiny_model("llama"), directions(4)
    base = Base(Place(HOOK, BOS), TOKENS)
    task = pullback_rows_task("tiny/llama", tmp_path, base, d_model=32, dtype="float32")
    assert open_rows(task) is None
    counts = pull_back_all(model, task)
    assert [next(counts), next(counts)] == [0, 16]  # left here, it goes on there
    assert list(pull_back_all(model, task)) == [16, 32]
    matrix = open_rows(task).part(0, 32)
    assert close(wanted @ matrix, pulled(model, wanted))
    assert list(pull_back_all(model, task)) == [32]


def test_other_tokens_another_place_or_precision_are_another_matrix(tmp_path, monkeypatch):
    monkeypatch.setenv("SAE_MULTITOOL_CACHE", str(tmp_path))
    paths = {
        pullback_rows_task("m", tmp_path, Base(Place(hook, bos), tokens), d_model=32, dtype=dtype).path
        for hook, bos, tokens, dtype in [
            (HOOK, 0, TOKENS, "float32"), ("blocks.0.hook_resid_post", 0, TOKENS, "float32"),
            (HOOK, None, TOKENS, "float32"), (HOOK, 0, TOKENS[:2], "float32"), (HOOK, 0, TOKENS, "bfloat16"),
        ]
    }
    assert len(paths) == 5
    assert {path.parent for path in paths} == {tmp_path / "pullbacks"}


def test_nothing_of_the_model_changes_and_no_gradient_stays():
    model = tiny_model("gpt2")
    before = copy.deepcopy(model.state_dict())
    with torch.inference_mode():  # wherever it is called
        pulled(model, directions(1))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in model.parameters())


def test_threads_share_a_model():
    model, wanted = tiny_model("llama"), directions(8)
    alone, found = pulled(model, wanted), {}
    threads = [threading.Thread(target=lambda n=n: found.update({n: pulled(model, wanted)})) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert all(torch.equal(one, alone) for one in found.values())


def test_a_place_that_is_none_and_numbers_that_are_none():
    model = tiny_model("llama")
    with pytest.raises(UserError, match="layers are numbered 0 to 2"):
        pulled(model, directions(1), "blocks.9.hook_resid_post")
    model.get_input_embeddings().weight[TOKENS[0]] = np.nan
    with pytest.raises(NotFiniteError):
        Pullback(model, Base(Place(HOOK, BOS), TOKENS))


def test_base_tokens_are_tokens_of_texts_always_the_same(tokenizer):
    subject = tiny_subject("llama", tokenizer)
    assert len(subject.base_ids) == 64 == len(set(subject.base_ids))
    assert subject.base_ids == tiny_subject("gemma", tokenizer).base_ids
    assert all(0 < token_id < N_ROWS and subject.in_texts[token_id] for token_id in subject.base_ids)



def test_where_the_memory_is_short_fewer_directions_share_a_pass(monkeypatch):
    model, wanted = tiny_model("llama"), directions(5)
    monkeypatch.setitem(pullback._AT_ONCE, DEVICE, 4)
    alike, base = pulled(model, wanted), Base(Place(HOOK, BOS), TOKENS)
    kept_of_token = 64 * 32 * 3 * 4  # numbers in d_model · d_model · layers · bytes
    for tokens, at_once in [(1, 1), (12, 2), (23, 3), (10**6, 4)]:
        monkeypatch.setitem(residual_stream.GRAPH_BYTES, DEVICE, tokens * kept_of_token)
        assert Pullback(model, base).at_once == at_once
        assert Pullback(model, base, 2).at_once == min(2, at_once)
        assert torch.allclose(pulled(model, wanted), alike, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("damaged", [b"version https://git-lfs.github.com/spec/v1\n", b"\xff" * 40], ids=len)
def test_a_shipped_matrix_is_read_up_to_a_factor_or_refused(tmp_path, damaged):
    matrix = directions(32)
    path = write_shipped(tmp_path, matrix)
    found = read_shipped(path)
    assert found.dtype == torch.float32
    assert torch.allclose(found, matrix / matrix.abs().max(), atol=1e-3)
    path.write_bytes(damaged)
    with pytest.raises(UserError, match="pullback.safetensors"):
        read_shipped(path)
