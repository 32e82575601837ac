"""The app as a user runs it: one server process for all tests here, and a real browser."""

import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from visit import opened

ROOT = Path(__file__).parents[2]
START_LIMIT = 180  # seconds; the first start on a fresh machine fetches and converts the demo's model


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Fixtures can ask a test, when it is over, whether it ``failed``."""
    report = yield
    if report.when == "call":
        item.failed = report.failed
    return report


@pytest.fixture(scope="session")
def app_server(tmp_path_factory):
    """The address and the process id of ``python app.py``, started as the README says."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tmp_path_factory.mktemp("app") / "log.txt"
    # One thread unless told otherwise: the last digits, which the golden files hold, depend on how many there are.
    threads = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
    environment = os.environ | threads | {"GRADIO_SERVER_PORT": str(port), "GRADIO_ANALYTICS_ENABLED": "False"}
    with log.open("w") as output:
        server = subprocess.Popen([sys.executable, "app.py"], cwd=ROOT, env=environment, stdout=output, stderr=output)
    url = f"http://127.0.0.1:{port}"
    try:
        _wait_for(url, server, log)
        yield url, server.pid
    finally:
        server.terminate()
        server.wait(20)


@pytest.fixture(scope="session")
def app_url(app_server):
    return app_server[0]


def _wait_for(url: str, server: subprocess.Popen, log: Path) -> None:
    deadline = time.monotonic() + START_LIMIT
    while time.monotonic() < deadline:
        assert server.poll() is None, f"app.py ended:\n{log.read_text()}"
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            time.sleep(0.3)
    raise AssertionError(f"app.py did not answer within {START_LIMIT} s:\n{log.read_text()}")


@pytest.fixture
def page(browser, app_url):
    """The app's page, freshly opened; a test fails on an error in the page's own scripts."""
    with opened(browser, app_url) as page:
        yield page
