"""A stand-in for the device service that ``spaces`` asks for a GPU on Hugging Face's ZeroGPU machines."""

import base64
import contextlib
import json
import os
import signal
import threading
import time
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, urlsplit
from uuid import uuid4

# What /schedule answers. A queue without a free GPU ends in "queue timeout".
MODES = ("ok", "quota", "runs", "illegal duration", "pending credits", "no gpu", "queue timeout")
# For the refusals: the X-Approve-Result header, and the time until the quota returns (negative: never for this call).
_REFUSALS = {
    "quota": ("quota-exceeded", "PT1H"),
    "runs": ("runs-exceeded", "PT0S"),
    "illegal duration": ("illegal-duration", "-P1D"),
    "pending credits": ("pending-overquota-exceeded", "PT0S"),
}


@dataclass(frozen=True)
class Call:
    """A request that reached the service."""

    path: str
    query: dict[str, str]
    time: float  # time.monotonic()


@dataclass(frozen=True)
class Scheduled:
    """What a /schedule request asked for."""

    task: int
    duration: int  # seconds, as requested: with the factor that spaces puts on the declared duration
    size: str | None
    token: str | None  # the visitor's X-IP-Token
    time: float


@dataclass
class _Gpu:
    index: int
    task: int | None = None  # the last task that ran to its end here: its worker is still there
    worker: int | None = None  # process id
    token: str | None = None  # of the task that runs now


@dataclass
class DeviceService:
    """A context manager: the service answers on ``url`` until it ends. All settings may change while it runs.

    Args:
        mode: one of ``MODES``.
        warm: give a task the GPU on which its last worker waits, as the real service does while nobody else took
            that GPU; False: every task starts a worker of its own.
        gpus: how many tasks can run at a time; further ones queue.
        seconds_left: what a refusal says is left of the visitor's quota.
        queue_limit: seconds until a queue ends without a GPU (60 on the real service).
        kills: end a worker once its task has run for the requested duration.
    """

    mode: str = "ok"
    warm: bool = True
    gpus: int = 2
    seconds_left: int = 3
    queue_limit: float = 1.0
    kills: bool = False
    calls: list[Call] = field(default_factory=list)

    def __post_init__(self):
        self._lock = threading.Lock()
        self._pool: list[_Gpu] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"service": self}))
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self):
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()

    @property
    def scheduled(self) -> list[Scheduled]:
        """What was asked of /schedule so far."""
        return [
            Scheduled(
                task=int(call.query["taskId"]), duration=int(call.query["durationSeconds"]),
                size=call.query.get("gpuSize"), token=call.query.get("token"), time=call.time,
            )
            for call in self.calls
            if call.path == "/schedule"
        ]

    @property
    def running(self) -> int:
        """How many tasks hold a GPU."""
        with self._lock:
            return sum(gpu.token is not None for gpu in self._pool)

    @property
    def workers(self) -> set[int]:
        """The process ids of the workers, those that wait for their next task included."""
        with self._lock:
            return {gpu.worker for gpu in self._pool if gpu.worker}

    def released(self, timeout: float = 10) -> bool:
        """Wait until no task holds a GPU; whether that came in time."""
        deadline = time.monotonic() + timeout
        while self.running and time.monotonic() < deadline:
            time.sleep(0.02)
        return not self.running

    def kill_workers(self) -> None:
        """End all workers at once, as the platform ends one that overruns."""
        for pid in self.workers:
            _end(pid, signal.SIGKILL)

    def acquire(self, task: int, seconds: int) -> dict | None:
        """A GPU for a task: the answer of /schedule, or None while all are taken."""
        with self._lock:
            self._pool += [_Gpu(index) for index in range(len(self._pool), self.gpus)]
            free = [gpu for gpu in self._pool[: self.gpus] if gpu.token is None]
            if self.mode == "queue timeout" or not free:
                return None
            # The GPU on which this task's worker waits, else one without a worker.
            gpu = min(free, key=lambda gpu: (gpu.task != task, gpu.task is not None))
            idle = self.warm and gpu.task == task
            if not idle and gpu.worker:
                _end(gpu.worker, signal.SIGTERM)
                gpu.worker = None
            gpu.task, gpu.token = task, uuid4().hex
        if self.kills:
            timer = threading.Timer(seconds, self._overrun, [gpu, gpu.token])
            timer.daemon = True
            timer.start()
        return {
            "idle": idle, "nvidiaIndex": gpu.index, "nvidiaUUID": f"GPU-{gpu.index}", "allowToken": gpu.token,
        }

    def allow(self, token: str, worker: int) -> None:
        """A new worker begins."""
        with self._lock:
            for gpu in self._pool:
                if gpu.token == token:
                    gpu.worker = worker

    def release(self, token: str, failed: bool) -> bool:
        """A task ended; whether it was running."""
        with self._lock:
            held = [gpu for gpu in self._pool if gpu.token == token]
            for gpu in held:
                gpu.token = None
                if failed:  # spaces starts a new worker after an error
                    gpu.task = None
        return bool(held)

    def _overrun(self, gpu: _Gpu, token: str) -> None:
        if gpu.token == token and gpu.worker:
            _end(gpu.worker, signal.SIGKILL)


