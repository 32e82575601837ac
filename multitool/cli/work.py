"""Having a job done: with the library that the options ask for, and its progress told."""

from pathlib import Path
from typing import TYPE_CHECKING

from multitool.cli.telling import TELLING, say
from multitool.store.demo_models import same_model
from multitool.store.entries import SaeEntry, hub_id
from multitool.trees.document import DefinitionTree

if TYPE_CHECKING:
    from multitool.jobs.steps import Job, Result
    from multitool.store.library import Library


def library_of(options, **more) -> "Library":
    """The library that the options ask for; it tells how far downloads are."""
    from multitool.store.library import Library

    more |= {"fetching": TELLING.tell_download}
    return Library(dtype=options.dtype, device=options.device, allow_folder=True, **more)


def done(job: "Job[Result]", library: "Library") -> "Result":
    """What comes of a job; meanwhile it is told how far it is."""
    from multitool.jobs.local import stream

    growing = stream(job, library, TELLING.tell)
    try:
        while True:
            try:
                match next(growing):
                    case DefinitionTree(tree=tree):
                        TELLING.tell_growth(len(tree))
                    case writing:
                        TELLING.tell(writing.progress)
            except StopIteration as end:
                return end.value
    finally:
        TELLING.leave()


def note_other_model(model: str | None, entry: SaeEntry) -> None:
    """An SAE may be read on another model of the same width; whoever does so should know it."""
    if model and entry.model and Path(hub_id(model)).name.lower() != Path(entry.model).name.lower():
        alike = f"; but for its rounding {model} is the same" if same_model(model, entry.model) else ""
        say(f"note: {entry.name} was trained on {entry.model}{alike or f', not on {model}'}.\n")
