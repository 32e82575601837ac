"""Sums as people write them, and what is wrong with those that cannot be read."""

import pytest

from multitool.errors import UserError
from multitool.recipes.weighted_sums import (
    Term,
    TokenTerm,
    feature_terms,
    features_written,
    token_terms,
    tokens_written,
)
from multitool.store.registry import saes


def word(text: str, weight: float = 1.0) -> TokenTerm:
    return TokenTerm(text, None, False, weight)


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("king", [word("king")]),
        ("king - man + woman", [word("king"), word("man", -1.0), word("woman")]),
        ("king*0.5 + queen*.5 - man*-2e-1", [word("king", 0.5), word("queen", 0.5), word("man", 0.2)]),
        ("well-known + C++", [word("well-known"), word("C++")]),
        ('" king" + "a + b\\n\\"c"*2', [TokenTerm(" king", None, True, 1.0), TokenTerm('a + b\n"c', None, True, 2.0)]),
        ("#12*3 - #0", [TokenTerm("", 12, False, 3.0), TokenTerm("", 0, False, -1.0)]),
        ("  king\n +\tman  ", [word("king"), word("man")]),
    ],
)
def test_tokens_are_added_and_subtracted(text, terms):
    assert list(token_terms(text)) == terms


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("king  -  man*1.0", "king - man"),
        ("king*-1 + man*-0.5 - woman*-2", "king*-1.0 - man*0.5 + woman*2.0"),
        ('"\\u00e9" + #07', '"é" + #7'),
    ],
)
def test_tokens_have_one_spelling_that_reads_the_same(text, written):
    assert tokens_written(token_terms(text)) == written
    assert token_terms(written) == token_terms(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "cannot be read"),
        ("king queen", "from 'queen' on"),
        ("king -", "from '-' on"),
        ("king + + man", r"from '\+ man' on"),
        ("- king", "cannot be read"),
        ("king*", r"from '\*' on"),
        ("king*two", r"from '\*two' on"),
        ("king*1e7", "1e7 is not within ±1e"),
        ("#twelve", "cannot be read"),
        ('"king', "cannot be read"),
        ('"\\x"', "is no JSON string"),
        ('"\\ud800"', "must be a text"),
        ("\ud800", "must be a text"),
        ("x" * 3000, "at most 2,000 characters"),
        (" + ".join(["a"] * 17), "at most 16 terms"),
    ],
)
def test_what_is_no_sum_of_tokens_is_refused_with_an_example(text, said):
    with pytest.raises(UserError, match=said) as error:
        token_terms(text)
    assert str(error.value).startswith("tokens is ")
    assert len(str(error.value)) < 600


# Features


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("7", [Term(None, 7, 1.0)]),
        ("123*1.0 + 456*-0.5", [Term(None, 123, 1.0), Term(None, 456, -0.5)]),
        ("  1 - 2*3 - 4*-.5", [Term(None, 1, 1.0), Term(None, 2, -3.0), Term(None, 4, 0.5)]),
        ("hf://o/r@v1/blocks.2:3 - hf://o/r:4*2", [Term("hf://o/r@v1/blocks.2", 3, 1.0), Term("hf://o/r", 4, -2.0)]),
        ("1 + demo/blocks.6.hook_resid_post:12*1e-3", [Term(None, 1, 1.0),
                                                      Term("demo/blocks.6.hook_resid_post", 12, 0.001)]),
    ],
)  # fmt: skip
def test_features_are_added_with_their_weights(text, terms):
    assert list(feature_terms(text)) == terms


def test_features_have_one_spelling_that_reads_the_same():
    terms = feature_terms("123 - 456*.5 + a/b:7*-1e-7")
    written = features_written(terms)
    assert written == "123*1.0 + 456*-0.5 + a/b:7*-1e-07"
    assert feature_terms(written) == terms


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "cannot be read"), ("seven", "whole number from 0"), ("-1", "cannot be read"), ("1.5", "cannot be read"),
        ("1+2", "cannot be read"), ("1 2", "from '2' on"), ("1 +", r"from '\+' on"), ("1*x", r"from '\*x' on"),
        ("a b:1", "cannot be read"), ("1*nan", "from"), ("1*1e9", "not within"), ("9" * 400, "cannot be read"),
        (" + ".join(["1"] * 17), "at most 16 terms"),
    ],
)  # fmt: skip
def test_what_is_no_list_of_features_is_refused_with_an_example(text, said):
    with pytest.raises(UserError, match=said) as error:
        feature_terms(text)
    assert str(error.value).startswith("feature is ")
    assert "at most" in str(error.value) or "within" in str(error.value) or "123*1.0 + 456*-0.5" in str(error.value)


def test_no_sae_has_a_sign_of_the_lists_in_its_name():
    names = [entry.name for entry in saes()]
    assert len(names) > 4_000
    assert not [name for name in names if any(sign in name for sign in ":*+ \t")]
