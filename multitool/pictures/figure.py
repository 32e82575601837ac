"""A definition tree as a figure. Only this module and ``fonts`` touch matplotlib.

Phrases run from left to right; a link's width and the ink of a phrase tell its probability. What follows the first
phrases stands in columns beside each other where that makes a figure of a page's shape. The caption holds the recipe,
so that a figure can be made again from what is on it. A checked tree is coloured by its lifts.
"""

import io
import json
import math
import textwrap
import threading
import unicodedata
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path as FilePath
from typing import Any

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch
from matplotlib.path import Path
from matplotlib.text import Text

from multitool._version import __version__
from multitool.errors import UserError, shown
from multitool.pictures.fonts import drawable, fonts_for
from multitool.recipes.captions import (
    distance_told,
    exact,
    feature_told,
    interventions_told,
    is_injected,
    top_k_told,
    weights_told,
)
from multitool.recipes.directions import takes
from multitool.recipes.fields import whole
from multitool.text import percent, visible
from multitool.trees.document import DefinitionTree
from multitool.trees.phrases import END, Phrase, Shown, shown_part

FORMATS = ("png", "svg", "pdf")
DEFAULT_NODES = 80  # more are drawn smaller than the page shows them
MOST_NODES = 1000
DEFAULT_DPI = 150
DPI = (50, 600)

matplotlib.rcParams["svg.fonttype"] = "none"  # text stays text
matplotlib.rcParams["svg.hashsalt"] = "sae-feature-multitool"  # or its ids would be other ones every time
matplotlib.rcParams["pdf.fonttype"] = 42
matplotlib.rcParams["text.hinting"] = "none"  # or texts would be wider or narrower with the resolution


@dataclass(frozen=True)
class _Palette:
    """Colours that are told apart by their lightness too, for eyes that see other hues."""

    paper: str
    ink: str
    faded: str  # the ink of the least probable phrases, still well readable
    faint: str
    link: str
    end: str
    # From a lift of 0 and less to one of _MOST_LIFT nats and more: what is the feature's own stands out.
    generic: str
    own: str


_LIGHT = _Palette("#ffffff", "#16222e", "#6d7780", "#66717b", "#7d98b3", "#b04a12", "#737d87", "#0050b0")
_DARK = _Palette("#0f172a", "#f1f5f9", "#8593a6", "#8b99ac", "#6b87a8", "#f5a16a", "#7f8da1", "#7cc4ff")

_MOST_LIFT = 6.0
_SIZE, _SMALL = 10.0, 7.5  # points
_HEADING: dict[str, Any] = {"size": 12, "weight": "bold"}
_ROW = 0.235  # inches from one line to the next
_GAP = 0.45  # inches between a phrase and those that follow it
_SPACE = 0.09  # between the texts of one phrase
_BETWEEN = 0.4  # lines between the first phrases
_MARGIN = 0.25
_NARROWEST = 6.5  # inches: a page's text
# Columns make a figure lower. No figure gets wider by them than can be read on a page laid across.
_WIDEST_BY_COLUMNS = 10.5
_COLUMN_GAP = 0.5
_MOST_COLUMNS = 3
_SHAPE = 4 / 3  # width to height of the phrases, the nearer the better
_LONGEST = 60  # characters of a phrase that are drawn
# Where less than this share of a phrase's probability is hidden, no mark tells it: behind the phrase, and beside its
# children, where the mark takes a line.
_WORTH_A_MARK, _WORTH_A_LINE = 0.01, 0.05
MOST_PIXELS = 50_000_000
# matplotlib's layout of text keeps shared caches that are not made for threads.
_LOCK = threading.Lock()


