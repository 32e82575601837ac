"""The evidence for a tree, the whole way on a tiny model, against plain forward passes."""

import json
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from plain_recursion import PlainRecursion, as_paths
from tiny import N_ROWS, PROMPT, random_sae, tiny_model, write_model

from multitool.errors import UserError
from multitool.evidence.verdicts import DEFINITIONS_JUDGED
from multitool.jobs.check import PreparedCheck, prepare_check
from multitool.jobs.features import resolve
from multitool.jobs.judging import cosine, judged_texts, random_ghosts, small_recipe, small_tree
from multitool.jobs.local import definition_tree
from multitool.recipes.recipe import TreeRecipe, VectorRecipe, recipes
from multitool.store.library import Library
from multitool.text import join_tokens
from multitool.trees.document import DefinitionTree, read_tree
from multitool.trees.tree import NO_TREE

pytestmark = pytest.mark.slow  # grows and checks trees

FEATURE = 2
D_SAE = 30
RECIPE = TreeRecipe(prompt=PROMPT, cutoff=0.004, max_depth=5, max_nodes=60)


@dataclass(frozen=True)
class World:
    library: Library
    model: object
    folder: str
    saes: dict[str, str]

    def tree(self, hook="blocks.1.hook_resid_post", recipe=RECIPE, feature=FEATURE, **vector) -> DefinitionTree:
        of = VectorRecipe(sae=self.saes[hook], feature=feature, **({"weights": "encoder"} | vector))
        return definition_tree(self.library, of, recipe)

    def prepare(self, document: DefinitionTree) -> PreparedCheck:
        vector, _ = recipes(document.settings)
        return prepare_check(resolve(self.library, vector), document)

    def answers(self, prepared: PreparedCheck):
        asked = [answer for answers in self.library.do(prepared.ask) for answer in answers]
        checked, = self.library.do(prepared.check)
        return checked, asked

    def checked(self, document: DefinitionTree) -> DefinitionTree:
        prepared = self.prepare(document)
        return prepared.evidence(*self.answers(prepared))


