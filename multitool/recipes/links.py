"""A recipe as the query of a link, both ways. What a link says is anybody's: the recipes check it."""

from collections.abc import Mapping
from dataclasses import asdict
from urllib.parse import urlencode

from multitool.errors import UserError
from multitool.recipes.fields import recipe_fields, written
from multitool.recipes.recipe import TreeRecipe, VectorRecipe, recipes

_ALWAYS = ("sae", "feature", "weights")  # told even where they are the default: a default may change


def query(vector: VectorRecipe, tree: TreeRecipe) -> str:
    """The settings as a URL's query, without those that are the default; the names are the recipes' own.

    Raises:
        UserError: the recipe has a vector of one's own, thousands of numbers, which no link carries.
    """
    if vector.vector:
        raise UserError("A link cannot carry a vector of your own. Save the JSON, which can be opened here, instead.")
    told = {}
    for recipe in (vector, tree):
        for field in recipe_fields(type(recipe)):  # type: ignore[arg-type]  # as in fields
            value = getattr(recipe, field.name)
            if value is not None and (field.name in _ALWAYS or value != field.default):
                told[field.name] = written(value)
    return urlencode(told)


def recipes_of(parameters: Mapping[str, str], opening: VectorRecipe) -> tuple[VectorRecipe, TreeRecipe] | None:
    """The recipes that a link's query tells; None if it names none of their settings.

    Args:
        parameters: the query's, by name; others than the recipes' are left alone.
        opening: whose SAE and feature count where the link names none.

    Raises:
        UserError: a value cannot be.
    """
    offered = (*recipe_fields(VectorRecipe), *recipe_fields(TreeRecipe))
    found = {field.name: field.read(parameters[field.name]) for field in offered if field.name in parameters}
    if not found:
        return None
    start = asdict(opening) if "sae" not in found else {"feature": 0}
    return recipes(start | found)
