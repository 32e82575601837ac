"""Starting an app as on ZeroGPU, for tests."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from device_service import DeviceService

LAUNCHER = Path(__file__).with_name("run_app.py")
END_LIMIT = 5  # seconds; a worker first ends its task


@dataclass(frozen=True)
class RunningApp:
    """An app that answers."""

    url: str
    process: subprocess.Popen
    log: Path  # what it printed

    def printed(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")


@contextlib.contextmanager
def start_app(
    app: Path, service: DeviceService, env: dict[str, str] | None = None, *, start_limit: float = 120
) -> Iterator[RunningApp]:
    """Run ``app`` in a process of its own as a ZeroGPU Space would, until the context ends.

    Args:
        app: the file with the app; its folder becomes the working directory.
        service: what gives it its GPUs.
        env: further environment variables.
        start_limit: seconds until it must answer.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="zerogpu-") as folder:
        log = Path(folder, "log.txt")
        environment = os.environ | _space(Path(folder), service.url) | {"GRADIO_SERVER_PORT": str(port)} | (env or {})
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, str(LAUNCHER), str(app)], cwd=Path(app).resolve().parent, env=environment,
                stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
            )
        running = RunningApp(f"http://127.0.0.1:{port}", process, log)
        try:
            _wait_until_it_answers(running, start_limit)
            yield running
        finally:
            _end(process)


def _space(folder: Path, device_service: str) -> dict[str, str]:
    """The environment of a ZeroGPU Space, with its files in ``folder``."""
    cgroup = folder / "cgroup"
    cgroup.write_text("0::/space\n", encoding="utf-8")
    return {
        "SPACES_ZERO_GPU": "true",
        "SPACES_ZERO_DEVICE_API_URL": device_service,
        "ZEROGPU_OFFLOAD_DIR": str(folder / "tensors"),
        "ZEROGPU_PROC_SELF_CGROUP_PATH": str(cgroup),
        # On a Space the files of packed models are deleted from the hub's cache. This machine's cache is not a Space's.
        "ZEROGPU_MMAP_AUTOPRUNE_PATTERN": str(folder / "none"),
        "GRADIO_ANALYTICS_ENABLED": "False",
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "PYTHONUNBUFFERED": "1",
    }


def _wait_until_it_answers(app: RunningApp, limit: float) -> None:
    deadline = time.monotonic() + limit
    while time.monotonic() < deadline:
        assert app.process.poll() is None, f"The app ended:\n{app.printed()}"
        with contextlib.suppress(OSError), urllib.request.urlopen(app.url, timeout=5):
            return
        time.sleep(0.1)
    raise AssertionError(f"The app did not answer within {limit} s:\n{app.printed()}")


def _end(process: subprocess.Popen) -> None:
    """End the app, and whatever of its processes is then left."""
    process.send_signal(signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(END_LIMIT)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(END_LIMIT)
