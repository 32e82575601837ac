"""Every value that cannot be is refused before any work, with its name, itself and what is valid."""

import inspect
import math
import pickle
from dataclasses import MISSING, FrozenInstanceError, asdict, replace
from typing import get_args

import pytest
from tiny import tiny_subject
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from multitool.errors import UserError
from multitool.model.ghost_prompt import ghost_prompt
from multitool.recipes.directions import DIRECTIONS
from multitool.recipes.fields import recipe_fields
from multitool.recipes.recipe import DEFAULT_PROMPT, MEASURES, ListRecipe, TreeRecipe, VectorRecipe, closing_quote

NAN, INF = math.nan, math.inf
HUGE = 10**400  # a whole number that is no float


def vector(**settings) -> VectorRecipe:
    return VectorRecipe(**({"sae": "demo/hook_embed", "feature": 7} | settings))


def refusal(recipe, **settings) -> str:
    with pytest.raises(UserError) as caught:
        recipe(**settings)
    message = str(caught.value)
    assert len(message) < 1000
    return message


def beginning(value) -> str:
    """As much of a value as its refusal must at least show."""
    return repr(value)[:20]


def test_the_defaults_are_the_published_recipe():
    recipe = vector()
    assert (recipe.weights, recipe.encoder_share, recipe.centroid) == (None, 0.5, True)
    assert (recipe.scale, recipe.pca) == (None, ())
    tree = TreeRecipe()
    assert tree.prompt == 'A typical definition of "{ghost}" would be "'
    assert (tree.top_k, tree.cutoff, tree.max_depth, tree.max_nodes, tree.stop) == (5, 5e-5, 25, 2000, True)
    assert (ListRecipe().exponent, ListRecipe().top) == (1.4, 100)


def test_good_values_are_kept():
    recipe = vector(weights="mix", encoder_share=1, centroid=False, scale=2, pca=[0.1, -3])
    assert (recipe.encoder_share, recipe.centroid, recipe.scale, recipe.pca) == (1.0, False, 2.0, (0.1, -3.0))
    tree = TreeRecipe(prompt="{ghost}", top_k=1, cutoff=0.999, max_depth=200, max_nodes=10_000_000, stop=False)
    assert (tree.top_k, tree.cutoff, tree.max_depth, tree.max_nodes, tree.stop) == (1, 0.999, 200, 10_000_000, False)


def test_whole_numbers_may_come_as_json_has_them():
    feature = vector(feature=7.0).feature
    assert (feature, type(feature)) == (7, int)
    assert TreeRecipe(top_k=3.0).top_k == 3


def test_blanks_around_an_saes_name_do_not_matter():
    assert vector(sae=" demo/hook_embed\n").sae == "demo/hook_embed"


def test_a_large_feature_is_left_to_the_sae_that_knows_how_many_it_has():
    assert vector(feature=10**9).feature == 10**9


@pytest.mark.parametrize("value", [-1, 1.5, NAN, INF, "seven", None, True, [7], -(10**30)], ids=str)
def test_a_feature_is_a_whole_number_from_zero(value):
    message = refusal(vector, feature=value)
    assert f"feature is {beginning(value)}" in message
    assert "whole number from 0" in message


def test_a_feature_may_be_several_with_weights_in_one_spelling():
    assert vector(feature=" 7 ").feature == 7
    assert "feature is -1; it must be a whole number" in refusal(vector, feature="-1")
    several = vector(feature="123 - 456*.5")
    assert several.feature == "123*1.0 + 456*-0.5"
    assert vector(feature=several.feature) == several
    assert [(term.feature, term.weight) for term in several.terms] == [(123, 1.0), (456, -0.5)]
    assert [(term.feature, term.weight) for term in vector(feature=5).terms] == [(5, 1.0)]
    assert vector(feature=5).single_feature() == 5
    with pytest.raises(UserError, match="Evidence is about one feature"):
        several.single_feature()
    for weights in ("random", "centroid"):
        assert "take nothing of a feature" in refusal(vector, feature="1 + 2", weights=weights)


@pytest.mark.parametrize("value", [0, 0.0, -3.8, NAN, INF, "3.8", True, [], HUGE], ids=lambda v: str(v)[:8])
def test_a_scale_is_a_number_above_zero(value):
    message = refusal(vector, scale=value)
    assert f"scale is {beginning(value)}" in message
    assert "above 0" in message


def test_a_scale_that_is_too_large_is_told_the_limit():
    # "10000000.0 must be above 0" would leave the reader puzzled.
    assert any(limit in refusal(vector, scale=1e7) for limit in ("1e6", "1e+06", "1,000,000", "1000000 "))


