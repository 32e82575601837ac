"""What the tab “Find” makes of what is typed, how it shows what was found, and which tree a row brings."""

import re
from dataclasses import replace
from types import SimpleNamespace

import gradio as gr
import pytest

from multitool.errors import UserError
from multitool.jobs.find import FoundFeature, FoundFeatures, TokenFires
from multitool.page.find_tab import _found, _token_chosen, _with_number, row_chosen, search_asked
from multitool.page.found_html import WHOLE, feature_table, text_tokens
from multitool.page.tree_tab import _chosen
from multitool.page.turns import Turns
from multitool.recipes.atlas import AtlasSearch
from multitool.recipes.finding import LikenessSearch, TextSearch, TokenSearch
from multitool.store.library import Library

EMBED, LAYER_6 = "demo/hook_embed", "demo/blocks.6.hook_resid_post"
OPENED = {
    "sae": EMBED, "words": "", "way": "fits", "measure": "cosine", "weights": "suits", "by": "decoder", "others": True,
    "verdict": "any", "max_entropy": "any", "min_cosine": "any", "only": False,
}
NEAR = FoundFeatures(
    "tokens", ("cosine", "fires_on"), (
        FoundFeature(EMBED, 927, {"cosine": 0.50172, "fires_on": 1}, "rain, rains"),
        FoundFeature(EMBED, 3, {"cosine": 1234.5, "fires_on": 12345}, "<img src=x onerror=alert(1)>\n"),
    ), {"sae": EMBED}, "Near to rain.",
)
ON_TEXT = FoundFeatures(
    "text", ("above_prose", "prose"), (FoundFeature(EMBED, 927, {"above_prose": 3.0, "prose": 1.0}, "rain"),),
    {"sae": EMBED}, "On a text.", (
        TokenFires("<b>\n", [(267, 9.0)]), TokenFires(" rain", [(927, 4.0), (267, 9.0)]), TokenFires(" a", []),
        TokenFires(" wind", [(927, 2.5)]),
    ),
)


def asked(**shown):
    return search_asked(**OPENED | shown)


@pytest.mark.parametrize(("words", "searches"), [
    ("  ", ()),
    ("king - man + woman", (TokenSearch(sae=EMBED, tokens="king - man + woman"),)),
    ('" rain"', (TokenSearch(sae=EMBED, tokens='" rain"'),)),
    ("#1234", (TokenSearch(sae=EMBED, tokens="#1234"),)),
    (" 927", (LikenessSearch(sae=EMBED, feature=927),)),
    ("It rains.", (TextSearch(sae=EMBED, text="It rains."),)),
    ("ice cream", (TextSearch(sae=EMBED, text="ice cream"),)),
    # A lone word may be no token.
    ("rain", (TokenSearch(sae=EMBED, tokens="rain"), TextSearch(sae=EMBED, text="rain"))),
])
def test_what_fits_words_is_tried(words, searches):
    assert asked(words=words) == searches


def test_of_the_details_only_those_of_the_chosen_way_count():
    changed = {"measure": "activation", "weights": "decoder", "by": "encoder", "others": False, "verdict": "partly",
               "max_entropy": "3", "min_cosine": "0.5", "only": True}
    assert asked(words="It rains.", **changed) == asked(words="It rains.")
    assert asked(way="tokens", words="rain", **changed) == (
        TokenSearch(sae=EMBED, tokens="rain", measure="activation", weights="decoder"),
    )
    assert asked(way="text", words="rain", **changed) == (TextSearch(sae=EMBED, text="rain"),)
    assert asked(way="like", words="927", **changed) == (
        LikenessSearch(sae=EMBED, feature=927, by="encoder", among=(EMBED,)),
    )
    assert asked(way="atlas", **changed) == (
        AtlasSearch(sae=EMBED, verdict="partly", max_entropy=3.0, min_cosine=0.5),
    )
    assert asked(way="atlas", words="rain") == (AtlasSearch(words="rain"),)


@pytest.mark.parametrize(("shown", "sentence"), [
    ({"way": "like", "words": "rain"}, "write the number of one"),
    ({"way": "tokens", "words": "It rains."}, "cannot be read"),
    ({"way": "tokens", "words": "king - man", "measure": "activation"}, "not on a sum"),
    ({"way": "atlas", "max_entropy": "little"}, "Entropy at most is 'little'; it must be a number from 0 to 100"),
    ({"way": "atlas", "min_cosine": "2"}, "Cosine at least is 2.0; it must be a number within ±1"),
    ({"words": "rain", "sae": ""}, "sae is ''"),
])
def test_what_cannot_be_asked_is_refused_in_a_sentence(shown, sentence):
    with pytest.raises(UserError, match=re.escape(sentence)):
        search_asked(**OPENED | shown)


def test_likeness_begins_with_the_feature_that_the_controls_show():
    skipped = gr.skip()
    assert _with_number("like", "rain", "927") == "927"
    assert _with_number("like", "12", "927") == _with_number("text", "rain", "927") == skipped
    assert _with_number("like", "rain", "12 - 45*0.5") == skipped


