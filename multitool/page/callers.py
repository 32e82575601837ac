"""Whom the app serves, so that nobody shuts out the rest: how many requests of one caller, and of all, at a time; and
the line in which they wait for the model.

Gradio's own queue is no place to wait: it is one for everybody, and full for everybody. So every request begins at
once, and here it is taken in or refused.
"""

import inspect
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial, wraps
from ipaddress import IPv6Address, ip_address, ip_network
from threading import Condition, Lock
from typing import Any

import gradio as gr

from multitool.errors import UserError

_CALLER: ContextVar[str] = ContextVar("caller", default="")  # of the request that is being served
_NETWORK = 64  # bits of an IPv6 address that tell a subscriber; the rest is free to choose


class Callers:
    """Counts the requests that are being served, those that wait for the model included.

    Args:
        of_one: how many one caller may have at a time; None: any number.
        of_all: how many all may have together; None: any number.
    """

    def __init__(self, of_one: int | None = None, of_all: int | None = None):
        self._of_one, self._of_all = of_one, of_all
        self._lock = Lock()
        self._served: Counter[str] = Counter()

    @contextmanager
    def served(self, caller: str) -> Iterator[None]:
        """Take a request in until the context ends. Raises UserError if there are too many."""
        leave = self.enter(caller)
        try:
            yield
        finally:
            leave()

    def enter(self, caller: str) -> Callable[[], None]:
        """Take a request in; returns what ends it, to be called once. Raises UserError if there are too many."""
        with self._lock:
            if self._of_one is not None and self._served[caller] >= self._of_one:
                raise UserError(
                    f"One caller may have {self._of_one} requests running or waiting here at a time, and yours are as "
                    "many. Wait for one of them to end, or stop it. (Callers are told apart by their network address.)"
                )
            if self._of_all is not None and self._served.total() >= self._of_all:
                raise UserError(
                    f"{self._of_all} requests are running or waiting here, as many as there may be at a time. Try "
                    "again in a minute."
                )
            self._served[caller] += 1
        return partial(self._leave, caller)

    def _leave(self, caller: str) -> None:
        with self._lock:
            self._served[caller] -= 1
            if not self._served[caller]:
                del self._served[caller]

    def counting(self, handler: Callable) -> Callable:
        """The handler of an event, or a generator, that counts as served while it runs. It raises UserError as
        ``served`` does."""
        signature = inspect.signature(handler)

        @wraps(handler)
        def plain(request: gr.Request, /, *args, **kwargs):
            caller = caller_of(request)
            with self.served(caller):
                _CALLER.set(caller)
                return handler(*args, **kwargs)

        @wraps(handler)
        def streaming(request: gr.Request, /, *args, **kwargs):
            caller = caller_of(request)
            with self.served(caller), closing(handler(*args, **kwargs)) as answers:
                while True:
                    _CALLER.set(caller)  # every step may be done in another thread
                    try:
                        answer = next(answers)
                    except StopIteration:
                        return
                    yield answer

        counted: Any = streaming if inspect.isgeneratorfunction(handler) else plain
        # Gradio knows by the annotation what to give, and asks for it by position.
        name = "caller_request"
        first = inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=gr.Request)
        counted.__signature__ = signature.replace(parameters=[first, *signature.parameters.values()])
        counted.__annotations__ = {name: gr.Request} | getattr(handler, "__annotations__", {})
        return counted


def this_caller() -> str:
    """Whose request is being served here."""
    return _CALLER.get()


def caller_of(request: gr.Request | None) -> str:
    """Who calls, as far as a network address tells: session hashes, and all other headers, are free to make.

    Behind a proxy, as on a Space, it is the last public address in ``X-Forwarded-For``: the proxy adds it, what stands
    before is the caller's own tale.
    """
    if request is None or request.request is None:
        return ""
    told = ",".join(request.request.headers.getlist("x-forwarded-for")).split(",")
    for text in reversed(told):
        try:
            address = ip_address(text.strip())
        except ValueError:
            continue
        address = getattr(address, "ipv4_mapped", None) or address  # ::ffff:1.2.3.4, as some proxies write it
        if address.is_global:
            return _subscriber(address)
    return request.request.client.host if request.request.client else ""


def _subscriber(address) -> str:
    if isinstance(address, IPv6Address):
        return str(ip_network((address, _NETWORK), strict=False))
    return str(address)


@dataclass(frozen=True)
class Waiting:
    """One has to wait for the model."""

    before: int  # how many come first

    def __str__(self) -> str:
        return f"Waiting for the model: {self.before} before you …" if self.before else "Waiting for the model …"


class Line:
    """Those who wait for the model. The first request of every caller comes before anybody's second, and of the first
    ones that of the caller who has had the model longest ago.

    Args:
        places: how many may have it at the same time.
    """

    def __init__(self, places: int):
        self._changed = Condition()
        self._free = places
        self._having: Counter[str] = Counter()  # by caller
        self._turns = 0  # that have ended
        self._had: dict[str, int] = {}  # by caller who waits, which turn was the last
        self._waiting: list[_Waiter] = []  # as they came

    def wait(self, poll_seconds: float) -> Generator[Waiting, None, Callable[[], None]]:
        """Until one may have the model; returns what gives it back. Closed before, one has left the line."""
        me = _Waiter(this_caller())
        with self._changed:
            self._waiting.append(me)
        try:
            while True:
                with self._changed:
                    if self._changed.wait_for(lambda: self._before(me) < self._free, timeout=poll_seconds):
                        self._free -= 1
                        self._having[me.caller] += 1
                        return partial(self._leave, me)
                    before = self._before(me)
                yield Waiting(before)
        finally:
            with self._changed:
                self._waiting.remove(me)
                self._changed.notify_all()

    def _leave(self, me: "_Waiter") -> None:
        with self._changed:
            self._free += 1
            self._having[me.caller] -= 1
            self._having += Counter()  # without those at 0
            self._turns += 1
            waiting = {waiter.caller for waiter in self._waiting}
            self._had = {caller: turn for caller, turn in self._had.items() if caller in waiting}
            if me.caller in waiting:
                self._had[me.caller] = self._turns
            self._changed.notify_all()

    def _before(self, me: "_Waiter") -> int:
        """How many come first."""
        seen, order = Counter(self._having), []
        for index, waiter in enumerate(self._waiting):
            order.append((seen[waiter.caller], self._had.get(waiter.caller, 0), index, waiter))
            seen[waiter.caller] += 1
        return [waiter for *_, waiter in sorted(order, key=lambda one: one[:3])].index(me)


@dataclass(frozen=True, eq=False)
class _Waiter:
    caller: str
