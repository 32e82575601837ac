"""The app as on ZeroGPU: from a visitor's request to the GPU and back, in the forked mode of ``spaces``."""

import ast
import contextlib
import itertools
import os
import re
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import httpx
import numpy as np
import pytest
from device_service import DeviceService, visitor_token
from gradio_client import Client
from gradio_client.exceptions import AppError
from running import start_app
from tiny import PROMPT, byte_level_tokenizer, random_sae, tiny_model, write_model
from visit import open_growth, opened, write

from multitool.errors import UserError
from multitool.jobs.features import missing_scan, resolve
from multitool.jobs.local import definition_tree, finish, token_table
from multitool.jobs.tree import prepare_trees
from multitool.model.ghost_prompt import GhostPrompt
from multitool.model.tasks import (
    AskTask,
    Base,
    ChangeTask,
    CheckTask,
    GrowthTask,
    LensTask,
    Place,
    PullbackTask,
    ReadTask,
    SteerTask,
)
from multitool.page.settings import ServerSettings, read_settings
from multitool.page.zero_gpu import gpu_worker, seconds_to_ask_for, zero_gpu_problem
from multitool.recipes.recipe import ListRecipe, TreeRecipe, VectorRecipe
from multitool.store.folders import cache_folder
from multitool.store.library import Library
from multitool.store.pullbacks import pullback_rows_task
from multitool.store.scans import ScanTask
from multitool.trees.tree import NO_TREE

ROOT = Path(__file__).parents[2]
DEMO = "demo/hook_embed"
# The prompt goes on for ever with the same token, so its tree is one path: many levels that take little each.
SONG = '"{ghost}"' + " la" * 20
PATH = {"prompt": SONG, "top_k": 1, "cutoff": 1e-100, "max_depth": 200}
ONE_LEVEL = {"cutoff": 1e-2, "max_depth": 1}
SOME = {"prompt": PROMPT, "cutoff": 1e-3}  # for the tiny models: 150 nodes or so
FRESH = itertools.count(100)  # features of which there is no tree yet
FACTOR = 1.5  # what spaces puts on a declared duration
ANONYMOUS_SECONDS = 120  # what a visitor without an account has a day, and the most that one may ask for at once


@contextlib.contextmanager
def running(environment: dict[str, str], **service):
    with DeviceService(**service) as devices, start_app(ROOT / "app.py", devices, environment) as app:
        yield app, devices


@pytest.fixture(scope="module")
def saes(tmp_path_factory):
    """Two SAE folders, each with a model of its own beside it."""
    folder = tmp_path_factory.mktemp("models")
    models = {
        name: write_model(folder / f"{name}-model", tiny_model(name), byte_level_tokenizer())
        for name in ("llama", "gpt2")
    }
    return {name: random_sae(folder / name, d_model=32, model=str(model)) for name, model in models.items()}


@pytest.fixture(scope="module")
def started(saes):
    with running({"SAE_MULTITOOL_SAES": ":".join(map(str, saes.values()))}) as started:
        yield started


@pytest.fixture
def app(started):
    return started[0]


@pytest.fixture
def service(started):
    """The device service of the running app, with its usual settings and no task at work."""
    return at_rest(started[1])


def at_rest(service: DeviceService) -> DeviceService:
    assert service.released(timeout=30)
    service.mode, service.warm, service.gpus, service.kills, service.queue_limit = "ok", True, 1, False, 30.0
    return service


@pytest.fixture
def client(app, service):
    return Client(app.url, verbose=False)


@pytest.fixture(scope="module")
def library():
    """Without ZeroGPU, in the precision that running models have there."""
    return Library(dtype="bfloat16", device="cpu", allow_folder=True)


def trees(client, endpoint="/definition_tree", **request) -> list[dict]:
    """What a request for a tree answers with, one after the other."""
    job = client.submit(**request, api_name=endpoint)
    job.result(timeout=120)
    return [tree for _, tree in job.outputs()]


def refusal(client, **request) -> str:
    with pytest.raises(AppError) as error:
        trees(client, **request)
    return str(error.value)


def growing(client, levels: int = 3, **request):
    """A request for a tree that has grown so many levels, and that tree."""
    job = client.submit(**request, api_name="/definition_tree")
    return job, next(tree for _, tree in job if tree["result"]["depth"] >= levels)


def paths(tree: dict) -> dict[tuple, float]:
    """Cumulative probability by path of token ids."""
    found, waiting = {}, [((), tree["tree"])]
    for path, node in waiting:
        for child in node["children"]:
            longer = (*path, child["token_id"])
            found[longer] = child["cumulative_prob"]
            waiting.append((longer, child))
    return found


def plainly(library, sae=DEMO, feature=927, **recipe) -> dict[tuple, float]:
    """The same of the tree that the library grows in this process."""
    tree = definition_tree(library, VectorRecipe(sae=str(sae), feature=feature), TreeRecipe(**recipe))
    return paths(tree.to_dict())


def assert_alike(found: dict[tuple, float], expected: dict[tuple, float], cutoff: float) -> None:
    """The same tree in bfloat16, whose last digits depend on what else the processor does: nodes at the cutoff may be
    in one of the two only."""
    for path in found.keys() | expected.keys():
        if max(found.get(path, 0), expected.get(path, 0)) > 1.05 * cutoff:
            assert found[path] == pytest.approx(expected[path], rel=0.05)


