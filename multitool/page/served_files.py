"""The folder that Gradio serves files from: uploads and results, within a bound of bytes, of which the oldest go first.

Gradio deletes after a day what an event has handed out, and an upload that no event has taken never.
"""

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from multitool.process import served_folder

_EVERY = 2.0  # seconds; what is uploaded in so many comes on top of the bound
_LEAST = 4096  # bytes that a file takes at least
_EMPTY_FOR = 600  # seconds, after which nobody is about to write into a folder


@dataclass(frozen=True)
class _File:
    path: Path
    changed: float
    n_bytes: int


def keep_served(files_mb: int | None, since: float) -> None:
    """Clear what an earlier run has left, and from now on, in a thread, keep the folder within its bound.

    Args:
        files_mb: the bound; None: there is none, as other programs of the same person may use the folder.
        since: when the page began to be built: what it wrote itself, and offers from its start, stays.
    """
    folder = served_folder()
    clear_empty(folder, time.time())
    if files_mb is None:
        return
    own = frozenset(file.path for file in _files(folder) if since <= file.changed <= time.time())

    def keep() -> None:
        while True:
            keep_within(folder, files_mb * 1e6, own)
            time.sleep(_EVERY)

    threading.Thread(target=keep, name="served-files", daemon=True).start()


def keep_within(folder: Path, n_bytes: float, spared: frozenset[Path] = frozenset()) -> None:
    """Delete the oldest files in a folder until the rest takes at most this many bytes.

    Args:
        spared: files that stay, and do not count.
    """
    files = sorted((file for file in _files(folder) if file.path not in spared), key=lambda file: -file.changed)
    taken = 0
    for file in files:
        taken += file.n_bytes
        if taken > n_bytes:
            with contextlib.suppress(OSError):
                file.path.unlink()
    clear_empty(folder, time.time())


def clear_empty(folder: Path, now: float) -> None:
    """Delete folders in which there has been nothing for a while."""
    for path, names, _ in os.walk(folder, topdown=False):
        for name in names:
            inner = Path(path, name)
            with contextlib.suppress(OSError):  # not empty, or gone
                if now - inner.lstat().st_mtime > _EMPTY_FOR:
                    inner.rmdir()


def _files(folder: Path) -> Iterator[_File]:
    for path, _, names in os.walk(folder):
        for name in names:
            file = Path(path, name)
            with contextlib.suppress(OSError):
                found = file.lstat()
                yield _File(file, found.st_mtime, max(found.st_size, _LEAST))