def draw_tree(
    document: DefinitionTree, max_nodes: int = DEFAULT_NODES, dark: bool = False, *, escaped: bool = True,
    fonts: tuple[str, ...] | None = None,
) -> Figure:
    """A figure of the ``max_nodes`` most probable nodes, as large as they need.

    Args:
        dark: light inks on a dark paper.
        escaped: draw characters that no font here has as escapes; if not, whatever shows the figure must have a font.
        fonts: families; of each character the first that has it. None: whatever this machine has for the texts.
    """
    palette = _DARK if dark else _LIGHT
    figure = Figure(dpi=100, facecolor=palette.paper)
    part = shown_part(document, max_nodes)
    fonts = fonts or fonts_for(_all_texts(document, part))
    ruler = _Ruler(FigureCanvasAgg(figure), fonts)
    spell = partial(_spelled, fonts) if escaped else _as_it_is
    write = partial(figure.text, ha="left", va="center", family=fonts, parse_math=False)
    placed = _place(part, ruler, palette, spell)
    width = max(_NARROWEST, 2 * _MARGIN + max((item.right for item in placed), default=0.0))
    heading = _wrap("".join(spell(_heading(document), _HEADING["weight"])), width - 2 * _MARGIN, ruler, **_HEADING)
    caption_lines = [line for parts in _caption(document, part)
                     for line in _packed(["".join(spell(text)) for text in parts], width - 2 * _MARGIN, ruler)]
    rows = max((item.y for item in placed), default=0.0) + 1
    top, bottom = 0.3 + 0.25 * len(heading), 0.35 + 0.17 * len(caption_lines)
    height = top + rows * _ROW + bottom
    figure.set_size_inches(width, height)

    def xy(x: float, y: float) -> tuple[float, float]:
        return (_MARGIN + x) / width, 1 - (top + (y + 0.5) * _ROW) / height

    for item in placed:
        _draw_phrase(figure, item, xy, palette, write)
    if not len(document.tree):
        write(*xy(0, 0), "No continuation reaches the cutoff. Lower it.", color=palette.faint)
    for i, line in enumerate(heading):
        write(_MARGIN / width, 1 - (0.28 + 0.25 * i) / height, line, color=palette.ink, **_HEADING)
    for i, line in enumerate(caption_lines):
        y = (bottom - 0.25 - 0.17 * i) / height
        write(_MARGIN / width, y, line, color=palette.faint, size=_SMALL)
    return figure


def render(
    document: DefinitionTree, formats: Sequence[str] = FORMATS, *, max_nodes: int = DEFAULT_NODES,
    dpi: int = DEFAULT_DPI, dark: bool = False, fonts: tuple[str, ...] | None = None, most_pixels: int = MOST_PIXELS,
) -> dict[str, bytes]:
    """The figure as files, by format.

    Args:
        formats: some of ``FORMATS``.
        max_nodes: draw this many, the most probable ones.
        dpi: pixels per inch of a PNG.
        dark: light inks on a dark paper.
        fonts: as for ``draw_tree``.
        most_pixels: of a PNG.

    Raises:
        UserError: max_nodes is not from 1 to ``MOST_NODES`` or dpi not within ``DPI``, or a PNG would have more than
            ``most_pixels``.
    """
    max_nodes = whole(max_nodes, "max_nodes", 1, MOST_NODES)
    dpi = whole(dpi, "dpi", *DPI)
    figures: dict[bool, Figure] = {}
    files = {}
    with _LOCK, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # in an SVG they are the viewer's task
        for name in sorted(formats, key=lambda name: name != "svg"):
            escaped = name != "svg"  # an SVG's text is text, and its viewer has more fonts
            if escaped not in figures:
                other = figures.get(not escaped)
                if other is None or any(map(_missing, other.texts)):
                    other = draw_tree(document, max_nodes, dark, escaped=escaped, fonts=fonts)
                figures[escaped] = other
            figure = figures[escaped]
            options: dict[str, Any] = {}
            if name == "png":
                _check_pixels(figure, dpi, most_pixels)
                options["pil_kwargs"] = {"compress_level": 4}  # half the time of 6 for 1 % more bytes
            buffer = io.BytesIO()
            figure.savefig(buffer, format=name, dpi=dpi, metadata=_metadata(document, name, max_nodes), **options)
            files[name] = buffer.getvalue()
    return {name: files[name] for name in formats}