class Finder:
    """In a service's place: knows one word, and every text."""

    def found_by_tokens(self, search):
        yield "Looking …"
        if search.tokens != "rain":
            raise UserError("No single token.")
        yield NEAR

    def found_by_text(self, search):
        yield ON_TEXT

    def fires_at(self, found, place):
        yield "Looking …"
        yield replace(found, columns=("activation",), features=(FoundFeature(EMBED, 267, {"activation": 9.0}, "and"),))


def test_a_word_that_is_no_token_is_read_as_a_text():
    *_, near = _found(Finder(), *asked(words="rain"))
    assert near["found"] == NEAR and near["tokens"] == "" and near["title"] == f"{EMBED} · near to rain"
    *_, read = _found(Finder(), *asked(words="xylophone"))
    assert read["found"] == ON_TEXT and "read as a text. On a text." in read["status"]
    with pytest.raises(UserError, match="No single token"):
        list(_found(Finder(), *asked(way="tokens", words="xylophone")))
    (nothing,) = _found(Finder())
    assert "Write a word" in nothing["status"] and nothing["found"] is None and nothing["table"] == ""


def test_figures_have_three_digits_and_nothing_that_is_told_acts_as_html():
    html = feature_table(NEAR)
    assert ">0.502<" in html and ">1.23e+03<" in html and ">12,345<" in html
    assert "&lt;img src=x onerror=alert(1)&gt;\\n" in html and "<img" not in html
    assert "<small>" not in html  # all of the SAE that was asked for
    assert f"<small>{EMBED}</small>" in feature_table(replace(NEAR, settings={"sae": None}))  # as of an atlas
    assert html.count("<button") == 2 and 'aria-label="1: feature 927 of demo/hook_embed; grow its tree"' in html
    assert feature_table(None) == feature_table(replace(NEAR, features=())) == ""


def test_what_an_atlas_knows_not_is_a_dash_and_its_verdict_has_a_mark():
    row = FoundFeature(EMBED, 1, {"verdict": "partly", "auroc": None}, "")
    other = FoundFeature("<b>/x", 2, {"verdict": "<b>", "auroc": float("nan")}, "")
    html = feature_table(replace(NEAR, columns=("verdict", "auroc"), features=(row, other)))
    assert ">~ in part<" in html and html.count(">–<") == 2
    assert "<small>&lt;b&gt;/x</small>" in html and ">&lt;b&gt;<" in html


def test_tokens_are_marked_where_the_features_that_are_shown_fire_above_prose():
    html = text_tokens(ON_TEXT)
    assert html.count("<mark") == 2 and "--fires: 1.000" in html and "--fires: 0.500" in html  # 3 and 1.5 above prose
    assert "&lt;b&gt;⏎\n" in html and html.count('tabindex="0"') == 1
    chosen = text_tokens(ON_TEXT, 3)
    assert chosen.count('aria-pressed="true"') == 1 and f'data-number="{WHOLE}"' in chosen and "␣wind" in chosen
    assert text_tokens(NEAR) == text_tokens(None) == ""


def test_a_token_is_chosen_and_left():
    shown = _token_chosen(Finder(), ON_TEXT, 1)
    assert shown["token"] == 1 and ">267<" in shown["table"]
    for number in (WHOLE, 4, "1", None):
        whole = _token_chosen(Finder(), ON_TEXT, number)
        assert whole["token"] is None and ">927<" in whole["table"]
    assert _token_chosen(Finder(), None, 1) == {"tokens": "", "table": "", "token": None}


def test_a_row_tells_its_feature():
    assert row_chosen(NEAR, None, 1) == (EMBED, 3)
    assert row_chosen(ON_TEXT, 1, 1) == (EMBED, 267)
    gone = [(NEAR, None, 2), (NEAR, None, -1), (NEAR, None, "0"), (ON_TEXT, 2, 0), (None, None, 0)]
    for found, token, number in gone:
        with pytest.raises(UserError, match="not there any more"):
            row_chosen(found, token, number)


def test_a_chosen_feature_keeps_the_settings_that_suit_it():
    service = SimpleNamespace(library=Library(device="cpu"))
    found = replace(NEAR, features=tuple(
        FoundFeature(sae, 5, {}, "") for sae in (EMBED, LAYER_6, "gpt2-small-res-jb/blocks.0.hook_resid_pre")
    ))

    def chosen(number, sae=EMBED, weights="decoder"):
        turns = Turns()
        answer = _chosen(service, number, turns=turns, sae=sae, weights=weights, found=found, token=None)
        assert answer.pop("number") == turns.asked == 1 and answer.pop("tabs").selected == "tree"
        answer.pop("status")
        return answer

    assert chosen(0) == {"sae": EMBED, "feature": "5"}
    assert chosen(0, weights="random") == {"sae": EMBED, "feature": "5", "weights": "suits"}
    assert chosen(1) == {"sae": LAYER_6, "feature": "5", "weights": "suits"}
    other = chosen(2)
    assert other["sae"] == "gpt2-small-res-jb/blocks.0.hook_resid_pre" and other["suited"] == "openai-community/gpt2"
    assert other["weights"] == "suits" and other["prompt"]  # all else as that model usually has it
