"""What the command line and the app do first as processes, before a library is loaded: standard streams that take every
character, a folder for the page's files, what the environment sets, and a way out by Ctrl-C at any time."""

import os
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from multitool.errors import UserError, shown

INTERRUPTED = 130  # the exit status, as shells have it
_SAID = "Interrupted.\n"


def variable(name: str) -> str:
    """The environment variable that sets something of that name."""
    return f"SAE_MULTITOOL_{name.upper()}"


def from_environment(name: str, environment: Mapping[str, str] = os.environ) -> str | None:
    """What is set by the environment variable of that name; None where it is empty or there is none."""
    return environment.get(variable(name), "").strip() or None


def prepare_streams() -> None:
    """Make standard output and error take every character, as an escape where the terminal has no such one; streams
    that are closed go nowhere, and the files that are opened next do not take their places.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115, PTH123  # as long as we run
        elif mode == "w" and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def drop(stream: TextIO) -> None:
    """From now on a standard stream goes nowhere: what is kept for it would fail once more when the process ends."""
    with suppress(OSError, ValueError):  # where a test has put something else there
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


@contextmanager
def interruptible() -> Iterator[None]:
    """In this block Ctrl-C is a KeyboardInterrupt, also where a library that is being loaded makes another error of it.
    """
    came = []

    def interrupt(number, frame):
        came.append(number)
        raise KeyboardInterrupt

    before = _set_handler(interrupt)
    try:
        yield
    except Exception as error:
        if came:
            raise KeyboardInterrupt from error
        raise
    finally:
        if before is not None:
            signal.signal(signal.SIGINT, before)


def _set_handler(handler):
    """Returns the one before; None where it stays, as threads cannot set it, and a shell ignores it in the background.
    """
    before = signal.getsignal(signal.SIGINT)
    if before is signal.SIG_IGN or threading.current_thread() is not threading.main_thread():
        return None
    return signal.signal(signal.SIGINT, handler)


def leave_on_interrupt() -> None:
    """From now on Ctrl-C ends the process at once: for imports, which begin nothing that could stay half done, and in
    which an exception may end anywhere."""

    def leave(number, frame):
        with suppress(OSError):
            os.write(2, _SAID.encode())
        os._exit(INTERRUPTED)

    _set_handler(leave)


def interrupted() -> int:
    """Say that it was interrupted. Returns the exit status."""
    with suppress(OSError):
        sys.stderr.write(_SAID)
        sys.stderr.flush()
    return INTERRUPTED


def check_app() -> None:
    """What the app's libraries would end with a traceback for, some of them while they are imported.

    Raises:
        UserError: there is no home folder, no such port, or the folder for files cannot be written.
    """
    _check_home()
    port = os.environ.get("GRADIO_SERVER_PORT", "")
    if port and not (port.isdecimal() and len(port) < 6 and 1 <= int(port) <= 65535):
        raise UserError(f"GRADIO_SERVER_PORT is {shown(port)}; it must be a whole number from 1 to 65535.")
    _check_served_folder()


def _check_home() -> None:
    try:
        Path.home()
    except RuntimeError as error:  # a number without a name, as containers have it, and no variable
        raise UserError(
            "This user has no home folder, in which the libraries keep what they fetch. Name a folder in the "
            "environment variable HOME."
        ) from error


def served_folder() -> Path:
    """Where Gradio keeps uploads and serves files from, as it documents: the folder of the environment variable
    ``GRADIO_TEMP_DIR``, or ``gradio`` among the system's temporary files."""
    return Path(os.environ.get("GRADIO_TEMP_DIR") or Path(tempfile.gettempdir(), "gradio"))


def _check_served_folder() -> None:
    try:
        folder = served_folder()
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"written")
    except OSError as error:
        raise UserError(
            f"The folder for pictures and uploads cannot be written: {error}. Make room or permissions there, or name "
            "another folder in GRADIO_TEMP_DIR."
        ) from error