@dataclass(frozen=True)
class Picture:
    """A tree's figure. A notebook shows it by itself; ``save`` writes it.

    Args:
        max_nodes, dpi, dark: as for ``render``; so are the errors.

    >>> tree = mt.definition_tree(library, vector, mt.TreeRecipe(cutoff=5e-3))
    >>> mt.Picture(tree, dark=True).save("tree.pdf")
    """

    tree: DefinitionTree
    max_nodes: int = DEFAULT_NODES
    dpi: int = DEFAULT_DPI
    dark: bool = False

    def __post_init__(self):
        whole(self.max_nodes, "max_nodes", 1, MOST_NODES)
        whole(self.dpi, "dpi", *DPI)

    def save(self, file: str | FilePath) -> None:
        """Write the figure; the file's name ends in .png, .svg or .pdf.

        Raises:
            UserError: it ends in none of these, or the figure is too large for a PNG.
        """
        kind = FilePath(file).suffix.lower().removeprefix(".")
        if kind not in FORMATS:
            raise UserError(f"file is {shown(str(file))}; its ending tells the format, one of .{', .'.join(FORMATS)}.")
        FilePath(file).write_bytes(self._file(kind))

    def _file(self, kind: str) -> bytes:
        return render(self.tree, [kind], max_nodes=self.max_nodes, dpi=self.dpi, dark=self.dark)[kind]

    def _repr_png_(self) -> tuple[bytes, dict[str, int]]:
        """The PNG, and how large a notebook shows it: as many inches as it has, of 96 of a page's pixels each."""
        png = self._file("png")
        width, height = (int.from_bytes(png[at : at + 4]) for at in (16, 20))  # where a PNG tells its size
        return png, {"width": round(width * 96 / self.dpi), "height": round(height * 96 / self.dpi)}


def _check_pixels(figure: Figure, dpi: int, most_pixels: int) -> None:
    width, height = figure.get_size_inches()
    most = math.floor(math.sqrt(most_pixels / (width * height)))
    if dpi <= most:
        return
    valid = f"valid is at most {most}. Lower it, or draw" if most >= DPI[0] else "it is too large for a PNG. Draw"
    raise UserError(
        f"dpi is {dpi}; for this picture of {width:.0f} by {height:.0f} inches {valid} fewer nodes, or take the SVG "
        "or PDF, which are sharp at any size."
    )


def _metadata(document: DefinitionTree, name: str, max_nodes: int) -> dict:
    """What a file tells about itself: the exact settings too, which the caption may round."""
    result = {"effective_cutoff": document.effective_cutoff, "complete": document.complete, "drawn": max_nodes}
    if document.least_lift is not None:
        result["least_lift"] = document.least_lift
    # Escapes in place of all but ASCII: neither a PNG's text chunks nor a PDF's strings nor XML can trip over it.
    recipe = json.dumps({"settings": document.settings, "result": result})
    software, title = f"sae-feature-multitool {__version__}", f"Definition tree of {_heading(document)}"
    if name == "png":
        return {"Software": software, "Title": title, "Description": recipe}
    # Without dates, the same tree gives the same file.
    if name == "svg":
        return {"Creator": software, "Title": title, "Description": recipe, "Date": None}
    return {"Creator": software, "Title": title, "Subject": recipe, "Keywords": "SAE feature, definition tree",
            "CreationDate": None}


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


def _place(part: Shown, ruler: "_Ruler", palette: _Palette, spell: Callable) -> list[_Placed]:
    best = max((phrase.cumulative_prob for phrase in part.phrases), default=1.0) or 1.0

    def below(phrase: Phrase, x: float, first_row: float, start) -> list[_Placed]:
        # A phrase stands beside the middle of the rows that follow it, so no two labels share a place.
        y = first_row + (_rows(phrase) - 1) / 2
        share = phrase.cumulative_prob / best
        pieces, right = _set(_wanted(phrase, share, palette, spell, is_root=start is None), x, ruler)
        placed = [_Placed(pieces, x, right, y, start, share)]
        row = first_row
        for child in phrase.children:
            placed += below(child, right + _GAP, row, (right, y))
            row += _rows(child)
        if _takes_a_line(phrase):
            placed += mark(phrase.hidden_prob, right + _GAP, row, (right, y))
        return placed

    def mark(hidden_prob: float, x: float, row: float, start) -> list[_Placed]:
        pieces, right = _set([_hidden_mark(hidden_prob, palette)], x, ruler)
        return [_Placed(pieces, x, right, row, start, hidden_prob / best)]

    blocks = [below(phrase, 0.0, 0.0, None) for phrase in part.phrases]
    if part.hidden:
        blocks.append(mark(part.hidden_prob, 0.0, 0.0, None))
    return _in_columns(blocks)


