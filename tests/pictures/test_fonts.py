"""Characters that the usual fonts lack: any font of this machine that has them is taken, and no other changes."""

import io
import re
import warnings

import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib.font_manager import FontEntry, fontManager
from test_figure import document, texts

from multitool.pictures import fonts
from multitool.pictures.drawing import draw_tree
from multitool.pictures.figure import render
from multitool.pictures.fonts import FONTS, drawable, fonts_for

YI, VAI = "\ua015", "\ua500"  # of scripts that DejaVu does not have


def write_font(path, family: str, characters: str) -> str:
    """A font with a square for each of these characters."""
    names = [".notdef", *(f"c{ord(character)}" for character in characters)]
    pen = TTGlyphPen(None)
    pen.moveTo((100, 0))
    for corner in ((100, 800), (900, 800), (900, 0)):
        pen.lineTo(corner)
    pen.closePath()
    square = pen.glyph()
    font = FontBuilder(1000, isTTF=True)
    font.setupGlyphOrder(names)
    font.setupCharacterMap({ord(character): name for character, name in zip(characters, names[1:], strict=True)})
    font.setupGlyf(dict.fromkeys(names, square))
    font.setupHorizontalMetrics(dict.fromkeys(names, (1000, 100)))
    font.setupHorizontalHeader(ascent=900, descent=-200)
    font.setupNameTable({"familyName": family, "styleName": "Regular", "psName": family.replace(" ", "")})
    font.setupOS2(sTypoAscender=900, usWinAscent=900, usWinDescent=200, usWeightClass=400)
    font.setupPost()
    font.save(path)
    return str(path)


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Installs fonts beside DejaVu, which alone is there."""
    monkeypatch.setattr(fontManager, "ttflist", [font for font in fontManager.ttflist if font.name in FONTS[:1]])

    def installed(family: str, characters: str) -> None:
        fontManager.addfont(write_font(tmp_path / f"{family}.ttf", family, characters))

    return installed


def test_a_font_is_taken_for_the_characters_that_the_others_lack_and_for_no_other(install):
    assert fonts_for(f"rain {YI}") == FONTS
    install("Some Yi", YI + "a")
    install("Some Vai", VAI)
    assert fonts_for("rain") == FONTS, "what the usual fonts have they draw"
    assert fonts_for(f"rain {YI}") == (*FONTS[:-1], "Some Yi", "sans-serif")
    assert fonts_for(YI + VAI) == (*FONTS[:-1], "Some Yi", "Some Vai", "sans-serif")
    assert {ord(YI), ord("a")} <= drawable(fonts_for(YI), "bold")


def test_of_several_the_likest_to_ours_is_taken(install):
    for family in ("A Mono", "A Serif", "B Sans Light", "C Sans Serif", "Z Gothic"):
        install(family, YI)
    assert fonts_for(YI)[-2] == "C Sans Serif"


def test_fonts_that_have_a_box_for_everything_are_none(install):
    install("Last Resort", YI)
    install("Noto Color Emoji", YI)
    assert fonts_for(YI) == FONTS


def test_a_file_that_is_no_font_after_all_is_passed_over(install, tmp_path):
    (tmp_path / "broken.ttf").write_bytes(b"no font")
    fontManager.ttflist.append(FontEntry(fname=str(tmp_path / "broken.ttf"), name="A Broken", weight=400))
    fontManager.ttflist.append(FontEntry(fname=str(tmp_path / "gone.ttf"), name="A Gone", weight=400))
    install("Some Yi", YI)
    assert fonts_for(YI)[-2] == "Some Yi"


def test_a_figure_draws_in_it_in_every_format(install):
    made = document(3, words=(f"x{YI}", VAI), branching=3, settings={"prompt": f'"{{ghost}}" {YI} "'})
    assert "x\\ua015" in texts(draw_tree(made))
    install("Some Yi", YI)
    figure = draw_tree(made)
    shown = texts(figure)
    assert f"x{YI}" in shown and f'prompt: "{{ghost}}" {YI} "' in shown
    assert "\\ua500" in shown, "what no font has stays an escape"
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # as matplotlib tells of each character that it draws as a box
        figure.savefig(io.BytesIO(), format="png")
    files = render(made, ["svg", "pdf"])
    assert re.search(rb"FontName /\w*\+?SomeYi", files["pdf"])
    assert b"font-family: 'DejaVu Sans', 'Some Yi', " in files["svg"]


def test_other_figures_stay_as_they_are(install):
    made = document(3)
    before = render(made, ["svg", "pdf"])
    install("Some Yi", YI + "abc")
    assert render(made, ["svg", "pdf"]) == before


def test_fonts_are_opened_once_and_only_where_a_character_is_lacking(install, monkeypatch):
    install("Some Yi", YI)
    opened = []
    monkeypatch.setattr(fonts, "get_font", lambda path, get=fonts.get_font: opened.append(path) or get(path))
    fonts_for("rain")
    assert opened == []
    fonts_for(YI)
    first = len(opened)
    fonts_for(f"{YI} {VAI}")
    assert first > 0 and len(opened) == first
