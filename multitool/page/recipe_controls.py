"""All controls of a tree together, the vector's and the growth's: the recipes that they show, how recipes fill them."""

from collections.abc import Mapping

from gradio.components import Component

from multitool.errors import UserError, is_number, shown
from multitool.page.growth_controls import top_k_showing, tree_recipe, tree_values
from multitool.page.vector_controls import vector_recipe, vector_values
from multitool.recipes.fields import recipe_fields
from multitool.recipes.recipe import TreeRecipe, VectorRecipe
from multitool.store.library import Library


def recipes_shown(**values) -> tuple[VectorRecipe, TreeRecipe]:
    """The recipes that the controls show, from their values by name. Raises UserError for a value that cannot be."""
    names = ("intervene", *(field.name for field in recipe_fields(TreeRecipe)))
    growth = {name: values.pop(name) for name in names}
    return vector_recipe(**values), tree_recipe(**growth)


def values_shown(library: Library, vector: VectorRecipe, tree: TreeRecipe) -> dict:
    """What the controls show for recipes, by name. Raises UserError if those of the vector cannot."""
    return vector_values(library, vector) | tree_values(tree)


def values_within(
    controls: Mapping[str, Component], library: Library, vector: VectorRecipe, tree: TreeRecipe
) -> dict:
    """The same for untrusted recipes. Raises UserError if a control cannot show its value."""
    values = values_shown(library, vector, tree)
    for name, value in values.items():
        check_shows(controls[name], value)
    return values


def filled(library: Library, values: Mapping) -> dict:
    """The answer that fills in the controls; ``suited`` is the model that their growth then suits."""
    return {**values, "top_k": top_k_showing(values["top_k"]), "suited": library.find(values["sae"]).model}


def check_shows(control: Component, value) -> None:
    """That a control can show a value. Raises UserError if it is beyond its limits, or none of its choices."""
    offered = [own for _, own in getattr(control, "choices", None) or []]
    if isinstance(value, str):
        longest = getattr(control, "max_length", None)
        if longest is not None and len(value) > longest:
            valid = f"at most {longest:,} characters"
        elif offered and value not in offered and not getattr(control, "allow_custom_value", False):
            valid = ", ".join(offered)
        else:
            return
    elif is_number(value):
        low, high = getattr(control, "minimum", None), getattr(control, "maximum", None)
        if (low is None or low <= value) and (high is None or value <= high):
            return
        valid = " ".join(part for part, limit in ((f"from {low}", low), (f"to {high}", high)) if limit is not None)
    else:
        return
    raise UserError(
        f"“{control.label}” is {shown(value)}; this page can show {valid}. Use the command line or the API for others."
    )
