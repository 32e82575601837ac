"""From a recipe's steering, clamp and injection to what is done to the model while the tree grows."""

import torch

from multitool.errors import UserError
from multitool.interventions import Clamp, Injection, Interventions, Push
from multitool.library import Library
from multitool.loading import Sae, strongest_contexts
from multitool.recipe import TreeRecipe, VectorRecipe
from multitool.sources import FeatureSource, countable_tokens
from multitool.subject import Subject
from multitool.task import GrowthTask, growth_task
from multitool.tree import Tree
from multitool.vector import FeatureVector, unit

# Plain prose, on which residuals have their usual length.
_YARDSTICK = (
    "The old house stood at the end of a narrow street, and its windows looked out over the river. In the morning the "
    "children went to school, while their father read the newspaper and drank a cup of tea. It had rained for three "
    "days, so nobody was surprised when the water came up to the garden gate."
)


def scans_for_clamp(library: Library, vector: VectorRecipe, tree: TreeRecipe) -> bool:
    """Whether the feature's typical maximum is told by the vocabulary scan, as no contexts are kept with the SAE."""
    return tree.clamp is not None and not strongest_contexts(library.find(vector.sae), vector.feature)


def tree_task(
    library: Library, sae: Sae, subject: Subject, source: FeatureSource, vector: FeatureVector, recipe: TreeRecipe,
    begun: Tree | None = None,
) -> GrowthTask:
    """The growth of a feature's tree with all that the recipe does to the model meanwhile.

    Args:
        begun: a part of the tree that is known already.

    Raises:
        UserError: the prompt does not suit the model, or the recipe's interventions cannot be done.
    """
    wanted = interventions(library, sae, subject, source, recipe)
    v = vector.direction if wanted and wanted.injection else vector.v
    return growth_task(subject, v, recipe, begun, wanted)


def interventions(
    library: Library, sae: Sae, subject: Subject, source: FeatureSource, recipe: TreeRecipe
) -> Interventions | None:
    """What the recipe does to the residual stream; None if nothing.

    A vocabulary scan that the clamp needs must be there (``scans_for_clamp``).

    Raises:
        UserError: there is no such layer, the feature's decoder weights point nowhere, or it never fires.
    """
    if not recipe.intervenes:
        return None
    injection, pushes, clamp = None, (), None
    if recipe.inject_layer >= 0:
        _check_layer(subject, recipe.inject_layer)
        injection = Injection(recipe.inject_layer, recipe.inject_mode == "replace", recipe.inject_scale)
    if recipe.steer_strength:
        decoder = source.weights.decoder
        if not (torch.isfinite(decoder).all() and decoder.norm() > 0):
            raise UserError(
                "The decoder weights of this feature are all zero or not finite, so there is no direction to steer in "
                "(a dead feature?). Use steer_strength 0 or another feature."
            )
        pushes = (Push(sae.entry.hook, unit(decoder).numpy(), recipe.steer_strength),)
    if recipe.clamp is not None:
        clamp = Clamp(sae.entry, source.index, recipe.clamp, typical_maximum(library, sae, subject, source.index))
    return Interventions(injection, pushes, clamp, recipe.steer_at, yardstick(subject))


def typical_maximum(library: Library, sae: Sae, subject: Subject, feature: int) -> float:
    """How strongly a feature fires where it fires most: in the contexts kept with the SAE; without these, on single
    tokens of a vocabulary scan (without those that ``countable_tokens`` leaves out).

    Raises:
        UserError: it never fires there.
    """
    contexts = strongest_contexts(sae.entry, feature)
    if contexts:
        highest = max(context.activation for context in contexts)
    else:
        scan = library.scan(sae.entry, subject)
        fires = library.activations(sae.entry, scan, [feature])[:, 0]
        highest = float(fires[countable_tokens(subject, scan)].max())
    if highest <= 0:
        raise UserError(
            f"Feature {feature} of {sae.entry.name} fires on no single token, so its typical maximum is not known and "
            "it cannot be clamped. Steer instead (steer_strength), or use another feature."
        )
    return highest


def yardstick(subject: Subject) -> tuple[int, ...]:
    """The tokens on which mean residual norms are measured, with what stands before a text."""
    before = () if subject.bos_id is None else (subject.bos_id,)
    return (*before, *subject.tokenizer(_YARDSTICK, add_special_tokens=False)["input_ids"])


def _check_layer(subject: Subject, layer: int) -> None:
    last = None if subject.n_layers is None else subject.n_layers - 2
    if last is not None and layer > last:
        raise UserError(
            f"inject_layer is {layer}; on {subject.name} it must be from 0 to {last}, so that at least one layer reads "
            "the vector, or -1 for the embedding."
        )