def _in_columns(blocks: list[list[_Placed]]) -> list[_Placed]:
    """The first phrases with what follows them, below each other or in the columns that give the better shape."""
    rows = [max(item.y for item in block) + 1 + _BETWEEN for block in blocks]
    rights = [max(item.right for item in block) for block in blocks]

    def size(columns: list[range]) -> tuple[float, float]:
        width = sum(max(rights[i] for i in column) for column in columns) + _COLUMN_GAP * (len(columns) - 1)
        return width, max(sum(rows[i] for i in column) for column in columns) * _ROW

    def misshapen(columns: list[range]) -> float:
        width, height = size(columns)
        return abs(math.log(max(width, _NARROWEST) / height / _SHAPE))

    ways = [way for n in range(1, _MOST_COLUMNS + 1) if (way := parted(rows, n))]
    fitting = [way for way in ways if len(way) == 1 or size(way)[0] + 2 * _MARGIN <= _WIDEST_BY_COLUMNS]
    placed, x = [], 0.0
    for column in min(fitting, key=misshapen, default=[]):
        y = 0.0
        for i in column:
            placed += [_moved(item, x, y) for item in blocks[i]]
            y += rows[i]
        x += max(rights[i] for i in column) + _COLUMN_GAP
    return placed


def parted(rows: list[float], n: int) -> list[range]:
    """What ``rows`` tall blocks make ``n`` columns, in their order, the tallest as low as can be; [] if none do."""
    if not rows or n > len(rows):
        return []
    limit = max(max(rows), sum(rows) / n)
    while True:
        columns, first, height = [], 0, 0.0
        for i, more in enumerate(rows):
            if height and height + more > limit:
                columns.append(range(first, i))
                first, height = i, 0.0
            height += more
        columns.append(range(first, len(rows)))
        if len(columns) <= n:
            return columns
        limit += 0.5


def _moved(item: _Placed, x: float, y: float) -> _Placed:
    """An item farther right and down, in inches and rows."""
    return replace(
        item, pieces=[replace(piece, x=piece.x + x) for piece in item.pieces], x=item.x + x, right=item.right + x,
        y=item.y + y, start=item.start and (item.start[0] + x, item.start[1] + y),
    )


def _rows(phrase: Phrase) -> int:
    """The lines that a phrase and all that follows it take."""
    return (sum(_rows(child) for child in phrase.children) or 1) + _takes_a_line(phrase)


def _takes_a_line(phrase: Phrase) -> bool:
    """Whether a mark beside the phrase's children tells what is hidden."""
    return bool(phrase.children) and phrase.hidden_prob > _WORTH_A_LINE * phrase.cumulative_prob


def _wanted(
    phrase: Phrase, share: float, palette: _Palette, spell: Callable, is_root: bool
) -> list[tuple[str, str, float]]:
    """A phrase's texts with their colours and sizes."""
    text = _shortened(spell(phrase.label))
    # Where colour tells the lift, only links fade.
    color = _ink(share, palette) if phrase.lift is None else _lift_color(phrase.lift, palette)
    # What only ends is told by its mark alone.
    wanted = [(text, color, _SIZE)] if phrase.text.strip() or not phrase.ended else []
    if is_root:
        wanted.append((percent(phrase.cumulative_prob), palette.faint, _SMALL))
    if phrase.ended:
        wanted.append((f"{END} {percent(phrase.definition)}", palette.end, _SMALL))
    if not phrase.children and phrase.hidden_prob > _WORTH_A_MARK * phrase.cumulative_prob:
        wanted.append(_hidden_mark(phrase.hidden_prob, palette))
    return wanted


