"""Folders on this machine: the tool's cache, and folders of SAEs."""

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PureWindowsPath

from multitool.errors import UserError, shown
from multitool.store.entries import SERVED_KINDS, SaeEntry, hub_id, parse_hook
from multitool.store.sae_formats import recognised

HOOKS = (
    "blocks.N.hook_resid_pre, blocks.N.hook_resid_mid, blocks.N.hook_resid_post, hook_embed, or the path of a layer "
    "(its output), as in model.layers.N"
)

UNFINISHED = "unfinished-"
_STATE_OF = (".json", ".safetensors", ".bin", ".npz", ".pt", ".model", ".jinja", ".txt")
# Whoever makes something writes to it time and again; after so many seconds without, its process has ended.
_ABANDONED_AFTER = 3600


def cache_folder() -> Path:
    """The folder for what is fetched or computed once: ``$SAE_MULTITOOL_CACHE`` or ``~/.cache/sae-multitool``.

    Raises:
        UserError: the variable is not set, and this user has no home.
    """
    if named := os.environ.get("SAE_MULTITOOL_CACHE"):
        return Path(named)
    try:
        return Path.home() / ".cache" / "sae-multitool"
    except RuntimeError as error:
        raise UserError(
            "This user has no home folder for what is fetched or computed once. Name a folder in SAE_MULTITOOL_CACHE."
        ) from error


@contextmanager
def unfinished(parent: Path) -> Iterator[Path]:
    """A new folder in ``parent`` for something in the making, gone afterwards with what is left in it."""
    clear_unfinished(parent)
    # Windows deletes no file that is still mapped: what stays then, a later start clears.
    with tempfile.TemporaryDirectory(dir=parent, prefix=UNFINISHED, ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def clear_leftovers(now: float | None = None) -> None:
    """Delete what processes that were ended on the way have left in the tool's cache.

    Args:
        now: seconds since the epoch; None: the clock's.
    """
    for parent in (cache_folder(), cache_folder() / "scans"):
        clear_unfinished(parent, now)


def clear_unfinished(parent: Path, now: float | None = None) -> None:
    """Delete unfinished folders in which nothing has changed for an hour. What cannot be deleted stays."""
    now = time.time() if now is None else now
    for folder in parent.glob(UNFINISHED + "*"):
        # A link is nobody's unfinished work.
        if folder.is_dir() and not folder.is_symlink() and now - _last_written(folder) > _ABANDONED_AFTER:
            shutil.rmtree(folder, ignore_errors=True)


def _last_written(folder: Path) -> float:
    """When a folder or anything in it was written last; now, if it goes meanwhile."""
    with suppress(OSError):
        return max(path.lstat().st_mtime for path in (folder, *folder.rglob("*")))
    return time.time()


def is_folder(name: str) -> bool:
    """Whether there is such a folder; a name that cannot be a path is none."""
    try:
        return Path(name).is_dir()
    except (OSError, ValueError):
        return False


def is_file(name: str) -> bool:
    """Whether there is such a file; a name that cannot be a path is none."""
    try:
        return Path(name).is_file()
    except (OSError, ValueError):
        return False


def is_path(name: str) -> bool:
    r"""Whether a name can only be meant as a place on a machine: ``/saes/x``, ``C:\saes\x``, ``\\server\saes``."""
    return "\\" in name or bool(PureWindowsPath(name).anchor) or bool(PureWindowsPath(name).drive)


def with_hook(name: str, hook: str | None) -> str:
    """The name of an SAE that also says where it reads, as recipes and results keep it: ``FOLDER@HOOK``."""
    return f"{name}@{hook}" if hook else name


def folder_and_hook(name: str) -> tuple[str, str | None]:
    """The two parts of ``FOLDER@HOOK``; a name that is a folder as a whole is one."""
    folder, at, hook = name.rpartition("@")
    return (folder, hook) if at and is_folder(folder) and not is_folder(name) else (name, None)


def folder_sae(folder: Path, *, release: str = "local", model: str | None = None, hook: str | None = None) -> SaeEntry:
    """The SAE in a folder, in any of the formats of ``sae_formats``; its weights are not read.

    Args:
        model: the model it was trained on, in place of the one that its files name.
        hook: where it reads, which its files must not contradict.

    Raises:
        UserError: no such SAE is there, its configuration cannot be read, or the hook cannot be.
    """
    told = recognised(folder).told(folder)
    kind, layer = told.kind, told.layer
    if hook:
        given = parse_hook(hook)
        if given[0] not in SERVED_KINDS:
            raise UserError(f"hook is {shown(hook)}, which is no place on the residual stream. Valid are {HOOKS}.")
        if told.told_by and kind in SERVED_KINDS and given != (kind, layer):
            raise UserError(
                f"hook is {shown(hook)}, and {told.told_by} is {shown(told.hook)}. A hook is given only where an SAE's "
                "files name none: leave it out, or correct the file."
            )
        if kind in SERVED_KINDS or kind == "unknown":
            kind, layer = given
    return SaeEntry(
        release=release,
        sae_id=folder.resolve().name,
        model=model or hub_id(told.model),
        kind=kind,
        layer=layer,
        neuronpedia_id=told.neuronpedia_id,
        folder=folder,
        d_sae=told.d_sae,
        l0=told.l0,
        hook_told=told.hook,
        told_by=told.told_by or told.looked_in,
    )


def folder_state(folder: Path, *others: Path) -> tuple:
    """What changes when the model or the SAE in a folder does: name, size and time of each of its files, and of others
    that tell of it."""
    state = []
    for path in (*sorted(folder.glob("*")), *others):
        if path.suffix in _STATE_OF:
            with suppress(OSError):  # gone meanwhile
                stat = path.stat()
                state.append((path.name, stat.st_size, stat.st_mtime_ns))
    return tuple(state)