@pytest.mark.parametrize("value", [-0.1, 1.1, NAN, "0.5", None, True, HUGE], ids=lambda v: str(v)[:8])
def test_an_encoder_share_is_a_number_from_zero_to_one(value):
    message = refusal(vector, encoder_share=value)
    assert f"encoder_share is {beginning(value)}" in message
    assert "from 0 to 1" in message


@pytest.mark.parametrize("value", ["Encoder", "", "both", 1, ["encoder"], {}], ids=str)
def test_weights_are_one_of_the_kinds_of_direction(value):
    message = refusal(vector, weights=value)
    assert f"weights is {beginning(value)}" in message
    assert "encoder, decoder, mix, vocabulary, mapped" in message


@pytest.mark.parametrize("weights", [None, *(kind for kind in DIRECTIONS if kind != "tokens")])
def test_weights_that_there_are_are_kept_and_none_leaves_them_to_the_sae(weights):
    assert vector(weights=weights).weights == weights


def test_tokens_go_with_their_own_weights_only():
    assert vector(weights="tokens", tokens=" king  -  man ").tokens == "king - man"
    for weights in (None, "encoder"):
        assert "goes with the weights tokens only" in refusal(vector, weights=weights, tokens="king")
    for value in ("", "king man", 5, None):
        assert f"tokens is {beginning(value)}" in refusal(vector, weights="tokens", tokens=value)
    by_tokens = vector(weights="tokens", tokens="king", scale=2)
    assert by_tokens.by("decoder", scale=3) == vector(weights="decoder", scale=3)
    assert by_tokens.by("tokens") == by_tokens


@pytest.mark.parametrize("value", ["Score", "", None, 1, True, ["score"], {}, {"score"}], ids=str)
def test_a_list_is_ordered_by_one_of_the_measures(value):
    message = refusal(ListRecipe, measure=value)
    assert f"measure is {beginning(value)}" in message
    assert "score, cosine, dot, logit_lens, jacobian_lens, activation" in message


@pytest.mark.parametrize("measure", MEASURES)
def test_measures_that_there_are_are_kept_and_the_score_is_the_default(measure):
    assert ListRecipe(measure=measure, words=True).measure == measure
    assert ListRecipe().measure == "score"


@pytest.mark.parametrize("value", [0, 1, "true", None], ids=str)
@pytest.mark.parametrize("name", ["negative", "words"])
def test_the_other_end_and_only_words_are_true_or_false(name, value):
    message = refusal(ListRecipe, **{name: value})
    assert f"{name} is {beginning(value)}" in message
    assert "true or false" in message


def test_every_measure_but_the_activation_has_another_end():
    for measure in MEASURES:
        if measure != "activation":
            assert ListRecipe(measure=measure, negative=True).negative
    message = refusal(ListRecipe, measure="activation", negative=True)
    assert "negative is true and measure is 'activation'" in message
    assert "Choose another measure" in message


@pytest.mark.parametrize("value", [0, 1, "true", None], ids=str)
def test_centroid_is_true_or_false(value):
    message = refusal(vector, centroid=value)
    assert f"centroid is {beginning(value)}" in message
    assert "true or false" in message


@pytest.mark.parametrize("value", [0.2, "0.2", None, {0.2}], ids=str)
def test_component_weights_are_a_list(value):
    message = refusal(vector, pca=value)
    assert f"pca is {beginning(value)}" in message
    assert "list" in message


@pytest.mark.parametrize("value", [NAN, INF, "x", None, True, 1e7, HUGE], ids=lambda v: str(v)[:8])
def test_a_component_weight_is_a_number(value):
    message = refusal(vector, pca=[0.1, value])
    assert "pca" in message
    assert beginning(value) in message


@pytest.mark.parametrize("value", ["", "  ", None, 5, ["demo/hook_embed"]], ids=str)
def test_an_sae_is_a_name(value):
    message = refusal(vector, sae=value)
    assert f"sae is {beginning(value)}" in message
    assert "RELEASE/SAE_ID" in message


@pytest.mark.parametrize("value", [0, 1, -1e-5, 1.5, NAN, INF, "5e-5", None, True, HUGE], ids=lambda v: str(v)[:8])
def test_a_cutoff_lies_between_zero_and_one(value):
    message = refusal(TreeRecipe, cutoff=value)
    assert f"cutoff is {beginning(value)}" in message
    assert "between 0 and 1" in message


@pytest.mark.parametrize("value", [0, -1, 1.5, NAN, "5", None, True, HUGE], ids=lambda v: str(v)[:8])
@pytest.mark.parametrize(("name", "most"), [("top_k", 100), ("max_depth", 200), ("max_nodes", 10_000_000)])
def test_limits_are_whole_numbers_in_a_range(name, most, value):
    least = 0 if name == "top_k" else 1  # 0: all that reach the cutoff
    value = least - 1 if value == 0 and value is not False else value
    message = refusal(TreeRecipe, **{name: value})
    assert f"{name} is {beginning(value)}" in message
    assert f"from {least} to {most}" in message
    assert f"{name} is {most + 1}" in refusal(TreeRecipe, **{name: most + 1})


