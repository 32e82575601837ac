"""Folders on this machine: the tool's cache, and SAE folders in sae-lens' format."""

import json
import os
from pathlib import Path

from multitool.errors import UserError
from multitool.store.entries import SaeEntry, hub_id, parse_hook
from multitool.store.problems import READING_CFG, said


def cache_folder() -> Path:
    """The folder for what is fetched or computed once: ``$SAE_MULTITOOL_CACHE`` or ``~/.cache/sae-multitool``."""
    return Path(os.environ.get("SAE_MULTITOOL_CACHE") or Path.home() / ".cache" / "sae-multitool")


def is_folder(name: str) -> bool:
    """Whether there is such a folder; a name that cannot be a path is none."""
    try:
        return Path(name).is_dir()
    except (OSError, ValueError):
        return False


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
