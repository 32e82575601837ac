"""The notebook, as Jupyter runs it, and the way to it."""

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from urllib.parse import unquote

import nbformat
import pytest
from nbclient import NotebookClient
from packaging.requirements import Requirement

from multitool.page.about import about_html

ROOT = Path(__file__).parents[1]
NOTEBOOK = ROOT / "notebooks" / "sae_feature_multitool.ipynb"
WITH_OUTPUTS = ROOT / "docs" / "notebook.ipynb"


@pytest.fixture(scope="module")
def stored():
    return nbformat.read(NOTEBOOK, as_version=4)


runs = pytest.mark.slow  # what runs the notebook


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """The notebook after a run, and the folder where it ran."""
    folder = tmp_path_factory.mktemp("notebook")
    return executed(NOTEBOOK, folder), folder


def executed(file: Path, folder: Path):
    """A notebook after a run in a folder."""
    notebook = nbformat.read(file, as_version=4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IPYTHONDIR", str(folder / "ipython"))  # no history and no profile of whoever runs this
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.setenv("PYTHONPATH", str(ROOT))  # the package as if it were installed
        NotebookClient(notebook, timeout=240, resources={"metadata": {"path": str(folder)}}).execute()
    return notebook


def test_it_is_stored_as_it_was_written(stored):
    nbformat.validate(stored)
    assert stored.metadata.kernelspec.name == "python3"
    code = [cell for cell in stored.cells if cell.cell_type == "code"]
    assert code and not any(cell.outputs or cell.execution_count for cell in code)


@runs
def test_it_runs(done):
    notebook, _ = done
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert not [output for output in outputs if output.output_type == "error"]
    text = "\n".join(json.dumps(output, ensure_ascii=False) for output in outputs)
    for said in ("demo/blocks.6.hook_resid_post", "water falling from the sky", "This tree agrees with what fires",
                 "␣rain", "logit_lens", 'A synonym of \\"{ghost}\\" is', "Rome", "military"):
        assert said in text, said
    assert text.count("<table>") == 5
    assert "Traceback" not in text


@runs
def test_its_pictures_are_in_it(done):
    notebook, _ = done
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    shown = [output for output in outputs if "image/png" in output.get("data", {})]
    assert len(shown) == 3
    for output in shown:
        assert output.data["image/png"].startswith("iVBORw0KGgo") and len(output.data["image/png"]) > 20_000
        assert 600 <= output.metadata["image/png"]["width"] <= 1010


@runs
def test_what_it_saves_can_be_read(done):
    _, folder = done
    assert json.loads((folder / "rain.json").read_text(encoding="utf-8"))["evidence"]["verdict"] == "agrees"
    assert (folder / "rain.pdf").read_bytes().startswith(b"%PDF")


# The one that is saved with its outputs


def outputs_told(notebook) -> list[str]:
    """What the cells show, as text without its numbers, which differ a little from machine to machine."""
    told = []
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if output.output_type == "stream" and output.name == "stderr":
                continue
            text = output.text if output.output_type == "stream" else output.data.get("text/plain", "")
            told.append(re.sub(r"[-\d.,]+|vector [0-9a-f]{8}|[ \n]+", " ", text))
    return told


def test_the_outputs_are_of_one_run_from_above_to_below():
    notebook = nbformat.read(WITH_OUTPUTS, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"]
    text = json.dumps(outputs, ensure_ascii=False)
    for said in ("This tree agrees with what fires", "given models: mine/SmolLM2-135M", "war − peace (vector ",
                 "Nothing tells when a vector of your own fires", "image/png"):
        assert said in text, said
    assert not re.search("/(tmp|home|root|work)/", text), "no folder of whoever ran it"
    assert f"({WITH_OUTPUTS.relative_to(ROOT)})" in (ROOT / "README.md").read_text(encoding="utf-8")


@runs
def test_it_shows_what_it_would_show_today(tmp_path):
    stored = nbformat.read(WITH_OUTPUTS, as_version=4)
    assert outputs_told(executed(WITH_OUTPUTS, tmp_path)) == outputs_told(stored)


# The way to the other one


def test_a_space_opens_it_in_colab():
    target, = re.findall(r'#fileId=([^"]+)"', about_html("https://huggingface.co/spaces/me/tool"))
    assert unquote(target) == f"https://huggingface.co/spaces/me/tool/blob/main/{NOTEBOOK.relative_to(ROOT)}"


# In Colab


@pytest.fixture
def colab(stored, tmp_path, monkeypatch):
    """The first cell as Colab runs it where the tool is not installed, and the commands that it gives.

    ``colab(0, 0)`` runs it with these answers of pip.
    """
    cell = next(cell.source for cell in stored.cells if cell.cell_type == "code")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "google.colab", ModuleType("google.colab"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    commands = []

    def run(*answers: int) -> list[list[str]]:
        left = list(answers)

        def pip(command, check=False):
            commands.append(command)
            return subprocess.CompletedProcess(command, left.pop(0))

        monkeypatch.setattr(subprocess, "run", pip)
        monkeypatch.setattr("builtins.input", lambda question: "me/tool")
        exec(compile(cell, "cell", "exec"), {})
        return commands

    return run


def test_in_colab_what_is_loaded_is_kept_as_it_is(colab, tmp_path):
    import numpy
    import PIL

    command, = colab(0)
    assert command[:4] == [sys.executable, "-m", "pip", "install"]
    assert command[-3:] == ["git+https://huggingface.co/spaces/me/tool", "--constraint", "loaded.txt"]
    kept = (tmp_path / "loaded.txt").read_text(encoding="utf-8").splitlines()
    assert {f"numpy=={numpy.__version__}", f"pillow=={PIL.__version__}"} <= {line.lower() for line in kept}
    names = [line.partition("==")[0].lower() for line in kept]
    assert "pytest" in names and "uv" not in names, "only what is loaded"
    assert all(Requirement(line).specifier for line in kept)


def test_in_colab_where_that_cannot_be_the_reader_is_told_to_restart(colab):
    with pytest.raises(SystemExit, match="Restart session, then run again"):
        colab(1, 0)


def test_in_colab_after_the_restart_nothing_is_installed(colab, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name == "multitool")
    assert colab() == []
