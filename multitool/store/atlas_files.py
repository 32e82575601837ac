"""An atlas on disk: a folder with a plan and a Parquet file for every part of its features.

A part is written under another name and renamed, so that a folder holds whole parts only, whenever its writer is
killed; what is missing can be made another time. One process at a time writes to a folder. The same rows give the same
bytes.
"""

import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock, Timeout

from multitool.errors import UserError, shown, some
from multitool.recipes.atlas import PER_PART
from multitool.store.atlas_schema import COLUMNS, METADATA
from multitool.store.problems import READING_PART, READING_PLAN, STORING_ATLAS, said

PLAN, DATA = "atlas.json", "data"  # in an atlas' folder: the plan, and the folder of the parts

_LOCK = ".lock"
_UNFINISHED = ".unfinished"  # at the end of a name; what reads *.parquet passes it by
_LONGEST_PLAN = 10_000_000  # bytes
_DIFFERENCES_TOLD = 4
_LONGEST_NAME = 300  # characters of a folder's, in a message

Part = tuple[int, ...]  # features


@dataclass(frozen=True)
class AtlasPlan:
    """What is described, and how."""

    facts: dict  # plain JSON, with a list of "settings": a feature has a row for each
    features: tuple[int, ...]  # rising
    per_part: int = PER_PART  # features

    @property
    def parts(self) -> list[Part]:
        """The features of each file."""
        step = self.per_part
        return [self.features[first : first + step] for first in range(0, len(self.features), step)]

    def to_dict(self) -> dict:
        """For JSON; the features as pairs of a first one and the one behind a last one."""
        return self.facts | {"features": _spans(self.features), "per_part": self.per_part}


def part_name(part: Part) -> str:
    """The name of a part's file: its first and its last feature, so that those of several machines go together."""
    return f"features-{part[0]:06d}-{part[-1]:06d}.parquet"


@contextmanager
def writing(folder: Path, plan: AtlasPlan) -> Iterator["AtlasFiles"]:
    """A folder to write an atlas into: a new one, or one in which parts of it are missing.

    No other process writes there meanwhile; what one that was killed has left half written is deleted.

    Raises:
        UserError: another process writes there, there is another atlas, or the folder cannot be written.
    """
    with _locked(folder):
        with _disk(folder):
            (folder / DATA).mkdir(exist_ok=True)
            for leftover in (*folder.glob(PLAN + _UNFINISHED), *(folder / DATA).glob("features-*" + _UNFINISHED)):
                leftover.unlink()
        _keep_plan(folder, plan)
        yield AtlasFiles(folder, plan)


class AtlasFiles:
    """The parts of an atlas in a folder, held by ``writing``."""

    def __init__(self, folder: Path, plan: AtlasPlan):
        self.folder, self.plan = folder, plan
        self._schema = COLUMNS.with_metadata({METADATA: _json(plan.facts)})

    @property
    def missing(self) -> list[Part]:
        """Parts that are not there, or not whole: to be made, or made anew.

        Raises:
            UserError: one is of another atlas.
        """
        return [part for part in self.plan.parts if not self._is_whole(part)]

    def write(self, part: Part, rows: Sequence[Mapping]) -> None:
        """Write a part, whole or not at all.

        Args:
            rows: for each feature of the part one for each setting, by the names of ``atlas_schema.COLUMNS``; what is
                not named is null.

        Raises:
            UserError: the disk is full, or the folder can no longer be written.
        """
        unknown = {name for row in rows for name in row} - set(COLUMNS.names)
        if unknown or len(rows) != self._n_rows(part):
            raise ValueError(f"{len(rows)} rows for {self._n_rows(part)}, unknown columns {unknown}")
        # In memory first, a few megabytes: what the disk then says has an error's number.
        content = pa.BufferOutputStream()
        pq.write_table(pa.Table.from_pylist(list(rows), self._schema), content, compression="zstd")
        with _disk(self.folder):
            _put(self._path(part), content.getvalue())

    def _path(self, part: Part) -> Path:
        return self.folder / DATA / part_name(part)

    def _n_rows(self, part: Part) -> int:
        return len(part) * len(self.plan.facts["settings"])

    def _is_whole(self, part: Part) -> bool:
        """By the end of the file, where its columns and the number of its rows stand."""
        path = self._path(part)
        try:
            with pq.ParquetFile(path) as file:
                schema, n_rows = file.schema_arrow, file.metadata.num_rows
        except (OSError, pa.ArrowException):  # it is not there, cut short, or no Parquet
            return False
        if (schema.metadata or {}).get(METADATA) != _json(self.plan.facts):
            raise UserError(
                f"{path} is of another atlas than the plan in {self.folder}. Move it elsewhere, or name another folder."
            )
        return schema.equals(self._schema) and n_rows == self._n_rows(part)


@dataclass(frozen=True)
class Counted:
    """What an atlas holds."""

    rows: int
    problems: int  # rows that have no tree
    verdicts: dict[str, int]  # how many rows have which; empty without evidence


