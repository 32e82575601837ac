"""Cut off midway, and streams that are not what one expects: a sentence, an exit status, nothing half done."""

import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from multitool import cli
from multitool.cli import listings
from multitool.cli.writing import write
from multitool.errors import UserError
from multitool.process import check_app, interruptible
from multitool.store.problems import asking_hub

ROOT = Path(__file__).parents[1]
COMMAND = [sys.executable, "-m", "multitool"]
APP = [sys.executable, "app.py"]


def run(command: list[str], **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, encoding="utf-8", check=False,
        timeout=60,
    )


@pytest.fixture
def instead(tmp_path):
    """A module of that name that does something else, before the real one on the path: the variable that does so."""

    def of(name: str, code: str) -> dict[str, str]:
        (tmp_path / f"{name}.py").write_text(code)
        return {"PYTHONPATH": str(tmp_path)}

    return of


INTERRUPT = "import signal; signal.raise_signal(signal.SIGINT)"


@pytest.mark.parametrize(("command", "library"), [(COMMAND, "pydantic"), (APP, "spaces")], ids=["cli", "app"])
def test_ctrl_c_while_libraries_load_is_one_word(instead, command, library):
    done = run(command, **instead(library, INTERRUPT))
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "Interrupted.\n")


def test_ctrl_c_during_a_command_is_one_word(monkeypatch, capsys):
    before = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(listings, "saes", lambda search: signal.raise_signal(signal.SIGINT))
    assert cli.main(["saes"]) == 130
    assert capsys.readouterr() == ("", "Interrupted.\n")
    assert signal.getsignal(signal.SIGINT) is before


def test_what_a_library_makes_of_ctrl_c_is_ctrl_c_all_the_same():
    with pytest.raises(KeyboardInterrupt), interruptible():
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            raise ImportError("numpy failed to import") from None
    with pytest.raises(ImportError), interruptible():
        raise ImportError("of its own")


def test_ctrl_c_in_a_shells_background_stays_ignored():
    code = f"{INTERRUPT.replace('raise_signal', 'signal')[:-1]}, signal.SIG_IGN)\n" \
        "from multitool.process import interruptible, leave_on_interrupt\nleave_on_interrupt()\n" \
        "with interruptible(): signal.raise_signal(signal.SIGINT)\nprint('went on')"
    assert run([sys.executable, "-c", code]).stdout == "went on\n"


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_the_app_prints_what_the_terminal_has_no_character_for(instead, encoding):
    """Gradio does so when it starts."""
    said = instead("spaces", "import sys; print('\\N{HAMMER}'); print('\\N{HAMMER}', file=sys.stderr); sys.exit(7)")
    done = run(APP, **said, PYTHONIOENCODING=encoding)
    assert (done.returncode, done.stdout, done.stderr) == (7, "\\U0001f528\n", "\\U0001f528\n")


@pytest.mark.slow  # four commands
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has it")
def test_standard_streams_that_are_closed_full_or_left(tmp_path):
    tool = shlex.join(COMMAND)
    script = f"""
        {tool} saes --help >/dev/full 2>full; echo $?
        {tool} saes --help >&- 2>&- <&-; echo $?
        {tool} saes --colour 2>&-; echo $?
        {tool} saes --colour 2>/dev/full; echo $?
    """
    done = subprocess.run(
        ["sh", "-c", script], cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": ""},
        capture_output=True, text=True, check=False, timeout=60,
    )
    assert done.stdout.split() == ["1", "0", "2", "2"] and done.stderr == ""
    full = (tmp_path / "full").read_text()
    assert full == "multitool: The output cannot be written: No space left on device. Send it elsewhere.\n"


def test_a_folder_for_pictures_that_cannot_be_written_is_told_at_the_start(monkeypatch, tmp_path):
    file = tmp_path / "file"
    file.write_text("I am a file")
    for folder in (file, file / "below"):
        monkeypatch.setenv("GRADIO_TEMP_DIR", str(folder))
        with pytest.raises(UserError, match="GRADIO_TEMP_DIR") as error:
            check_app()
        assert str(file) in str(error.value)
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "new"))
    check_app()
    assert list((tmp_path / "new").iterdir()) == []


@pytest.mark.parametrize("port", ["x", "0", "-1", "65536", "9" * 5000])
def test_a_port_that_is_none_is_told(monkeypatch, port):
    monkeypatch.setenv("GRADIO_SERVER_PORT", port)
    with pytest.raises(UserError, match=f"GRADIO_SERVER_PORT is '{port[:20]}.*from 1 to 65535"):
        check_app()


def test_the_app_says_so_before_it_loads_anything(tmp_path):
    file = tmp_path / "file"
    file.write_text("I am a file")
    done = run(APP, GRADIO_TEMP_DIR=str(file))
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith("multitool: The folder for pictures and uploads cannot be written: ")
    assert done.stderr.count("\n") == 1 and str(file) in done.stderr


HOMELESS = "import pwd\ndef getpwuid(user): raise KeyError(user)\npwd.getpwuid = getpwuid"


@pytest.mark.skipif(sys.platform == "win32", reason="Unix knows users by number")
def test_a_user_without_a_home_is_told_what_to_set(instead):
    done = run(["env", "-u", "HOME", *APP], **instead("sitecustomize", HOMELESS))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("multitool: This user has no home folder") and "HOME.\n" in done.stderr
    assert done.stderr.count("\n") == 1


def test_the_hubs_files_of_a_user_without_a_home_are_not_the_networks_fault():
    with pytest.raises(UserError, match="this user has no home folder. Name a folder in HF_HOME"), asking_hub("a/b"):
        raise RuntimeError("Could not determine home directory.")


def test_a_result_is_written_under_as_long_a_name_as_the_disk_takes(tmp_path, capsys):
    path = tmp_path / ("字" * 80 + ".json")  # 245 bytes of 255
    write(path, b"{}")
    assert path.read_bytes() == b"{}" and [*tmp_path.iterdir()] == [path]
