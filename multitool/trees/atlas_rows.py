"""Definition trees in the rows of an atlas: columns there, a ``DefinitionTree`` back."""

from collections.abc import Mapping

import numpy as np

from multitool.errors import UserError
from multitool.trees.document import DefinitionTree
from multitool.trees.tree import Tree

_NUMBERS = {
    "parent": np.int64, "token_id": np.int64, "prob": np.float64, "cumulative_prob": np.float64, "end": np.bool_,
    "beyond": np.float64,
}


def tree_columns(tree: Tree) -> dict[str, list]:
    """A tree with its probability beyond the top_k, as a row keeps it: a list for each column."""
    return {name: getattr(tree, name).tolist() for name in _NUMBERS} | {"token": list(tree.token)}


def tree_of(row: Mapping, facts: Mapping) -> DefinitionTree:
    """The tree of a row, as ``definition_tree`` would grow it; its evidence stands in the row.

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
    distance = row["distance_from_centroid"]  # none of a vector that is injected
    settings = dict(facts["settings"][int(row["setting"])])
    settings.pop("list_weights", None)
    return DefinitionTree(
        tree=Tree(token=tuple(kept["token"]), **{name: np.array(kept[name], kind) for name, kind in _NUMBERS.items()}),
        settings={"model": facts["model"], **settings, "feature": int(row["feature"]), "scale": float(row["scale"]),
                  **facts["tree"], "dtype": facts["dtype"], "version": facts["versions"]["multitool"]},
        vector={} if distance is None else {"distance_from_centroid": float(distance)},
        effective_cutoff=float(row["effective_cutoff"]),
        complete=True,
        seconds=0.0,
        first_token_entropy=float(row["first_token_entropy"]),
    )
