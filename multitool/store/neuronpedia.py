"""Neuronpedia's label of a feature: asked for over the network once, and kept.

A label only illustrates. Whatever goes wrong (no network, no such feature, an answer that is none), there is none.
"""

import json
import os
import re
import threading
import time
import urllib.request
from contextlib import suppress
from pathlib import Path

from multitool.store.entries import SaeEntry
from multitool.store.folders import cache_folder

SITE = "https://www.neuronpedia.org"
OFF = "SAE_MULTITOOL_NEURONPEDIA"  # set to 0 in the environment, nothing is asked
_SECONDS = 4.0  # in all
_MOST_BYTES = 16 << 20  # an answer holds the feature's activations too
_LONGEST_LABEL = 300
_NOT_AGAIN_FOR = 600.0  # seconds, after it did not answer
_OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
_NO = ("0", "false", "no", "off")
_ID = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)


class _Silence:
    """Until when nothing is asked, as there was no answer: else every card of a machine without network would wait."""

    def __init__(self):
        self._lock, self._until = threading.Lock(), 0.0

    def keep(self) -> None:
        with self._lock:
            self._until = time.monotonic() + _NOT_AGAIN_FOR

    @property
    def kept(self) -> bool:
        with self._lock:
            return time.monotonic() < self._until


_silence = _Silence()


def feature_page(entry: SaeEntry, feature: int) -> str:
    """The address of a feature's page; empty where the SAE is not on Neuronpedia."""
    return f"https://neuronpedia.org/{entry.neuronpedia_id}/{feature}" if entry.neuronpedia_id else ""


def may_ask(entry: SaeEntry) -> bool:
    """Whether a label may be asked for: the SAE is there, and nobody has switched it, or the network, off."""
    off = os.environ.get(OFF, "").strip().lower() in _NO
    offline = any(os.environ.get(name, "").strip().lower() in ("1", "true", "yes", "on") for name in _OFFLINE)
    return bool(entry.neuronpedia_id and _ID.fullmatch(entry.neuronpedia_id)) and not off and not offline


def fetch_label(entry: SaeEntry, feature: int, site: str = SITE) -> str:
    """Neuronpedia's label of a feature, asked for or as kept; empty where there is none.

    Args:
        site: where Neuronpedia is.
    """
    if not may_ask(entry):
        return ""
    kept = _kept_at(entry, feature)
    with suppress(OSError, ValueError):
        return str(json.loads(kept.read_text(encoding="utf-8"))["label"])
    if _silence.kept:
        return ""
    try:
        answer = _asked(f"{site}/api/feature/{entry.neuronpedia_id}/{feature}")
    except (OSError, ValueError):
        _silence.keep()
        return ""
    label = label_in(answer)
    with suppress(OSError):
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps({"label": label}, ensure_ascii=True), encoding="utf-8")
    return label


def label_in(answer) -> str:
    """The label in an answer of Neuronpedia's, the first of its explanations; empty where there is none."""
    explanations = answer.get("explanations") if isinstance(answer, dict) else None
    for explanation in explanations if isinstance(explanations, list) else ():
        label = explanation.get("description") if isinstance(explanation, dict) else None
        if isinstance(label, str) and label.strip():
            return " ".join(label.split())[:_LONGEST_LABEL]
    return ""


def _kept_at(entry: SaeEntry, feature: int) -> Path:
    name = re.sub(r"[^\w.-]+", "_", entry.neuronpedia_id or "", flags=re.ASCII)
    return cache_folder() / "neuronpedia" / name / f"{feature}.json"


def _asked(url: str):
    """The JSON at an address. Raises OSError or ValueError if it is not there in time."""
    deadline = time.monotonic() + _SECONDS
    request = urllib.request.Request(url, headers={"User-Agent": "sae-multitool", "Accept": "application/json"})
    read = b""
    with urllib.request.urlopen(request, timeout=_SECONDS) as answer:
        while part := answer.read(1 << 16):
            read += part
            if time.monotonic() > deadline or len(read) > _MOST_BYTES:
                raise OSError("too slow, or too much")
    return json.loads(read)
