"""The model's work where the GPU is: the one function that ZeroGPU lends a GPU to.

On ZeroGPU the function runs in another process, forked for it, and only plain data goes in and comes out: a ``Task``
and its answers. Anywhere else ``spaces.GPU`` leaves it as it is.
"""

import logging
import math
import os
import re
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import replace

import gradio as gr
import httpx
import spaces

from multitool.errors import UserError
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
from multitool.page.callers import Line
from multitool.page.gpu_times import ASSUMED
from multitool.page.settings import ServerSettings
from multitool.process import variable
from multitool.store.kept_rows import RowsTask
from multitool.store.lens_rows import LensRowsTask
from multitool.store.library import Library
from multitool.store.prose import ProseRowsTask
from multitool.store.pullbacks import PullbackRowsTask
from multitool.store.scans import ScanTask

_LOG = logging.getLogger(__name__)

# Answers to a task as they come; in between what is waited for, and None where there is nothing new: a worker can be
# closed at any of them.
Worker = Callable[[Task], Generator]

POLL_SECONDS = 0.3
_TIMES = ASSUMED  # the rank in ZeroGPU's queue and what visitors have left a day depend on what is asked for
_ROWS_TURN = 30  # seconds, where others share the machine; then those who wait have the model first
_SHARE_USED = 0.85  # of the time asked for; then the work comes back as it is, before the process is ended

_NO_GPU = "No GPU is available at the moment. Try again in a minute."
_WITHOUT_GPU = (
    "Saved trees and trimming go on working without, and so do Token lists, other than by a lens, unless their model's "
    "vocabulary must be scanned first."
)
_TAKEN_AWAY = "The GPU was taken away before {} was whole: its time was up, or its process ended. {}"
_TOO_LONG = (
    "This was ended: the model may work {:,.0f} s for one request here ({}), and that was not enough. Ask for less, or "
    "run the tool on a machine of your own."
)
_SMALLER = "ask for a smaller tree (a larger cutoff, fewer nodes)."

_PROCESS: dict[str, float | None] = {"forked_at": None}  # in a process forked for a GPU: when, until its first task


def _note_fork() -> None:
    _PROCESS["forked_at"] = time.monotonic()


if hasattr(os, "register_at_fork"):  # Windows never forks
    os.register_at_fork(after_in_child=_note_fork)


def gpu_worker(
    library: Library, settings: ServerSettings, resident: str, *, poll_seconds: float = POLL_SECONDS
) -> Worker:
    """A function that does any task on the GPU, or on whatever the library's device is where there is no ZeroGPU.

    A vocabulary that takes longer than a GPU is lent for is scanned in as many turns as it takes.

    Args:
        library: has the model ``resident`` loaded on "cuda" before the app is launched.
        settings: with the longest time for one task.
        resident: the model that every new process has from the start.
        poll_seconds: how often one who waits for the model tells so.
    """

    line = Line(settings.concurrency)

    @spaces.GPU(duration=lambda task: task.seconds)
    def work_on_gpu(task: Task) -> Generator:
        """Answers with a text instead of raising: an exception would end the process and lose its message."""
        try:
            if settings.zero_gpu and task.seconds:
                task = replace(task, seconds=_SHARE_USED * task.seconds - _seconds_since_fork())
            yield from library.do(task, pulse=True)
        except UserError as error:
            yield str(error)

    def turn(task: Task) -> Generator:
        """What one loan of a GPU gives."""
        leave: Callable[[], None] | None = yield from line.wait(poll_seconds)
        try:
            seconds = min((limit for limit in (task.seconds, settings.seconds) if limit is not None), default=None)
            if isinstance(task, RowsTask) and seconds:
                seconds = min(seconds, _ROWS_TURN)
            if settings.zero_gpu and settings.seconds:
                seconds = seconds_to_ask_for(task, settings.seconds, loaded=task.model == resident)
            answers, began = work_on_gpu(replace(task, seconds=seconds)), time.monotonic()
            problem = None
            for answer in answers:
                if isinstance(answer, str):
                    problem = answer  # not raised yet: left halfway, ``answers`` would stop its process' next task
                    continue
                yield answer
                if answer is None and not settings.zero_gpu and seconds and time.monotonic() - began > seconds:
                    answers.close()
                    raise too_long(settings)
            if problem:
                raise UserError(problem)
        except GeneratorExit:
            # Closing waits for what is being computed, and the one who closes us serves all visitors.
            threading.Thread(target=_close, args=(answers, leave), daemon=True).start()
            leave = None  # there it is called
            raise
        except gr.Error as error:
            raise UserError(zero_gpu_problem(error.title, error.message, type(task))) from error
        except (RuntimeError, httpx.HTTPError) as error:
            if not settings.zero_gpu:
                raise
            _LOG.exception("ZeroGPU's own service is out of order, or we are")
            raise UserError(f"{_NO_GPU} {_WITHOUT_GPU}") from error
        finally:
            if leave:
                leave()

    def work(task: Task) -> Generator:
        yield from _all_rows(turn, task) if isinstance(task, RowsTask) else turn(task)

    return work


def _close(answers: Generator, leave: Callable[[], None]) -> None:
    """End the work, and only then let the next one have its place in the line."""
    try:
        answers.close()
    finally:
        leave()


def too_long(settings: ServerSettings) -> UserError:
    """What is said of work that the time here was too short for."""
    return UserError(_TOO_LONG.format(settings.seconds or 0, variable("seconds")))


