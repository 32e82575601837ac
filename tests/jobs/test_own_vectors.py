"""Vectors of one's own: the trees of features from their rows, what nothing tells of them, the way through a file."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
from tiny import PROMPT, random_sae, tiny_model, write_model

from multitool.errors import UserError
from multitool.jobs.local import (
    atlas,
    check_tree,
    continuations,
    definition_tree,
    find_by_text,
    finish,
    suggest,
    token_table,
)
from multitool.jobs.text import text_job
from multitool.jobs.tree import continuation_job
from multitool.pictures.explorer import standalone
from multitool.recipes import links
from multitool.recipes.continuation import SteerRecipe
from multitool.recipes.recipe import ListRecipe, TreeRecipe, VectorRecipe, recipes
from multitool.store.library import Library
from multitool.trees.document import read_tree

LAYER = "blocks.1.hook_resid_post"
HOOKS = ("hook_embed", LAYER)
TEXT = SteerRecipe(text="A dog is", strengths=(0.5,), length=5)
GROWTH = TreeRecipe(prompt=PROMPT, cutoff=0.005, max_depth=4, max_nodes=60)
FEATURE = 3
pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class World:
    library: Library
    model: str
    saes: dict[str, str]  # by hook

    def feature(self, hook: str, **settings) -> VectorRecipe:
        return VectorRecipe(sae=self.saes[hook], feature=FEATURE, **settings)

    def row(self, hook: str, matrix: str = "W_enc"):
        sae = self.library.sae(self.library.find(self.saes[hook]))
        return sae.W_enc[:, FEATURE] if matrix == "W_enc" else sae.W_dec[FEATURE]

    def vector(self, hook: str, matrix: str = "W_enc", **settings) -> VectorRecipe:
        return VectorRecipe.from_vector(self.row(hook, matrix), model=self.model, hook=hook, **settings)


@pytest.fixture(scope="module")
def world(tmp_path_factory, tokenizer):
    folder = tmp_path_factory.mktemp("vectors")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SAE_MULTITOOL_CACHE", str(folder / "cache"))
        model = str(write_model(folder / "model", tiny_model("llama"), tokenizer))
        saes = {hook: str(random_sae(folder / hook, 32, 30, hook=hook, model=model)) for hook in HOOKS}
        yield World(Library(allow_folder=True), model, saes)


def assert_same(a, b):
    assert [definition.text for definition in a.definitions()] == [definition.text for definition in b.definitions()]
    assert np.array_equal(a.tree.prob, b.tree.prob)
    assert a.vector == b.vector


@pytest.mark.parametrize(("hook", "weights"), [("hook_embed", "encoder"), (LAYER, "pullback")])
def test_an_encoder_s_row_grows_the_feature_s_tree(world, hook, weights):
    grown = definition_tree(world.library, world.vector(hook), GROWTH)
    assert grown.settings["weights"] == weights, "what suits a vector there"
    assert_same(grown, definition_tree(world.library, world.feature(hook, weights=weights), GROWTH))


def test_a_lens_reads_what_it_writes(world):
    by_lens = ListRecipe(measure="logit_lens", top=5)
    own = token_table(world.library, world.vector(LAYER, "W_dec"), by_lens, evidence=True)
    of_feature = token_table(world.library, world.feature(LAYER), by_lens, evidence=True)
    assert own.settings["weights"] == "decoder"
    assert own.rows == of_feature.rows and own.evidence.to_dict() == of_feature.evidence.to_dict()


def test_it_lies_where_an_sae_reads_that_is_named_in_place_of_a_model(world):
    at_sae = replace(world.vector(LAYER), sae=world.saes[LAYER])
    named, placed = (definition_tree(world.library, recipe, GROWTH) for recipe in (at_sae, world.vector(LAYER)))
    assert_same(named, placed)


def test_steering_pushes_along_it(world):
    pushed = replace(GROWTH, steer_strength=0.5)
    own = definition_tree(world.library, world.vector(LAYER, "W_dec", weights="encoder"), pushed)
    assert_same(own, definition_tree(world.library, world.feature(LAYER, weights="decoder"), pushed))


def test_a_text_goes_on_along_it_as_along_a_decoder(world):
    own = continuations(world.library, world.vector(LAYER, "W_dec", name="mood"), TEXT)
    of_feature = continuations(world.library, world.feature(LAYER), TEXT)
    assert [one.text for one in own.continuations] == [one.text for one in of_feature.continuations]
    assert all(one.activations is None for one in own.continuations)
    assert "mood (vector " in own._repr_html_()


def test_it_mixes_with_features(world):
    mixed = replace(world.vector("hook_embed"), feature=f"0 + {world.saes['hook_embed']}:5*0.5")
    summed = world.feature("hook_embed", weights="encoder")
    summed = replace(summed, feature=f"{FEATURE} + 5*0.5")
    assert_same(definition_tree(world.library, mixed, GROWTH), definition_tree(world.library, summed, GROWTH))


def test_its_json_carries_it(world):
    recipe = world.vector(LAYER, name="probe: sentiment")
    grown = definition_tree(world.library, recipe, GROWTH)
    opened = read_tree(grown.to_json())
    again, growth = recipes(opened.settings)
    assert again == replace(recipe, weights="pullback", scale=grown.settings["scale"])
    assert np.array_equal(np.float32(again.vector), world.row(LAYER).numpy()), "to the last bit"
    assert_same(definition_tree(world.library, again, growth), grown)
    part = replace(opened, tree=opened.tree.select(opened.tree.depth <= 2), complete=False)
    assert_same(finish(continuation_job(world.library, part), world.library), grown)


def test_it_is_told_by_its_name_and_a_hash(world):
    tree = definition_tree(world.library, world.vector(LAYER, name="probe: sentiment"), GROWTH)
    told = f"probe: sentiment (vector {world.vector(LAYER).vector_told.split()[-1]}) at {world.model}@{LAYER}"
    assert repr(tree).startswith(f"DefinitionTree({told}, weights pullback: ")
    assert f"{told}, weights pullback" in tree._repr_html_() and len(tree._repr_html_()) < 5_000
    assert f'# own_vector: "{told.partition(" at ")[0]}"' in tree.to_csv() and len(tree.to_csv()) < 5_000
    explorer = standalone(tree)
    assert told.partition(" at ")[0] in explorer and len(explorer) < len(standalone(replace(tree, settings={}))) + 2_000
    assert f"{told}, weights pullback" in repr(token_table(world.library, world.vector(LAYER, name="probe: sentiment")))


def test_its_evidence_says_that_nothing_tells_when_it_fires(world):
    checked = check_tree(world.library, definition_tree(world.library, world.vector(LAYER), GROWTH))
    grown = definition_tree(world.library, world.feature(LAYER, weights="pullback"), GROWTH)
    of_feature = check_tree(world.library, grown)
    assert checked.evidence["verdict"] == "unknown"
    assert checked.evidence["sentence"].startswith("Nothing tells when a vector of your own fires")
    assert np.array_equal(checked.tree.lifts, of_feature.tree.lifts), "that needs no SAE"
    assert checked.evidence["lift_random"] == of_feature.evidence["lift_random"]
    assert read_tree(checked.to_json()).evidence == checked.evidence
    assert "lift_per_token" in checked.to_pandas().columns


def test_what_needs_an_sae_is_refused(world, tmp_path):
    vector, library, fires = world.vector(LAYER), world.library, "Nothing tells when a vector of your own fires"
    for ask in (
        lambda: token_table(library, vector, evidence=True),
        lambda: token_table(library, vector, ListRecipe(measure="activation")),
        lambda: definition_tree(library, vector, replace(GROWTH, clamp=1)),
        lambda: suggest(library, vector),
        lambda: finish(text_job(library, vector, "a dog"), library),
    ):
        with pytest.raises(UserError, match=fires):
            ask()
    with pytest.raises(UserError, match="An atlas is of an SAE's features, and a vector of your own is none"):
        next(atlas(library, [vector], [0], tmp_path / "atlas"))
    with pytest.raises(UserError, match="goes with a vector of your own only"):
        find_by_text(library, vector.sae, "a dog")
    with pytest.raises(UserError, match="A link cannot carry a vector"):
        links.told(vector, GROWTH)


def test_what_does_not_fit_its_model_is_refused(world):
    def grow(**given):
        recipe = VectorRecipe.from_vector(**{"vector": [1.0] * 32, "model": world.model} | given)
        return definition_tree(world.library, recipe, GROWTH)

    with pytest.raises(UserError, match="The vector has 2 numbers, and the embeddings of .* have 32"):
        grow(vector=[1, 2])
    with pytest.raises(UserError, match="hook is 'blocks.1.hook_mlp_out', which is no place on the residual stream"):
        grow(hook="blocks.1.hook_mlp_out")
    with pytest.raises(UserError, match=r"reads blocks\.7\.hook_resid_pre, and the model's 3 layers"):
        grow(hook="blocks.7.hook_resid_pre")
    plain = Library()
    recipe = VectorRecipe.from_vector([1.0] * 32, model=world.model)
    with pytest.raises(UserError, match=r"There is no model .* here: .* with allow_folder=True"):
        definition_tree(plain, recipe, GROWTH)
