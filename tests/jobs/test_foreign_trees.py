"""Saved trees from anybody: what the model could not take is refused before it runs."""

from dataclasses import replace

import numpy as np
import pytest
from tiny import N_ROWS, PROMPT, random_sae, tiny_model, write_model

from multitool.errors import UserError
from multitool.jobs.local import check_tree, definition_trees, finish
from multitool.jobs.tree import continuation_job
from multitool.model.ghost_prompt import ghost_prompt
from multitool.recipes.recipe import TreeRecipe, VectorRecipe
from multitool.store.library import Library
from multitool.trees.document import DefinitionTree, read_tree

DEPTH = 3


@pytest.fixture(scope="module")
def world(tmp_path_factory, tokenizer):
    """A library, and a tree whose growth was stopped."""
    folder = tmp_path_factory.mktemp("foreign")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SAE_MULTITOOL_CACHE", str(folder / "cache"))
        write_model(folder / "model", tiny_model("llama"), tokenizer)
        sae = random_sae(folder / "sae", 32, 30, hook="blocks.1.hook_resid_post", model=str(folder / "model"))
        library = Library(dtype="float32", device="cpu", allow_folder=True, bars=False)
        vector = VectorRecipe(sae=str(sae), feature=2, weights="encoder")
        recipe = TreeRecipe(prompt=PROMPT, cutoff=0.01, max_depth=DEPTH, max_nodes=30)
        yield library, next(definition_trees(library, vector, recipe))


def go_on(library: Library, document: DefinitionTree) -> DefinitionTree:
    return finish(continuation_job(library, document), library)


def with_token(document: DefinitionTree, token_id: int) -> DefinitionTree:
    return replace(document, tree=replace(document.tree, token_id=np.full_like(document.tree.token_id, token_id)))


def with_settings(document: DefinitionTree, **settings) -> DefinitionTree:
    return replace(document, settings=document.settings | settings)


def deeper(document: DefinitionTree) -> DefinitionTree:
    """A chain of five tokens."""
    n = 5
    chain = replace(
        document.tree, parent=np.arange(-1, n - 1), token_id=np.full(n, 7), token=("x",) * n, prob=np.ones(n),
        cumulative_prob=np.ones(n), end=np.zeros(n, dtype=bool), beyond=None,
    )
    return replace(document, tree=chain)


FOREIGN = {
    "the first id without a row": (lambda tree: with_token(tree, N_ROWS), "has the token #304, for which"),
    "the largest id that is read": (lambda tree: with_token(tree, 2**31 - 1), "has the token #2147483647, for which"),
    "deeper than its max_depth": (deeper, "it is 5 tokens deep, and its max_depth is 3"),
    "a prompt of 10,000 characters": (
        lambda tree: with_settings(tree, prompt="word " * 1990 + '"{ghost}" "'), "at most 2,000 characters"),
    "a prompt of too many tokens": (
        lambda tree: with_settings(tree, prompt="🜁" * 900 + '"{ghost}" "'), "it can have at most 2,000"),
    "settings that cannot be": (lambda tree: with_settings(tree, top_k=10**9), "top_k is 1000000000"),
}


@pytest.mark.parametrize("job", [go_on, check_tree])
@pytest.mark.parametrize("foreign", FOREIGN)
def test_what_the_model_could_not_take_is_refused_before_it_runs(world, monkeypatch, job, foreign):
    library, begun = world
    monkeypatch.setattr(Library, "run", lambda *_: pytest.fail("the model was asked"))
    change, said = FOREIGN[foreign]
    document = read_tree(change(begun).to_json())
    with pytest.raises(UserError) as refused:
        job(library, document)
    assert said in str(refused.value)


@pytest.mark.parametrize("job", [go_on, check_tree])
def test_the_token_that_stands_for_the_ghost_is_in_no_tree(world, job, monkeypatch):
    library, begun = world
    monkeypatch.setattr(Library, "run", lambda *_: pytest.fail("the model was asked"))
    subject = library.subject(begun.settings["model"])
    placeholder = ghost_prompt(subject, PROMPT, DEPTH).placeholder_id
    with pytest.raises(UserError, match="the token that stands for the ghost"):
        job(library, with_token(begun, placeholder))


def test_the_tree_as_it_was_is_grown_on(world):
    library, begun = world
    assert go_on(library, read_tree(begun.to_json())).complete
