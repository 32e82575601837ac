"""What is told on standard error: notes, errors, and how far the work is."""

import math
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path

from multitool.jobs.progress import Progress, left_told, seconds_left
from multitool.process import drop

INSTALLED = "sae-multitool"  # the command that pip makes
_AGAIN_AFTER = 30  # seconds, where what is told does not take the place of what was told before
_WORTH_TELLING = 2  # seconds: what takes less, and is not kept either, nobody waits for
_LEAST_DOWNLOAD = 10**6  # bytes


def program() -> str:
    """What this was started as."""
    return INSTALLED if Path(sys.argv[0]).stem == INSTALLED else "multitool"


def say(text: str, before: str = "") -> None:
    """Tell something that is no result."""
    _write(f"{before}{program()}: {text}")


def _write(text: str) -> None:
    try:
        sys.stderr.write(text)
        sys.stderr.flush()
    except OSError:  # a full disk, or a reader that has left: there is nowhere to tell it
        drop(sys.stderr)


def on_terminal() -> bool:
    """Whether a person sees what is told as it comes, and a line can be written again."""
    return sys.stderr.isatty()


class Telling:
    """How far work is, on standard error: one line, written again and again, on a terminal; else one now and then.

    Args:
        clock: gives seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self.quiet = False  # whether nothing of it is told
        self._clock = clock
        self._open = 0  # characters of a line on the terminal that is to be written again
        self._begin("", 0)

    def tell(self, progress: Progress) -> None:
        """Tell it, if it is time, with the time that is left."""
        self._go_on(progress.doing, progress.done)
        seconds = self._clock() - self._began
        if self._told_at > -math.inf or progress.kept or seconds >= _WORTH_TELLING:
            left = seconds_left(progress.done, progress.total, self._before, seconds)
            numbers = progress.numbers if left is None else f"{progress.numbers} · {left_told(left)}"
            self._line(progress.doing, f": {numbers}", whole=progress.done >= progress.total)

    def tell_growth(self, nodes: int) -> None:
        """Tell how large a tree has grown, of which nobody knows how large it will be."""
        self._go_on("Growing the tree", nodes)
        if self._clock() - self._began >= _WORTH_TELLING:
            self._line(self._doing, f": {nodes:,} nodes", whole=False)

    def tell_line(self, text: str, *, whole: bool) -> None:
        """Tell how far something is that comes in words."""
        self._go_on("", 0)
        self._line(text, "", whole=whole)

    def tell_download(self, name: str, there: int, total: int) -> None:
        """Tell how far a download is, in bytes."""
        if total >= _LEAST_DOWNLOAD:
            in_all = -(-total // 10**6)
            done = in_all if there >= total else there // 10**6
            self.tell(Progress(f"Fetching {name}", done, in_all, "MB", kept=True))

    def leave(self) -> None:
        """Take away a line that is not whole, before something else is told."""
        if self._open:
            _write(f"\r{' ' * self._open}\r")
        self._open = 0
        self._begin("", 0)

    def _begin(self, doing: str, done: int) -> None:
        self._doing = doing  # what is being told,
        self._began, self._before = self._clock(), done  # since when, and how much there was of it then
        self._done, self._told_at, self._whole = done, -math.inf, False  # and what has been told of it

    def _go_on(self, doing: str, done: int) -> None:
        """What is told from now on, if it is something else, or the same from its beginning."""
        if doing != self._doing or done < self._done:
            self.leave()
            self._begin(doing, done)
        self._done = done

    def _line(self, what: str, numbers: str, *, whole: bool) -> None:
        """Tell it, if it is time; on a terminal in one line, for which what is told may be cut, and no number."""
        now = self._clock()
        if self.quiet or self._whole:
            return
        if on_terminal():
            room = shutil.get_terminal_size().columns - 1 - len(f"{program()}: {numbers}")
            line = f"{program()}: {_cut(what, room)}{numbers}"
            _write(f"\r{line.ljust(self._open)}" + "\n" * whole)
            self._open = 0 if whole else len(line)
        elif whole or now - self._told_at >= _AGAIN_AFTER:
            say(f"{what}{numbers}\n")
        else:
            return
        self._told_at, self._whole = now, whole


def _cut(what: str, room: int) -> str:
    """What is told, in so many characters: without what it says in brackets, and then without its end."""
    if len(what) <= room:
        return what
    plain = what.partition(" (")[0]
    return plain if len(plain) <= room else plain[: max(room - 1, 0)] + "…"


TELLING = Telling()  # of this process
