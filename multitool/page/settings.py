"""What an operator decides, read once from the environment, with defaults that suit the place where this runs."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from multitool.process import from_environment, variable
from multitool.recipes.fields import Declared, ListAsTuple, Valid, Whole, check, recipe_fields
from multitool.recipes.recipe import LONGEST_PROMPT, MAX_NODES_LIMIT, Device, Dtype
from multitool.store.hub import on_a_space, on_zero_gpu

USUAL_MOST_NODES = 20_000  # what a page can show quickly


@dataclass(frozen=True, kw_only=True)
class ServerSettings(Declared):
    """Every field with a description can be set by the environment variable of its name in capitals behind
    ``SAE_MULTITOOL_``. Raises UserError for a value that cannot be.
    """

    on_space: bool = False  # whether this is a Space on the hub,
    zero_gpu: bool = False  # and whether its hardware is ZeroGPU
    sae: Annotated[str | None, Field(description="the SAE that the page opens with")] = None
    feature: Annotated[Whole, Field(ge=0, le=10**9, description="and its feature")] = 0
    allow: Annotated[tuple[str, ...], ListAsTuple, Field(
        description="what visitors may load of the registry, as in registry.allowed; none: all of it"
    )] = ()
    atlas: Annotated[str | None, Field(
        description="what is told of features and searched: a folder with atlases, or a dataset repository on the hub "
        "as OWNER/NAME; None: the demo's"
    )] = None
    max_model_gb: Annotated[float | None, Valid("it must be a number of gigabytes above 0"), Field(
        gt=0, lt=1e6, description="larger models are refused before they are fetched"
    )] = None
    models: Annotated[Whole, Field(ge=1, le=100, description="running models kept in memory")] = 1
    dtype: Annotated[Dtype | None, Field(
        description="of running models; None: float32 on a CPU, bfloat16 on a GPU that has it, else what suits a model"
    )] = None
    device: Annotated[Device, Field(description="where they run")] = "auto"
    max_nodes: Annotated[Whole, Field(
        ge=1, le=MAX_NODES_LIMIT, description="most nodes that a visitor may ask for"
    )] = USUAL_MOST_NODES
    max_prompt: Annotated[Whole, Field(
        ge=10, le=LONGEST_PROMPT, description="longest prompt, in characters"
    )] = LONGEST_PROMPT
    seconds: Annotated[Whole | None, Field(
        ge=1, le=3600, description="longest time of the model for one request: a tree then comes back as far as it "
        "got, other work ends"
    )] = None
    queue: Annotated[Whole, Field(
        ge=1, le=1000, description="requests that may wait for the model; further ones are turned away"
    )] = 32
    calls: Annotated[Whole | None, Field(
        ge=1, le=1000, description="requests of one caller that may wait for the model or have it; None: any number"
    )] = None
    files_mb: Annotated[Whole | None, Field(
        ge=10, le=10**6, description="most megabytes of uploads and results on disk, of which the oldest go first; "
        "None: whatever there is of the last day"
    )] = None
    states: Annotated[Whole, Field(
        ge=10, le=10_000, description="pages and programs whose state is kept, the latest ones"
    )] = 300
    trees_mb: Annotated[Whole, Field(
        ge=10, le=10**6, description="most megabytes of memory for the trees that pages show; the oldest go first"
    )] = 500
    concurrency: Annotated[Whole, Field(
        ge=1, le=40, description="trees that grow at the same time; on one CPU or GPU more only slow each other down"
    )] = 1

    @property
    def max_model_bytes(self) -> int | None:
        return None if self.max_model_gb is None else int(self.max_model_gb * 1e9)


def read_settings(environment: Mapping[str, str] = os.environ) -> ServerSettings:
    """The settings for this process.

    Raises:
        UserError: a variable's value cannot be.
    """
    on_space = on_a_space(environment)
    zero_gpu = on_zero_gpu(environment)
    values: dict = {"on_space": on_space, "zero_gpu": zero_gpu}
    if on_space:  # others share it, and its disk holds 50 GB
        values |= {"max_nodes": 5000, "max_prompt": 1000, "max_model_gb": 12.0}
        values |= {"seconds": 300, "calls": 8, "files_mb": 1000}
    if zero_gpu:
        # Every tree has a GPU of its own, half a card with 48 GB. A visitor without an account has two minutes of it a
        # day, and 75 seconds are counted as up to 113.
        values |= {"max_model_gb": 24.0, "models": 2, "queue": 64, "concurrency": 10, "seconds": 75}
    for field in recipe_fields(ServerSettings):
        text = from_environment(field.name, environment)
        if text and field.help:
            values[field.name] = check(field.read(text), variable(field.name), field.kind, told=text)
    return ServerSettings(**values)
