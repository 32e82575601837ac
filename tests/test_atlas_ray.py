"""Atlases by Ray: the rows of the plain way, whoever is killed; an error in a worker is told in its own words."""

import importlib.metadata
import os
import pickle
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import psutil
import pytest

import multitool as mt
from multitool.errors import UserError
from multitool.jobs.atlas_ray import Placing, Worker, described_by_ray, placed

ROOT = Path(__file__).parents[1]
NO_WHEEL = "Ray has no wheel for this Python or platform"
PARTS = [(0, 1), (2, 3), (4, 5), (6, 7)]
RECIPE = mt.VectorRecipe(sae="demo/hook_embed", feature=0, weights="encoder")
TREE = mt.TreeRecipe(cutoff=2e-2)
FEATURES = range(918, 930)
PER_PART = 2


# What workers make ready, and then do with each part


def plainly():
    return rows_of


def rows_of(part) -> list[dict]:
    place = os.getpid(), os.environ.get("CUDA_VISIBLE_DEVICES")
    return [{"feature": each, "third": each / 3, "nothing": None, "none": [], "place": place} for each in part]


def killed_once(mark: Path):
    """Dies in its second part, whoever is the first to do it."""

    def describe(part):
        if part == PARTS[1] and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return rows_of(part)

    return describe


def without_model():
    raise UserError("There is no model here.")


def without_feature():
    return refusing


def refusing(part):
    raise UserError(f"Feature {part[0]} is odd.")


def with_a_fault():
    return lambda part: 1 // 0


# Without Ray


@pytest.mark.parametrize(
    ("nodes", "workers", "use_gpus", "expected"),
    [
        ([{"CPU": 8}], None, True, Placing(workers=1, cores=8, gpus=0)),
        ([{"CPU": 8}], 3, True, Placing(workers=3, cores=2, gpus=0)),
        ([{"CPU": 2}], 4, True, Placing(workers=4, cores=1, gpus=0)),  # two of them wait
        ([{}, {"CPU": 16}, {"CPU": 4}], None, True, Placing(workers=2, cores=8, gpus=0)),  # both on the larger one
        ([{"CPU": 4}, {"CPU": 16, "GPU": 2}, {"CPU": 32, "GPU": 1}], None, True, Placing(workers=3, cores=8, gpus=1)),
        ([{"CPU": 16, "GPU": 2}], 1, True, Placing(workers=1, cores=8, gpus=1)),
        ([{"CPU": 1, "GPU": 2}], None, True, Placing(workers=2, cores=1, gpus=1)),
        ([{"CPU": 16, "GPU": 2}], 4, False, Placing(workers=4, cores=4, gpus=0)),
        ([], None, True, Placing(workers=1, cores=1, gpus=0)),
    ],
)
def test_workers_are_placed_where_they_find_room(nodes, workers, use_gpus, expected):
    assert placed(nodes, workers, use_gpus=use_gpus) == expected


def test_it_says_how_to_install_ray(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r'cannot be imported.*pip install "sae-feature-multitool\[ray\]"'):
        list(described_by_ray(plainly, PARTS))


@pytest.mark.slow
def test_a_worker_answers_what_a_user_can_put_right():
    row = {"part": 3, "features": [6, 7]}
    assert Worker(without_model, 1)(row) == {"part": 3, "rows": b"", "problem": "There is no model here."}
    assert Worker(without_feature, 1)(row) == {"part": 3, "rows": b"", "problem": "Feature 6 is odd."}
    assert pickle.loads(Worker(plainly, 1)(row)["rows"]) == rows_of((6, 7))
    with pytest.raises(ZeroDivisionError):
        Worker(with_a_fault, 1)(row)


@pytest.mark.slow
def test_workers_are_one_at_least_and_with_ray(tmp_path):
    with pytest.raises(UserError, match="^workers is about Ray"):
        list(mt.atlas(None, [RECIPE], FEATURES, tmp_path, workers=2))
    with pytest.raises(UserError, match="^workers is 0"):
        list(mt.atlas(None, [RECIPE], FEATURES, tmp_path, ray=True, workers=0))


# With Ray


