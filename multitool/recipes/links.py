"""Recipes as the query of a link, both ways. What a link says is anybody's: the recipes check it."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any
from urllib.parse import parse_qsl, urlencode

from multitool.errors import UserError
from multitool.recipes.fields import Declared, recipe_fields, written
from multitool.recipes.recipe import OF_OWN_VECTOR, TreeRecipe, VectorRecipe

LONGEST = 4_000  # characters of a query that is made: longer addresses are cut off or refused on their way
_LONGEST_READ = 16_000  # and of one that is followed: links of earlier versions may hold a long prompt
_ALWAYS = ("sae", "feature", "weights")  # told even where they are the default: a default may change


def told(*recipes: Declared, always: tuple[str, ...] = _ALWAYS) -> dict[str, str]:
    """The settings of recipes as parameters by name, without those that are the default; the names are the recipes'
    own.

    Args:
        always: what is told even where it is the default, unless it is left open.

    Raises:
        UserError: a recipe has a vector of one's own, thousands of numbers, which no link carries.
    """
    if any(isinstance(recipe, VectorRecipe) and recipe.vector for recipe in recipes):
        raise UserError("A link cannot carry a vector of your own. Save the JSON, which can be opened here, instead.")
    values = [
        (field, getattr(recipe, field.name)) for recipe in recipes
        for field in recipe_fields(type(recipe))  # type: ignore[arg-type]  # as in fields
    ]
    return {
        field.name: written(value) for field, value in values
        if value is not None and (field.name in always or value != field.default)
    }


def query(parameters: Mapping[str, str]) -> str:
    """A link's query that tells parameters. Raises UserError if it would be too long."""
    made = urlencode(parameters, safe="/:,@")
    if len(made) > LONGEST:
        raise UserError(
            f"A link to this would have {len(made):,} characters, and can have {LONGEST:,} at most: the text is too "
            "long."
        )
    return made


def parsed(query: str) -> dict[str, str]:
    """The parameters that a link's query tells; of one that it tells twice the last. Raises UserError if it is too
    long."""
    if len(query) > _LONGEST_READ:
        raise UserError(f"This link has {len(query):,} characters; it can have {_LONGEST_READ:,} at most.")
    return dict(parse_qsl(query.removeprefix("?"), keep_blank_values=True))


def said(parameters: Mapping[str, str], declared: type[Declared]) -> dict[str, Any]:
    """What parameters say of the fields of a recipe, by name, to be checked by it; of no vector of one's own."""
    fields = recipe_fields(declared)  # type: ignore[arg-type]  # as in fields
    offered = [field for field in fields if field.name not in OF_OWN_VECTOR]
    return {field.name: field.read(parameters[field.name]) for field in offered if field.name in parameters}


def vector_of(parameters: Mapping[str, str], opening: VectorRecipe) -> VectorRecipe:
    """The vector that a link's parameters tell.

    Args:
        opening: whose SAE and feature count where the link names none; of another SAE its first feature.

    Raises:
        UserError: a value cannot be.
    """
    start = asdict(opening) if "sae" not in parameters else {"feature": 0}
    return VectorRecipe(**start | said(parameters, VectorRecipe))


def tree_of(parameters: Mapping[str, str], usual: TreeRecipe) -> TreeRecipe:
    """The growth that a link's parameters tell.

    Args:
        usual: what the page grows by. It counts for a link that names no more than SAE and feature; one that names any
            growth, or the weights as links of earlier versions all do, leaves out what is the recipes' own default.

    Raises:
        UserError: a value cannot be.
    """
    growth = said(parameters, TreeRecipe)
    return TreeRecipe(**growth) if growth or "weights" in parameters else usual


def tree_told(vector: VectorRecipe, tree: TreeRecipe, usual: TreeRecipe) -> dict[str, str]:
    """The parameters that ``vector_of`` and ``tree_of`` read as these recipes."""
    if tree == usual and vector.weights is None:
        return told(vector)
    growth = told(tree)
    return told(vector) | (growth if growth or vector.weights else told(tree, always=("top_k",)))
