"""A public app under load, through a real server: the model is a stand-in that works until the test lets it end."""

import threading
import time
from types import SimpleNamespace

import httpx
import pytest
from gradio_client import Client
from gradio_client.exceptions import AppError

from multitool.page.build import launch_options
from multitool.page.callers import Callers
from multitool.page.endpoints import add_endpoints
from multitool.page.gradio_workarounds import Page
from multitool.page.settings import ServerSettings
from multitool.page.zero_gpu import gpu_worker
from multitool.recipes.recipe import VectorRecipe
from multitool.store.capacity import Machine

pytestmark = pytest.mark.slow

CALLS = 3  # of one caller
SETTINGS = ServerSettings(calls=CALLS, queue=8, states=20)
GREEDY, OTHER = "93.184.216.34", "93.184.216.35"


class Model:
    """Works until it may end."""

    def __init__(self):
        self.may_end, self.working, self.left = threading.Event(), 0, 0

    def do(self, task, *, pulse):
        self.working += 1
        try:
            while not self.may_end.wait(0.02):
                yield None
            yield ("done",)
        finally:
            self.left += 1


class Activity(SimpleNamespace):
    settings = SETTINGS
    library = SimpleNamespace(patterns=("demo",), machine=Machine("cpu", None, None))

    def __init__(self, model):
        self.callers, self.light_callers = Callers(CALLS, SETTINGS.queue + SETTINGS.concurrency), Callers(16)
        self._work = gpu_worker(model, SETTINGS, "m", poll_seconds=0.02)

    def activity(self, recipe, text):
        answers = []
        for answer in self._work(SimpleTask()):
            answers.append(answer)
            yield "Waiting …"
        yield [(text, 1.0)] if answers[-1] else []


class SimpleTask:
    seconds = None


@pytest.fixture(scope="module")
def server():
    model = Model()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("multitool.page.endpoints._STILL_THERE", 0.02)
        patch.setattr("multitool.page.zero_gpu.replace", lambda task, **_: task)
        with Page() as page:
            add_endpoints(page, Activity(model), VectorRecipe(sae="demo/hook_embed", feature=1))
        page.queue(max_size=None, default_concurrency_limit=None)
        options = launch_options(SETTINGS) | {"mcp_server": False}
        _, url, _ = page.launch(prevent_thread_lock=True, quiet=True, **options)
        yield SimpleNamespace(url=url, model=model, page=page)
        page.close()


@pytest.fixture
def model(server):
    server.model.may_end.clear()
    server.model.working = server.model.left = 0
    yield server.model
    server.model.may_end.set()
    until(lambda: server.model.left == server.model.working)


def until(there, seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not there():
        assert time.monotonic() < end, "it never came to that"
        time.sleep(0.02)


def client(server, caller: str) -> Client:
    return Client(server.url, verbose=False, headers={"X-Forwarded-For": caller})


def test_one_caller_who_asks_for_much_shuts_out_nobody(server, model):
    greedy, other = client(server, GREEDY), client(server, OTHER)
    jobs = [greedy.submit(text=str(number), api_name="/activity") for number in range(12)]
    until(lambda: sum(job.done() for job in jobs) == 12 - CALLS)
    refused = [job for job in jobs if job.done()]
    for job in refused:
        with pytest.raises(AppError, match=f"may have {CALLS} requests running or waiting here"):
            job.result()
    # Lists and all that takes no model go on, for everybody; and another caller's model work comes next.
    assert other.predict("demo/hook_embed", api_name="/saes") and greedy.predict("demo/", api_name="/saes")
    mine = other.submit(text="mine", api_name="/activity")
    until(lambda: model.working == 1)
    model.may_end.set()
    assert mine.result(timeout=20) == [{"token": "mine", "activation": 1.0}]
    assert all(job.result(timeout=20) for job in jobs if job not in refused)


def test_a_program_that_has_left_ends_its_work(server, model):
    with httpx.Client(base_url=server.url, headers={"X-Forwarded-For": GREEDY}, trust_env=False) as program:
        event = program.post("/gradio_api/call/v2/activity", json={"text": "a"}).json()["event_id"]
        with program.stream("GET", f"/gradio_api/call/v2/activity/{event}") as stream:
            next(stream.iter_lines())
            until(lambda: model.working == 1)
    until(lambda: model.left == 1)


def test_states_are_kept_within_their_bound(server, model):
    """Should Gradio change how it counts them, a visitor's half megabyte would be kept for ever."""
    model.may_end.set()
    with httpx.Client(base_url=server.url, trust_env=False) as program:
        for _ in range(SETTINGS.states + 5):
            event = program.post("/gradio_api/call/v2/saes", json={"search": "none such"}).json()["event_id"]
            program.get(f"/gradio_api/call/v2/saes/{event}")
    assert len(server.page.state_holder.session_data) <= SETTINGS.states
