"""A running model at its tasks: one function for every kind of ``model.tasks.Task``."""

from collections.abc import Callable, Iterator

import torch

from multitool.model.causes import not_finite
from multitool.model.continuation import continue_text
from multitool.model.finite import NotFiniteError
from multitool.model.interventions import AppliedInterventions
from multitool.model.logit_lens import read_directions
from multitool.model.passes import Continuations
from multitool.model.pullback import pull_back
from multitool.model.questions import ask, check, grow_together, read, read_paths
from multitool.model.tasks import (
    AskTask,
    ChangeTask,
    CheckTask,
    ForestTask,
    GrowthTask,
    LensTask,
    PathsTask,
    PullbackTask,
    ReadTask,
    SteerTask,
    Task,
)
from multitool.model.token_change import change_tokens
from multitool.store.encoder import Encoder
from multitool.store.entries import SaeEntry
from multitool.store.lens_rows import LensRowsTask, fit_lens
from multitool.store.prose import ProseRowsTask, read_prose
from multitool.store.pullbacks import PullbackRowsTask, pull_back_all
from multitool.store.scans import ScanTask, scan_vocabulary
from multitool.trees.growth import Growth, grow

Encoders = Callable[[SaeEntry], Encoder]  # an SAE to read with, by what is known of it


def work_on(model, task: Task, encoders: Encoders) -> Iterator:
    """The model's answers to a task, as they come; and None where it can be left in between.

    Args:
        model: a transformers causal LM in eval mode, the one that the task names.

    Raises:
        UserError: the task cannot be done; or the model's numbers are not finite, with what is known of why.
    """
    try:
        yield from _answers(model, task, encoders)
    except NotFiniteError as error:
        raise not_finite(model, task) from error


def _answers(model, task: Task, encoders: Encoders) -> Iterator:
    match task:
        case GrowthTask():
            return _grow(model, task, _applied(model, task, encoders))
        case ForestTask():
            return grow_together(model, task, _applied(model, task.growth, encoders))
        case PathsTask():
            return read_paths(model, task)
        case CheckTask():
            return check(model, task, _applied(model, task.growth, encoders))
        case AskTask():
            return ask(model, task, _applied(model, task.growth, encoders))
        case ReadTask():
            return read(model, task)
        case ScanTask():
            return scan_vocabulary(model, task)
        case PullbackTask():
            return pull_back(model, task)
        case PullbackRowsTask():
            return pull_back_all(model, task)
        case LensRowsTask():
            return fit_lens(model, task)
        case ProseRowsTask():
            return read_prose(model, task)
        case LensTask():
            return read_directions(model, task)
        case ChangeTask():
            return change_tokens(model, task)
        case SteerTask():
            return continue_text(model, task)
    raise TypeError(f"no model can do a {type(task).__name__}")


def _applied(model, growth: GrowthTask, encoders: Encoders) -> AppliedInterventions | None:
    wanted = growth.interventions
    if wanted is None:
        return None
    return AppliedInterventions(model, growth.prompt, wanted, encoders(wanted.clamp.sae) if wanted.clamp else None)


def _grow(model, task: GrowthTask, changes: AppliedInterventions | None) -> Iterator[Growth]:
    return grow(
        Continuations(model, task.prompt, torch.from_numpy(task.v), task.top_k, task.max_depth, changes),
        cutoff=task.cutoff,
        max_depth=task.max_depth,
        max_nodes=task.max_nodes,
        ends=task.ends,
        begun=task.begun,
        seconds=task.seconds,
    )
