"""A link says the same settings that it was made from, and nothing that it says is trusted."""

import pytest

from multitool.errors import UserError
from multitool.recipes import links
from multitool.recipes.recipe import ListRecipe, TreeRecipe, VectorRecipe

OPENING = VectorRecipe(sae="demo/hook_embed", feature=927)
USUAL = TreeRecipe(top_k=0, cutoff=5e-4)  # as on the demo


def read(text: str):
    parameters = links.parsed(text)
    return links.vector_of(parameters, OPENING), links.tree_of(parameters, USUAL)


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
        USUAL,
        TreeRecipe(prompt='Ein „{ghost}“ & <b>50%</b> = "', top_k=7, cutoff=1.5e-7, max_depth=3, max_nodes=5,
                   stop=False),
        TreeRecipe(prompt="Was heißt das?\n", chat=True, answer='„{ghost}“ & ist „'),
    ],
    ids=["default", "usual", "everything", "chat"],
)
def test_a_link_gives_the_settings_back(vector, tree):
    assert read(links.query(links.tree_told(vector, tree, USUAL))) == (vector, tree)
    assert read("?" + links.query(links.tree_told(vector, tree, TreeRecipe())))[0] == vector


def test_a_link_of_an_earlier_version_says_what_it_said():
    # Those told the weights always, and left out the growth that was the recipe's own default.
    link = "?sae=demo%2Fhook_embed&feature=648&weights=decoder"
    assert read(link) == (VectorRecipe(sae="demo/hook_embed", feature=648, weights="decoder"), TreeRecipe())
    assert read(link + "&cutoff=0.001")[1] == TreeRecipe(cutoff=1e-3)


def test_what_is_the_default_is_left_out_but_for_the_feature():
    assert links.query(links.told(OPENING, TreeRecipe())) == "sae=demo/hook_embed&feature=927"
    assert links.query(links.tree_told(OPENING, USUAL, USUAL)) == "sae=demo/hook_embed&feature=927"
    assert links.query(links.tree_told(OPENING, TreeRecipe(), USUAL)) == "sae=demo/hook_embed&feature=927&top_k=5"
    assert links.told(ListRecipe(words=True, exponent=2.0)) == {"exponent": "2.0", "words": "true"}


def test_what_a_link_does_not_say_is_as_on_the_page_it_opens():
    assert read("") == (OPENING, USUAL)
    assert read("feature=3&utm_source=mail") == (VectorRecipe(sae="demo/hook_embed", feature=3), USUAL)
    assert read("cutoff=1e-3") == (OPENING, TreeRecipe(cutoff=1e-3))
    assert read("prompt=meaning") == (OPENING, TreeRecipe(prompt='The meaning of "{ghost}" is "'))
    # Of another SAE the opening feature says nothing.
    assert read("sae=a/b") == (VectorRecipe(sae="a/b", feature=0), USUAL)


def test_of_a_parameter_that_is_told_twice_the_last_counts():
    assert read("feature=3&feature=4")[0].feature == 4


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("feature=many", "feature"), ("feature=-1", "feature"), ("feature=1.5", "feature"), ("scale=nan", "scale"),
        ("cutoff=2", "cutoff"), ("pca=0.1,x", "pca"), ("stop=maybe", "stop"), ("weights=all", "weights"),
        ("chat=1", "chat"), ("answer=It+is", "chat is off"), ("prompt=no+place", "prompt"),
        ("max_nodes=1e9", "max_nodes"), ("sae=", "sae"), ("feature=1&x=" + "a" * 20_000, "This link has 20,012 "),
    ],
)
def test_a_link_with_a_value_that_cannot_be_is_refused(text, message):
    with pytest.raises(UserError, match=message):
        read(text)


def test_a_text_that_makes_a_link_too_long_has_none():
    assert len(links.query({"text": "a" * 3_990})) < links.LONGEST
    with pytest.raises(UserError, match="would have 18,005 characters, and can have 4,000"):
        links.query({"text": "語" * 2_000})


def test_a_vector_of_ones_own_is_in_no_link():
    own = VectorRecipe.from_vector([1.0, 2.0], model="a/model", name="probe")
    with pytest.raises(UserError, match="A link cannot carry a vector of your own"):
        links.told(own)
    assert read("feature=3&vector=1,2&vector_name=probe") == (VectorRecipe(sae="demo/hook_embed", feature=3), USUAL)
