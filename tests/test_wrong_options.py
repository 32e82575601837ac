"""Whatever is typed behind an option: a command answers with one line, and never with a traceback."""

import argparse
import json
import os
import stat
from functools import partial

import pytest
from tiny import random_sae, tiny_model, write_model

from multitool import cli
from multitool.cli import command_line
from multitool.cli.writing import as_json
from multitool.errors import UserError
from multitool.store.library import Library
from multitool.store.models import load_subject
from multitool.store.registry import find_sae

pytestmark = pytest.mark.slow  # some thousand commands

HALF = "\udc80"  # what Python makes of a byte that is no UTF-8
VALUES = [
    "", "-", "--", "-x", "--json", "\0", "a\0b.json", HALF, "{ghost}" + HALF, "{ghost}\0", "x" * 300, "x" * 50_000,
    "9" * 5000, "nan", "inf", "-inf", "1e400", "-1", "1.5", "null", "[]", "{ghost}", "a b", "\n", "０", "1_0", " 7 ",
    "%s", "@file", "=", "0:9" + "9" * 5000, "5:1", "²:³", "/", ".", "..", "~", "/dev/null/x", "{folder}",
    "{folder}/file/x", "{folder}/gone/x.png",
]  # fmt: skip
NEEDED = {
    "tree": ["--sae", "demo/hook_embed", "--feature", "1"], "tokens": ["--sae", "demo/hook_embed", "--feature", "1"],
    "find": ["--sae", "demo/hook_embed", "--tokens", "rain"],
    "suggest": ["--sae", "demo/hook_embed", "--feature", "1"],
    "atlas": ["--sae", "demo/hook_embed", "--features", "0:2", "--out", "{folder}/atlas"],
    "text": ["--sae", "demo/hook_embed", "--feature", "1", "It rained."],
    "steer": ["--sae", "demo/hook_embed", "--feature", "1"],
    "components": ["--sae", "demo/hook_embed"], "saes": [],
}  # fmt: skip
INSTEAD = {"--features", "--text", "--like", "--atlas", "--file"}  # of the last of what is needed
BESIDE = {"--workers": ["--ray"]}
BESIDE |= dict.fromkeys(("--as", "--drawn", "--width", "--dpi"), ["--image", "{folder}/x.png"])


class BegunError(Exception):
    """The work was begun."""


@pytest.fixture(scope="module")
def parser():
    return command_line.parser()


@pytest.fixture(scope="module")
def commands(parser) -> dict:
    return next(part for part in parser._actions if isinstance(part, argparse._SubParsersAction)).choices


@pytest.fixture
def status(parser, monkeypatch, capsys, tmp_path):
    """Run a command up to where it would load something: its exit status, None where it came so far."""

    def begin(*_, **__):
        raise BegunError

    monkeypatch.setattr(Library, "find", begin)
    monkeypatch.setattr(Library, "atlas", begin)
    monkeypatch.setattr("multitool.store.registry.registry_saes", dict)
    monkeypatch.setattr("multitool.cli.listings.write_json", begin)  # what they list is there already
    monkeypatch.setattr(command_line, "parser", lambda: parser)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("I am a file")

    def run(*arguments: str) -> int | None:
        given = [argument.replace("{folder}", str(tmp_path)) for argument in arguments]
        try:
            found = cli.main(given)
        except BegunError:
            found = None
        told = capsys.readouterr().err
        if found:
            assert found == 2 and told.startswith("multitool: "), told
            assert told.count("\n") == 1 and len(told) < 1500, told
            told.encode()
        return found

    return run


@pytest.mark.parametrize("command", NEEDED)
def test_a_wrong_value_of_an_option_is_one_line(status, commands, command, tmp_path):
    actions = [action for action in commands[command]._actions if action.option_strings and action.dest != "help"]
    for action in actions:
        option = action.option_strings[0]
        needed = NEEDED[command]
        if option in INSTEAD and command != "atlas":
            needed = needed[:4 if command == "text" else 2]
        run = partial(status, command, *needed, *BESIDE.get(option, []))
        for value in VALUES:
            # A value that argparse takes for an option is given behind "=".
            found = run(f"{option}={value}") if value.startswith("-") else run(option, value)
            if action.type in (int, float) and not _is(action.type, value):
                assert found == 2, (option, value)
        assert run(f"{option}=--") == 2, option
        assert action.nargs == "?" or run(option, "--") == 2, option
    assert {path.name for path in tmp_path.iterdir()} == {"file"}, "what was tried has left nothing"


