"""The files of an atlas: written whole or not at all, gone on with, another's left alone, read by others."""

import errno
import json
import multiprocessing
import os
import signal
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from multitool.errors import UserError
from multitool.store import atlas_files
from multitool.store.atlas_files import AtlasPlan, Counted, counted, part_name, writing
from multitool.store.atlas_schema import COLUMNS, METADATA

FACTS = {
    "schema": "sae-multitool/atlas/1", "sae": "a/b", "settings": [{"weights": "encoder"}, {"weights": "decoder"}],
    "tree": {"cutoff": 2e-3}, "versions": {"multitool": "1.0"},
}
PLAN = AtlasPlan(FACTS, tuple(range(10)), per_part=4)


def rows(part, settings=2) -> list[dict]:
    """Of an odd feature a row with a value in every kind of column, of an even one why there is none."""
    made = []
    for feature in part:
        for setting in range(settings):
            row = {"sae": "a/b", "feature": feature, "setting": setting, "weights": "encoder"}
            if feature % 2:
                text = f"définition {feature}"
                row |= {
                    "nodes": 2, "effective_cutoff": 2e-3, "verdict": "agrees" if feature == 1 else "no",
                    "definitions": [{"text": text, "probability": 0.25, "lift_centroid": 1.5}],
                    "tokens": [{"token": " a", "token_id": feature, "score": 0.5}], "strongest_tokens": [],
                    "tree": {"parent": [-1, 0], "token_id": [5, 6], "token": [" a", '"'], "prob": [0.5, 0.5],
                             "cumulative_prob": [0.5, 0.25], "end": [False, True], "beyond": [0.0, 0.0, 0.1]},
                }  # fmt: skip
            else:
                row["problem"] = "It is dead."
            made.append(row)
    return made


def write(folder: Path, plan: AtlasPlan = PLAN, most: int | None = None) -> list[tuple[int, ...]]:
    """Write what is missing: which parts."""
    with writing(folder, plan) as files:
        missing = files.missing[:most]
        for part in missing:
            files.write(part, rows(part, len(plan.facts["settings"])))
    return missing


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refusal(folder: Path, plan: AtlasPlan = PLAN) -> str:
    with pytest.raises(UserError) as caught:
        write(folder, plan)
    message = str(caught.value)
    assert len(message) < 700 and "\n" not in message
    return message


NAMES = ["features-000000-000003.parquet", "features-000004-000007.parquet", "features-000008-000009.parquet"]


def test_a_plan_cuts_its_features_into_parts():
    assert PLAN.parts == [(0, 1, 2, 3), (4, 5, 6, 7), (8, 9)]
    assert [part_name(part) for part in PLAN.parts] == NAMES
    few = AtlasPlan(FACTS, (2, 3, 9, 1_234_567), per_part=3)
    assert [part_name(part) for part in few.parts] == [
        "features-000002-000009.parquet", "features-1234567-1234567.parquet"
    ]
    assert few.to_dict() == FACTS | {"features": [[2, 4], [9, 10], [1_234_567, 1_234_568]], "per_part": 3}


def test_what_is_written_is_read_with_its_facts(tmp_path):
    assert write(tmp_path / "new" / "folder") == PLAN.parts
    folder = tmp_path / "new" / "folder"
    assert sorted(content(folder)) == sorted([".lock", "atlas.json", *(f"data/{name}" for name in NAMES)])
    assert json.loads((folder / "atlas.json").read_text()) == PLAN.to_dict()
    for part in PLAN.parts:
        table = pq.read_table(folder / "data" / part_name(part))
        assert table.schema.equals(COLUMNS)
        assert json.loads(table.schema.metadata[METADATA]) == FACTS
        assert table["feature"].to_pylist() == [feature for feature in part for _ in range(2)]
    row = pq.read_table(folder / "data").slice(2, 1).to_pylist()[0]
    expected = rows([1])[0]
    assert {name: row[name] for name in expected if name != "definitions"} == {
        name: value for name, value in expected.items() if name != "definitions"
    }
    assert row["definitions"][0]["text"] == "définition 1" and row["definitions"][0]["activation"] is None
    assert row["problem"] is None
    assert pq.ParquetFile(folder / "data" / NAMES[0]).metadata.row_group(0).column(0).compression == "ZSTD"
    assert counted(folder) == Counted(rows=20, problems=10, verdicts={"agrees": 2, "no": 8})


def test_a_table_goes_on_where_it_was_and_the_same_rows_are_the_same_bytes(tmp_path):
    write(tmp_path / "at-once")
    assert write(tmp_path / "twice", most=1) == [PLAN.parts[0]]
    assert write(tmp_path / "twice") == PLAN.parts[1:]
    assert write(tmp_path / "twice") == []
    assert content(tmp_path / "twice") == content(tmp_path / "at-once")


