"""The job of a definition tree: recipe → vector → prompt with ghost → tree."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial

from torch import Tensor

from multitool._version import __version__
from multitool.errors import UserError, shown
from multitool.jobs.features import Resolved, own_entry, ready, recipe_vector, resolve
from multitool.jobs.steering import interventions, scan_for_clamp
from multitool.jobs.steps import Grow, Job, Prepare
from multitool.model.interventions import Interventions
from multitool.model.subject import Subject, check_tokens
from multitool.model.tasks import GrowthTask, growth_task
from multitool.recipes.recipe import TreeRecipe, VectorRecipe, recipes
from multitool.store.library import Library
from multitool.trees.document import DefinitionTree
from multitool.trees.growth import Growth
from multitool.trees.tree import NO_TREE, Tree
from multitool.vectors.vector import FeatureVector


@dataclass(frozen=True)
class PreparedTree:
    """A tree that can be grown: everything is checked and fetched, nothing has been asked of the model yet."""

    task: GrowthTask
    settings: dict  # the recipe with every default resolved, as results carry it
    figures: dict  # of the vector
    token_texts: Sequence[str]
    seconds_before: float = 0.0  # what growing ``task.begun`` took
    entropy_before: float | None = None  # what is known from it

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
            first_token_entropy=self.entropy_before if growth.entropy is None else growth.entropy,
        )


def tree_job(
    library: Library, vector_recipe: VectorRecipe, tree_recipe: TreeRecipe, *, model: str | None = None
) -> Job[DefinitionTree]:
    """A definition tree. Incomplete if its time was up: ``continuation_job`` grows the rest.

    Args:
        model: another model than the SAE names: a hub id or a folder.

    Raises:
        UserError: the recipe cannot be followed.
    """
    prepared, = yield from prepare_trees(library, vector_recipe, [tree_recipe], model=model)
    return (yield from grown(prepared))


def prepare_trees(
    library: Library, vector_recipe: VectorRecipe, tree_recipes: Sequence[TreeRecipe], *, model: str | None = None
) -> Job[list[PreparedTree]]:
    """Make ready what growing trees of one vector takes: all are checked before the first one grows.

    Arguments and errors as for ``tree_job``.
    """
    if any(recipe.clamp is not None for recipe in tree_recipes):
        vector_recipe.single_feature()
    target = yield Prepare(partial(resolve, library, vector_recipe, model))
    target = yield from ready(target, always=any(scan_for_clamp(target, recipe) for recipe in tree_recipes))
    vector = yield Prepare(partial(recipe_vector, target), "vectors")
    return (yield Prepare(lambda: [prepare_tree(target, vector, recipe) for recipe in tree_recipes], "vectors"))


def continuation_job(library: Library, document: DefinitionTree) -> Job[DefinitionTree]:
    """The rest of a tree whose growth was stopped.

    What there is of the tree is not computed again, unless nodes were trimmed off: then it grows anew.

    Raises:
        UserError: the tree is whole, or its recipe cannot be followed.
    """
    vector_recipe, tree_recipe = recipes(document.settings)
    target = yield Prepare(partial(_grown_on, library, vector_recipe, document))
    target = yield from ready(target, always=scan_for_clamp(target, tree_recipe))
    untrimmed = document.effective_cutoff <= tree_recipe.cutoff or len(document.tree) >= tree_recipe.max_nodes
    begun = document if untrimmed and document.least_lift is None and len(document.tree) else None
    vector = yield Prepare(partial(recipe_vector, target), "vectors")
    prepared = yield Prepare(partial(prepare_tree, target, vector, tree_recipe, begun), "vectors")
    return (yield from grown(prepared))


def grown(prepared: PreparedTree) -> Job[DefinitionTree]:
    """The tree that was prepared."""
    return (yield Grow(prepared.task, prepared.document, prepared.begun))


def prepare_tree(
    target: Resolved, vector: FeatureVector, tree_recipe: TreeRecipe, begun: DefinitionTree | None = None
) -> PreparedTree:
    """Build the prompt, and what is done to the model meanwhile. A vocabulary scan that this needs must be there.

    Args:
        vector: that of the recipe.
        begun: the same tree as it was when its growth was stopped, to be grown on.

    Raises:
        UserError: the recipe cannot be followed.
    """
    task = tree_task(target, vector, tree_recipe, begun.tree if begun else None)
    if begun:
        check_grown(task, target.subject, begun.tree)
    settings = resolved_settings(target, vector) | asdict(tree_recipe)
    settings |= {"dtype": target.precision, "version": __version__}
    before = (begun.seconds, begun.first_token_entropy) if begun else ()
    return PreparedTree(task, settings, _figures(vector, task), target.subject.token_texts, *before)


def tree_task(
    target: Resolved, vector: FeatureVector, recipe: TreeRecipe, begun: Tree | None = None
) -> GrowthTask:
    """The growth of a vector's tree with all that the recipe does to the model meanwhile.

    Raises:
        UserError: the prompt does not suit the model, or the recipe's interventions cannot be done.
    """
    wanted = interventions(target, recipe)
    return growth_task(target.subject, ghost_row(vector, wanted), recipe, begun, wanted)


def ghost_row(vector: FeatureVector, wanted: Interventions | None) -> Tensor:
    """What goes into the model of a vector, (d_model,): its embedding row, or its direction to be injected.

    Raises:
        UserError: it has no direction.
    """
    if not (wanted and wanted.injection):
        return vector.v
    if not vector.direction.any():
        raise UserError(
            "The centroid alone has no direction to inject. Choose other weights, mix in principal components, or "
            "set inject_layer to -1."
        )
    return vector.direction


def check_grown(task: GrowthTask, subject: Subject, tree: Tree) -> None:
    """That a tree, which may be anybody's file, can have grown by a task; before the model gets any of its tokens.

    Raises:
        UserError: it has tokens or a depth that its own settings do not allow.
    """
    check_tokens(subject, tree.token_id, "This tree JSON")
    if tree.depth.max(initial=0) > task.max_depth:
        raise UserError(
            f"This tree JSON is damaged: it is {tree.depth.max()} tokens deep, and its max_depth is {task.max_depth}."
        )
    if task.prompt.placeholder_id in tree.token_id:
        raise UserError("This tree JSON is damaged: it has the token that stands for the ghost, which no tree has.")


def resolved_settings(target: Resolved, vector: FeatureVector) -> dict:
    """The recipe of a vector with every default resolved, as results carry it."""
    recipe = target.recipe
    return {"model": target.subject.name} | recipe.settings() | {"scale": vector.scale}


def _grown_on(library: Library, vector_recipe: VectorRecipe, document: DefinitionTree) -> Resolved:
    """The recipe of a tree that can be grown on, resolved."""
    if document.complete:
        raise UserError("This tree is whole: there is nothing to go on with. For more nodes, lower its cutoff.")
    entry, model = own_entry(library, vector_recipe), document.settings.get("model")
    if model != entry.model:
        raise UserError(
            f"This tree was grown on {shown(model)}, and {entry.name} belongs to {entry.model}. Only a tree on the "
            "SAE's own model can be grown on here."
        )
    return resolve(library, vector_recipe)


def _figures(vector: FeatureVector, task: GrowthTask) -> dict:
    """Those of ``vector_figures``, and the typical maximum of a clamped feature."""
    wanted = task.interventions
    clamp = {"typical_maximum": wanted.clamp.typical_maximum} if wanted and wanted.clamp else {}
    return vector_figures(vector, wanted) | clamp


def vector_figures(vector: FeatureVector, wanted: Interventions | None) -> dict[str, float | None]:
    """The vector's figures; of an injected one its norm in mean residual norms, as it does not lie among the
    embeddings."""
    if not (wanted and wanted.injection):
        return dict(vector.figures)
    norm = wanted.injection.scale * float(vector.direction.norm())
    return vector.figures | {"norm": norm, "distance_from_centroid": None}
