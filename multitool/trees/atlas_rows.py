"""Definition trees in the rows of an atlas: columns there, a ``DefinitionTree`` back."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from multitool.errors import UserError
from multitool.trees.document import DefinitionTree
from multitool.trees.tree import Tree

_NUMBERS = {
    "parent": np.int64, "token_id": np.int64, "prob": np.float64, "cumulative_prob": np.float64, "end": np.bool_,
    "beyond": np.float64,
}
_OF_VECTOR = ("norm", "distance_from_centroid", "mean_token_distance")


def tree_columns(tree: Tree) -> dict[str, list | None]:
    """A tree without its evidence, as a row keeps it: a list for each column."""
    numbers = {name: getattr(tree, name) for name in _NUMBERS}
    lists = {name: None if column is None else column.tolist() for name, column in numbers.items()}
    return lists | {"token": list(tree.token)}


def tree_of_row(row: Mapping, facts: Mapping) -> DefinitionTree:
    """The tree of an atlas' row, as ``definition_tree`` would grow it; its evidence stands in the row.

    >>> for progress in mt.atlas(library, [vector], [927], "one-feature", mt.TreeRecipe(cutoff=2e-2)):
    ...     pass
    >>> import json
    >>> from pyarrow.parquet import read_table
    >>> table = read_table("one-feature/data")
    >>> facts = json.loads(table.schema.metadata[b"sae-multitool"])
    >>> mt.tree_of_row(table.to_pylist()[0], facts).settings["feature"]
    927

    Args:
        row: by the names of the columns; lists may be arrays.
        facts: the atlas' own, from the metadata of its files.

    Raises:
        UserError: the row has no tree.
    """
    kept = row["tree"]
    if kept is None:
        why = row["problem"] or "the atlas was made without trees"
        raise UserError(f"The row of feature {row['feature']} has no tree: {why}")
    # Of an injected vector there is no distance; atlases of version 0.5 tell nothing else.
    vector = {name: _number(row[name]) for name in _OF_VECTOR if name in row}
    columns: dict[str, Any] = {
        name: None if kept[name] is None else np.array(kept[name], kind) for name, kind in _NUMBERS.items()
    }
    settings = dict(facts["settings"][int(row["setting"])])
    del settings["list_weights"]
    return DefinitionTree(
        tree=Tree(token=tuple(kept["token"]), **columns),
        settings={"model": facts["model"], **settings, "feature": int(row["feature"]), "scale": float(row["scale"]),
                  **facts["tree"], "dtype": facts["dtype"], "version": facts["versions"]["multitool"]},
        vector=vector,
        effective_cutoff=float(row["effective_cutoff"]),
        complete=True,
        seconds=0.0,
        first_token_entropy=float(row["first_token_entropy"]),
    )


def _number(value) -> float | None:
    """Null as a data frame has it is NaN."""
    return None if value is None or np.isnan(value) else float(value)