# ── Without a GPU ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("vector", [{"feature": 927}, {"feature": 648, "weights": "mix", "pca": [0.1, 0.2]}])
def test_a_list_right_after_the_launch_is_that_of_the_plain_library(client, service, demo_library, vector):
    table = client.predict(**vector, top=50, api_name="/token_list")
    expected = token_table(demo_library, VectorRecipe(sae=DEMO, **vector), ListRecipe(top=50)).rows
    assert [row[:3] for row in table["data"]] == [row[:3] for row in expected]
    numbers, expected_numbers = (np.array([row[3:] for row in rows]) for rows in (table["data"], expected))
    np.testing.assert_allclose(numbers, expected_numbers, rtol=1e-4)
    assert service.scheduled == []


def test_trimming_and_asking_again_need_no_gpu(client, app, service):
    tree = trees(client, **ONE_LEVEL)[-1]
    before = len(service.scheduled)
    trimmed = client.predict(tree, 0.04, api_name="/trim_tree")[1]
    assert 0 < trimmed["result"]["nodes"] < tree["result"]["nodes"]
    somebody_else = Client(app.url, verbose=False)
    assert trees(somebody_else, **ONE_LEVEL) == [tree]
    assert len(service.scheduled) == before


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        ({"feature": 2048}, "0 to 2047"),
        ({"sae": "demo/hook_embedd"}, "There is no SAE"),
        ({"prompt": "no place"}, "exactly once"),
        ({"prompt": "word " * 9000 + "{ghost}"}, "at most 2,000 characters"),
        ({"max_nodes": 10**6}, "max_nodes is 1000000"),
        ({"cutoff": 0}, "cutoff is 0"),
    ],
)
def test_what_cannot_be_grown_never_asks_for_a_gpu(client, service, request_, said):
    before = len(service.scheduled)
    assert said in refusal(client, **request_)
    assert len(service.scheduled) == before


def test_a_whole_tree_is_not_grown_on(client, service):
    tree = trees(client, **ONE_LEVEL)[-1]
    before = len(service.scheduled)
    with pytest.raises(AppError, match="This tree is whole"):
        client.predict(tree, api_name="/continue_tree")
    assert len(service.scheduled) == before


# ── A tree ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_tree_streams_and_is_the_one_that_grows_in_one_process(client, library):
    job = client.submit(cutoff=8e-3, api_name="/definition_tree")
    picture, whole = job.result(timeout=60)
    *parts, _ = (tree for _, tree in job.outputs())
    depths = [part["result"]["depth"] for part in parts]
    assert depths == sorted(depths) and {1, 2} <= set(depths)
    assert whole["result"]["complete"] and not any(part["result"]["complete"] for part in parts)
    assert Path(picture).read_bytes().startswith(b"\x89PNG")
    assert whole["settings"]["dtype"] == "bfloat16"
    assert_alike(paths(whole), plainly(library, cutoff=8e-3), 8e-3)


def test_a_steered_clamped_and_injected_tree_is_that_of_one_process(client, service, library):
    recipe = {
        "cutoff": 8e-3, "steer_strength": 0.3, "clamp": 1.0, "steer_at": "prompt", "inject_layer": 2,
        "inject_mode": "add",
    }
    *_, tree = trees(client, feature=927, **recipe)
    found, expected = paths(tree), plainly(library, **recipe)
    assert found == pytest.approx(expected, rel=0.05)
    assert found.keys() != plainly(library, cutoff=8e-3).keys()
    assert service.scheduled


def test_a_text_is_continued_on_the_gpu_that_is_lent(client, service):
    asked = {"text": "Yesterday I went to", "strengths": [-0.4, 0.8], "length": 6}
    found = client.predict(DEMO, 927, **asked, api_name="/continuations")
    assert [one["strength"] for one in found["continuations"]] == [0, -0.4, 0.8] and found["complete"]
    assert all(len(one["activations"]) == 6 and one["log_probability"] < 0 for one in found["continuations"])
    assert service.scheduled


def test_a_warm_worker_grows_the_next_tree_and_a_cold_one_another(client, service, library):
    trees(client, feature=152, **ONE_LEVEL)
    workers = service.workers
    warm = trees(client, feature=513, **ONE_LEVEL)[-1]
    assert service.workers == workers
    service.warm = False
    cold = trees(client, feature=648, **ONE_LEVEL)[-1]
    assert len(service.workers - workers) == 1
    assert paths(warm) == pytest.approx(plainly(library, feature=513, **ONE_LEVEL), rel=0.05)
    assert paths(cold) == pytest.approx(plainly(library, feature=648, **ONE_LEVEL), rel=0.05)


# ── Visitors who leave ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def pace(client) -> float:
    """Seconds that a level takes at the moment."""
    tree = trees(client, feature=next(FRESH), **PATH | {"max_depth": 3})[-1]
    return max(0.2, tree["result"]["seconds"] / 3)


