"""What the page and the API share: events by the names of components, how errors reach a user, and files."""

import contextlib
import functools
import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.components import Component

from multitool.errors import UserError
from multitool.page.callers import Callers
from multitool.page.gradio_workarounds import write_served
from multitool.page.shelf import Shelf, taken
from multitool.recipes.captions import feature_told

SECONDS_SHOWN = 12  # of a message in the corner: what it says stands beside its result too
PRIVATE: dict[str, Any] = {"api_visibility": "private"}  # for events that only serve the page
QUIETLY: dict[str, Any] = {"queue": False, "show_progress": "hidden", **PRIVATE}  # for those that are done at once
# For those whose last word counts: of what is chosen while one is under way the last is done afterwards, not left out.
LATEST: dict[str, Any] = {"trigger_mode": "always_last", **QUIETLY}


def counted(callers: Callers) -> dict[str, Any]:
    """For an ``event`` that takes a while: it counts as its caller's, and begins at once, to be taken in or refused."""
    return {"callers": callers, "concurrency_limit": None}


def in_words_of_page(error: UserError, controls: Mapping[str, Component]) -> str:
    """What an error says, with the labels of controls in the place of their names."""
    return error.told({name: label for name, control in controls.items() if (label := getattr(control, "label", ""))})


def shown_errors(handler: Callable, controls: Mapping[str, Component] | None = None) -> Callable:
    """The handler with its errors turned into those that Gradio shows; works on generators too.

    Args:
        controls: of the page, by name: errors are told in its words, and escaped, as it shows them as HTML. None:
            programs get them as they are.
    """

    @contextlib.contextmanager
    def shown():
        try:
            yield
        except UserError as error:
            sentence = str(error) if controls is None else escape(in_words_of_page(error, controls))
            # Half a surrogate pair, as JSON can have it, would keep the message from being sent.
            raise gr.Error(
                sentence.encode(errors="backslashreplace").decode(), duration=SECONDS_SHOWN, print_exception=False
            ) from error
        except gr.Error:
            raise
        except Exception as error:  # what it says may tell of this machine: that goes into the log alone
            raise gr.Error(
                f"This failed for an unexpected reason ({type(error).__name__}). The server's log has the details; "
                "please tell its operator what you asked for.",
                duration=SECONDS_SHOWN,
            ) from error

    @functools.wraps(handler)
    def plain(*args, **kwargs):
        with shown():
            return handler(*args, **kwargs)

    @functools.wraps(handler)
    def streaming(*args, **kwargs):
        with shown():
            yield from handler(*args, **kwargs)

    return streaming if inspect.isgeneratorfunction(handler) else plain


def event(
    handler: Callable, takes: Mapping, gives: Mapping | Component, *, callers: Callers | None = None,
    shelf: Shelf | None = None, **options,
) -> dict:
    """The arguments of an event by which the page serves itself: ``button.click(**event(…))``.

    Args:
        handler: a function, or a generator, that is called with what the components of ``takes`` hold, by their names
            there. It answers with what those of ``gives`` shall show, by their names there; the others stay as they
            are. Its UserErrors are shown.
        gives: or the one component that an answer is the value of.
        shelf: what holds the trees and lists among the answers: their components have something ``Held`` then. The
            handler itself is given them as they are.
        callers: among whose requests it counts, as ``counted`` says.
        options: Gradio's own, such as ``trigger_mode``.
    """
    by_names = isinstance(gives, Mapping)
    named = _by_name(gives, _held(handler, shelf)) if by_names else handler
    answering = _answering(callers.counting(named) if callers else named)
    return {
        "fn": shown_errors(answering, takes), "inputs_kwargs": dict(takes),
        "outputs": list(gives.values()) if by_names else gives, **PRIVATE, **options,
    }


def _answering(handler: Callable) -> Callable:
    """The handler; a generator that answers nothing leaves all as it is. Gradio would empty what it gives."""

    @functools.wraps(handler)
    def streaming(*args, **kwargs):
        answered = False
        for answer in handler(*args, **kwargs):
            answered = True
            yield answer
        if not answered:
            yield gr.skip()

    return streaming if inspect.isgeneratorfunction(handler) else handler


def _held(handler: Callable, shelf: Shelf | None) -> Callable:
    """The handler with what is held taken, and its answers put on the shelf; works on generators too."""

    def put(answer: dict) -> dict:
        return answer if shelf is None else {name: shelf.put(value) for name, value in answer.items()}

    def given(args: Iterable, kwargs: Mapping) -> Callable:
        return functools.partial(handler, *map(taken, args), **{name: taken(value) for name, value in kwargs.items()})

    @functools.wraps(handler)
    def plain(*args, **kwargs):
        return put(given(args, kwargs)())

    @functools.wraps(handler)
    def streaming(*args, **kwargs):
        yield from map(put, given(args, kwargs)())

    return streaming if inspect.isgeneratorfunction(handler) else plain


def _by_name(components: Mapping, handler: Callable) -> Callable:
    """The handler with the components in the place of their names in its answers; works on generators too."""

    def named(answer: dict):
        return {components[name]: value for name, value in answer.items()} or gr.skip()

    @functools.wraps(handler)
    def plain(*args, **kwargs):
        return named(handler(*args, **kwargs))

    @functools.wraps(handler)
    def streaming(*args, **kwargs):
        yield from map(named, handler(*args, **kwargs))

    return streaming if inspect.isgeneratorfunction(handler) else plain


def pick(named: Mapping, names: Iterable[str]) -> dict:
    """Those of these names."""
    return {name: named[name] for name in names}


def as_number(text: str) -> Any:
    """A number from a menu that takes others too; what is none stays as it is, for a check to refuse."""
    with contextlib.suppress(TypeError, ValueError):
        return float(text)
    return text


def part_heading(words: str) -> gr.HTML:
    """What a part of the page is, for those who hear it and go from heading to heading."""
    return gr.HTML(f"<h2>{words}</h2>", elem_classes="unseen", apply_default_css=False, padding=False)


def status_line(elem_id: str, waiting: str = "", *, value: str = "") -> gr.Textbox:
    """Where a result tells how far it is, and why there is none; ``waiting`` stands there before anything was asked."""
    return gr.Textbox(value, label="Status", show_label=False, placeholder=waiting, interactive=False, container=False,
                      lines=1, max_lines=8, elem_id=elem_id, elem_classes="status")


def quiet(words: str) -> str:
    """Words beside a control, as HTML."""
    return f'<p class="quiet">{escape(words)}</p>'


def save(content: bytes | str, settings: dict, ending: str) -> str:
    """Write a result to a file of its own; the path.

    Args:
        settings: the result's recipe, which gives the file its name.
        ending: such as ``tree.png``.

    Raises:
        UserError: the disk is full, or cannot be written.
    """
    # The recipe can come from an uploaded file: nothing of it may act as a path.
    name = re.sub(r"[^A-Za-z0-9_]+", "-", feature_told(settings)).strip("-")[:80] + "-" + ending
    try:
        return write_served(content.encode() if isinstance(content, str) else content, name)
    except OSError as error:
        raise UserError(f"The file cannot be stored on this server: {error.strerror}. Tell its operator.") from error


def file_data(path: str, mime_type: str) -> dict:
    """A file as the API returns it: clients fetch it by its URL."""
    return gr.FileData(path=path, orig_name=Path(path).name, mime_type=mime_type).model_dump()
