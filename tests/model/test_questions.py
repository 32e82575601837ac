"""What evidence asks of the model: definitions as plain text and a known tree under other ghosts."""

import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from plain_recursion import as_paths
from test_architectures import ghost_vector
from tiny import PROMPT, tiny_subject

from multitool.model.ghost_prompt import ghost_prompt
from multitool.model.passes import ghost_embeddings
from multitool.model.questions import ask, check, likeliest_texts, path_log_probs, read_texts, text_of
from multitool.model.residual_stream import residuals
from multitool.model.tasks import AskTask, CheckTask, Place, growth_task
from multitool.recipes.recipe import TreeRecipe
from multitool.trees.growth import grow
from multitool.trees.tree import NO_TREE, ROOT, Tree

pytestmark = pytest.mark.cuda

HOOK = "blocks.1.hook_resid_post"
RECIPE = TreeRecipe(prompt=PROMPT, cutoff=0.01, max_depth=5, max_nodes=40)
# Longer ones than the 8 tokens that some models' windows have, and not in the order of their lengths.
TEXTS = [(7, 8, 9), (11,), tuple(range(20, 32)), (5, 5), tuple(range(40, 47)), (11, 7)]


def one_by_one(model, text, place: Place) -> torch.Tensor:
    before = [] if place.bos_id is None else [place.bos_id]
    return residuals(model, place.hook, input_ids=torch.tensor([before + list(text)]))[0, len(before) :].cpu()


def close(found, expected) -> bool:
    expected = torch.as_tensor(expected)
    return found.shape == expected.shape and bool(
        ((torch.as_tensor(found) - expected).norm(dim=-1) <= 1e-3 * expected.norm(dim=-1)).all()
    )


@pytest.mark.parametrize("bos_id", [0, None])
def test_texts_in_padded_batches_are_read_as_each_one_alone(subject, bos_id):
    place = Place(HOOK, bos_id)
    found = read_texts(subject.model, TEXTS, place)
    assert [rows.shape for rows in found] == [(len(text), 32) for text in TEXTS]
    assert all(rows.dtype == np.float32 for rows in found)
    for rows, text in zip(found, TEXTS, strict=True):
        assert close(rows, one_by_one(subject.model, text, place))


@pytest.fixture(scope="module")
def llama(tokenizer):
    return tiny_subject("llama", tokenizer)


def test_what_stands_before_a_text_matters_and_is_left_out(llama):
    with_bos, other_bos, none = (read_texts(llama.model, [(7, 8)], Place(HOOK, bos_id))[0] for bos_id in (0, 3, None))
    assert with_bos.shape == other_bos.shape == none.shape == (2, 32)
    assert not close(with_bos, other_bos)
    assert not close(with_bos, none)


def test_on_the_embedding_a_text_is_its_tokens_rows(llama):
    found, = read_texts(llama.model, [(7, 8)], Place("hook_embed", 0))
    np.testing.assert_array_equal(found, llama.space.E[[7, 8]].numpy())


def test_no_texts_have_no_answers(llama):
    assert read_texts(llama.model, [], Place(HOOK, 0)) == []


def test_texts_in_many_batches_keep_their_order(llama):
    found = read_texts(llama.model, TEXTS, Place(HOOK, 0), texts_at_once=2)
    assert all(
        close(rows, one_by_one(llama.model, text, Place(HOOK, 0))) for rows, text in zip(found, TEXTS, strict=True)
    )


# Definitions as token ids


def some_tree() -> Tree:
    """`` 10 (.5) ── 11 (.3, end)``, ``10 ── 12 (.1)``, ``13 (.2, end)`` at once, ``14 (.15)``."""
    return Tree(
        parent=np.array([ROOT, ROOT, ROOT, 0, 0]),
        token_id=np.array([10, 13, 14, 11, 12]),
        token=("",) * 5,
        prob=np.array([0.5, 0.2, 0.15, 0.6, 0.2]),
        cumulative_prob=np.array([0.5, 0.2, 0.15, 0.3, 0.1]),
        end=np.array([False, True, False, True, False]),
    )


def test_the_likeliest_texts_leave_out_the_token_that_ends_one_and_empty_texts():
    assert likeliest_texts(some_tree(), 10) == [((10,), 0.3), ((14,), 0.15), ((10, 12), 0.1)]


def test_only_so_many_texts_as_are_asked_for_and_an_empty_one_takes_no_place():
    assert likeliest_texts(some_tree(), 2) == [((10,), 0.3), ((14,), 0.15)]
    assert likeliest_texts(some_tree(), 0) == []
    assert likeliest_texts(NO_TREE, 5) == []


