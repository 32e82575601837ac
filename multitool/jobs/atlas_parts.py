"""An atlas made part by part: what is missing in its folder is described, wherever the model runs, and written."""

import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from operator import index
from pathlib import Path

from multitool.errors import UserError, shown
from multitool.jobs.progress import left_told
from multitool.recipes.atlas import MOST_PER_PART, PER_PART
from multitool.recipes.fields import whole
from multitool.store.atlas_files import AtlasPlan, Part, writing
from multitool.store.library import Library

# Describe is given the parts that are missing, makes ready what it takes, and hands them out with their rows, in the
# order in which they are done. It is closed in the end, or when nothing more is wanted.
Describe = Callable[[Sequence[Part]], Generator[tuple[Part, Sequence[dict]], None, None]]


@dataclass(frozen=True)
class AtlasProgress:
    """How far an atlas is."""

    done: int  # features, those of earlier runs included
    total: int
    per_second: float | None  # features, in this run; None before its first part

    @property
    def seconds_left(self) -> float | None:
        """At that rate."""
        return None if self.per_second is None else (self.total - self.done) / self.per_second

    @property
    def told(self) -> str:
        """In words."""
        said = f"{self.done:,} of {self.total:,} features described"
        if self.per_second is not None:
            said += f", {self.per_second:.3g} per second"
        return f"{said} · {left_told(self.seconds_left)}" if self.seconds_left else said


def atlas_plan(
    library: Library, facts: dict, features: Iterable[int] | None, per_part: int = PER_PART
) -> AtlasPlan:
    """What is to be described.

    Args:
        facts: as ``jobs.atlas`` gives them.
        features: None: all of the SAE.

    Raises:
        UserError: the SAE has no such feature, none is asked for, or parts cannot be of that size.
    """
    entry = library.find(facts["sae"])
    n_features = entry.d_sae or library.sae(entry).d_sae
    numbers = set()
    for feature in range(n_features) if features is None else features:
        number = _number(feature)
        if number is None or not 0 <= number < n_features:
            raise UserError(
                f"features has {shown(feature)}; {entry.name} has {n_features} features, numbered 0 to "
                f"{n_features - 1}."
            )
        numbers.add(number)
    if not numbers:
        raise UserError("features is empty. Name the features to be described, or all.")
    return AtlasPlan(facts, tuple(sorted(numbers)), whole(per_part, "per_part", 1, MOST_PER_PART))


def made(out: Path, plan: AtlasPlan, describe: Describe) -> Iterator[AtlasProgress]:
    """Describe and write the parts that are missing in a folder. Yields how far it is, first what there was before.

    Args:
        describe: called if any is missing.

    Raises:
        UserError: as ``atlas_files.writing``, and ``describe``.
    """
    with writing(out, plan) as files:
        missing = files.missing
        total, left = len(plan.features), sum(map(len, missing))
        before = total - left
        yield AtlasProgress(before, total, None)
        if not missing:
            return
        with closing(describe(missing)) as parts:
            done, started = before, time.monotonic()
            for part, rows in parts:
                files.write(part, rows)
                done += len(part)
                yield AtlasProgress(done, total, (done - before) / max(time.monotonic() - started, 1e-6))


def _number(feature) -> int | None:
    try:
        return index(feature)
    except TypeError:
        return None
