"""What is measured on: the demo, and embedding matrices of Gemma-2B's shape."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from multitool.jobs.features import recipe_vector, resolve
from multitool.jobs.tree import PreparedTree, prepare_tree
from multitool.model.tasks import GrowthTask
from multitool.recipes.recipe import TreeRecipe, VectorRecipe
from multitool.store.library import Library
from multitool.trees.growth import Growth
from multitool.vectors.embedding import EmbeddingSpace

# The first feature whose trees have about 300 nodes at cutoff 2e-4 and about 900 at 5e-5.
RECIPE = VectorRecipe(sae="demo/hook_embed", feature=22, weights="encoder")
GEMMA_2B = (256_000, 2048)  # of its embedding matrix
SMALL = (20_000, 64)  # in its place where only the code is tried
DTYPES = (torch.float32, torch.bfloat16)  # checkpoints hold the second


@cache
def library() -> Library:
    return Library(dtype="float32", device="cpu")


def prepared(cutoff: float, max_nodes: int = 20_000) -> PreparedTree:
    """A tree of the demo's opening feature, ready to grow."""
    target = resolve(library(), RECIPE)
    return prepare_tree(target, recipe_vector(target), TreeRecipe(cutoff=cutoff, max_nodes=max_nodes))


def grown(task: GrowthTask) -> Growth:
    """The whole tree, grown as the page and the command line do it."""
    for growth in library().do(task):  # noqa: B007
        pass
    return growth


def demo_model():
    """The demo's language model, ready to run."""
    task = prepared(0.5).task
    return library().run(task.model, task.folder)


@dataclass(frozen=True)
class Pass:
    """One forward pass of a model."""

    paths: int
    tokens: int  # of all paths together


def passes(model, run: Callable[[], object]) -> list[Pass]:
    """The forward passes that ``run`` takes."""
    seen = []

    def note(layer, args) -> None:
        n_paths, length, _ = args[0].shape
        seen.append(Pass(n_paths, n_paths * length))

    hook = model.get_decoder().layers[0].register_forward_pre_hook(note)
    try:
        run()
    finally:
        hook.remove()
    return seen


def demo_matrix() -> Tensor:
    """The demo model's embeddings, (49152, 576) in float32."""
    return resolve(library(), RECIPE).subject.space.E


def random_matrix(shape: tuple[int, int], dtype: torch.dtype) -> Tensor:
    return torch.empty(shape, dtype=dtype).normal_(generator=torch.Generator().manual_seed(0))


def compute_statistics(space: EmbeddingSpace) -> None:
    """What a model's first vector and first token list need of its embeddings."""
    for name in ("centroid", "mean_distance", "norms", "distance_to_centroid"):
        getattr(space, name)


def described(name: str, E: Tensor) -> str:
    return f"{name}, {E.shape[0]:,} × {E.shape[1]:,}, {str(E.dtype).removeprefix('torch.')}"
