"""The model's work for visitors: in turn, within its time, and left where its listener has gone. No model is needed."""

import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from multitool.errors import UserError
from multitool.jobs.steps import Ask, Grow
from multitool.model.tasks import AskTask, Place, ReadTask
from multitool.page import zero_gpu
from multitool.page.callers import Waiting
from multitool.page.service import Service
from multitool.page.settings import ServerSettings
from multitool.page.zero_gpu import gpu_worker
from multitool.recipes.recipe import TreeRecipe, VectorRecipe
from multitool.store.scans import ScanTask

TASK = ReadTask(model="m", folder=Path("m"), place=Place("hook_embed", None), texts=[(1,)])


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still but for what the test adds."""
    now = SimpleNamespace(seconds=0.0)
    for module in ("multitool.page.zero_gpu", "multitool.page.service"):
        monkeypatch.setattr(f"{module}.time", SimpleNamespace(monotonic=lambda: now.seconds))
    return now


class Model:
    """A library whose tasks take ``steps`` of a second before they are answered."""

    def __init__(self, clock, steps: int):
        self.clock, self.steps, self.tasks, self.done, self.left = clock, steps, [], 0, threading.Event()

    def do(self, task, *, pulse):
        self.tasks.append(task)
        try:
            for _ in range(self.steps):
                self.clock.seconds += 1
                self.done += 1
                yield None
            yield "answer",
        finally:
            self.left.set()


def worker(model, **settings):
    return gpu_worker(model, ServerSettings(**settings), "m", poll_seconds=0)


def test_work_that_takes_longer_than_one_request_may_ends_with_a_sentence(clock):
    model = Model(clock, steps=100)
    with pytest.raises(UserError, match=r"may work 5 s for one request here \(SAE_MULTITOOL_SECONDS\)"):
        list(worker(model, seconds=5)(TASK))
    assert model.done == 6 and model.left.is_set()
    assert list(worker(Model(clock, steps=100))(TASK))[-1] == ("answer",), "on one's own machine it takes its time"


def test_a_request_that_leaves_ends_its_work_at_the_next_step_and_frees_the_model(clock):
    model = Model(clock, steps=100)
    work = worker(model)
    answers = work(TASK)
    next(answers), next(answers)
    other = work(TASK)
    assert isinstance(next(other), Waiting)
    answers.close()
    assert model.left.wait(20) and model.done == 2
    while isinstance(next(other), Waiting):
        pass
    assert len(model.tasks) == 2


def test_one_who_waits_and_leaves_never_reaches_the_model(clock):
    model = Model(clock, steps=3)
    work = worker(model)
    first, second = work(TASK), work(TASK)
    next(first), next(second)
    second.close()
    list(first)
    assert len(model.tasks) == 1


def test_an_error_frees_the_model():
    def broken(task, *, pulse):
        raise UserError("no memory")
        yield

    work = worker(SimpleNamespace(do=broken))
    for _ in range(3):
        with pytest.raises(UserError, match="no memory"):
            list(work(TASK))


def test_work_whose_time_cannot_be_told_leaves_the_line(tmp_path):
    """Its model's files have gone while it waited: what would ask for a GPU raises."""
    gone = SimpleNamespace(glob=lambda pattern: [tmp_path / "model.safetensors"])
    work = gpu_worker(SimpleNamespace(), ServerSettings(zero_gpu=True, seconds=9), "another", poll_seconds=0)
    for _ in range(2):
        with pytest.raises(FileNotFoundError):
            list(work(replace(TASK, folder=gone)))


def test_a_scan_lets_those_who_wait_come_first_now_and_then(clock, tmp_path):
    asked = []

    def scan(task, *, pulse):
        asked.append(task.seconds)
        yield min(10 * (len(asked) - 1), 30)
        yield min(10 * len(asked), 30)

    task = ScanTask(
        model="m", folder=tmp_path, path=tmp_path, hook="hook_embed", n_tokens=30, d_model=1, bos_id=None,
        dtype="float32",
    )
    assert list(worker(SimpleNamespace(do=scan), seconds=300)(task))[-1] == 30
    assert asked == [zero_gpu._ROWS_TURN] * 3


# ── The time of a whole request ─────────────────────────────────────────────────────────────────────────────────────


def service(clock, work, **settings) -> Service:
    entry = SimpleNamespace(name="x/y", model="m")
    library = SimpleNamespace(
        find=lambda name: entry, place=lambda name: entry, progress=lambda entry: "", state=lambda name: 0
    )
    return Service(library, ServerSettings(**settings), work, poll_seconds=0)


def asking(n: int):
    """A job that asks the model so many times, one after the other."""
    for i in range(n):
        yield Ask((ReadTask(**vars(TASK) | {"texts": [(i,)]}),), "check")
    return "done"


def test_the_tasks_of_one_request_share_its_time_and_waiting_takes_none_of_it(clock):
    given = []

    def work(task):
        given.append(task.seconds)
        clock.seconds += 1000
        yield Waiting(3)
        clock.seconds += 4
        yield "answer"

    found = service(clock, work, seconds=10)
    words = []
    with pytest.raises(UserError, match="may work 10 s for one request"):
        for said in found._run("x/y", asking(5)):
            words.append(said)
    assert given == [10, 6, 2]
    assert "Waiting for the model: 3 before you …" in words
    given.clear()
    list(service(clock, work)._run("x/y", asking(5)))
    assert given == [None] * 5
    given.clear()
    list(service(clock, work, seconds=10, zero_gpu=True)._run("x/y", asking(5)))
    assert given == [None] * 5, "each loan of a GPU has a time of its own"


def test_of_many_ghosts_it_is_told_how_many_have_answered_from_the_first_moment_on(clock):
    def work(task):
        yield from (Waiting(1), None, ["a"], None, ["b", "c"])

    growth = SimpleNamespace(v=[1, 2, 3])
    ask = Ask((AskTask(model="m", folder=Path("m"), place=TASK.place, growth=growth, n_definitions=1),), "candidates")
    said = [*service(clock, work)._asked("x/y", ask, service(clock, None)._budget())]
    assert said == ["Starting …", "Waiting for the model: 1 before you …", *(
        f"Settings tried: {n} of 3" for n in (0, 1, 1, 3)
    )]


def test_several_trees_have_equal_parts_of_the_time_and_come_back_as_far_as_they_got(clock, monkeypatch):
    given = []

    def work(task):
        given.append(task.seconds)
        clock.seconds += min(task.seconds, 2)
        yield SimpleNamespace(tree=[len(given)])

    def grown(tree):
        return (yield Grow(TASK, lambda growth: growth, None))

    monkeypatch.setattr("multitool.page.service.with_weights", lambda library, vector: vector)
    monkeypatch.setattr("multitool.page.service.prepare_trees", lambda *_: iter_job([None] * 3))
    monkeypatch.setattr("multitool.page.service.grown", grown)
    trees = [TreeRecipe(cutoff=cutoff) for cutoff in (0.1, 0.2, 0.3)]
    *_, last = service(clock, work, seconds=9).trees_of_prompts(VectorRecipe(sae="x/y", feature=1), trees)
    assert given == [3, 3.5, 5]
    assert len(last) == 3


def iter_job(result):
    return result
    yield


def test_a_tree_without_time_left_comes_back_as_it_began(clock):
    found = service(clock, None, seconds=10)
    budget = found._budget()
    budget.used = 10.0
    assert list(found._grown(Grow(TASK, None, "as it began"), budget))[-1] == "as it began"
