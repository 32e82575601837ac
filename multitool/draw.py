"""A definition tree as a figure. The only module that touches matplotlib.

Phrases run from left to right; a link's width and the ink of a phrase tell its probability. The caption holds the
recipe, so that a figure can be made again from what is on it. A checked tree is coloured by its lifts.
"""

import io
import math
import textwrap
import threading
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager
from matplotlib.patches import PathPatch
from matplotlib.path import Path
from matplotlib.text import Text

from multitool.document import DefinitionTree
from multitool.phrases import END, Phrase, phrases
from multitool.text import visible

FORMATS = ("png", "svg", "pdf")
DEFAULT_NODES = 80  # more are drawn smaller than the page shows them

matplotlib.rcParams["svg.fonttype"] = "none"  # text stays text
matplotlib.rcParams["pdf.fonttype"] = 42
# matplotlib ships the first; the others are used for the characters that it lacks, where they are installed.
_WANTED_FONTS = ("DejaVu Sans", "Noto Sans", "Noto Sans CJK JP", "Noto Sans CJK SC", "Noto Sans Arabic",
                 "Noto Sans Devanagari", "Noto Sans Bengali", "Noto Sans Tamil", "Noto Sans Telugu", "Noto Sans Thai",
                 "Noto Emoji", "Symbola")
_FONTS = [name for name in _WANTED_FONTS if name in {font.name for font in fontManager.ttflist}]

_INK, _LINK, _END, _FAINT, _PAPER = "#1b2733", "#7d98b3", "#b3541e", "#8a949e", "#ffffff"
# From a lift of 0 and less to one of _MOST_LIFT nats and more: what is the feature's own stands out.
_GENERIC, _OWN, _MOST_LIFT = "#87929b", "#0057b8", 6.0
_SIZE, _SMALL = 10.0, 7.5  # points
_HEADING = {"size": 12, "weight": "bold"}
_ROW = 0.235  # inches from one line to the next
_GAP = 0.42  # inches between a phrase and those that follow it
_SPACE = 0.07  # between the texts of one phrase
_MARGIN = 0.25
_LONGEST = 60  # characters of a phrase that are drawn
# matplotlib's layout of text keeps shared caches that are not made for threads.
_LOCK = threading.Lock()


def draw_tree(document: DefinitionTree, max_nodes: int = DEFAULT_NODES) -> Figure:
    """A figure of the ``max_nodes`` most probable nodes, as large as they need."""
    figure = Figure(dpi=100, facecolor=_PAPER)
    FigureCanvasAgg(figure)
    ruler = _Ruler(figure)
    placed = _place(phrases(document, max_nodes), ruler)
    width = max(8.0, 2 * _MARGIN + max((item.right for item in placed), default=0.0))
    heading = _wrap(_heading(document), width - 2 * _MARGIN, ruler, **_HEADING)
    caption_lines = [line for text in _caption(document, max_nodes)
                     for line in _wrap(text, width - 2 * _MARGIN, ruler, size=_SMALL)]
    rows = max((item.y for item in placed), default=0.0) + 1
    top, bottom = 0.3 + 0.25 * len(heading), 0.35 + 0.17 * len(caption_lines)
    height = top + rows * _ROW + bottom
    figure.set_size_inches(width, height)

    def xy(x: float, y: float) -> tuple[float, float]:
        return (_MARGIN + x) / width, 1 - (top + (y + 0.5) * _ROW) / height

    for item in placed:
        _draw_phrase(figure, item, xy)
    if not placed:
        _text(figure, *xy(0, 0), "No continuation reaches the cutoff. Lower it.", color=_FAINT)
    for i, line in enumerate(heading):
        _text(figure, _MARGIN / width, 1 - (0.28 + 0.25 * i) / height, line, color=_INK, **_HEADING)
    for i, line in enumerate(caption_lines):
        y = (bottom - 0.25 - 0.17 * i) / height
        _text(figure, _MARGIN / width, y, line, color=_FAINT, size=_SMALL)
    return figure