def test_a_cancelled_request_frees_the_gpu_at_the_next_level_and_its_worker_lives_on(client, service, pace):
    job, _ = growing(client, **PATH)
    workers = service.workers
    job.cancel()
    assert service.released(timeout=20 * pace)  # of 200
    assert service.calls[-1].query["fail"] == "false"
    trees(client, feature=31, **ONE_LEVEL)
    assert service.workers == workers


@pytest.mark.parametrize("at", ["in the queue", "with a new worker"])
def test_a_request_that_is_cancelled_before_its_first_level_uses_no_gpu_up(client, service, pace, at):
    service.warm, service.gpus, service.queue_limit = False, 0 if at == "in the queue" else 1, 5.0
    before = len(service.scheduled)
    job = client.submit(feature=32, **PATH, api_name="/definition_tree")
    wait_until(lambda: len(service.scheduled) > before and service.running == service.gpus)
    threading.Thread(target=job.cancel).start()  # it returns when the request has come to its end
    service.gpus = 1
    wait_until(lambda: service.running, service.queue_limit, must=False)
    assert service.released(timeout=40 * pace)  # of 200


def wait_until(condition, timeout: float = 30, *, must: bool = True) -> None:
    deadline = time.monotonic() + timeout
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert condition() or not must


def test_a_broken_connection_frees_the_gpu(app, service, pace):
    event = httpx.post(f"{app.url}/gradio_api/call/v2/definition_tree", json={"feature": 33, **PATH}).json()["event_id"]
    with httpx.stream("GET", f"{app.url}/gradio_api/call/definition_tree/{event}", timeout=60) as stream:
        next(line for line in stream.iter_lines() if re.search('"depth": ?3', line))
    assert service.released(timeout=20 * pace)
    assert service.calls[-1].query["fail"] == "false"


def test_who_leaves_keeps_nobody_waiting():
    """The GPU is free only after the level that is being computed; the server must not wait for it."""

    class Computing:
        def do(self, task, *, pulse):
            try:
                yield None
            finally:
                computed.wait(30)

    computed = threading.Event()
    growth = gpu_worker(Computing(), ServerSettings(), resident="a model")(task(Path(), max_depth=1))
    next(growth)
    with ThreadPoolExecutor() as server:
        server.submit(growth.close).result(timeout=10)
        computed.set()


# ── Refusals ────────────────────────────────────────────────────────────────────────────────────────────────────────

NO_GPU = "No GPU is available at the moment. Try again in a minute."
USED_UP = "Your GPU time is used up for now"


@pytest.mark.parametrize(
    ("mode", "user", "said"),
    [
        ("quota", None, [USED_UP]),
        ("quota", "anonymous", [USED_UP, "18 s asked for, 3 s left; more in 1:00:00", "log in to Hugging Face"]),
        ("quota", "somebody", [USED_UP, "18 s asked for, 3 s left; more in 1:00:00", "a larger cutoff"]),
        ("illegal duration", "somebody", ["more GPU time than you may use at once", "a larger cutoff"]),
        ("pending credits", "somebody", [NO_GPU]),
        ("no gpu", None, [NO_GPU]),
        ("queue timeout", None, [NO_GPU]),
        ("queue timeout", "somebody", [NO_GPU]),
    ],
)
def test_a_refusal_says_what_to_do(app, service, mode, user, said):
    token = visitor_token(None if user == "anonymous" else user) if user else None
    visitor = Client(app.url, verbose=False, headers={"X-IP-Token": token} if token else {})
    service.mode, service.queue_limit = mode, 0.3
    message = refusal(visitor, feature=40, **ONE_LEVEL)
    assert service.scheduled[-1].token == token
    assert all(part in message for part in said), message
    assert "Token lists" in message
    assert not re.search("[<>]|https?:|ZeroGPU", message)
    assert visitor.predict(top=1, api_name="/token_list")["data"][0][1] == " Rain"


def test_a_broken_device_service_says_what_to_do(client, service, monkeypatch):
    monkeypatch.setattr(service, "acquire", lambda *_: 1 / 0)  # it hangs up without an answer
    assert NO_GPU in refusal(client, feature=40, **ONE_LEVEL)


def test_a_limit_of_runs_is_not_called_one_of_time():
    said = "You have exceeded your ZeroGPU runs limit. Subscribe to Hugging Face PRO - https://huggingface.co/pro"
    message = zero_gpu_problem("ZeroGPU quota exceeded", said)
    assert "runs" in message and USED_UP not in message and "https" not in message


def test_an_outdated_page_is_to_be_loaded_again():
    assert "Reload the page" in zero_gpu_problem("ZeroGPU client error", "Expired ZeroGPU proxy token")


# ── A worker that is killed ─────────────────────────────────────────────────────────────────────────────────────────


def test_a_killed_worker_leaves_a_part_to_go_on_with(client, service, library):
    recipe = PATH | {"max_depth": 12}
    job, _ = growing(client, **recipe)
    workers = service.workers
    service.kill_workers()
    with pytest.raises(AppError, match="What had grown by then is kept; go on from there"):
        job.result(timeout=60)
    part = job.outputs()[-1][1]
    assert part["result"]["depth"] >= 3 and not part["result"]["complete"]
    whole = trees(client, "/continue_tree", tree=part)[-1]
    assert whole["result"]["complete"] and whole["result"]["depth"] == 12
    assert len(service.workers - workers) == 1
    assert paths(part).items() <= paths(whole).items()
    assert paths(whole) == pytest.approx(plainly(library, **recipe), rel=0.1)