def _all_rows(turn: Worker, task: RowsTask) -> Iterator:
    """Turn after turn, until all rows are there."""
    done = -1
    while done < task.n_rows:
        before = done
        with closing(turn(task)) as counts:
            for answer in counts:
                if isinstance(answer, int):
                    done = answer
                yield answer
        if done <= before:
            raise UserError(f"The {task.what} does not get on. Try again in a minute.")


def seconds_to_ask_for(task: Task, most: int, *, loaded: bool) -> int:
    """The GPU time to ask for, in whole seconds: enough for usual work of these settings, ``most`` at most.

    Args:
        loaded: whether the process has the model from its start.
    """
    weights = 0 if loaded else sum(file.stat().st_size for file in task.folder.glob("*.safetensors"))
    seconds = _TIMES.start + weights / _TIMES.bytes_per_second + _work_seconds(task)
    return min(most, max(_TIMES.least, math.ceil(seconds)))


def _work_seconds(task: Task) -> float:
    match task:
        case GrowthTask():
            # So many nodes have large trees of the demo.
            nodes = task.cutoff**-0.75 if task.top_k else 0.4 / task.cutoff
            return _growth_seconds(task, min(task.max_nodes, nodes))
        case AskTask(growth=growth) | ForestTask(growth=growth):
            return _growth_seconds(growth, len(growth.v) * growth.max_nodes)
        case CheckTask(growth=growth, tree=tree, controls=controls):
            return growth.max_depth * _TIMES.level + len(tree) * (1 + len(controls)) * _TIMES.known_node
        case SteerTask(length=length):
            return length * _TIMES.level
        case PathsTask(growth=growth, wanted=wanted):
            return growth.max_depth * _TIMES.level + int(wanted.sum()) * _TIMES.known_node
        case ScanTask():
            return task.n_tokens * _TIMES.scanned
        case ChangeTask(directions=directions, strengths=strengths):
            return (1 + len(directions) * len(strengths)) * _TIMES.push
        case PullbackTask(directions=directions):
            return len(directions) * _TIMES.backward_pass
        case PullbackRowsTask() | LensRowsTask():
            return task.n_rows * _TIMES.backward_pass
        case ReadTask() | LensTask() | ProseRowsTask():
            return 0.0  # a few texts, or directions, are read at once
    raise TypeError(f"how long does a {type(task).__name__} take?")


def _growth_seconds(growth: GrowthTask, nodes: float) -> float:
    return growth.max_depth * _TIMES.level + nodes * _TIMES.node


def _seconds_since_fork() -> float:
    """What this process spent on getting ready, on the visitor's clock; nothing if it was ready already."""
    forked_at, _PROCESS["forked_at"] = _PROCESS["forked_at"], None
    return 0.0 if forked_at is None else time.monotonic() - forked_at


def zero_gpu_problem(title: str, message: str, task: type = GrowthTask) -> str:
    """A refusal of ZeroGPU for a person: what happened and what to do.

    Args:
        task: the kind of task that it refused or broke off.
    """
    said = " ".join(re.sub(r"<[^>]*>", " ", str(message)).split())
    match title:
        case "ZeroGPU client error" if "Expired" in said:
            return f"The page has been open for too long to be given a GPU. Reload the page. {_WITHOUT_GPU}"
        case "ZeroGPU quota exceeded" if "runs limit" in said:
            return (
                "You have started as many runs on a GPU as you may for now. Try again later, log in to Hugging Face, "
                f"or duplicate this Space. {_WITHOUT_GPU}"
            )
        case _ if "No GPU was available" in said:  # the title can be that of a used-up quota
            return f"{_NO_GPU} {_WITHOUT_GPU}"
        case "ZeroGPU quota exceeded":
            figures = re.search(r"\((\d+)s requested vs\. (-?\d+)s left\)\. Try again in ([\w:, ]+)", said)
            left = " ({} s asked for, {} s left; more in {})".format(*figures.groups()) if figures else ""
            return (
                f"Your GPU time is used up for now{left}. {_WITHOUT_GPU} For more trees: ask for less (a larger "
                "cutoff, fewer nodes), log in to Hugging Face or pass a token (accounts have more GPU time a day "
                "than visitors), or duplicate this Space."
            )
        case "ZeroGPU illegal duration":
            return (
                "This asks for more GPU time than you may use at once. Ask for less (a larger cutoff, fewer nodes), "
                f"or log in to Hugging Face. {_WITHOUT_GPU}"
            )
        case "ZeroGPU queue timeout" | "ZeroGPU client error" | "ZeroGPU pending credits exceeded":
            return f"{_NO_GPU} {_WITHOUT_GPU}"
        case "ZeroGPU worker error" if "aborted" in said:
            if task is GrowthTask:
                return _TAKEN_AWAY.format(
                    "the tree", f"What had grown by then is kept; go on from there, or {_SMALLER}"
                )
            if issubclass(task, RowsTask):
                others = {ScanTask: "the vocabulary scan", ProseRowsTask: "the reading of plain prose"}
                what = others.get(task, "the layers' Jacobian")
                return _TAKEN_AWAY.format(what, "What was there by then is kept; try again.")
            if task is SteerTask:
                return _TAKEN_AWAY.format("the text", "Try again, or ask for fewer tokens.")
            if task in (LensTask, ChangeTask):
                return _TAKEN_AWAY.format("the list", "Try again, or order it by another measure.")
            return _TAKEN_AWAY.format("the answer", f"Try again, or {_SMALLER}")
        case "ZeroGPU worker error":
            return f"The work failed on the GPU ({said}). Try again; if it stays so, report it with the settings."
    return said
