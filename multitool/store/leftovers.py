"""What work that was ended on the way has left in the tool's cache: it is cleared once nobody can be at it any more."""

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from multitool.store.folders import cache_folder

UNFINISHED = "unfinished-"  # begins the names of folders that become something else when they are whole
_OLD = 6 * 3600  # seconds without any change: far longer than one at work leaves its files alone


def clear_leftovers(now: float | None = None) -> None:
    """Delete unfinished folders in the cache in which nothing has changed for hours. What cannot be deleted stays.

    Args:
        now: seconds since the epoch; None: the clock's.
    """
    now = time.time() if now is None else now
    for folder in _unfinished(cache_folder()):
        if now - _last_change(folder) > _OLD:
            shutil.rmtree(folder, ignore_errors=True)


def _unfinished(cache: Path) -> Iterator[Path]:
    for place in (cache, cache / "scans"):
        # A link is nobody's unfinished work.
        yield from (found for found in place.glob(f"{UNFINISHED}*") if found.is_dir() and not found.is_symlink())


def _last_change(folder: Path) -> float:
    """When anything in it was last changed; of what is gone meanwhile, never."""
    changes = [0.0]
    for path in (folder, *folder.rglob("*")):
        try:
            changes.append(path.lstat().st_mtime)
        except OSError:
            continue
    return max(changes)