def test_a_problem_in_the_worker_is_told_when_its_task_has_ended(monkeypatch):
    """Whoever leaves a task of ``spaces`` before its end stops what its worker does by then: somebody else's tree."""

    class Full:
        def do(self, task, *, pulse):
            raise UserError("Out of memory.")

    ended = []

    def lend_gpu(duration):
        def decorate(function):
            def run(task):
                yield from function(task)
                ended.append(task)

            return run

        return decorate

    monkeypatch.setattr("multitool.page.zero_gpu.spaces.GPU", lend_gpu)
    work = gpu_worker(Full(), ServerSettings(), resident="a model")
    with pytest.raises(UserError, match="Out of memory"):
        next(work(task(Path("nowhere"), max_depth=1)))
    assert ended


# ── Several visitors ────────────────────────────────────────────────────────────────────────────────────────────────


def test_visitors_at_once_have_a_worker_each_and_get_their_own_trees(app, service, library):
    service.gpus, service.warm = 2, False
    workers = service.workers
    with ThreadPoolExecutor() as visitors:
        visit = lambda feature: trees(Client(app.url, verbose=False), feature=feature, cutoff=1e-2)[-1]  # noqa: E731
        found = list(visitors.map(visit, [152, 513]))
    assert len(service.workers - workers) == 2
    assert_alike(paths(found[0]), plainly(library, feature=152, cutoff=1e-2), 1e-2)
    assert_alike(paths(found[1]), plainly(library, feature=513, cutoff=1e-2), 1e-2)


def test_visitors_who_wait_in_line_are_not_turned_away(client, service):
    service.gpus = 0
    at_once = read_settings({"SPACES_ZERO_GPU": "true"}).concurrency
    before = len(service.scheduled)
    scales = [1.0 + visitor for visitor in range(at_once + 8)]
    jobs = [
        client.submit(sae="local/llama", feature=0, scale=scale, **SOME | {"max_depth": 1}, api_name="/definition_tree")
        for scale in scales
    ]
    wait_until(lambda: len(service.scheduled) == before + at_once)  # the others wait in the app's own line
    service.gpus = 1
    assert [job.result(timeout=60)[1]["settings"]["scale"] for job in jobs] == scales


# ── Other models ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_another_model_is_loaded_in_the_worker_and_kept_there(client, service, library, saes):
    folder = saes["llama"].with_name("llama-model")
    first = trees(client, sae="local/llama", feature=1, **SOME)[-1]
    assert first["settings"]["model"] == str(folder)
    workers = service.workers
    with spoiled(folder / "model.safetensors"):
        kept = trees(client, sae="local/llama", feature=2, **SOME)[-1]
        assert service.workers == workers
        service.warm = False
        assert f"{folder} cannot be loaded" in refusal(client, sae="local/llama", feature=3, **SOME)
    service.warm, workers = True, service.workers
    again = trees(client, sae="local/llama", feature=3, **SOME)[-1]
    assert service.workers == workers  # what could not be loaded did not end the worker, nor does it end its next tree
    for feature, tree in enumerate((first, kept, again), 1):
        assert paths(tree) == pytest.approx(plainly(library, saes["llama"], feature, **SOME), rel=0.05)


@contextlib.contextmanager
def spoiled(file: Path):
    """Damaged, without any sign of a change from outside: what is in memory still counts."""
    stat, begin = file.stat(), file.read_bytes()[:8]

    def write(content: bytes) -> None:
        with file.open("r+b") as opened:
            opened.write(content)
        os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))

    write(b"\xff" * 8)
    try:
        yield
    finally:
        write(begin)


def test_the_first_model_is_right_again_after_two_others(client, service, library, saes):
    trees(client, feature=50, **ONE_LEVEL)
    workers = service.workers
    for name, sae in saes.items():
        tree = trees(client, sae=f"local/{name}", feature=4, **SOME)[-1]
        assert paths(tree) == pytest.approx(plainly(library, sae, 4, **SOME), rel=0.05)
    tree = trees(client, feature=51, **ONE_LEVEL)[-1]
    assert paths(tree) == pytest.approx(plainly(library, feature=51, **ONE_LEVEL), rel=0.05)
    assert service.workers == workers


def test_a_list_of_another_model_needs_no_gpu(client, service, library, saes):
    before = len(service.scheduled)
    table = client.predict(sae="local/gpt2", feature=5, top=20, api_name="/token_list")
    expected = token_table(library, VectorRecipe(sae=str(saes["gpt2"]), feature=5), ListRecipe(top=20)).rows
    assert [row[2] for row in table["data"]] == [row[2] for row in expected]
    assert len(service.scheduled) == before


@pytest.mark.parametrize(("measure", "loans"), [("logit_lens", 1), ("jacobian_lens", 2)])
def test_a_list_by_lens_is_made_on_the_gpu(client, service, library, saes, measure, loans):
    """The Jacobian lens is fitted there before, with gradients."""
    before = len(service.scheduled)
    recipe = {"measure": measure, "top": 20}
    table = client.predict(sae="local/gpt2", feature=5, **recipe, api_name="/token_list")
    expected = token_table(library, VectorRecipe(sae=str(saes["gpt2"]), feature=5), ListRecipe(**recipe)).rows
    np.testing.assert_allclose([row[-1] for row in table["data"]], [row[-1] for row in expected], rtol=0.05)
    assert len(service.scheduled) == before + loans


