"""Texts measured as they will be drawn, and broken into lines."""

import textwrap
import unicodedata

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

from multitool.pictures.fonts import drawable


class Ruler:
    """Widths of texts in inches."""

    def __init__(self, canvas: FigureCanvasAgg, fonts: tuple[str, ...]):
        self._figure, self._fonts = canvas.figure, fonts
        self._renderer = canvas.get_renderer()
        self._widths: dict[tuple, float] = {}  # a figure in a column is tried in several ways

    def width(self, text: str, size: float, **style) -> float:
        """Of a text on one line."""
        asked = (text, size, *style.items())
        if asked not in self._widths:
            # A wide character that no font here has takes a square in the font of an SVG's viewer, and a box here.
            viewed = "".join("—" if ord(character) not in drawable(self._fonts, "normal") and
                             unicodedata.east_asian_width(character) in "WF" else character for character in text)
            self._widths[asked] = max(self._measured(words, size=size, **style) for words in {text, viewed})
        return self._widths[asked]

    def lines(self, text: str, size: float, width: float | None) -> list[str]:
        """``text`` in lines of at most ``width`` inches, broken between words where possible."""
        if width is None or self.width(text, size) <= width:
            return [text]
        lines = [""]
        for word in text.split(" "):
            longer = f"{lines[-1]} {word}" if lines[-1] else word
            if self.width(longer, size) <= width:
                lines[-1] = longer
                continue
            *whole, rest = self._cut(word, size, width)
            lines += [*whole, rest]
        return [line for line in lines if line]

    def wrapped(self, text: str, width: float, *, size: float, **style) -> list[str]:
        """A long ``text`` in lines of at most ``width`` inches."""
        # More than fit of most texts; those of wide characters take fewer.
        characters = int(width * 18 * max(1, 7.5 / size))
        while True:
            lines = textwrap.wrap(text, characters) or [""]
            if characters < 8 or all(self.width(line, size, **style) <= width for line in lines):
                return lines
            characters = int(characters * 0.9)

    def packed(self, parts: list[str], width: float, *, size: float) -> list[str]:
        """``parts`` in lines of at most ``width`` inches, broken between them where possible."""
        lines: list[str] = []
        for part in parts:
            longer = f"{lines[-1]}  ·  {part}" if lines else part
            if lines and self.width(longer, size) <= width:
                lines[-1] = longer
            else:
                lines += self.wrapped(part, width, size=size)
        return lines

    def _cut(self, word: str, size: float, width: float) -> list[str]:
        """A word in parts of at most ``width`` inches."""
        parts = [""]
        for character in word:
            if parts[-1] and self.width(parts[-1] + character, size) > width:
                parts.append("")
            parts[-1] += character
        return parts

    def _measured(self, text: str, **style) -> float:
        artist = Text(0, 0, text, **style, family=self._fonts, parse_math=False, figure=self._figure)
        return artist.get_window_extent(self._renderer).width / self._figure.dpi
