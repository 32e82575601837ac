"""The steps of a job: what has to be done for it, in its order, by whoever runs it.

A job is a generator. It hands out steps, is sent the answer to each, and returns its result: the sequence of steps is
written once, in the job. Whoever runs it adds where the work is done, what is shown meanwhile, and limits: ``local`` on
this machine, ``page.service`` for visitors, whose model may run in another process.
"""

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from multitool.model.tasks import Asked, AskTask, Task
from multitool.store.kept_rows import RowsTask

Result = TypeVar("Result")
# What the model is asked for.
Purpose = Literal["controls", "candidates", "check", "lens", "pullback", "writing", "text", "trees"]
# What the ghosts of a step are, to somebody who waits for their answers.
COUNTED: dict[str, str] = {
    "controls": "Comparing with control vectors",
    "candidates": "Settings tried",
}


@dataclass(frozen=True)
class Prepare:
    """Work that does not need the running model: fetching and reading files, building vectors, judging answers.

    The answer is what ``work`` returns. What is not a "load" finds all files here, and computes.
    """

    work: Callable[[], Any]
    purpose: Literal["load", "vectors", "list", "find", "judge_tree", "judge_settings"] = "load"


@dataclass(frozen=True)
class Keep:
    """Something that must be there on disk: a vocabulary scan, the layers' Jacobian, plain prose read. No answer."""

    task: RowsTask


@dataclass(frozen=True)
class Ask:
    """Tasks for the running model. The answer is a list of all that it answers to them, one after another; ``local``
    raises a ``GhostError`` here, in the job."""

    tasks: tuple[Task, ...]
    purpose: Purpose
    shared: bool = False  # other requests ask the same, so the answer is worth keeping

    @property
    def n_ghosts(self) -> int:
        """Of how many ghosts the tasks ask what the model says: so many parts the answers have together."""
        return sum(len(task.growth.v) for task in self.tasks if isinstance(task, AskTask))


@dataclass(frozen=True)
class Grow:
    """Something that grows: a tree, or continuations of a text. The answer is the result as ``document`` makes it of
    the task's last answer; that of each can be shown."""

    task: Task
    document: Callable[[Any], Any]
    begun: Any  # the result before anything has grown


Step = Prepare | Keep | Ask | Grow
Job = Generator[Step, Any, Result]


def ask_ghosts(tasks: tuple[AskTask, ...], purpose: Purpose) -> Job[list[Asked]]:
    """What the model says of many ghosts, all of ``tasks`` one after another. Worth keeping: many requests ask it."""
    parts = yield Ask(tasks, purpose, shared=True)
    return [asked for part in parts for asked in part]
