"""A recipe as the query of a link, both ways. What a link says is anybody's: the recipes check it."""

from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import get_origin
from urllib.parse import urlencode

from multitool.errors import UserError, shown
from multitool.recipes.recipe import RecipeField, TreeRecipe, VectorRecipe, recipe_fields, recipes

_ALWAYS = ("sae", "feature", "weights")  # told even where they are the default: a default may change
_TRUE, _FALSE = "true", "false"


def query(vector: VectorRecipe, tree: TreeRecipe) -> str:
    """The settings as a URL's query, without those that are the default; the names are the recipes' own."""
    told = {}
    for recipe in (vector, tree):
        for field in fields(recipe):
            value = getattr(recipe, field.name)
            if value is not None and (field.name in _ALWAYS or value != field.default):
                told[field.name] = _written(value)
    return urlencode(told)


def recipes_of(parameters: Mapping[str, str], opening: VectorRecipe) -> tuple[VectorRecipe, TreeRecipe] | None:
    """The recipes that a link's query tells; None if it names none of their settings.

    Args:
        parameters: the query's, by name; others than the recipes' are left alone.
        opening: whose SAE and feature count where the link names none.

    Raises:
        UserError: a value cannot be.
    """
    offered = (setting for kind in (VectorRecipe, TreeRecipe) for setting in recipe_fields(kind))
    found = {
        setting.name: _read(setting, parameters[setting.name]) for setting in offered if setting.name in parameters
    }
    if not found:
        return None
    start = asdict(opening) if "sae" not in found else {"feature": 0}
    return recipes(start | found)


def _written(value) -> str:
    if isinstance(value, bool):
        return _TRUE if value else _FALSE
    if isinstance(value, tuple):
        return ",".join(map(repr, value))
    return str(value)


def _read(setting: RecipeField, text: str):
    """A setting from a link's text, of the kind that the recipe wants."""
    if setting.type is bool:
        # What is neither is left for the recipe to refuse.
        return {_TRUE: True, _FALSE: False}.get(text.lower(), text)
    try:
        if get_origin(setting.type) is tuple:
            return tuple(float(part) for part in text.split(",") if part.strip())
        return float(text) if setting.type in (int, float) else text
    except ValueError as error:
        raise UserError(f"The link's {setting.name} is {shown(text)}; it must be a number.") from error
