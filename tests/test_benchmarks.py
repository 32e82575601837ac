"""The benchmarks run, all of them, in tiny form. How fast anything is does not matter here."""

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow  # runs every benchmark

ROOT = Path(__file__).parents[1]
NAMES = {
    "recursion", "floor", "stock", "bulk", "steering", "lists", "pullback", "finding", "memory", "starting", "drawing",
    "serving", "gemma", "gpu",
}
COMPARED = {"recursion", "stock", "bulk", "steering"}  # that have trees to compare


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """What a smoke run writes."""
    folder = tmp_path_factory.mktemp("benchmarks")
    files = ["--json", str(folder / "results.json"), "--markdown", str(folder / "results.md")]
    run = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--smoke", *files], cwd=ROOT, capture_output=True, text=True, timeout=600
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert all(f"## {name}" in (folder / "results.md").read_text(encoding="utf-8") for name in NAMES)
    return json.loads((folder / "results.json").read_text(encoding="utf-8"))


def rows(results: dict) -> list[dict]:
    return [row for benchmark in results["benchmarks"].values() for row in benchmark["rows"]]


def test_every_benchmark_gives_figures(results):
    assert results["benchmarks"].keys() == NAMES
    assert all(benchmark["rows"] for benchmark in results["benchmarks"].values())
    assert results["smoke"] and results["repeats"] == 1
    assert {"cpu", "cores", "threads", "torch", "transformers", "date"} <= results["machine"].keys()


def test_every_figure_is_finite_and_positive(results):
    for row in rows(results):
        for spread in (*row["measured"].values(), *([row["ratio"]] if "ratio" in row else [])):
            assert all(map(math.isfinite, spread.values())), row
            # What takes little memory may find all of it in pages that the process holds already.
            assert spread["min"] > 0 or (row["unit"] == "MB" and spread["min"] == 0), row
            assert spread["min"] <= spread["median"] <= spread["max"], row


def test_the_trees_that_were_compared_are_the_same(results):
    compared = {name: [row["facts"]["same_tree"] for row in benchmark["rows"] if "same_tree" in row["facts"]]
                for name, benchmark in results["benchmarks"].items()}
    assert {name: all(same) for name, same in compared.items() if same} == dict.fromkeys(COMPARED, True)


def test_a_smoke_run_is_judged_by_no_reach(results):
    assert not any("reach" in row for row in rows(results))