def test_a_list_by_pullback_borrows_the_gpu_once_and_for_the_least_time(app, client, service, library, saes):
    before = len(service.scheduled)
    recipe = {"feature": 5, "weights": "pullback"}
    table = client.predict(sae="local/llama", **recipe, top=20, api_name="/token_list")
    expected = token_table(library, VectorRecipe(sae=str(saes["llama"]), **recipe), ListRecipe(top=20)).rows
    assert [row[2] for row in table["data"]][:5] == [row[2] for row in expected][:5]
    np.testing.assert_allclose([row[3] for row in table["data"]], [row[3] for row in expected], rtol=0.05)
    somebody_else = Client(app.url, verbose=False)
    other = somebody_else.predict(sae="local/llama", **recipe, top=10, measure="cosine", api_name="/token_list")
    assert len(other["data"]) == 10
    asked = service.scheduled[before:]
    assert len(asked) == 1, asked


def test_what_a_feature_writes_is_found_on_the_gpu(client, service):
    before = len(service.scheduled)
    found = client.predict(sae="local/gpt2", feature=5, measure="logit_lens", top=20, api_name="/check_list")
    assert found["evidence"]["rising"] >= 5 and "change" in found["tokens"][0]
    assert len(service.scheduled) == before + 2


# ── Scans and evidence ──────────────────────────────────────────────────────────────────────────────────────────────


def test_a_layer_is_scanned_and_its_tree_and_list_are_checked_on_the_gpu(saes, tmp_path):
    """Of a tiny model, whose SAE is no demo's: so the weights are named."""
    vector = {"sae": "local/llama", "feature": 1, "weights": "vocabulary"}
    environment = {"SAE_MULTITOOL_SAES": str(saes["llama"]), "SAE_MULTITOOL_CACHE": str(tmp_path / "cache")}
    copy_demo_model(tmp_path / "cache")
    with running(environment) as (app, devices):
        visitor = Client(app.url, verbose=False)
        tree = trees(visitor, **vector, **SOME)[-1]
        assert len(devices.scheduled) == 2  # the scan, and the tree
        picture, checked = visitor.predict(tree, api_name="/check_tree")
        assert len(devices.scheduled) == 4  # what others say, and the tree under other ghosts
        assert checked["evidence"]["verdict"] in ("agrees", "partly", "no", "unknown")
        assert {"lift_centroid", "lift_random"} <= checked["tree"]["children"][0].keys()
        assert Path(picture).read_bytes().startswith(b"\x89PNG")
        listed = visitor.predict(**vector, top=10, api_name="/check_list")
        assert "activation" in listed["tokens"][0] and listed["evidence"]["sentence"]
        assert len(devices.scheduled) == 4  # a list needs none once the vocabulary is scanned
        found = visitor.predict("local/llama", 1, "A dog is an animal.", api_name="/activity")
        assert len(devices.scheduled) == 5
        assert "".join(part["token"] for part in found) == "A dog is an animal."
        assert all(call.query["fail"] == "false" for call in devices.calls if call.path == "/release")


def copy_demo_model(cache: Path) -> None:
    """The page opens with it; what is fetched and converted once is not done again for an empty cache."""
    cache.mkdir()
    for part in cache_folder().iterdir():
        if part.name != "scans":
            (cache / part.name).symlink_to(part)


def test_a_scan_that_is_taken_away_says_what_is_kept():
    taken = ("ZeroGPU worker error", "GPU task aborted")
    assert "What was there by then is kept" in zero_gpu_problem(*taken, ScanTask)
    assert "go on from there" in zero_gpu_problem(*taken)
    assert "go on from there" not in zero_gpu_problem(*taken, CheckTask)
    assert "order it by another measure" in zero_gpu_problem(*taken, LensTask)
    assert "ask for fewer tokens" in zero_gpu_problem(*taken, SteerTask)


# ── Time ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def hurried():
    """The app with four seconds for a tree at most, and a device service that ends what takes longer than asked for."""
    with running({"SAE_MULTITOOL_SECONDS": "4"}) as started:
        yield started


@pytest.fixture
def strict(hurried):
    service = at_rest(hurried[1])
    service.kills = True
    return service


def test_a_tree_that_runs_out_of_time_is_a_part_to_go_on_with(hurried, strict):
    client = Client(hurried[0].url, verbose=False)
    part = trees(client, **PATH)[-1]
    assert strict.scheduled[-1].duration == 4 * FACTOR
    assert part["result"]["nodes"] > 0 and not part["result"]["complete"]
    answers = trees(client, "/continue_tree", tree=part)
    assert all(paths(part).items() <= paths(answer).items() for answer in answers)
    assert answers[-1]["result"]["depth"] > part["result"]["depth"]
    assert all(call.query["fail"] == "false" for call in strict.calls if call.path == "/release")


