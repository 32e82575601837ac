"""Uploads and results on disk stay within a bound of bytes; what an earlier run has left is cleared."""

import os
import threading
from pathlib import Path

import pytest

from multitool.page import served_files
from multitool.page.gradio_workarounds import write_served
from multitool.page.served_files import clear_empty, keep_served, keep_within


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    return tmp_path


def upload(folder: Path, name: str, at: float, n_bytes: int = 20_000) -> Path:
    """A file in a folder of its own, as Gradio keeps uploads."""
    file = folder / f"hash-of-{name}" / name
    file.parent.mkdir()
    file.write_bytes(b"x" * n_bytes)
    os.utime(file, (at, at))
    os.utime(file.parent, (at, at))
    return file


def test_the_oldest_go_first(folder):
    files = [upload(folder, f"{i}.json", at=1000 + i) for i in range(30)]
    keep_within(folder, 100_000)
    assert [file for file in files if file.exists()] == files[-5:]


def test_what_the_page_itself_offers_stays_and_does_not_count(folder):
    files = [upload(folder, f"{i}.json", at=1000 + i) for i in range(4)]
    keep_within(folder, 20_000, frozenset(files[:1]))
    assert [file for file in files if file.exists()] == [files[0], files[3]]


def test_many_empty_files_count_as_what_they_take(folder):
    files = [upload(folder, f"{i}.json", at=1000 + i, n_bytes=0) for i in range(10)]
    keep_within(folder, 3 * 4096)
    assert [file for file in files if file.exists()] == files[-3:]


def test_a_link_is_deleted_and_not_what_it_leads_to(folder, tmp_path_factory):
    own = tmp_path_factory.mktemp("own") / "precious"
    own.write_bytes(b"x" * 50_000)
    (folder / "link").symlink_to(own)
    (folder / "linked").symlink_to(own.parent)
    keep_within(folder, 0)
    assert own.exists() and not (folder / "link").is_symlink()


def test_empty_folders_go_but_for_those_that_somebody_may_be_about_to_write_into(folder):
    kept = upload(folder, "kept", at=1000)
    for name, at in (("old", 1000), ("new", 4900)):
        (folder / name).mkdir()
        os.utime(folder / name, (at, at))
    clear_empty(folder, now=5000)
    assert sorted(path.name for path in folder.iterdir()) == ["hash-of-kept", "new"] and kept.exists()


def test_from_the_start_on_the_folder_is_kept_within_its_bound_without_what_the_page_wrote(folder, monkeypatch):
    """The first round, and what the next ones would do."""
    left, own = upload(folder, "left", at=1000), upload(folder, "own", at=2000)
    kept, turns = threading.Event(), []
    monkeypatch.setattr(served_files, "keep_within", lambda *asked: turns.append(asked) or kept.set())
    monkeypatch.setattr(served_files, "_EVERY", 1000)
    keep_served(10, since=1500)
    assert kept.wait(20)
    assert turns == [(folder, 10e6, frozenset({own}))] and left.exists()


def test_on_ones_own_machine_other_programs_files_are_left_alone(folder, monkeypatch):
    monkeypatch.setattr(served_files, "keep_within", None)
    file = upload(folder, "somebody's", at=1000)
    keep_served(None, since=1500)
    assert file.exists()


def test_a_file_that_is_there_is_not_written_again_while_others_read_it(folder):
    """Nor is it ever there by half."""
    path = Path(write_served(b"tree", "tree.json"))
    os.utime(path, (1000, 1000))
    inode = path.stat().st_ino
    assert write_served(b"tree", "tree.json") == str(path)
    assert path.stat().st_ino == inode and path.stat().st_mtime > 1000, "and it is a new one to who clears old ones"
    path.write_bytes(b"tr")  # a process that was ended
    write_served(b"tree", "tree.json")
    assert path.read_bytes() == b"tree" and [*path.parent.iterdir()] == [path]
