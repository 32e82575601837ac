"""Where a steered text breaks: figures done in the head."""

import pytest

from multitool.evidence.breaking import IMPROBABLE, REPETITIVE, Wording, caution, repetition


def test_runs_of_four_tokens_that_have_occurred_before_are_repetition():
    assert repetition(range(20)) == 0
    assert repetition([1] * 8) == pytest.approx(4 / 5)  # five runs, all the same
    assert repetition([1, 2, 3, 4, 1, 2, 3, 4]) == pytest.approx(1 / 5)  # 1234 2341 3412 4123 1234
    assert repetition([1, 2, 3]) == repetition([]) == 0


PLAIN = Wording(-1.0, 0.0)


def test_a_text_is_told_of_that_repeats_itself_or_is_improbable():
    assert caution(Wording(-1.0 - IMPROBABLE, 0.99 * REPETITIVE), PLAIN) == ""
    assert caution(Wording(-1.0, REPETITIVE), PLAIN) == "It repeats itself."
    assert caution(Wording(-1.01 - IMPROBABLE, 0.0), PLAIN) == "The unsteered model finds it improbable."
    both = caution(Wording(-9.0, 0.9), PLAIN)
    assert both == "It repeats itself. The unsteered model finds it improbable."
    assert caution(Wording(None, 0.0), PLAIN) == caution(PLAIN, Wording(None, 0.0)) == ""


def test_the_unsteered_text_can_repeat_itself_too():
    repeats = Wording(-1.0, 0.5)
    assert caution(repeats, repeats) == "It repeats itself."
    assert caution(Wording(-1.0, 0.6), repeats) == "It repeats itself, as the unsteered text does."
