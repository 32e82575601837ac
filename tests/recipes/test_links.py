"""A link says the same settings that it was made from, and nothing that it says is trusted."""

from urllib.parse import parse_qsl

import pytest

from multitool.errors import UserError
from multitool.recipes.links import query, recipes_of
from multitool.recipes.recipe import TreeRecipe, VectorRecipe

OPENING = VectorRecipe(sae="demo/hook_embed", feature=927)


def read(text: str):
    return recipes_of(dict(parse_qsl(text)), OPENING)


@pytest.mark.parametrize(
    "vector",
    [
        OPENING,
        VectorRecipe(sae="gemma-2b-res-jb/blocks.6.hook_resid_post", feature=17, weights="decoder"),
        VectorRecipe(sae="a/b c&d=e", feature=0, weights="mix", encoder_share=0.35, centroid=False, scale=3.80417,
                     pca=[0.2, -1e-7]),
        VectorRecipe(sae="a/b", feature="1 - c/d:2*0.25"),
        VectorRecipe(sae="hf://owner/repo@main/blocks.2", feature="1 - hf://owner/other:2*0.25"),
        VectorRecipe(sae="a/b", feature=1, weights="tokens", tokens='king - "wo man" + #5'),
    ],
    ids=["demo", "gemma", "everything", "features", "hub", "tokens"],
)
@pytest.mark.parametrize(
    "tree",
    [
        TreeRecipe(),
        TreeRecipe(prompt='Ein „{ghost}“ & <b>50%</b> = "', top_k=7, cutoff=1.5e-7, max_depth=3, max_nodes=5,
                   stop=False),
        TreeRecipe(prompt="Was heißt das?\n", chat=True, answer='„{ghost}“ & ist „'),
    ],
    ids=["default", "everything", "chat"],
)
def test_a_link_gives_the_settings_back(vector, tree):
    assert read(query(vector, tree)) == (vector, tree)


def test_what_is_the_default_is_left_out_but_for_the_feature():
    assert query(OPENING, TreeRecipe()) == "sae=demo%2Fhook_embed&feature=927"


def test_a_query_about_other_things_is_no_link():
    assert read("__theme=dark&utm_source=mail") is None
    assert read("") is None


def test_what_a_link_does_not_say_is_as_on_the_page_it_opens():
    assert read("feature=3") == (VectorRecipe(sae="demo/hook_embed", feature=3), TreeRecipe())
    assert read("cutoff=1e-3") == (OPENING, TreeRecipe(cutoff=1e-3))
    assert read("prompt=meaning") == (OPENING, TreeRecipe(prompt='The meaning of "{ghost}" is "'))
    # Of another SAE the opening feature says nothing.
    assert read("sae=a/b") == (VectorRecipe(sae="a/b", feature=0), TreeRecipe())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("feature=many", "feature"), ("feature=-1", "feature"), ("feature=1.5", "feature"), ("scale=nan", "scale"),
        ("cutoff=2", "cutoff"), ("pca=0.1,x", "pca"), ("stop=maybe", "stop"), ("weights=all", "weights"),
        ("chat=1", "chat"), ("answer=It+is", "chat is off"), ("prompt=no+place", "prompt"),
        ("max_nodes=1e9", "max_nodes"), ("sae=", None),
    ],
)
def test_a_link_with_a_value_that_cannot_be_is_refused(text, message):
    if message is None:
        assert read(text) is None  # nothing was said
        return
    with pytest.raises(UserError, match=message):
        read(text)
