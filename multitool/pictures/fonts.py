"""The fonts of this machine, by the characters that they have: matplotlib draws of each the first font that has it."""

import logging
import re
from collections.abc import Iterable
from functools import lru_cache

import numpy as np
from matplotlib.font_manager import FontEntry, FontProperties, findfont, fontManager, get_font

logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)  # it tells of each font without a bold cut

# matplotlib ships the first. The others look well beside it; any other font is only taken for what these lack.
_WANTED = ("DejaVu Sans", "Noto Sans", "Noto Sans CJK JP", "Noto Sans CJK SC", "Noto Sans Arabic",
           "Noto Sans Devanagari", "Noto Sans Bengali", "Noto Sans Gurmukhi", "Noto Sans Gujarati", "Noto Sans Tamil",
           "Noto Sans Telugu", "Noto Sans Kannada", "Noto Sans Malayalam", "Noto Sans Sinhala", "Noto Sans Thai",
           "Noto Sans Lao", "Noto Sans Khmer", "Noto Sans Myanmar", "Noto Sans Ethiopic", "Noto Emoji", "Symbola")
FONTS = (
    *(name for name in _WANTED if name in {font.name for font in fontManager.ttflist}),
    "sans-serif",  # where an SVG's viewer has none of them
)
# Those that have a box or nothing for every character, pictures in place of outlines, or TeX's own order of characters.
_NO_LETTERS = re.compile(r"last ?resort|adobe ?blank|color emoji|^cm[a-z]+10$|^stix(size|nonuni)", re.IGNORECASE)
_LESS_LIKE_OURS = re.compile(r"mono|condensed|light|thin|black|narrow|display|(?<!sans[ -])serif", re.IGNORECASE)
_N_CHARACTERS = 0x110000


def fonts_for(text: str) -> tuple[str, ...]:
    """The usual families, and those that have what these lack of ``text``, where this machine has any."""
    lacking = sorted(set(map(ord, text)) - drawable(FONTS, "normal"))
    if not lacking:
        return FONTS
    families, first = _coverage(tuple(fontManager.ttflist))
    others = dict.fromkeys(families[at] for at in first[lacking] if at >= 0)
    return (*FONTS[:-1], *others, FONTS[-1])


@lru_cache(maxsize=32)
def drawable(fonts: tuple[str, ...], weight: str) -> frozenset[int]:
    """The characters that some of these families have here."""
    return frozenset().union(*(_characters(name, weight) for name in fonts))


@lru_cache(maxsize=128)
def _characters(family: str, weight: str) -> Iterable[int]:
    return get_font(findfont(FontProperties(family=family, weight=weight))).get_charmap().keys()


@lru_cache(maxsize=1)
def _coverage(installed: tuple[FontEntry, ...]) -> tuple[list[str], np.ndarray]:
    """The families of all fonts, and for each character the place in them of the first that has it; −1 for none.

    Opens every font, so it takes a second or so where there are hundreds: once, and only where a character is lacking.
    """
    usual = {}
    for font in sorted(installed, key=_likeness):
        if not _NO_LETTERS.search(font.name):
            usual.setdefault(font.name, font)
    families, first = list(usual), np.full(_N_CHARACTERS, -1, np.int16)
    for at, font in enumerate(usual.values()):
        try:
            opened = get_font(font.fname)
        except (OSError, RuntimeError):  # no font after all
            continue
        if opened.scalable:
            own = np.fromiter(opened.get_charmap(), dtype=np.int64)
            first[own[first[own] < 0]] = at
    return families, first


def _likeness(font: FontEntry) -> tuple:
    """Sorts the more likely before: upright fonts of usual weight, without serifs, of the families that we know."""
    upright = font.style == "normal" and font.weight in (400, "normal", "regular")
    return not upright, font.name not in _WANTED, bool(_LESS_LIKE_OURS.search(font.name)), font.name, font.fname
