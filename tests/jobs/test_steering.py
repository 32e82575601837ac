"""From a recipe's steering to what is done to the model: typical maxima, what is refused, and the whole way."""

import json
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from plain_recursion import as_paths, assert_same_tree
from tiny import PROMPT, random_sae, tiny_model, write_model, write_sae

from multitool.errors import UserError
from multitool.jobs.features import Resolved, resolve
from multitool.jobs.local import check_tree, definition_tree, finish, scan_if_missing
from multitool.jobs.steering import interventions, known_maximum, prose, scan_for_clamp, typical_maximum
from multitool.jobs.tree import continuation_job
from multitool.model.ghost_prompt import GhostPrompt, attention_sinks
from multitool.model.interventions import Interventions
from multitool.model.tasks import growth_task
from multitool.pictures.figure import render
from multitool.recipes import links
from multitool.recipes.captions import interventions_told
from multitool.recipes.recipe import TreeRecipe, VectorRecipe
from multitool.store.library import Library
from multitool.trees.document import DefinitionTree, read_tree

HOOK = "blocks.0.hook_resid_post"
SPARED = "without the prompt's first and special ones"
PLAIN = TreeRecipe(prompt=PROMPT, cutoff=0.005, max_depth=4, max_nodes=60)
STEERED = replace(PLAIN, steer_strength=0.5, steer_at="all")


@dataclass(frozen=True)
class World:
    library: Library
    sae: str

    def vector(self, feature: int = 2, **settings) -> VectorRecipe:
        return VectorRecipe(sae=self.sae, feature=feature, **({"weights": "encoder"} | settings))

    def resolved(self, **settings) -> Resolved:
        return resolve(self.library, self.vector(**settings))

    def tree(self, recipe: TreeRecipe, **settings) -> DefinitionTree:
        return definition_tree(self.library, self.vector(**settings), recipe)

    def wanted(self, recipe: TreeRecipe, **settings) -> Interventions | None:
        return interventions(self.resolved(**settings), recipe)


@pytest.fixture(scope="module")
def world(tmp_path_factory, tokenizer):
    folder = tmp_path_factory.mktemp("steering")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SAE_MULTITOOL_CACHE", str(folder / "cache"))
        write_model(folder / "model", tiny_model("llama"), tokenizer)
        sae = random_sae(folder / "sae", 32, 30, hook=HOOK, model=str(folder / "model"))
        yield World(Library(allow_folder=True), str(sae))


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        ({"steer_strength": 101}, "steer_strength is 101; it must be a number within ±100"),
        ({"steer_strength": "much"}, "steer_strength is 'much'"),
        ({"clamp": float("nan")}, "clamp is nan"),
        ({"clamp": True}, "clamp is True"),
        ({"steer_at": "here"}, "steer_at is 'here'; valid are ghost, prompt, all"),
        ({"steer_at": ["all"]}, "valid are ghost, prompt, all"),
        ({"inject_layer": -2}, "inject_layer is -2; it must be a whole number from -1"),
        ({"inject_mode": "instead"}, "inject_mode is 'instead'; valid are replace, add"),
        ({"inject_scale": 0}, "inject_scale is 0; it must be a number above 0"),
    ],
)
def test_what_cannot_be_is_refused_by_the_recipe(recipe, said):
    with pytest.raises(UserError) as caught:
        TreeRecipe(**recipe)
    assert said in str(caught.value)


def test_nothing_asked_for_is_nothing_done_and_exactly_the_plain_tree(world):
    for recipe in (PLAIN, replace(PLAIN, steer_at="all"), replace(PLAIN, inject_scale=3.0, inject_mode="add")):
        assert not recipe.intervenes
        assert world.wanted(recipe) is None
        assert as_paths(world.tree(recipe).tree) == as_paths(world.tree(PLAIN).tree)


def test_the_push_is_along_the_unit_decoder_direction_at_the_saes_hook(world):
    (push,) = world.wanted(STEERED).pushes
    decoder = world.library.sae(world.library.find(world.sae)).W_dec[2]
    assert (push.hook, push.strength) == (HOOK, 0.5)
    assert np.allclose(push.direction, decoder / decoder.norm())
    assert world.wanted(STEERED).where == "all"


def test_of_several_features_each_is_pushed_by_its_weight_and_none_is_clamped(world):
    several = replace(world.vector(), feature="2*0.5 - 3")
    first, second = interventions(resolve(world.library, several), STEERED).pushes
    decoder = world.library.sae(world.library.find(world.sae)).W_dec
    assert (first.strength, second.strength) == (0.25, -0.5)
    for push, row in ((first, decoder[2]), (second, decoder[3])):
        assert push.hook == HOOK
        assert np.allclose(push.direction, row / row.norm())
    assert definition_tree(world.library, several, STEERED).settings["feature"] == "2*0.5 + 3*-1.0"
    with pytest.raises(UserError, match="Evidence is about one feature"):
        definition_tree(world.library, several, replace(PLAIN, clamp=1.0))


