"""What is told on standard error: notes, errors, and how far the work is."""

import math
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from multitool.process import drop

if TYPE_CHECKING:
    from multitool.jobs.atlas_parts import AtlasProgress
    from multitool.store.kept_rows import RowsTask

INSTALLED = "sae-multitool"  # the command that pip makes
_WIDEST = 78  # characters of a line of progress, so that it covers the one before
_TOLD_AFTER = 30  # seconds, where what is told does not take the place of what was told before


def program() -> str:
    """What this was started as."""
    return INSTALLED if Path(sys.argv[0]).stem == INSTALLED else "multitool"


def say(text: str, before: str = "") -> None:
    """Tell something that is no result."""
    try:
        sys.stderr.write(f"{before}{program()}: {text}")
        sys.stderr.flush()
    except OSError:  # a full disk, or a reader that has left: there is nowhere to tell it
        drop(sys.stderr)


def tell_kept(task: "RowsTask", done: int) -> None:
    """The progress of what is kept on disk, as a vocabulary scan, on standard error."""
    end = "\n" if done == task.n_rows else ""
    say(f"{task.told(done)}{end}", before="\r")


class Telling:
    """How far an atlas is, on standard error: one line, written again and again, on a terminal; else one now and then.
    """

    def __init__(self):
        self.last: AtlasProgress | None = None
        self._on_terminal = sys.stderr.isatty()
        self._told_at = -math.inf

    def tell(self, progress: "AtlasProgress") -> None:
        """Tell it, if it is time."""
        self.last, whole = progress, progress.done == progress.total
        if self._on_terminal:
            say(progress.told.ljust(_WIDEST) + "\n" * whole, before="\r")
        elif whole or time.monotonic() - self._told_at >= _TOLD_AFTER:
            self._told_at = time.monotonic()
            say(f"{progress.told}\n")

    def leave(self) -> None:
        """Go to a new line, where something else is told next."""
        if self._on_terminal and self.last:
            sys.stderr.write("\n")

