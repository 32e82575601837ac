"""Parts of an atlas described by several processes, on one machine or on many: a Ray Data pipeline.

Ray places the workers, hands each its next part, and starts a worker that was killed anew, with the part it had. Their
rows come to the process that asked, which writes them.
"""

import logging
import os
import pickle
import socket
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from multitool.errors import UserError
from multitool.store.atlas_files import Part

DescribePart = Callable[[Part], Sequence[dict]]  # a part's rows

_INSTALL = 'pip install "sae-feature-multitool[ray]"'
_LOCAL = "local"  # Ray's name for a cluster that it starts on this machine
_ANSWERS_WITHIN = 10  # seconds, of a cluster's address; Ray itself tries for minutes
_STARTS_AGAIN = 3  # times in a row that a worker dies while it loads
_LONGEST_PART = 24 * 3600.0  # seconds without a part from any worker: then it is given up


@dataclass(frozen=True)
class Placing:
    """How workers are placed on a cluster: how many, and what each has to itself."""

    workers: int
    cores: int
    gpus: int


class Worker:
    """A process that makes ready what describing takes, once, and then describes one part after another.

    What a user can put right it answers: raised, it would come back as a traceback, after Ray had tried again.
    """

    def __init__(self, prepare: Callable[[], DescribePart], cores: int):
        import torch

        torch.set_num_threads(cores)
        try:
            self._describe = prepare()
        except UserError as error:
            self._describe = partial(_refuse, str(error))

    def __call__(self, row: dict) -> dict:
        """A part's rows, pickled so that they come back as they are: Ray would make other types of them."""
        try:
            rows = self._describe(tuple(row["features"]))
        except UserError as error:
            return {"part": row["part"], "rows": b"", "problem": str(error)}
        return {"part": row["part"], "rows": pickle.dumps(rows), "problem": ""}


def _refuse(problem: str, part: Part) -> Sequence[dict]:
    raise UserError(problem)


def described_by_ray(
    prepare: Callable[[], DescribePart], parts: Sequence[Part], *, address: str | None = None,
    workers: int | None = None, use_gpus: bool = True,
) -> Generator[tuple[Part, Sequence[dict]], None, None]:
    """Parts with their rows, in the order in which they are done.

    Where this process is connected to Ray already, that connection is used, and kept.

    Args:
        prepare: called in each worker, once; can be pickled.
        address: of a Ray cluster, as ``ray.init`` takes it; None: that of the environment's RAY_ADDRESS, or else one is
            started on this machine, and ended afterwards.
        workers: how many; None: one for each GPU, or for each machine where there is none.
        use_gpus: give each worker a GPU, where the cluster has any.

    Raises:
        UserError: Ray is not installed or cannot be reached, a worker cannot do the work, or workers die all the time.
    """
    with _connected(address) as ray:
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        placing = placed(nodes, workers, use_gpus=use_gpus)
        # A block for each part: of a larger one, all would be lost with its worker, and come only when all is done.
        asked = ray.data.from_items(
            [{"part": number, "features": list(part)} for number, part in enumerate(parts)],
            override_num_blocks=len(parts),
        )
        described = asked.map(
            Worker,
            fn_constructor_args=(prepare, placing.cores),
            compute=ray.data.ActorPoolStrategy(size=placing.workers, max_tasks_in_flight_per_actor=1),
            # Ray Data would have workers on GPUs ask for nothing else.
            **({"num_gpus": placing.gpus} if placing.gpus else {"num_cpus": placing.cores}),
        )
        context = described.context
        context.enable_progress_bars = False
        context.print_on_execution_start = False
        context.max_consecutive_actor_init_deaths = _STARTS_AGAIN
        context.execution_no_progress_timeout_s = _LONGEST_PART
        try:
            for answer in described.iter_rows():
                if answer["problem"]:
                    raise UserError(answer["problem"])
                yield parts[answer["part"]], pickle.loads(answer["rows"])
        except ray.exceptions.RayTaskError:  # a fault in describing
            raise
        except (ray.exceptions.RayError, ray.data.exceptions.ExecutionTimeoutError) as error:
            raise UserError(
                f"Ray has ended the work: {_first_line(error)} What has been described is kept, and the same command "
                "goes on from there. Workers that die again and again may lack memory: let there be fewer."
            ) from error


def placed(nodes: Sequence[Mapping[str, float]], workers: int | None, *, use_gpus: bool) -> Placing:
    """Where workers find room.

    Args:
        nodes: the resources of each of a cluster's machines, as Ray names them.
        workers: how many; None: one for each GPU, or for each machine where there is none.
    """
    cores = [int(node.get("CPU", 0)) for node in nodes]
    gpus = [int(node.get("GPU", 0)) for node in nodes]
    if use_gpus and any(gpus):
        least = min(core // gpu for core, gpu in zip(cores, gpus, strict=True) if gpu)
        return Placing(workers or sum(gpus), max(1, least), 1)
    workers = workers or max(1, sum(core > 0 for core in cores))
    shares = range(max(cores, default=1), 1, -1)
    return Placing(workers, next((each for each in shares if sum(core // each for core in cores) >= workers), 1), 0)


@contextmanager
def _connected(address: str | None) -> Iterator:
    """Ray, connected to a cluster: as the process is already, or else until the end."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise UserError(f"Ray cannot be imported ({error}). Install it: {_INSTALL}") from error
    if ray.is_initialized():
        yield ray
        return
    address = address or os.environ.get("RAY_ADDRESS") or _LOCAL
    _check_answers(address)
    quiet = logging.getLogger("ray.data")  # it tells of every run, in several lines
    level = quiet.level
    try:
        try:
            ray.init(address, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise UserError(f"There is no Ray to be had at {address!r}: {_first_line(error)}") from error
        quiet.setLevel(logging.ERROR)
        yield ray
    finally:
        quiet.setLevel(level)
        ray.shutdown()


def _check_answers(address: str) -> None:
    """Raises UserError for HOST:PORT where nothing listens."""
    host, colon, port = address.rpartition(":")
    if colon and "/" not in address and port.isdigit():
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=_ANSWERS_WITHIN).close()
        except (OSError, OverflowError) as error:
            raise UserError(
                f"Nothing answers at {address!r} ({error}). Name a Ray cluster's HOST:PORT, which `ray start --head` "
                "tells, or auto, the one that this machine belongs to; without an address one is started here."
            ) from error


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0].rstrip(".") + "."
