"""How long the model's work takes of a GPU: what ``zero_gpu`` goes by when it asks ZeroGPU for one."""

from dataclasses import dataclass


@dataclass(frozen=True)
class GpuTimes:
    """Seconds, but for ``bytes_per_second``.

    Too little, and work is broken off; too much, and visitors wait longer in ZeroGPU's queue and use up what they have
    a day. ``scripts/gpu_check`` measures some of these and prints them as this table.
    """

    card: str  # on which they were measured
    start: float  # a new process, and the default model from disk to the GPU
    bytes_per_second: float  # another model from disk to the GPU
    level: float  # of a tree, or a token of texts that are written together
    node: float  # of a tree that grows
    known_node: float  # of a tree that is there, under one ghost of many that go through it together
    scanned: float  # token
    push: float  # of all prompts in one pass
    backward_pass: float  # of one direction; many share a pass
    least: int  # that is asked for


# Not measured on any card of ZeroGPU's.
ASSUMED = GpuTimes(
    card="none: assumed",
    start=8,
    bytes_per_second=0.5e9,
    level=0.1,
    node=0.005,
    known_node=0.001,
    scanned=1e-4,
    push=0.2,
    backward_pass=0.03,
    least=12,
)