def test_a_definition_that_two_tokens_end_is_one_with_the_probability_of_both():
    tree = some_tree()
    ended_twice = Tree(
        parent=np.append(tree.parent, 0), token_id=np.append(tree.token_id, 15), token=("",) * 6,
        prob=np.append(tree.prob, 0.1), cumulative_prob=np.append(tree.cumulative_prob, 0.05),
        end=np.append(tree.end, True),
    )
    assert likeliest_texts(ended_twice, 10) == [((10,), pytest.approx(0.35)), ((14,), 0.15), ((10, 12), 0.1)]


def test_the_text_of_a_node():
    assert [text_of(some_tree(), node) for node in range(5)] == [(10,), (), (14,), (10,), (10, 12)]


# Asking and checking


def ghosts(subject, n: int = 3) -> torch.Tensor:
    return torch.stack([ghost_vector(subject, seed) for seed in range(1, n + 1)])


def ask_task(subject, vs: torch.Tensor) -> AskTask:
    return AskTask(
        model=subject.name, folder=subject.folder, place=Place(HOOK, 0), growth=growth_task(subject, vs, RECIPE),
        n_definitions=4,
    )


def asked(subject, vs: torch.Tensor) -> list:
    return [answer for answers in ask(subject.model, ask_task(subject, vs)) for answer in answers or ()]


def alone(subject, v: torch.Tensor) -> Tree:
    prompt = ghost_prompt(subject, RECIPE.prompt, RECIPE.max_depth)
    *_, last = grow(
        subject.next_tokens(prompt, v, RECIPE.top_k, RECIPE.max_depth), cutoff=RECIPE.cutoff,
        max_depth=RECIPE.max_depth, max_nodes=RECIPE.max_nodes, ends=subject.ends('"'),
    )
    return last.tree


def last_position(subject, v: torch.Tensor) -> torch.Tensor:
    prompt = ghost_prompt(subject, RECIPE.prompt, RECIPE.max_depth)
    return residuals(
        subject.model, HOOK, input_ids=torch.tensor([prompt.token_ids]),
        inputs_embeds=ghost_embeddings(subject.model, prompt, v),
    )[0, -1].cpu()


def test_every_ghost_is_answered_as_it_would_be_alone(llama):
    vs = ghosts(llama)
    answers = asked(llama, vs)
    assert len(answers) == 3
    for v, answer in zip(vs, answers, strict=True):
        expected = as_paths(alone(llama, v))
        assert as_paths(answer.tree).keys() == expected.keys()
        assert answer.texts == [text for text, _ in likeliest_texts(answer.tree, 4)]
        for text, rows in zip(answer.texts, answer.residuals, strict=True):
            assert close(rows, one_by_one(llama.model, text, Place(HOOK, 0)))
        assert close(answer.last_residual, last_position(llama, v))


def test_ghosts_in_several_parts_keep_their_order(llama):
    vs = ghosts(llama)
    whole = asked(llama, vs)
    answers = list(ask(llama.model, replace(ask_task(llama, vs), at_once=2)))
    parts = [part for part in answers if part is not None]
    assert None in answers[:-1], "it can be left in between"
    assert [len(part) for part in parts] == [2, 1]
    for one, other in zip([answer for part in parts for answer in part], whole, strict=True):
        assert as_paths(one.tree).keys() == as_paths(other.tree).keys()
        assert one.texts == other.texts


def test_no_ghosts_have_no_answers(llama):
    assert asked(llama, torch.empty(0, 32)) == []


def test_a_check_measures_the_tree_under_its_own_ghost_and_the_others(llama):
    vs = ghosts(llama)
    tree = alone(llama, vs[0])
    task = CheckTask(
        model=llama.name, folder=llama.folder, place=Place(HOOK, 0), growth=growth_task(llama, vs[0], RECIPE),
        tree=tree, controls=vs[1:].numpy(), texts=TEXTS,
    )
    *_, found = check(llama.model, pickle.loads(pickle.dumps(task)))
    prompt = ghost_prompt(llama, RECIPE.prompt, RECIPE.max_depth)
    log_probs, entropies = path_log_probs(llama.model, prompt, vs, tree)
    np.testing.assert_allclose(found.log_probs, log_probs, atol=1e-5)
    np.testing.assert_allclose(found.log_probs[0], np.log(tree.cumulative_prob), atol=1e-4)
    np.testing.assert_allclose(found.entropies, entropies, atol=1e-5)
    assert all(close(row, last_position(llama, v)) for row, v in zip(found.last_residuals, vs, strict=True))
    assert [rows.shape for rows in found.residuals] == [(len(text), 32) for text in TEXTS]


def test_tasks_and_answers_go_to_another_process_and_back(llama):
    task = pickle.loads(pickle.dumps(ask_task(llama, ghosts(llama, 2))))
    answers = [answer for part in ask(llama.model, task) for answer in part or ()]
    again = pickle.loads(pickle.dumps(answers))
    assert [answer.texts for answer in again] == [answer.texts for answer in answers]