@pytest.mark.parametrize("value", ["yes", 1, None], ids=str)
def test_stop_is_true_or_false(value):
    message = refusal(TreeRecipe, stop=value)
    assert f"stop is {beginning(value)}" in message
    assert "true or false" in message


@pytest.mark.parametrize(
    ("prompt", "times"),
    [("", 0), ("What is a dog?", 0), ("{Ghost}", 0), ("{ghost} and {ghost}", 2), ("{ghost}" * 3, 3), (None, 0), (5, 0)],
)
def test_a_prompt_holds_the_ghost_exactly_once(prompt, times):
    message = refusal(TreeRecipe, prompt=prompt)
    assert f"prompt is {beginning(prompt)}" in message
    assert f"{times} times" in message
    assert "exactly once" in message
    assert DEFAULT_PROMPT in message


@pytest.mark.parametrize("value", [0, -1, NAN, INF, "1.4", None, 101, True, HUGE], ids=lambda v: str(v)[:8])
def test_an_exponent_is_a_number_above_zero(value):
    message = refusal(ListRecipe, exponent=value)
    assert f"exponent is {beginning(value)}" in message
    assert "above 0 and at most 100" in message


@pytest.mark.parametrize("value", [0, -5, 10_001, 2.5, "100", None, True], ids=str)
def test_a_lists_length_is_a_whole_number_in_a_range(value):
    message = refusal(ListRecipe, top=value)
    assert f"top is {beginning(value)}" in message
    assert "from 1 to 10000" in message


@pytest.mark.parametrize(
    ("prompt", "quote"),
    [
        ('is "', '"'),
        ('is " ', '"'),
        ("is '", "'"),
        ("is “", "”"),
        ("ist „", "“"),
        ("est «", "»"),
        ("は「", "」"),
        ("is `", "`"),
        ("is", None),
        ("is:", None),
        ("", None),
    ],
)
def test_the_quote_that_closes_is_the_partner_of_the_one_left_open(prompt, quote):
    assert closing_quote(prompt) == quote


@pytest.mark.parametrize(
    ("recipe", "name"),
    [
        *((vector, name) for name in ("sae", "weights", "tokens", "pca", "scale")), (TreeRecipe, "prompt"),
        (ListRecipe, "measure"),
    ],  # fmt: skip
)
def test_a_very_long_value_is_not_repeated_whole(recipe, name):
    value = " " * 100_000 if name == "sae" else "x" * 100_000
    assert name in refusal(recipe, **{name: value})


@pytest.mark.parametrize(
    ("recipe", "settings", "said"),
    [
        (TreeRecipe, {"prompt": "x" * 1991 + '"{ghost}"'}, "with 2,000 characters"),
        (TreeRecipe, {"prompt": "word " * 2000 + '"{ghost}" "'}, "with 10,011 characters; it must be a text"),
        (TreeRecipe, {"prompt": '\ud800 "{ghost}"'}, "half a surrogate pair"),
        (TreeRecipe, {"chat": True, "answer": "x" * 2001}, "answer is 'xxx"),
        (TreeRecipe, {"chat": True, "answer": "\ud800"}, "half a surrogate pair"),
        (vector, {"sae": "x" * 4097}, "name one as RELEASE/SAE_ID"),
        (vector, {"sae": "\ud800"}, "half a surrogate pair"),
        (vector, {"pca": [0.1] * 20_001}, "it must be a list of at most 20,000 component weights"),
        (vector, {"weights": "tokens", "tokens": "a + " * 600 + "a"}, "at most 2,000 characters"),
        (vector, {"feature": "1 + " * 600 + "1"}, "at most 2,000 characters"),
    ],
    ids=lambda value: str(value)[:24],
)
def test_what_takes_work_in_proportion_to_its_length_is_bounded(recipe, settings, said):
    if "with 2,000 characters" in said:  # the longest there may be
        recipe(**settings)
        return
    message = refusal(recipe, **settings)
    assert said in message and len(message) < 600


# How fields are declared