@pytest.fixture(scope="module")
def ray():
    """Ray, not connected to anything; the workers of what is started here find this file."""
    try:
        importlib.metadata.version("ray")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip(NO_WHEEL)
    import ray

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("PYTHONPATH", os.pathsep.join(map(str, (ROOT / "tests", ROOT))))
        yield ray


@pytest.fixture(scope="module")
def address(ray):
    """Of a Ray with two cores, and two GPUs if it could use them, which this process is connected to."""
    ray.init("local", num_cpus=2, num_gpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield ray.get_runtime_context().gcs_address
    ray.shutdown()


def workers() -> list[psutil.Process]:
    """The processes that describe, of the Ray that this process has started."""
    found = []
    for child in psutil.Process().children(recursive=True):
        try:
            if "Worker" in child.name():
                found.append(child)
        except psutil.NoSuchProcess:  # it has just ended
            continue
    return found


def by_ray(library, out: Path):
    return mt.atlas(library, [RECIPE], FEATURES, out, TREE, per_part=PER_PART, ray=True, workers=2)


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "data").iterdir()}


@pytest.fixture(scope="module")
def whole(demo_library, tmp_path_factory) -> dict[str, bytes]:
    """The files of an atlas that was made without Ray."""
    place = tmp_path_factory.mktemp("whole")
    for _ in mt.atlas(demo_library, [RECIPE], FEATURES, place, TREE, per_part=PER_PART):
        pass
    return content(place)


@pytest.mark.slow
def test_it_says_where_no_ray_answers(ray):
    with pytest.raises(UserError, match=r"Nothing answers at '127.0.0.1:1' .*`ray start --head`"):
        list(described_by_ray(plainly, PARTS, address="127.0.0.1:1"))


@pytest.mark.slow
def test_an_error_in_a_worker_is_told_as_it_is_and_nothing_stays(ray, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(UserError, match="^There is no model here.$"):
        list(described_by_ray(without_model, PARTS, workers=1))
    assert not ray.is_initialized() and not workers()


@pytest.mark.slow
def test_rows_come_back_as_they_are_though_a_worker_is_killed(ray, address, tmp_path):
    mark = tmp_path / "killed"
    found = dict(described_by_ray(partial(killed_once, mark), PARTS, workers=2))
    assert mark.exists()
    assert found.keys() == set(PARTS)
    for part in PARTS:
        places = [row.pop("place") for row in found[part]]
        assert all(process != os.getpid() and gpu in ("0", "1") for process, gpu in places)
        assert found[part] == [{"feature": each, "third": each / 3, "nothing": None, "none": []} for each in part]
        assert [list(map(type, row.values())) for row in found[part]] == [[int, float, type(None), list]] * 2
    assert ray.is_initialized(), "a connection that was there is kept"


@pytest.mark.slow
def test_a_killed_worker_changes_nothing(address, demo_library, whole, tmp_path):
    victim = None
    for progress in by_ray(demo_library, tmp_path):
        if progress.done and victim is None:
            victim = workers()[0]
            victim.kill()
    assert victim
    assert content(tmp_path) == whole


@pytest.mark.slow
def test_an_atlas_goes_on_where_a_killed_command_was(address, demo_library, whole, tmp_path):
    options = ["--sae", RECIPE.sae, "--weights", RECIPE.weights, "--features", f"{FEATURES.start}:{FEATURES.stop}",
               "--cutoff", str(TREE.cutoff), "--per-part", str(PER_PART), "--dtype", "float32", "--device", "cpu"]
    command = [sys.executable, "-m", "multitool", "atlas", *options, "--out", str(tmp_path), "--ray", address,
               "--workers", "2"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        while process.poll() is None and not (tmp_path.exists() and any(tmp_path.glob("data/*.parquet"))):
            time.sleep(0.02)
        process.kill()
        said, told = process.communicate()
    assert not said and "Traceback" not in told, told
    there = content(tmp_path)
    assert 0 < len(there) < len(whole), told
    first, *_, last = by_ray(demo_library, tmp_path)
    assert 0 < first.done < last.done == len(FEATURES)
    assert content(tmp_path) == whole
