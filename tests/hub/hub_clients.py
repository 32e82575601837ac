"""The tool's processes as clients of the stand-in hub: they know nothing but that hub and a cache of their own."""

import json
import os
import shutil
import socket
import subprocess
import sys
import textwrap
import time
import urllib.request
from pathlib import Path
from typing import NamedTuple

from standin_hub import StandInHub
from standin_repos import GEMMA_2B_SAES

ROOT = Path(__file__).parents[2]
GEMMA, GEMMA_2, GPT2, PYTHIA = (
    "google/gemma-2b", "google/gemma-2-2b", "openai-community/gpt2", "EleutherAI/pythia-70m-deduped"
)
GEMMA_SAES, GPT2_SAES, PYTHIA_SAES = (
    "jbloom/Gemma-2b-Residual-Stream-SAEs", "jbloom/GPT2-Small-SAEs-Reformatted", "canrager/lm_sae"
)
# SAEs by their names in the tool.
GEMMA_6 = "gemma-2b-res-jb/blocks.6.hook_resid_post"
GPT2_0 = "gpt2-small-res-jb/blocks.0.hook_resid_pre"
PYTHIA_3 = "sae_bench_pythia70m_sweep_standard_ctx128_0712/blocks.3.hook_resid_post__trainer_10"
GEMMA_6_FOLDER = GEMMA_2B_SAES[6]
# Tokens that must never be seen in what the tool writes.
READER = "hf_secretReader0123456789"  # may read the gated models
VISITOR = "hf_secretVisitor0123456789"  # of an account that may not
UNKNOWN = "hf_secretUnknown0123456789"  # of no account: revoked, or mistyped
START_LIMIT = 180  # seconds until the app answers


