"""What a run that was ended on the way has left in the cache."""

import os

from multitool.store.folders import clear_leftovers

HOUR = 3600


def folder(path, *, changed: float, within: float | None = None):
    """An unfinished folder with a file in it."""
    (path / "work").mkdir(parents=True)
    file = path / "work" / "model.gguf"
    file.write_bytes(b"x")
    os.utime(file, (within or changed,) * 2)
    for one in (path / "work", path):
        os.utime(one, (changed, changed))
    return path


def test_what_was_left_hours_ago_is_cleared_and_the_rest_stays(tmp_path, monkeypatch):
    monkeypatch.setenv("SAE_MULTITOOL_CACHE", str(tmp_path))
    old = folder(tmp_path / "unfinished-a", changed=1000), folder(tmp_path / "scans" / "unfinished-b", changed=1000)
    at_work = folder(tmp_path / "unfinished-c", changed=1000, within=1000 + 20 * HOUR)
    whole = folder(tmp_path / "SmolLM2", changed=1000)
    elsewhere = folder(tmp_path / "elsewhere", changed=1000)
    (tmp_path / "unfinished-link").symlink_to(elsewhere)
    clear_leftovers(now=1000 + 21 * HOUR)
    assert not any(path.exists() for path in old)
    assert at_work.exists() and whole.exists() and (elsewhere / "work" / "model.gguf").exists()
    clear_leftovers(now=1000 + 30 * HOUR)
    assert not at_work.exists()


def test_without_a_cache_there_is_nothing_to_clear(tmp_path, monkeypatch):
    monkeypatch.setenv("SAE_MULTITOOL_CACHE", str(tmp_path / "none"))
    clear_leftovers()
    assert not list(tmp_path.iterdir())
