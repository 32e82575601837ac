"""A vector of one's own as a recipe: what it may be, its numbers as float32 has them, how it is told."""

import json

import numpy as np
import pytest
import torch

from multitool.errors import UserError
from multitool.recipes.captions import source_told, title_told
from multitool.recipes.own_vectors import place_parts
from multitool.recipes.recipe import VectorRecipe

PLACE = {"model": "gpt2", "hook": "blocks.6.hook_resid_post"}
ROW = [0.1, -2.5, 3.0]


def own(vector=ROW, **settings) -> VectorRecipe:
    return VectorRecipe.from_vector(vector, **PLACE | settings)


def test_lists_arrays_and_tensors_are_the_same_recipe():
    expected = own()
    assert expected.sae == "model:gpt2@blocks.6.hook_resid_post" and expected.feature == 0
    weight = torch.nn.Parameter(torch.tensor(ROW))
    for vector in (tuple(ROW), np.array(ROW), np.float32(ROW), weight, torch.tensor(ROW).double()):
        assert own(vector) == expected and hash(own(vector)) == hash(expected)
    assert own([1, 2, 3]).vector == (1.0, 2.0, 3.0)
    assert own(torch.tensor([1.5, 2.0], dtype=torch.bfloat16)).vector == (1.5, 2.0)
    assert VectorRecipe.from_vector(ROW, model="gpt2").sae == "model:gpt2@hook_embed"
    assert own([1, 2, 4]) != own([1, 2, 3])


def test_json_keeps_every_number_as_float32_has_it():
    row = (np.random.default_rng(0).standard_normal(500) * 10.0 ** (np.arange(500) % 7)).astype(np.float32)
    read = json.loads(json.dumps(own(row).settings()))
    assert np.array_equal(np.float32(read["vector"]), row)
    assert VectorRecipe(**read | {"pca": tuple(read["pca"])}) == own(row)
    assert own(np.float32([0.1])).vector == (0.1,), "by the shortest decimal"


@pytest.mark.parametrize(("vector", "said"), [
    ([], "it must be one row of numbers"), ("abc", "it must be one row of numbers"), (5, "it must be one row"),
    ({"a": 1}, "it must be one row of numbers"), (np.ones((2, 3)), "vector is 2 rows; it must be one row"),
    (torch.ones(1, 3), "vector is 1 rows"), ([0, 0.0], "vector is all zeros"),
    ([1, float("nan")], "a number of vector is nan"), ([float("inf")], "a number of vector is inf"),
    ([1e16], "a number of vector is 1e\\+16; it must be a number within"), ([True], "a number of vector is True"),
    (["1"], "a number of vector is '1'"), ([None], "a number of vector is None"), (np.array([1j]), "is 1j"),
    (np.ones(20_001), "it must be a list of at most 20,000 numbers"), ([1e-50], "vector is all zeros"),
])
def test_what_is_no_vector_is_refused(vector, said):
    with pytest.raises(UserError, match=said):
        own(vector)


def test_what_goes_with_a_vector_only():
    with pytest.raises(UserError, match="vector_name is 'probe', which goes with a vector of your own only"):
        VectorRecipe(sae="demo/hook_embed", feature=1, vector_name="probe")
    with pytest.raises(UserError, match="sae is 'model:gpt2@hook_embed', which goes with a vector of your own only"):
        VectorRecipe(sae="model:gpt2@hook_embed", feature=1)
    with pytest.raises(UserError, match="The weights vocabulary come of the tokens that fire a feature"):
        own(weights="vocabulary")
    with pytest.raises(UserError, match="vector_name"):
        own(name="x" * 101)
    with pytest.raises(UserError, match="a place in a model is named model:NAME@HOOK"):
        place_parts("model:gpt2")
    assert VectorRecipe(sae="demo/hook_embed", feature=7, vector=(1.0,)).feature == 0, "it stands in its place"


def test_it_is_told_by_name_and_hash_and_never_by_its_numbers():
    probe = own(np.arange(1, 2001), name="probe: sentiment")
    told = "probe: sentiment (vector 64741119)"
    assert repr(probe) == f"VectorRecipe(vector={told!r}, sae='model:gpt2@blocks.6.hook_resid_post')"
    settings = probe.settings() | {"weights": "pullback"}
    assert title_told(settings) == f"{told} · gpt2@blocks.6.hook_resid_post · pullback"
    assert source_told(settings) == f"{told} at gpt2@blocks.6.hook_resid_post, weights pullback"
    assert repr(VectorRecipe(sae="demo/hook_embed", feature=3, scale=2.0)) == (
        "VectorRecipe(sae='demo/hook_embed', feature=3, scale=2.0)")


@pytest.mark.parametrize("vector", [[], "abc", [None], ["1"], [1e300], [float("nan")], 7, [[1.0]]])
def test_a_foreign_file_s_vector_is_not_trusted(vector):
    assert source_told({"sae": "a/b", "feature": 1, "weights": "encoder", "vector": vector}) == (
        "a/b feature 1, weights encoder")


def test_features_without_one_are_told_as_before():
    assert "vector" not in VectorRecipe(sae="demo/hook_embed", feature=1).settings()