def render(
    document: DefinitionTree, formats: Sequence[str] = FORMATS, *, max_nodes: int = DEFAULT_NODES, dpi: int = 150
) -> dict[str, bytes]:
    """The figure as files, by format.

    Args:
        formats: some of ``FORMATS``.
        dpi: pixels per inch of a PNG.
    """
    software = f"sae-feature-multitool {document.settings.get('version', '')}".strip()
    files = {}
    with _LOCK, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # shown as a box
        figure = draw_tree(document, max_nodes)
        for name in formats:
            buffer = io.BytesIO()
            metadata = {"Software" if name == "png" else "Creator": software}
            figure.savefig(buffer, format=name, dpi=dpi, metadata=metadata)
            files[name] = buffer.getvalue()
    return files


@dataclass(frozen=True)
class _Piece:
    """A run of text in one colour and size; x in inches."""

    text: str
    x: float
    color: str
    size: float


@dataclass(frozen=True)
class _Placed:
    """A phrase with its place: x in inches, y in rows; ``start`` is where its link comes from."""

    pieces: list[_Piece]
    x: float
    right: float
    y: float
    start: tuple[float, float] | None
    share: float  # probability, relative to the most probable first phrase
    faintest: float  # ink of the least probable phrases


def _place(roots: list[Phrase], ruler: "_Ruler") -> list[_Placed]:
    placed: list[_Placed] = []
    best = max((phrase.cumulative_prob for phrase in roots), default=1.0) or 1.0

    def add(phrase: Phrase, x: float, first_row: float, start) -> None:
        # A phrase stands beside the middle of the rows that its leaves take, so no two labels share a place.
        y = first_row + (phrase.leaves - 1) / 2
        pieces, right = _pieces(phrase, x, ruler, is_root=start is None)
        # Where colour tells the lift, fading must leave it to be seen.
        faintest = 0.4 if phrase.lift is None else 0.75
        placed.append(_Placed(pieces, x, right, y, start, phrase.cumulative_prob / best, faintest))
        row = first_row
        for child in phrase.children:
            add(child, right + _GAP, row, (right, y))
            row += child.leaves

    row = 0
    for phrase in roots:
        add(phrase, 0.0, row, None)
        row += phrase.leaves
    return placed


def _pieces(phrase: Phrase, x: float, ruler: "_Ruler", is_root: bool) -> tuple[list[_Piece], float]:
    """A phrase's texts from ``x`` on, and where they end."""
    text = phrase.text.strip()
    text = text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
    wanted = [(text or "␣", _ink(phrase.lift), _SIZE)] if text or not phrase.ended else []
    if is_root:
        wanted.append((_percent(phrase.cumulative_prob), _FAINT, _SMALL))
    if phrase.ended:
        wanted.append((f"{END} {_percent(phrase.ended)}", _END, _SMALL))
    if phrase.hidden and not phrase.children:
        wanted.append(("…", _FAINT, _SIZE))
    pieces = []
    for words, color, size in wanted:
        pieces.append(_Piece(words, x, color, size))
        x += ruler.width(words, size) + _SPACE
    return pieces, x - _SPACE


def _ink(lift: float | None) -> str:
    """The colour of a phrase."""
    if lift is None:
        return _INK
    share = min(max(lift / _MOST_LIFT, 0.0), 1.0)
    generic, own = (np.array(to_rgb(colour)) for colour in (_GENERIC, _OWN))
    return to_hex(generic + share * (own - generic))


def _percent(probability: float) -> str:
    return f"{probability:.0%}" if probability >= 0.0995 else f"{100 * probability:.2g}%"