def test_loading_another_model_counts_as_time(saes, library):
    """Not under the harness: there a model of this size loads at once."""

    class SlowLibrary(Library):
        def run(self, name, folder):
            if not self.loaded:
                time.sleep(1.5)
                self.loaded = True
            return super().run(name, folder)

    slow = SlowLibrary(dtype="float32", device="cpu", allow_folder=True)
    slow.loaded = False
    work = gpu_worker(slow, ServerSettings(zero_gpu=True, seconds=1), resident="another")
    vector, tree = VectorRecipe(sae=str(saes["llama"]), feature=0), TreeRecipe(prompt=PROMPT, cutoff=1e-9, stop=False)
    prepared, = finish(prepare_trees(slow, vector, [tree]), slow)
    assert [growth.depth for growth in work(prepared.task)] == [1]  # the time is up before there is anything
    assert len(list(work(prepared.task))) > 1


def task(folder: Path, **recipe) -> GrowthTask:
    recipe = TreeRecipe(**recipe)
    return GrowthTask(
        model="a model", folder=folder, n_tokens=10, prompt=GhostPrompt((0,), 0), v=np.zeros(1), top_k=recipe.top_k,
        cutoff=recipe.cutoff, max_depth=recipe.max_depth, max_nodes=recipe.max_nodes, end_ids=None,
    )


def test_the_time_asked_for_grows_with_what_is_asked_for(tmp_path):
    (tmp_path / "model.safetensors").touch()

    def seconds(size: float = 0, **recipe) -> int:
        os.truncate(tmp_path / "model.safetensors", int(size))  # takes no room
        return seconds_to_ask_for(task(tmp_path, **recipe), 1000, loaded=not size)

    for rising in (
        [seconds(cutoff=cutoff) for cutoff in (0.9, 1e-2, 1e-3, 1e-4, 1e-5, 5e-324)],
        [seconds(cutoff=1e-6, max_nodes=nodes) for nodes in (1, 500, 2000, 20_000)],
        [seconds(cutoff=1e-3, max_depth=depth) for depth in (1, 25, 200)],
        [seconds(size) for size in (0, 1e6, 5e9, 20e9)],
    ):
        assert rising == sorted(rising) and rising[0] < rising[-1]
        assert all(isinstance(seconds, int) for seconds in rising)
    assert seconds(20e9) - seconds(0) >= 20  # no disk reads more than a gigabyte a second


def test_no_tree_asks_for_more_time_than_an_anonymous_visitor_has(tmp_path):
    most = read_settings({"SPACES_ZERO_GPU": "true", "SPACE_ID": "somebody/space"}).seconds
    (tmp_path / "model.safetensors").touch()
    os.truncate(tmp_path / "model.safetensors", 24_000_000_000)
    greedy = task(tmp_path, cutoff=1e-12, max_nodes=20_000, max_depth=200)
    assert seconds_to_ask_for(greedy, most, loaded=False) * FACTOR <= ANONYMOUS_SECONDS
    # Several usual ones can be had.
    assert seconds_to_ask_for(task(tmp_path), most, loaded=True) * FACTOR <= ANONYMOUS_SECONDS / 3


def scan(folder: Path, n_tokens: int = 50_000) -> ScanTask:
    return ScanTask(
        model="a model", folder=folder, hook="blocks.0.hook_resid_post", n_tokens=n_tokens, d_model=32, bos_id=0,
        dtype="float32", path=folder / "scan",
    )


def test_other_work_asks_for_time_of_its_own(tmp_path):
    def seconds(task) -> int:
        return seconds_to_ask_for(task, 1000, loaded=True)

    def checking(nodes: int, controls: int) -> CheckTask:
        tree = replace(NO_TREE, parent=np.zeros(nodes, dtype=np.int64))
        return CheckTask(**place, growth=growth, tree=tree, controls=np.zeros((controls, 4)), texts=[])

    def asking(ghosts: int, nodes: int) -> AskTask:
        return AskTask(**place, growth=replace(growth, v=np.zeros((ghosts, 4)), max_nodes=nodes), n_definitions=5)

    growth = task(tmp_path, max_depth=12)
    place = {"model": "a model", "folder": tmp_path, "place": Place("hook_embed", None)}
    for rising in (
        [seconds(scan(tmp_path, n)) for n in (1000, 100_000, 250_000)],
        [seconds(asking(ghosts, 40)) for ghosts in (1, 50, 100)],
        [seconds(asking(17, nodes)) for nodes in (40, 400)],
        [seconds(checking(nodes, 5)) for nodes in (10, 2000, 5000)],
        [seconds(checking(4000, controls)) for controls in (1, 5)],
    ):
        assert rising == sorted(rising) and rising[0] < rising[-1]
    reading = ReadTask(**place, texts=[(1, 2, 3)])
    lens = LensTask(model="a model", folder=tmp_path, directions=np.zeros((21, 32), dtype=np.float32))
    assert seconds(reading) == seconds(lens) <= min(seconds(scan(tmp_path)), seconds(task(tmp_path)))
    pushes = ChangeTask(
        **place, directions=np.zeros((40, 32), dtype=np.float32), strengths=(0.1, 0.2), prompts=((1,),), prose=(1,)
    )
    assert seconds(replace(pushes, directions=pushes.directions[:1])) < seconds(pushes) < 40
    back = PullbackTask(
        model="a model", folder=tmp_path, base=Base(Place("hook_embed", None), (1, 2)), directions=pushes.directions
    )
    assert seconds(replace(back, directions=back.directions[:1])) == seconds(lens)  # the least
    steered = SteerTask(
        model="a model", folder=tmp_path, token_ids=(1,), pushes=(), strengths=(0.0,), spared=(), prose=(), length=200,
        end_ids=(), temperature=0.0, seed=0, hook=None,
    )
    assert seconds(replace(steered, length=20)) < seconds(steered) < 40
    rows = pullback_rows_task("a model", tmp_path, back.base, d_model=2048, dtype="bfloat16")
    assert seconds(back) < seconds(replace(rows, d_model=1000)) < seconds(rows) < 120


