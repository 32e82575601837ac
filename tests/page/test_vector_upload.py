"""A vector of the visitor's own: what is made of a file, what is told of it, how a saved tree of one is opened."""

import numpy as np
import pytest

from multitool.errors import UserError
from multitool.page.recipe_controls import recipes_shown, values_shown
from multitool.page.vector_controls import SUITING
from multitool.page.vector_upload import OwnVector, _read, _told, sae_beside
from multitool.recipes.own_vectors import vector_hash
from multitool.recipes.recipe import TreeRecipe, VectorRecipe
from multitool.store.library import Library

MODEL, LAYER = "demo/SmolLM2-135M-Instruct-Q4_1", "demo/blocks.6.hook_resid_post"
ROW = (1.0, -0.5, 2.0)


def uploaded(tmp_path, array, name="probe.npy", called=""):
    np.save(tmp_path / name, array)
    return _read(SUITING, str(tmp_path / name), called)


def test_a_file_is_a_vector_with_a_name_by_the_weights_that_suit(tmp_path):
    assert uploaded(tmp_path, np.array(ROW)) == {"vector": OwnVector(ROW, "probe"), "weights": SUITING}
    assert uploaded(tmp_path, np.array(ROW), called=" mood ")["vector"].name == "mood"
    assert uploaded(tmp_path, np.array(ROW), "x" * 120 + ".npy")["vector"].name == "x" * 100
    assert _read(SUITING, None, "") == {}


@pytest.mark.parametrize(("array", "said"), [
    (np.ones((2, 3)), "must be one row"), (np.zeros(3), "is all zeros"), (np.array([1, np.nan]), "is nan"),
    (np.array(["<b>"]), "must hold numbers"), (np.ones(20_001), "at most 20,000 numbers"),
])
def test_what_is_wrong_is_said_beside_the_button_and_the_vector_stays(tmp_path, array, said):
    answer = uploaded(tmp_path, array, "<i>.npy")
    assert answer.keys() == {"told"} and said in answer["told"] and 'role="alert"' in answer["told"]
    assert "<i>" not in answer["told"]


def test_what_is_told_of_it():
    answer = _told(OwnVector(ROW, "<b>mood"), LAYER)
    assert f"<b>&lt;b&gt;mood (vector {vector_hash(ROW)})</b>, 3 numbers, stands in place" in answer["told"]
    assert LAYER in answer["told"] and answer["remove"]["visible"]
    assert _told(None, LAYER) == {"told": "", "remove": _told(None, None)["remove"]}


def test_controls_with_a_vector_are_a_recipe_of_it_and_back():
    recipe = VectorRecipe(sae=LAYER, feature=0, vector=ROW, vector_name="mood", scale=2.0)
    values = values_shown(Library(), recipe, TreeRecipe())
    assert recipes_shown(**values) == (recipe, TreeRecipe())
    assert recipes_shown(**values | {"feature": "927"}) == (recipe, TreeRecipe()), "it stands in the feature's place"
    plain, _ = recipes_shown(**values | {"vector": None, "feature": "927"})
    assert plain == VectorRecipe(sae=LAYER, feature=927, scale=2.0)


def test_a_tree_from_elsewhere_is_shown_at_an_sae_that_reads_there():
    recipe = VectorRecipe.from_vector(ROW, model=MODEL, hook="blocks.6.hook_resid_post")
    assert sae_beside(Library(), recipe) == LAYER
    nowhere = VectorRecipe.from_vector(ROW, model=MODEL, hook="blocks.7.hook_resid_post")
    with pytest.raises(UserError, match="lies at blocks.7.hook_resid_post of demo/.* no SAE of this page reads"):
        sae_beside(Library(), nowhere)
    with pytest.raises(UserError, match="There is no model 'elsewhere/model' here"):
        sae_beside(Library(), VectorRecipe.from_vector(ROW, model="elsewhere/model"))
