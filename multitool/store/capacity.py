"""Whether an SAE and its model run on a machine, by what is known of both before anything is fetched."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from multitool.errors import size_shown
from multitool.store.demo_models import DEMO_MODELS
from multitool.store.devices import FLOAT32_SHARE
from multitool.store.entries import ModelSize, SaeEntry, model_size
from multitool.store.hub import known_access

_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
_PROGRAM = 10**9  # bytes of the program itself, and of what a tree needs beside the weights


@dataclass(frozen=True)
class Machine:
    """What there is for models to run on."""

    device: str  # cpu or cuda
    dtype: str | None  # the precision of models there; None: float32 where they fit, else one of 16 bits
    memory: int | None  # bytes, of the machine itself; None: not known
    gpu_memory: int | None = None  # bytes; None: there is no GPU, or it is not known
    max_model_bytes: int | None = None  # larger downloads are refused

    def bytes_of(self, size: ModelSize) -> int:
        """How many a model takes here."""
        if self.dtype:
            return size.parameters * _BYTES[self.dtype]
        whole = size.parameters * _BYTES["float32"]
        return whole if whole <= FLOAT32_SHARE * (self.gpu_memory or 0) else whole // 2


@dataclass(frozen=True)
class RunsHere:
    """Whether an SAE and its model run on a machine."""

    answer: bool | None  # None: not known
    why: str  # a few words; empty where there is nothing to add

    def __str__(self) -> str:
        said = {True: "yes", False: "no", None: "not known"}[self.answer]
        return f"{said}: {self.why}" if self.why else said


def runs_here(
    entry: SaeEntry, machine: Machine, access: Callable[[str], bool | None] = known_access
) -> RunsHere:
    """Whether an SAE and its model run on a machine: whether they fit, and whether the model may be fetched.

    What they take is estimated: the model's weights in the machine's precision, the SAE's two matrices in float32, and
    1 GB.

    Args:
        access: whether a gated model can be read; None where that is not known.
    """
    size = model_size(entry.model)
    if size is None:
        return RunsHere(None, "the size of its model is not known")
    if machine.max_model_bytes is not None and size.download > machine.max_model_bytes:
        return RunsHere(False, f"{size_shown(size.download)} to fetch, {size_shown(machine.max_model_bytes)} allowed")
    fits = _fits(entry, size, machine)
    if fits.answer is False:
        return fits
    if entry.model in DEMO_MODELS:
        terms = DEMO_MODELS[entry.model].terms
        return RunsHere(fits.answer, "after its terms" if terms and not terms.accepted else fits.why)
    if entry.gated:
        may = access(entry.model)
        if may is None:
            return RunsHere(None, "if the token here may read its model")
        if not may:
            return RunsHere(False, "its licence must be accepted, and a token set")
    return fits


def _fits(entry: SaeEntry, size: ModelSize, machine: Machine) -> RunsHere:
    model, sae = machine.bytes_of(size), 2 * 4 * size.d_model * (entry.d_sae or 0) + _PROGRAM
    where = {"": (sae, machine.memory), " on the GPU": (model + _PROGRAM, machine.gpu_memory)}
    if machine.device == "cpu":
        where = {"": (sae + model, machine.memory)}
    for place, (needed, there) in where.items():
        if there is not None and needed > there:
            return RunsHere(False, f"{size_shown(needed)} of memory{place}, {size_shown(there)} here")
    unknown = any(there is None for _, there in where.values()) or entry.d_sae is None
    return RunsHere(None, "how much memory there is, or it takes, is not known") if unknown else RunsHere(True, "")


def all_that_run(entries: list[SaeEntry], machine: Machine) -> list[RunsHere]:
    """``runs_here`` of many SAEs, of whose models each is looked at once."""
    access = cache(known_access)
    return [runs_here(entry, machine, access) for entry in entries]
