"""Having a job done: with the library that the options ask for, and its progress told."""

from pathlib import Path
from typing import TYPE_CHECKING

from multitool.cli.telling import say, tell_kept
from multitool.store.demo_models import same_model
from multitool.store.entries import SaeEntry, hub_id

if TYPE_CHECKING:
    from multitool.jobs.steps import Job, Result
    from multitool.store.library import Library


def library_of(options, **more) -> "Library":
    from multitool.store.library import Library

    return Library(dtype=options.dtype, device=options.device, allow_folder=True, **more)


def done(job: "Job[Result]", library: "Library") -> "Result":
    """What comes of a job; the progress of scans is told meanwhile."""
    from multitool.jobs.local import finish

    return finish(job, library, tell_kept)


def note_other_model(model: str | None, entry: SaeEntry) -> None:
    """An SAE may be read on another model of the same width; whoever does so should know it."""
    if model and entry.model and Path(hub_id(model)).name.lower() != Path(entry.model).name.lower():
        alike = f"; but for its rounding {model} is the same" if same_model(model, entry.model) else ""
        say(f"note: {entry.name} was trained on {entry.model}{alike or f', not on {model}'}.\n")

