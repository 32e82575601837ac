"""Every architecture's tree is the plain recursion's, and nothing of the model changes on the way."""

import threading
from functools import cache
from itertools import zip_longest

import numpy as np
import pytest
import torch
from plain_recursion import PlainRecursion, as_paths, assert_same_tree, cutoff_after, most_probable, safe_cut, trimmed
from tiny import DEVICE, N_ROWS, PROMPT, WITH_SCALE, WITH_WINDOW, RunningSubject, tiny_model, tiny_subject

from multitool.model.ghost_prompt import GhostPrompt, ghost_prompt
from multitool.model.passes import WHAT_FITS, Batches, ghost_embeddings
from multitool.trees.growth import finished, grow, grow_forest
from multitool.trees.tree import coverage

pytestmark = pytest.mark.cuda

SHORT_PROMPT = '"{ghost}" "'
DEPTH = 7
CUTOFF = 4e-3
# A quote is rare among random tokens, so for these tests every third token ends a definition.
ENDS = np.arange(N_ROWS) % 3 == 1
NO_ENDS = None


def ghost_vector(subject: RunningSubject, seed: int = 1) -> torch.Tensor:
    """A vector in a random direction, as far from the centroid as a usual token."""
    direction = torch.randn(subject.space.d_model, generator=torch.Generator().manual_seed(seed))
    return subject.space.centroid + subject.space.mean_distance * direction / direction.norm()


def growths(
    subject: RunningSubject, *, template=PROMPT, seed=1, top_k=5, ends=NO_ENDS, cutoff=CUTOFF, max_nodes=10_000,
    batches=WHAT_FITS, **more,
):
    prompt = ghost_prompt(subject, template, DEPTH)
    source = subject.next_tokens(prompt, ghost_vector(subject, seed), top_k, DEPTH, batches)
    return grow(source, cutoff=cutoff, max_depth=DEPTH, max_nodes=max_nodes, ends=ends, **more)


def grown(subject: RunningSubject, **settings):
    *_, last = growths(subject, **settings)
    assert last.done
    return last


def recursion(subject: RunningSubject, *, template: str = PROMPT, stop: bool = False, cutoff: float = CUTOFF):
    """The plain recursion's tree, once for all tests that compare with it."""
    return _recursion(subject, template, stop, cutoff)


@cache
def _recursion(subject: RunningSubject, template: str, stop: bool, cutoff: float):
    prompt = ghost_prompt(subject, template, DEPTH)
    plain = PlainRecursion(subject.model, prompt.token_ids, prompt.position, ghost_vector(subject))
    return plain.tree(top_k=5, cutoff=cutoff, max_depth=DEPTH, ends=np.flatnonzero(ENDS) if stop else ())


@pytest.fixture
def tolerance(architecture):
    # Qwen3.5's linear layers have one formula for a whole text and another for one more token.
    return 1e-4 if architecture == "qwen3_5" else 1e-5


