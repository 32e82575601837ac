"""The whole way, once: recipe → vector → prompt with ghost → tree, or → token list.

The command line, the page and the API all come through here.
"""

import csv
import io
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass

from multitool._version import __version__
from multitool.document import DefinitionTree
from multitool.growth import grow
from multitool.loading import Library
from multitool.recipe import ListRecipe, TreeRecipe, VectorRecipe
from multitool.registry import find_sae
from multitool.subject import Subject
from multitool.tokens import token_list
from multitool.vector import FeatureVector, feature_vector

TOKEN_COLUMNS = ("rank", "token", "token_id", "score", "distance_to_vector", "distance_to_centroid")


@dataclass(frozen=True)
class TokenTable:
    """A token list with its recipe."""

    rows: list[list]  # one list per token, in the order of TOKEN_COLUMNS
    settings: dict
    vector: dict

    def to_csv(self) -> str:
        """A header line and one line per token; tokens are exact, quoted where they need it."""
        text = io.StringIO()
        # Every text in quotes: before Python 3.13 a lone carriage return would not be quoted and end the line.
        writer = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
        writer.writerow(TOKEN_COLUMNS)
        writer.writerows(self.rows)
        return text.getvalue()

    def to_dict(self) -> dict:
        return {
            "schema": "sae-multitool/token-list/1",
            "settings": self.settings,
            "vector": self.vector,
            "tokens": [dict(zip(TOKEN_COLUMNS, row, strict=True)) for row in self.rows],
        }


@dataclass(frozen=True)
class _Prepared:
    """A recipe with its model and its vector."""

    subject: Subject
    vector: FeatureVector
    recipe: VectorRecipe

    @property
    def settings(self) -> dict:
        """The recipe with every default resolved, as results carry it."""
        recipe = asdict(self.recipe) | {"scale": self.vector.scale, "pca": list(self.recipe.pca)}
        return {"model": self.subject.name, **recipe}

    @property
    def figures(self) -> dict:
        return {
            "norm": self.vector.norm,
            "distance_from_centroid": self.vector.distance_from_centroid,
            "mean_token_distance": self.vector.mean_token_distance,
        }


def definition_trees(
    library: Library,
    vector_recipe: VectorRecipe,
    tree_recipe: TreeRecipe,
    *,
    model: str | None = None,
    allow_folder: bool = False,
) -> Iterator[DefinitionTree]:
    """The definition tree as it grows, once per level; the last one is the whole tree.

    Stop asking and the growth stops. Nothing has been computed before the first is asked for.

    Args:
        model: another model than the SAE names.
        allow_folder: whether the SAE may be a folder on this machine.

    Raises:
        UserError: the recipe cannot be followed.
    """
    prepared = _prepare(library, vector_recipe, model, allow_folder)
    subject = prepared.subject
    prompt = subject.ghost_prompt(tree_recipe.prompt, tree_recipe.max_depth)
    settings = prepared.settings | asdict(tree_recipe) | {"dtype": subject.dtype, "version": __version__}
    started = time.perf_counter()
    growths = grow(
        subject.next_tokens(prompt, prepared.vector.v, tree_recipe.top_k, tree_recipe.max_depth),
        cutoff=tree_recipe.cutoff,
        max_depth=tree_recipe.max_depth,
        max_nodes=tree_recipe.max_nodes,
        token_text=subject.token_texts.__getitem__,
        ends=subject.ends(tree_recipe.closing_quote) if tree_recipe.stop else None,
    )
    for growth in growths:
        yield DefinitionTree(
            tree=growth.tree,
            settings=settings,
            vector=prepared.figures,
            effective_cutoff=growth.effective_cutoff,
            complete=growth.done,
            seconds=time.perf_counter() - started,
            depth_grown=growth.depth,
        )


def definition_tree(
    library: Library, vector_recipe: VectorRecipe, tree_recipe: TreeRecipe, **options
) -> DefinitionTree:
    """The whole definition tree. Options and errors as in ``definition_trees``."""
    *_, whole = definition_trees(library, vector_recipe, tree_recipe, **options)
    return whole


def token_table(
    library: Library,
    vector_recipe: VectorRecipe,
    list_recipe: ListRecipe,
    *,
    model: str | None = None,
    allow_folder: bool = False,
) -> TokenTable:
    """The token list. Options and errors as in ``definition_trees``."""
    prepared = _prepare(library, vector_recipe, model, allow_folder)
    space, texts = prepared.subject.space, prepared.subject.token_texts
    listed = token_list(space, prepared.vector.v, exponent=list_recipe.exponent, top=list_recipe.top)
    columns = (listed.token_id, listed.score, listed.distance_to_vector, listed.distance_to_centroid)
    rows = [
        [rank, texts[token_id], token_id, *numbers]
        for rank, (token_id, *numbers) in enumerate(zip(*(column.tolist() for column in columns), strict=True), 1)
    ]
    settings = prepared.settings | asdict(list_recipe) | {"dtype": prepared.subject.dtype, "version": __version__}
    return TokenTable(rows, settings, prepared.figures)


def _prepare(library: Library, recipe: VectorRecipe, model: str | None, allow_folder: bool) -> _Prepared:
    sae, subject = library.load(find_sae(recipe.sae, allow_folder=allow_folder), model)
    vector = feature_vector(
        sae.feature(recipe.feature),
        subject.space,
        kind=recipe.weights,
        encoder_share=recipe.encoder_share,
        centroid=recipe.centroid,
        scale=recipe.scale,
        pca=recipe.pca,
    )
    return _Prepared(subject, vector, recipe)
