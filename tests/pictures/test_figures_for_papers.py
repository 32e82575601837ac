"""Figures for a paper: as wide as a column, with type that is read there, and without a caption."""

import io
import json

import numpy as np
import pytest
from PIL import Image
from test_figure import (
    HOSTILE,
    SETTINGS,
    VECTOR,
    WORDS,
    assert_everything_readable,
    checked,
    document,
    settings_in,
    texts,
)

from multitool.errors import UserError
from multitool.pictures.drawing import draw_definitions, draw_tree, inches, usual_number
from multitool.pictures.figure import Picture, render
from multitool.trees.document import UNFINISHED, DefinitionTree
from multitool.trees.tree import ROOT, Tree

DRAWINGS = {"tree": draw_tree, "definitions": draw_definitions}


@pytest.mark.parametrize("drawing", DRAWINGS.values(), ids=DRAWINGS)
@pytest.mark.parametrize("words", [WORDS, HOSTILE], ids=["words", "hostile"])
@pytest.mark.parametrize("width", [2.0, 3.3, 7.0])
def test_a_figure_has_the_width_of_its_column_and_type_that_is_read_there(drawing, words, width):
    figure = drawing(document(120, words=words), width=width)
    assert_everything_readable(figure)
    assert figure.get_figwidth() == pytest.approx(width)
    assert figure.get_figheight() < 11, "no page is taller"
    assert min(artist.get_fontsize() for artist in figure.texts) >= 6


def test_long_phrases_take_several_lines_where_there_is_no_room_beside():
    #   a very long phrase ── and another long one
    made = Tree(np.array([ROOT, 0, 0]), np.arange(3), ("water that is falling from the sky", " when the air is cooled",
                " over the mountains"), np.full(3, 0.5), np.array([0.5, 0.25, 0.2]), np.zeros(3, bool))
    one = DefinitionTree(made, SETTINGS, VECTOR, 5e-5, True, 0.0)
    words = texts(draw_tree(one, width=2.6, caption=False))
    assert "water that is falling from the sky" not in words
    assert " ".join(words[:6]).startswith("water that is falling")
    wide = texts(draw_tree(one, width=7, caption=False))
    assert "water that is falling from the sky" in wide and "when the air is cooled" in wide


def test_where_a_column_has_no_room_fewer_nodes_are_drawn_and_the_caption_says_so():
    broad = document(400, branching=60)
    told = " ".join(texts(draw_tree(broad, 400, width=3.3)))
    drawn = int(told.split("the ", 1)[1].split(" most probable drawn")[0].split()[-1])
    assert 20 < drawn < 400


@pytest.mark.parametrize("kind", DRAWINGS)
def test_without_a_caption_the_file_still_tells_the_recipe(kind):
    files = render(document(20), kind=kind, caption=False, width="single", max_nodes=9)
    for name, found in settings_in(files).items():
        assert found["settings"] == SETTINGS, name
        assert found["result"]["drawn"] == 9
    figure = DRAWINGS[kind](document(20), caption=False)
    assert not {"feature 16383", "prompt:", "cutoff"} & set(" ".join(texts(figure)).split("  "))
    assert "gemma" not in " ".join(texts(figure))
    with Image.open(io.BytesIO(files["png"])) as picture:
        assert picture.width == pytest.approx(3.3 * 150, abs=1)


def listed(complete: int = 3) -> DefinitionTree:
    """Definitions of a token each, those that are complete more probable; and a beginning."""
    n = complete + 1
    tokens = tuple(f'word{i}"' for i in range(complete)) + (" begins",)
    probs = np.array([0.5 / 2**i for i in range(n)])
    made = Tree(np.full(n, ROOT), np.arange(n), tokens, probs, probs, np.arange(n) < complete)
    return DefinitionTree(made, SETTINGS, VECTOR, 5e-5, True, 0.0)


def test_a_list_of_definitions_has_their_probabilities_complete_ones_first():
    words = texts(draw_definitions(listed(), caption=False))
    assert words == ["50%", "word0", "25%", "word1", "12%", "word2", UNFINISHED, "6.2%", "begins …"]
    assert texts(draw_definitions(listed(), 2, caption=False)) == ["50%", "word0", "25%", "word1"]
    caption = " ".join(texts(draw_definitions(listed(), 2)))
    assert "the 2 most probable of 4 definitions" in caption and "feature 16383" in caption
    assert "all definitions" in " ".join(texts(draw_definitions(listed())))


def test_probabilities_stand_at_the_right_of_their_column_and_definitions_at_the_left_of_theirs():
    figure = draw_definitions(listed(), caption=False, width=3.3)
    places = {artist.get_text(): (artist.get_position()[0], artist.get_horizontalalignment())
              for artist in figure.texts}
    assert places["50%"] == places["6.2%"] and places["50%"][1] == "right"
    assert places["word0"] == places["word2"] and places["word0"][1] == "left"
    assert places["50%"][0] < places["word0"][0]


def test_a_long_definition_goes_on_below_itself():
    long = " ".join(f"word{i}" for i in range(60))
    made = Tree(np.array([ROOT]), np.arange(1), (long + '"',), np.ones(1), np.ones(1), np.ones(1, bool))
    figure = draw_definitions(DefinitionTree(made, SETTINGS, VECTOR, 5e-5, True, 0.0), caption=False, width=3.3)
    assert_everything_readable(figure)
    _, *lines = figure.texts
    assert len(lines) > 4 and " ".join(line.get_text() for line in lines).startswith("word0 word1 word2")
    assert len({line.get_position()[0] for line in lines}) == 1


def test_a_checked_list_is_coloured_by_its_lifts():
    colours = {artist.get_color() for artist in draw_definitions(checked(document(60)), 30, caption=False).texts}
    assert len(colours) > 4
    assert_everything_readable(draw_definitions(checked(document(60)), 30, dark=True))


def test_an_empty_list_says_what_to_do():
    assert "Lower it" in " ".join(texts(draw_definitions(document(5).trimmed(0.99), caption=False)))


def test_how_much_is_drawn_where_nobody_says_it():
    assert [usual_number("tree", width) for width in (None, 3.3, 7)] == [80, 40, 80]
    assert usual_number("definitions", 3.3) == 15


@pytest.mark.parametrize(("width", "found"), [(None, None), ("single", 3.3), ("double", 7.0), (5, 5.0), (2.5, 2.5)])
def test_widths(width, found):
    assert inches(width) == found


@pytest.mark.parametrize("width", ["wide", 1.9, 21, True, float("nan"), "", [3.3]], ids=str)
def test_a_width_that_cannot_be_is_refused(width):
    with pytest.raises(UserError, match=r"^width is .*valid are single \(3.3 inches\), double \(7.0 inches\)"):
        render(document(5), ["svg"], width=width)


def test_a_kind_of_figure_that_there_is_not_is_refused():
    with pytest.raises(UserError, match="^kind is 'forest'; valid are tree and definitions"):
        Picture(document(5), kind="forest")


def test_a_picture_is_saved_for_a_paper(tmp_path):
    Picture(document(30), kind="definitions", caption=False, width="single").save(tmp_path / "list.svg")
    svg = (tmp_path / "list.svg").read_text(encoding="utf-8")
    assert 'width="237.6pt"' in svg and json.dumps(SETTINGS["sae"])[1:-1] in svg
