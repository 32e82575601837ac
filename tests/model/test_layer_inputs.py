"""Models whose layers look tokens up for themselves (Gemma 3n, Gemma 4 E2B and E4B) get those embeddings too."""

import numpy as np
import pytest
import torch
from plain_recursion import PlainRecursion, assert_same_tree
from tiny import LAYER_INPUTS, N_ROWS, PROMPT, tiny_model, tiny_subject

from multitool.errors import UserError
from multitool.model.ghost_prompt import ghost_prompt
from multitool.model.interventions import AppliedInterventions, Interventions, Push, mean_residual_norm
from multitool.model.layer_inputs import given
from multitool.model.passes import Batches, Continuations, ghost_embeddings, prompt_ids
from multitool.model.questions import path_log_probs
from multitool.model.residual_stream import model_layers, residuals
from multitool.trees.growth import grow

DEPTH = 4
CUTOFF = 4e-3


@pytest.fixture(scope="module", params=LAYER_INPUTS)
def subject(request, tokenizer):
    return tiny_subject(request.param, tokenizer)


@pytest.fixture
def prompt(subject):
    return ghost_prompt(subject, PROMPT, DEPTH)


def ghost_vector(subject) -> torch.Tensor:
    direction = torch.randn(subject.space.d_model, generator=torch.Generator().manual_seed(1))
    return subject.space.centroid + subject.space.mean_distance * direction / direction.norm()


def test_the_placeholders_own_row_as_ghost_is_the_models_own_answer_to_the_tokens(subject, prompt):
    ids = torch.tensor([prompt.token_ids])
    with torch.inference_mode():
        expected = subject.model(ids).logits
        embeddings = ghost_embeddings(subject.model, prompt, subject.space.E[prompt.placeholder_id].float())
        assert torch.equal(subject.model(**given(subject.model, embeddings, ids)).logits, expected)


def test_the_layers_own_embeddings_matter(subject, prompt):
    """Else the other tests would hold without them."""
    ids = torch.tensor([prompt.token_ids])
    with torch.inference_mode():
        embeddings = ghost_embeddings(subject.model, prompt, ghost_vector(subject))
        found = given(subject.model, embeddings, ids)
        right = subject.model(**found).logits
        wrong = subject.model(**found | {"per_layer_inputs": torch.zeros_like(found["per_layer_inputs"])}).logits
    assert (right - wrong).abs().max() > 0.1


@pytest.mark.parametrize("max_paths", [256, 2])
def test_a_tree_is_that_of_the_plain_recursion(subject, prompt, max_paths):
    v = ghost_vector(subject)
    expected = PlainRecursion(subject.model, prompt.token_ids, prompt.position, v).tree(
        top_k=4, cutoff=CUTOFF, max_depth=DEPTH
    )
    source = subject.next_tokens(prompt, v, 4, DEPTH, Batches(max_paths=max_paths))
    *_, last = grow(source, cutoff=CUTOFF, max_depth=DEPTH, max_nodes=1000)
    assert len(last.tree) > 10 and last.tree.depth.max() > 2
    assert_same_tree(last.tree, expected, 1e-4)
    own, = path_log_probs(subject.model, prompt, v[None], last.tree)[0]
    np.testing.assert_allclose(own, np.log(last.tree.cumulative_prob), atol=1e-3)


def test_residuals_under_a_ghost_are_those_of_the_tokens(subject, prompt):
    ids = torch.tensor([prompt.token_ids])
    row = subject.space.E[prompt.placeholder_id].float()
    read = {"input_ids": prompt_ids(prompt, row[None]), "inputs_embeds": ghost_embeddings(subject.model, prompt, row)}
    if subject.name.endswith("gemma3n_text"):
        with pytest.raises(UserError, match=r"carry 2 streams beside each other"):
            residuals(subject.model, "blocks.1.hook_resid_post", **read)
        return
    for layer in (1, 4):  # the second one uses keys and values of an earlier layer
        hook = f"blocks.{layer}.hook_resid_post"
        assert torch.equal(residuals(subject.model, hook, **read), residuals(subject.model, hook, input_ids=ids))


@pytest.mark.parametrize("layer", [1, 4])
def test_a_change_reaches_the_layers_that_share_keys_and_values(tokenizer, layer):
    """transformers leaves all but the last position out of those where it is told that no other logits are wanted."""
    subject = tiny_subject("gemma4_text", tokenizer)
    prompt, v, hook = ghost_prompt(subject, PROMPT, DEPTH), ghost_vector(subject), f"blocks.{layer}.hook_resid_post"
    direction = np.full(subject.space.d_model, 0.5, dtype=np.float32)
    prose = tuple(range(5, 15))
    wanted = Interventions(pushes=(Push(hook, direction, 2.0),), where="prompt", prose=prose)
    changes = AppliedInterventions(subject.model, prompt, wanted)
    found = Continuations(subject.model, prompt, v, N_ROWS, DEPTH, changes).start()
    model = PlainRecursion(subject.model, prompt.token_ids, prompt.position, v).model
    added = 2.0 * mean_residual_norm(model, hook, prose) * torch.from_numpy(direction)
    model_layers(model)[layer].register_forward_hook(lambda _module, _args, output: output + added)
    with torch.no_grad():
        logits = model(torch.tensor([prompt.token_ids])).logits[0, -1]
    logits[prompt.placeholder_id] = -torch.inf
    np.testing.assert_allclose(found.prob, logits.softmax(0)[found.token_id], atol=1e-5)


def test_a_model_whose_layers_look_up_in_an_unknown_way_is_refused():
    model = tiny_model("llama")
    model.config.hidden_size_per_layer_input = 8
    with pytest.raises(UserError, match="hidden_size_per_layer_input in its config.json"):
        given(model, torch.zeros(1, 2, 32), torch.zeros(1, 2, dtype=torch.long))
