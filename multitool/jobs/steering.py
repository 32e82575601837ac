"""From a recipe's steering, clamp and injection to what is done to the model while the tree grows."""

import numpy as np
import torch

from multitool.errors import UserError
from multitool.jobs.features import Resolved, countable_tokens
from multitool.model.interventions import Clamp, Injection, Interventions, Push
from multitool.model.subject import Subject
from multitool.model.tasks import ChangeTask, Place
from multitool.recipes.directions import unit
from multitool.recipes.plain_texts import NEUTRAL_PROMPTS
from multitool.recipes.recipe import TreeRecipe
from multitool.store.saes import Sae, strongest_contexts

# Plain prose, on which residuals have their usual length.
_PROSE = (
    "The old house stood at the end of a narrow street, and its windows looked out over the river. In the morning the "
    "children went to school, while their father read the newspaper and drank a cup of tea. It had rained for three "
    "days, so nobody was surprised when the water came up to the garden gate."
)
# Of the pushes by which it is found what a feature writes, in mean residual norms. Larger ones break the text: on plain
# prose the demo's loss of 3.1 nats a token becomes 3.1 to 3.2 at 0.2, 3.4 to 3.7 at 0.4 and 6.4 to 7.7 at 1; and of the
# 50 tokens that rise most at 0.25, 23 to 36 are among those at 0.5, but 2 to 15 at 1.
STRENGTHS = (0.1, 0.2, 0.4)


def scan_for_clamp(target: Resolved, tree: TreeRecipe) -> bool:
    """Whether the feature's typical maximum is told by the vocabulary scan, as no contexts are kept with the SAE."""
    return tree.clamp is not None and not strongest_contexts(target.sae.entry, target.index)


def interventions(target: Resolved, recipe: TreeRecipe) -> Interventions | None:
    """What the recipe does to the residual stream; None if nothing.

    Of several features in one vector each is pushed at its own SAE's hook, by its weight. A clamp is of one feature; a
    vocabulary scan that it needs must be there (``scan_for_clamp``).

    Raises:
        UserError: there is no such layer, a feature's decoder weights point nowhere, or it never fires, or several are
            to be clamped.
    """
    if not recipe.intervenes:
        return None
    injection, clamp = None, None
    pushes: tuple[Push, ...] = ()
    if recipe.inject_layer >= 0:
        _check_layer(target.subject, recipe.inject_layer)
        injection = Injection(recipe.inject_layer, recipe.inject_mode == "replace", recipe.inject_scale)
    if recipe.steer_strength:
        pushes = pushes_along(target, recipe.steer_strength)
    if recipe.clamp is not None:
        entry = target.sae.entry
        target.library.encoder(entry)  # what cannot be read is refused now, and not where the model runs
        clamp = Clamp(entry, entry.hook, target.index, recipe.clamp, typical_maximum(target))
    return Interventions(injection, pushes, clamp, recipe.steer_at, prose(target.subject))


def pushes_along(target: Resolved, strength: float, **advice: str) -> tuple[Push, ...]:
    """Of a recipe's features, each at its own SAE's hook, by its weight. Errors and advice as of ``decoder``."""
    return tuple(
        Push(term.sae.entry.hook, decoder(term.sae, term.index, **advice), strength * term.weight)
        for term in target.terms
    )


def decoder(sae: Sae, feature: int, instead: str = "Use steer_strength 0 or another feature.") -> np.ndarray:
    """``u(W_dec[i])``: (d_model,) float32.

    Args:
        instead: what the message advises.

    Raises:
        UserError: there is no such direction.
    """
    row = sae.feature(feature).decoder
    if not (torch.isfinite(row).all() and row.norm() > 0):
        raise UserError(
            f"The decoder weights of feature {feature} of {sae.entry.name} are all zero or not finite, so there is no "
            f"direction to steer in (a dead feature?). {instead}"
        )
    return unit(row).numpy()


def change_task(sae: Sae, subject: Subject, directions: np.ndarray) -> ChangeTask:
    """What pushes along directions at an SAE's hook, (n, d_model) of norm 1, change of what the model says."""
    tokens = subject.tokenizer(list(NEUTRAL_PROMPTS), add_special_tokens=False)["input_ids"]
    return ChangeTask(
        model=subject.name,
        folder=subject.folder,
        place=Place(sae.entry.hook, subject.bos_id),
        directions=directions,
        strengths=STRENGTHS,
        prompts=tuple(map(tuple, tokens)),
        prose=prose(subject),
    )


def typical_maximum(target: Resolved) -> float:
    """How strongly a feature fires where it fires most: in the contexts kept with the SAE; without these, on single
    tokens of a vocabulary scan (without those that ``countable_tokens`` leaves out).

    Raises:
        UserError: it never fires there.
    """
    highest = known_maximum(target)
    if highest is None:
        raise UserError(
            f"Feature {target.index} of {target.sae.entry.name} fires on no single token, so its typical maximum is "
            "not known and it cannot be clamped. Steer instead (steer_strength), or use another feature."
        )
    return highest


def known_maximum(target: Resolved) -> float | None:
    """A feature's typical maximum, as ``typical_maximum``, where contexts are kept or a vocabulary scan is there; None
    where neither is, or where it never fires."""
    library, entry = target.library, target.sae.entry
    contexts = strongest_contexts(entry, target.index)
    if contexts:
        highest = max(context.activation for context in contexts)
    elif scan := library.scan(entry, target.subject):
        fires = library.activations(entry, scan, [target.index])[:, 0]
        highest = float(fires[countable_tokens(target.subject, scan)].max())
    else:
        return None
    return highest if highest > 0 else None


def prose(subject: Subject) -> tuple[int, ...]:
    """The tokens on which mean residual norms are measured, with what stands before a text."""
    before = () if subject.bos_id is None else (subject.bos_id,)
    return (*before, *subject.tokenizer(_PROSE, add_special_tokens=False)["input_ids"])


def _check_layer(subject: Subject, layer: int) -> None:
    last = None if subject.n_layers is None else subject.n_layers - 2
    if last is not None and layer > last:
        raise UserError(
            f"inject_layer is {layer}; on {subject.name} it must be from 0 to {last}, so that at least one layer reads "
            "the vector, or -1 for the embedding."
        )
