"""Definition trees and token lists for sparse-autoencoder features, from the weights alone.

>>> import multitool as mt
>>> library = mt.Library()
>>> vector = mt.VectorRecipe(sae="demo/hook_embed", feature=927)
>>> tree = mt.definition_tree(library, vector, mt.TreeRecipe(cutoff=5e-3))
>>> [definition.text for definition in tree.definitions(3)]
['water', 'A', 'water that']
>>> [token for rank, token, *numbers in mt.token_table(library, vector, mt.ListRecipe(top=1)).rows]
[' Rain']
>>> sorted(mt.PROMPTS)  # names for TreeRecipe's prompt
['category', 'chat-meaning', 'chat-synonym', 'definition', 'example', 'meaning', 'synonym']
>>> version = mt.__version__

The examples in the other names' documentation go on from here: ``help(mt.check_tree)``.
"""

from importlib import import_module

from multitool._version import __version__ as __version__

# Where each public name is defined. It is imported when it is first asked for: torch takes seconds.
_PUBLIC = {
    "AtlasRecipe": "recipes.atlas",
    "DefinitionTree": "trees.document",
    "Library": "store.library",
    "ListRecipe": "recipes.recipe",
    "PROMPTS": "recipes.prompts",
    "Picture": "pictures.figure",
    "SteerRecipe": "recipes.continuation",
    "TokenTable": "jobs.token_table",
    "TreeRecipe": "recipes.recipe",
    "UserError": "errors",
    "VectorRecipe": "recipes.recipe",
    "accept_gemma_terms": "store.terms",
    "atlas": "jobs.local",
    "check_tree": "jobs.local",
    "components": "jobs.local",
    "continuations": "jobs.local",
    "definition_tree": "jobs.local",
    "definition_trees": "jobs.local",
    "feature_card": "jobs.local",
    "find_by_text": "jobs.local",
    "find_by_tokens": "jobs.local",
    "find_in_atlas": "jobs.find",
    "find_like": "jobs.local",
    "find_sae": "store.registry",
    "open_atlas": "store.atlases",
    "push_atlas": "store.atlas_sharing",
    "read_tree": "trees.document",
    "saes": "store.registry",
    "suggest": "jobs.local",
    "token_table": "jobs.local",
    "tree_of_row": "trees.atlas_rows",
    "trees_of_prompts": "jobs.local",
}

__all__ = sorted([*_PUBLIC, "__version__"])


def __getattr__(name: str):
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(import_module(f"multitool.{_PUBLIC[name]}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
