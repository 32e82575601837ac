"""The whole way, once: recipe → vector → prompt with ghost → tree, or → token list.

The command line, the page and the API all come through here.
"""

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from multitool._version import __version__
from multitool.document import DefinitionTree
from multitool.errors import UserError, shown
from multitool.growth import Growth
from multitool.library import Library
from multitool.recipe import ListRecipe, TreeRecipe, VectorRecipe, recipes
from multitool.subject import Subject
from multitool.task import GrowthTask
from multitool.tokens import token_list
from multitool.tree import NO_TREE
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
class PreparedTree:
    """A tree that can be grown: everything is checked and fetched, nothing has been asked of the model yet."""

    task: GrowthTask
    settings: dict  # the recipe with every default resolved, as results carry it
    figures: dict  # of the vector
    token_texts: Sequence[str]
    seconds_before: float = 0.0  # what growing ``task.begun`` took

    @property
    def begun(self) -> DefinitionTree:
        """What there is of the tree before anything grows."""
        tree = self.task.begun or NO_TREE
        return self.document(Growth(tree, int(tree.depth.max(initial=0)), self.task.cutoff, False, 0.0))

    def document(self, growth: Growth) -> DefinitionTree:
        """The tree as far as it has grown, with its recipe."""
        return DefinitionTree(
            tree=growth.tree.spelled(self.token_texts),
            settings=self.settings,
            vector=self.figures,
            effective_cutoff=growth.effective_cutoff,
            complete=growth.done,
            seconds=self.seconds_before + growth.seconds,
            depth_grown=growth.depth,
        )


def prepare_tree(
    library: Library,
    vector_recipe: VectorRecipe,
    tree_recipe: TreeRecipe,
    *,
    model: str | None = None,
    begun: DefinitionTree | None = None,
) -> PreparedTree:
    """Make ready what growing a definition tree takes: fetch and read the weights, build the vector and the prompt.

    Args:
        model: another model than the SAE names: a hub id or a folder.
        begun: the same tree as it was when its growth was stopped, to be grown on.

    Raises:
        UserError: the recipe cannot be followed.
    """
    subject, vector, settings = _vector(library, vector_recipe, model)
    prompt = subject.ghost_prompt(tree_recipe.prompt, tree_recipe.max_depth)
    ends = subject.ends(tree_recipe.closing_quote) if tree_recipe.stop else None
    task = GrowthTask(
        model=subject.name,
        folder=subject.folder,
        n_tokens=subject.space.n_tokens,
        prompt=prompt,
        v=vector.v.numpy(),
        top_k=tree_recipe.top_k,
        cutoff=tree_recipe.cutoff,
        max_depth=tree_recipe.max_depth,
        max_nodes=tree_recipe.max_nodes,
        end_ids=None if ends is None else np.flatnonzero(ends),
        begun=begun.tree if begun else None,
    )
    settings |= asdict(tree_recipe) | {"dtype": library.dtype, "version": __version__}
    return PreparedTree(task, settings, _figures(vector), subject.token_texts, begun.seconds if begun else 0.0)


def definition_trees(
    library: Library, vector_recipe: VectorRecipe, tree_recipe: TreeRecipe, *, model: str | None = None
) -> Iterator[DefinitionTree]:
    """The definition tree as it grows, once per level; the last one is the whole tree.

    Stop asking and the growth stops. Nothing has been computed before the first is asked for.

    Args:
        model: another model than the SAE names: a hub id or a folder.

    Raises:
        UserError: the recipe cannot be followed.
    """
    prepared = prepare_tree(library, vector_recipe, tree_recipe, model=model)
    for growth in library.grow(prepared.task):
        yield prepared.document(growth)


def definition_tree(
    library: Library, vector_recipe: VectorRecipe, tree_recipe: TreeRecipe, *, model: str | None = None
) -> DefinitionTree:
    """The whole definition tree. Arguments and errors as in ``definition_trees``."""
    *_, whole = definition_trees(library, vector_recipe, tree_recipe, model=model)
    return whole


def prepare_continuation(library: Library, document: DefinitionTree) -> PreparedTree:
    """Make ready the rest of a tree whose growth was stopped, as ``prepare_tree`` does.

    What there is of the tree is not computed again, unless nodes were trimmed off: then it grows anew.

    Raises:
        UserError: the tree is whole, or its recipe cannot be followed.
    """
    if document.complete:
        raise UserError("This tree is whole: there is nothing to go on with. For more nodes, lower its cutoff.")
    vector_recipe, tree_recipe = recipes(document.settings)
    entry = library.find(vector_recipe.sae)
    model = document.settings.get("model")
    if model != entry.model:
        raise UserError(
            f"This tree was grown on {shown(model)}, and {entry.name} belongs to {entry.model}. Only a tree on the "
            "SAE's own model can be grown on here."
        )
    untrimmed = document.effective_cutoff <= tree_recipe.cutoff or len(document.tree) >= tree_recipe.max_nodes
    begun = document if untrimmed and len(document.tree) else None
    return prepare_tree(library, vector_recipe, tree_recipe, begun=begun)


def token_table(
    library: Library, vector_recipe: VectorRecipe, list_recipe: ListRecipe, *, model: str | None = None
) -> TokenTable:
    """The token list. The model itself is not run.

    Args:
        model: another model than the SAE names: a hub id or a folder.

    Raises:
        UserError: the recipe cannot be followed.
    """
    subject, vector, settings = _vector(library, vector_recipe, model)
    space, texts = subject.space, subject.token_texts
    listed = token_list(space, vector.v, exponent=list_recipe.exponent, top=list_recipe.top)
    columns = (listed.token_id, listed.score, listed.distance_to_vector, listed.distance_to_centroid)
    rows = [
        [rank, texts[token_id], token_id, *numbers]
        for rank, (token_id, *numbers) in enumerate(zip(*(column.tolist() for column in columns), strict=True), 1)
    ]
    stored = str(space.E.dtype).removeprefix("torch.")
    settings |= asdict(list_recipe) | {"dtype": stored, "version": __version__}
    return TokenTable(rows, settings, _figures(vector))


def _vector(library: Library, recipe: VectorRecipe, model: str | None) -> tuple[Subject, FeatureVector, dict]:
    """The model, the vector, and the recipe with every default resolved."""
    sae, subject = library.load(library.find(recipe.sae), model)
    vector = feature_vector(
        sae.feature(recipe.feature),
        subject.space,
        kind=recipe.weights,
        encoder_share=recipe.encoder_share,
        centroid=recipe.centroid,
        scale=recipe.scale,
        pca=recipe.pca,
    )
    settings = {"model": subject.name} | asdict(recipe) | {"scale": vector.scale, "pca": list(recipe.pca)}
    return subject, vector, settings


def _figures(vector: FeatureVector) -> dict:
    return {
        "norm": vector.norm,
        "distance_from_centroid": vector.distance_from_centroid,
        "mean_token_distance": vector.mean_token_distance,
    }
