"""Definition trees and token lists for sparse-autoencoder features, from the weights alone.

>>> import multitool as mt
>>> library = mt.Library()
>>> vector = mt.VectorRecipe(sae="demo/hook_embed", feature=927)
>>> tree = mt.definition_tree(library, vector, mt.TreeRecipe(cutoff=5e-3))
>>> [definition.text for definition in tree.definitions(3)]
['water', 'A', 'water that']
>>> [token for rank, token, *numbers in mt.token_table(library, vector, mt.ListRecipe(top=1)).rows]
[' rain']
>>> sorted(mt.PROMPTS)  # names for TreeRecipe's prompt
['category', 'chat-meaning', 'chat-synonym', 'definition', 'example', 'meaning', 'synonym']
>>> version = mt.__version__

The examples in the other names' documentation go on from here: ``help(mt.check_tree)``.
"""

from multitool._version import __version__
from multitool.document import DefinitionTree, read_tree
from multitool.engine import (
    TokenTable,
    check_tree,
    components,
    definition_tree,
    definition_trees,
    suggest,
    token_table,
    trees_of_prompts,
)
from multitool.errors import UserError
from multitool.library import Library
from multitool.prompts import PROMPTS
from multitool.recipe import ListRecipe, TreeRecipe, VectorRecipe
from multitool.registry import find_sae, saes

__all__ = [
    "DefinitionTree",
    "Library",
    "ListRecipe",
    "PROMPTS",
    "Picture",  # noqa: F822  (by __getattr__)
    "TokenTable",
    "TreeRecipe",
    "UserError",
    "VectorRecipe",
    "__version__",
    "check_tree",
    "components",
    "definition_tree",
    "definition_trees",
    "find_sae",
    "read_tree",
    "saes",
    "suggest",
    "token_table",
    "trees_of_prompts",
]


def __getattr__(name: str):
    """``Picture`` once it is asked for: matplotlib takes a second to import."""
    if name == "Picture":
        from multitool.draw import Picture

        return Picture
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
