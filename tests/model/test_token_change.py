"""What a push along a direction changes of what the model says: against one plain pass a prompt."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import tiny_model

from multitool.model.interventions import mean_residual_norm
from multitool.model.residual_stream import changed
from multitool.model.tasks import ChangeTask, Place
from multitool.model.token_change import change_tokens

PROMPTS = ((7, 30, 31), (50,), (60, 61, 62, 63, 64))
PROSE = tuple(range(20, 50))
DIRECTIONS = torch.nn.functional.normalize(torch.randn(2, 32, generator=torch.Generator().manual_seed(1)))


def task_at(hook: str, strengths=(0.5, 1.0), bos_id: int | None = 0, **more) -> ChangeTask:
    given = {"directions": DIRECTIONS.numpy(), "prompts": PROMPTS, "prose": PROSE} | more
    return ChangeTask(model="tiny", folder=Path("nowhere"), place=Place(hook, bos_id), strengths=strengths, **given)


def plain_change(model, task: ChangeTask, direction: torch.Tensor) -> torch.Tensor:
    """Prompt after prompt, strength after strength, without batches."""
    hook, bos_id = task.place.hook, task.place.bos_id
    length = mean_residual_norm(model, hook, task.prose)
    found = []
    for prompt in task.prompts:
        ids = torch.tensor([[*(() if bos_id is None else (bos_id,)), *prompt]])
        for strength in task.strengths:
            def pushed(x, push=strength * length * direction):
                return torch.cat([x[:, :1], x[:, 1:] + push], dim=1)

            with torch.inference_mode():
                before = model(input_ids=ids).logits[0, -1].log_softmax(-1)
                if hook == "hook_embed":
                    embeds = pushed(model.get_input_embeddings()(ids))
                    after = model(inputs_embeds=embeds).logits[0, -1].log_softmax(-1)
                else:
                    with changed(model, hook, pushed):
                        after = model(input_ids=ids).logits[0, -1].log_softmax(-1)
            found.append(after - before)
    return torch.stack(found).mean(dim=0)


@pytest.mark.parametrize("hook", ["hook_embed", "blocks.1.hook_resid_post"])
def test_it_is_the_mean_change_of_the_log_probabilities(architecture, hook):
    model = tiny_model(architecture)
    task = task_at(hook)
    *pulses, changes = change_tokens(model, pickle.loads(pickle.dumps(task)))
    assert pulses == [None] * 5, "one for the unpushed prompts, and one for each direction and strength"
    assert (changes.shape, changes.dtype) == ((2, 304), np.float32)
    for row, direction in zip(changes, DIRECTIONS, strict=True):
        assert row.tolist() == pytest.approx(plain_change(model, task, direction).tolist(), abs=2e-3)


def test_without_a_token_before_it_a_prompt_of_one_token_is_left_alone():
    *_, changes = change_tokens(tiny_model("llama"), task_at("blocks.0.hook_resid_post", bos_id=None, prompts=((50,),)))
    assert np.abs(changes).max() < 1e-5


def test_the_opposite_push_lowers_what_a_small_push_raises():
    llama = tiny_model("llama")
    up, down = ([*change_tokens(llama, task_at("blocks.1.hook_resid_post", (strength,)))][-1][0]
                for strength in (0.01, -0.01))
    assert np.corrcoef(up, down)[0, 1] < -0.95