@pytest.fixture(scope="module")
def world(tmp_path_factory, tokenizer):
    folder = tmp_path_factory.mktemp("checks")
    model = tiny_model("llama")
    write_model(folder / "model", model, tokenizer)
    saes = {
        hook: str(random_sae(folder / hook, 32, D_SAE, hook=hook, model=str(folder / "model")))
        for hook in ("hook_embed", "blocks.1.hook_resid_post")
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SAE_MULTITOOL_CACHE", str(folder / "cache"))
        library = Library(dtype="float32", device="cpu", allow_folder=True, bars=False)
        yield World(library, model, str(folder / "model"), saes)


@pytest.fixture(scope="module")
def grown(world) -> DefinitionTree:
    return world.tree()


@pytest.fixture(scope="module")
def prepared(world, grown) -> PreparedCheck:
    return world.prepare(grown)


@pytest.fixture(scope="module")
def answers(world, prepared):
    return world.answers(prepared)


@pytest.fixture(scope="module")
def document(prepared, answers) -> DefinitionTree:
    return prepared.evidence(*answers)


def plain_log_prob(world, prompt, v: torch.Tensor, path: list[int]) -> float:
    plain = PlainRecursion(world.model, prompt.token_ids, prompt.position, v)
    return sum(np.log(dict(plain.next_tokens(tuple(path[:i]), N_ROWS))[path[i]]) for i in range(len(path)))


def test_the_lifts_are_plain_differences_of_log_probabilities(world, prepared, document):
    tree, task = document.tree, prepared.check
    assert len(task.controls) == 5
    subject = world.library.subject(world.folder)
    assert np.allclose(task.controls[0], subject.space.centroid)
    nodes = [0, len(tree) // 2, len(tree) - 1]
    assert tree.depth[nodes].max() > 2
    for node in nodes:
        path = [int(tree.token_id[i]) for i in tree.path(node)]
        own, centroid, *randoms = (
            plain_log_prob(world, task.growth.prompt, torch.from_numpy(v), path)
            for v in [task.growth.v, *task.controls]
        )
        assert own == pytest.approx(np.log(tree.cumulative_prob[node]), abs=1e-3)
        expected = [own - centroid, own - np.log(np.mean(np.exp(randoms)))]
        assert tree.lifts[node] == pytest.approx(np.clip(expected, -50, 50), abs=1e-3)


def test_nothing_else_of_the_tree_changes(grown, document):
    assert as_paths(document.tree) == as_paths(grown.tree)
    assert document.tree.token == grown.tree.token
    assert (document.settings, document.vector, document.effective_cutoff) == (
        grown.settings, grown.vector, grown.effective_cutoff,
    )
    assert (grown.evidence, grown.tree.lifts, grown.tree.activation) == (None, None, None)


def test_a_tree_of_the_centroids_own_ghost_is_lifted_nowhere(world):
    """At no length every ghost is the centroid's."""
    checked = world.checked(world.tree(scale=1e-6))
    assert np.abs(checked.tree.lifts).max() < 1e-3
    assert checked.evidence["lift_centroid"] == pytest.approx(0, abs=1e-3)
    assert checked.evidence["lift_random"] == pytest.approx(0, abs=1e-3)
    assert checked.evidence["entropy"] == pytest.approx(checked.evidence["entropy_centroid"], abs=1e-3)
    similar = (checked.evidence["self_similarity"], checked.evidence["self_similarity_centroid"])
    assert similar[0] == pytest.approx(similar[1], abs=1e-4)


def test_every_definition_has_the_features_strongest_activation_on_its_tokens(world, prepared, answers, document):
    tree = document.tree
    leaves = [d.node for d in document.definitions() if len(tree.path(d.node)) > int(tree.end[d.node])][:50]
    assert np.flatnonzero(~np.isnan(tree.activation)).tolist() == sorted(leaves)
    encoder = world.library.encoder(world.library.find(document.settings["sae"]))
    for leaf, residuals in zip(leaves, answers[0].residuals, strict=False):
        expected = encoder.encode_feature(torch.from_numpy(residuals), FEATURE).max()
        assert tree.activation[leaf] == pytest.approx(float(expected), rel=1e-4, abs=1e-4)


def test_the_mean_lift_is_that_of_the_first_definitions_by_probability(document):
    tree = document.tree
    leaves = [d.node for d in document.definitions() if len(tree.path(d.node)) > int(tree.end[d.node])]
    leaves = leaves[:DEFINITIONS_JUDGED]
    expected = np.average(tree.lifts[leaves], axis=0, weights=tree.cumulative_prob[leaves])
    assert [document.evidence[name] for name in ("lift_centroid", "lift_random")] == pytest.approx(expected.tolist())


def test_the_figures_of_a_check_are_there(document):
    found = document.evidence
    assert found["n_features"] == D_SAE
    assert 1 <= found["rank"] <= D_SAE
    assert found["verdict"] in ("agrees", "partly", "no")
    assert found["left_out"] == 0
    assert found["fires_at_all"] == found["hit_rate"], "nothing is left out, so there is no difference"
    # W_dec is W_enc with noise of 0.3.
    assert found["encoder_decoder_cosine"] == pytest.approx(1 / np.hypot(1, 0.3), abs=0.03)
    assert 50 < found["lists_shared"] <= 100


def test_the_judged_definitions_stand_in_the_evidence_with_their_activations(world, prepared, document):
    found = document.evidence
    assert len(found["judged_texts"]) == len(found["judged_activations"]) == found["n_definitions"]
    assert found["n_definitions"] <= DEFINITIONS_JUDGED
    assert sum(activation > 0 for activation in found["judged_activations"]) == found["hits"]
    # They are the beginnings of definitions of the tree, and nothing was read of them but their tokens.
    subject = world.library.subject(world.folder)
    texts = prepared.check.texts[-found["n_definitions"] :]
    spelled = [join_tokens(subject.token_texts[token_id] for token_id in text) for text in texts]
    assert found["judged_texts"] == [text.strip() for text in spelled]
    assert len({text.casefold().strip(" .,;:!?") for text in spelled}) == len(spelled)


def test_definitions_that_say_the_same_are_judged_once():
    tokens = ["rain", "Rain", " rain", ".", "fall", "\n", "RAIN"]
    texts = [(2,), (1,), (0, 3), (0, 4), (5,), (6, 3, 3), (4,)]
    assert judged_texts(texts, tokens) == [((2,), "rain"), ((0, 4), "rainfall"), ((5,), ""), ((4,), "fall")]
    many = [(i,) for i in range(20)]
    assert len(judged_texts(many, [f"word{chr(97 + i)}" for i in range(20)])) == DEFINITIONS_JUDGED


# Other features


def test_other_features_answers_come_with_their_numbers(prepared):
    assert len(prepared.ask.growth.v) == len(prepared.control_features) == 17
    assert len(set(prepared.control_features)) == 17


def test_the_features_own_definitions_are_none_of_the_others(world, answers):
    """Whatever the model says of the feature itself among the controls, the evidence is the same."""
    first = world.prepare(world.tree()).control_features[0]
    prepared = world.prepare(world.tree(feature=first))
    assert prepared.control_features[0] == first
    checked, asked = world.answers(prepared)
    expected = prepared.evidence(checked, asked).evidence
    own, *others = asked
    loud = replace(own, residuals=[rows * 1000 for rows in own.residuals])
    assert prepared.evidence(checked, [loud, *others]).evidence == expected
    other = replace(others[0], residuals=[rows * 1000 for rows in others[0].residuals])
    assert prepared.evidence(checked, [own, other, *others[1:]]).evidence != expected


def test_without_other_definitions_there_is_no_verdict(prepared, answers):
    checked, asked = answers
    silent = [replace(answer, texts=[], residuals=[]) for answer in asked]
    found = prepared.evidence(checked, silent).evidence
    assert (found["verdict"], found["rank"]) == ("unknown", None)


def test_random_ghosts_are_the_same_every_time_and_as_far_out_as_asked(world):
    subject = world.library.subject(world.folder)
    ghosts = random_ghosts(subject, 3.5, 6)
    assert torch.equal(ghosts, random_ghosts(subject, 3.5, 6))
    assert (ghosts - subject.space.centroid).norm(dim=1).tolist() == pytest.approx([3.5] * 6, rel=1e-4)


# A small tree is cut from a large one, not grown


@pytest.mark.parametrize(("max_nodes", "top_k"), [(20_000, 5), (15, 5), (20_000, 0)])
def test_the_small_tree_is_the_one_that_its_recipe_grows(world, max_nodes, top_k):
    recipe = TreeRecipe(prompt=PROMPT, cutoff=1e-3, max_depth=13, max_nodes=max_nodes, top_k=top_k)
    large = world.tree(recipe=recipe)
    small = small_recipe(recipe, large.effective_cutoff)
    assert (small.max_depth, small.max_nodes) == (12, min(40, max_nodes))
    assert (small.cutoff, small.top_k) == (max(2e-3, large.effective_cutoff), 5)
    # The least probable node's own probability may be the cutoff: rounding must not decide.
    expected = as_paths(world.tree(recipe=replace(small, cutoff=small.cutoff * (1 - 1e-4))).tree)
    found = as_paths(small_tree(large.tree, small))
    assert found.keys() == expected.keys()
    assert len(found) == small.max_nodes


def test_a_recipe_smaller_than_the_small_one_stays():
    tiny = TreeRecipe(cutoff=0.1, max_depth=3, max_nodes=7)
    assert small_recipe(tiny) == tiny
    assert small_recipe(tiny, 0.2).cutoff == 0.2


# What an SAE on the embedding and a direction from the vocabulary change


def test_on_the_embedding_self_similarity_says_nothing_and_is_left_out(world):
    found = world.checked(world.tree("hook_embed")).evidence
    assert (found["self_similarity"], found["self_similarity_centroid"]) == (None, None)


def test_a_tree_from_the_vocabulary_is_not_judged_on_what_it_was_made_from(world):
    document = world.tree(weights="vocabulary")  # scans the vocabulary first
    prepared = world.prepare(document)
    checked, asked = world.answers(prepared)
    found = prepared.evidence(checked, asked)
    assert found.evidence["left_out"] == 20
    assert found.evidence["fires_at_all"] >= found.evidence["hit_rate"]
    json.dumps(found.to_dict(), allow_nan=False)


# As JSON


def test_a_checked_tree_reads_back_equal(document):
    written = document.to_json()
    read = read_tree(written)
    assert read.to_json() == written
    assert read.evidence == document.evidence
    np.testing.assert_array_equal(read.tree.lifts[:4], document.tree.lifts[:4])  # the first level keeps its order
    assert np.isnan(read.tree.activation).sum() == np.isnan(document.tree.activation).sum()


def test_a_checked_tree_can_be_read_and_checked_again(world, document):
    again = world.checked(read_tree(document.to_json()))
    for name, value in document.evidence.items():
        if name == "feature_maximum":  # known from the scan that another test may have made meanwhile
            continue
        if name == "judged_activations":
            value = pytest.approx(value, rel=1e-3)
        assert again.evidence[name] == (pytest.approx(value, abs=1e-3) if isinstance(value, float) else value), name


def test_trimming_keeps_each_nodes_lifts_and_activation(document):
    def by_path(tree):
        return {
            tuple(tree.token_id[tree.path(node)].tolist()): (*tree.lifts[node], tree.activation[node])
            for node in range(len(tree))
        }

    whole, trimmed = by_path(document.tree), by_path(document.trimmed(0.02).tree)
    assert 0 < len(trimmed) < len(whole)
    for path, values in trimmed.items():
        np.testing.assert_array_equal(values, whole[path])
    assert document.trimmed(0.02).evidence == document.evidence


# What cannot be checked


def refusal(world, document: DefinitionTree) -> str:
    with pytest.raises(UserError) as caught:
        world.prepare(document)
    message = str(caught.value)
    assert len(message) < 500
    return message


def test_a_tree_of_another_model_is_refused_with_both_names(world, grown):
    for model in ("google/gemma-2b", None, "x" * 10_000):
        message = refusal(world, replace(grown, settings=grown.settings | {"model": model}))
        assert f"was grown on {repr(model)[:20]}" in message
        assert f"belongs to {world.folder}. Only a tree on the SAE's own model" in message


def test_an_empty_tree_is_refused(world, grown):
    assert "empty" in refusal(world, replace(grown, tree=NO_TREE))


def test_a_tree_with_tokens_that_the_model_does_not_have_is_refused(world, grown):
    token_id = grown.tree.token_id.copy()
    token_id[3] = N_ROWS
    assert "has the token #" in refusal(world, replace(grown, tree=replace(grown.tree, token_id=token_id)))


def test_a_tree_deeper_than_its_own_settings_is_refused(world, grown):
    depth = int(grown.tree.depth.max())
    assert "damaged" in refusal(world, replace(grown, settings=grown.settings | {"max_depth": depth - 1}))


def test_a_tree_with_the_token_in_the_ghosts_place_is_refused(world, grown, prepared):
    token_id = grown.tree.token_id.copy()
    token_id[3] = prepared.check.growth.prompt.placeholder_id
    assert "damaged" in refusal(world, replace(grown, tree=replace(grown.tree, token_id=token_id)))


@pytest.mark.parametrize(
    "changes", [{"feature": D_SAE}, {"sae": "no/such"}, {"weights": "both"}, {"cutoff": 7}, {"prompt": "no ghost"}]
)
def test_a_tree_whose_recipe_cannot_be_followed_is_refused(world, grown, changes):
    assert str(*changes.values()) in refusal(world, replace(grown, settings=grown.settings | changes))


def test_a_tree_of_impossible_paths_is_measured_without_harm(world, grown):
    zeros = np.zeros(len(grown.tree))
    checked = world.checked(replace(grown, tree=replace(grown.tree, prob=zeros, cumulative_prob=zeros)))
    assert checked.evidence["lift_centroid"] == 0
    checked.to_json()


def test_the_cosine_with_nothing_is_zero():
    assert cosine(np.array([3.0, 4.0]), np.array([4.0, 3.0])) == pytest.approx(0.96)
    assert cosine(np.zeros(2), np.array([1.0, 0.0])) == 0
