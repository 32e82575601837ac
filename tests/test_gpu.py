"""A GPU's memory, full and given back, and the demo's trees there. For ``scripts/gpu_check``."""

import contextlib

import pytest
import torch
from plain_recursion import as_paths
from tiny import random_sae, tiny_model, write_model

from multitool.errors import UserError
from multitool.jobs.local import check_tree, definition_tree
from multitool.recipes.recipe import TreeRecipe, VectorRecipe
from multitool.store.demo_models import demo_model_folder
from multitool.store.library import Library

pytestmark = [
    pytest.mark.cuda, pytest.mark.slow, pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
]


@pytest.fixture(scope="module")
def ask(tmp_path_factory, tokenizer):
    """Grows a tree of a tiny model on the GPU; the model is loaded once."""
    folder = tmp_path_factory.mktemp("tiny")
    model = write_model(folder / "model", tiny_model("llama"), tokenizer)
    sae = random_sae(folder / "sae", 32)
    library = Library(dtype="float32", device="cuda", allow_folder=True)
    recipe = VectorRecipe(sae=str(sae), feature=2, weights="encoder")

    def asked():
        return definition_tree(library, recipe, TreeRecipe(cutoff=1e-3, max_nodes=200), model=str(model)).tree

    asked()
    return asked


def all_but_a_little() -> list[torch.Tensor]:
    """What fills the GPU: pieces of 1 GB as long as there is room for one, then smaller and smaller ones."""
    held, size = [], 1 << 30
    torch.cuda.empty_cache()
    while size >= 512:
        with contextlib.suppress(torch.OutOfMemoryError):
            while True:
                held.append(torch.empty(size, dtype=torch.uint8, device="cuda"))
        size //= 2
    return held


def test_where_the_memory_is_full_it_is_said_given_back_and_asked_again_the_tree_is_there(ask):
    expected, before = as_paths(ask()), torch.cuda.memory_allocated()
    held = all_but_a_little()
    with pytest.raises(UserError, match=r"^Out of memory while .* worked \(cuda\)\. Ask for fewer nodes"):
        ask()
    del held
    torch.cuda.empty_cache()
    assert torch.cuda.memory_allocated() == before
    assert as_paths(ask()) == pytest.approx(expected, abs=1e-6)
    assert torch.cuda.memory_allocated() == before


def test_after_many_requests_the_memory_is_as_it_was(ask):
    ask()
    allocated, reserved = torch.cuda.memory_allocated(), torch.cuda.memory_reserved()
    for _ in range(30):
        ask()
    assert torch.cuda.memory_allocated() == allocated
    assert torch.cuda.memory_reserved() <= reserved


def test_the_demos_trees_and_their_evidence_are_the_processors():
    try:
        demo_model_folder()
    except UserError as error:
        pytest.skip(str(error))
    recipe = VectorRecipe(sae="demo/hook_embed", feature=22, weights="encoder")
    found = []
    for device in ("cuda", "cpu"):
        library = Library(dtype="float32", device=device)
        tree = definition_tree(library, recipe, TreeRecipe(cutoff=2e-4, max_nodes=2000))
        found.append((as_paths(tree.tree), check_tree(library, tree)))
    (there, checked_there), (here, checked_here) = found
    assert len(here) > 200
    # At the cutoff, rounding may decide.
    sure = {path for path, (_, reached) in here.items() if reached > 2e-4 * 1.001}
    assert sure <= there.keys() and not [path for path in there.keys() - here.keys() if there[path][1] > 2e-4 * 1.001]
    for path in sure:
        assert there[path] == pytest.approx(here[path], rel=1e-3)
    assert checked_there.evidence["verdict"] == checked_here.evidence["verdict"]
