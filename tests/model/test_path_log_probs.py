"""How probable a tree is under any ghost, against one full forward pass per node."""

from pathlib import Path

import numpy as np
import pytest
import torch
from plain_recursion import PlainRecursion
from test_architectures import DEPTH, ENDS, ghost_vector, grown
from tiny import PROMPT, RunningSubject, tiny_subject

from multitool.model.ghost_prompt import ghost_prompt
from multitool.model.passes import WHAT_FITS, Batches
from multitool.model.questions import path_log_probs, read_paths
from multitool.model.tasks import GrowthTask, PathsTask
from multitool.trees.tree import NO_TREE, Tree

pytestmark = pytest.mark.cuda

N_GHOSTS = 3


def ghosts(subject: RunningSubject) -> torch.Tensor:
    """The first is the one that ``grown`` grows its tree for."""
    return torch.stack([ghost_vector(subject, seed) for seed in range(1, 1 + N_GHOSTS)])


def measured(subject: RunningSubject, tree: Tree, batches: Batches = WHAT_FITS) -> tuple[np.ndarray, np.ndarray]:
    prompt = ghost_prompt(subject, PROMPT, DEPTH)
    return path_log_probs(subject.model, prompt, ghosts(subject), tree, batches=batches)


def plain_log_probs(subject: RunningSubject, v: torch.Tensor, tree: Tree) -> tuple[list[float], float]:
    """Of each node's path, and the entropy of the first next token: slow and obvious."""
    prompt = ghost_prompt(subject, PROMPT, DEPTH)
    plain = PlainRecursion(subject.model, prompt.token_ids, prompt.position, v)
    n_rows = subject.space.n_tokens
    log_probs = []
    for node in range(len(tree)):
        *before, last = (int(tree.token_id[i]) for i in tree.path(node))
        probs = dict(plain.next_tokens(tuple(before), n_rows))
        parent = tree.parent[node]
        log_probs.append(np.log(probs[last]) + (log_probs[parent] if parent >= 0 else 0.0))
    first = [prob for _, prob in plain.next_tokens((), n_rows)]
    return log_probs, -sum(prob * np.log(prob) for prob in first if prob)


@pytest.fixture
def tolerance(architecture):
    return 1e-3 if architecture == "qwen3_5" else 1e-4


def test_every_path_under_every_ghost_is_as_probable_as_one_pass_per_node_says(subject, tolerance):
    tree = grown(subject, ends=ENDS, max_nodes=60).tree
    assert tree.depth.max() > 2
    log_probs, entropies = measured(subject, tree)
    assert (log_probs.shape, entropies.shape) == ((N_GHOSTS, len(tree)), (N_GHOSTS,))
    assert (log_probs.dtype, entropies.dtype) == (np.float64, np.float64)
    for v, of_ghost, entropy in zip(ghosts(subject), log_probs, entropies, strict=True):
        expected, expected_entropy = plain_log_probs(subject, v, tree)
        np.testing.assert_allclose(of_ghost, expected, atol=tolerance, rtol=1e-5)
        assert entropy == pytest.approx(expected_entropy, abs=tolerance)


def test_under_its_own_ghost_a_tree_has_the_probabilities_it_was_grown_with(subject, tolerance):
    tree = grown(subject).tree
    own, other, _ = measured(subject, tree)[0]
    np.testing.assert_allclose(own, np.log(tree.cumulative_prob), atol=tolerance)
    assert np.abs(other - own).max() > 0.5, "other ghosts must matter for this to be a test"


@pytest.mark.parametrize("batches", [Batches(max_paths=1), Batches(n_bytes=1)], ids=["paths", "bytes"])
def test_the_size_of_batches_changes_nothing(subject, tolerance, batches):
    tree = grown(subject).tree
    for one_by_one, together in zip(measured(subject, tree, batches), measured(subject, tree), strict=True):
        np.testing.assert_allclose(one_by_one, together, atol=tolerance, rtol=1e-5)


@pytest.fixture(scope="module")
def llama(tokenizer):
    return tiny_subject("llama", tokenizer)


def test_an_empty_tree_has_no_log_probabilities_but_the_ghosts_have_entropies(llama):
    log_probs, entropies = measured(llama, NO_TREE)
    assert log_probs.shape == (N_GHOSTS, 0)
    np.testing.assert_allclose(entropies, measured(llama, grown(llama).tree)[1])


def test_only_nodes_with_children_are_fed_to_the_model(llama, monkeypatch):
    tree = grown(llama).tree
    fed = []
    forward = llama.model.forward
    monkeypatch.setattr(llama.model, "forward", lambda **inputs: fed.append(inputs) or forward(**inputs))
    measured(llama, tree)
    # A node is fed alone; the prompts go behind their common beginning, several tokens each.
    continued = sum(len(inputs["inputs_embeds"]) for inputs in fed
                    if "cache" in inputs and inputs["inputs_embeds"].shape[1] == 1)
    assert continued == N_GHOSTS * np.count_nonzero(~tree.is_leaf)
    assert continued < N_GHOSTS * len(tree) / 2


def test_the_order_of_the_nodes_does_not_matter(llama):
    """A tree from a file may come depth first."""
    tree = grown(llama).tree
    order = []

    def visit(node: int) -> None:
        order.append(node)
        for child in tree.children()[node]:
            visit(child)

    for node in tree.children()[-1][::-1]:
        visit(node)
    assert order != sorted(order)
    place = np.append(np.argsort(order), -1)
    shuffled = Tree(
        parent=place[tree.parent[order]], token_id=tree.token_id[order], token=("",) * len(tree),
        prob=tree.prob[order], cumulative_prob=tree.cumulative_prob[order], end=tree.end[order],
    )  # fmt: skip
    np.testing.assert_allclose(measured(llama, shuffled)[0], measured(llama, tree)[0][:, order], atol=1e-5)


def test_a_path_with_the_placeholder_is_impossible(llama):
    placeholder = ghost_prompt(llama, PROMPT, DEPTH).placeholder_id
    tree = Tree(
        parent=np.array([-1, 0]), token_id=np.array([placeholder, 5]), token=("", ""), prob=np.ones(2),
        cumulative_prob=np.ones(2), end=np.zeros(2, dtype=bool),
    )  # fmt: skip
    assert (measured(llama, tree)[0] == -np.inf).all()


def test_a_ghost_is_asked_only_for_the_paths_that_are_wanted_of_it(llama):
    tree = grown(llama).tree
    whole = measured(llama, tree)[0]
    wanted = np.zeros(whole.shape, dtype=bool)
    wanted[0] = True
    for ghost, node in ((1, len(tree) - 1), (1, len(tree) // 2), (2, 0)):
        wanted[ghost, tree.path(node)] = True
    prompt = ghost_prompt(llama, PROMPT, DEPTH)
    growth = GrowthTask(
        model="", folder=Path(), n_tokens=llama.space.n_tokens, prompt=prompt, v=ghosts(llama).numpy(), top_k=5,
        cutoff=0.1, max_depth=DEPTH, max_nodes=10, end_ids=None,
    )
    task = PathsTask(model="", folder=Path(), growth=growth, tree=tree, wanted=wanted)
    found = finished_answer(read_paths(llama.model, task))
    np.testing.assert_allclose(found, np.where(wanted, whole, 0), atol=1e-4)


def finished_answer(answers):
    answer, = (answer for answer in answers if answer is not None)
    return answer