def environment(hub: StandInHub, home: Path, token: str | None = None) -> dict[str, str]:
    """This process's, for a tool that knows nothing but this hub, a cache of its own and a token.

    With one second's patience with connections that stall.
    """
    others = ("HF_", "HUGGING", "TRANSF", "SPACE")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(others)}
    own = {"HF_ENDPOINT": hub.url, "HF_HOME": str(home), "HF_HUB_DISABLE_TELEMETRY": "1", "NO_PROXY": "127.0.0.1",
           "HF_HUB_DOWNLOAD_TIMEOUT": "1", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return kept | own | ({"HF_TOKEN": token} if token else {})


class Done(NamedTuple):
    """A command that has ended."""

    status: int
    out: str
    err: str

    @property
    def refusal(self) -> str:
        """The one line on what was wrong, which comes after the progress of what was fetched."""
        assert (self.status, self.out) == (2, ""), self.err
        *told, message = self.err.splitlines()
        assert all("%|" in line or "multitool: Fetching " in line or not line.strip() for line in told), self.err
        assert message.startswith("multitool: ")
        return message


def run(hub: StandInHub, home: Path, *arguments, token: str | None = None, python=(), **more: str) -> Done:
    """``python -m multitool`` as a person runs it.

    Args:
        python: options for Python.
        more: environment variables.
    """
    done = subprocess.run(
        [sys.executable, *python, "-m", "multitool", *map(str, arguments)], env=environment(hub, home, token) | more,
        capture_output=True, text=True, timeout=180, check=False,
    )
    assert "hf_secret" not in done.stdout + done.stderr
    return Done(done.returncode, done.stdout, done.stderr)


_WORK = """
import contextlib, io, json, os, resource, sys, time, traceback
from unittest.mock import patch
from multitool.cli import main

sleep = time.sleep
time.sleep = lambda seconds: sleep(min(seconds, 0.02))  # the hub's client waits for seconds before it tries again

def limit_memory(megabytes):
    taken = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + megabytes * 10**6, -1))

for line in sys.stdin:
    job = json.loads(line)
    out, err, status, answer = io.StringIO(), io.StringIO(), 0, None
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.redirect_stdout(out))
        stack.enter_context(contextlib.redirect_stderr(err))
        stack.enter_context(patch.dict(os.environ, job["environment"]))
        if job["free"] is not None:
            stack.enter_context(patch("shutil.disk_usage", lambda path: type("Usage", (), {"free": job["free"]})))
        if job["memory"]:
            limit_memory(job["memory"])
        try:
            if job["code"]:
                names = {}
                exec(job["code"], names)
                answer = names["answer"]
            else:
                status = main(job["arguments"])
        except BaseException:
            status = traceback.format_exc()
        resource.setrlimit(resource.RLIMIT_AS, (-1, -1))
    print(json.dumps([status, out.getvalue(), err.getvalue(), answer]), flush=True)
"""


class Tool:
    """One process that runs commands, or Python, one after the other: its imports take longer than all the rest.

    Args:
        home: its HF_HOME.
        wrapper: a command to start it with.
        more: environment variables.
    """

    def __init__(self, hub: StandInHub, home: Path, wrapper: tuple[str, ...] = (), **more: str):
        self.home = home
        self._process = subprocess.Popen(
            [*wrapper, sys.executable, "-c", _WORK], env=environment(hub, home) | more, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )

    def __enter__(self) -> "Tool":
        return self

    def __exit__(self, *error) -> None:
        self._process.stdin.close()
        self._process.wait(20)

    def __call__(self, *arguments, **how) -> Done:
        """``python -m multitool`` with these arguments. Further arguments as in ``_ask``."""
        *done, _ = self._ask(arguments=[str(argument) for argument in arguments], **how)
        return Done(*done)

    def python(self, code: str, **how):
        """What the code leaves in ``answer``. Further arguments as in ``_ask``."""
        *_, answer = self._ask(code=textwrap.dedent(code), **how)
        return answer

    def _ask(
        self, *, arguments=(), code="", token: str | None = None, free: int | None = None, memory: int | None = None,
        **more: str,
    ) -> list:
        """Have a job done.

        Args:
            token: HF_TOKEN.
            free: bytes that the disk says it has left.
            memory: megabytes that may be taken besides those that are.
            more: environment variables.
        """
        more |= {"HF_TOKEN": token} if token else {}
        job = {"arguments": arguments, "code": code, "environment": more, "free": free, "memory": memory}
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        status, *outputs = done = json.loads(self._process.stdout.readline())
        assert not isinstance(status, str), f"an error that nobody caught:\n{status}"
        assert "hf_secret" not in str(outputs)
        return done

    def forget(self) -> None:
        """Empty the hub's cache."""
        shutil.rmtree(self.home, ignore_errors=True)


class App:
    """``python app.py``, as a Space or a person runs it, for a ``with`` block."""

    def __init__(self, environment: dict[str, str], log: Path):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self._log = log
        own = {"GRADIO_SERVER_PORT": str(port), "GRADIO_ANALYTICS_ENABLED": "False"}
        with log.open("w") as output:
            self._server = subprocess.Popen(
                [sys.executable, "app.py"], cwd=ROOT, env=environment | own, stdout=output, stderr=output
            )

    def __enter__(self) -> "App":
        deadline = time.monotonic() + START_LIMIT
        while time.monotonic() < deadline:
            assert self._server.poll() is None, f"app.py ended:\n{self._log.read_text()}"
            try:
                self.config = self._get("/config")
                return self
            except OSError:
                time.sleep(0.2)
        raise AssertionError(f"app.py did not answer within {START_LIMIT} s:\n{self._log.read_text()}")

    def __exit__(self, *error) -> None:
        self._server.terminate()
        self._server.wait(20)
        written = self._log.read_text() + self.config
        assert "hf_secret" not in written
        assert "Traceback" not in written

    def _get(self, path: str, sent: bytes | None = None, last: str = "") -> str:
        """What the server answers, up to a line that has ``last`` in it."""
        text = ""
        request = urllib.request.Request(self.url + path, sent, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            for line in answer:
                text += line.decode()
                if last and last in text:
                    break
        return text

    def shown(self, name: str):
        """What the control or the text of that name shows when the page opens; None if there is none."""
        for component in json.loads(self.config)["components"]:
            if component["props"].get("elem_id") == name:
                return component["props"]["value"]
        return None

    def press(self, button: str, **values) -> str:
        """Press a button as a visitor does, with these values in the controls: all that the page is sent for it."""
        config = json.loads(self.config)
        ids = {component["props"].get("elem_id"): component["id"] for component in config["components"]}
        at_first = {component["id"]: component["props"].get("value") for component in config["components"]}
        chosen = {ids[name]: value for name, value in values.items()}
        events = [event for event in config["dependencies"] if [ids[button], "click"] in event["targets"]]
        event = max(events, key=lambda event: len(event["inputs"]))  # others only count clicks
        session = f"visitor-{time.monotonic()}"
        request = {
            "data": [chosen.get(control, at_first[control]) for control in event["inputs"]],
            "fn_index": event["id"], "trigger_id": ids[button], "session_hash": session,
        }
        self._get("/gradio_api/queue/join", json.dumps(request).encode())
        return self._get(f"/gradio_api/queue/data?session_hash={session}", last='"close_stream"')


def as_at_first(hub: StandInHub, repos: dict) -> StandInHub:
    """The hub, whatever was done to it."""
    hub.reset(repos, gated={GEMMA: {READER}, GEMMA_2: {READER}})
    hub.start()
    return hub


def fetched(hub: StandInHub) -> list[str]:
    """The files that were fetched, each as REPOSITORY/PATH."""
    parts = [asked.path.split("/resolve/") for asked in hub.requests if asked.method == "GET" and asked.status < 300]
    return sorted(f"{part[0][1:]}/{part[1].partition('/')[2]}" for part in parts if len(part) == 2)