def test_what_a_killed_writer_left_is_deleted_and_nothing_else(tmp_path):
    write(tmp_path, most=1)
    left = [tmp_path / "data" / f"{NAMES[1]}.unfinished", tmp_path / "atlas.json.unfinished"]
    others = [tmp_path / "data" / "my notes", tmp_path / "other.unfinished"]
    for path in left + others:
        path.write_text("half")
    write(tmp_path)
    assert not any(path.exists() for path in left) and all(path.exists() for path in others)


DAMAGES = {
    "cut": lambda path: os.truncate(path, path.stat().st_size - 20),
    "empty": lambda path: os.truncate(path, 0),
    "zeros at its end": lambda path: path.write_bytes(path.read_bytes()[:-50] + bytes(50)),
    "no Parquet": lambda path: path.write_text("hello"),
    "gone": Path.unlink,
    "of fewer rows": lambda path: pq.write_table(pq.read_table(path).slice(0, 3), path),
    "of other columns": lambda path: pq.write_table(pq.read_table(path).drop_columns("tree"), path),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_part_is_made_anew(tmp_path, damage):
    write(tmp_path)
    before = content(tmp_path)
    damage(tmp_path / "data" / NAMES[1])
    assert write(tmp_path) == [PLAN.parts[1]]
    assert content(tmp_path) == before


def test_a_part_that_is_damaged_within_is_named_when_it_is_read(tmp_path):
    write(tmp_path)
    path = tmp_path / "data" / NAMES[2]
    whole = path.read_bytes()
    path.write_bytes(whole[:4] + bytes(len(whole) // 2) + whole[4 + len(whole) // 2 :])
    with pytest.raises(UserError, match="Delete it and ask for the same atlas again") as caught:
        counted(tmp_path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"facts": FACTS | {"sae": "a/c"}}, "sae is 'a/b' (asked: 'a/c')"),
        ({"facts": FACTS | {"tree": {"cutoff": 0.1}}}, "tree.cutoff is 0.002 (asked: 0.1)"),
        ({"facts": FACTS | {"settings": FACTS["settings"][:1]}}, "the number of settings is 2 (asked: 1)"),
        ({"facts": FACTS | {"settings": [{"weights": "mix"}, FACTS["settings"][1]]}},
         "settings.0.weights is 'encoder' (asked: 'mix')"),
        ({"facts": FACTS | {"versions": {"multitool": "2.0"}}}, "versions.multitool is '1.0' (asked: '2.0')"),
        ({"facts": FACTS | {"new": 1}}, "new is None (asked: 1)"),
        ({"features": tuple(range(12))}, "of which the features are 0 to 9 (asked: 0 to 11)"),
        ({"features": (0, 1, 2, 5, 7, 9, 11)}, "are 0 to 9 (asked: 0 to 2, 5, 7, 9 and 1 more)"),
        ({"per_part": 5}, "per_part is 4 (asked: 5)"),
    ],
)  # fmt: skip
def test_another_atlas_in_the_folder_stays_and_what_differs_is_named(tmp_path, changed, told):
    write(tmp_path, most=1)
    before = content(tmp_path)
    message = refusal(tmp_path, replace(PLAN, **changed))
    assert told in message and str(tmp_path) in message
    assert content(tmp_path) == before


def test_a_plan_that_came_to_nothing_makes_room(tmp_path):
    write(tmp_path, replace(PLAN, per_part=5), most=0)
    assert write(tmp_path) == PLAN.parts
    assert json.loads((tmp_path / "atlas.json").read_text()) == PLAN.to_dict()


