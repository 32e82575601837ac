"""Texts continued under pushes, on every architecture, against a plain continuation: one full forward pass a token,
without a cache, one text at a time, with the layer's code replaced."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from plain_recursion import edit_stream
from tiny import DEVICE, tiny_model
from transformers import GenerationConfig

from multitool.model.continuation import continue_text
from multitool.model.interventions import Push, mean_residual_norm
from multitool.model.tasks import SteerTask, Written

pytestmark = pytest.mark.cuda

TEXT = (7, 41, 90, 12, 55)
PROSE = (5, 17, 40, 8, 99, 3, 250, 11, 12, 13)
HOOK = "blocks.0.hook_resid_post"
HOOKS = ("hook_embed", "blocks.1.hook_resid_pre", HOOK)
LENGTH = 6
STRENGTHS = (0.0, -1.5, 4.0)
DIRECTIONS = torch.nn.functional.normalize(torch.randn(2, 32, generator=torch.Generator().manual_seed(3)), dim=1)


def push(hook: str = HOOK, strength: float = 1.0, which: int = 0) -> Push:
    return Push(hook, DIRECTIONS[which].numpy(), strength)


def task(**more) -> SteerTask:
    plain = {
        "token_ids": TEXT, "pushes": (push(),), "strengths": STRENGTHS, "spared": (0,), "prose": PROSE,
        "length": LENGTH, "end_ids": (), "temperature": 0.0, "seed": 0, "hook": None,
    }
    return SteerTask(model="tiny", folder=Path("tiny"), **plain | more)


def written(model, asked: SteerTask) -> Written:
    return list(continue_text(model, asked))[-1]


class Plain:
    """A copy of a model whose stream is pushed in its layers' own code."""

    def __init__(self, model, asked: SteerTask, strength: float):
        self.model = copy.deepcopy(model)
        self._asked = asked
        for one in asked.pushes:
            length = strength * one.strength * mean_residual_norm(model, one.hook, asked.prose)
            self._push(one.hook, length * torch.from_numpy(one.direction).to(DEVICE))

    def _push(self, hook: str, added: torch.Tensor) -> None:
        def edited(stream):
            rows = [row if place in self._asked.spared else row + added for place, row in enumerate(stream[0])]
            return torch.stack(rows)[None]

        edit_stream(self.model, hook, edited)

    def logits(self, token_ids) -> torch.Tensor:
        """(tokens, V) behind each of the tokens."""
        with torch.no_grad():
            return self.model(torch.tensor([token_ids], device=DEVICE), use_cache=False).logits[0].float().cpu()

    def text(self) -> tuple[int, ...]:
        noise = torch.Generator().manual_seed(self._asked.seed)
        ids = list(TEXT)
        for _ in range(self._asked.length):
            scores = self.logits(ids)[-1]
            if self._asked.temperature:
                drawn = torch.empty(scores.shape).exponential_(generator=noise)
                scores = scores / self._asked.temperature - drawn.log()
            ids.append(int(scores.argmax()))
        return tuple(ids[len(TEXT):])


@pytest.mark.parametrize("hook", HOOKS)
def test_every_strength_writes_what_a_plain_continuation_does(subject, hook):
    asked = task(pushes=(push(hook),))
    found = written(subject.model, asked)
    assert found.token_ids == tuple(Plain(subject.model, asked, strength).text() for strength in STRENGTHS)
    assert len(set(found.token_ids)) > 1, "too little is changed to be seen"
    assert found.done and not any(found.ended)
    assert found.norms == {hook: pytest.approx(mean_residual_norm(subject.model, hook, PROSE))}


def test_the_unsteered_text_is_that_of_transformers_itself(subject):
    greedy = GenerationConfig(do_sample=False, max_new_tokens=LENGTH, eos_token_id=None, pad_token_id=0)
    ids = torch.tensor([TEXT], device=DEVICE)
    theirs = subject.model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=greedy)
    assert written(subject.model, task()).token_ids[0] == tuple(theirs[0, len(TEXT):].tolist())


@pytest.mark.parametrize("architecture", ["gemma2", "qwen3_5"], scope="session")
def test_what_is_drawn_differs_by_the_pushes_alone(subject):
    asked = task(temperature=1.5, seed=4)
    found = written(subject.model, asked)
    assert found.token_ids == tuple(Plain(subject.model, asked, strength).text() for strength in STRENGTHS)
    alone = written(subject.model, task(temperature=1.5, seed=4, strengths=STRENGTHS[2:]))
    assert alone.token_ids == found.token_ids[2:]
    assert written(subject.model, task(temperature=1.5, seed=5)).token_ids != found.token_ids
    assert written(subject.model, task()).token_ids != found.token_ids


def test_pushes_add_up_each_at_its_hook(tokenizer):
    model = tiny_model("llama")
    asked = task(pushes=(push(HOOK, 0.5), push("blocks.1.hook_resid_post", -0.8, 1), push(HOOK, 0.4, 1)))
    expected = tuple(Plain(model, asked, strength).text() for strength in STRENGTHS)
    assert written(model, asked).token_ids == expected


@pytest.mark.parametrize("hook", HOOKS)
@pytest.mark.parametrize("architecture", ["llama", "gemma3"], scope="session")
def test_what_was_written_is_read_back_by_the_unsteered_model(subject, hook):
    asked = task(pushes=(push(),), hook=hook)
    found = written(subject.model, asked)
    plain = Plain(subject.model, asked, 0.0)
    for text, log_probs, residuals in zip(found.token_ids, found.log_probs, found.residuals, strict=True):
        said = plain.logits(TEXT + text).log_softmax(dim=-1)
        expected = [float(said[len(TEXT) - 1 + place, token_id]) for place, token_id in enumerate(text)]
        assert log_probs == pytest.approx(expected, abs=1e-4)
        with torch.no_grad():
            ids = torch.tensor([TEXT + text], device=DEVICE)
            states = subject.model(ids, output_hidden_states=True).hidden_states
        layer = 0 if hook == "hook_embed" else 1
        assert np.allclose(residuals, states[layer][0, len(TEXT):].cpu(), atol=1e-4)
    assert written(subject.model, task()).residuals is None


def test_a_text_goes_on_to_a_token_that_ends_it(tokenizer):
    model = tiny_model("llama")
    whole = written(model, task(strengths=(0.0,))).token_ids[0]
    end = whole[2]
    at = whole.index(end)
    found = list(continue_text(model, task(strengths=(0.0,), end_ids=(end,), hook=HOOK)))
    assert [answer.token_ids for answer in found] == [(whole[:n],) for n in (*range(1, at + 1), at, at)]
    assert found[-1].ended == (True,) and found[-1].done
    assert len(found[-1].log_probs[0]) == len(found[-1].residuals[0]) == at
    none = written(model, task(strengths=(0.0,), end_ids=whole[:1], hook=HOOK))
    assert none.token_ids == ((),) and none.done and not len(none.log_probs[0]) and not len(none.residuals[0])


def test_it_is_told_after_every_token_and_stops_when_its_time_is_up():
    model = tiny_model("llama")
    answers = list(continue_text(model, task()))
    assert [len(answer.token_ids[0]) for answer in answers] == [*range(1, LENGTH + 1), LENGTH]
    assert [answer.done for answer in answers] == [False] * LENGTH + [True]
    assert [answer.log_probs is None for answer in answers] == [True] * LENGTH + [False]
    last = list(continue_text(model, task(seconds=0.0)))[-1]
    assert last.token_ids == answers[0].token_ids and not last.done and last.log_probs is not None
