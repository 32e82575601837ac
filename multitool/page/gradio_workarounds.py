"""What Gradio has no switch for, by its public names alone.

``tests/page/test_gradio_workarounds.py``, and of streams ``test_streaming.py``, fail when Gradio gains such a switch or
changes its behaviour.
"""

import contextlib
import hashlib
import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import gradio as gr

from multitool.errors import UserError
from multitool.process import served_folder


class Page(gr.Blocks):
    """A page whose undocumented endpoints programs can call by name too, and alone are the tools of its MCP server.

    Gradio makes tools of all public endpoints and of no other, and its clients know the parameters of public endpoints
    only. So there would be no tools that the page *Use via API* leaves out.
    """

    def get_api_info(self, all_endpoints: bool = False, page: str | None = None) -> dict:
        info = super().get_api_info(all_endpoints=True, page=page)
        # The MCP server asks for its tools while it is made; whoever asks later is a client.
        if self.mcp_server_obj is None and not self.is_running and not all_endpoints:
            info["named_endpoints"] = {
                name: endpoint for name, endpoint in info["named_endpoints"].items()
                if endpoint["api_visibility"] == "undocumented"
            }
        return info

    def validate_inputs(self, block_fn, inputs: list) -> None:
        """Says in a sentence that a request brings too few values; Gradio's words for it reach the server's log alone.

        (Values that are left out take their defaults where Gradio's clients send the request; plain HTTP has none.)
        """
        wanted = block_fn.inputs
        if len(inputs) < len(wanted):
            names = ", ".join(str(component.label) for component in wanted)
            raise gr.Error(
                f"/{block_fn.api_name} takes {len(wanted)} values, in this order: {names}. There are {len(inputs)}.",
                duration=None, print_exception=False,
            )


def name_endpoint(page: gr.Blocks, endpoint: dict, parameters: Sequence[str], answers: Sequence[str]) -> None:
    """Name what an endpoint takes and answers in the documentation; Gradio calls them 1st, 2nd, …

    Args:
        endpoint: what ``gr.api`` returned.
    """
    for part, label in zip(endpoint["inputs"] + endpoint["outputs"], [*parameters, *answers], strict=True):
        page.blocks[part].label = label


def shrinks(before, after) -> bool:
    """Whether a list anywhere in an answer has become shorter than in the answer before.

    Gradio sends what changes from one answer of a stream to the next, and lists that shrink inside one another reach
    its clients damaged.
    """
    waiting = [(before, after)]
    for old, new in waiting:
        if isinstance(old, list) and isinstance(new, list):
            if len(new) < len(old):
                return True
            waiting += zip(old, new, strict=False)
        elif isinstance(old, dict) and isinstance(new, dict):
            waiting += [(old[name], new[name]) for name in old.keys() & new.keys()]
    return False


def told_whole(answers: Iterable[dict], ending: dict) -> Iterator[dict]:
    """The answers of a stream, by names, and behind them, or before the error that ends them, all that they told.

    A browser that is behind has only the last answer of those that came meanwhile: Gradio makes each by changing the
    one before in place.

    Args:
        ending: what is told with the last one alone.
    """
    told: dict = {}
    try:
        for answer in answers:
            told |= {name: _both(told[name], value) if name in told else value for name, value in answer.items()}
            yield answer
    except UserError:
        yield told | ending
        raise
    yield told | ending


def _both(before: Any, after: Any) -> Any:
    """A component's answer, with what the one before told of properties that this one tells nothing of."""
    if not _is_update(after):
        return after
    before = before if _is_update(before) else {"value": before}
    return after if before.keys() <= after.keys() else before | after


def _is_update(answer: Any) -> bool:
    return isinstance(answer, dict) and answer.get("__type__") == "update"


def write_served(data: bytes, name: str) -> str:
    """Write a file into the folder that Gradio serves files from, and in which it deletes those that it has handed out
    after the time of ``delete_cache``; the path. It copies a file from anywhere else there, and leaves the first.
    """
    folder = served_folder() / hashlib.sha256(data).hexdigest()
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / name
    # The same file may be there, and just be read by somebody: it is not written anew, and never half.
    with contextlib.suppress(OSError):
        if file.stat().st_size == len(data):
            os.utime(file)  # the oldest go first
            return str(file.resolve())
    unfinished = folder / f"unfinished-{os.getpid()}-{threading.get_ident()}"
    try:
        unfinished.write_bytes(data)
        unfinished.replace(file)
    finally:
        unfinished.unlink(missing_ok=True)
    return str(file.resolve())
