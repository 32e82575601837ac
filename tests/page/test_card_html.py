"""A feature's card as HTML: what is known is told, what is not is left out, and all of it is text."""

import re

from multitool.jobs.feature_card import FeatureCard, Firing, Histogram, Neighbour, Reading, Written
from multitool.page.card_html import card_html
from multitool.store.saes import Context

HOSTILE = "<img src=x onerror=alert(1)>"
BARE = FeatureCard("demo/sae", 3, "model")
FULL = FeatureCard(
    "demo/sae", 3, "model",
    contexts=tuple(Context(f"line {n}\n", "dog", " barks", 2.0) for n in range(6)), contexts_of="some texts",
    strongest=(Firing(" dog", 3.0),), written=Written("logit lens", (Firing(" cat", 1.5),), (Firing(" tax", -2.0),)),
    histogram=Histogram("100 tokens of prose", 100, 3, 2.0, (1, 0, 2)), nearest=(Neighbour(17, 0.25, "cats, dogs"),),
    described="a pet", label="animals", page="https://neuronpedia.org/m/s/3",
)


def words(html: str) -> str:
    return " ".join(re.sub("<[^>]+>", " ", html).split())


def test_all_parts_are_told():
    html = card_html(FULL, Reading(("a dog", "a pet"), False, 2, 4))
    told = words(html)
    for part in (
        "demo/sae · feature 3", "The model reads this feature as: a dog, a pet. It fires on 2 of its 4 likeliest",
        "Neuronpedia’s label: animals", "line 0↵ dog barks 2", "Tokens alone dog", "Writes logit lens cat",
        "Writes less tax", "How often on 3% of 100 tokens of prose", "17 0.25 cats, dogs",
    ):
        assert part in told, part
    assert '<button type="button" data-number="17"' in html
    assert list(re.findall(r"height: (\d+)px", html)) == ["13", "0", "26"]
    seen, folded = html.split("<details>")
    assert seen.count("<mark>") == 4 and folded.count("<mark>") == 2
    assert "line 4↵" in words(folded) and "iframe" in folded and "iframe" not in seen
    assert "Known of it" not in told


def test_without_a_tree_the_atlas_speaks_and_what_is_not_known_is_left_out():
    assert "Known of it: a pet" in words(card_html(FULL))
    assert words(card_html(BARE)) == "demo/sae · feature 3"
    assert "Reading plain prose" in words(card_html(BARE, words="Reading plain prose"))
    assert "None of" not in words(card_html(BARE))
    silent = FeatureCard("s/e", 1, "m", histogram=Histogram("9 tokens", 9, 0, 0.0, (0, 0)))
    assert "on none of 9 tokens" in words(card_html(silent))


def test_tokens_alone_stand_in_a_line_once():
    embedding = FeatureCard("s/e", 1, "m", contexts=(Context("", "rain", "", 1.0),), strongest=(Firing(" rain", 1.0),))
    assert words(card_html(embedding)).count("rain") == 1
    assert '<ul class="tokens">' in card_html(embedding)


def test_everything_is_escaped():
    card = FeatureCard(
        f"{HOSTILE}/s", 3, HOSTILE, (Context(HOSTILE, HOSTILE, HOSTILE, 1.0),), HOSTILE, (Firing(HOSTILE, 1.0),),
        Written(HOSTILE, (Firing(HOSTILE, 1.0),), (Firing(HOSTILE, 1.0),)), Histogram(HOSTILE, 1, 1, 1.0, (1,)),
        (Neighbour(1, 0.5, HOSTILE),), HOSTILE, HOSTILE, f'https://neuronpedia.org/"{HOSTILE}',
    )
    for html in (card_html(card, words=HOSTILE), card_html(card, Reading((HOSTILE,), False))):
        assert "<img" not in html and "&lt;img src=x" in html
