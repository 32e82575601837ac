"""What an operator decides, read once from the environment, with defaults that suit the place where this runs."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields

from multitool.errors import UserError, shown
from multitool.recipes.recipe import MAX_NODES_LIMIT
from multitool.store.hub import on_a_space

PREFIX = "SAE_MULTITOOL_"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Every field can be set by the environment variable of its name in capitals behind ``SAE_MULTITOOL_``."""

    on_space: bool = False  # not to be set: whether this is a Space on the hub,
    zero_gpu: bool = False  # and whether its hardware is ZeroGPU
    sae: str | None = None  # the SAE that the page opens with
    feature: int = 0  # and its feature
    allow: tuple[str, ...] = ()  # what visitors may load of the registry, as in registry.allowed; none: all of it
    max_model_gb: float | None = None  # larger models are refused before they are fetched
    models: int = 1  # running models kept in memory
    dtype: str | None = None  # of running models; None: float32 on a CPU, bfloat16 on a GPU
    device: str = "auto"
    max_nodes: int = MAX_NODES_LIMIT  # most nodes that a visitor may ask for
    max_prompt: int = 100_000  # longest prompt, in characters
    seconds: int | None = None  # longest time for one tree, which then comes back as far as it got
    queue: int = 32  # requests that may wait; further ones are turned away
    concurrency: int = 1  # trees that grow at the same time; on one CPU or GPU more only slow each other down

    @property
    def max_model_bytes(self) -> int | None:
        return None if self.max_model_gb is None else int(self.max_model_gb * 1e9)


def read_settings(environment: Mapping[str, str] = os.environ) -> Settings:
    """The settings for this process.

    Raises:
        UserError: a variable's value cannot be.
    """
    on_space = on_a_space(environment)
    # As spaces and Gradio read it.
    zero_gpu = environment.get("SPACES_ZERO_GPU", "").lower() in ("1", "t", "true")
    values: dict = {"on_space": on_space, "zero_gpu": zero_gpu}
    if on_space:  # others share it, and its disk holds 50 GB
        values |= {"max_nodes": 5000, "max_prompt": 1000, "max_model_gb": 12.0}
    if zero_gpu:
        # Every tree has a GPU of its own, half a card with 48 GB. A visitor without an account has two minutes of it a
        # day, and 75 seconds are counted as up to 113.
        values |= {"max_model_gb": 24.0, "models": 2, "queue": 64, "concurrency": 10, "seconds": 75}
    readers = {field.name: _READERS[field.name] for field in fields(Settings) if field.name in _READERS}
    for name, read in readers.items():
        text = environment.get(PREFIX + name.upper(), "").strip()
        if text:
            try:
                values[name] = read(text)
            except ValueError as error:
                raise UserError(f"{PREFIX}{name.upper()} is {shown(text)}; it must be {error}.") from error
    return Settings(**values)


def _whole(low: int, high: int):
    def read(text: str) -> int:
        if not text.isdecimal() or not low <= int(text) <= high:
            raise ValueError(f"a whole number from {low} to {high}")
        return int(text)

    return read


def _gigabytes(text: str) -> float:
    try:
        size = float(text)
    except ValueError:
        size = 0.0
    if not 0 < size < 1e6:
        raise ValueError("a number of gigabytes above 0")
    return size


_READERS = {
    "sae": str,
    "feature": _whole(0, 10**9),
    "allow": lambda text: tuple(text.replace(",", " ").split()),
    "max_model_gb": _gigabytes,
    "models": _whole(1, 100),
    "dtype": str,
    "device": str,
    "max_nodes": _whole(1, MAX_NODES_LIMIT),
    "max_prompt": _whole(10, 100_000),
    "seconds": _whole(1, 3600),
    "queue": _whole(1, 10_000),
    "concurrency": _whole(1, 40),
}