def test_files_of_something_else_stay(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train.parquet").write_bytes(b"mine")
    assert "train.parquet" in refusal(tmp_path)
    assert not (tmp_path / "atlas.json").exists()


def test_a_part_of_another_atlas_stays(tmp_path):
    other = replace(PLAN, facts=FACTS | {"sae": "a/c"})
    write(tmp_path / "other", other)
    write(tmp_path / "mine", most=1)
    there = (tmp_path / "other" / "data" / NAMES[1]).rename(tmp_path / "mine" / "data" / NAMES[1])
    before = there.read_bytes()
    assert str(there) in refusal(tmp_path / "mine")
    assert there.read_bytes() == before


@pytest.mark.parametrize("written", [b"", b"{", b"\xff", b"[]", b"[" * 100_000])
def test_a_plan_that_cannot_be_read_is_told_and_without_it_the_parts_are_gone_on_with(tmp_path, written):
    write(tmp_path, most=2)
    (tmp_path / "atlas.json").write_bytes(written)
    assert str(tmp_path / "atlas.json") in refusal(tmp_path)
    (tmp_path / "atlas.json").unlink()
    assert write(tmp_path) == PLAN.parts[2:]


def test_a_plan_that_is_too_long_is_not_read(tmp_path, monkeypatch):
    write(tmp_path)
    monkeypatch.setattr(atlas_files, "_LONGEST_PLAN", 100)
    assert "longer than 100 bytes" in refusal(tmp_path)


def test_rows_that_are_none_of_the_part_are_a_mistake_of_ours(tmp_path):
    with writing(tmp_path, PLAN) as files:
        for wrong in (rows(PLAN.parts[1])[1:], [row | {"colour": 1} for row in rows(PLAN.parts[1])]):
            with pytest.raises(ValueError, match="rows for 8, unknown columns"):
                files.write(PLAN.parts[1], wrong)


# Two at once, and killed


def hold(folder: Path, ready, done) -> None:
    with writing(folder, PLAN):
        ready.set()
        done.wait(30)


def test_a_second_process_is_told_and_a_killed_one_holds_nothing(tmp_path):
    context = multiprocessing.get_context("spawn")
    ready, done = context.Event(), context.Event()
    first = context.Process(target=hold, args=(tmp_path, ready, done))
    first.start()
    assert ready.wait(60)
    assert f"Another process is writing an atlas to {tmp_path}" in refusal(tmp_path)
    os.kill(first.pid, signal.SIGKILL)
    first.join()
    assert write(tmp_path) == PLAN.parts
    with writing(tmp_path, PLAN):
        assert "Another process" in refusal(tmp_path)  # or another thread


# Disks


def full(*_, **__):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_is_told_and_what_is_whole_stays(tmp_path, monkeypatch):
    write(tmp_path, most=1)
    before = content(tmp_path)
    for broken in ("os.fsync", "pathlib.Path.replace"):
        with monkeypatch.context() as patch:
            patch.setattr(broken, full)
            message = refusal(tmp_path)
        assert message.startswith(f"The disk is full: the atlas in {tmp_path}")
        assert content(tmp_path) == before
    assert write(tmp_path) == PLAN.parts[1:]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has it")
def test_a_real_full_disk_is_told(tmp_path, monkeypatch):
    opened = Path.open
    monkeypatch.setattr(Path, "open", lambda path, mode="r", *more: opened(
        Path("/dev/full") if path.name.endswith(".unfinished") else path, mode, *more
    ))
    assert refusal(tmp_path).startswith("The disk is full")
    monkeypatch.undo()
    assert write(tmp_path) == PLAN.parts


def test_a_folder_that_cannot_be_written_is_told(tmp_path, monkeypatch):
    def forbidden(*_, **__):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    for broken in ("pathlib.Path.mkdir", "pathlib.Path.open"):
        with monkeypatch.context() as patch:
            patch.setattr(broken, forbidden)
            assert "Permission denied. Name a folder that you may write to" in refusal(tmp_path / "x")
    with monkeypatch.context() as patch:
        patch.setattr("filelock.FileLock.acquire", lambda lock: (_ for _ in ()).throw(NotImplementedError))
        assert "files cannot be locked" in refusal(tmp_path / "x")


@pytest.mark.parametrize("name", ["file", "file/below", "x\0y", "x" * 50_000, "/proc/x"])
def test_what_can_be_no_folder_is_told(tmp_path, name):
    (tmp_path / "file").write_text("I am a file")
    assert "ame a" in refusal(tmp_path / name)
    assert (tmp_path / "file").read_text() == "I am a file"


def test_an_error_of_what_makes_the_rows_is_not_taken_for_the_disk_s(tmp_path):
    with pytest.raises(PermissionError), writing(tmp_path, PLAN):
        raise PermissionError("of the model's files")
    assert write(tmp_path) == PLAN.parts


# Other readers


def test_pandas_duckdb_polars_and_datasets_read_it(tmp_path, monkeypatch):
    import datasets
    import duckdb
    import pandas
    import polars

    write(tmp_path)
    features = [feature for feature in range(10) for _ in range(2)]
    files = str(tmp_path / "data" / "*.parquet")

    table = pandas.read_parquet(tmp_path / "data")
    assert table["feature"].tolist() == features
    assert table["definitions"][2][0]["text"] == "définition 1" and table["tree"][2]["beyond"].tolist() == [0, 0, 0.1]

    found = duckdb.sql(f"SELECT feature, definitions[1].text FROM '{files}' WHERE verdict = 'agrees' ORDER BY setting")
    assert found.fetchall() == [(1, "définition 1")] * 2

    frame = polars.read_parquet(files)
    assert frame["feature"].to_list() == features
    assert frame.row(2, named=True)["tree"]["token"] == [" a", '"']

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    data = datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=str(tmp_path / "cache"))
    assert data["feature"][:] == features
    assert data[2]["tree"]["cumulative_prob"] == [0.5, 0.25] and data[0]["problem"] == "It is dead."