def counted(folder: Path) -> Counted:
    """What there is in an atlas' folder, counted part by part.

    Raises:
        UserError: a part cannot be read.
    """
    rows, problems, verdicts = 0, 0, Counter[str]()
    for path in sorted((folder / DATA).glob("*.parquet")):
        with said(READING_PART, file=path):
            table = pq.read_table(path, columns=["problem", "verdict"])
        rows += table.num_rows
        problems += table.num_rows - table["problem"].null_count
        verdicts.update(verdict for verdict in table["verdict"].to_pylist() if verdict is not None)
    return Counted(rows, problems, dict(verdicts))


# The plan


def _keep_plan(folder: Path, plan: AtlasPlan) -> None:
    """Write the plan, or see that it is the one that is there. Of one that came to nothing nothing is lost."""
    path, asked = folder / PLAN, json.loads(_json(plan.to_dict()))
    with _disk(folder):
        parts = {file.name for file in (folder / DATA).glob("*.parquet")}
    there = _read_plan(path) if parts else None
    if there == asked:
        return
    if there is not None:
        raise UserError(
            f"{folder} holds another atlas, of which {_differences(there, asked)}. Ask for the same to go on with it, "
            "or name another folder."
        )
    if others := parts - set(map(part_name, plan.parts)):
        raise UserError(
            f"{folder / DATA} holds files of something else ({some(sorted(others), 2)}), and {PLAN} is not there. Name "
            "a new folder."
        )
    with _disk(folder):
        _put(path, _json(plan.to_dict(), indent=1))


def _read_plan(path: Path) -> dict | None:
    """None: there is none."""
    with said(READING_PLAN, file=path):
        try:
            with path.open("rb") as file:
                content = file.read(_LONGEST_PLAN + 1)
        except FileNotFoundError:
            return None
        if len(content) > _LONGEST_PLAN:
            raise ValueError(f"it is longer than {_LONGEST_PLAN:,} bytes")
        plan = json.loads(content)
        if not isinstance(plan, dict):
            raise ValueError("it is no object")
        return plan


def _differences(there: dict, asked: dict) -> str:
    """What differs between two plans, as a clause."""
    one, other = _flat(there), _flat(asked)
    names = [name for name in other | one if one.get(name) != other.get(name)]
    names = [name for name in names if name in one and name in other] or names
    return some((
        f"the features are {_spans_told(one.get(name))} (asked: {_spans_told(other.get(name))})" if name == "features"
        else f"{name} is {shown(one.get(name))} (asked: {shown(other.get(name))})" for name in names
    ), _DIFFERENCES_TOLD)


def _spans_told(spans) -> str:
    """Pairs as ``_spans`` makes them, in words; the file may have anything in their place."""
    try:
        told = [f"{first}" if last == first + 1 else f"{first} to {last - 1}" for first, last in spans]
    except (TypeError, ValueError):
        return shown(spans)
    return some(told, 4) or "none"


def _flat(plan: dict, before: str = "") -> dict:
    """By names like ``tree.cutoff`` and ``settings.0.weights``."""
    flat = {}
    for name, value in plan.items():
        if isinstance(value, list) and any(isinstance(item, dict) for item in value):
            flat[f"the number of {before}{name}"] = len(value)
            value = dict(enumerate(value))
        flat |= _flat(value, f"{before}{name}.") if isinstance(value, dict) else {f"{before}{name}": value}
    return flat


def _spans(features: Sequence[int]) -> list[list[int]]:
    """[[0, 3], [7, 8]] for 0, 1, 2, 7."""
    spans: list[list[int]] = []
    for feature in features:
        if spans and spans[-1][1] == feature:
            spans[-1][1] += 1
        else:
            spans.append([feature, feature + 1])
    return spans


def _json(content: dict, indent: int | None = None) -> bytes:
    return json.dumps(content, ensure_ascii=False, allow_nan=False, indent=indent).encode()


# On disk


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """A folder that is there and that no other process writes an atlas to. The system unlocks it when a process ends,
    however it does."""
    lock = FileLock(folder / _LOCK, timeout=0, thread_local=False)
    with _disk(folder):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / _LOCK).open("ab").close()  # where that fails, the lock would only say that it cannot be had
        try:
            lock.acquire()
        except Timeout as error:
            raise UserError(
                f"Another process is writing an atlas to {folder}. Wait for it, or name another folder."
            ) from error
    try:
        yield
    finally:
        lock.release()


def _put(path: Path, content: bytes | pa.Buffer) -> None:
    """Write a file, whole or not at all, even where the machine goes down."""
    unfinished = path.with_name(path.name + _UNFINISHED)
    try:
        with unfinished.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
    with suppress(OSError):  # the new name too; Windows opens no folders
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _disk(folder: Path) -> AbstractContextManager[None]:
    return said(STORING_ATLAS, folder=str(folder)[:_LONGEST_NAME])
