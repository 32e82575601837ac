"""What search needs of an atlas' Parquet files, read part by part, checked, and cut to lengths that can be held.

Whoever wrote a file may have written anything: texts of any length, wrong numbers, rows of nobody.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from multitool.errors import UserError, shown, some
from multitool.store.atlas_schema import COLUMNS, METADATA, SCHEMA
from multitool.store.problems import READING_ATLAS, refuse_pointer, said

VERDICTS = ("no", "partly", "agrees")  # of ``evidence.verdicts``, the least first
NUMBERS = ("first_token_entropy", "encoder_decoder_cosine", "auroc")
# Each list of texts: its field with the text, and how many of a row are kept.
TEXTS = {"definitions": ("text", 50), "tokens": ("token", 100), "strongest_tokens": ("token", 100)}
LONGEST_TEXT = 500  # characters of a text that are kept
LONGEST_NAME = 300
MAX_ROWS = 2_000_000
_READ = ("sae", "feature", "setting", "weights", "problem", "verdict", *NUMBERS, *TEXTS)
_ROWS_AT_ONCE = 4096


@dataclass(frozen=True)
class Texts:
    """Texts of n rows: those of a row stand from ``offsets[row]`` to ``offsets[row + 1]``."""

    offsets: np.ndarray  # (n + 1,) int64
    numbers: np.ndarray  # int32, of all rows: place in ``AtlasTable.spellings``
    weights: np.ndarray  # float32, of each text, from 0 to 1: a definition's probability, 1 / place of a token


@dataclass(frozen=True)
class AtlasTable:
    """n rows of one or more atlases."""

    saes: tuple[str, ...]
    facts: tuple[dict, ...]  # what the files' metadata tell, each once
    sae: np.ndarray  # (n,) int32, place in ``saes``
    feature: np.ndarray  # (n,) int32
    setting: np.ndarray  # (n,) int16, place in the settings of
    source: np.ndarray  # (n,) int32, place in ``facts``
    weights: pa.Array  # (n,) dictionary of strings
    problems: pa.Array  # (n,) dictionary of strings, empty where there is none
    verdict: np.ndarray  # (n,) int8, place in VERDICTS; -1: not judged
    numbers: dict[str, np.ndarray]  # (n,) float64 of each of NUMBERS; nan where there is none
    texts: dict[str, Texts]  # of each of TEXTS
    spellings: pa.Array  # every text once


def read_tables(files: Sequence[Path]) -> AtlasTable:
    """The rows of an atlas' files.

    Raises:
        UserError: a file is none of an atlas, damaged, or there are too many rows.
    """
    facts: list[dict] = []
    sources, batches = [], []
    n_rows = 0
    for path in files:
        for told, batch in _batches(path):
            n_rows += len(batch)
            if n_rows > MAX_ROWS:
                raise UserError(f"This atlas has more than {MAX_ROWS:,} rows. Open a part of it.")
            if told not in facts:
                facts.append(told)
            sources.append(np.full(len(batch), facts.index(told), np.int32))
            batches.append(batch)
    table = pa.Table.from_batches(batches, _kept_schema())
    saes = table["sae"].combine_chunks().dictionary_encode()
    lists = {name: table[name].combine_chunks() for name in TEXTS}
    spelt = pa.concat_arrays([texts.flatten() for texts in lists.values()]).dictionary_encode()
    numbers = np.split(spelt.indices.to_numpy(), np.cumsum([len(texts.flatten()) for texts in lists.values()])[:-1])
    return AtlasTable(
        saes=tuple(saes.dictionary.to_pylist()),
        facts=tuple(facts),
        sae=saes.indices.to_numpy(),
        feature=table["feature"].to_numpy(),
        setting=table["setting"].to_numpy(),
        source=np.concatenate([np.empty(0, np.int32), *sources]),
        weights=table["weights"].combine_chunks().dictionary_encode(),
        problems=table["problem"].combine_chunks().dictionary_encode(),
        verdict=table["verdict"].to_numpy(),
        numbers={name: table[name].to_numpy() for name in NUMBERS},
        texts={
            name: Texts(
                texts.offsets.to_numpy().astype(np.int64), number,
                table[_weights_of(name)].combine_chunks().flatten().to_numpy(),
            ) for (name, texts), number in zip(lists.items(), numbers, strict=True)
        },
        spellings=spelt.dictionary,
    )


def read_facts(path: Path) -> dict:
    """What the metadata of an atlas' file tell. Raises UserError if it is none."""
    with _opened(path) as file:
        return _facts(path, file)


