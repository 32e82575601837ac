"""Neuronpedia's labels: from a stand-in for the site, kept, switched off, and silent about whatever goes wrong."""

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from multitool.store import neuronpedia
from multitool.store.entries import SaeEntry
from multitool.store.neuronpedia import feature_page, fetch_label, label_in, may_ask

ENTRY = SaeEntry("release", "id", "gpt2", "resid_pre", 3, neuronpedia_id="gpt2-small/3-res-jb")
ANSWER = {"explanations": [{"description": " rain and\n weather "}, {"description": "other"}]}


@pytest.fixture(autouse=True)
def fresh(tmp_path, monkeypatch):
    monkeypatch.setenv("SAE_MULTITOOL_CACHE", str(tmp_path))
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", neuronpedia.OFF):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(neuronpedia, "_silence", neuronpedia._Silence())


@pytest.fixture
def site():
    """A site that answers with ``answers``, last first; and the paths that it was asked for."""
    asked, answers = [], []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            body = answers[-1]
            self.send_response(200 if body is not None else 404)
            self.end_headers()
            self.wfile.write(body or b"")

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", asked, answers
    server.shutdown()
    server.server_close()


def test_a_label_is_asked_for_once_and_kept(site):
    url, asked, answers = site
    answers.append(json.dumps(ANSWER).encode())
    assert fetch_label(ENTRY, 7, url) == "rain and weather"
    assert fetch_label(ENTRY, 7, url) == "rain and weather"
    assert asked == ["/api/feature/gpt2-small/3-res-jb/7"]
    answers.append(b"{}")
    assert [fetch_label(ENTRY, 8, url) for _ in range(2)] == ["", ""]
    assert len(asked) == 2, "that there is none is kept too"


def test_whatever_goes_wrong_there_is_no_label_and_nobody_waits_again(site):
    url, asked, answers = site
    answers.append(b"no JSON")
    assert [fetch_label(ENTRY, 7, url) for _ in range(2)] == ["", ""]
    assert len(asked) == 1
    assert not list(neuronpedia.cache_folder().rglob("*.json")), "it may be there another time"


def test_it_is_not_asked_for_what_it_does_not_have_nor_where_it_is_switched_off(site, monkeypatch):
    url, asked, _ = site
    demo = SaeEntry("demo", "hook_embed", "demo/m", "embed", None)
    assert not may_ask(demo) and fetch_label(demo, 7, url) == "" and feature_page(demo, 7) == ""
    assert may_ask(ENTRY) and feature_page(ENTRY, 7) == "https://neuronpedia.org/gpt2-small/3-res-jb/7"
    for name, value in (("HF_HUB_OFFLINE", "1"), ("SAE_MULTITOOL_NEURONPEDIA", "0")):
        monkeypatch.setenv(name, value)
        assert not may_ask(ENTRY) and fetch_label(ENTRY, 7, url) == ""
        monkeypatch.delenv(name)
    assert asked == []


@pytest.mark.parametrize("answer", [
    None, [], {}, {"explanations": None}, {"explanations": [None, {}, {"description": 3}, {"description": " "}]},
])
def test_an_answer_may_be_anything(answer):
    assert label_in(answer) == ""


def test_a_label_is_not_long():
    assert len(label_in({"explanations": [{"description": "x" * 10_000}]})) == 300