def _set(wanted: list[tuple[str, str, float]], x: float, ruler: "_Ruler") -> tuple[list[_Piece], float]:
    """Texts one after another from ``x`` on, and where they end."""
    pieces = []
    for words, color, size in wanted:
        pieces.append(_Piece(words, x, color, size))
        x += ruler.width(words, size) + _SPACE
    return pieces, x - _SPACE


def _hidden_mark(probability: float, palette: _Palette) -> tuple[str, str, float]:
    return f"… {percent(probability)}", palette.faint, _SMALL


def _shortened(characters: Sequence[str]) -> str:
    """The text of these characters (some of them escapes) in at most ``_LONGEST``."""
    text = "".join(characters)
    if len(text) <= _LONGEST:
        return text
    kept, length = [], 0
    for character in characters:
        length += len(character)
        if length >= _LONGEST:
            break
        kept.append(character)
    return "".join(kept) + "…"


def _ink(share: float, palette: _Palette) -> str:
    """The colour of a phrase: it fades with the logarithm of the probability, to the faintest at a thousandth."""
    return _between(palette.faded, palette.ink, 1 + math.log10(max(share, 1e-9)) / 3)


def _lift_color(lift: float, palette: _Palette) -> str:
    return _between(palette.generic, palette.own, lift / _MOST_LIFT)


def _between(low: str, high: str, share: float) -> str:
    first, last = (np.array(to_rgb(colour)) for colour in (low, high))
    return to_hex(first + min(max(share, 0.0), 1.0) * (last - first))


def _draw_phrase(figure: Figure, item: _Placed, xy, palette: _Palette, write: Callable) -> None:
    if item.start:
        (x0, y0), (x1, y1) = (item.start[0] + 0.07, item.start[1]), (item.x - 0.07, item.y)
        middle = (x0 + x1) / 2
        curve = Path([xy(x0, y0), xy(middle, y0), xy(middle, y1), xy(x1, y1)],
                     [Path.MOVETO, Path.CURVE4, Path.CURVE4, Path.CURVE4])
        # Widths grow with the root of the probability, so that the small ones stay to be seen.
        width = 0.5 + 4.5 * math.sqrt(item.share)
        alpha = max(0.6, 0.85 + 0.1 * math.log10(max(item.share, 1e-9)))
        figure.add_artist(PathPatch(curve, fill=False, edgecolor=palette.link, linewidth=width, alpha=alpha,
                                    capstyle="round", transform=figure.transFigure))
    for piece in item.pieces:
        write(*xy(piece.x, item.y), piece.text, color=piece.color, size=piece.size)


def _all_texts(document: DefinitionTree, part: Shown) -> str:
    phrases = list(part.phrases)
    for phrase in phrases:
        phrases += phrase.children
    labels = [phrase.label for phrase in phrases]
    return "".join([_heading(document), *chain(*_caption(document, part)), *labels])


def _missing(artist: Text) -> bool:
    drawn = drawable(tuple(artist.get_fontfamily()), artist.get_fontweight())
    return not drawn.issuperset(map(ord, artist.get_text()))


def _spelled(fonts: tuple[str, ...], text: str, weight: str = "normal") -> list[str]:
    """The characters of ``text``, those that no font here has as escapes."""
    drawn = drawable(fonts, weight)
    return [character if ord(character) in drawn else character.encode("unicode_escape").decode()
            for character in text]


def _as_it_is(text: str, weight: str = "normal") -> list[str]:
    return list(text)


class _Ruler:
    """Widths of labels in inches, as they will be drawn."""

    def __init__(self, canvas: FigureCanvasAgg, fonts: tuple[str, ...]):
        self._figure, self._fonts = canvas.figure, fonts
        self._renderer = canvas.get_renderer()

    def width(self, text: str, size: float, **style) -> float:
        # A wide character that no font here has takes a square in the font of an SVG's viewer, and a box here.
        viewed = "".join("—" if ord(character) not in drawable(self._fonts, "normal") and
                         unicodedata.east_asian_width(character) in "WF" else character for character in text)
        return max(self._measured(words, size=size, **style) for words in {text, viewed})

    def _measured(self, text: str, **style) -> float:
        artist = Text(0, 0, text, **style, family=self._fonts, parse_math=False, figure=self._figure)
        return artist.get_window_extent(self._renderer).width / self._figure.dpi


