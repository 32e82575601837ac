"""The vocabulary scan: the numbers, going on after a stop, two at once, a full disk, the limit on all scans."""

import json
import os
import pickle
import shutil
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import N_ROWS, tiny_model, write_model

from multitool.errors import UserError
from multitool.model.residual_stream import residuals
from multitool.store import kept_rows, scans
from multitool.store.demo_models import DEMO_MODEL
from multitool.store.kept_rows import open_rows
from multitool.store.scans import scan_path, scan_task, scan_vocabulary
from multitool.store.worker import work_on

HOOK = "blocks.1.hook_resid_post"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SAE_MULTITOOL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def llama():
    return tiny_model("llama")


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.safetensors").write_bytes(b"weights")
    return tmp_path / "model"


def task(folder: Path, hook: str = HOOK, *, model: str = "tiny/llama", bos_id: int | None = 0, dtype: str = "float32"):
    whole = scan_task(model, folder, hook, n_tokens=N_ROWS, d_model=32, bos_id=bos_id, dtype=dtype)
    return replace(whole, batch=100)


def scanned(model, a_task, **limit):
    *_, last = scan_vocabulary(model, a_task, **limit)
    assert last == N_ROWS
    return open_rows(a_task)


def close(one, other, tolerance=1e-3):
    return one.shape == other.shape and bool(((one - other).norm(dim=1) <= tolerance * other.norm(dim=1)).all())


def by_hand(model, hook: str, bos_id: int | None) -> torch.Tensor:
    ids = torch.arange(N_ROWS)[:, None]
    if bos_id is not None:
        ids = torch.cat([torch.full_like(ids, bos_id), ids], dim=1)
    return residuals(model, hook, input_ids=ids)[:, -1].cpu()


def refusal(call, *args) -> str:
    with pytest.raises(UserError) as caught:
        list(call(*args))
    message = str(caught.value)
    assert len(message) < 600
    assert "\n" not in message
    return message


@pytest.mark.cuda
def test_every_token_is_read_behind_the_token_that_begins_a_text(subject, architecture, folder):
    for bos_id in (7, None):
        a_task = task(folder, model=f"tiny/{architecture}", bos_id=bos_id)
        done = list(scan_vocabulary(subject.model, a_task))
        assert done == [0, 100, 200, 300, N_ROWS]
        found = open_rows(a_task).part(0, N_ROWS)
        assert found.dtype == torch.float32
        assert close(found, by_hand(subject.model, HOOK, bos_id))


def test_the_embeddings_too(llama, folder):
    assert close(scanned(llama, task(folder, "hook_embed")).part(0, N_ROWS), llama.get_input_embeddings().weight)


def test_a_row_that_is_too_large_for_half_precision_or_nothing_at_all(llama, folder):
    E = llama.get_input_embeddings().weight
    E[3], E[4] = 0, 1e10
    found = scanned(llama, task(folder, "hook_embed")).part(0, N_ROWS)
    assert torch.equal(found[3], torch.zeros(32))
    assert torch.allclose(found[4], E[4], rtol=1e-3)


def test_what_lies_on_disk_is_each_row_of_norm_one_and_the_norms(llama, folder):
    a_task = task(folder, "hook_embed")
    scanned(llama, a_task)
    rows = np.fromfile(a_task.path / "residuals.float16", np.float16).reshape(N_ROWS, 32).astype(np.float32)
    norms = np.fromfile(a_task.path / "norms.float32", np.float32)
    E = llama.get_input_embeddings().weight.numpy()
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, rtol=1e-3)
    np.testing.assert_allclose(norms, np.linalg.norm(E, axis=1), rtol=1e-6)
    told = json.loads((a_task.path / "task.json").read_text())
    assert (told["model"], told["hook"], told["n_tokens"], told["d_model"]) == ("tiny/llama", "hook_embed", N_ROWS, 32)
    assert list(a_task.path.parent.iterdir()) == [a_task.path]


def test_parts_are_those_of_the_whole(llama, folder):
    found = scanned(llama, task(folder))
    whole = found.part(0, N_ROWS)
    places, parts = zip(*found.chunks(90), strict=True)
    assert [len(part) for part in parts] == [90, 90, 90, 34]
    assert torch.equal(torch.cat(parts), whole)
    assert all(torch.equal(whole[place], part) for place, part in zip(places, parts, strict=True))
    assert torch.equal(found.part(17, 19), whole[17:19])


def test_a_task_goes_to_another_process_and_comes_back_the_same(folder):
    assert pickle.loads(pickle.dumps(task(folder))) == task(folder)


