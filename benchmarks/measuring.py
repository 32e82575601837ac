"""Measuring: runs side by side, peaks of memory, and rows of figures with their spread."""

import contextlib
import ctypes
import gc
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path


@dataclass(frozen=True)
class Reach:
    """How good a figure is meant to be."""

    bound: str  # "at least" or "at most"
    limit: float
    of: str | None = None  # which of a row's ``measured``; None: its ratio
    always: bool = False  # in every repeat (memory must suffice each time); else by the median

    def holds(self, values: Sequence[float]) -> bool:
        judged = values if self.always else [statistics.median(values)]
        return all(value >= self.limit if self.bound == "at least" else value <= self.limit for value in judged)


@dataclass(frozen=True)
class Row:
    """One line of a benchmark's table. Each list has one figure per repeat."""

    what: str
    measured: dict[str, list[float]]  # by name
    unit: str = "s"  # of ``measured``
    ratio: list[float] | None = None  # of each repeat by itself
    reach: Reach | None = None
    facts: dict = field(default_factory=dict)  # what else there is to know: sizes, what was compared

    @property
    def reached(self) -> bool | None:
        """Whether the figure is as good as it is meant to be; None where nothing is meant."""
        if self.reach is None:
            return None
        if self.reach.of is not None:
            return self.reach.holds(self.measured[self.reach.of])
        if self.ratio is None:
            raise ValueError(f"{self.what!r} has no ratio that could be reached")
        return self.reach.holds(self.ratio)

    def to_dict(self) -> dict:
        found: dict = {"what": self.what, "unit": self.unit}
        found["measured"] = {name: spread(values) for name, values in self.measured.items()}
        if self.ratio is not None:
            found["ratio"] = spread(self.ratio)
        if self.reach is not None:
            found["reach"] = {
                "of": self.reach.of or "ratio", self.reach.bound: self.reach.limit, "reached": self.reached
            }
        return found | {"facts": self.facts}


def spread(values: Sequence[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def ratios(found: dict[str, list[float]], of: str, to: str) -> list[float]:
    """Of two runs, repeat by repeat."""
    return [a / b for a, b in zip(found[of], found[to], strict=True)]


def side_by_side(repeats: int, runs: dict[str, Callable[[], float]], *, warm: bool = True) -> dict[str, list[float]]:
    """Do all runs in turn, then all again (A, B, A, B, …): what else slows the machine meets all of them alike.

    Args:
        runs: by name; each answers with its figure.
        warm: do one round more before, which does not count.

    Returns:
        Each run's figures, one per repeat.
    """
    found: dict[str, list[float]] = {name: [] for name in runs}
    for repeat in range(-int(warm), repeats):
        for name, run in runs.items():
            figure = run()
            if repeat >= 0:
                found[name].append(figure)
    return found


def timed(run: Callable[[], object], *, at_least: float = 0.0) -> Callable[[], float]:
    """A run that answers with its seconds.

    Args:
        at_least: do it again and again for so many seconds, and answer with the mean: for what is short.
    """

    def seconds() -> float:
        started, times = time.perf_counter(), 0
        while True:
            run()
            times += 1
            elapsed = time.perf_counter() - started
            if elapsed >= at_least:
                return elapsed / times

    return seconds


def in_child(function: Callable, *args):
    """What ``function`` answers in a fresh process: its memory then holds nothing that was left by something else."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as child:
        return child.submit(function, *args).result()


class PeakRise:
    """Used with ``with``: how far this process' memory (resident, Linux) rises above what it holds at the beginning.

    Attributes:
        megabytes: the rise, in 10^6 bytes; known at the end.
    """

    def __enter__(self) -> "PeakRise":
        gc.collect()
        with contextlib.suppress(AttributeError):  # other C libraries than glibc
            ctypes.CDLL(None).malloc_trim(0)  # or memory that was freed, and is used again, would not count
        with contextlib.suppress(OSError):  # where that is forbidden, an earlier peak may count: never too little
            Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        self._before = _status("VmRSS")
        return self

    def __exit__(self, *_) -> None:
        self.megabytes = max(0, _status("VmHWM") - self._before) / 1e6


def _status(name: str) -> int:
    """An entry of this process' memory, in bytes."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name + ":"))
