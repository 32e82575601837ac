"""What growing a tree takes of the machine that has the model: plain data, so that it can go to another process."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from multitool.subject import GhostPrompt
from multitool.tree import Tree


@dataclass(frozen=True)
class GrowthTask:
    """A tree to grow. Holds no tensor and no model."""

    model: str  # its name, by which a loaded one is kept
    folder: Path  # where its files lie
    n_tokens: int  # V
    prompt: GhostPrompt
    v: np.ndarray  # (d_model,) float32: the ghost's embedding row
    top_k: int
    cutoff: float
    max_depth: int
    max_nodes: int
    end_ids: np.ndarray | None  # tokens that end a definition; None: every token may go on
    begun: Tree | None = None  # a part that is known already
    seconds: float | None = None  # time to spend

    @property
    def ends(self) -> np.ndarray | None:
        """(V,) bool, as ``growth.grow`` takes it."""
        if self.end_ids is None:
            return None
        ends = np.zeros(self.n_tokens, dtype=bool)
        ends[self.end_ids] = True
        return ends