# Going on, and two at once


def counted(model, monkeypatch) -> list[int]:
    """The numbers of tokens that the model is given from now on."""
    given, forward = [], model.forward

    def counting(*args, input_ids=None, **options):
        given.append(len(input_ids))
        return forward(*args, input_ids=input_ids, **options)

    monkeypatch.setattr(model, "forward", counting)
    return given


def test_an_unfinished_scan_is_none_and_goes_on_where_it_stopped(llama, folder, monkeypatch):
    a_task = task(folder)
    assert open_rows(a_task) is None
    steps = scan_vocabulary(llama, a_task)
    assert [next(steps), next(steps), next(steps)] == [0, 100, 200]
    steps.close()
    assert open_rows(a_task) is None
    given = counted(llama, monkeypatch)
    assert list(scan_vocabulary(llama, a_task)) == [200, 300, N_ROWS]
    assert given == [1, 100, 4]  # the beginning, then the tokens
    assert close(open_rows(a_task).part(0, N_ROWS), by_hand(tiny_model("llama"), HOOK, 0))
    given.clear()
    assert list(scan_vocabulary(llama, a_task)) == [N_ROWS]
    assert given == []


def test_rows_that_were_cut_off_before_their_norms_are_computed_again(llama, folder, monkeypatch):
    a_task, write_at = task(folder), kept_rows._write_at

    def dies_before_the_norms(path, position, values):
        if path.name == "norms.float32" and position:
            raise KeyboardInterrupt
        write_at(path, position, values)

    monkeypatch.setattr(kept_rows, "_write_at", dies_before_the_norms)
    with pytest.raises(KeyboardInterrupt):
        list(scan_vocabulary(llama, a_task))
    monkeypatch.setattr(kept_rows, "_write_at", write_at)
    assert list(scan_vocabulary(llama, a_task)) == [100, 200, 300, N_ROWS]


@pytest.mark.parametrize("damage", ["cut", "gone", "other", "garbage"])
def test_a_damaged_scan_is_none_and_made_again(llama, folder, damage):
    a_task = task(folder)
    scanned(llama, a_task)
    match damage:
        case "cut":
            os.truncate(a_task.path / "residuals.float16", 1000)
        case "gone":
            (a_task.path / "norms.float32").unlink()
        case "other":
            (a_task.path / "task.json").write_text("{}")
        case "garbage":
            (a_task.path / "task.json").write_bytes(b"\xff{")
    assert open_rows(a_task) is None
    assert list(scan_vocabulary(llama, a_task))[0] == 0
    assert close(open_rows(a_task).part(0, N_ROWS), by_hand(llama, HOOK, 0))


