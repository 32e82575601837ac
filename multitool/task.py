"""What growing a tree takes of the machine that has the model: plain data, so that it can go to another process."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from multitool.interventions import Interventions
from multitool.recipe import TreeRecipe
from multitool.subject import GhostPrompt, Subject
from multitool.tree import Tree


@dataclass(frozen=True)
class GrowthTask:
    """A tree to grow. Holds no tensor and no model."""

    model: str  # its name, by which a loaded one is kept
    folder: Path  # where its files lie
    n_tokens: int  # V
    prompt: GhostPrompt
    v: np.ndarray  # (d_model,) float32: the ghost's embedding row, or what is injected; of a forest (n, d_model)
    top_k: int
    cutoff: float
    max_depth: int
    max_nodes: int
    end_ids: np.ndarray | None  # tokens that end a definition; None: every token may go on
    begun: Tree | None = None  # a part that is known already
    seconds: float | None = None  # time to spend
    interventions: Interventions | None = None  # what else is done to the stream

    @property
    def ends(self) -> np.ndarray | None:
        """(V,) bool, as ``growth.grow`` takes it."""
        if self.end_ids is None:
            return None
        ends = np.zeros(self.n_tokens, dtype=bool)
        ends[self.end_ids] = True
        return ends


def growth_task(
    subject: Subject, v: Tensor, recipe: TreeRecipe, begun: Tree | None = None,
    interventions: Interventions | None = None,
) -> GrowthTask:
    """The growth of a tree from ``v`` (d_model,), or of many from (n, d_model).

    Args:
        begun: a part of the tree that is known already.
        interventions: those that the recipe asks for, by ``steering.interventions``.

    Raises:
        UserError: the prompt does not suit the model.
    """
    ends = subject.ends(recipe.closing_quote) if recipe.stop else None
    return GrowthTask(
        model=subject.name,
        folder=subject.folder,
        n_tokens=subject.space.n_tokens,
        prompt=subject.ghost_prompt(recipe.prompt, recipe.max_depth, chat=recipe.chat, answer=recipe.answer),
        v=v.numpy(),
        top_k=recipe.top_k,
        cutoff=recipe.cutoff,
        max_depth=recipe.max_depth,
        max_nodes=recipe.max_nodes,
        end_ids=None if ends is None else np.flatnonzero(ends),
        begun=begun,
        interventions=interventions,
    )