def _opened(path: Path) -> pq.ParquetFile:
    refuse_pointer(path)
    with said(READING_ATLAS, file=path):
        return pq.ParquetFile(path)


def _facts(path: Path, file: pq.ParquetFile) -> dict:
    told = (file.schema_arrow.metadata or {}).get(METADATA)
    if told is None:
        raise UserError(f"{path} is a table, but of no atlas: its metadata do not name {SCHEMA}.")
    try:
        facts = json.loads(told)
    except (ValueError, RecursionError):
        facts = None
    if not isinstance(facts, dict) or facts.get("schema") != SCHEMA:
        schema = facts.get("schema") if isinstance(facts, dict) else facts
        raise UserError(
            f"{path} is of the schema {shown(schema)}; this version reads {SCHEMA}. Make the atlas anew, or open it "
            "with the version that it was made with."
        )
    return facts


def _batches(path: Path) -> Iterator[tuple[dict, pa.RecordBatch]]:
    """What the metadata tell, and some rows as they are kept, until there are no more."""
    with _opened(path) as file:
        facts = _facts(path, file)
        if missing := [name for name in _READ if name not in file.schema_arrow.names]:
            raise UserError(f"{path} has no column {some(missing, 5)}. An atlas has them all: make it anew.")
        schema = pa.schema([COLUMNS.field(name) for name in _READ])
        with said(READING_ATLAS, file=path):
            for batch in file.iter_batches(_ROWS_AT_ONCE, columns=list(_READ)):
                # Other writers than pyarrow name other types for the same: large strings, dictionaries.
                rows = batch.select(list(_READ)).cast(schema)
                rows.validate(full=True)  # that strings are Unicode
                if rows["sae"].null_count or rows["feature"].null_count or pc.any(pc.less(rows["feature"], 0)).as_py():
                    raise UserError(f"{path} has rows that name no feature of an SAE. Make it anew.")
                yield facts, _kept(rows)


def _weights_of(name: str) -> str:
    return f"{name}_weights"


def _kept_schema() -> pa.Schema:
    lists = {name: pa.list_(pa.string()) for name in TEXTS}
    lists |= {_weights_of(name): pa.list_(pa.float32()) for name in TEXTS}
    return pa.schema({
        "sae": pa.string(), "feature": pa.int32(), "setting": pa.int16(), "weights": pa.string(),
        "problem": pa.string(), "verdict": pa.int8(), **{name: pa.float64() for name in NUMBERS}, **lists,
    })  # fmt: skip


def _kept(rows: pa.RecordBatch) -> pa.RecordBatch:
    """The rows as they are kept."""
    verdicts = pc.fill_null(pc.index_in(rows["verdict"], pa.array(VERDICTS)), -1).cast(pa.int8())
    kept = [
        _cut(rows["sae"], LONGEST_NAME), rows["feature"], pc.fill_null(rows["setting"], 0),
        _cut(rows["weights"], LONGEST_NAME), _cut(rows["problem"], LONGEST_TEXT), verdicts,
        *(_finite(rows[name]) for name in NUMBERS),
    ]  # fmt: skip
    texts, weights = [], []
    for name, (field, most) in TEXTS.items():
        lists = pc.list_slice(pc.fill_null(rows[name], []), 0, most)
        offsets = np.concatenate([[0], np.cumsum(pc.list_value_length(lists).to_numpy())]).astype(np.int32)
        values = pc.list_flatten(lists)
        if name == "definitions":
            weight = np.clip(np.nan_to_num(_finite(pc.struct_field(values, "probability")).to_numpy()), 0, 1)
        else:
            weight = 1 / (1 + np.arange(offsets[-1]) - np.repeat(offsets[:-1], np.diff(offsets)))
        texts.append(pa.ListArray.from_arrays(offsets, _cut(pc.struct_field(values, field), LONGEST_TEXT)))
        weights.append(pa.ListArray.from_arrays(offsets, pa.array(weight, pa.float32())))
    return pa.RecordBatch.from_arrays(kept + texts + weights, schema=_kept_schema())


def _cut(texts: pa.Array, most: int) -> pa.Array:
    return pc.utf8_slice_codeunits(pc.fill_null(texts, ""), 0, most)


def _finite(numbers: pa.Array) -> pa.Array:
    """The numbers, and nan for what is none."""
    return pc.if_else(pc.fill_null(pc.is_finite(numbers), False), numbers, float("nan"))

