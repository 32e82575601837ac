"""Definition trees and token lists for sparse-autoencoder features, from the weights alone.

    from multitool import Library, ListRecipe, TreeRecipe, VectorRecipe, definition_tree, token_table

    library = Library()
    vector = VectorRecipe(sae="demo/hook_embed", feature=927)
    tree = definition_tree(library, vector, TreeRecipe(cutoff=1e-3))
    print(tree.definitions(5))
    print(token_table(library, vector, ListRecipe(top=10)).rows)
"""

from multitool._version import __version__
from multitool.document import DefinitionTree, read_tree
from multitool.engine import TokenTable, components, definition_tree, definition_trees, token_table, trees_of_prompts
from multitool.errors import UserError
from multitool.library import Library
from multitool.prompts import PROMPTS, Prompt
from multitool.recipe import ListRecipe, TreeRecipe, VectorRecipe
from multitool.registry import find_sae, saes

__all__ = [
    "DefinitionTree",
    "Library",
    "PROMPTS",
    "ListRecipe",
    "Prompt",
    "TokenTable",
    "TreeRecipe",
    "UserError",
    "VectorRecipe",
    "__version__",
    "components",
    "definition_tree",
    "definition_trees",
    "find_sae",
    "read_tree",
    "saes",
    "token_table",
    "trees_of_prompts",
]
