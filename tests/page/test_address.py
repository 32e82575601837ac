"""The page's address: where a link leads, what it makes, and what is told of where the page is."""

import json
from functools import partial
from types import SimpleNamespace

import gradio as gr
import pytest

from multitool.errors import UserError
from multitool.page.address import Address, views_followed
from multitool.page.result import Made, Result
from multitool.page.view import View
from multitool.recipes.recipe import VectorRecipe


def as_shown(**values) -> tuple:
    if values["feature"] == "many":
        raise UserError("feature is 'many'; it must be a whole number.")
    return tuple(sorted(values.items()))


def told(**values) -> dict:
    as_shown(**values)
    return dict(values)


def values(parameters, names) -> dict:
    return told(**{name: parameters[name] for name in names if name in parameters})


def leads(parameters) -> bool:
    return "text" in parameters


@pytest.fixture
def page():
    """An address with two views that share a control, as made up here."""

    def build(*, zero_gpu=False, kept=()):
        with gr.Blocks() as blocks:
            views = views_followed(VectorRecipe(sae="demo/hook_embed", feature=927))
            feature = gr.Textbox("927", label="Feature", max_length=10)
            text = gr.Textbox("", label="Text", max_length=30)
            tabs = gr.Tabs()
            for name, controls in (("tree", {"feature": feature}), ("text", {"feature": feature, "text": text})):
                view = View(
                    name, told, partial(values, names=tuple(controls)), f"{name}-place", f"Make {name}",
                    leads if name == "text" else lambda parameters: True, lambda feature="", text="": feature in kept,
                )
                Result(name, controls, as_shown, lambda words: {}, view=view, views=views)
            address = Address(SimpleNamespace(settings=SimpleNamespace(zero_gpu=zero_gpu)), views)
            address.connect(blocks, tabs)
        return address

    return build


def made(**values) -> Made:
    return Made("It", as_shown(**values), values)


NOTHING = {"tree made": None, "text made": None}


def where(answer: dict) -> dict:
    return json.loads(answer["address"])


def test_a_link_fills_the_controls_opens_the_tab_and_has_its_result_made(page):
    answer = page().followed("?view=text&feature=3&text=a+b", 0, **NOTHING)
    assert where(answer) == {
        "view": "text", "query": "view=text&feature=3&text=a+b", "bare": False, "empty": False, "number": 0,
    }
    assert answer["tabs"].selected == "text"
    assert (answer["tree feature"], answer["text text"]) == ("3", "a b")
    assert answer["text asked"] > 0 and "tree asked" not in answer
    tree = page().followed("?feature=3", 0, **NOTHING)
    assert where(tree)["query"] == "feature=3" and tree["tabs"].selected == "tree"
    assert tree["tree asked"] != answer["text asked"], "each is another one, so that it is a change"


def test_a_link_to_a_tab_makes_nothing(page):
    answer = page().followed("?view=text&feature=3", 0, **NOTHING)
    assert where(answer)["empty"] and "text asked" not in answer and answer["tree feature"] == "3"


def test_a_page_that_opens_without_a_link_stays_as_it_is_and_is_gone_back_to(page):
    opened = page().followed("?__theme=dark&utm_source=mail", 0, **NOTHING)
    assert opened.keys() == {"address"}
    assert where(opened) == {"view": "tree", "query": "feature=927", "bare": True, "empty": False, "number": 0}
    back = page().followed("", 3, **NOTHING | {"tree made": made(feature="3")})
    assert (where(back)["bare"], where(back)["number"]) == (True, 3)
    assert back["tree feature"] == "927" and "tree asked" in back


def test_what_is_there_is_not_made_again(page):
    states = NOTHING | {"tree made": made(feature="3")}
    answer = page().followed("?feature=3", 2, **states)
    assert answer["tree feature"] == "3", "the controls may have changed since"
    assert "tree asked" not in answer
    assert "tree asked" in page().followed("?feature=4", 2, **states)


@pytest.mark.parametrize(
    ("link", "name", "message"),
    [
        ("?feature=many", "tree", "feature is 'many'"),
        ("?view=%3Cb%3E&feature=3", "tree", "view is '<b>'; valid are tree, text."),
        ("?feature=12345678901", "tree", "at most 10 characters"),
        ("?view=text&feature=1&text=" + "x" * 31, "text", "“Text” is"),
        ("?feature=1&x=" + "x" * 20_000, "tree", "it can have 16,000 at most"),
    ],
)
def test_a_link_that_cannot_be_followed_is_told_and_leaves_no_result(page, link, name, message, monkeypatch):
    told = []
    monkeypatch.setattr(gr, "Warning", lambda text, **_: told.append(text))
    answer = page().followed(link, 0, **NOTHING)
    assert message in answer[f"{name} refused"][1]
    assert answer.keys() == {"address", "tabs", f"{name} refused"}
    assert where(answer)["query"] is None, "the address says what it said"
    assert len(told) == 1 and "<b>" not in told[0]


def test_where_the_models_time_is_the_visitors_a_link_alone_spends_none_of_it(page):
    def asked(link, number=0, **options):
        answer = page(zero_gpu=True, **options).followed(link, number, **NOTHING)
        assert answer["tree feature"] == "3", "the feature is there, with what is known of it"
        assert ("tree asked" in answer) != ("tree refused" in answer)
        return "tree asked" in answer or answer["tree refused"][1]

    assert asked("?feature=3").endswith("Press “Make tree” to see it.")
    assert asked("?feature=3&grow=0") is not True
    assert asked("?feature=3&grow=1") is True
    assert asked("?feature=3", number=1) is True, "who goes back has asked for it"
    assert asked("?feature=3", kept=("3",)) is True, "what is kept costs nothing"
    assert where(page(zero_gpu=True).followed("?feature=3&grow=1", 0, **NOTHING))["query"] == "feature=3"


def test_a_tab_that_is_opened_is_in_the_address_with_its_result(page):
    shown = {"tree feature": "3", "text text": "a"}

    def opened(name, **states):
        return json.loads(page().tab_opened(name, **NOTHING | shown | states))

    assert opened("text") == {"view": "text", "query": "view=text&feature=3", "tab": True, "empty": True}
    there = {"text made": made(feature="3", text="a")}
    assert opened("text", **there) == {
        "view": "text", "query": "view=text&feature=3&text=a", "tab": True, "empty": False,
    }
    assert opened("text", **there, **{"tree feature": "4"})["empty"], "the next result takes the place of a greyed one"
    assert opened("about") == {"view": "about", "query": "view=about", "tab": True, "empty": True}
