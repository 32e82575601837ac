"""The twin of an endpoint, ``/definition_tree_json`` and so on: what agents get as a tool of the MCP server.

A twin answers with one JSON text (any other answer would arrive as Python writes it), and that is brief unless all is
asked for. It takes values as agents write them, and trees by the id under which they are kept. It keeps its results, so
that the same call again, by a client that did not wait for the end, finds them or waits for them. What each tool does:
``tools``.
"""

import contextlib
import json
from collections.abc import Callable, Generator, Iterable, Iterator
from contextvars import copy_context
from dataclasses import dataclass, replace
from itertools import count
from threading import Event, Thread
from typing import Annotated, Any, Literal

import gradio as gr
from pydantic import Field

from multitool.page.agent_values import takes_text, values_of
from multitool.page.api import Endpoint, Parameter
from multitool.page.brief import View, written
from multitool.page.kept import Kept, call_name
from multitool.page.values import checked
from multitool.recipes.fields import Whole
from multitool.trees.document import DefinitionTree

_OFFSET = Annotated[Whole, Field(ge=0, le=10**9)]
_LIMIT = Annotated[Whole, Field(ge=1, le=1_000)]
_POLL = 0.3  # seconds
_REMIND = 10.0  # seconds; many clients give up when they have heard nothing for a minute

Detail = Literal["brief", "full"]
_DETAIL = Parameter("detail", Detail, "brief, or full for the whole JSON, which can be megabytes.", "brief")
_TREE = Parameter("tree", dict, "the id that came with a tree, or its whole JSON.")


@dataclass(frozen=True)
class Tool:
    """What the twin of an endpoint does in its own way."""

    summary: str  # with what to call next
    gives: str  # in a brief answer
    items: str  # what is told in parts
    limit: int  # so many unless told otherwise
    work: Callable[[dict], Iterable]  # takes the endpoint's values by name; gives words and results, the whole one last
    data: Callable[[Any], Any]  # the result as JSON
    brief: Callable[[Any, View], dict]  # that JSON in brief


def twin(endpoint: Endpoint, tool: Tool, kept: Kept) -> Endpoint:
    """The endpoint as a tool.

    Args:
        kept: where it finds trees by their ids, and keeps its results.
    """
    parameters = [
        *(_TREE if parameter.name == "tree" else parameter for parameter in endpoint.parameters),
        _DETAIL,
        Parameter("offset", int, f"how many {tool.items} a brief answer leaves out at the beginning.", 0, _OFFSET),
        Parameter("limit", int, f"how many {tool.items} a brief answer tells; fewer where they are long.", tool.limit,
                  _LIMIT),
    ]

    def run(given: dict) -> Iterator[str]:
        given = checked([parameter for parameter in parameters if parameter is not _TREE], values_of(parameters, given))
        full = given.pop("detail") == "full"
        view = View(given.pop("offset"), given.pop("limit"))
        if "tree" in given:
            given["tree"] = kept.tree(given["tree"])
        text = yield from _result(tool, given, kept, call_name(endpoint.name, given))
        yield text if full else written(tool.brief(json.loads(text), view))

    return Endpoint(
        endpoint.name, tool.summary,
        [parameter if takes_text(parameter.type) else replace(parameter, type=parameter.type | str)
         for parameter in parameters],
        {"json": str}, returns=f"{tool.gives} With detail full: {endpoint.returns_json}", returns_json="", run=run,
        streams=True, on_model=endpoint.on_model,
    )


def _result(tool: Tool, given: dict, kept: Kept, name: str) -> Generator[str, None, str]:
    """The JSON of a tool's result, as it is kept or worked out; what it waits for is told as progress, and answered.

    Args:
        name: of the call. While another one works on the same, this waits for its result.
    """
    with telling() as tell, kept.turn(name) as turn:

        def told(words: str) -> str:
            tell(words)
            return written({"status": words})

        while not turn.acquire(timeout=_POLL):
            yield told("Waiting for the same call, which is being worked on …")
        try:
            text = kept.text(name)
            if text is None:
                answer = None
                with contextlib.closing(iterated(tool.work(given))) as answers:
                    for answer in answers:
                        if words := _words(answer):
                            # Gradio stops the work for a client that has left at its answers only.
                            yield told(words)
                text = written(tool.data(answer))
                kept.keep(name, text)
            return text
        finally:
            turn.release()


def iterated(answers: Iterable) -> Generator:
    """As a generator, which can be closed."""
    yield from answers


@contextlib.contextmanager
def telling(remind: float = _REMIND):
    """A function that tells the client of the event that runs what it waits for; it is told again now and then.

    Args:
        remind: after how many seconds.
    """
    progress, numbers, last, over = gr.Progress(), count(1), ["Starting …"], Event()

    def tell(words: str) -> None:
        last[0] = words
        progress((next(numbers), None), desc=words)

    def tell_again() -> None:
        while not over.wait(remind):
            tell(last[0])

    Thread(target=copy_context().run, args=(tell_again,), name="progress", daemon=True).start()
    try:
        yield tell
    finally:
        over.set()


def _words(answer) -> str:
    """What an answer says of how far the work is."""
    match answer:
        case str():
            return answer
        case DefinitionTree() if answer.depth_grown and not answer.complete:
            return f"Growing: {answer.depth_grown} tokens deep, {len(answer.tree):,} nodes"
        case [DefinitionTree(), *_]:
            return f"Growing: {len(answer)} of the trees are there"
    return ""
