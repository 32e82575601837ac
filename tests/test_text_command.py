"""The command that reads a text: what fires in it, printed and written."""

import io
import json
import sys

import csv_files
import pytest
from tiny import random_sae, tiny_model, write_model

from multitool.cli import main
from multitool.cli.text import columns, marked_lines, whole_characters

RAIN = [("We", 0.0), (" had", 0.0), (" rain", 2.0), (".", 0.5), ("\n", 0.0), ("Umb", 0.0), ("rell", 0.25), ("as", 0.0)]


def test_marks_stand_under_the_tokens_that_fire_the_higher_the_stronger():
    assert list(marked_lines(RAIN, 40)) == [("We had rain.⏎", "       ████▂"), ("Umbrellas", "   ▁▁▁▁")]


def test_lines_break_between_words_and_a_word_that_is_too_long_where_it_must():
    assert list(marked_lines(RAIN, 8)) == [
        ("We had", ""), ("rain.⏎", "████▂"), ("Umbrella", "   ▁▁▁▁"), ("s", "")
    ]


def test_a_text_that_nothing_fires_on_has_no_marks_and_no_text_no_lines():
    assert list(marked_lines([("rain", 0.0)], 40)) == [("rain", "")]
    assert list(marked_lines([], 40)) == []


def test_a_blank_that_fires_is_marked_and_what_is_hidden_is_shown():
    assert list(marked_lines([("a", 0.0), (" ", 1.0), ("\x1b[1m", 0.5), ("b", 1.0)], 40)) == [
        ("a \\x1b[1mb", " █▄▄▄▄▄▄▄█")
    ]


def test_parts_of_a_character_are_shown_as_that_character_with_the_strongest_part():
    rain = [("\\xe9\\x9b", 0.5), ("\\xa8", 1.0), ("\\xe3", 0.0), ("\\x81\\x8c", 0.0), (" it", 0.0)]
    assert list(whole_characters(rain)) == [("雨", 1.0), ("が", 0.0), (" it", 0.0)]
    assert list(marked_lines(rain, 40)) == [("雨が it", "██")]
    # What never becomes a character stays as it is.
    assert list(whole_characters([("\\xe9", 1.0), ("x", 0.0)])) == [("\\xe9", 1.0), ("x", 0.0)]


def test_columns_are_those_of_a_terminal():
    assert [columns(text) for text in ("rain", "雨", "e\u0301", "")] == [4, 2, 1, 0]


@pytest.fixture(scope="module")
def folders(tmp_path_factory, tokenizer):
    place = tmp_path_factory.mktemp("folders")
    model = write_model(place / "model", tiny_model("llama"), tokenizer)
    return ["--sae", str(random_sae(place / "sae", d_model=32, model=str(model))), "--device", "cpu", "--feature", "2"]


TEXT = "the dog ran\nthe cat sat"


@pytest.mark.slow
def test_a_text_is_printed_with_the_strongest_tokens_first(folders, capsys):
    assert main(["text", *folders, TEXT]) == 0
    out = capsys.readouterr().out.splitlines()
    assert "feature 2, on " in out[0] and out[1].startswith("It fires on ")
    strongest = [float(line.split()[0]) for line in out[3: out.index("", 3)]]
    assert strongest == sorted(strongest, reverse=True) and min(strongest) > 0
    assert any(line.endswith("⏎") for line in out)


@pytest.mark.slow
def test_the_same_text_from_a_file_and_from_standard_input_gives_the_same(folders, tmp_path, capsys, monkeypatch):
    found = []
    (tmp_path / "text.txt").write_bytes(TEXT.replace("\n", "\r\n").encode() + b"\r\n")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(TEXT.encode() + b"\n")))
    for given in ([TEXT], ["--file", str(tmp_path / "text.txt")], ["-"]):
        assert main(["text", *folders, *given, "--json", str(tmp_path / "found.json"), "--csv",
                     str(tmp_path / "found.csv")]) == 0
        found.append(json.loads((tmp_path / "found.json").read_text("utf-8")))
    assert found[0] == found[1] == found[2]
    told = found[0]
    assert told["schema"] == "sae-multitool/activity/1" and told["text"] == TEXT
    assert told["settings"]["feature"] == 2 and told["settings"]["model"].endswith("model")
    rows = csv_files.rows_of((tmp_path / "found.csv").read_text("utf-8"))
    assert [(row["token"], float(row["activation"])) for row in rows] == [
        (token["token"], token["activation"]) for token in told["tokens"]
    ]
    assert [row["place"] for row in rows[:2]] == ["1", "2"]


@pytest.mark.slow
@pytest.mark.parametrize(("content", "said"), [
    (b"\xff\xfe", "is no text in UTF-8: invalid start byte at byte 0"), (b"x" * 1_000_001, "more than 1,000,000 bytes"),
    (b"\n", "The text is empty"),
])
def test_a_file_that_holds_no_text_to_read_is_one_line(folders, tmp_path, capsys, content, said):
    (tmp_path / "text").write_bytes(content)
    assert main(["text", *folders, "--file", str(tmp_path / "text")]) == 2
    err = capsys.readouterr().err
    assert said in err and err.count("\n") == 1