class Scanning:
    """A library whose scan of ten tokens gets on by so many a turn."""

    def __init__(self, a_turn: int):
        self.turns, self.done, self._a_turn = 0, 0, a_turn

    def do(self, task, *, pulse):
        self.turns += 1
        yield self.done
        self.done = min(10, self.done + self._a_turn)
        yield self.done


def test_a_scan_that_ran_out_of_its_time_is_asked_for_again(tmp_path):
    library = Scanning(a_turn=4)
    counts = list(gpu_worker(library, ServerSettings(), resident="a model")(scan(tmp_path, 10)))
    assert library.turns == 3 and counts == [0, 4, 4, 8, 8, 10]


def test_a_scan_that_does_not_get_on_is_given_up(tmp_path):
    library = Scanning(a_turn=0)
    with pytest.raises(UserError, match="does not get on"):
        list(gpu_worker(library, ServerSettings(), resident="a model")(scan(tmp_path, 10)))
    assert library.turns == 2


def test_a_real_scan_goes_on_where_its_time_was_up(saes, monkeypatch, tmp_path):
    monkeypatch.setenv("SAE_MULTITOOL_CACHE", str(tmp_path))
    library = Library(dtype="float32", device="cpu", allow_folder=True)
    target = resolve(library, VectorRecipe(sae=str(saes["llama"]), feature=0, weights="vocabulary"))
    to_scan = missing_scan(target)
    # As if each turn's time were over at once: a batch a turn.
    hurried = SimpleNamespace(do=lambda task, pulse: library.do(replace(task, seconds=-1.0, batch=100)))
    counts = list(gpu_worker(hurried, ServerSettings(), resident="a model")(to_scan))
    assert counts == [0, 100, 100, 200, 200, 300, 300, to_scan.n_tokens]
    assert missing_scan(target) is None


def test_a_request_asks_for_its_own_time(client, service):
    service.mode = "no gpu"
    asked = []
    for recipe in ({}, {"cutoff": 1e-2}, {"cutoff": 1e-12, "max_nodes": 20_000, "max_depth": 200}):
        refusal(client, feature=60, **recipe)
        asked.append(service.scheduled[-1].duration)
        assert service.scheduled[-1].size is None  # half a card, at the usual price
    assert asked[1] < asked[0] < asked[2] <= ANONYMOUS_SECONDS


# ── In the browser ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def page(browser, app, service):
    with opened(browser, app.url) as page:
        yield page


def start_growing(page) -> None:
    """A tree of fifty levels that take little each."""
    open_growth(page)
    write(page, "#prompt textarea", SONG)
    write(page, "#cutoff input", "1e-8")
    page.press("#cutoff input", "Enter")
    page.locator("#top-k").get_by_text("1", exact=True).click()
    page.get_by_label("number input for Longest path in tokens").fill("50")
    page.click("#grow")


def wait_for_status(page, pattern: str) -> str:
    """Until the status line matches; what it says."""
    found = page.wait_for_function(
        "pattern => { const said = document.querySelector('#status textarea').value;"
        "             return said.match(pattern) && said }", arg=pattern,
    )
    return found.json_value()


def wait_for_levels(page, levels: int) -> None:
    page.wait_for_function(
        "levels => document.querySelector('#status textarea').value.match(/Growing: ([0-9]+)/)?.[1] >= levels",
        arg=levels,
    )


def nodes_shown(page) -> int:
    return int(re.search(r"(\d+) nodes", wait_for_status(page, "nodes at cutoff"))[1])


def test_stop_frees_the_gpu_and_shows_what_has_grown(page, service, pace):
    start_growing(page)
    wait_for_levels(page, 3)
    page.click("#stop")
    assert service.released(timeout=15 * pace)
    wait_for_status(page, "Not whole")
    assert 3 <= nodes_shown(page) < 50
    assert page.locator("#go-on").is_visible()


def test_stop_works_while_waiting_for_a_gpu(page, service, pace):
    service.gpus, service.queue_limit = 0, 5.0
    start_growing(page)
    wait_until(lambda: service.calls[-1].path == "/schedule")
    wait_for_status(page, "Waiting for a GPU")
    page.click("#stop")
    wait_for_status(page, "686 nodes at cutoff 0.0005")  # the tree that was there before
    service.gpus = 1
    wait_until(lambda: service.running, service.queue_limit, must=False)
    assert service.released(timeout=15 * pace)


