"""The Jacobian lens that a recipe's direction is carried by: found, fetched or fitted."""

from functools import partial

from multitool.errors import UserError, shown
from multitool.jobs.features import Resolved
from multitool.jobs.steps import Job, Keep, Prepare
from multitool.store.lenses import FittedLens


def fitted(target: Resolved) -> Job[FittedLens]:
    """The Jacobian lens from the hook of a recipe's SAEs on.

    Raises:
        UserError: it cannot be had or fitted; or the recipe's features are of different hooks.
    """
    entry, library, subject = target.sae.entry, target.library, target.subject
    if len(hooks := sorted({term.sae.entry.hook for term in target.terms})) > 1:
        raise UserError(
            f"feature is {shown(target.recipe.feature)}, whose SAEs read {' and '.join(hooks)}. A Jacobian lens begins "
            "at one hook. Use features of one, or list by another measure."
        )
    lens = yield Prepare(partial(library.lens, entry, subject))
    if lens is None:
        yield Keep(library.lens_task(entry, subject))
        lens = yield Prepare(partial(library.lens, entry, subject))
    return lens
