"""The whole way on the demo model and a real feature: recipe in, tree out, against the plain recursion."""

import json
from dataclasses import replace

import pytest
import torch
from plain_recursion import PlainRecursion, as_paths, assert_same_tree, cutoff_after, most_probable, safe_cut

from multitool.jobs.local import definition_tree, definition_trees, token_table
from multitool.model.ghost_prompt import ghost_prompt
from multitool.model.passes import ghost_embeddings
from multitool.recipes.recipe import ListRecipe, TreeRecipe, VectorRecipe
from multitool.store.registry import find_sae
from multitool.trees.document import read_tree

RECIPE = VectorRecipe(sae="demo/hook_embed", feature=123)


@pytest.fixture(scope="module")
def subject(demo_library):
    return demo_library.load(find_sae("demo/hook_embed"))[1]


@pytest.fixture(scope="module")
def model(demo_library, subject):
    return demo_library.run(subject.name, subject.folder)


@pytest.fixture(scope="module")
def large(demo_library):
    """A tree with more nodes than the tests below look at."""
    return definition_tree(demo_library, RECIPE, TreeRecipe(cutoff=2e-3))


class EndsByDecoding:
    """Which tokens end a definition, by asking the tokenizer."""

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer

    def __contains__(self, token_id: int) -> bool:
        text = self.tokenizer.decode([token_id])
        return '"' in text or text in ("<|endoftext|>", "<|im_end|>")


def v_by_hand(demo_library, model) -> torch.Tensor:
    """Centroid plus mean distance times the unit encoder weights, in the plainest words."""
    sae, _ = demo_library.load(find_sae("demo/hook_embed"))
    E = model.get_input_embeddings().weight.double()
    c = E.mean(dim=0)
    w = sae.W_enc[:, 123].double()
    return (c + (E - c).norm(dim=1).mean() * w / w.norm()).float()


def test_the_demos_tree_is_that_of_the_plain_recursion(demo_library, subject, model, large):
    n = safe_cut(as_paths(large.tree), 18, 25)
    cutoff = cutoff_after(as_paths(large.tree), n)
    document = definition_tree(demo_library, RECIPE, TreeRecipe(cutoff=cutoff))

    prompt = 'A typical definition of "OSS" would be "'
    ids = subject.tokenizer(prompt)["input_ids"]
    position = [subject.tokenizer.decode([token_id]) for token_id in ids].index("OSS")
    plain = PlainRecursion(model, ids, position, v_by_hand(demo_library, model))
    expected = plain.tree(top_k=5, cutoff=cutoff, max_depth=25, ends=EndsByDecoding(subject.tokenizer))

    assert_same_tree(document.tree, expected)
    assert len(document.tree) == n
    assert document.tree.depth.max() >= 3
    ends = [path for path, end in zip(as_paths(document.tree), document.tree.end, strict=True) if end]
    assert ends == [path for path in as_paths(document.tree) if path[-1] in EndsByDecoding(subject.tokenizer)]


def test_trimming_a_large_tree_gives_the_small_tree(demo_library, large):
    cutoff = cutoff_after(as_paths(large.tree), safe_cut(as_paths(large.tree), 18, 25))
    small = definition_tree(demo_library, RECIPE, TreeRecipe(cutoff=cutoff))
    trimmed = read_tree(large.to_json()).trimmed(cutoff)
    # Paths share batches with others in the large tree; only rounding may tell.
    assert_same_tree(trimmed.tree, as_paths(small.tree))
    assert (trimmed.effective_cutoff, trimmed.settings["cutoff"]) == (cutoff, 2e-3)
    assert trimmed.definitions(3)[0].text == small.definitions(3)[0].text


def test_max_nodes_gives_the_most_probable_nodes_of_the_large_tree(demo_library, large):
    n = safe_cut(as_paths(large.tree), 10, 20)
    bounded = definition_tree(demo_library, RECIPE, TreeRecipe(cutoff=2e-3, max_nodes=n))
    assert_same_tree(bounded.tree, most_probable(as_paths(large.tree), n))
    assert bounded.effective_cutoff == bounded.tree.cumulative_prob.min()
    assert bounded.complete


def test_the_tree_is_answered_level_by_level(demo_library, large):
    steps = list(definition_trees(demo_library, RECIPE, TreeRecipe(cutoff=2e-3)))
    assert [step.depth_grown for step in steps] == list(range(1, len(steps) + 1))
    assert [step.complete for step in steps] == [False] * (len(steps) - 1) + [True]
    assert as_paths(steps[-1].tree) == as_paths(large.tree)
    sizes = [len(step.tree) for step in steps]
    assert sizes == sorted(sizes)


def test_without_stopping_the_tree_goes_on_through_closing_quotes(demo_library, large):
    through = definition_tree(demo_library, RECIPE, TreeRecipe(cutoff=2e-3, stop=False))
    stopped, longer = as_paths(large.tree), as_paths(through.tree)
    assert stopped.keys() <= longer.keys()
    assert not through.tree.end.any()
    ended = {path for path, end in zip(stopped, large.tree.end, strict=True) if end}
    assert ended
    assert all(any(path[:depth] in ended for depth in range(1, len(path))) for path in longer.keys() - stopped.keys())


def test_the_token_texts_of_a_path_are_what_the_tokenizer_says(subject, large):
    for node in range(len(large.tree)):
        path = large.tree.path(node)
        text = subject.tokenizer.decode(large.tree.token_id[path].tolist(), clean_up_tokenization_spaces=False)
        assert "".join(large.tree.token[i] for i in path) == text


def test_a_real_tokens_row_as_ghost_is_that_token(subject, model):
    prompt = ghost_prompt(subject, 'A typical definition of "{ghost}" would be "', 25)
    dog = subject.tokenizer(" dog")["input_ids"][0]
    plain = list(prompt.token_ids)
    plain[prompt.position] = dog
    with torch.inference_mode():
        expected = model(torch.tensor([plain])).logits
        ghost = model(inputs_embeds=ghost_embeddings(model, prompt, subject.space.E[dog])).logits
    assert torch.equal(ghost, expected)


def test_the_result_tells_the_recipe_with_every_value_resolved(large):
    assert json.loads(large.to_json())["settings"] | {"version": None} == {
        "model": "demo/SmolLM2-135M-Instruct-Q4_1", "sae": "demo/hook_embed", "feature": 123, "weights": "encoder",
        "encoder_share": 0.5, "tokens": "", "centroid": True, "scale": large.vector["mean_token_distance"], "pca": [],
        "prompt": 'A typical definition of "{ghost}" would be "', "chat": False, "answer": "", "top_k": 5,
        "cutoff": 2e-3, "max_depth": 25, "max_nodes": 2000, "stop": True, "dtype": "float32", "version": None,
        "steer_strength": 0.0, "clamp": None, "steer_at": "ghost", "steer_sinks": False, "inject_layer": -1,
        "inject_mode": "replace", "inject_scale": 1.0,
    }  # fmt: skip
    assert large.vector["distance_from_centroid"] == pytest.approx(large.settings["scale"], rel=1e-4)


def test_the_token_list_starts_with_tokens_of_the_features_kind(demo_library):
    # An SAE on the embedding has directions that lie among the tokens: the best fits are much nearer than usual ones.
    table = token_table(demo_library, replace(RECIPE, weights="encoder"), ListRecipe(top=10_000))
    near = [row[4] for row in table.rows]
    assert near[0] < 0.5 < near[-1]
    assert [row[3] for row in table.rows] == sorted(row[3] for row in table.rows)
    assert len({row[2] for row in table.rows}) == len(table.rows)
