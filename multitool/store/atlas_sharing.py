"""An atlas shared: pushed to a dataset repository on the hub, with a card that tells what it is.

The token is huggingface_hub's own (``HF_TOKEN`` or ``hf auth login``). An atlas' names and prompts may be any text.
"""

import json
import logging
import re
from collections.abc import Sequence
from pathlib import Path

import pyarrow.parquet as pq
import yaml

from multitool.errors import UserError, shown, some
from multitool.store.atlas_schema import COLUMNS, SCHEMA
from multitool.store.atlas_tables import read_facts
from multitool.store.atlases import DATASET, atlas_files
from multitool.store.problems import HUB, asking_hub, sharing_on_hub
from multitool.text import visible

PLAN = "atlas.json"
CARD = "README.md"
_LICENCE = re.compile(r"[a-z0-9][a-z0-9.+-]{0,49}")
_SIZES = ((10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M"), (10**7, "1M<n<10M"))

# What each column holds, for the card.
MEANINGS = {
    "sae": "name of the SAE",
    "feature": "its number, from 0",
    "setting": "which of the settings above, from 0",
    "weights": "what gave the vector its direction",
    "problem": "why there is no vector, in a sentence; all that follows is null then",
    "scale": "length of the vector from the centroid of the token embeddings",
    "norm": "length of the vector; of one that is injected, in mean residual norms",
    "distance_from_centroid": "how far from the centroid the vector lies; null where it is injected",
    "mean_token_distance": "how far from the centroid the model's tokens lie on average",
    "nodes": "nodes of the definition tree",
    "effective_cutoff": "the cumulative probability down to which the tree is whole",
    "first_token_entropy": "entropy of the definitions' first token, in nats",
    "definitions": "the most probable first: text, probability; with evidence the lift of its log-probability over "
    "that at the centroid and at random vectors, and the feature's largest activation on it",
    "tokens": "the first of the token list, with their scores",
    "encoder_decoder_cosine": "cosine of the feature's encoder and decoder",
    "strongest_tokens": "tokens that fire the feature most when they stand alone; null where they were not needed",
    "hits": "definitions that fire the feature; this and what follows is the evidence, null where none was asked for",
    "n_definitions": "of so many that were read",
    "hit_rate_chance": "share of other features' definitions that fire it",
    "auroc": "of its activations on its own definitions against those on others'; 0.5 by chance",
    "rank": "of the feature when all features are asked, 1 the best",
    "verdict": "agrees, partly or no: whether the definitions are what fires it",
    "tree": "the nodes, a list per figure; null where trees were not kept",
}


def push_atlas(folder: str | Path, repo_id: str, *, private: bool = True, licence: str | None = None) -> str:
    """Put an atlas into a dataset repository on the hub, and write its card; the address of the repository's page.

    What lies there of the same atlas is replaced file by file; nothing is deleted. The card is written anew.

    >>> mt.push_atlas("atlas", "me/my-sae-atlas")  # doctest: +SKIP
    'https://huggingface.co/datasets/me/my-sae-atlas'

    Args:
        folder: as ``sae-multitool atlas`` has written it; or one that holds several such.
        repo_id: OWNER/NAME; made if there is none.
        private: whether a new repository is seen by its owner only.
        licence: under which you share it, by the hub's name for it, e.g. "cc-by-4.0".

    Raises:
        UserError: the folder holds no atlas, the repository holds something else, or the hub refuses.
    """
    check_push(repo_id, licence)
    folder = Path(folder)
    facts, n_rows = _told(folder)
    return _push(folder, repo_id, atlas_card(facts, n_rows, repo_id, licence), private)


def check_push(repo_id: str, licence: str | None = None) -> None:
    """Raises UserError if nothing can be pushed so, as far as it is known without asking the hub: before the work."""
    from huggingface_hub import get_token

    if not DATASET.fullmatch(repo_id):
        raise UserError(f"{shown(repo_id)} cannot be a repository on the hub. Name it as OWNER/NAME.")
    if licence is not None and not _LICENCE.fullmatch(licence):
        raise UserError(f"licence is {shown(licence)}; it must be the hub's name of a licence, e.g. cc-by-4.0 or mit.")
    if get_token() is None:
        raise UserError(
            "To share an atlas takes a token of the hub that may write, and there is none. Make one at "
            f"{HUB}/settings/tokens, and run `hf auth login` or set HF_TOKEN."
        )


def _told(folder: Path) -> tuple[list[dict], int]:
    """What an atlas' files tell, each once, and its number of rows. Raises UserError if it is none."""
    files, facts, n_rows = atlas_files(folder), [], 0
    if not any((parent / PLAN).is_file() for parent in (folder, *{file.parent.parent for file in files})):
        raise UserError(f"{folder} holds no atlas: there is no {PLAN} in it. `sae-multitool atlas` writes it.")
    for file in files:
        told = read_facts(file)
        if told not in facts:
            facts.append(told)
        n_rows += pq.read_metadata(file).num_rows
    return facts, n_rows


def _push(folder: Path, repo_id: str, card: str, private: bool) -> str:
    from huggingface_hub import HfApi

    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # its warnings are said in our messages
    api, where = HfApi(), {"repo_id": repo_id, "repo_type": "dataset"}
    with sharing_on_hub(repo_id):
        if not api.repo_exists(**where):
            api.create_repo(**where, private=private, exist_ok=True)
        else:
            _check_same(folder, repo_id, api.list_repo_files(**where))
        # First the card, which the hub may refuse.
        api.upload_file(**where, path_or_fileobj=card.encode(), path_in_repo=CARD, commit_message="What it is")
        api.upload_folder(
            **where, folder_path=folder, allow_patterns=["*.parquet", f"*{PLAN}"], ignore_patterns=[".*", "*/.*"],
            commit_message="Atlas of features",
        )
        return f"{api.endpoint}/datasets/{repo_id}"


def _check_same(folder: Path, repo_id: str, there: Sequence[str]) -> None:
    """Raises UserError if a repository holds anything but a part of this atlas, or of atlases beside it."""
    from huggingface_hub import hf_hub_download

    plans = [name for name in there if Path(name).name == PLAN]
    if not plans and set(there) - {".gitattributes", CARD}:
        raise UserError(
            f"The hub's dataset {shown(repo_id)} exists and holds no atlas, but {some(sorted(there), 5)}. Name another "
            "repository, which is made if there is none."
        )
    for name in plans:
        own = folder / name
        with asking_hub(repo_id, dataset=True):
            theirs = Path(hf_hub_download(repo_id, name, repo_type="dataset"))
        if own.is_file() and _plan(own) != _plan(theirs):
            raise UserError(
                f"The hub's dataset {shown(repo_id)} holds another atlas: its {name} tells of other settings. Name "
                "another repository, or delete that one."
            )


def _plan(file: Path) -> dict | None:
    """What an atlas is of, but for the features: several machines make parts of the same."""
    try:
        told = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return {name: value for name, value in told.items() if name != "features"} if isinstance(told, dict) else None


# The card


def atlas_card(facts: Sequence[dict], n_rows: int, repo_id: str, licence: str | None = None) -> str:
    """The card of an atlas: Markdown behind YAML.

    Args:
        facts: what its files tell.
    """
    saes, models = (_texts(facts, name) for name in ("sae", "model"))
    size = next((name for most, name in _SIZES if n_rows < most), "n>10M")
    head = {
        "pretty_name": f"Atlas of {some(saes, 3)}",
        "configs": [{"config_name": "default", "data_files": [{"split": "train", "path": "**/*.parquet"}]}],
        "tags": ["sae-multitool", "sparse-autoencoder", "interpretability", "definition-trees"],
        "size_categories": [size],
        **({"license": licence} if licence else {}),
        "sae_multitool": {"schema": SCHEMA, "sae": saes, "model": models},
    }
    return f"""---
{yaml.safe_dump(head, sort_keys=False, allow_unicode=True).strip()}
---

# Atlas of {', '.join(map(_code, saes))}

What features of a sparse autoencoder (SAE) mean, told by the language model's own weights: of each feature its most
probable *definitions*, a list of tokens, and, where it was asked for, the evidence that they are what fires it. Made
with the SAE feature multitool.

- SAE: {', '.join(map(_code, saes))}
- of the model {', '.join(map(_code, models))}
- {n_rows:,} rows: one for each feature and setting

The definitions are what the model writes, and say nothing about the world. The licences of the model and of the SAE
apply to what is derived from them.{f" Shared under {_code(licence)}." if licence else ""}

## How it was made

Settings of the vectors (a row's `setting` counts them from 0), of the trees and of what was kept, and the versions:

```json
{json.dumps(facts[0] if len(facts) == 1 else list(facts), indent=2)}
```

## Columns

Schema `{SCHEMA}`; the settings stand in every file's metadata too, under `sae-multitool`.

{chr(10).join(f"- `{field.name}` ({_type(field.type)}): {MEANINGS[field.name]}" for field in COLUMNS)}

## How to read it

```python
from datasets import load_dataset
rows = load_dataset("{repo_id}", split="train")
```

```python
import pandas
rows = pandas.read_parquet("hf://datasets/{repo_id}/data/")
```

```sql
-- DuckDB
SELECT feature, definitions[1].text, verdict FROM 'hf://datasets/{repo_id}/**/*.parquet' WHERE verdict = 'agrees';
```

## How to search it

In Python:

```python
import multitool as mt
mt.find_in_atlas("rain", atlas="{repo_id}")
```

On the page: start it with the environment variable `SAE_MULTITOOL_ATLAS={repo_id}`, and go to *Find*.
"""


def _texts(facts: Sequence[dict], name: str) -> list[str]:
    """A text of each of the facts, every one once, with nothing hidden in it."""
    return list(dict.fromkeys(visible(str(told.get(name, "unknown")))[:300] for told in facts))


def _code(text: str) -> str:
    """A text as Markdown shows it as it is: between more backticks than stand anywhere in it."""
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence}{text}{fence}" if len(fence) == 1 else f"{fence} {text} {fence}"


def _type(type_) -> str:
    """A column's type in short."""
    return "list" if str(type_).startswith("list") else "object" if str(type_).startswith("struct") else str(type_)
