"""The job of components: what a model's principal components are, told by the tokens at their ends."""

from dataclasses import asdict, dataclass

import numpy as np

from multitool.errors import UserError
from multitool.jobs.steps import Job, Prepare
from multitool.model.subject import Subject
from multitool.recipes.components import COMPONENTS_SHOWN, TOKENS_PER_END
from multitool.recipes.fields import whole
from multitool.store.library import Library

MOST_AT_END = 1000


@dataclass(frozen=True)
class PrincipalComponent:
    """A principal component of a model's embeddings."""

    index: int  # from 1, as the weights in a recipe count
    share: float  # of the embeddings' variance
    positive: tuple[str, ...]  # tokens with the largest (E_t - c) p_k, the largest first
    negative: tuple[str, ...]  # those with the smallest, the smallest first

    def to_dict(self) -> dict:
        """For JSON."""
        return asdict(self) | {"positive": list(self.positive), "negative": list(self.negative)}


def components_job(
    library: Library, sae: str | None = None, *, model: str | None = None, count: int = COMPONENTS_SHOWN,
    top: int = TOKENS_PER_END,
) -> Job[list[PrincipalComponent]]:
    """The first principal components of a model's embeddings.

    Args:
        sae: whose model it is, unless ``model`` is given: a hub id or a folder.
        count: how many components.
        top: how many tokens at each end.

    Raises:
        UserError: neither tells a model, it cannot be had, or a number is out of its range.
    """
    name = model or (library.find(sae).model if sae else None)
    if not name:
        raise UserError("Name a model, or an SAE that tells the model it was trained on.")
    return (yield Prepare(lambda: components_of(library.subject(name), count, top)))


def ends(projections: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """The places of the ``n`` largest, the largest first, and of the ``n`` smallest, the smallest first."""
    ordered = np.argsort(projections, kind="stable")
    return ordered[::-1][:n], ordered[:n]


def components_of(
    subject: Subject, count: int = COMPONENTS_SHOWN, top: int = TOKENS_PER_END
) -> list[PrincipalComponent]:
    """The first ``count`` components of a model, each with ``top`` tokens at both ends.

    Only tokens that texts are made of are told. The first time for a model it takes some seconds.

    Raises:
        UserError: a number is out of its range.
    """
    count = whole(count, "count", 1, subject.space.d_model)
    top = whole(top, "top", 1, MOST_AT_END)
    space, texts = subject.space, subject.token_texts
    there = np.flatnonzero(subject.in_texts)
    projections = space.projections(space.components[:count]).numpy()[:, there]
    found = []
    for index, row in enumerate(projections):
        positive, negative = (tuple(texts[token_id] for token_id in there[end]) for end in ends(row, top))
        found.append(PrincipalComponent(index + 1, float(space.explained_variance[index]), positive, negative))
    return found