def overwritten(path: Path, position: int, content: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(position)
        file.write(content)


DAMAGES = {  # in the rows of tokens 150 and 151, as a disk, a full one or a copy leaves them
    "zeros": ("residuals.float16", 150 * 64, bytes(128)),
    "a part of zeros": ("residuals.float16", 150 * 64 + 20, bytes(64)),
    "not a number": ("residuals.float16", 150 * 64 + 8, np.full(40, np.nan, np.float16).tobytes()),
    "other bytes": ("residuals.float16", 150 * 64, b"garbage!" * 16),
    "no lengths": ("norms.float32", 150 * 4, bytes(8)),
    "lengths without end": ("norms.float32", 150 * 4, np.full(2, np.inf, np.float32).tobytes()),
    "lengths below 0": ("norms.float32", 150 * 4, np.full(2, -1, np.float32).tobytes()),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_rows_that_are_none_are_found_at_the_next_opening_and_made_anew(llama, folder, damage, monkeypatch):
    a_task = task(folder)
    before = scanned(llama, a_task).part(0, N_ROWS)
    overwritten(a_task.path / damage[0], *damage[1:])
    assert open_rows(a_task) is None
    given = counted(llama, monkeypatch)
    assert list(scan_vocabulary(llama, a_task)) == [N_ROWS - 2, N_ROWS]
    assert given == [1, 100]  # the beginning, then the one batch that they are in
    assert torch.equal(open_rows(a_task).part(0, N_ROWS), before)


def test_a_scan_that_is_damaged_once_more_or_where_nobody_may_write_is_told(llama, folder, monkeypatch):
    a_task, name = task(folder), "residuals.float16"
    scanned(llama, a_task)
    overwritten(a_task.path / name, *DAMAGES["zeros"][1:])
    assert open_rows(a_task) is None
    scanned(llama, a_task)
    overwritten(a_task.path / name, *DAMAGES["zeros"][1:])
    assert all(part in refusal(open_rows, a_task) for part in ("2 of its rows", str(a_task.path), "Delete"))
    other = task(folder, "hook_embed")
    scanned(llama, other)
    overwritten(other.path / name, *DAMAGES["zeros"][1:])
    opened = Path.open

    def read_only(path, mode="r", *more, **options):
        if "+" in mode:
            raise PermissionError(13, "Permission denied")
        return opened(path, mode, *more, **options)

    monkeypatch.setattr(Path, "open", read_only)
    assert str(other.path) in refusal(open_rows, other)


def test_a_file_is_looked_through_once(llama, folder, monkeypatch):
    a_task = task(folder)
    scanned(llama, a_task)
    monkeypatch.setattr(kept_rows, "_is_no_row", None)
    assert open_rows(a_task) is not None


def test_several_who_scan_the_same_at_once_do_not_harm_it(llama, folder):
    a_task, failures, start = replace(task(folder), batch=20), [], threading.Barrier(4)

    def work():
        try:
            start.wait()
            assert list(scan_vocabulary(llama, a_task))[-1] == N_ROWS
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert close(open_rows(a_task).part(0, N_ROWS), by_hand(llama, HOOK, 0))
    assert list(a_task.path.parent.iterdir()) == [a_task.path]


def test_a_second_process_in_the_middle_of_a_scan_takes_over_what_is_there(llama, folder, monkeypatch):
    a_task = task(folder)
    first = scan_vocabulary(llama, a_task)
    next(first), next(first)
    given = counted(llama, monkeypatch)
    assert list(scan_vocabulary(llama, a_task)) == [100, 200, 300, N_ROWS]
    given.clear()
    assert list(first) == [N_ROWS]  # the other one has done the rest
    assert given == []
    assert close(open_rows(a_task).part(0, N_ROWS), by_hand(tiny_model("llama"), HOOK, 0))


# Names


def test_whatever_the_numbers_depend_on_gives_another_place(folder):
    tasks = [task(folder), task(folder, "hook_embed"), task(folder, model="tiny/other"), task(folder, bos_id=1),
             task(folder, bos_id=None), task(folder, dtype="bfloat16"), task(folder.parent)]
    (folder / "model.safetensors").write_bytes(b"other weights")
    tasks.append(task(folder))
    assert len({a_task.path for a_task in tasks}) == len(tasks)
    assert task(folder).path == task(folder).path


@pytest.mark.parametrize("name", ["../../etc", "/etc/passwd", "a\0b", "ü" * 500, "", "..", "con\n", "-rf"])
def test_no_name_leads_out_of_the_folder_of_scans(folder, cache, name):
    path = scan_path(name, folder, name, bos_id=0, dtype=name)
    assert path.parent == cache / "scans"
    assert path.name.isascii()
    assert len(path.name) < 150
    assert set(path.name) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-")


# Disk


def test_a_disk_with_too_little_room_is_told_before_the_model_runs(llama, folder, cache, monkeypatch):
    given = counted(llama, monkeypatch)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: type("Usage", (), {"free": 10}))
    message = refusal(scan_vocabulary, llama, task(folder))
    for word in ("tiny/llama", str(cache / "scans"), "SAE_MULTITOOL_CACHE", "0.0 MB left"):
        assert word in message
    assert not given
    assert list((cache / "scans").iterdir()) == []


def test_a_disk_that_becomes_full_is_told_and_the_scan_goes_on_later(llama, folder, monkeypatch):
    a_task, write_at = task(folder), kept_rows._write_at

    def full(path, position, values):
        if position > 8000:
            raise OSError(28, "No space left on device")
        write_at(path, position, values)

    monkeypatch.setattr(kept_rows, "_write_at", full)
    message = refusal(scan_vocabulary, llama, a_task)
    assert "No space left on device" in message
    assert "SAE_MULTITOOL_CACHE" in message
    monkeypatch.setattr(kept_rows, "_write_at", write_at)
    assert list(scan_vocabulary(llama, a_task))[0] == 200


def test_a_cache_that_is_no_folder_is_told(llama, folder, cache):
    cache.write_text("a file")
    assert str(cache) in refusal(scan_vocabulary, llama, task(folder))
    assert open_rows(task(folder)) is None


def test_a_file_in_the_scans_place_is_told(llama, folder):
    a_task = task(folder)
    a_task.path.parent.mkdir(parents=True)
    a_task.path.write_text("a file")
    assert "SAE_MULTITOOL_CACHE" in refusal(scan_vocabulary, llama, a_task)


def test_the_scans_used_longest_ago_make_room(llama, folder):
    tasks = [task(folder, f"blocks.{layer}.hook_resid_{place}") for layer in range(2) for place in ("pre", "post")]
    limit = 3.5 * N_ROWS * (32 * 2 + 4)
    for age, a_task in zip((300, 400, 200), tasks[:3], strict=True):
        scanned(llama, a_task, max_bytes=limit)
        for file in a_task.path.iterdir():
            os.utime(file, (file.stat().st_atime, file.stat().st_mtime - age))
    open_rows(tasks[1])  # used: now the first is the oldest
    scanned(llama, tasks[3], max_bytes=limit)
    assert [open_rows(a_task) is not None for a_task in tasks] == [False, True, True, True]


def test_a_scan_that_is_larger_than_the_limit_is_made_all_the_same_and_never_deletes_itself(llama, folder):
    a_task = task(folder)
    next(scan_vocabulary(llama, a_task, max_bytes=10))
    assert scanned(llama, a_task, max_bytes=10) is not None


def test_a_scan_that_is_deleted_while_it_is_read_stays_readable(llama, folder):
    a_task = task(folder)
    found = scanned(llama, a_task)
    before = found.part(0, N_ROWS)
    shutil.rmtree(a_task.path)
    assert torch.equal(found.part(0, N_ROWS), before)


# Models


def test_numbers_that_are_none_are_told_with_another_precision(llama, folder):
    llama.model.layers[0].mlp.down_proj.weight.data.fill_(torch.inf)
    message = refusal(work_on, llama.half(), task(folder, dtype="float16"), None)
    assert "In float16, tiny/llama gives numbers that are too large or none" in message
    assert "model.layers.0.mlp.down_proj.weight" in message
    assert "bfloat16" in message


def test_a_hook_that_the_model_does_not_have_is_told(llama, folder):
    assert "numbered 0 to 2" in refusal(scan_vocabulary, llama, task(folder, "blocks.7.hook_resid_post"))


def test_a_large_cache_of_the_beginning_makes_small_batches(llama, folder):
    row_bytes = 3 * 2 * 2 * 8 * 4  # layers, keys and values, heads, entries, bytes
    a_task = replace(task(folder), batch=None, batch_bytes=150 * row_bytes)
    assert list(scan_vocabulary(llama, a_task)) == [0, 150, 300, N_ROWS]


def test_a_model_folder_and_the_demo_give_a_task(demo_library, tokenizer, tmp_path):
    """The parts as they come together elsewhere: a subject, a running model, a scan."""
    name = str(write_model(tmp_path / "tiny", tiny_model("llama"), tokenizer))
    subject = demo_library.subject(name)
    a_task = scan_task(name, subject.folder, HOOK, n_tokens=subject.space.n_tokens, d_model=subject.space.d_model,
                       bos_id=subject.bos_id, dtype=demo_library.precision(subject.name))
    assert a_task.bos_id == tokenizer.eos_token_id  # as GPT-2's: one token begins and ends a text
    assert close(scanned(demo_library.run(name, subject.folder), a_task).part(0, N_ROWS),
                 by_hand(tiny_model("llama"), HOOK, a_task.bos_id))


def test_on_the_demo_model_the_cached_beginning_changes_nothing(demo_library, cache, monkeypatch):
    monkeypatch.delenv("SAE_MULTITOOL_CACHE")
    subject = demo_library.subject(DEMO_MODEL)
    monkeypatch.setenv("SAE_MULTITOOL_CACHE", str(cache))
    model = demo_library.run(DEMO_MODEL, subject.folder)
    assert subject.bos_id == 0  # <|endoftext|>, and not the chat marker that its tokenizer calls bos
    hook, first, n = "blocks.12.hook_resid_post", 5000, 100
    a_task = scan_task(DEMO_MODEL, subject.folder, hook, n_tokens=subject.space.n_tokens,
                       d_model=subject.space.d_model, bos_id=subject.bos_id, dtype="float32")
    prefix = scans._prefix(model, a_task)
    ids = torch.arange(first, first + n)
    found = scans._read_tokens(model, a_task, prefix, first, first + n)
    plain = residuals(model, hook, input_ids=torch.stack([torch.full_like(ids, subject.bos_id), ids], dim=1))[:, 1]
    assert close(found, plain, 1e-4)
    # And half precision on disk costs no more than it must.
    small = replace(a_task, n_tokens=n)
    kept_rows._make_place(small, kept_rows.MAX_BYTES)
    kept_rows._write(small, 0, found)
    assert close(open_rows(small).part(0, n), found, 5e-4)