def visitor_token(user: str | None = None) -> str:
    """An X-IP-Token as the Hub gives it to a visitor's browser: of a user who is logged in, or anonymous."""
    payload = json.dumps({"ip": "127.0.0.1"} | ({"user": user} if user else {})).encode()
    return f"head.{base64.urlsafe_b64encode(payload).decode().rstrip('=')}.signature"


def _user(token: str | None) -> str | None:
    if not token:
        return None
    payload = token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(payload + "==")).get("user")


def _end(pid: int, how: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, how)


class _Handler(BaseHTTPRequestHandler):
    service: DeviceService

    def do_POST(self):  # noqa: N802  (http.server's name)
        self.rfile.read(int(self.headers.get("content-length") or 0))
        address = urlsplit(self.path)
        query = dict(parse_qsl(address.query))
        service = self.service
        service.calls.append(Call(address.path, query, time.monotonic()))
        if address.path == "/startup-report":
            self._answer()
        elif address.path == "/schedule":
            self._schedule(query)
        elif address.path == "/allow":
            service.allow(query["allowToken"], int(query["pid"]))
            self._answer()
        elif address.path == "/release":
            known = service.release(query["allowToken"], query["fail"] == "true")
            self._answer(HTTPStatus.OK if known else HTTPStatus.NOT_FOUND)
        else:
            self._answer(HTTPStatus.NOT_FOUND)

    def _schedule(self, query: dict[str, str]) -> None:
        service = self.service
        assert service.mode in MODES, service.mode
        if service.mode == "no gpu":
            self._answer(HTTPStatus.SERVICE_UNAVAILABLE)
            return
        if service.mode in _REFUSALS:
            reason, wait = _REFUSALS[service.mode]
            headers = {"X-Approve-Result": reason}
            if _user(query.get("token")):
                headers["X-Authenticated"] = "regular"
            self._answer(HTTPStatus.TOO_MANY_REQUESTS, {"left": service.seconds_left, "wait": wait}, headers)
            return
        wanted = int(query["taskId"]), int(query["durationSeconds"])
        granted = service.acquire(*wanted)
        if granted:
            self._answer(body=granted)
        else:
            self._queue(wanted)

    def _queue(self, wanted: tuple[int, int]) -> None:
        """The answer as a stream of events, until there is a GPU or the time is over."""
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        deadline = time.monotonic() + self.service.queue_limit
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the visitor left
            while time.monotonic() < deadline:
                self.wfile.write(b"event: ping\n\n")
                time.sleep(0.1)
                if granted := self.service.acquire(*wanted):
                    self.wfile.write(f"event: succeeded\ndata: {json.dumps(granted)}\n\n".encode())
                    return
            self.wfile.write(b"event: failed\n\n")

    def _answer(self, status: int = HTTPStatus.OK, body: dict | None = None, headers: dict | None = None) -> None:
        content = json.dumps(body or {}).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        """Nothing is printed; ``DeviceService.calls`` has it all."""
