"""What other systems lack or do otherwise: nothing that only Unix has, texts in UTF-8, paths and names as Windows has
them. It runs on any system; the ways of the others are made by hand.
"""

import ast
import os
import string
from pathlib import Path, PureWindowsPath

import pytest
from tiny import random_sae

from multitool.errors import UserError
from multitool.store import hub, registry
from multitool.store.folders import folder_sae, is_path
from multitool.store.registry import LOCAL_SAES_VARIABLE, find_sae, operator_saes
from multitool.store.saes import load_sae
from multitool.store.scans import scan_path

ROOT = Path(__file__).parents[1]
SOURCES = [ROOT / "app.py", *sorted((ROOT / "multitool").rglob("*.py"))]
UNIX_MODULES = {"fcntl", "grp", "posix", "pty", "pwd", "readline", "resource", "syslog", "termios", "tty"}
UNIX_FUNCTIONS = {
    "chown", "fork", "forkpty", "geteuid", "getpgid", "getuid", "killpg", "mkfifo", "posix_spawn", "register_at_fork",
    "sched_getaffinity", "setsid", "statvfs", "sync", "uname", "wait", "SIGKILL", "SIGUSR1", "SIGALRM", "alarm",
}  # fmt: skip


def unix_only(source: str) -> set[str]:
    """What a source takes that only Unix has, without asking whether it is there."""
    tree = ast.parse(source)
    taken, asked = set(), set()
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                taken |= {alias.name for alias in names} & UNIX_MODULES
            case ast.ImportFrom(module=module):
                taken |= {module} & UNIX_MODULES
            case ast.Attribute(value=ast.Name(id="os" | "signal"), attr=name):
                taken |= {name} & UNIX_FUNCTIONS
            case ast.Call(func=ast.Name(id="hasattr"), args=[_, ast.Constant(value=name)]):
                asked.add(name)
    return taken - asked


def without_encoding(source: str) -> list[int]:
    """The lines that open a text without naming its encoding, which differs from system to system."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name = getattr(node.func, "attr", getattr(node.func, "id", ""))
        given = {keyword.arg for keyword in node.keywords}
        modes = [arg.value for arg in node.args if isinstance(arg, ast.Constant) and isinstance(arg.value, str)]
        binary = name == "open" and any("b" in mode and len(mode) <= 3 for mode in modes)
        of = getattr(getattr(node.func, "value", None), "id", "")
        binary |= of in ("os", "archive")  # a file's number; a member of an archive
        if name in ("open", "read_text", "write_text") and "encoding" not in given and not binary:
            found.append(node.lineno)
    return found


def test_the_rules_see_what_they_are_to_see():
    assert unix_only("import fcntl, os\nos.fork()") == {"fcntl", "fork"}
    assert unix_only("from pwd import getpwuid") == {"pwd"}
    assert unix_only("import os\nif hasattr(os, 'fork'):\n    os.fork()") == set()
    opened = "path.read_text()\nopen(path)\npath.open('rb')\npath.write_text(text, encoding='utf-8')\nos.open(path, 0)"
    assert without_encoding(opened) == [1, 2]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_is_taken_that_only_unix_has_and_texts_are_opened_in_utf_8(path):
    source = path.read_text(encoding="utf-8")
    assert unix_only(source) == set()
    # ``_open`` of growth and the like are no files.
    assert without_encoding(source) == []


# Paths


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("C:\\saes\\x", True), ("c:/saes/x", True), ("D:x", True), ("\\\\server\\share\\x", True), ("..\\saes", True),
        ("/saes/x", True), ("my saes\\x", True),
        ("demo/hook_embed", False), ("gemma-scope-2b-pt-res/layer_0/width_16k/average_l0_105", False), ("x", False),
        ("", False),
    ],
)  # fmt: skip
def test_what_can_only_be_a_place_on_a_machine(name, path):
    assert is_path(name) == path


def test_a_folder_that_is_not_there_is_told_as_it_was_written(monkeypatch):
    monkeypatch.setattr(registry, "registry_saes", dict)
    with pytest.raises(UserError) as caught:
        find_sae("C:\\saes\\my sae", allow_folder=True)
    assert "There is no folder 'C:\\saes\\my sae'." in str(caught.value)
    # From a web page a path is a name like any other: nobody looks whether it is there.
    with pytest.raises(UserError, match="There is no SAE"):
        find_sae("C:\\saes\\my sae")


@pytest.mark.parametrize(
    "place", ["my saes/x y", "x" * 120 + "/" + "y" * 120 + "/" + "z" * 120, "空 白", "C:\\saes\\x"],
    ids=["blanks", "long", "wide", "windows"],
)
def test_an_sae_in_any_folder_is_read(tmp_path, place, monkeypatch):
    folder = random_sae(tmp_path / place, d_model=4)
    assert load_sae(folder_sae(folder)).d_sae == 6
    assert find_sae(str(folder), allow_folder=True).folder == folder
    monkeypatch.setattr(os, "pathsep", ";")  # as on Windows, where a colon stands in paths
    monkeypatch.setenv(LOCAL_SAES_VARIABLE, f"{folder};{random_sae(tmp_path / 'other', d_model=4)}")
    assert [entry.name for entry in operator_saes()] == [f"local/{folder.name}", "local/other"]


def test_a_cache_on_a_drive_that_is_not_there_is_no_full_one(monkeypatch):
    monkeypatch.setattr(Path, "exists", lambda path: False)
    assert hub._free("Z:\\cache") > 10**15


# Names of files


def windows_takes(name: str) -> bool:
    stem = name.split(".")[0].rstrip().upper()
    reserved = {"CON", "PRN", "AUX", "NUL", *(f"{port}{n}" for port in ("COM", "LPT") for n in range(10))}
    plain = set(name) <= set(string.ascii_letters + string.digits + "-_.")
    return plain and stem not in reserved and not name.endswith((".", " ")) and len(name) <= 130


HOSTILE = ["CON", "aux", "C:\\saes\\x", 'a<b>:"/\\|?*c', "nul.", "x" * 400, "空", "", "..", "a\nb", None]


@pytest.mark.slow  # imports Gradio
@pytest.mark.parametrize("name", HOSTILE, ids=repr)
def test_files_to_take_home_have_names_that_windows_takes(name, tmp_path, monkeypatch):
    from multitool.page.common import file_data, save

    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    path = Path(save("x", {"sae": name, "feature": name}, "tree.png"))
    assert windows_takes(path.name), path.name
    assert path.is_relative_to(tmp_path)
    assert file_data(str(path), "image/png")["orig_name"] == path.name


@pytest.mark.parametrize("name", [name for name in HOSTILE if name is not None], ids=repr)
def test_so_have_scans_and_they_leave_room_in_windows_260_characters(name, tmp_path):
    path = scan_path(name, tmp_path, name, bos_id=None, dtype="float32")
    assert windows_takes(path.name), path.name
    home = PureWindowsPath("C:\\Users") / ("n" * 20) / ".cache" / "sae-multitool" / "scans"
    assert len(str(home / path.name / "residuals.float16")) < 260
