"""How far work is that is counted, and how long it will still take."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """How far something is."""

    doing: str  # what is done, in words
    done: int
    total: int
    counted: str = ""  # what is counted, in words: tokens, features
    kept: bool = False  # whether it is done once and kept, so that it is worth telling however soon it is done

    @property
    def numbers(self) -> str:
        """How far, without what: ``12,300 of 49,152 tokens``."""
        return f"{self.done:,} of {self.total:,} {self.counted}".rstrip()


def seconds_left(done: int, total: int, before: int, seconds: float) -> float | None:
    """How long the rest takes at the rate so far; None where nothing tells the rate, or nothing is left.

    Args:
        done: how much there is of ``total``.
        before: how much there was when the ``seconds`` began.
    """
    if done <= before or done >= total:
        return None
    return seconds * (total - done) / (done - before)


def left_told(seconds: float) -> str:
    """A time that is left, as a person says it: ``about 40 s left``, ``about 2 h 10 min left``."""
    if seconds < 10:
        told = f"{max(1, round(seconds))} s"
    elif seconds < 92.5:
        told = f"{5 * round(seconds / 5)} s"
    elif seconds < 5370:  # 89.5 minutes
        told = f"{round(seconds / 60)} min"
    else:
        hours, minutes = divmod(10 * round(seconds / 600), 60)
        told = f"{hours} h {minutes} min" if minutes else f"{hours} h"
    return f"about {told} left"