def _draw_phrase(figure: Figure, item: _Placed, xy) -> None:
    # Ink falls with the logarithm of the probability, to the faintest at a thousandth; widths with its root.
    ink = max(item.faintest, 1 + 0.6 * math.log10(max(item.share, 1e-9)) / 3)
    if item.start:
        (x0, y0), (x1, y1) = (item.start[0] + 0.05, item.start[1]), (item.x - 0.05, item.y)
        middle = (x0 + x1) / 2
        curve = Path([xy(x0, y0), xy(middle, y0), xy(middle, y1), xy(x1, y1)],
                     [Path.MOVETO, Path.CURVE4, Path.CURVE4, Path.CURVE4])
        width = 0.5 + 4.5 * math.sqrt(item.share)
        figure.add_artist(PathPatch(curve, fill=False, edgecolor=_LINK, linewidth=width, alpha=0.35 + 0.5 * ink,
                                    capstyle="round", transform=figure.transFigure))
    for piece in item.pieces:
        _text(figure, *xy(piece.x, item.y), piece.text, color=piece.color, size=piece.size, alpha=ink)


def _text(figure: Figure, x: float, y: float, text: str, **style) -> None:
    figure.text(x, y, text, ha="left", va="center", family=_FONTS, parse_math=False, **style)


class _Ruler:
    """Widths of labels in inches, as they will be drawn."""

    def __init__(self, figure: Figure):
        self._figure = figure
        self._renderer = figure.canvas.get_renderer()

    def width(self, text: str, size: float, **style) -> float:
        artist = Text(0, 0, text, size=size, **style, family=_FONTS, parse_math=False, figure=self._figure)
        return artist.get_window_extent(self._renderer).width / self._figure.dpi


def _wrap(text: str, width: float, ruler: _Ruler, *, size: float, **style) -> list[str]:
    """``text`` in lines of at most ``width`` inches."""
    characters = int(width * 18)  # more than fit of most texts; those of wide characters take fewer
    while True:
        lines = textwrap.wrap(text, characters) or [""]
        if characters < 8 or all(ruler.width(line, size, **style) <= width for line in lines):
            return lines
        characters = int(characters * 0.9)


def _heading(document: DefinitionTree) -> str:
    settings = document.settings
    return visible(f"{settings.get('sae')}  ·  feature {settings.get('feature')}")


def _caption(document: DefinitionTree, max_nodes: int) -> list[str]:
    """The whole recipe and what came of it, so that the figure alone can be reproduced."""
    s, vector, tree = document.settings, document.vector, document.tree
    weights = f"{s.get('weights')} weights"
    if s.get("weights") == "mix":
        weights += f" (encoder share {s.get('encoder_share')})"
    place = "centroid + " if s.get("centroid") else ""
    components = f", components {s.get('pca')}" if s.get("pca") else ""
    limits = f"cutoff {_number(s.get('cutoff'))}, top_k {s.get('top_k')}, depth to {s.get('max_depth')}"
    shown = min(max_nodes, len(tree))
    stop = "" if s.get("stop") else ", going on through closing quotes"
    state = "" if document.complete else "  INCOMPLETE: growth was stopped."
    at = f" at cutoff {_number(document.effective_cutoff)}" if document.effective_cutoff != s.get("cutoff") else ""
    lines = [
        f"{s.get('model')} ({s.get('dtype')})  ·  {place}{_number(s.get('scale'))} × {weights}{components}  ·  "
        f"distance from centroid {_number(vector.get('distance_from_centroid'))} "
        f"(tokens: {_number(vector.get('mean_token_distance'))})",
        f"prompt: {s.get('prompt')}",
        f"{limits}, at most {s.get('max_nodes')} nodes{stop}  ·  {len(tree)} nodes{at}, the {shown} most probable "
        f"drawn  ·  {END} a definition ends{state}",
    ]
    if tree.lifts is not None:
        lines.append(
            f"checked  ·  colour: lift, from grey (no more probable than under the centroid or a random ghost) to blue "
            f"({_MOST_LIFT:g} nats and more, {math.exp(_MOST_LIFT):.0f} times as probable)"
        )
        lines.append(str((document.evidence or {}).get("sentence", "")))
    return [visible(line) for line in lines if line]


def _number(value) -> str:
    # Six digits: a figure must give its settings back, not just their size.
    return f"{value:.6g}" if isinstance(value, (int, float)) else str(value)
