"""Token text: exact, and shown so that nothing is hidden."""

import unicodedata

import pytest

from multitool.text import bytes_to_text, count_shown, join_tokens, percent, spelling_key, visible, whole_word


def test_whole_characters_are_themselves():
    assert bytes_to_text("naïve “quote” 中".encode()) == "naïve “quote” 中"
    assert bytes_to_text(b"") == ""


@pytest.mark.parametrize(
    ("raw", "text"),
    [(b"\xe2\x80", "\\xe2\\x80"), (b"a\xff", "a\\xff"), (b"\xa9 b", "\\xa9 b"), (b"\xed\xa0\x80", "\\xed\\xa0\\x80")],
)
def test_bytes_that_are_no_whole_character_are_escaped(raw, text):
    assert bytes_to_text(raw) == text


def test_no_two_bytes_look_the_same():
    assert len({bytes_to_text(bytes([byte])) for byte in range(256)}) == 256


def test_tokens_join_to_the_text_that_they_spell():
    assert join_tokens([" a", " dog", "."]) == " a dog."
    assert join_tokens([]) == ""


@pytest.mark.parametrize("text", ["é", "“", "中", "🙂", "a🙂b中é"])
def test_a_character_split_over_tokens_is_whole_again(text):
    assert join_tokens(bytes_to_text(bytes([byte])) for byte in text.encode()) == text


def test_pieces_of_several_bytes_join_too():
    assert join_tokens(["x\\xf0\\x9f", "\\x99\\x82y"]) == "x🙂y"


def test_bytes_that_still_make_no_character_stay_escaped():
    assert join_tokens(["\\xe2\\x80", " x"]) == "\\xe2\\x80 x"
    assert join_tokens(["\\xc3\\xa9\\xe2", "a"]) == "é\\xe2a"


def test_an_escape_of_a_plain_character_is_text_that_somebody_wrote():
    # Tokens of program code: only bytes from 0x80 up can be parts of a character.
    assert join_tokens(["\\x41", "\\n", "\\x0a"]) == "\\x41\\n\\x0a"


@pytest.mark.parametrize("text", ["plain", "a b", "naïve “quote”", "中文", "اللغة", "$x$ <script>", "\\n", "🙂", ""])
def test_what_can_be_seen_stays_as_it_is(text):
    assert visible(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\nb", "a\\nb"),
        ("\r\n\t", "\\r\\n\\t"),
        ("\0", "\\x00"),
        ("\x1b[31m", "\\x1b[31m"),
        ("\x7f", "\\x7f"),
        ("\x85", "\\x85"),
        ("a\u00a0b", "a\\xa0b"),  # looks like a blank and is none
        ("\u3000", "\\u3000"),
        ("\u200b", "\\u200b"),  # no width
        ("\u202e", "\\u202e"),  # would turn the line around
        ("\u2066", "\\u2066"),
        ("\ufeff", "\\ufeff"),
        ("\u2028\u2029", "\\u2028\\u2029"),
        ("\ud800", "\\ud800"),
        ("\ue000", "\\ue000"),  # private use: no font shows it
        ("\U000e0041", "\\U000e0041"),  # a tag
    ],
)
def test_what_cannot_be_seen_is_escaped(text, shown):
    assert visible(text) == shown


def test_no_character_at_all_breaks_the_line_or_controls_anything():
    everything = visible("".join(map(chr, range(0x11000))))
    assert len(everything.splitlines()) == 1
    assert everything.isprintable()
    assert everything.encode()
    assert not {unicodedata.category(character) for character in everything} & {"Cc", "Cf", "Cs"}


@pytest.mark.parametrize(
    ("token", "shown"),
    [(" a", "␣a"), ("a", "a"), ("  a b ", "␣␣a b␣"), (" ", "␣"), ("   ", "␣␣␣"), ("", ""), (" \n", "␣\\n")],
)
def test_a_single_token_shows_the_blanks_at_its_ends(token, shown):
    assert visible(token, spaces=True) == shown


@pytest.mark.parametrize(
    ("share", "text"),
    [(1, "100%"), (0.994, "99%"), (0.1234, "12%"), (0.0996, "10%"), (0.0994, "9.9%"), (0.03146, "3.1%"),
     (0.0004, "0.04%"), (2e-6, "0.0002%"), (1e-9, "<0.0001%"), (0, "0%")],
)
def test_a_probability_has_two_digits(share, text):
    assert percent(share) == text


@pytest.mark.parametrize(
    ("text", "what"),
    [("Water  falling.", "water falling"), ("the sky,", "the sky"), (" rain ", "rain"), ("...", "..."),
     ("U.S. law", "u.s. law"), ("", "")],
)
def test_what_a_definition_says_is_told_without_case_blanks_and_end_signs(text, what):
    assert spelling_key(text) == what


@pytest.mark.parametrize(
    ("text", "other", "same"),
    [("A dog", "a dog.", True), ("a  dog ,", "a dog", True), ("wait…", "Wait!", True), ("犬。", "犬", True),
     ("a dog", "a-dog", False), ("...", "…", False), ("(a dog)", "(a dog", False), ("STRASSE", "straße", True)],
)
def test_what_is_the_same_spelling(text, other, same):
    assert (spelling_key(text) == spelling_key(other)) == same


@pytest.mark.parametrize(
    ("cut", "whole"),
    [
        (("lasses were", " warm", "ing the roo"), ("were ", "warming", " the")),
        ((" The World Fact", "book", ", 2015 (pub"), ("The World ", "Factbook", ", 2015 (")),
        (("", " rain", ""), ("", "rain", "")),
        ((" a", ":\n", "hand\n"), ("a", ":", "\nhand")),
        ((" to motherhood\"\n", "hand", ": one "), ('to motherhood"\n', "hand", ": one")),
        ((" x", "  ", "y "), ("x", "  ", "y")),
        (("ab", "cd", "ef"), ("", "abcdef", "")),
    ],
)
def test_a_token_of_a_context_is_told_as_its_whole_word(cut, whole):
    assert whole_word(*cut) == whole


@pytest.mark.parametrize(("number", "text"), [(135_000_000, "135 M"), (2_506_000_000, "2.51 B"), (7 * 10**10, "70 B")])
def test_a_models_size_has_three_digits(number, text):
    assert count_shown(number) == text