def test_the_centroid_alone_cannot_be_injected_but_steered(world):
    centroid = world.vector(weights="centroid")
    with pytest.raises(UserError, match="centroid alone has no direction to inject"):
        definition_tree(world.library, centroid, replace(PLAIN, inject_layer=0))
    assert len(definition_tree(world.library, centroid, STEERED).tree)


def test_the_typical_maximum_is_that_of_kept_contexts_or_of_the_scan(world, demo_library):
    demo = resolve(demo_library, VectorRecipe(sae="demo/hook_embed", feature=927))
    assert not scan_for_clamp(demo, TreeRecipe(clamp=1))
    contexts = json.loads((demo.sae.entry.folder / "contexts.json").read_text())["features"][927]
    assert typical_maximum(demo) == max(activation for *_, activation in contexts) > 0

    clamped = replace(PLAIN, clamp=2.0)
    assert scan_for_clamp(world.resolved(), clamped)
    assert not scan_for_clamp(world.resolved(), PLAIN)
    scan_if_missing(world.library, world.vector(), always=True)
    wanted = world.wanted(clamped).clamp
    sae, subject = world.library.load(world.library.find(world.sae))
    scan = world.library.scan(sae.entry, subject)
    norms = torch.from_numpy(scan.norms)
    usual = (norms <= 2 * norms.median()) & torch.from_numpy(subject.in_texts)
    fires = (scan.part(0, len(norms)) @ sae.W_enc[:, 2]).clamp(min=0)
    assert wanted.typical_maximum == pytest.approx(float(fires[usual].max()))
    assert wanted.activation == pytest.approx(2 * wanted.typical_maximum)
    assert world.tree(clamped).vector["typical_maximum"] == wanted.typical_maximum


def test_a_feature_that_never_fires_cannot_be_clamped_and_a_dead_one_not_steered(tmp_path, world, tokenizer):
    W = torch.zeros(32, 2)
    W[0, 0] = 1.0
    weights = {"W_enc": W, "W_dec": torch.zeros(2, 32)}
    model = world.library.find(world.sae).model
    sae = write_sae(tmp_path / "sae", **weights, hook=HOOK, model=model)
    with pytest.raises(UserError, match="decoder weights of feature 0 of .* are all zero"):
        definition_tree(world.library, VectorRecipe(sae=str(sae), feature=0, weights="encoder"), STEERED)
    silent = write_sae(tmp_path / "silent", W_enc=W, W_dec=torch.ones(2, 32), hook=HOOK, model=model)
    with pytest.raises(UserError, match="fires on no single token.*steer_strength"):
        definition_tree(
            world.library, VectorRecipe(sae=str(silent), feature=1, weights="decoder"), replace(PLAIN, clamp=1.0)
        )


def test_a_layer_that_nothing_reads_is_refused(world):
    assert world.tree(replace(PLAIN, inject_layer=1)).vector["distance_from_centroid"] is None
    with pytest.raises(UserError, match="must be from 0 to 1, so that at least one layer reads"):
        world.tree(replace(PLAIN, inject_layer=2))


def test_the_first_and_the_special_tokens_are_left_alone_and_older_trees_are_grown_on_as_they_were(world):
    subject = world.library.subject(world.library.find(world.sae).model)
    prompt = "<|endoftext|>" + PROMPT
    recipe = replace(STEERED, prompt=prompt, steer_at="prompt")
    task = growth_task(subject, torch.zeros(32), recipe, interventions=world.wanted(recipe))
    special, ids = subject.tokenizer.eos_token_id, task.prompt.token_ids
    assert ids[0] == special and task.interventions.spared == (0,)
    whole = replace(recipe, steer_sinks=True)
    assert growth_task(subject, torch.zeros(32), whole, interventions=world.wanted(whole)).interventions.spared == ()
    chat = attention_sinks(subject, GhostPrompt((7, 8, special, 9, special), 1))
    assert chat == (0, 2, 4)

    sparing, everywhere = world.tree(recipe), world.tree(whole)
    assert as_paths(sparing.tree) != as_paths(everywhere.tree)
    assert interventions_told(sparing.settings)[0].endswith(
        "at every token of the prompt, without the prompt's first and special ones"
    )
    assert interventions_told(everywhere.settings)[0].endswith("at every token of the prompt")
    # A file of version 0.2 does not tell.
    old = json.loads(everywhere.to_json())
    del old["settings"]["steer_sinks"]
    assert interventions_told(old["settings"])[0].endswith("at every token of the prompt")
    document = read_tree(old)
    assert document.settings["steer_sinks"] is True
    begun = replace(document, tree=document.tree.select(document.tree.depth == 1), complete=False)
    again = finish(continuation_job(world.library, begun), world.library)
    assert_same_tree(again.tree, as_paths(everywhere.tree))
    assert again.settings == everywhere.settings


