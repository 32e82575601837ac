"""The project as pip sees it: what an installation holds, and what it asks for."""

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from setuptools import Distribution

from multitool import __version__

ROOT = Path(__file__).parents[1]


@pytest.fixture
def distribution(monkeypatch):
    """What setuptools reads in pyproject.toml."""
    monkeypatch.chdir(ROOT)
    found = Distribution({"script_name": "setup.py"})
    found.parse_config_files(["pyproject.toml"])
    return found


# In a process of its own: Python has a distutils too, which whatever imports it first takes for setuptools' one.
BUILD = """
import json
from setuptools import Distribution
distribution = Distribution({"script_name": "setup.py"})
distribution.parse_config_files(["pyproject.toml"])
build = distribution.get_command_obj("build_py")
build.ensure_finalized()
modules = [path for _, _, path in build.find_all_modules()]
data = [[folder, name] for _, folder, _, names in build.data_files for name in names]
print(json.dumps([modules, data]))
"""


@pytest.mark.slow
def test_an_installation_holds_every_file_of_the_package():
    told = subprocess.check_output([sys.executable, "-W", "ignore", "-c", BUILD], cwd=ROOT, text=True)
    paths, names = json.loads(told)
    modules, data = {Path(path) for path in paths}, {Path(folder, name) for folder, name in names}
    listed = subprocess.check_output(["git", "ls-files", "-z", "multitool"], cwd=ROOT, text=True).split("\0")
    there = {Path(name) for name in listed if name and (ROOT / name).is_file()}
    assert {path for path in there if path.suffix == ".py"} <= modules
    assert {path for path in there if path.suffix != ".py"} <= data
    assert {path.parts[0] for path in modules | data} == {"multitool"}


def test_an_installation_asks_for_what_a_space_installs(distribution):
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    wanted = {line.partition("#")[0].strip() for line in lines} - {""}
    assert set(map(Requirement, distribution.install_requires)) == set(map(Requirement, wanted))


def test_an_installation_gives_the_command(distribution):
    assert distribution.entry_points == {"console_scripts": ["sae-multitool = multitool.__main__:main"]}


def test_the_changelog_tells_of_this_version(distribution):
    assert distribution.get_version() == __version__
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    released = [line.split()[1].strip("[]") for line in changelog.splitlines() if line.startswith("## ")]
    assert released[0] in ("Unreleased", __version__)
    assert __version__ in released


def test_python_is_the_one_that_the_linter_and_the_type_checker_have_in_mind():
    with (ROOT / "pyproject.toml").open("rb") as file:
        project = tomllib.load(file)
    least = project["project"]["requires-python"].removeprefix(">=")
    assert project["tool"]["ruff"]["target-version"] == "py" + least.replace(".", "")
    assert project["tool"]["mypy"]["python_version"] == least
