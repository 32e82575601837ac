"""The command ``atlas`` and its Python function: killed and gone on with, told how far it is, refused in a sentence."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas
import pyarrow.parquet as pq
import pytest
from tiny import random_sae, tiny_model, write_model

import multitool as mt
from multitool import cli
from multitool.jobs.atlas_parts import AtlasProgress
from multitool.store.atlas_files import AtlasFiles
from multitool.store.atlas_schema import METADATA
from multitool.store.library import Library

pytestmark = pytest.mark.slow  # describes features of the demo

ROOT = Path(__file__).parents[1]
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}
FEATURES = (*range(5, 15), 926, 927)
PARTS = 6  # of 2 features


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def parts(folder: Path) -> int:
    return len(list((folder / "data").glob("*.parquet")))


# Killed, on the demo


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = tmp_path_factory.mktemp("atlas")
    lines = ["# those of the test", "", *(f" {feature}  # one" for feature in FEATURES[::-1]), "927"]
    (place / "features.txt").write_text("\n".join(lines))
    return place


def options(place: Path, out: str) -> list[str]:
    settings = ["--weights", "encoder", "--weights", "decoder", "--cutoff", "2e-2", "--per-part", "2"]
    files = ["--features", str(place / "features.txt"), "--out", str(place / out)]
    return ["atlas", "--sae", "demo/hook_embed", *files, *settings, "--device", "cpu"]


def started(place: Path, out: str) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-m", "multitool", *options(place, out)], cwd=ROOT, env=ENVIRONMENT,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)  # fmt: skip


def ended(process: subprocess.Popen) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err


def wait_for_a_part(process: subprocess.Popen, folder: Path) -> None:
    """Until it has written another part."""
    before = parts(folder)
    while process.poll() is None and parts(folder) == before:
        time.sleep(0.01)


@pytest.fixture(scope="module")
def whole(place) -> Path:
    """An atlas that was made at once."""
    status, out, err = ended(started(place, "whole"))
    assert (status, out) == (0, f"24 rows in {place / 'whole'}.\n"), err
    assert err.splitlines()[-1].startswith("multitool: 12 of 12 features described, ")
    assert parts(place / "whole") == PARTS
    return place / "whole"


def test_killed_at_random_moments_it_goes_on_and_what_comes_out_is_the_same(place, whole):
    moments, folder = random.Random(0), place / "killed"
    with started(place, "killed") as process:  # before it writes a part
        time.sleep(moments.uniform(1, 4))
        process.kill()
    for _ in range(2):
        before = parts(folder)
        with started(place, "killed") as process:
            wait_for_a_part(process, folder)
            time.sleep(moments.uniform(0, 0.5))
            process.kill()
        assert parts(folder) > before
    assert ended(started(place, "killed"))[0] == 0
    assert content(folder) == content(whole)


@pytest.mark.skipif(sys.platform == "win32", reason="Unix has such signals")
def test_one_at_a_time_and_ctrl_c_leaves_what_can_be_gone_on_with(place, whole, capsys):
    folder = place / "interrupted"
    with started(place, "interrupted") as process:
        wait_for_a_part(process, folder)
        process.send_signal(signal.SIGSTOP)
        assert cli.main(options(place, "interrupted")) == 2
        assert capsys.readouterr().err.startswith(f"multitool: Another process is writing an atlas to {folder}.")
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGCONT)
        status, out, err = ended(process)
    assert (status, out) == (130, "")
    *_, said, last = err.splitlines()
    assert f"and kept in {folder}; the same command goes on with the others." in said and last == "Interrupted."
    assert 0 < parts(folder) < PARTS
    assert ended(started(place, "interrupted"))[0] == 0
    assert content(folder) == content(whole)


# Rows


@pytest.fixture(scope="module")
def table(whole):
    return pq.read_table(whole / "data")


def test_a_row_s_tree_is_the_tree_that_grows_alone(table, demo_library):
    facts = json.loads(table.schema.metadata[METADATA])
    rows = {(row["feature"], row["setting"]): row for row in table.to_pylist()}
    for feature, setting, weights in ((927, 0, "encoder"), (927, 1, "decoder"), (5, 0, "encoder")):
        found = mt.tree_of_row(rows[feature, setting], facts).to_dict()
        recipe = mt.VectorRecipe(sae="demo/hook_embed", feature=feature, weights=weights)
        expected = mt.definition_tree(demo_library, recipe, mt.TreeRecipe(cutoff=2e-2)).to_dict()
        assert found["settings"] == expected["settings"]
        assert_close(found["tree"], expected["tree"])
        assert found["vector"] == pytest.approx(expected["vector"], rel=1e-6)
        assert found["result"] == pytest.approx(expected["result"] | {"seconds": 0}, abs=1e-5)
        assert mt.read_tree(json.dumps(found)).definitions()[0].text


def assert_close(found, expected) -> None:
    """The same but for rounding, within."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            assert_close(found[name], value)
    elif isinstance(expected, list):
        for one, other in zip(found, expected, strict=True):
            assert_close(one, other)
    else:
        assert found == (pytest.approx(expected, abs=1e-5) if isinstance(expected, float) else expected)


