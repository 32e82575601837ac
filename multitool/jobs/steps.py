"""The steps of a job: what has to be done for it, in its order, by whoever runs it.

A job is a generator. It hands out steps, is sent the answer to each, and returns its result. So
what a tree, a list or a check takes stands once, in the job. Whoever runs it adds where the work is done, what is said
meanwhile, and limits: ``local`` on this machine, ``page.service`` for visitors, whose model may run elsewhere.
"""

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, TypeVar

from multitool.model.tasks import Asked, AskTask, GrowthTask, Task
from multitool.store.scans import ScanTask
from multitool.trees.document import DefinitionTree
from multitool.trees.growth import Growth

Result = TypeVar("Result")


@dataclass(frozen=True)
class Prepare:
    """Something to be worked out without the running model: files are fetched and read, vectors built, answers judged.

    The answer is what ``work`` returns.
    """

    work: Callable[[], Any]
    purpose: str = "load"  # or list, judge_tree, judge_settings


@dataclass(frozen=True)
class Scan:
    """A vocabulary scan that must be there. No answer."""

    task: ScanTask


@dataclass(frozen=True)
class Ask:
    """Tasks for the running model. The answer is a list of all that it answers to them, one after another."""

    tasks: tuple[Task, ...]
    purpose: str  # controls, candidates, check, lens, text
    shared: bool = False  # many requests ask the same, so the answer is worth keeping


@dataclass(frozen=True)
class Grow:
    """A tree to grow. The answer is the tree as ``document`` makes it of the last level; that of each can be shown."""

    task: GrowthTask
    document: Callable[[Growth], DefinitionTree]
    begun: DefinitionTree  # what there is before anything grows


Step = Prepare | Scan | Ask | Grow
Job = Generator[Step, Any, Result]


def ask_ghosts(tasks: tuple[AskTask, ...], purpose: str) -> Job[list[Asked]]:
    """What the model says of many ghosts, all of ``tasks`` one after another. Worth keeping: many requests ask it."""
    parts = yield Ask(tasks, purpose, shared=True)
    return [asked for part in parts for asked in part]
