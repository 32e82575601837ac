"""The examples of each SAE."""

import json
import re
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from multitool.errors import UserError
from multitool.page.examples import EXAMPLES, example, examples_html
from multitool.page.opening import usual_growth
from multitool.recipes.recipe import TreeRecipe
from multitool.store.atlases import DEMO_ATLAS
from multitool.store.demo_models import DEMO_MODEL, GEMMA_MODEL
from multitool.store.library import Library
from multitool.store.registry import find_sae, local_saes

PUBLISHED = Path(__file__).parents[2] / "scripts" / "published_outputs.json"


@pytest.fixture(scope="module")
def library():
    return Library(device="cpu")


def names(html: str) -> list[str]:
    return re.findall(r">([^<]+)</button>", html)


def test_every_sae_that_ships_has_examples(library):
    assert {entry.name for entry in local_saes()} <= {one.vector.sae for one in EXAMPLES}
    for entry in local_saes():
        shown = names(examples_html(library, entry.name))
        assert len(shown) >= 3 and not any("layer" in name for name in shown)


def test_each_example_is_a_feature_of_its_sae():
    for one in EXAMPLES:
        assert one.vector.single_feature() < find_sae(one.vector.sae).d_sae, one


def test_examples_of_the_demos_layers_are_fired_by_their_definitions():
    verdicts = {}
    for file in DEMO_ATLAS.glob("*.parquet"):
        for row in pq.read_table(file, columns=["sae", "feature", "verdict"]).to_pylist():
            verdicts[row["sae"], row["feature"]] = row["verdict"]
    for one in EXAMPLES:
        if one.vector.sae.startswith("demo/blocks."):
            assert verdicts[one.vector.sae, one.vector.feature] == "agrees", one


def test_gemmas_examples_have_the_settings_of_the_published_ones():
    cases = json.loads(PUBLISHED.read_text(encoding="utf-8"))["cases"]
    published = {}
    for case in cases:
        vector = case["vector"]
        key = case["layer"], vector["feature"], vector["weights"], vector["scale"], tuple(vector.get("pca", ()))
        published.setdefault(key, case)
    ours = [one for one in EXAMPLES if one.vector.sae.startswith("gemma-2b-res-jb/")]
    assert {find_sae(one.vector.sae).layer for one in ours} == {0, 6, 10, 12}
    for one in ours:
        vector = one.vector
        key = find_sae(vector.sae).layer, vector.feature, vector.weights, vector.scale, tuple(vector.pca)
        case = published[key]
        if case["kind"] == "tree":
            growth = case["recipe"]
            assert one.growth.cutoff == pytest.approx(growth["cutoff"]) and one.growth.top_k == growth["top_k"]


def test_examples_follow_the_sae_then_its_model_then_the_demo(library):
    own = names(examples_html(library, "gemma-2b-res-jb/blocks.12.hook_resid_post"))
    assert own == ["a sudden thought", "thoughts, memories"]
    of_model = names(examples_html(library, "gemma-2b-res-jb/blocks.17.hook_resid_post"))
    assert "a sudden thought (layer 12)" in of_model and "December (layer 0)" in of_model
    for other in ("gpt2-small-res-jb/blocks.3.hook_resid_pre", "no/such", None):
        assert names(examples_html(library, other))[:3] == ["rain", "viruses", "prison"]


def test_what_is_not_served_is_no_example():
    only = Library(device="cpu", patterns=("gpt2-small-res-jb",))
    gemma = next(number for number, one in enumerate(EXAMPLES) if one.vector.sae.startswith("gemma-2b"))
    assert "rain" in names(examples_html(only, "gpt2-small-res-jb/blocks.3.hook_resid_pre"))
    with pytest.raises(UserError, match="not served here"):
        example(only, gemma)


@pytest.mark.parametrize("number", [-1, len(EXAMPLES), "1", None, 1.5])
def test_what_is_no_example_is_refused(library, number):
    with pytest.raises(UserError, match="no example"):
        example(library, number)


def test_examples_grow_as_the_page_begins_on_their_model():
    growths = {find_sae(one.vector.sae).model: one.growth for one in EXAMPLES if one.cutoff is None}
    assert growths[DEMO_MODEL] == usual_growth(DEMO_MODEL) and growths[GEMMA_MODEL] == usual_growth(GEMMA_MODEL)
    assert growths["google/gemma-2b"] == TreeRecipe()