def test_a_row_of_a_data_frame_gives_the_tree_too(whole, table):
    facts = json.loads(table.schema.metadata[METADATA])
    frame = pandas.read_parquet(whole / "data")
    row = frame[frame["feature"] == 927].iloc[0]
    same = next(row for row in table.to_pylist() if row["feature"] == 927)
    assert mt.tree_of_row(row, facts).to_dict() == mt.tree_of_row(same, facts).to_dict()


def test_a_row_of_an_atlas_that_is_older_than_a_column_gives_its_tree(table):
    facts = json.loads(table.schema.metadata[METADATA])
    row = table.to_pylist()[0]
    old = {name: value for name, value in row.items() if name not in ("norm", "mean_token_distance")}
    assert mt.tree_of_row(old, facts).vector == {"distance_from_centroid": row["distance_from_centroid"]}
    assert mt.tree_of_row(row | {"distance_from_centroid": float("nan")}, facts).vector == {  # as a data frame has null
        "norm": row["norm"], "distance_from_centroid": None, "mean_token_distance": row["mean_token_distance"]}


# On a tiny model


@pytest.fixture(scope="module")
def folders(tmp_path_factory, tokenizer):
    """A tiny model and an SAE on it, one of whose eight features is dead."""
    place = tmp_path_factory.mktemp("tiny")
    model = write_model(place / "model", tiny_model("llama"), tokenizer)
    return str(random_sae(place / "sae", d_model=32, d_sae=8, model=str(model), dead=[3]))


@pytest.fixture
def describe(folders, tmp_path, capsys):
    def run(*options: str, features: str = "all") -> tuple[int, str, str]:
        status = cli.main(["atlas", "--sae", folders, "--device", "cpu", "--features", features, "--cutoff", "0.01",
                           "--max-depth", "3", "--out", str(tmp_path / "out"), *options])  # fmt: skip
        return status, *capsys.readouterr()

    return run


def test_a_feature_without_a_direction_is_a_row_that_says_why(describe, tmp_path):
    status, out, err = describe("--no-trees")
    assert status == 0
    assert out == f"8 rows in {tmp_path / 'out'}; 1 without a tree (the column problem says why).\n"
    assert err.splitlines()[0] == "multitool: 0 of 8 features described"
    row = pq.read_table(tmp_path / "out" / "data").to_pylist()[3]
    assert row["feature"] == 3 and row["problem"] and row["nodes"] is None
    with pytest.raises(mt.UserError, match="feature 3 has no tree: .*dead feature"):
        mt.tree_of_row(row, {})


def test_what_is_there_is_not_made_again_and_nothing_is_loaded(describe, monkeypatch):
    first = describe()

    def load(*_):
        raise AssertionError("nothing is missing")

    monkeypatch.setattr(Library, "subject", load)
    monkeypatch.setattr(Library, "run", load)
    monkeypatch.setattr(Library, "encoder", load)
    status, out, err = describe()
    assert (status, out, err) == (0, first[1], "multitool: 8 of 8 features described\n")
    assert describe("--cutoff", "0.02")[0] == 2


