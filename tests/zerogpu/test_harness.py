"""The harness itself: that an app under it meets what it would meet on ZeroGPU."""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from device_service import DeviceService, visitor_token
from gradio_client import Client
from gradio_client.exceptions import AppError
from running import start_app

TOY_APP = Path(__file__).with_name("toy_app.py")


@pytest.fixture(scope="module")
def started():
    with DeviceService() as service:
        with start_app(TOY_APP, service) as app:
            yield app, service
            wait_for_answers(Client(app.url, verbose=False).submit(2000, 0.1, api_name="/count"))
        deadline = time.monotonic() + 5
        while left := [pid for pid in service.workers if _lives(pid)]:
            assert time.monotonic() < deadline, f"the app is gone, and its workers {left} are not"
            time.sleep(0.05)


def _lives(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


@pytest.fixture
def app(started):
    return started[0]


@pytest.fixture
def service(started):
    """The device service of the running app, with its usual settings and no task at work."""
    service = started[1]
    assert service.released()
    service.mode, service.warm, service.gpus, service.kills, service.queue_limit = "ok", True, 2, False, 1.0
    yield service
    assert service.released()


@pytest.fixture
def client(app, service):
    return Client(app.url, verbose=False)


def answers(client, **arguments) -> list[dict]:
    job = client.submit(api_name="/count", **arguments)
    job.result(timeout=30)
    return job.outputs()


def wait_for_answers(job, count: int = 1) -> None:
    deadline = time.monotonic() + 30
    while len(job.outputs()) < count:
        assert time.monotonic() < deadline and not job.done()
        time.sleep(0.05)


def test_the_app_reports_its_start(service):
    assert service.calls[0].path == "/startup-report"


def test_a_generator_streams(client):
    job = client.submit(3, 1.0, api_name="/count")
    wait_for_answers(job)
    assert not job.done()
    job.result(timeout=30)
    assert [answer["step"] for answer in job.outputs()] == [0, 1, 2]


def test_tensors_hold_their_numbers_in_the_worker_only(client, app):
    inside = answers(client)[-1]
    assert (inside["device"], inside["is_cuda"], inside["product"]) == ("cuda:0", True, 100.0)
    assert inside["pid"] != app.process.pid
    outside = client.predict(api_name="/outside")
    assert outside == {"pid": app.process.pid, "numbers": [0.0] * 4, "device": "cpu"}


def test_a_warm_worker_keeps_what_it_loaded_and_a_cold_one_begins_anew(client, service):
    first, second = (answers(client)[-1] for _ in range(2))
    service.warm = False
    third = answers(client)[-1]
    assert second["pid"] == first["pid"] and second["calls"] == first["calls"] + 1
    assert third["pid"] != first["pid"] and third["calls"] == 1
    assert {first["product"], second["product"], third["product"]} == {100.0}


def test_the_requested_duration_is_the_declared_one_and_a_half_times(client, service):
    answers(client, seconds=22)
    assert service.scheduled[-1].duration == 22 * 1.5
    assert service.scheduled[-1].token is None


@pytest.mark.parametrize("leave", ["cancel", "close"])
def test_leaving_ends_the_work_at_the_next_yield(client, app, service, leave):
    begin = len(app.printed())
    if leave == "cancel":
        job = client.submit(200, 0.1, api_name="/count")
        wait_for_answers(job, 3)
        job.cancel()
    else:
        _read_a_little(app.url)
    assert service.released(timeout=5)
    assert service.calls[-1].path == "/release" and service.calls[-1].query["fail"] == "false"
    report = app.printed()[begin:]
    assert "left at step" in report and "left at step 200" not in report


def _read_a_little(url: str) -> None:
    """Call /count as curl would, and close the connection in the middle."""
    call = f"{url}/gradio_api/call/count"
    event = httpx.post(call, json={"data": [200, 0.1, "", 20]}).json()["event_id"]
    with httpx.stream("GET", f"{call}/{event}") as stream:
        lines = stream.iter_lines()
        while "step" not in next(lines):
            pass


@pytest.mark.parametrize(
    ("mode", "user", "title", "message"),
    [
        ("quota", None, "ZeroGPU quota exceeded", "Space app has reached its GPU limit"),
        ("quota", "anonymous", "ZeroGPU quota exceeded", "exceeded your ZeroGPU quota (30s requested vs. 3s left)"),
        ("quota", "somebody", "ZeroGPU quota exceeded", "exceeded your free ZeroGPU quota (30s requested vs. 3s left)"),
        ("runs", "somebody", "ZeroGPU quota exceeded", "exceeded your ZeroGPU runs limit"),
        ("illegal duration", "somebody", "ZeroGPU illegal duration", "duration (30s) is larger than the maximum"),
        ("pending credits", "somebody", "ZeroGPU pending credits exceeded", "Try again once"),
        ("no gpu", None, "ZeroGPU client error", "No GPU was available"),
        ("queue timeout", None, "ZeroGPU quota exceeded", "No GPU was available after 60s"),
        ("queue timeout", "somebody", "ZeroGPU queue timeout", "No GPU was available after 60s"),
    ],
)
def test_refusals_reach_the_client(app, service, mode, user, title, message):
    token = visitor_token(None if user == "anonymous" else user) if user else None
    visitor = Client(app.url, verbose=False, headers={"X-IP-Token": token} if token else {})
    service.mode = mode
    with pytest.raises(AppError) as refusal:
        answers(visitor)
    assert refusal.value.title == title
    assert message in str(refusal.value)
    assert service.scheduled[-1].token == token


@pytest.mark.parametrize(
    ("fault", "title", "message"),
    [
        ("told", "Told", "what went wrong"),
        ("untold", "ZeroGPU worker error", "ValueError"),
        ("devices mixed", "ZeroGPU worker error", "RuntimeError"),
        ("numpy", "ZeroGPU worker error", "TypeError"),
        ("GPU tensor", "ZeroGPU worker error", "PicklingError"),
    ],
)
def test_errors_in_the_worker_reach_the_client_and_end_the_worker(client, service, fault, title, message):
    before = answers(client)[-1]
    with pytest.raises(AppError) as error:
        answers(client, fault=fault)
    assert (error.value.title, str(error.value)) == (title, message)
    assert service.released() and service.calls[-1].query["fail"] == "true"
    assert answers(client)[-1]["pid"] != before["pid"]


def test_a_killed_worker_aborts_the_task(client, service):
    job = client.submit(200, 0.1, api_name="/count")
    wait_for_answers(job)
    service.kill_workers()
    with pytest.raises(AppError, match="GPU task aborted") as aborted:
        job.result(timeout=10)
    assert aborted.value.title == "ZeroGPU worker error"
    assert answers(client)[-1]["calls"] == 1


def test_a_task_that_overruns_is_killed(client, service):
    service.kills = True
    job = client.submit(200, 0.1, "", 1, api_name="/count")
    with pytest.raises(AppError, match="GPU task aborted"):
        job.result(timeout=10)
    assert 0 < len(job.outputs()) < 200


def test_two_tasks_at_once_have_a_worker_each_and_a_third_waits(client, service):
    service.gpus, service.queue_limit = 2, 20.0
    with ThreadPoolExecutor(3) as visitors:
        found = list(visitors.map(lambda _: answers(client, steps=6, pause=0.3), range(3)))
    pids = [{answer["pid"] for answer in one} for one in found]
    assert [len(one) for one in pids] == [1, 1, 1] and len(set.union(*pids)) == 2
    assert all(len(one) == 6 for one in found)