ALL = replace(STEERED, clamp=0.5, inject_layer=1, inject_mode="add", inject_scale=2.0)


def test_a_recipe_goes_through_json_and_link_and_grows_the_same_again(world):
    tree = world.tree(ALL)
    again = read_tree(json.loads(tree.to_json()))
    assert again.settings == tree.settings
    assert {name: tree.settings[name] for name in ("steer_strength", "clamp", "steer_at", "inject_layer", "inject_mode",
                                                    "inject_scale")} == {
        "steer_strength": 0.5, "clamp": 0.5, "steer_at": "all", "inject_layer": 1, "inject_mode": "add",
        "inject_scale": 2.0}
    assert tree.vector["norm"] == pytest.approx(2.0)  # a unit direction, twice the mean residual norm
    link = links.parsed(links.query(links.tree_told(world.vector(), ALL, TreeRecipe())))
    assert links.tree_of(link, TreeRecipe()) == ALL
    assert as_paths(world.tree(ALL).tree) == as_paths(tree.tree)
    assert as_paths(tree.tree) != as_paths(world.tree(PLAIN).tree)


def test_a_steered_tree_that_was_stopped_is_grown_on(world):
    whole = world.tree(ALL)
    first = replace(whole, tree=whole.tree.select(whole.tree.depth == 1), complete=False)
    last = finish(continuation_job(world.library, first), world.library)
    assert_same_tree(last.tree, as_paths(whole.tree))


def test_the_evidence_holds_a_steered_tree_against_undisturbed_ghosts(world):
    plain, steered = (check_tree(world.library, world.tree(recipe)) for recipe in (PLAIN, STEERED))
    assert steered.evidence["entropy_centroid"] == pytest.approx(plain.evidence["entropy_centroid"])
    assert steered.evidence["entropy"] == pytest.approx(steered.first_token_entropy, rel=1e-4)
    assert plain.evidence["entropy"] != pytest.approx(steered.evidence["entropy"], rel=1e-3)
    assert steered.evidence["self_similarity"] is None
    # The path's own probability, as it was grown, against the centroid's.
    own = np.log(steered.tree.cumulative_prob)
    shared = {path: i for i, path in enumerate(map(tuple, paths(plain)))}
    compared = [(i, shared[path]) for i, path in enumerate(map(tuple, paths(steered))) if path in shared]
    assert compared
    for i, j in compared:
        centroid = np.log(plain.tree.cumulative_prob[j]) - plain.tree.lifts[j, 0]
        assert own[i] - steered.tree.lifts[i, 0] == pytest.approx(centroid, abs=1e-3)


def paths(document: DefinitionTree) -> list[list[int]]:
    tree = document.tree
    return [[int(tree.token_id[i]) for i in tree.path(node)] for node in range(len(tree))]


def test_title_and_figure_tell_what_was_done(world):
    tree = world.tree(ALL)
    told = interventions_told(tree.settings)
    assert told == [
        "added after layer 1",
        f"steered by 0.5 mean residual norms at every token, the tree's own too, {SPARED}",
        f"clamped to 0.5 × its typical maximum at every token, the tree's own too, {SPARED}",
    ]
    assert interventions_told({}) == interventions_told(world.tree(PLAIN).settings) == []
    svg = render(tree, ["svg"])["svg"].decode()
    assert "added after layer 1" in svg
    assert "2 mean residual norms × encoder weights" in svg
    assert "distance from centroid" not in svg
    # A file from elsewhere may say anything.
    assert interventions_told({"inject_layer": "x", "steer_strength": "<b>", "clamp": [1], "steer_at": {}})


def test_a_features_maximum_is_known_from_contexts_or_a_scan_and_else_not(world, monkeypatch, tmp_path):
    monkeypatch.setattr(world.library, "scan", lambda *_: None)
    assert known_maximum(world.resolved()) is None  # neither is there, and none is made

    def kept(name: str, *activations: float) -> float | None:
        """Of an SAE with contexts in which feature 2 fires so."""
        folder = random_sae(tmp_path / name, 32, 30, hook=HOOK, model=world.library.find(world.sae).model)
        contexts = [["", "a", "", activation] for activation in activations]
        (folder / "contexts.json").write_text(json.dumps({"features": [[], [], contexts]}), encoding="utf-8")
        return known_maximum(resolve(world.library, VectorRecipe(sae=str(folder), feature=2)))

    assert kept("fires", 2.0, 3.5) == 3.5
    assert kept("silent", 0.0) is None  # it never fires


def test_the_prose_begins_with_what_stands_before_a_text(world):
    subject = world.library.subject(world.library.find(world.sae).model)
    ids = prose(subject)
    assert ids[0] == subject.bos_id
    assert len(ids) > 50
