"""Folders on this machine: the tool's cache, and SAE folders in sae-lens' format."""

import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PureWindowsPath

from multitool.errors import UserError
from multitool.store.entries import SaeEntry, hub_id, parse_hook
from multitool.store.problems import READING_CFG, said

_UNFINISHED = "unfinished-"
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
    """A new folder in ``parent`` for something in the making, gone afterwards with what is left in it.

    So are those of processes that were ended in the middle of it, once nothing was written there for an hour.
    """
    for folder in parent.glob(_UNFINISHED + "*"):
        if time.time() - _last_written(folder) > _ABANDONED_AFTER:
            shutil.rmtree(folder, ignore_errors=True)
    # Windows deletes no file that is still mapped: what stays then, a later start clears.
    with tempfile.TemporaryDirectory(dir=parent, prefix=_UNFINISHED, ignore_cleanup_errors=True) as work:
        yield Path(work)


def _last_written(folder: Path) -> float:
    """When a folder or anything in it was written last; now, if it goes meanwhile."""
    with suppress(OSError):
        return max(path.stat().st_mtime for path in (folder, *folder.rglob("*")))
    return time.time()


def is_folder(name: str) -> bool:
    """Whether there is such a folder; a name that cannot be a path is none."""
    try:
        return Path(name).is_dir()
    except (OSError, ValueError):
        return False


def is_path(name: str) -> bool:
    r"""Whether a name can only be meant as a place on a machine: ``/saes/x``, ``C:\saes\x``, ``\\server\saes``."""
    return "\\" in name or bool(PureWindowsPath(name).anchor) or bool(PureWindowsPath(name).drive)


def folder_sae(folder: Path, *, release: str = "local", model: str | None = None) -> SaeEntry:
    """A folder in sae-lens' format (``cfg.json`` and ``sae_weights.safetensors``).

    Raises:
        UserError: its configuration is missing or unreadable.
    """
    cfg = read_cfg(folder)
    metadata = cfg.get("metadata")
    metadata = metadata if isinstance(metadata, dict) else {}
    hook = str(metadata.get("hook_name") or cfg.get("hook_name") or "")
    trained_on = str(metadata.get("model_name") or cfg.get("model_name") or "")
    kind, layer = parse_hook(hook)
    if "transcoder" in str(cfg.get("architecture", "")):
        kind = "transcoder"
    neuronpedia_id = metadata.get("neuronpedia_id") or cfg.get("neuronpedia_id")
    width = cfg.get("d_sae")
    return SaeEntry(
        release=release,
        sae_id=folder.resolve().name,
        model=model or hub_id(trained_on),
        kind=kind,
        layer=layer,
        neuronpedia_id=neuronpedia_id if isinstance(neuronpedia_id, str) else None,
        folder=folder,
        d_sae=width if type(width) is int else None,
    )


def read_cfg(folder: Path) -> dict:
    """``cfg.json`` of an SAE folder.

    Raises:
        UserError: it is missing or unreadable.
    """
    path = folder / "cfg.json"
    with said(READING_CFG, file=path):
        cfg = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(cfg, dict):
        raise UserError(f"{path} is not an SAE configuration: it holds no JSON object.")
    return cfg
