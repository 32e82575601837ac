"""What the page shows of steering and of settings that were tried, and what it makes of what is typed."""

from types import SimpleNamespace

import pytest

from multitool.errors import UserError
from multitool.jobs.candidates import Candidate
from multitool.jobs.continuation import SteeredText, SteeredTexts
from multitool.jobs.suggest import Setting
from multitool.jobs.trials import Figures
from multitool.page.steer_tab import steering_asked
from multitool.page.steered_html import steered_cards
from multitool.page.trials_html import trials_table
from multitool.recipes.continuation import SteerRecipe
from multitool.recipes.recipe import TreeRecipe, VectorRecipe

SHOWN = {
    "sae": "demo/hook_embed", "feature": "927", "text": "It was", "strengths": "-0.4, 0.8", "temperature": 0, "seed": 7,
    "length": 12,
}


@pytest.mark.parametrize("strengths", ["-0.4, 0.8", "−0.4 0.8", "-0.4;0.8", " -.4,, +0.8 "])
def test_strengths_are_read_as_people_write_them(strengths):
    vector, recipe = steering_asked(**SHOWN | {"strengths": strengths})
    assert vector == VectorRecipe(sae="demo/hook_embed", feature=927)
    assert recipe == SteerRecipe(text="It was", strengths=(-0.4, 0.8), length=12), "without drawing a seed counts not"
    assert steering_asked(**SHOWN | {"temperature": 0.5})[1].seed == 7


@pytest.mark.parametrize("strengths, sentence", [("", "a list of 1 to 8 numbers"), ("0.4 much", "is 'much'")])
def test_strengths_that_are_none_are_refused(strengths, sentence):
    with pytest.raises(UserError, match=sentence):
        steering_asked(**SHOWN | {"strengths": strengths})


def told(strength: float, *tokens: str, **more) -> SteeredText:
    return SteeredText(strength, tokens, tuple(range(len(tokens))), **{"ended": False} | more)


def texts(*continuations: SteeredText, text: str = "It was") -> SteeredTexts:
    return SteeredTexts({"text": text}, continuations, {}, True)


def test_a_card_for_each_strength_shows_text_caution_and_what_fires():
    judged = {"log_probability": -1.25, "repetition": 0.5}
    html = steered_cards(texts(
        told(0, " a", " day", ended=True, activations=(0.0, 0.0), log_probability=-1.0, repetition=0.0),
        told(-0.4, " rain", " <b>", activations=(2.0, 0.0), caution="It repeats itself.", **judged),
        text="It <i>was</i>",
    ))
    first, second = html.split("<section")[1:]
    assert "<h3>Unsteered</h3>" in first and "<h3>−0.4</h3>" in second
    assert 'class="unsteered"' in first and 'class="away"' in second
    assert "It &lt;i&gt;was&lt;/i&gt;" in first and "&lt;b&gt;" in second and "<b>" not in html
    assert '<mark style="--fires: 1.000"' in second and "<mark" not in first
    assert "■" in first and "…" in second
    assert "It repeats itself." in second and "caution" not in first
    assert "−1.25 nats a token" in second and "50% repeated" in second
    assert steered_cards(None) == steered_cards(texts()) == ""


def test_while_it_is_written_there_are_no_figures_and_a_long_text_shows_its_end():
    html = steered_cards(texts(told(0, " a"), told(2, " b"), text="x" * 500 + " the end"))
    assert "nats" not in html and "Marked" not in html and "mark" not in html
    assert "… " in html and " the end" in html and "x" * 200 not in html


def test_settings_are_rows_to_be_chosen():
    figures = Figures(hit_rate=0.5, auroc=0.75, rank=2.0, found=0.9, list_average_precision=None, list_auroc=None)
    trial = SimpleNamespace(candidate=Candidate("decoder", 0.7), choosing=figures, judged=figures)
    setting = Setting(trial, VectorRecipe(sae="s/s", feature=1), TreeRecipe(), ("<i>rain</i>", "the …"))
    html = trials_table([setting, setting])
    assert html.count("<tr data-number=") == html.count("<button") == 2
    assert "&lt;i&gt;rain&lt;/i&gt; · the …" in html and "decoder, 0.7" in html
    assert 'aria-label="2: decoder' in html and "–" in html
    assert trials_table([]) == ""
