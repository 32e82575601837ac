"""Why a model's numbers are too large or none: as far as its weights and two passes over the prompt tell."""

import torch

from multitool.errors import GhostError, UserError
from multitool.model.interventions import Interventions
from multitool.model.layer_inputs import given
from multitool.model.passes import ghost_embeddings, prompt_ids
from multitool.model.tasks import AskTask, CheckTask, ForestTask, GrowthTask, LensTask, PathsTask, SteerTask, Task

_OTHERS = {"float16": "bfloat16 or float32", "bfloat16": "float32"}  # what holds larger or more exact numbers


def not_finite(model, task: Task) -> UserError:
    """The error of a task at which ``NotFiniteError`` was raised: what was found, and what to do.

    A ``GhostError`` where it is not the model's own.

    Args:
        model: the one that the task names.
    """
    dtype = str(model.dtype).removeprefix("torch.")
    precision = f"load it in {_OTHERS[dtype]} (--dtype, SAE_MULTITOOL_DTYPE)" if dtype in _OTHERS else ""
    said = f"In {dtype}, {task.model} gives numbers that are too large or none (NaN)"
    damaged = next((name for name, weight in model.named_parameters() if not weight.isfinite().all()), None)
    if damaged:
        again = "Fetch or copy the model's files again, or use another model"
        return UserError(f"{said}: its weights {damaged} hold such numbers. {_either(again, precision)}.")
    if isinstance(task, LensTask):
        remedy = _either("Use a smaller scale", precision)
        return UserError(f"{said} for this direction, and its weights are finite. {remedy}.")
    if isinstance(task, SteerTask):
        return UserError(f"{said} under these pushes. {_either('Use smaller strengths', precision)}.")
    if not isinstance(task, (GrowthTask, CheckTask, AskTask, ForestTask, PathsTask)):
        return UserError(f"{said} on plain text, and its weights are finite. {_either('', precision)}.")
    growth = task if isinstance(task, GrowthTask) else task.growth
    if not _answers(model, growth, ghost=False):
        return UserError(f"{said} for this prompt even without the vector. {_either('', precision)}.")
    if not (growth.interventions and growth.interventions.injection) and not _answers(model, growth, ghost=True):
        remedy = _either("Use a smaller scale", precision)
        return GhostError(f"{said} with this vector, and not without it. {remedy}.")
    if done := _done(growth.interventions):
        remedy = _either("Use a smaller value", precision)
        return GhostError(f"{said} with {done}; without, its answer to the prompt is finite. {remedy}.")
    return GhostError(f"{said} on some of the tokens after the prompt. {_either('', precision)}.")


def _either(remedy: str, precision: str) -> str:
    """What to do, as a sentence without its full stop."""
    told = ", or ".join(part for part in (remedy, precision) if part) or "Use another model"
    return told[0].upper() + told[1:]


@torch.inference_mode()
def _answers(model, growth: GrowthTask, *, ghost: bool) -> bool:
    """Whether the model's logits after the prompt are finite; nothing is done to the stream.

    Args:
        ghost: with the task's first vector in its place; else with the word that holds it.
    """
    ids = prompt_ids(growth.prompt, torch.empty(1, device=model.get_input_embeddings().weight.device))
    if not ghost:
        return bool(model(input_ids=ids, logits_to_keep=1).logits.isfinite().all())
    embeddings = ghost_embeddings(model, growth.prompt, torch.from_numpy(growth.v).view(-1, growth.v.shape[-1])[:1])
    return bool(model(**given(model, embeddings, ids), logits_to_keep=1).logits.isfinite().all())


def _done(wanted: Interventions | None) -> str:
    """What is done to the stream, by the names of its settings."""
    if wanted is None:
        return ""
    told = [f"inject_scale {wanted.injection.scale:g}"] if wanted.injection else []
    told += [f"steer_strength {wanted.pushes[0].strength:g}"] if wanted.pushes else []
    told += [f"clamp {wanted.clamp.times:g}"] if wanted.clamp else []
    return " and ".join(told)
