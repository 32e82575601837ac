"""The repository as a ZeroGPU Space: what Hugging Face reads before the app starts."""

import re
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
import yaml
from huggingface_hub import SpaceHardware
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
# The keys that the Hub knows: https://huggingface.co/docs/hub/spaces-config-reference
KEYS = {
    "title", "emoji", "colorFrom", "colorTo", "short_description", "thumbnail", "pinned", "header", "fullWidth",
    "license", "sdk", "sdk_version", "python_version", "app_file", "app_port", "app_build_command", "base_path",
    "custom_headers", "models", "datasets", "tags", "preload_from_hub", "suggested_hardware", "suggested_storage",
    "disable_embedding", "startup_duration_timeout", "hf_oauth", "hf_oauth_expiration_minutes", "hf_oauth_scopes",
    "hf_oauth_authorized_org",
}
COLOURS = {"red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"}
# What ZeroGPU runs: https://huggingface.co/docs/hub/spaces-zerogpu
ZEROGPU_PYTHONS = {"3.10", "3.10.13", "3.12", "3.12.12"}
ZEROGPU_TORCHES = {"2.8.0", "2.9.1", "2.10.0", "2.11.0"}
LARGEST_FILE = 10_000_000  # bytes; larger ones need git LFS or Xet


@pytest.fixture(scope="module")
def card():
    """The front matter of README.md."""
    begin, front_matter, _ = (ROOT / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    assert begin == ""
    return yaml.safe_load(front_matter)


def requirements(name: str) -> dict[str, Requirement]:
    lines = [line.partition("#")[0].strip() for line in (ROOT / name).read_text(encoding="utf-8").splitlines()]
    return {requirement.name: requirement for requirement in map(Requirement, filter(None, lines))}


def pinned_torch() -> str:
    (pin,) = requirements("pre-requirements.txt")["torch"].specifier
    assert pin.operator == "=="
    return pin.version


def test_the_hub_accepts_the_card(card):
    assert set(card) <= KEYS
    assert card["title"].strip()
    assert 0 < len(card["short_description"]) <= 60
    assert {card["colorFrom"], card["colorTo"]} <= COLOURS
    assert unicodedata.category(card["emoji"][0]) == "So" and len(card["emoji"]) <= 2
    assert all(isinstance(tag, str) for tag in card.get("tags", []))


def test_the_licence_is_that_of_the_repository(card):
    assert card["license"] == "gpl-3.0"
    first_lines = " ".join((ROOT / "LICENSE").read_text(encoding="utf-8")[:200].split())
    assert first_lines.startswith("GNU GENERAL PUBLIC LICENSE Version 3")


def test_the_space_runs_the_app_with_gradio_on_zerogpu(card):
    assert card["sdk"] == "gradio"
    assert (ROOT / card["app_file"]).is_file()
    assert card["suggested_hardware"] == SpaceHardware.ZERO_A10G.value
    assert card["python_version"] in ZEROGPU_PYTHONS
    assert requirements("requirements.txt")["gradio"].specifier.contains(card["sdk_version"])


def test_zerogpu_has_the_pinned_torch():
    assert pinned_torch() in ZEROGPU_TORCHES
    assert requirements("requirements.txt")["torch"].specifier.contains(pinned_torch())


def test_system_packages_are_named_one_a_line():
    for line in (ROOT / "packages.txt").read_text(encoding="utf-8").splitlines():
        assert re.fullmatch("[a-z0-9][a-z0-9.+-]+", line)


def test_no_file_needs_git_lfs():
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, text=True).stdout
    files = [ROOT / name for name in listed.split("\0") if name]
    assert [file.name for file in files if file.is_file() and file.stat().st_size > LARGEST_FILE] == []


@pytest.mark.slow  # asks the package index
def test_the_space_can_be_built(card, tmp_path):
    """All that a Space installs in one go fits together: https://huggingface.co/docs/hub/spaces-dependencies."""
    wanted = tmp_path / "wanted.txt"
    wanted.write_text(
        f"-r {ROOT / 'pre-requirements.txt'}\n-r {ROOT / 'requirements.txt'}\n"
        f"gradio[oauth,mcp]=={card['sdk_version']}\nuvicorn>=0.14.0\nwebsockets>=10.4\nspaces\n",
        encoding="utf-8",
    )
    resolution = subprocess.run(
        [sys.executable, "-m", "uv", "pip", "compile", wanted, "--no-annotate", "--no-header", "--no-python-downloads",
         "--python-version", card["python_version"], "--python-platform", "x86_64-manylinux_2_28", "--system-certs"],
        capture_output=True, text=True, timeout=300,
    )
    assert resolution.returncode == 0, resolution.stderr
    packages = set(resolution.stdout.splitlines())
    assert {f"torch=={pinned_torch()}", f"gradio=={card['sdk_version']}"} <= packages