def test_a_closed_tab_frees_the_gpu(browser, app, service, pace):
    with opened(browser, app.url) as page:
        start_growing(page)
        wait_for_levels(page, 3)
    assert service.released(timeout=15 * pace)
    assert service.calls[-1].query["fail"] == "false"


def test_a_tab_that_is_closed_in_the_queue_never_gets_a_gpu(browser, app, service):
    service.gpus, service.queue_limit, service.warm = 0, 10.0, False
    before = len(service.calls)
    with opened(browser, app.url) as page:
        start_growing(page)
        wait_until(lambda: service.calls[-1].path == "/schedule")
        wait_for_status(page, "Waiting for a GPU")
    time.sleep(2)  # until the server has seen that the tab is gone
    service.gpus = 1
    wait_until(lambda: service.running, service.queue_limit, must=False)
    assert service.released(timeout=20)
    assert "/allow" not in [call.path for call in service.calls[before:]]  # no worker has begun


def test_a_link_opens_its_feature_and_spends_nothing_before_it_is_asked(browser, app, service):
    at_rest(service)
    link, before = f"{app.url}/?sae={DEMO}&feature={next(FRESH)}&cutoff=0.01&max_depth=1", len(service.calls)
    with opened(browser, link, shows="#tree-view .empty") as page:
        wait_for_status(page, "takes some of your time on a GPU. Press “Grow tree” to see it")
        open_growth(page)
        assert page.input_value("#feature input") in link and page.input_value("#cutoff input") == "1e-2"
        assert page.locator("#tree-title p").count() == 0
        assert len(service.calls) == before
        page.click("#grow")
        page.wait_for_selector("#tree-view .explorer:not(.empty)")
        assert service.released(timeout=20) and len(service.calls) > before
        after = len(service.calls)
        page.reload()  # it is kept now, and costs nothing
        page.wait_for_selector("#tree-view .explorer:not(.empty)")
        wait_for_status(page, "nodes at cutoff 0.01")
        assert len(service.calls) == after
    with opened(browser, f"{app.url}/?feature={next(FRESH)}&cutoff=0.01&max_depth=1&grow=1") as page:
        wait_for_status(page, "nodes at cutoff 0.01")
        assert len(service.calls) > after


def test_a_tree_that_runs_out_of_time_goes_on_at_a_click(browser, hurried):
    at_rest(hurried[1])
    with opened(browser, hurried[0].url) as page:
        start_growing(page)
        wait_for_status(page, "Not whole: “Go on” grows the rest")
        levels = nodes_shown(page)
        assert 0 < levels < 50
        page.click("#go-on")
        wait_for_levels(page, levels + 1)
        assert nodes_shown(page) > levels


def test_a_tree_whose_worker_was_killed_goes_on_at_a_click(page, service):
    start_growing(page)
    wait_for_levels(page, 3)
    service.kill_workers()
    toast = page.locator(".toast-body", has_text="The GPU was taken away")
    toast.wait_for()
    assert "What had grown by then is kept" in toast.inner_text()
    wait_for_status(page, "Not whole")
    levels = nodes_shown(page)
    assert 3 <= levels < 50
    page.click("#go-on")
    wait_for_levels(page, levels + 1)
    page.click("#stop")
    assert nodes_shown(page) > levels


def test_a_refusal_is_told_on_the_page_and_lists_go_on(page, service):
    service.mode = "quota"
    start_growing(page)
    toast = page.locator(".toast-body", has_text=USED_UP)
    toast.wait_for()
    assert "a larger cutoff" in toast.inner_text() and "<" not in toast.inner_text()
    wait_for_status(page, USED_UP)  # and no tree of other controls
    page.wait_for_selector("#tree-view .empty")
    page.get_by_role("tab", name="Token list").click()
    page.click("#list")
    page.locator("#tokens [role=gridcell]", has_text="␣rain").first.wait_for()


# ── The source ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_before_spaces_nothing_is_imported_that_may_touch_cuda():
    before = []
    for node in ast.parse((ROOT / "app.py").read_text(encoding="utf-8")).body:
        match node:
            case ast.Import(names=[ast.alias(name="spaces")]):
                break
            case ast.Import(names=names):
                before += [alias.name for alias in names]
            case ast.ImportFrom(module=module):
                before.append(module)
    else:
        raise AssertionError("app.py does not import spaces")
    told = subprocess.check_output(
        [sys.executable, "-c", f"import sys, {', '.join(before)}; print(*sys.modules)"], cwd=ROOT, text=True
    )
    assert set(before) <= set(told.split())
    assert not {"torch", "gradio", "spaces", "numpy", "transformers"} & set(told.split())


def test_one_function_runs_on_the_gpu_and_it_can_be_stopped():
    """Each would have workers of its own. Only a generator ends when its visitor leaves."""
    files = [ROOT / "app.py", *(ROOT / "multitool").rglob("*.py")]
    functions = [
        node
        for file in files
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        and any("GPU" in ast.unparse(decorator) for decorator in node.decorator_list)
    ]
    assert len(functions) == 1
    assert any(isinstance(node, (ast.Yield, ast.YieldFrom)) for node in ast.walk(functions[0]))
    assert sum(file.read_text(encoding="utf-8").count("spaces.GPU(") for file in files) == 1
