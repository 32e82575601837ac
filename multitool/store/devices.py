"""Where models run, and in which precision: on a GPU that the installed PyTorch can use, else on the processor.

bfloat16 has 8 significant bits, float16 11 and float32 24: logits near 20 are multiples of 1/8, 1/64 and 2e-6. What
float16 lacks is range: its largest number is 65,504.
"""

import contextlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from multitool.errors import UserError
from multitool.store.entries import registry_facts
from multitool.store.hub import on_zero_gpu

ZERO_GPU_MEMORY = 48 * 10**9  # bytes of what ZeroGPU lends: half a card, unless more is asked for
_CONTAINER_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
FLOAT32_SHARE = 0.75  # of a GPU's memory that weights in float32 may take: passes, caches and logits need the rest


@dataclass(frozen=True)
class Gpu:
    """A CUDA GPU, as far as it decides what can run on it."""

    name: str
    capability: tuple[int, int]  # its compute capability
    compiled: tuple[str, ...] = ()  # for what the installed PyTorch has code: ("sm_80", "compute_120"); none: not told
    problem: str = ""  # what PyTorch says when it is asked about the GPU and cannot reach it
    memory: int = 0  # bytes, all of it

    @property
    def usable(self) -> bool:
        """Whether the installed PyTorch has code that it can run."""
        return not self.problem and (not self.compiled or any(self._runs(target) for target in self.compiled))

    @property
    def has_bfloat16(self) -> bool:
        """Whether it computes in bfloat16 itself; older ones emulate it, slowly."""
        return self.capability >= (8, 0)

    def _runs(self, target: str) -> bool:
        parts = re.fullmatch(r"(sm|compute)_(\d+)(\d)([af]?)", target)
        if not parts:
            return False
        kind, major, minor, only = parts[1], int(parts[2]), int(parts[3]), parts[4]
        if only == "a":  # that very architecture
            return self.capability == (major, minor)
        if kind == "sm" or only:  # and later ones of its generation
            return self.capability[0] == major and self.capability[1] >= minor
        return self.capability >= (major, minor)  # to be compiled when it is loaded


@dataclass(frozen=True)
class Placement:
    """Where models run. What a user may not expect of it stands in ``notes``, a sentence or two each."""

    device: str
    dtype: str | None  # None: ``suited_precision`` tells each model's
    notes: tuple[str, ...] = ()
    memory: int = 0  # of the GPU, bytes; 0: there is none, or it is not known


def placement(device: str, dtype: str | None, gpu: Gpu | None, apple: bool = False) -> Placement:
    """Where models run, of what was asked for and what there is.

    Args:
        device: one of ``recipes.recipe.Device``.
        dtype: one of ``recipes.recipe.Dtype``, or None for what suits the device.
        gpu: the GPU that there is.
        apple: whether there is one of Apple's.

    Raises:
        UserError: a GPU was asked for that is not there, or not usable.
    """
    if device == "cuda" and not gpu:
        raise UserError("device is 'cuda', but PyTorch finds no CUDA GPU here. Use cpu or auto.")
    if device == "cuda" and gpu and not gpu.usable:
        raise UserError(f"device is 'cuda', but {_not_usable(gpu)} Use cpu or auto.")
    if device == "cpu" or not gpu:
        note = "Apple's GPU is not used: models run on the processor (--device cpu: without this note)."
        return Placement("cpu", dtype or "float32", (note,) if apple and device == "auto" else ())
    if not gpu.usable:
        return Placement("cpu", dtype or "float32", (f"Models run on the processor: {_not_usable(gpu)}",))
    if dtype or gpu.has_bfloat16:
        return Placement("cuda", dtype or "bfloat16", memory=gpu.memory)
    return Placement("cuda", None, (
        f"{gpu.name} has no bfloat16 of its own: models run in float32 where they fit into its memory; else in "
        "float16, or in bfloat16, emulated and slow, if their numbers are too large for float16. To choose yourself: "
        "--dtype, SAE_MULTITOOL_DTYPE.",
    ), gpu.memory)


def suited_precision(model_type: str, n_weights: int, memory: int) -> str:
    """In which precision a model runs on a GPU that has no bfloat16 of its own, one of ``recipes.recipe.Dtype``.

    By what the GPU has, not by what is free at the moment: the same settings give the same result tomorrow.

    Args:
        model_type: transformers' name for the architecture of its text model.
        n_weights: how many numbers its weights are.
        memory: of the GPU, bytes.
    """
    if 4 * n_weights <= FLOAT32_SHARE * memory:
        return "float32"
    return "bfloat16" if model_type in registry_facts()["not_in_float16"] else "float16"


def _not_usable(gpu: Gpu) -> str:
    if gpu.problem:
        return f"PyTorch cannot reach the GPU: {gpu.problem}"
    capability = ".".join(map(str, gpu.capability))
    return (
        f"the installed PyTorch {torch.__version__} has no code for {gpu.name} (compute capability {capability}; it "
        f"has {', '.join(gpu.compiled)}). Another build of PyTorch may have: https://pytorch.org/get-started."
    )


def gpu_here(environment: Mapping[str, str] = os.environ, cuda=torch.cuda) -> Gpu | None:
    """The CUDA GPU of this machine that models would run on."""
    if not cuda.is_available():
        return None
    # On ZeroGPU there is none yet, and it must not be asked for. AMD's, which go by the same name, have it all.
    if on_zero_gpu(environment):
        return Gpu("the GPU", (9, 0), memory=ZERO_GPU_MEMORY)
    if torch.version.hip:
        return Gpu("the GPU", (9, 0))
    try:
        return Gpu(
            cuda.get_device_name(), cuda.get_device_capability(), tuple(cuda.get_arch_list()),
            memory=cuda.get_device_properties().total_memory,
        )
    except (RuntimeError, AssertionError) as error:
        return Gpu("the GPU", (0, 0), problem=" ".join(str(error).split())[:200])


def machine_memory() -> int | None:
    """Bytes of memory that this process may use: the machine's, or its container's if that has less; None where the
    system does not tell (Windows)."""
    try:
        found = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None
    for file in map(Path, _CONTAINER_LIMITS):
        with contextlib.suppress(OSError, ValueError):  # no such limit, or "max"
            found = min(found, int(file.read_text(encoding="ascii")))
    return found
