"""What a running model can be asked to do, as plain data, so that it can go to another process; and its answers."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from torch import Tensor

from multitool.model.ghost_prompt import GhostPrompt, attention_sinks, ghost_prompt
from multitool.model.interventions import Interventions, Push
from multitool.model.subject import Subject
from multitool.recipes.recipe import TreeRecipe
from multitool.trees.tree import Tree


@dataclass(frozen=True, kw_only=True)
class Task:
    """Something that a running model can be asked to do. Plain data: no tensor and no model."""

    model: str  # its name, by which a loaded one is kept
    folder: Path  # where its files lie
    seconds: float | None = None  # time to spend; what there is by then comes back


@dataclass(frozen=True, kw_only=True)
class GrowthTask(Task):
    """A tree to grow, or a forest: many trees from as many ghosts."""

    n_tokens: int  # V
    prompt: GhostPrompt
    v: np.ndarray  # (d_model,) float32: the ghost's embedding row, or what is injected; of a forest (n, d_model)
    top_k: int
    cutoff: float
    max_depth: int
    max_nodes: int
    end_ids: np.ndarray | None  # tokens that end a definition; None: every token may go on
    begun: Tree | None = None  # a part that is known already
    interventions: Interventions | None = None  # what else is done to the stream

    @property
    def ends(self) -> np.ndarray | None:
        """(V,) bool, as ``trees.growth.grow`` takes it."""
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
        interventions: those that the recipe asks for, by ``jobs.steering.interventions``.

    Raises:
        UserError: the prompt does not suit the model.
    """
    ends = subject.ends(recipe.closing_quote) if recipe.stop else None
    prompt = ghost_prompt(subject, recipe.prompt, recipe.max_depth, chat=recipe.chat, answer=recipe.answer)
    if interventions and not recipe.steer_sinks:
        interventions = replace(interventions, spared=attention_sinks(subject, prompt))
    return GrowthTask(
        model=subject.name,
        folder=subject.folder,
        n_tokens=subject.space.n_tokens,
        prompt=prompt,
        v=v.numpy(),
        top_k=recipe.top_k,
        cutoff=recipe.cutoff,
        max_depth=recipe.max_depth,
        max_nodes=recipe.max_nodes,
        end_ids=None if ends is None else np.flatnonzero(ends),
        begun=begun,
        interventions=interventions,
    )


Text = tuple[int, ...]  # token ids
GHOSTS_AT_ONCE = 64  # trees that grow together; bounds the memory that their caches take


@dataclass(frozen=True)
class Place:
    """Where in the model an SAE reads, and what stands before a text there."""

    hook: str
    bos_id: int | None


@dataclass(frozen=True, kw_only=True)
class _AtPlace(Task):
    place: Place


@dataclass(frozen=True, kw_only=True)
class ForestTask(Task):
    """Trees that grow together. The answer is a list of ``trees.growth.Growth``, in the order of the ghosts."""

    growth: GrowthTask  # its ``v`` are the rows of all ghosts, (n, d_model), or what is injected of each


@dataclass(frozen=True, kw_only=True)
class PathsTask(Task):
    """Paths of tokens, to be held against ghosts.

    The answer is (m, nodes) float64: the log-probability of each node's path under each ghost; 0 where it is not
    wanted.
    """

    growth: GrowthTask  # its ``v`` are the ghosts' embedding rows, (m, d_model); nothing else is done to these
    tree: Tree  # of the paths
    wanted: np.ndarray  # (m, nodes) bool; with a node those on the way to it


@dataclass(frozen=True, kw_only=True)
class AskTask(_AtPlace):
    """What the model says of many ghosts."""

    growth: GrowthTask  # its ``v`` are the rows of all ghosts, (n, d_model), or what is injected of each
    n_definitions: int
    at_once: int = GHOSTS_AT_ONCE  # so many ghosts answer together


@dataclass(frozen=True)
class Asked:
    """What the model says of one ghost."""

    tree: Tree
    texts: list[Text]  # its most probable definitions
    residuals: list[np.ndarray]  # of each text, (tokens, d_model) float32
    last_residual: np.ndarray | None  # (d_model,): at the end of the prompt; None under changes of the stream


@dataclass(frozen=True, kw_only=True)
class CheckTask(_AtPlace):
    """A tree that is there, to be held against other ghosts."""

    growth: GrowthTask  # as it was grown
    tree: Tree
    controls: np.ndarray  # (m, d_model) float32: the other ghosts' embedding rows; nothing else is done to these
    texts: list[Text]  # to be read


@dataclass(frozen=True)
class Checked:
    log_probs: np.ndarray  # (1 + m, nodes): of every node's path, under the tree's own ghost and the others
    entropies: np.ndarray  # (1 + m,) nats: of the first token
    last_residuals: np.ndarray | None  # (1 + m, d_model): at the end of the prompt; None under changes of the stream
    residuals: list[np.ndarray]  # of each text, (tokens, d_model) float32


@dataclass(frozen=True, kw_only=True)
class ReadTask(_AtPlace):
    """Texts to be read."""

    texts: list[Text]


@dataclass(frozen=True)
class Base:
    """Tokens at which the layers' Jacobian is taken, and the place up to which."""

    place: Place
    token_ids: Text


@dataclass(frozen=True, kw_only=True)
class PullbackTask(Task):
    """Directions to be carried back from a place to the embeddings."""

    base: Base
    directions: np.ndarray  # (n, d_model) float32


@dataclass(frozen=True, kw_only=True)
class LensTask(Task):
    """Directions to be read by the model's final norm and unembedding."""

    directions: np.ndarray  # (n, d_model) float32


@dataclass(frozen=True, kw_only=True)
class ChangeTask(_AtPlace):
    """Directions to push along, to see what the model then says."""

    directions: np.ndarray  # (n, d_model) float32, of norm 1
    strengths: tuple[float, ...]  # of the pushes, in mean residual norms
    prompts: tuple[Text, ...]  # behind which it is asked for the next token
    prose: Text  # as in ``interventions.Interventions``


@dataclass(frozen=True, kw_only=True)
class SteerTask(Task):
    """A text to be continued under several strengths of the same pushes. The answers are ``Written``, one for every
    token that is written; the last one is read back."""

    token_ids: Text  # the text's, with what stands before it
    pushes: tuple[Push, ...]  # at strength 1
    strengths: tuple[float, ...]  # of each continuation; 0: unsteered
    spared: tuple[int, ...]  # positions of the text that are left alone
    prose: Text  # as in ``interventions.Interventions``
    length: int  # tokens that are written at most
    end_ids: Text  # tokens that end a text
    temperature: float  # 0: the most probable token
    seed: int
    hook: str | None  # at which the residuals of what was written are wanted; None: nowhere


@dataclass(frozen=True)
class Written:
    """What has been written so far, of every strength."""

    token_ids: tuple[Text, ...]  # without a token that ends the text
    ended: tuple[bool, ...]  # by such a token
    norms: dict[str, float]  # the mean residual norm at each hook of the pushes
    done: bool = False  # nothing more is to be written; otherwise the time was up, or more is to come
    # Of every continuation that has been read back by the unsteered model, after the text:
    log_probs: tuple[np.ndarray, ...] | None = None  # (tokens,) float64, natural log of each token's probability
    residuals: tuple[np.ndarray, ...] | None = None  # (tokens, d_model) float32 at the task's hook