@pytest.mark.parametrize(
    ("features", "told"),
    [("0:9", "features has 8; local/sae has 8 features, numbered 0 to 7."), ("5:1", "write it as FIRST:LAST"),
     ("all ", "write all, FIRST:LAST, e.g. 0:500, or name a file"), ("{folder}", "Is a directory"),
     ("{folder}/words", "line 2 is 'rain'"), ("{folder}/large", "line 1 is '99999999999'"),
     ("{folder}/bytes", "line 1 is"), ("{folder}/comments", "has no number"), ("{folder}/long", "more than 10,000,000"),
     ("{folder}/beyond", "features has 8;"), ("{folder}/negative", "line 1 is '-1'")],
)  # fmt: skip
def test_features_that_cannot_be_are_a_sentence_and_leave_nothing(describe, tmp_path, features, told):
    files = {"words": b"1\nrain", "large": b"99999999999", "bytes": b"\xff\0\xfe", "comments": b"\n# 1\n",
             "beyond": b"1\n8", "negative": b"-1", "long": b"1\n" * 5_000_001}
    for name, told_there in files.items():
        (tmp_path / name).write_bytes(told_there)
    status, out, err = describe(features=features.replace("{folder}", str(tmp_path)))
    assert (status, out) == (2, "") and told in err and err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_progress_takes_one_line_on_a_terminal(describe, monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    _, _, err = describe("--per-part", "4", "--no-trees")
    assert err.count("\n") == 1 and err.endswith("\n")
    told = [line.strip() for line in err.split("\r")[1:]]
    assert told[0] == "multitool: 0 of 8 features described"
    assert told[1].startswith("multitool: 4 of 8 features described, ") and told[1].endswith(" left")
    assert told[2].startswith("multitool: 8 of 8 features described, ") and told[2].endswith(" per second")


def test_progress_in_words():
    assert AtlasProgress(1000, 4600, 0.5).told == "1,000 of 4,600 features described, 0.5 per second · about 2 h left"
    assert AtlasProgress(0, 10, None).told == "0 of 10 features described"
    assert AtlasProgress(10, 10, 12.345).told == "10 of 10 features described, 12.3 per second"


def test_in_python_features_may_be_any_numbers_in_any_order(folders, tmp_path):
    library = Library(dtype="float32", device="cpu", allow_folder=True)
    vector = mt.VectorRecipe(sae=folders, feature=0)
    make = mt.TreeRecipe(cutoff=0.05, max_depth=2)
    made = list(mt.atlas(library, [vector], np.array([7, 2, 2, 5]), tmp_path / "out", make, per_part=2))
    assert [(progress.done, progress.total) for progress in made] == [(0, 3), (2, 3), (3, 3)]
    assert pq.read_table(tmp_path / "out" / "data")["feature"].to_pylist() == [2, 5, 7]
    for wrong in ([], [1.5], ["1"], [-1], range(10**12)):
        with pytest.raises(mt.UserError, match="features "):
            next(mt.atlas(library, [vector], wrong, tmp_path / "other", make))
    with pytest.raises(mt.UserError, match="per_part is 0"):
        next(mt.atlas(library, [vector], None, tmp_path / "other", make, per_part=0))
    assert not (tmp_path / "other").exists()


def test_what_was_stopped_goes_on_the_same_with_evidence_too(describe, tmp_path, monkeypatch):
    ask = ("--evidence", "--per-part", "3", "--weights", "encoder", "--weights", "pullback")
    status, out, _ = describe(*ask)
    assert status == 0 and "trees agree with what fires their feature" in out
    whole = content(tmp_path / "out")
    (tmp_path / "out").rename(tmp_path / "before")
    write = AtlasFiles.write

    def interrupted(files, part, rows):
        if parts(tmp_path / "out") == 2:
            raise KeyboardInterrupt
        write(files, part, rows)

    with monkeypatch.context() as patch:
        patch.setattr(AtlasFiles, "write", interrupted)
        assert describe(*ask)[0] == 130
    assert parts(tmp_path / "out") == 2
    assert describe(*ask)[:2] == (0, out)
    assert content(tmp_path / "out") == whole


def test_other_vectors_than_those_of_one_sae_are_refused(folders, tmp_path):
    library = Library(dtype="float32", device="cpu", allow_folder=True)
    for wrong in ([], [mt.VectorRecipe(sae=name, feature=0) for name in (folders, "demo/hook_embed")]):
        with pytest.raises(mt.UserError, match="one SAE"):
            next(mt.atlas(library, wrong, None, tmp_path / "other"))
    assert not (tmp_path / "other").exists()
