"""A tree that goes on from another: what its open paths share is read once, whatever their order."""

import numpy as np
import pytest
from test_architectures import DEPTH, ghost_vector
from tiny import PROMPT, tiny_subject

from multitool.model import passes
from multitool.model.ghost_prompt import ghost_prompt
from multitool.model.passes import Batches, _shared_steps, trees_at_once

TOGETHER = np.array([[9, 2, 3], [9, 2, 4], [9, 5, 3], [6, 2, 3]])
APART = TOGETHER[[0, 3, 1, 2]]  # one of another beginning stands between them


def test_the_way_to_many_paths_reads_every_beginning_once():
    steps = [(rows.tolist(), ids.tolist()) for rows, ids in _shared_steps(TOGETHER)]
    assert steps == [([0, 0], [9, 6]), ([0, 0, 1], [2, 5, 2]), ([0, 0, 1, 2], [3, 4, 3, 3])]
    (only,) = _shared_steps(TOGETHER[:, :1])
    assert (only[0].tolist(), only[1].tolist()) == ([0, 0, 0, 0], [9, 9, 9, 6])
    assert _shared_steps(APART) is None


@pytest.mark.parametrize("max_paths", [256, 2])
def test_paths_in_another_order_have_the_same_answers(tokenizer, max_paths):
    subject = tiny_subject("llama", tokenizer)

    def answers(paths) -> dict:
        source = subject.next_tokens(
            ghost_prompt(subject, PROMPT, DEPTH), ghost_vector(subject), 5, DEPTH, Batches(max_paths=max_paths)
        )
        found = source.start(paths)
        return {(*paths[row], token): prob for row, token, prob in
                zip(found.row, found.token_id.tolist(), found.prob.tolist(), strict=True)}

    assert answers(TOGETHER) == pytest.approx(answers(APART), abs=1e-6)


@pytest.mark.parametrize("least", [0.0, 1e-4, 1e-2, 2.0])
def test_where_far_more_are_wanted_than_count_the_answer_is_the_same(tokenizer, monkeypatch, least):
    subject = tiny_subject("llama", tokenizer)
    subject.model.lm_head.weight[20:40] = subject.model.lm_head.weight[20]  # twenty tokens that are equally probable
    prompt = ghost_prompt(subject, PROMPT, DEPTH)

    def answers(sorted_at_once: int) -> list:
        monkeypatch.setattr(passes, "_SORTED_AT_ONCE", sorted_at_once)
        source = subject.next_tokens(prompt, ghost_vector(subject), 30, DEPTH)
        first = source.start(least=np.array([least]))
        if not len(first.row):
            return [first]
        rows = first.row[:3]
        return [first, source.advance(rows, first.token_id[:3], np.full(3, least))]

    for one, other in zip(answers(0), answers(1 << 30), strict=True):
        np.testing.assert_array_equal(one.row, other.row)
        np.testing.assert_array_equal(one.token_id, other.token_id)
        np.testing.assert_array_equal(one.prob, other.prob)
        np.testing.assert_allclose(one.beyond, other.beyond, rtol=1e-6)
        assert ((one.beyond == 0) == (other.beyond == 0)).all()


def test_so_many_trees_grow_together_as_memory_allows(tokenizer):
    subject = tiny_subject("llama", tokenizer)
    prompt = ghost_prompt(subject, PROMPT, DEPTH)
    of_token = 3 * 2 * 2 * 8 * 4  # layers, keys and values, heads, d_head, bytes
    of_tree = of_token * (len(prompt.token_ids) + 100)
    assert trees_at_once(subject.model, prompt, 100, 5 * of_tree) == 5
    assert trees_at_once(subject.model, prompt, 100, of_tree // 2) == 1