def _is(kind: type, value: str) -> bool:
    try:
        kind(value)
    except ValueError:
        return False
    return True


def test_every_command_is_tried(commands):
    assert commands.keys() == NEEDED.keys()


@pytest.mark.parametrize(
    "path", ["\0", "a\0b.json", "x\ud800", "{folder}", "{folder}/file/x", "{folder}/gone/x.json", "x" * 300, ""]
)
@pytest.mark.parametrize(("command", "option"), [("tree", "--json"), ("tokens", "--csv"), ("components", "--json")])
def test_a_file_that_cannot_be_written_is_one_line_before_the_work(status, command, option, path):
    assert status(command, *NEEDED[command], option, path) == 2


@pytest.mark.parametrize(
    ("command", "options"),
    [("tree", ["--json", "same.png", "--image", "same.png"]), ("tree", ["--json", "same.png", "--image", "./same.png"]),
     ("tokens", ["--csv", "{folder}/same", "--json", "same"]), ("tokens", ["--csv", "link", "--json", "file"])],
)
def test_two_results_do_not_go_into_one_file(status, capsys, tmp_path, command, options):
    (tmp_path / "link").symlink_to(tmp_path / "file")
    assert status(command, *NEEDED[command], *options) == 2
    assert (tmp_path / "file").read_text() == "I am a file"
    assert not (tmp_path / "same").exists() and not (tmp_path / "same.png").exists()


def test_what_is_no_file_may_be_named_twice(status):
    assert status("tokens", *NEEDED["tokens"], "--csv", os.devnull, "--json", os.devnull) is None


@pytest.mark.parametrize("name", [value for value in VALUES if not value.startswith("{folder}")])
def test_no_name_of_a_model_or_an_sae_is_more_than_a_sentence(name, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("multitool.store.registry.registry_saes", dict)
    for find in (load_subject, partial(find_sae, allow_folder=True)):
        with pytest.raises(UserError) as error:
            find(name)
        assert len(str(error.value)) < 1500


@pytest.fixture(scope="module")
def tiny(tmp_path_factory, tokenizer):
    place = tmp_path_factory.mktemp("tiny")
    model = write_model(place / "model", tiny_model("llama"), tokenizer)
    sae = random_sae(place / "sae", d_model=32, model=str(model))
    return ["--sae", str(sae), "--feature", "1", "--device", "cpu", "--top", "3"]


def test_a_file_is_written_whole_or_not_at_all(tiny, tmp_path, monkeypatch, capsys):
    file = tmp_path / "list.json"
    file.write_text("I was here")
    file.chmod(0o600)

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("pathlib.Path.write_bytes", full)
        assert cli.main(["tokens", *tiny, "--json", str(file)]) == 2
    assert "No space left on device. Make room there." in capsys.readouterr().err
    assert file.read_text() == "I was here"
    assert cli.main(["tokens", *tiny, "--json", str(file)]) == 0
    assert len(json.loads(file.read_text())["tokens"]) == 3
    assert [path.name for path in tmp_path.iterdir()] == ["list.json"]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="only Linux has it")  # noqa: PTH110
def test_a_device_is_written_as_it_is(tiny, capsys):
    assert cli.main(["tokens", *tiny, "--json", "/dev/full"]) == 2
    assert "/dev/full cannot be written: No space left on device" in capsys.readouterr().err
    assert cli.main(["tokens", *tiny, "--json", os.devnull]) == 0


def test_a_number_that_is_none_is_no_json(tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("multitool.jobs.token_table.TokenTable.to_dict", lambda table: {"scores": [float("nan")]})
    assert cli.main(["tokens", *tiny, "--json", str(tmp_path / "list.json")]) == 2
    assert "NaN or infinite" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_half_a_surrogate_pair_is_an_escape_in_a_file_and_on_the_terminal():
    assert as_json({"model": HALF, "é": "–"}).decode() == '{"model": "\\udc80", "é": "–"}'
    assert json.loads(as_json([HALF])) == [HALF]
