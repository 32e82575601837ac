"""Growing trees where the GPU is: the one function that ZeroGPU lends a GPU to.

On ZeroGPU the function runs in another process, forked for it, and only plain data goes in and comes out: a
``GrowthTask`` and one ``Growth`` per level. Anywhere else ``spaces.GPU`` leaves it as it is.
"""

import logging
import math
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import gradio as gr
import httpx
import spaces

from multitool.errors import UserError
from multitool.growth import Growth
from multitool.library import Library
from multitool.settings import Settings
from multitool.task import GrowthTask

_LOG = logging.getLogger(__name__)

Grower = Callable[[GrowthTask], Iterator[Growth]]

# What a tree is assumed to take of a GPU, to ask for enough and not for more: the rank in ZeroGPU's queue and what
# visitors have left a day both depend on what is asked for.
_START_SECONDS = 8  # a new process, and the default model from disk to the GPU
_BYTES_PER_SECOND = 0.5e9  # another model from disk to the GPU
_SECONDS_PER_LEVEL = 0.1
_SECONDS_PER_NODE = 0.005
_LEAST_SECONDS = 12
_SHARE_USED = 0.85  # of the time asked for; then the tree comes back as it is, before the process is ended

_NO_GPU = "No GPU is to be had at the moment. Try again in a minute."
_WITHOUT_GPU = "Token lists, saved trees and trimming need no GPU and go on working."

_PROCESS = {"forked_at": None}  # in a process forked for a GPU: when, until its first task


def _note_fork() -> None:
    _PROCESS["forked_at"] = time.monotonic()


os.register_at_fork(after_in_child=_note_fork)


def gpu_grower(library: Library, settings: Settings, resident: str) -> Grower:
    """A function that grows trees on the GPU, or on whatever the library's device is where there is no ZeroGPU.

    Args:
        library: has the model ``resident`` loaded on "cuda" before the app is launched.
        settings: with the longest time for one tree.
        resident: the model that every new process has from the start.
    """

    @spaces.GPU(duration=lambda task: task.seconds)
    def grow_on_gpu(task: GrowthTask) -> Iterator[Growth | str]:
        """Answers with a text instead of raising: an exception would end the process and lose its message."""
        try:
            if settings.zero_gpu:
                task = replace(task, seconds=_SHARE_USED * task.seconds - _seconds_since_fork())
            yield from library.grow(task)
        except UserError as error:
            yield str(error)

    def grow(task: GrowthTask) -> Iterator[Growth]:
        seconds = settings.seconds
        if settings.zero_gpu:
            seconds = seconds_to_ask_for(task, settings.seconds, loaded=task.model == resident)
        answers = grow_on_gpu(replace(task, seconds=seconds))
        try:
            problem = None
            for answer in answers:
                if isinstance(answer, str):
                    problem = answer  # not raised yet: left halfway, ``answers`` would stop its process' next task
                else:
                    yield answer
            if problem:
                raise UserError(problem)
        except GeneratorExit:
            # Closing waits for the level that is being computed, and the one who closes us serves all visitors.
            threading.Thread(target=answers.close, daemon=True).start()
            raise
        except gr.Error as error:
            raise UserError(zero_gpu_problem(error.title, error.message)) from error
        except (RuntimeError, httpx.HTTPError) as error:
            if not settings.zero_gpu:
                raise
            _LOG.exception("ZeroGPU's own service is out of order, or we are")
            raise UserError(f"{_NO_GPU} {_WITHOUT_GPU}") from error

    return grow


def seconds_to_ask_for(task: GrowthTask, most: int, *, loaded: bool) -> int:
    """The GPU time to ask for, in whole seconds: enough for a usual tree of these settings, ``most`` at most.

    Args:
        loaded: whether the process has the model from its start.
    """
    # So many nodes have large trees of the demo.
    nodes = min(task.max_nodes, task.cutoff**-0.75)
    weights = 0 if loaded else sum(file.stat().st_size for file in task.folder.glob("*.safetensors"))
    seconds = _START_SECONDS + weights / _BYTES_PER_SECOND + task.max_depth * _SECONDS_PER_LEVEL
    return min(most, max(_LEAST_SECONDS, math.ceil(seconds + nodes * _SECONDS_PER_NODE)))


def _seconds_since_fork() -> float:
    """What this process spent on getting ready, on the visitor's clock; nothing if it was ready already."""
    forked_at, _PROCESS["forked_at"] = _PROCESS["forked_at"], None
    return 0.0 if forked_at is None else time.monotonic() - forked_at


def zero_gpu_problem(title: str, message: str) -> str:
    """A refusal of ZeroGPU for a person: what happened and what to do."""
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
                f"This tree asks for more GPU time than you may use at once. Ask for less (a larger cutoff, fewer "
                f"nodes), or log in to Hugging Face. {_WITHOUT_GPU}"
            )
        case "ZeroGPU queue timeout" | "ZeroGPU client error" | "ZeroGPU pending credits exceeded":
            return f"{_NO_GPU} {_WITHOUT_GPU}"
        case "ZeroGPU worker error" if "aborted" in said:
            return (
                "The GPU was taken away before the tree was whole: its time was up, or its process ended. What had "
                "grown by then is kept; go on from there, or ask for a smaller tree (a larger cutoff, fewer nodes)."
            )
        case "ZeroGPU worker error":
            return f"The growth failed on the GPU ({said}). Try again; if it stays so, report it with the settings."
    return said