@pytest.mark.parametrize("stop", [True, False], ids=["stop", "go on"])
def test_a_tree_is_that_of_the_plain_recursion(subject, stop, tolerance):
    everything = recursion(subject, stop=stop)
    n = safe_cut(everything, len(everything) // 2, len(everything) - 1)
    cutoff = cutoff_after(everything, n)
    growth = grown(subject, cutoff=cutoff, ends=ENDS if stop else NO_ENDS)
    assert_same_tree(growth.tree, trimmed(everything, cutoff), tolerance)
    assert growth.effective_cutoff == cutoff
    assert growth.tree.end.any() == stop
    assert max(growth.tree.depth) > 1


def test_max_nodes_keeps_exactly_the_most_probable_nodes(subject, tolerance):
    everything = recursion(subject)
    n = safe_cut(everything, 8, 16)
    growth = grown(subject, max_nodes=n)
    assert len(growth.tree) == n
    assert_same_tree(growth.tree, most_probable(everything, n), tolerance)
    assert growth.effective_cutoff == growth.tree.cumulative_prob.min()
    assert as_paths(grown(subject, cutoff=cutoff_after(everything, n)).tree).keys() == as_paths(growth.tree).keys()


@pytest.mark.parametrize("architecture", WITH_WINDOW, scope="session")
def test_paths_may_grow_out_of_the_sliding_window(subject, tolerance):
    length = len(ghost_prompt(subject, SHORT_PROMPT, DEPTH).token_ids)
    expected = recursion(subject, template=SHORT_PROMPT, cutoff=3e-3)
    assert length < 8 < length + max(map(len, expected)), "the window is not crossed"
    assert_same_tree(grown(subject, template=SHORT_PROMPT, cutoff=3e-3).tree, expected, tolerance)


def test_the_size_of_batches_changes_nothing(subject, tolerance):
    # With two paths at a time, most paths share their parent's cache with paths of other batches.
    assert_same_tree(grown(subject, batches=Batches(max_paths=2)).tree, recursion(subject), tolerance)


def test_a_real_tokens_own_row_as_ghost_is_that_token_bit_for_bit(subject):
    assert_ghost_is_token(subject, token_id=77)


@pytest.mark.parametrize("architecture", [*WITH_SCALE, "llama"])
def test_a_real_tokens_own_row_as_ghost_is_that_token_in_half_precision_too(architecture, tokenizer):
    half = tiny_subject(architecture, tokenizer)
    half.model.to(torch.bfloat16)
    assert_ghost_is_token(RunningSubject(half.model, tokenizer, "half"), token_id=77)


def assert_ghost_is_token(subject: RunningSubject, token_id: int) -> None:
    prompt = ghost_prompt(subject, PROMPT, DEPTH)
    plain = list(prompt.token_ids)
    plain[prompt.position] = token_id
    row = subject.space.E[token_id].float()
    with torch.inference_mode():
        expected = subject.model(torch.tensor([plain], device=DEVICE)).logits
        logits = subject.model(inputs_embeds=ghost_embeddings(subject.model, prompt, row)).logits
    assert torch.equal(logits, expected)


def test_the_placeholder_is_never_predicted_and_the_others_sum_to_one(subject):
    prompt = ghost_prompt(subject, PROMPT, DEPTH)
    found = subject.next_tokens(prompt, ghost_vector(subject), N_ROWS, DEPTH).start()
    assert sorted(found.token_id) == list(range(N_ROWS))
    assert found.prob[found.token_id == prompt.placeholder_id] == [0.0]
    assert found.prob.sum() == pytest.approx(1, abs=1e-5)
    assert (np.diff(found.prob) <= 0).all()
    assert found.beyond == [0.0]


def test_only_wanted_tokens_are_answered_and_those_beyond_top_k_are_summed(subject):
    prompt = ghost_prompt(subject, PROMPT, DEPTH)

    def asked(top_k: int, least: float):
        return subject.next_tokens(prompt, ghost_vector(subject), top_k, DEPTH).start(least=np.array([least]))

    everything = asked(0, 0.0)
    assert len(everything.prob) == N_ROWS and everything.beyond == [0.0]
    tenth = float(everything.prob[9])
    wanted, few = asked(0, tenth), asked(4, tenth)
    assert wanted.token_id.tolist() == everything.token_id[:10].tolist() and wanted.beyond == [0.0]
    assert few.token_id.tolist() == everything.token_id[:4].tolist()
    assert few.beyond == pytest.approx([everything.prob[4:10].sum()], abs=1e-6)
    assert len(asked(4, 2.0).prob) == 0 and asked(4, 2.0).beyond == [0.0]


def test_the_entropy_of_the_first_token_is_over_all_tokens_but_the_placeholder(subject):
    prompt = ghost_prompt(subject, PROMPT, DEPTH)
    source = subject.next_tokens(prompt, ghost_vector(subject), 2, DEPTH)
    assert source.entropies is None
    source.start()
    everything = subject.next_tokens(prompt, ghost_vector(subject), N_ROWS, DEPTH)
    probs = everything.start().prob.astype(np.float64)
    plain = -sum(p * np.log(p) for p in probs[probs > 0])
    assert source.entropies == pytest.approx([plain], rel=1e-5)


def test_the_placeholder_elsewhere_in_the_prompt_stays_what_it_is(subject):
    prompt = ghost_prompt(subject, 'OSS "{ghost}" OSS "', DEPTH)
    places = [i for i, token_id in enumerate(prompt.token_ids) if token_id == prompt.placeholder_id]
    assert len(places) >= 2
    with torch.inference_mode():
        plain = subject.model.get_input_embeddings()(torch.tensor([prompt.token_ids], device=DEVICE))
        embeddings = ghost_embeddings(subject.model, prompt, ghost_vector(subject))
    changed = (embeddings != plain).any(dim=-1)[0]
    assert changed.nonzero().flatten().tolist() == [prompt.position]


def test_growth_leaves_the_model_as_it_was(subject):
    before = {name: tensor.clone() for name, tensor in subject.model.state_dict().items()}
    hooks = hooks_of(subject.model)
    grown(subject, seed=2)
    after = subject.model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert hooks_of(subject.model) == hooks, "a hook would reach other requests"


def hooks_of(model) -> list:
    return [list(hooks.values()) for module in model.modules()
            for hooks in (module._forward_hooks, module._forward_pre_hooks)]


def test_two_requests_that_take_turns_do_not_touch_each_other(subject):
    alone = [grown(subject, seed=seed).tree for seed in (1, 2)]
    assert as_paths(alone[0]) != as_paths(alone[1])
    turns = list(zip_longest(growths(subject, seed=1), growths(subject, seed=2)))
    for i in (0, 1):
        last = [turn[i] for turn in turns if turn[i] is not None][-1]
        assert as_paths(last.tree) == as_paths(alone[i])


def test_two_requests_at_once_in_two_threads_give_what_they_give_alone(subject):
    alone = [as_paths(grown(subject, seed=seed).tree) for seed in (1, 2)]
    together: dict[int, list] = {0: [], 1: []}
    both_ready = threading.Barrier(2)

    def request(i: int) -> None:
        both_ready.wait()
        together[i] += [as_paths(grown(subject, seed=i + 1).tree) for _ in range(2)]

    threads = [threading.Thread(target=request, args=(i,)) for i in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert together == {i: [alone[i]] * 2 for i in (0, 1)}


def test_more_continuations_than_tokens_are_all_of_them(subject):
    prompt = GhostPrompt((5, 6, 7), 1)
    assert len(subject.next_tokens(prompt, ghost_vector(subject), N_ROWS + 10, DEPTH).start().token_id) == N_ROWS


@pytest.mark.parametrize("architecture", ["gemma2", "gpt2", "llama"], scope="session")
def test_all_next_tokens_above_the_cutoff_make_the_tree_of_the_recursion_over_the_vocabulary(subject):
    prompt = ghost_prompt(subject, PROMPT, DEPTH)
    plain = PlainRecursion(subject.model, prompt.token_ids, prompt.position, ghost_vector(subject))
    everything = plain.tree(top_k=N_ROWS, cutoff=2e-2, max_depth=DEPTH)
    n = safe_cut(everything, len(everything) // 2, len(everything) - 1)
    growth = grown(subject, top_k=0, cutoff=cutoff_after(everything, n))
    assert_same_tree(growth.tree, most_probable(everything, n))
    assert not growth.tree.beyond.any()
    few = grown(subject, top_k=0, cutoff=2e-2, max_nodes=n)
    assert_same_tree(few.tree, most_probable(everything, n))
    assert few.effective_cutoff == few.tree.cumulative_prob.min()


@pytest.mark.parametrize("architecture", ["llama"], scope="session")
def test_where_answers_go_adds_up_with_the_recursion(subject):
    prompt = ghost_prompt(subject, PROMPT, DEPTH)
    plain = PlainRecursion(subject.model, prompt.token_ids, prompt.position, ghost_vector(subject))
    tree = grown(subject, top_k=2, cutoff=2e-2).tree
    nodes = as_paths(tree) | {(): (1.0, 1.0)}
    beyond = 0.0
    for path, (_, reached) in nodes.items():
        following = plain.next_tokens(path, N_ROWS)
        if any(len(other) == len(path) + 1 and other[: len(path)] == path for other in nodes):
            beyond += reached * sum(p for _, p in following[2:] if reached * p >= 2e-2)
    shares = coverage(tree)
    assert shares.beyond == pytest.approx(beyond, abs=1e-5) and beyond > 0.05
    assert shares.in_tree + shares.beyond + shares.below == pytest.approx(1)


@pytest.mark.parametrize("stop", [True, False], ids=["stop", "go on"])
def test_a_tree_that_was_stopped_grows_on_to_the_tree_of_the_plain_recursion(subject, stop, tolerance):
    ends = ENDS if stop else NO_ENDS
    begun = [step.tree for step in growths(subject, ends=ends)][2]
    assert_same_tree(grown(subject, ends=ends, begun=begun).tree, recursion(subject, stop=stop), tolerance)


@pytest.mark.parametrize("max_paths", [256, 2])
def test_each_tree_of_a_forest_is_what_it_is_alone(subject, tolerance, max_paths):
    assert_forest_is_its_trees(subject, tolerance, Batches(max_paths=max_paths))


@pytest.mark.parametrize("template", [SHORT_PROMPT, '{ghost}" "'], ids=["short prompt", "nothing before the ghost"])
@pytest.mark.parametrize("architecture", [*WITH_WINDOW, "qwen3_5"], scope="session")
def test_a_forest_may_grow_out_of_the_sliding_window(subject, tolerance, template):
    assert_forest_is_its_trees(subject, tolerance, template=template)


@pytest.mark.parametrize("architecture", ["gemma2", "gpt_oss"])
def test_within_a_sliding_window_paths_share_what_is_kept_of_their_tokens(architecture, tokenizer):
    wide = RunningSubject(tiny_model(architecture, sliding_window=64), tokenizer, f"tiny/wide {architecture}")
    assert_forest_is_its_trees(wide, 1e-5)
    everything = recursion(wide)
    n = safe_cut(everything, len(everything) // 2, len(everything) - 1)
    assert_same_tree(grown(wide, cutoff=cutoff_after(everything, n)).tree, most_probable(everything, n))


def assert_forest_is_its_trees(subject, tolerance, batches=WHAT_FITS, template=PROMPT) -> None:
    """What the prompts begin with is read once for a forest, and with the rest for a tree alone."""
    alone = [grown(subject, seed=seed, ends=ENDS, template=template) for seed in (1, 2, 3)]
    vs = torch.stack([ghost_vector(subject, seed) for seed in (1, 2, 3)])
    source = subject.next_tokens(ghost_prompt(subject, template, DEPTH), vs, 5, DEPTH, batches)
    together = finished(grow_forest(source, 3, cutoff=CUTOFF, max_depth=DEPTH, max_nodes=10_000, ends=ENDS))
    for one, of_forest in zip(alone, together, strict=True):
        assert_same_tree(of_forest.tree, as_paths(one.tree), tolerance)
        assert (of_forest.depth, of_forest.done) == (one.depth, True)
        assert of_forest.entropy == pytest.approx(one.entropy, abs=100 * tolerance)


def test_several_ghosts_stand_each_in_their_own_row(subject):
    prompt = ghost_prompt(subject, PROMPT, DEPTH)
    vs = torch.stack([ghost_vector(subject, seed) for seed in (1, 2, 3)])
    together = ghost_embeddings(subject.model, prompt, vs)
    assert together.shape == (3, len(prompt.token_ids), subject.space.d_model)
    alone = torch.cat([ghost_embeddings(subject.model, prompt, v) for v in vs])
    assert torch.equal(together, alone)
