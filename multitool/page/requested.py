"""What endpoints and tools alike make of a request's values, and of a result as JSON."""

from collections.abc import Iterable, Iterator
from dataclasses import replace

from multitool.jobs.token_table import TokenTable
from multitool.page.api import recipe_of
from multitool.page.service import Service, check_prompts
from multitool.recipes.prompts import PLAIN_PROMPTS
from multitool.recipes.recipe import ListRecipe, TreeRecipe, VectorRecipe
from multitool.store.capacity import all_that_run
from multitool.store.library import Library
from multitool.store.registry import saes
from multitool.trees.document import DefinitionTree


def tree_recipes(given: dict) -> tuple[VectorRecipe, TreeRecipe]:
    """What a tree is grown by. Raises UserError for a value that cannot be."""
    return recipe_of(VectorRecipe, given), recipe_of(TreeRecipe, given)


def recipes_of_prompts(given: dict) -> tuple[VectorRecipe, list[TreeRecipe]]:
    """What a tree for each prompt is grown by. Raises UserError for a value that cannot be, and for too many."""
    vector, recipe = tree_recipes(given)
    prompts = PLAIN_PROMPTS if given["prompts"] is None else given["prompts"]
    check_prompts(prompts)
    return vector, [replace(recipe, prompt=prompt) for prompt in prompts]


def trimmed(tree: DefinitionTree, cutoff: float, lift: float | None) -> DefinitionTree:
    """The tree without its less probable nodes, or those of little lift. Raises UserError if that cannot be."""
    found = tree.trimmed(cutoff)
    return found if lift is None else found.lifted(lift)


def table_answers(service: Service, given: dict, *, evidence: bool) -> Iterator[str | TokenTable]:
    """The token list asked for, and before it what it waits for. Raises UserError for a value that cannot be."""
    return service.table(recipe_of(VectorRecipe, given), recipe_of(ListRecipe, given), evidence=evidence)


def trees_json(trees: Iterable[DefinitionTree]) -> list[dict]:
    return [document.to_dict() for document in trees]


def table_json(table: TokenTable) -> dict:
    """A dataframe as Gradio sends it."""
    return {"headers": list(table.columns), "data": table.rows, "metadata": None}


def saes_json(library: Library, search: str) -> list[dict]:
    """What is known of the SAEs that a search finds, and whether they run here. Raises UserError for no search."""
    found = saes(search, library.patterns)
    return [
        entry.facts() | {"runs_here": str(runs)}
        for entry, runs in zip(found, all_that_run(found, library.machine), strict=True)
    ]


def activity_json(activity: Iterable[tuple[str, float]]) -> list[dict]:
    return [{"token": token, "activation": activation} for token, activation in activity]
