"""Small atlases made by hand, for tests."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from multitool.store.atlas_schema import COLUMNS, METADATA, SCHEMA

SAE = "demo/hook_embed"
FACTS = {
    "schema": SCHEMA, "sae": SAE, "model": "demo/SmolLM2-135M-Instruct-Q4_1", "dtype": "float32",
    "settings": [{"sae": SAE, "weights": "encoder", "scale": None}, {"sae": SAE, "weights": "decoder", "scale": 2.0}],
    "tree": {"prompt": "definition", "cutoff": 0.002}, "atlas": {"definitions": 10, "evidence": True},
    "versions": {"multitool": "0.0.0", "torch": "2.9"},
}  # fmt: skip


def row(feature: int, definitions=(), tokens=(), strongest=(), **values) -> dict:
    """A row of an atlas; definitions are pairs of text and probability."""
    return {"sae": SAE, "feature": feature, "setting": 0, "weights": "encoder"} | values | {
        "definitions": [{"text": text, "probability": probability} for text, probability in definitions],
        "tokens": [{"token": token, "token_id": 0, "score": 0.5} for token in tokens],
        "strongest_tokens": [{"token": token, "token_id": 0, "activation": 2.0} for token in strongest],
    }


# What rain is; one of which "train" is the first token; one that was not judged; one without a vector.
ROWS = [
    row(927, [("water that falls", 0.25), ("Rainy weather", 0.125)], [" Rain", " rain"], [" rain", " storm"],
        verdict="agrees", auroc=0.9, first_token_entropy=2.0, encoder_decoder_cosine=0.5),
    row(3, [("a train", 0.5), ("rain", 0.25)], [" train", " rail"], [" train"],
        verdict="no", auroc=0.4, first_token_entropy=4.0, encoder_decoder_cosine=0.1),
    row(5, [("to fall", 0.5)], [" falling", " Raining"], verdict=None, first_token_entropy=1.0,
        encoder_decoder_cosine=0.9),
    {"sae": SAE, "feature": 7, "setting": 0, "weights": "encoder", "problem": "Its decoder is zero."},
]


def write_atlas(
    folder: Path, rows=ROWS, facts=FACTS, name="data/features-000000-002047.parquet", schema=COLUMNS
) -> Path:
    """A folder with an atlas."""
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    (folder / "atlas.json").write_text(json.dumps(facts), encoding="utf-8")
    metadata = {} if facts is None else {METADATA: json.dumps(facts)}
    pq.write_table(pa.Table.from_pylist(rows, schema.with_metadata(metadata)), file)
    return folder
