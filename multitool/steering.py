"""From a recipe's steering, clamp and injection to what is done to the model while the tree grows."""

import numpy as np
import torch

from multitool.errors import UserError
from multitool.interventions import Clamp, Injection, Interventions, Push
from multitool.library import Library
from multitool.loading import Sae, strongest_contexts
from multitool.recipe import TreeRecipe, VectorRecipe
from multitool.sources import countable_tokens, features_of
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
    return tree.clamp is not None and not strongest_contexts(library.find(vector.sae), vector.single_feature())


def tree_task(
    library: Library, subject: Subject, vector: FeatureVector, vector_recipe: VectorRecipe, recipe: TreeRecipe, *,
    model: str | None = None, begun: Tree | None = None,
) -> GrowthTask:
    """The growth of a vector's tree with all that the recipe does to the model meanwhile.

    Args:
        subject, vector: those of ``vector_recipe``.
        model: another model than the SAE names: a hub id or a folder.
        begun: a part of the tree that is known already.

    Raises:
        UserError: the prompt does not suit the model, or the recipe's interventions cannot be done.
    """
    wanted = interventions(library, vector_recipe, recipe, model)
    v = vector.v
    if wanted and wanted.injection:
        v = vector.direction
        if not v.any():
            raise UserError(
                "The centroid alone has no direction to inject. Choose other weights, mix in principal components, or "
                "set inject_layer to -1."
            )
    return growth_task(subject, v, recipe, begun, wanted)


def interventions(
    library: Library, vector_recipe: VectorRecipe, recipe: TreeRecipe, model: str | None = None
) -> Interventions | None:
    """What the recipe does to the residual stream; None if nothing.

    Of several features in one vector each is pushed at its own SAE's hook, by its weight. A clamp is of one feature; a
    vocabulary scan that it needs must be there (``scans_for_clamp``).

    Raises:
        UserError: there is no such layer, a feature's decoder weights point nowhere, or it never fires, or several are
            to be clamped.
    """
    if not recipe.intervenes:
        return None
    subject, features = features_of(library, vector_recipe, model)
    injection, pushes, clamp = None, (), None
    if recipe.inject_layer >= 0:
        _check_layer(subject, recipe.inject_layer)
        injection = Injection(recipe.inject_layer, recipe.inject_mode == "replace", recipe.inject_scale)
    if recipe.steer_strength:
        pushes = tuple(
            Push(sae.entry.hook, _decoder(sae, feature), recipe.steer_strength * weight)
            for sae, feature, weight in features
        )
    if recipe.clamp is not None:
        vector_recipe.single_feature()
        (sae, feature, _), = features
        library.encoder(sae.entry)  # what cannot be read is refused now, and not where the model runs
        clamp = Clamp(sae.entry, feature, recipe.clamp, typical_maximum(library, sae, subject, feature))
    return Interventions(injection, pushes, clamp, recipe.steer_at, yardstick(subject))


def _decoder(sae: Sae, feature: int) -> np.ndarray:
    """``u(W_dec[i])``: (d_model,) float32."""
    row = sae.feature(feature).decoder
    if not (torch.isfinite(row).all() and row.norm() > 0):
        raise UserError(
            f"The decoder weights of feature {feature} of {sae.entry.name} are all zero or not finite, so there is no "
            "direction to steer in (a dead feature?). Use steer_strength 0 or another feature."
        )
    return unit(row).numpy()


def typical_maximum(library: Library, sae: Sae, subject: Subject, feature: int) -> float:
    """How strongly a feature fires where it fires most: in the contexts kept with the SAE; without these, on single
    tokens of a vocabulary scan (without those that ``countable_tokens`` leaves out).

    Raises:
        UserError: it never fires there.
    """
    highest = known_maximum(library, sae, subject, feature)
    if highest is None:
        raise UserError(
            f"Feature {feature} of {sae.entry.name} fires on no single token, so its typical maximum is not known and "
            "it cannot be clamped. Steer instead (steer_strength), or use another feature."
        )
    return highest


def known_maximum(library: Library, sae: Sae, subject: Subject, feature: int) -> float | None:
    """A feature's typical maximum, as ``typical_maximum``, where contexts are kept or a vocabulary scan is there; None
    where neither is, or where it never fires."""
    contexts = strongest_contexts(sae.entry, feature)
    if contexts:
        highest = max(context.activation for context in contexts)
    elif scan := library.scan(sae.entry, subject):
        fires = library.activations(sae.entry, scan, [feature])[:, 0]
        highest = float(fires[countable_tokens(subject, scan)].max())
    else:
        return None
    return highest if highest > 0 else None


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
