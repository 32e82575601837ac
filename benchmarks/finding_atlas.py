"""How long features are looked for in an atlas, how long it takes to open it, and what it takes of memory."""

import json
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.measuring import PeakRise, Reach, Row, in_child, side_by_side, timed
from multitool.store.atlas_schema import COLUMNS, METADATA, SCHEMA
from multitool.store.atlases import open_atlas

_ROWS, _FEATURES = 100_000, 16_384  # of the atlas, of each SAE
_WORDS, _SPELLINGS = 50_000, 300_000  # of the language, of definitions
_ASKED = {"a word": "rain", "three words": "the water rain", "a beginning that much has": "a"}


def search_of_an_atlas(repeats: int, smoke: bool) -> list[Row]:
    """Search in an atlas with ten definitions and thirty tokens a row; by words, and by filters alone."""
    n_rows = 2_000 if smoke else _ROWS
    with tempfile.TemporaryDirectory() as folder:
        _write(Path(folder), n_rows)
        atlas = open_atlas(folder)
        atlas.search("rain")  # the first one makes the index
        runs = {name: timed(partial(atlas.search, words)) for name, words in _ASKED.items()}
        runs["filters alone"] = timed(partial(atlas.search, "", verdict="partly", max_entropy=3.0, min_cosine=0.2))
        seconds = side_by_side(repeats, runs)
        rows = [
            Row(f"search of {n_rows:,} rows, {name}", {"search": measured}, reach=Reach("at most", 0.3, of="search"))
            for name, measured in seconds.items()
        ]
        opened = [_opened(folder) if smoke else in_child(_opened, folder) for _ in range(repeats)]
        first, held = map(list, zip(*opened, strict=True))
        size = sum(file.stat().st_size for file in Path(folder).rglob("*.parquet")) / 1e6
    return [
        *rows,
        Row(f"open {n_rows:,} rows and search for the first time", {"open": first}, facts={"megabytes on disk": size}),
        Row(f"memory of {n_rows:,} rows, at the highest", {"rise": held}, unit="MB"),
    ]


def _opened(folder: str) -> tuple[float, float]:
    """The seconds that an atlas takes to open and to be searched for the first time, and the memory's rise in MB."""
    with PeakRise() as rise:
        seconds = timed(lambda: open_atlas(folder).search("rain"))()
    return seconds, rise.megabytes


def _write(folder: Path, n_rows: int) -> None:
    """Rows whose words are as frequent as words are."""
    random = np.random.default_rng(0)
    letters = np.array(list("etaoinshrdlucmfwygpbvk"))
    made = ("".join(random.choice(letters, random.integers(2, 10))) for _ in range(_WORDS))
    words = np.array(["the", "water", "rain", *made], dtype=object)
    lengths = random.integers(1, 7, _SPELLINGS)
    spoken = words[np.minimum(random.zipf(1.3, lengths.sum()), len(words)) - 1]
    spellings = pa.array([" ".join(part) for part in np.split(spoken, np.cumsum(lengths)[:-1])])
    tokens = pa.array([f" {word}" for word in words])

    def column(name: str, field: str, pool: pa.Array, n: int, per_row: int) -> pa.ListArray:
        texts = pool.take(pa.array(random.integers(0, len(pool), n * per_row)))
        kind = COLUMNS.field(name).type.value_type
        others = {one.name: pa.nulls(n * per_row, one.type) for one in kind} | {field: texts}
        if name == "definitions":
            others["probability"] = pa.array(-np.sort(-random.random((n, per_row)) / 10).ravel())
        structs = pa.StructArray.from_arrays([others[one.name] for one in kind], fields=list(kind))
        return pa.ListArray.from_arrays(np.arange(0, n * per_row + 1, per_row, dtype=np.int32), structs)

    for first in range(0, n_rows, _FEATURES):
        n = min(_FEATURES, n_rows - first)
        told = {name: pa.nulls(n, COLUMNS.field(name).type) for name in COLUMNS.names} | {
            "sae": pa.array([f"made/{first}"] * n), "feature": pa.array(np.arange(n), pa.int32()),
            "setting": pa.array(np.zeros(n), pa.int16()), "weights": pa.array(["encoder"] * n),
            "first_token_entropy": pa.array(6 * random.random(n)), "auroc": pa.array(random.random(n)),
            "encoder_decoder_cosine": pa.array(random.random(n)),
            "verdict": pa.array(random.choice(["agrees", "partly", "no"], n)),
            "definitions": column("definitions", "text", spellings, n, 10),
            "tokens": column("tokens", "token", tokens, n, 20),
            "strongest_tokens": column("strongest_tokens", "token", tokens, n, 10),
        }  # fmt: skip
        metadata = {METADATA: json.dumps({"schema": SCHEMA, "sae": f"made/{first}", "settings": [{}]})}
        pq.write_table(pa.table(told, COLUMNS.with_metadata(metadata)), folder / f"features-{first:06d}.parquet")
