"""What the page and the API share: how errors reach a user, and the files that are handed out."""

import contextlib
import functools
import inspect
import re
from collections.abc import Callable
from html import escape

import gradio as gr

from multitool.errors import UserError
from multitool.page.gradio_workarounds import write_served
from multitool.page.settings import ServerSettings

PRIVATE = {"api_visibility": "private"}  # for events that only serve the page
QUIETLY = {"queue": False, "show_progress": "hidden", **PRIVATE}  # for those of them that are done at once


def on_model(settings: ServerSettings) -> dict:
    """For events that run the model: they wait in one line, page and API alike."""
    return {"concurrency_id": "model", "concurrency_limit": settings.concurrency}


def shown_errors(handler: Callable, *, on_page: bool = True) -> Callable:
    """The handler with its UserErrors turned into those that Gradio shows; works on generators too.

    Args:
        on_page: the message is shown as HTML, so what a user typed is escaped in it; programs get it as it is.
    """

    def for_gradio(error: UserError) -> gr.Error:
        return gr.Error(escape(str(error)) if on_page else str(error), duration=None, print_exception=False)

    @functools.wraps(handler)
    def plain(*args, **kwargs):
        try:
            return handler(*args, **kwargs)
        except UserError as error:
            raise for_gradio(error) from error

    @functools.wraps(handler)
    def streaming(*args, **kwargs):
        try:
            yield from handler(*args, **kwargs)
        except UserError as error:
            raise for_gradio(error) from error

    return streaming if inspect.isgeneratorfunction(handler) else plain


def by_name(components: dict, handler: Callable) -> Callable:
    """The handler, whose answers (dictionaries) name the components that they change; the others stay as they are.

    Works on generators too.
    """

    def named(answer: dict) -> dict:
        return {components[name]: value for name, value in answer.items()}

    def plain(*args):
        return named(handler(*args))

    def streaming(*args):
        yield from map(named, handler(*args))

    return streaming if inspect.isgeneratorfunction(handler) else plain


def as_number(text: str) -> float | str:
    """A number from a menu that takes others too; what is none is left for the recipe to refuse."""
    with contextlib.suppress(TypeError, ValueError):
        return float(text)
    return text


def quiet(words: str) -> str:
    """Words beside a control, as HTML."""
    return f'<p class="quiet">{escape(words)}</p>'


def save(content: bytes | str, settings: dict, ending: str) -> str:
    """Write a result to a file of its own; the path.

    Args:
        settings: the result's recipe, which gives the file its name.
        ending: such as ``tree.png``.
    """
    stem = f"{settings.get('sae')}-feature-{settings.get('feature')}"
    # The recipe can come from an uploaded file: nothing of it may act as a path.
    name = re.sub(r"[^A-Za-z0-9_]+", "-", stem).strip("-")[:80] + "-" + ending
    return write_served(content.encode() if isinstance(content, str) else content, name)


def file_data(path: str, mime_type: str) -> dict:
    """A file as the API returns it: clients fetch it by its URL."""
    return gr.FileData(path=path, orig_name=path.rpartition("/")[2], mime_type=mime_type).model_dump()
