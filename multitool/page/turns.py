"""Whose turn it is when a visitor asks for one growth after another."""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass

from multitool.errors import UserError


@dataclass
class Turns:
    """The growths that one visitor asks for: each ends the one before, and only the last is told of.

    It is changed in place: a growth that is running sees that another has been asked for.
    """

    asked: int = 0
    started: int = 0
    running: bool = False  # the last one, or it is waited for

    def ask(self) -> int:
        """A growth is asked for; its number."""
        self.asked += 1
        self.running = True
        return self.asked

    def start(self, number: int) -> bool:
        """Whether the growth of that number is the last, and so begins."""
        if number != self.asked:
            return False
        self.started, self.running = number, True
        return True

    def end(self, number: int) -> None:
        """The growth of that number has ended."""
        if number == self.asked:
            self.running = False

    def refuse(self) -> bool:
        """Whether none was begun where one was waited for: the queue was full. One that has begun ends by itself."""
        refused = self.started < self.asked
        if refused:
            self.running = False
        return refused

    def stop(self) -> None:
        """Whichever is running ends, and none is begun."""
        self.asked += 1
        self.running = False


def until_another(judging: Callable) -> Callable:
    """What is told of a tree, a generator of answers, as long as no growth is asked for meanwhile.

    It takes the turns besides everything else.
    """

    def streaming(turns: Turns, **arguments):
        asked = turns.asked
        with contextlib.closing(judging(**arguments)) as answers:
            for answer in answers:
                if turns.asked != asked:
                    return
                yield answer

    return streaming


def only_latest(growth: Callable) -> Callable:
    """The growth, a generator of answers, as long as no other has been asked for.

    It takes the turns and its own number besides everything else.
    """

    def streaming(turns: Turns, number: int, **arguments):
        if not turns.start(number):
            return
        try:
            with contextlib.closing(growth(**arguments)) as answers:
                for answer in answers:
                    if number != turns.asked:
                        return
                    yield answer
        except UserError:
            if number == turns.asked:
                raise
        finally:
            turns.end(number)

    return streaming
