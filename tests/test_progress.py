"""How far work is: the time that is left, and what is told of it on a terminal and elsewhere."""

import os

import pytest

from multitool.cli import telling as telling_module
from multitool.cli.telling import Telling
from multitool.jobs.progress import Progress, left_told, seconds_left

SCAN = Progress("Scanning", 0, 1000, "tokens", kept=True)


def test_the_rest_takes_as_long_as_what_was_done_at_that_rate():
    assert seconds_left(100, 400, 0, 10.0) == 30.0
    # 100 were there before: the other 100 took the time.
    assert seconds_left(200, 400, 100, 10.0) == 20.0


def test_nothing_tells_how_long_it_takes_before_something_is_done_nor_after_all_is():
    assert seconds_left(100, 400, 100, 10.0) is None
    assert seconds_left(400, 400, 0, 10.0) is None


@pytest.mark.parametrize(("seconds", "told"), [
    (0.2, "1 s"), (9.4, "9 s"), (9.8, "10 s"), (41, "40 s"), (92, "90 s"), (93, "2 min"), (3000, "50 min"),
    (5369, "89 min"), (5400, "1 h 30 min"), (7200, "2 h"), (7600, "2 h 10 min"), (100_000, "27 h 50 min"),
])
def test_a_time_is_told_as_a_person_says_it(seconds, told):
    assert left_told(seconds) == f"about {told} left"


def test_numbers_stand_with_what_is_counted():
    assert Progress("Scanning", 12_300, 49_152, "tokens").numbers == "12,300 of 49,152 tokens"
    assert Progress("Trying", 3, 43).numbers == "3 of 43"


@pytest.fixture
def clock():
    """A clock that stands until it is moved."""

    class Clock:
        now = 0.0

        def __call__(self) -> float:
            return self.now

    return Clock()


@pytest.fixture
def telling(clock):
    return Telling(clock)


@pytest.fixture
def terminal(monkeypatch):
    monkeypatch.setattr(telling_module, "on_terminal", lambda: True)
    monkeypatch.setattr("shutil.get_terminal_size", lambda: os.terminal_size((60, 20)))


def scan(telling: Telling, clock, *steps: tuple[float, int]) -> None:
    for now, done in steps:
        clock.now = now
        telling.tell(Progress("Scanning", done, 1000, "tokens", kept=True))


def test_elsewhere_a_line_is_told_now_and_then(telling, clock, capsys):
    scan(telling, clock, (0, 0), (5, 100), (29, 200), (30, 300), (59, 400), (70, 1000), (71, 1000))
    telling.leave()
    assert capsys.readouterr() == ("", "".join(f"multitool: Scanning: {told}\n" for told in (
        "0 of 1,000 tokens", "300 of 1,000 tokens · about 70 s left", "1,000 of 1,000 tokens"
    )))


def test_on_a_terminal_one_line_is_written_again_and_again(telling, clock, terminal, capsys):
    scan(telling, clock, (0, 0), (10, 500), (20, 1000))
    first = "multitool: Scanning: 500 of 1,000 tokens · about 10 s left"
    last = "multitool: Scanning: 1,000 of 1,000 tokens"
    assert capsys.readouterr().err.split("\r") == [
        "", "multitool: Scanning: 0 of 1,000 tokens", first, last.ljust(len(first)) + "\n"
    ]


def test_a_line_is_never_wider_than_the_terminal_and_its_numbers_stay(telling, terminal, capsys):
    telling.tell(Progress("Scanning the vocabulary (once for this model and layer)", 10, 1000, "tokens", kept=True))
    assert capsys.readouterr().err == "\rmultitool: Scanning the vocabulary: 10 of 1,000 tokens"
    telling.leave()
    capsys.readouterr()
    telling.tell(Progress("Carrying all directions back through the layers", 10, 1000, "directions", kept=True))
    line = capsys.readouterr().err.lstrip("\r")
    assert line.startswith("multitool: Carrying all d") and line.endswith("…: 10 of 1,000 directions")
    assert len(line) == 59


def test_what_is_left_before_its_end_goes_from_the_terminal(telling, clock, terminal, capsys):
    scan(telling, clock, (0, 0))
    telling.leave()
    telling.leave()
    line = "multitool: Scanning: 0 of 1,000 tokens"
    assert capsys.readouterr().err == f"\r{line}\r{' ' * len(line)}\r"


def test_another_scan_begins_anew(telling, clock, capsys):
    scan(telling, clock, (0, 0), (100, 1000), (200, 0), (240, 400))
    assert "400 of 1,000 tokens · about 60 s left" in capsys.readouterr().err


def test_what_is_soon_done_and_not_kept_is_not_told(telling, clock, capsys):
    for now, done in ((0, 0), (1, 43), (1, 0), (2, 20), (3, 30), (4, 43)):
        clock.now = now
        telling.tell(Progress("Trying", done, 43))
    assert capsys.readouterr().err == "multitool: Trying: 30 of 43 · about 1 s left\nmultitool: Trying: 43 of 43\n"


def test_a_growing_tree_tells_its_nodes_once_it_takes_long(telling, clock, capsys):
    for now, nodes in ((0, 1), (1, 5), (3, 20), (4, 50), (40, 300)):
        clock.now = now
        telling.tell_growth(nodes)
    assert capsys.readouterr().err.splitlines() == [
        "multitool: Growing the tree: 20 nodes", "multitool: Growing the tree: 300 nodes"
    ]


def test_a_download_is_told_in_megabytes_and_a_small_one_not(telling, clock, capsys):
    for now, there in ((0, 0), (10, 30_000_000), (40, 60_000_000), (60, 92_500_000), (60, 92_500_000)):
        clock.now = now
        telling.tell_download("a model", there, 92_500_000)
    telling.tell_download("a file", 0, 4000)
    telling.tell_download("nothing", 0, 0)
    assert capsys.readouterr().err.splitlines() == [
        "multitool: Fetching a model: 0 of 93 MB", "multitool: Fetching a model: 60 of 93 MB · about 20 s left",
        "multitool: Fetching a model: 93 of 93 MB",
    ]


def test_quiet_tells_nothing_of_it(telling, clock, terminal, capsys):
    telling.quiet = True
    scan(telling, clock, (0, 0), (100, 500), (200, 1000))
    telling.tell_line("3 of 8", whole=False)
    telling.leave()
    assert capsys.readouterr() == ("", "")