def _wrap(text: str, width: float, ruler: _Ruler, *, size: float, **style) -> list[str]:
    """``text`` in lines of at most ``width`` inches."""
    characters = int(width * 18)  # more than fit of most texts; those of wide characters take fewer
    while True:
        lines = textwrap.wrap(text, characters) or [""]
        if characters < 8 or all(ruler.width(line, size, **style) <= width for line in lines):
            return lines
        characters = int(characters * 0.9)


def _packed(parts: list[str], width: float, ruler: _Ruler) -> list[str]:
    """``parts`` in lines of at most ``width`` inches, broken between them where possible."""
    lines: list[str] = []
    for part in parts:
        longer = f"{lines[-1]}  ·  {part}" if lines else part
        if lines and ruler.width(longer, _SMALL) <= width:
            lines[-1] = longer
        else:
            lines += _wrap(part, width, ruler, size=_SMALL)
    return lines


def _heading(document: DefinitionTree) -> str:
    return visible(feature_told(document.settings, "  ·  "))


def _caption(document: DefinitionTree, part: Shown) -> list[list[str]]:
    """The whole recipe and what came of it, so that the figure alone can be reproduced: paragraphs of short parts."""
    s = document.settings
    weights = weights_told(s) if takes(s.get("weights"), "tokens") else f"{weights_told(s)} weights"
    if takes(s.get("weights"), "encoder_share"):
        weights += f" (encoder share {exact(s.get('encoder_share'))})"
    length = f"{'centroid + ' if s.get('centroid') else ''}{exact(s.get('scale'))}"
    if is_injected(s):
        length = f"{exact(s.get('inject_scale'))} mean residual norms"
    pca = s.get("pca")
    components = [f"components [{', '.join(map(exact, pca))}]"] if isinstance(pca, list) and pca else []
    paragraphs = [
        [f"{s.get('model')} ({s.get('dtype')})", f"{length} × {weights}", *components,
         distance_told(s, document.vector)],
        *([told] if (told := interventions_told(s)) else []),
        [f"prompt: {document.asked}"],
        _limits(document),
        [*_drawn(document, part), f"sae-feature-multitool {s.get('version')}"],
        *_checked(document),
    ]
    return [[visible(text) for text in parts if text] for parts in paragraphs]


def _limits(document: DefinitionTree) -> list[str]:
    s = document.settings
    limits = [
        f"cutoff {exact(s.get('cutoff'))}, {top_k_told(s)}, depth to {s.get('max_depth')}, at most "
        f"{s.get('max_nodes')} nodes" + ("" if s.get("stop") else ", going on through closing quotes")
    ]
    found = f"{len(document.tree)} nodes"
    if document.effective_cutoff != s.get("cutoff"):
        found += f" at cutoff {exact(document.effective_cutoff)}"
    if document.least_lift is not None:
        found += f" on branches with a lift of at least {exact(document.least_lift)} nats"
    return [*limits, found, "" if document.complete else "INCOMPLETE: growth was stopped"]


def _drawn(document: DefinitionTree, part: Shown) -> list[str]:
    """How much of the tree and of the model's answers the figure holds, and what its marks say."""
    drawn = "all drawn" if part.nodes == len(document.tree) else f"the {part.nodes} most probable drawn"
    # Of a file from elsewhere the probabilities may add up to anything.
    covered = f"{percent(min(part.covered, 1.0))} of the model's answers follow a drawn path to its end"
    ends = f"{END} a definition ends, with its probability in all spellings"
    return [drawn, covered, ends, "… further answers, not drawn"]


def _checked(document: DefinitionTree) -> list[list[str]]:
    if document.tree.lifts is None:
        return []
    return [
        ["colour: lift, how much more probable than under the centroid and random ghosts", "grey: no more",
         f"blue: {_MOST_LIFT:g} nats ({math.exp(_MOST_LIFT):.0f} times) and more"],
        [str((document.evidence or {}).get("sentence", ""))],
    ]
