"""A time limit for code that comes from elsewhere and runs in this thread, such as a chat template."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager


class TookTooLongError(Exception):
    """What ran in ``time_limit`` did not end in time."""


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Ends functions called inside the block that run longer, in any thread and on any system.

    The interpreter asks before each line whether there is time left (``sys.settrace``): no signal, which only a main
    thread gets, and no thread or process that would have to be left running. One call into C cannot be broken off.

    Raises:
        TookTooLongError: the time was up.
    """
    before, until = sys.gettrace(), time.monotonic() + seconds

    def look_at_the_clock(_frame, _event, _argument):
        if time.monotonic() > until:
            raise TookTooLongError
        return look_at_the_clock

    sys.settrace(look_at_the_clock)
    try:
        yield
    finally:
        sys.settrace(before)
