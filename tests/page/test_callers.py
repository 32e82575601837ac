"""Nobody shuts out the rest: how many requests of one caller are taken in, and in which order they have the model."""

import inspect
from types import SimpleNamespace

import gradio as gr
import pytest
from starlette.datastructures import Headers

from multitool.errors import UserError
from multitool.page.callers import Callers, Line, Waiting, caller_of


def request(forwarded: str | list[str] | None = None, host: str = "10.0.0.1") -> gr.Request:
    told = [forwarded] if isinstance(forwarded, str) else forwarded or []
    headers = Headers(raw=[(b"x-forwarded-for", one.encode()) for one in told])
    return gr.Request(SimpleNamespace(headers=headers, client=SimpleNamespace(host=host)))


def test_one_caller_is_refused_with_a_sentence_and_the_rest_are_not():
    callers = Callers(of_one=2, of_all=3)
    with callers.served("a"), callers.served("a"):
        with pytest.raises(UserError, match="may have 2 requests running or waiting here at a time, and yours"):
            callers.served("a").__enter__()
        with callers.served("b"), pytest.raises(UserError, match="3 requests are running"), callers.served("c"):
            pass
        with callers.served("c"):
            pass
    with callers.served("a"), callers.served("a"):
        pass


def test_on_ones_own_machine_there_is_no_limit():
    callers = Callers()
    contexts = [callers.served("") for _ in range(100)]
    for context in contexts:
        context.__enter__()


@pytest.mark.parametrize(
    ("forwarded", "caller"),
    [
        ("93.184.216.34", "93.184.216.34"),
        ("1.2.3.4, 93.184.216.34", "93.184.216.34"),  # the first is the caller's own tale
        (["1.2.3.4", "93.184.216.34, 10.16.3.80"], "93.184.216.34"),  # proxies with addresses of their own
        ("1.2.3.4, nonsense, 127.0.0.1", "1.2.3.4"),
        ("2606:4700:10:20:1:2:3:4", "2606:4700:10:20::/64"),
        ("2606:4700:10:20:ffff::1", "2606:4700:10:20::/64"),
        ("::ffff:93.184.216.34", "93.184.216.34"),
        (None, "10.0.0.1"),
        ("\x00, '; DROP", "10.0.0.1"),
    ],
)
def test_callers_are_told_apart_by_what_the_proxy_says(forwarded, caller):
    assert caller_of(request(forwarded)) == caller


def test_a_session_hash_makes_no_other_caller():
    own = request("93.184.216.34")
    own.session_hash = "fresh"
    assert caller_of(own) == caller_of(request("93.184.216.34"))


def test_a_handler_counts_while_it_runs_and_however_it_ends():
    callers = Callers(of_one=1)

    def handler(a, b=2):
        yield a + b
        yield "more"

    counted = callers.counting(handler)
    assert inspect.isgeneratorfunction(counted)
    assert [*inspect.signature(counted).parameters] == ["caller_request", "a", "b"]
    one = counted(request(), 1)
    assert next(one) == 3
    with pytest.raises(UserError, match="may have 1 requests"):
        next(counted(request(), 1))
    assert next(counted(request("93.184.216.34"), 1)) == 3
    one.close()
    assert [*counted(request(), 1, b=5)] == [6, "more"]

    def broken():
        raise UserError("no")

    for _ in range(2):
        with pytest.raises(UserError, match="no"):
            callers.counting(broken)(request())


def test_the_first_of_every_caller_comes_before_anybodys_second():
    line, served = Line(1), []

    def waiting(caller: str):
        def handler():
            leave = yield from line.wait(0)
            served.append(caller)
            yield leave

        return Callers().counting(handler)(request(host=caller))

    first = waiting("greedy")
    leave = next(first)
    others = [waiting("greedy"), waiting("greedy"), waiting("other"), waiting("third")]
    for one in others:
        assert isinstance(next(one), Waiting)
    assert [str(next(one)) for one in others] == [
        "Waiting for the model: 2 before you …", "Waiting for the model: 3 before you …",
        "Waiting for the model …", "Waiting for the model: 1 before you …",
    ]
    while others:
        leave()
        answers = [next(one) for one in others]
        chosen = next(i for i, answer in enumerate(answers) if not isinstance(answer, Waiting))
        leave = answers[chosen]
        others.pop(chosen)
    assert served == ["greedy", "other", "third", "greedy", "greedy"]


def test_who_leaves_the_line_is_not_waited_for():
    line = Line(1)

    def turn():
        return (yield from line.wait(0))

    with pytest.raises(StopIteration) as got:
        next(turn())
    left, stays = turn(), turn()
    next(left), next(stays)
    left.close()
    got.value.value()
    with pytest.raises(StopIteration):
        next(stays)
