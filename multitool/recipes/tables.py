"""Tables as texts to paste: Markdown, LaTeX, CSV, a Python list. Numbers have three digits there; files have them all.

Tokens can be anything: whatever would act in a format is escaped, and what cannot be seen is told.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from multitool.text import csv_table, visible

_MARKDOWN = re.compile(r"[\\`*_\[\]<>|~$&#]")
_LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "_": r"\_", "%": r"\%",
    "^": r"\textasciicircum{}", "~": r"\textasciitilde{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", '"': r"\symbol{34}", "`": r"\symbol{96}", "␣": r"\textvisiblespace{}", "…": r"\ldots{}",
}
_LIGATURE = re.compile(r"([-,'])(?=\1)")  # two of these would be set as one other character
# What pdfLaTeX sets in its usual encodings, of any year. The others take XeLaTeX or LuaLaTeX, and a font.
_SET_BY_PDFLATEX = re.compile(
    "[ -~␣¡§¿À-ÏÑ-ÖØ-Ýß-ïñ-öø-ýÿĀ-ăĆ-ďĒ-ėĚ-ĥĨ-ĭİ-ķĹ-ľŁ-ňŌ-ťŨ-űŴ-ž–—‘’“”†‡…]+"
)
_BEYOND = r"\beyondpdflatex"
_DEFINES_BEYOND = (
    "% Of characters that pdfLaTeX lacks it sets the numbers; XeLaTeX and LuaLaTeX set them, in a font that has them.\n"
    rf"\providecommand*{{{_BEYOND}}}[2]{{\ifdefined\Umathcode#1\else#2\fi}}" + "\n"
)


@dataclass(frozen=True)
class Pasted:
    """A table as a text, row by row.

    >>> from multitool.recipes.tables import pasted
    >>> print(pasted(("rank", "token"), [[1, " rain"], [2, "a|b"]], "Tokens")["Markdown"].text(1))
    Tokens
    <BLANKLINE>
    | rank | token |
    | ---: | :--- |
    | 1 | ␣rain |
    """

    head: str
    rows: tuple[str, ...]
    between: str
    foot: str

    def text(self, n: int | None = None) -> str:
        """With the first ``n`` rows, or all."""
        return self.head + self.between.join(self.rows[:n]) + self.foot


def pasted(columns: Sequence[str], rows: Sequence[Sequence], title: str, *, prose: bool = False) -> dict[str, Pasted]:
    """A table in each format, by its name.

    Args:
        columns: their headings.
        rows: of each a value per column: numbers, and in one column texts, exact ones.
        title: what the table is, on one line.
        prose: the texts are sentences, that may take several lines, and not tokens.
    """
    cells = [[_Cell(value) for value in row] for row in rows]
    return {
        "Markdown": _markdown(columns, cells, title),
        "LaTeX": _latex(columns, cells, title, prose),
        "CSV": _csv(columns, rows),
        "Python list": python_list([value for row in rows for value in row if isinstance(value, str)]),
    }


def python_list(texts: Sequence[str]) -> Pasted:
    """Texts as a Python list on one line, as the published tool shows its tokens: ``['de', 'DE', ' de']``."""
    return Pasted("[", tuple(map(repr, texts)), ", ", "]")


def three_digits(number: float) -> str:
    """A number in three digits, in powers of ten only where it is very small or large: 0.0123, 12.0, 1230, 1.23e-05."""
    if not math.isfinite(number):
        return ""
    digits, _, exponent = f"{number:.2e}".partition("e")
    if not -4 <= int(exponent) < 6:
        return f"{digits}e{exponent}"
    return f"{float(f'{digits}e{exponent}'):.{max(0, 2 - int(exponent))}f}" if number else "0"


class _Cell:
    """A value, as it is read: a text with its spaces seen, or a number in three digits."""

    def __init__(self, value):
        self.is_text = isinstance(value, str)
        self.told = visible(value, spaces=True) if self.is_text else _number(value)


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return str(value) if isinstance(value, int) else three_digits(value)


def _are_texts(columns: Sequence[str], rows: list[list[_Cell]]) -> list[bool]:
    """Which columns hold texts."""
    return [any(row[i].is_text for row in rows) for i in range(len(columns))]


def _markdown(columns: Sequence[str], rows: list[list[_Cell]], title: str) -> Pasted:
    def line(cells: Sequence[str]) -> str:
        return f"| {' | '.join(cells)} |"

    ruler = line([":---" if text else "---:" for text in _are_texts(columns, rows)])
    head = f"{_in_markdown(visible(title))}\n\n{line([_in_markdown(column) for column in columns])}\n{ruler}\n"
    return Pasted(head, tuple(line([_in_markdown(cell.told) for cell in row]) for row in rows), "\n", "\n")


def _in_markdown(text: str) -> str:
    return _MARKDOWN.sub(r"\\\g<0>", text)


def _latex(columns: Sequence[str], rows: list[list[_Cell]], title: str, prose: bool) -> Pasted:
    """A plain tabular, which needs no package."""
    def cell(of: _Cell) -> str:
        if of.is_text:
            text = _in_latex(of.told)
            return text if prose or not text else rf"\texttt{{{text}}}"
        digits, _, exponent = of.told.partition("e")
        if exponent:
            return rf"${digits}\times10^{{{int(exponent)}}}$"
        return f"${digits}$" if digits.startswith("-") else digits

    def line(cells: Sequence[str]) -> str:
        return rf"{' & '.join(cells)} \\"

    text = r"p{0.6\linewidth}" if prose else "l"
    kinds = "".join(text if texts else "r" for texts in _are_texts(columns, rows))
    lines = tuple(line([cell(value) for value in row]) for row in rows)
    defined = _DEFINES_BEYOND if any(_BEYOND in one for one in lines) else ""
    head = (f"% {visible(title)}\n{defined}\\begin{{tabular}}{{{kinds}}}\n\\hline\n"
            f"{line([_in_latex(column) for column in columns])}\n\\hline\n")
    return Pasted(head, lines, "\n", "\n\\hline\n\\end{tabular}\n")


def _in_latex(text: str) -> str:
    """A text that any LaTeX sets."""
    parts, at = [], 0
    for known in _SET_BY_PDFLATEX.finditer(text):
        parts += [_beyond(text[at : known.start()]), _escaped(known.group())]
        at = known.end()
    return "".join([*parts, _beyond(text[at:])])


def _escaped(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in _LIGATURE.sub("\\1\0", text)).replace("\0", "{}")


def _beyond(text: str) -> str:
    numbers = " ".join(f"U+{ord(character):04X}" for character in text)
    return rf"{_BEYOND}{{{text}}}{{{numbers}}}" if text else ""


def _csv(columns: Sequence[str], rows: Sequence[Sequence]) -> Pasted:
    head, *_ = lines = [
        csv_table(row, []) for row in (columns, *([_rounded(value) for value in row] for row in rows))
    ]
    return Pasted(head, tuple(lines[1:]), "", "")


def _rounded(value):
    return float(three_digits(value)) if isinstance(value, float) and math.isfinite(value) else value
