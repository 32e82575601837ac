"""What stands above results: what they were made from, and whether the controls still show that."""

import pytest

from multitool.errors import UserError
from multitool.page.growth import growth_values, recipes_shown
from multitool.page.result_title import Made, as_shown, cleared_on_error, heading
from multitool.recipes.recipe import TreeRecipe, VectorRecipe

RAIN = ["demo/hook_embed", "927", "encoder", 0.5, "", True, True, 2.39, *[0.0] * 8]
GROWTH = growth_values(TreeRecipe())


def shown(growth=GROWTH, **changed):
    """What the controls of a tree show, where some of the feature's have changed, by their places."""
    values = [changed.get(f"at_{place}", value) for place, value in enumerate(RAIN)]
    return as_shown(recipes_shown, [*values, *growth])


def test_controls_show_the_same_if_they_make_the_same_recipe():
    assert shown() == (VectorRecipe(sae="demo/hook_embed", feature=927, weights="encoder"), TreeRecipe())
    for same in (shown(at_1=" 927"), shown(at_3=0.7), shown(at_4="king"), shown(at_7=5.0),
                 shown([*GROWTH[:2], "not seen", *GROWTH[3:4], "0.00005", *GROWTH[5:]])):
        assert same == shown()
    for other in (shown(at_1="928"), shown(at_2="mix"), shown(at_5=False), shown(at_6=False), shown(at_15=0.1),
                  shown(growth_values(TreeRecipe(clamp=1)))):
        assert other != shown()
    assert shown(at_2="mix", at_3=0.7) != shown(at_2="mix")


def test_controls_that_make_no_recipe_are_like_no_others_but_themselves():
    assert shown(at_1="x") != shown()
    assert shown(at_1="x") == shown(at_1="x") != shown(at_1="y")


def test_a_heading_is_text_and_says_when_the_controls_have_changed():
    assert heading(None) == ""
    made = Made("<b>\n" + "x" * 500, None)
    assert "&lt;b&gt;\\n" in heading(made) and len(heading(made)) < 700
    assert "the controls have changed" not in heading(made)
    assert "the controls have changed" in heading(made, changed=True)


def test_a_failure_clears_a_result_of_other_controls_and_leaves_one_of_the_same():
    def fails(*values):
        yield {"made": Made("", values)} if values[0] == "begun" else {}
        raise UserError("No.")

    def answers(made, *values) -> list:
        found = []
        with pytest.raises(UserError, match="No."):
            for answer in cleared_on_error(lambda *values: values, lambda words: {"why": words}, fails)(made, *values):
                found.append(answer)
        return found

    assert answers(None, 1) == [{}, {"why": "No."}]
    assert answers(Made("", (2,)), 1) == [{}, {"why": "No."}]
    assert answers(Made("", (1,)), 1) == [{}]
    assert answers(None, "begun") == [{"made": Made("", ("begun",))}]