@pytest.mark.parametrize(
    ("recipe", "settings", "sentence"),
    [
        (vector, {"sae": 5}, "sae is 5; name one as RELEASE/SAE_ID, e.g. demo/hook_embed."),
        (vector, {"feature": -1}, "feature is -1; it must be a whole number from 0 up."),
        (vector, {"weights": "both"},
         "weights is 'both'; valid are encoder, decoder, mix, vocabulary, mapped, pullback, tokens, random, centroid."),
        (vector, {"encoder_share": 2}, "encoder_share is 2; it must be a number from 0 to 1."),
        (vector, {"tokens": 5}, "tokens is 5; it must be a text, e.g. king - man + woman."),
        (vector, {"centroid": 1}, "centroid is 1; it must be true or false."),
        (vector, {"scale": 0}, "scale is 0; it must be a number above 0 and at most 1e6."),
        (vector, {"pca": 0.2}, "pca is 0.2; it must be a list of at most 20,000 component weights, e.g. [0.2, 0.1]."),
        (vector, {"pca": [0.1, "x"]}, "a weight in pca is 'x'; it must be a number within ±1e6."),
        (TreeRecipe, {"answer": 5},
         "answer is 5; it must be a text of at most 2,000 characters, how the assistant's answer begins."),
        (TreeRecipe, {"top_k": 1e300}, "top_k is 1e+300; it must be a whole number from 0 to 100."),
        (TreeRecipe, {"cutoff": 2}, "cutoff is 2; it must be a number between 0 and 1 (both excluded), e.g. 5e-5."),
        (TreeRecipe, {"clamp": NAN}, "clamp is nan; it must be a number within ±100."),
        (TreeRecipe, {"inject_layer": -2}, "inject_layer is -2; it must be a whole number from -1 to 1000."),
        (TreeRecipe, {"inject_mode": None}, "inject_mode is None; valid are replace, add."),
    ],
)
def test_what_is_said_of_a_value_follows_from_the_type_and_range_of_its_field(recipe, settings, sentence):
    assert refusal(recipe, **settings) == sentence


def test_a_field_is_offered_by_name_type_default_and_help():
    sae, feature, weights, *_, scale, pca, _vector, _vector_name = recipe_fields(VectorRecipe)
    assert (sae.name, sae.type, sae.default) == ("sae", str, MISSING)
    assert (feature.type, scale.type, pca.type) == (int | str, float, tuple[float, ...])
    assert weights.default is None and get_args(weights.type) == tuple(DIRECTIONS)
    for kind in (VectorRecipe, TreeRecipe, ListRecipe):
        for field in recipe_fields(kind):
            assert field.help and not field.help.endswith(".")
            if field.default is not MISSING:
                assert getattr(kind, field.name) == field.default, "the default is the class's attribute"


def test_a_recipe_is_a_frozen_dataclass_of_plain_values():
    recipe = vector(pca=[1], scale=2)
    assert hash(recipe) == hash(replace(recipe)) and replace(recipe) == recipe != replace(recipe, scale=3)
    assert vector(**asdict(recipe)) == recipe == pickle.loads(pickle.dumps(recipe))
    with pytest.raises(FrozenInstanceError):
        recipe.scale = 1
    with pytest.raises(TypeError, match="feature"):
        VectorRecipe(sae="demo/hook_embed")
    # What help() shows.
    assert str(inspect.signature(ListRecipe)).startswith("(*, exponent: float = 1.4, top: int = 100, measure: Literal[")


# What only a model can tell


def test_a_prompt_that_leaves_no_room_for_the_tree_is_refused_with_the_numbers(tokenizer):
    subject = tiny_subject("llama", tokenizer)  # 256 positions
    words = "dog " * 40
    length = len(ghost_prompt(subject, words + '"{ghost}" "', 1).token_ids)
    room = 256 - length
    assert room > 1
    ghost_prompt(subject, words + '"{ghost}" "', room)
    with pytest.raises(UserError, match=f"{length} tokens; with max_depth {room + 1} .* 256 .* Shorten"):
        ghost_prompt(subject, words + '"{ghost}" "', room + 1)


def test_a_ghost_inside_a_word_is_refused_with_the_way_out():
    # A tokenizer whose tokens are whole words: no word in there is a token by itself.
    words = Tokenizer(models.WordLevel({"<unk>": 0, "A": 1, "is": 2, '"': 3}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    subject = tiny_subject("llama", PreTrainedTokenizerFast(tokenizer_object=words))
    assert len(ghost_prompt(subject, 'A "{ghost}" is "', 5).token_ids) == 6
    with pytest.raises(UserError, match=r'no single token .* quotes or spaces around it: "\{ghost\}"'):
        ghost_prompt(subject, 'A under{ghost}stand is "', 5)


def test_a_very_long_prompt_is_refused_without_repeating_it(tokenizer):
    subject = tiny_subject("llama", tokenizer)
    with pytest.raises(UserError, match="Shorten the prompt") as caught:
        ghost_prompt(subject, "dog " * 5000 + '"{ghost}" "', 5)
    assert len(str(caught.value)) < 500
