"""What stands above results: what they were made from, and whether the controls still show that."""

import json
from functools import reduce
from html import escape
from operator import or_

import gradio as gr
import pytest

from multitool.errors import UserError
from multitool.page.common import event
from multitool.page.component_controls import COMPONENTS
from multitool.page.growth_controls import tree_values
from multitool.page.recipe_controls import recipes_shown
from multitool.page.result import Done, Made, Result, Views, as_shown, heading
from multitool.page.view import View
from multitool.recipes.recipe import TreeRecipe, VectorRecipe

RAIN = {
    "sae": "demo/hook_embed", "feature": "927", "weights": "encoder", "encoder_share": 0.5, "tokens": "",
    "centroid": True, "usual_scale": True, "scale": 2.39, **dict.fromkeys(COMPONENTS, 0.0),
}  # fmt: skip
GROWTH = tree_values(TreeRecipe())


def result_of(controls, read, nothing, **options):
    """A result of a view whose link tells its one control."""
    view = View("some", lambda value="": {"value": str(value)}, dict, "place")
    views = Views(gr.HTML(), VectorRecipe(sae="demo/hook_embed", feature=927))
    return Result("some", controls, read, nothing, view=view, views=views, **options)


def shown(**changed):
    """What the controls of a tree show, where some have changed."""
    return as_shown(recipes_shown, RAIN | GROWTH | changed)


def test_controls_show_the_same_if_they_make_the_same_recipe():
    assert shown() == (VectorRecipe(sae="demo/hook_embed", feature=927, weights="encoder"), TreeRecipe())
    for same in (shown(feature=" 927"), shown(encoder_share=0.7), shown(tokens="king"), shown(scale=5.0),
                 shown(answer="not seen", cutoff="0.00005")):
        assert same == shown()
    for other in (shown(feature="928"), shown(weights="mix"), shown(centroid=False), shown(usual_scale=False),
                  shown(component_8=0.1), shown(**tree_values(TreeRecipe(clamp=1)))):
        assert other != shown()
    assert shown(weights="mix", encoder_share=0.7) != shown(weights="mix")


def test_controls_that_make_no_recipe_are_like_no_others_but_themselves():
    assert shown(feature="x") != shown()
    assert shown(feature="x") == shown(feature="x") != shown(feature="y")


def test_a_heading_is_text_and_says_when_the_controls_have_changed():
    assert heading(None) == ""
    made = Made("<b>\n" + "x" * 500, None)
    assert "&lt;b&gt;\\n" in heading(made) and len(heading(made)) < 700
    assert "the controls have changed" not in heading(made)
    assert "the controls have changed" in heading(made, changed=True)


def test_a_failure_clears_a_result_of_other_controls_and_leaves_one_of_the_same():
    def fails(value):
        yield {"title": "Begun"} if value == "begun" else {}
        raise UserError("No.")

    with gr.Blocks():
        result = result_of({"value": gr.Textbox()}, lambda value: (value,), lambda words: {"why": words})

    def answers(made, value) -> list:
        found = []
        with pytest.raises(UserError, match="No."):
            for answer in result.making(fails)(made, value=value):
                found.append(answer)
        *found, whole = found
        assert whole.pop("done").anew and whole == reduce(or_, found)
        return found

    first, cleared = {"problem": ""}, {"why": "No.", "made": None, "title": ""}
    assert answers(None, 1) == [first, cleared]
    assert answers(Made("", (2,)), 1) == [first, cleared]
    told = {"problem": "<p>No.</p>"}  # beside the result that stays
    assert answers(Made("", (1,)), 1) == [first, told]
    begun = Made("Begun", ("begun",), {"value": "begun"})
    where = json.dumps({"view": "some", "query": "view=some&value=begun"})
    assert answers(None, "begun") == [first | {"made": begun, "title": heading(begun), "address": where}, told]


def test_errors_call_controls_by_their_labels_and_are_text():
    def fails(value):
        raise UserError("inject_layer is '<b>'; set inject_layer to -1, top_k stays.")
        yield

    with gr.Blocks():
        controls = {"inject_layer": gr.Number(label="Inject after layer")}
        result = result_of(controls, lambda inject_layer: (inject_layer,), lambda words: {"why": words})
    told = "“Inject after layer” is '<b>'; set “Inject after layer” to -1, top_k stays."
    assert next(result.making(fails)(None, inject_layer=1))["why"] == told
    problem = next(result.making(fails)(Made("", (1,)), inject_layer=1))["problem"]
    assert problem == f"<p>{escape(told)}</p>"


def test_a_result_without_a_title_is_none():
    with gr.Blocks():
        result = result_of({"value": gr.Textbox()}, lambda value: (value,), lambda words: {})
    told, last = result.making(lambda value: iter([{"title": ""}]))(Made("", (1,)), value=1)
    assert told == {"problem": "", "made": None, "title": ""}
    assert last.pop("done").anew and last == told


def test_each_time_something_is_done_is_another():
    assert Done(anew=True) != Done(anew=True)


def test_a_result_tells_its_link_or_why_it_has_none():
    def told(value, beside):
        return {"value": value} | ({"beside": beside} if beside else {})

    with gr.Blocks():
        views = Views(gr.HTML(), VectorRecipe(sae="demo/hook_embed", feature=927))
        result = Result(
            "some", {"value": gr.Textbox()}, lambda value: (value,), lambda words: {},
            view=View("some", told, dict, "place"), views=views, link="Link to it", extras={"beside": gr.State("")},
        )
    assert views.results == {"some": result}

    def answer(value, beside) -> dict:
        making = result.making(lambda value: iter([{"title": "Made"}]))
        return next(making(None, value=value, beside=beside))

    one = answer("a b", "")
    assert one["link"] == "?view=some&value=a+b"
    assert json.loads(one["address"]) == {"view": "some", "query": "view=some&value=a+b"}
    assert answer("a", "x=1&y=2")["link"] == "?view=some&value=a&beside=x%3D1%26y%3D2"
    long = answer("a" * 5000, "")
    assert "can have 4,000 at most: the text is too long" in long["link"]
    assert json.loads(long["address"])["query"] == "view=some", "it leads to the tab, and claims no more"


def test_a_stream_that_tells_nothing_leaves_all_as_it_is():
    with gr.Blocks():
        nothing = event(lambda: (yield from ()), {}, {"title": gr.HTML(), "made": gr.State()})["fn"]
    assert list(nothing()) == [gr.skip()]
