"""A definition tree drawn: the tree itself, or its definitions as a list.

Phrases run from left to right; a link's width and the ink of a phrase tell its probability. What follows the first
phrases stands in columns beside each other where that makes a figure of a page's shape. The caption holds the recipe,
so that a figure can be made again from what is on it. A checked tree is coloured by its lifts.

For a paper a figure has the width of a column, type that is read there without scaling, and no caption: the paper has
its own, and the file still tells the recipe.
"""

import math
from collections.abc import Callable
from functools import partial
from itertools import chain
from typing import Any, Literal

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch
from matplotlib.path import Path

from multitool.errors import UserError, is_number, shown
from multitool.pictures.fonts import drawable, fonts_for
from multitool.pictures.placing import (
    MOST_LIFT,
    NARROWEST,
    PRINT,
    SCREEN,
    Palette,
    Placed,
    Sizes,
    lift_color,
    place,
    shortened,
)
from multitool.pictures.ruler import Ruler
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
from multitool.text import percent, visible
from multitool.trees.document import UNFINISHED, DefinitionTree
from multitool.trees.phrases import END, Shown, shown_part
from multitool.trees.tree import Definition

Kind = Literal["tree", "definitions"]
DEFAULT_NODES = 80  # more are drawn smaller than the page shows them
DEFAULT_DEFINITIONS = 15
WIDTHS = {"single": 3.3, "double": 7.0}  # inches: of one column of a journal's page, and of two
WIDTH = (2.0, 20.0)
_LIGHT = Palette("#ffffff", "#16222e", "#6d7780", "#66717b", "#7d98b3", "#b04a12", "#737d87", "#0050b0")
_DARK = Palette("#0f172a", "#f1f5f9", "#8593a6", "#8b99ac", "#6b87a8", "#f5a16a", "#7f8da1", "#7cc4ff")
_POINTS = 72  # in an inch
_EMPTY = "No continuation reaches the cutoff. Lower it."
_TALLEST = 9.0  # inches: in a column's width no tree is drawn that is taller than a page
# What a line of a phrase may take of a column, tried one after another until the tree is no wider than the column.
_WRAPS = (None, 2.6, 2.1, 1.7, 1.4, 1.15, 0.95, 0.8, 0.65, 0.5)
_LONGEST_DEFINITION = 400  # characters that are drawn


def usual_number(kind: str = "tree", width: float | None = None) -> int:
    """How many nodes, or definitions, are drawn where nobody says it: what is well read in that width, in inches."""
    if kind == "definitions":
        return DEFAULT_DEFINITIONS
    return DEFAULT_NODES if width is None or width >= 5 else DEFAULT_NODES // 2


def inches(width: float | str | None) -> float | None:
    """A width as ``single``, ``double`` or a number of inches, in inches; None stays None: as wide as it needs.

    Raises:
        UserError: it is none of these.
    """
    if width is None:
        return None
    if isinstance(width, str) and width in WIDTHS:
        return WIDTHS[width]
    low, high = WIDTH
    if not is_number(width) or not low <= width <= high:
        named = ", ".join(f"{name} ({told} inches)" for name, told in WIDTHS.items())
        raise UserError(f"width is {shown(width)}; valid are {named}, or a number of inches from {low:g} to {high:g}.")
    return float(width)


class _Sheet:
    """A figure that is being drawn, before its size is known: how texts are written on it, and how large.

    Args:
        width: inches, or None for as wide as is needed.
        texts: all that will be written.
        escaped, fonts: as for ``draw_tree``.
    """

    def __init__(self, dark: bool, width: float | None, texts: str, escaped: bool, fonts: tuple[str, ...] | None):
        self.palette: Palette = _DARK if dark else _LIGHT
        self.sizes: Sizes = SCREEN if width is None else PRINT
        self.figure = Figure(dpi=100, facecolor=self.palette.paper)
        self._fonts = fonts or fonts_for(texts)
        self.ruler = Ruler(FigureCanvasAgg(self.figure), self._fonts)
        self.spell = partial(_spelled, self._fonts) if escaped else _as_it_is

    def write(self, x: float, y: float, text: str, *, side: str = "left", **style) -> None:
        """A text on one line, its ``side`` at x, its middle at y, both in shares of the figure."""
        self.figure.text(x, y, text, ha=side, va="center", family=self._fonts, parse_math=False, **style)

    def spelled(self, text: str, weight: str = "normal") -> str:
        return "".join(self.spell(text, weight))

    def frame(self, document: DefinitionTree, width: float, body: float, caption: list[list[str]] | None) -> float:
        """Give the figure its size, and write what stands around its body; where that begins, in inches from above.

        Args:
            width, body: inches, of the figure and of its body's height.
            caption: paragraphs of short parts; None for none, and no heading.
        """
        sizes, ruler = self.sizes, self.ruler
        inner = width - 2 * sizes.margin
        if caption is None:
            self.figure.set_size_inches(width, body + 2 * sizes.margin)
            return sizes.margin
        style: dict[str, Any] = {"size": sizes.heading, "weight": "bold"}
        head = ruler.wrapped(self.spelled(heading(document), "bold"), inner, **style)
        lines = [line for parts in caption
                 for line in ruler.packed([self.spelled(text) for text in parts], inner, size=sizes.small)]
        # The middle of the first line.
        first = max(sizes.margin + 0.12 * sizes.heading_line, 0.8 * sizes.heading / _POINTS)
        top = first + 0.02 + sizes.heading_line * len(head)
        bottom = sizes.above_caption + 0.1 + sizes.line * len(lines)
        height = top + body + bottom
        self.figure.set_size_inches(width, height)
        for i, line in enumerate(head):
            self.write(sizes.margin / width, 1 - (first + sizes.heading_line * i) / height, line,
                       color=self.palette.ink, **style)
        for i, line in enumerate(lines):
            y = (bottom - sizes.above_caption - sizes.line * i) / height
            self.write(sizes.margin / width, y, line, color=self.palette.faint, size=sizes.small)
        return top


def draw_tree(
    document: DefinitionTree, max_nodes: int | None = None, dark: bool = False, *, escaped: bool = True,
    fonts: tuple[str, ...] | None = None, caption: bool = True, width: float | None = None,
) -> Figure:
    """A figure of the ``max_nodes`` most probable nodes, as large as they need.

    Args:
        max_nodes: None for ``usual_number``.
        dark: light inks on a dark paper.
        escaped: draw characters that no font here has as escapes; if not, whatever shows the figure must have a font.
        fonts: families; of each character the first that has it. None: whatever this machine has for the texts.
        caption: write the feature above the tree and the recipe below it.
        width: inches that the figure has, with type of a size for print. Long phrases take several lines then; and
            where not even that makes room on a page, fewer nodes are drawn.
    """
    max_nodes = usual_number("tree", width) if max_nodes is None else max_nodes
    part = shown_part(document, max_nodes)
    sheet = _Sheet(dark, width, _all_texts(document, part), escaped, fonts)
    sizes = sheet.sizes
    part, placed = _fitted(document, part, sheet, width)
    rows = max((item.y + (item.rows + 1) / 2 for item in placed), default=1.0)
    wide = width or max(NARROWEST, 2 * sizes.margin + max((item.right for item in placed), default=0.0))
    told = _caption(document, _drawn(document, part)) if caption else None
    top = sheet.frame(document, wide, rows * sizes.row, told)
    height = sheet.figure.get_figheight()

    def xy(x: float, y: float) -> tuple[float, float]:
        return (sizes.margin + x) / wide, 1 - (top + (y + 0.5) * sizes.row) / height

    for item in placed:
        _draw_phrase(sheet, item, xy)
    if not len(document.tree):
        sheet.write(*xy(0, 0), _EMPTY, color=sheet.palette.faint,
                    size=sizes.text)
    return sheet.figure


def _fitted(
    document: DefinitionTree, part: Shown, sheet: _Sheet, width: float | None
) -> tuple[Shown, list[Placed]]:
    """A part of a tree as it is placed; with a width, so that it has room there on a page."""
    placing = partial(place, ruler=sheet.ruler, palette=sheet.palette, sizes=sheet.sizes, spell=sheet.spell)
    if width is None:
        return part, placing(part)
    inner = width - 2 * sheet.sizes.margin
    while True:
        for wrap in _WRAPS:
            placed = placing(part, width=inner, wrap=wrap)
            right = max((item.right for item in placed), default=0.0)
            bottom = max((item.y + 1 for item in placed), default=0.0) * sheet.sizes.row
            if right <= inner and bottom <= _TALLEST:
                return part, placed
        if part.nodes <= 1:
            return part, placed
        part = shown_part(document, max(1, int(0.8 * part.nodes)))


def draw_definitions(
    document: DefinitionTree, n: int | None = None, dark: bool = False, *, escaped: bool = True,
    fonts: tuple[str, ...] | None = None, caption: bool = True, width: float | None = None,
) -> Figure:
    """A figure of the ``n`` most probable definitions, complete ones first, as a list with their probabilities.

    Args:
        n: None for ``usual_number``.
        dark, escaped, fonts, caption, width: as for ``draw_tree``.
    """
    found = document.definitions(usual_number("definitions") if n is None else n)
    texts = [*map(_definition_told, found), UNFINISHED]
    sheet = _Sheet(dark, width, "".join([*texts, _around(document, [])]), escaped, fonts)
    sizes, palette, ruler = sheet.sizes, sheet.palette, sheet.ruler
    wide = width or NARROWEST
    figures = [percent(one.probability) for one in found]
    left = max((ruler.width(figure, sizes.small) for figure in figures), default=0.0) + 2 * sizes.space
    room = wide - 2 * sizes.margin - left
    lift = document.tree.lift

    placed: list[tuple[float, float, str, str, float, str]] = []  # x, row, text, colour, size, side that x is of
    row, drawn = 0.0, 0
    for one, figure in zip(found, figures, strict=True):
        lines = ruler.lines(shortened(sheet.spell(_definition_told(one)), _LONGEST_DEFINITION), sizes.text, room)
        if width and drawn and (row + 2 + 0.8 * len(lines)) * sizes.row > _TALLEST:
            break
        if not one.complete and (drawn == 0 or found[drawn - 1].complete):
            row += 0.4 * (row > 0)
            placed.append((0.0, row, UNFINISHED, palette.faint, sizes.small, "left"))
            row += 1
        color = palette.ink if one.complete else palette.faded
        color = color if lift is None else lift_color(float(lift[one.node]), palette)
        placed.append((left - 2 * sizes.space, row, figure, palette.faint, sizes.small, "right"))
        placed += [(left, row + 0.8 * i, line, color, sizes.text, "left") for i, line in enumerate(lines)]
        row, drawn = row + 1 + 0.8 * (len(lines) - 1), drawn + 1
    if not found:
        placed.append((0.0, 0.0, _EMPTY, palette.faint, sizes.text, "left"))
    told = _caption(document, _listed(document, drawn)) if caption else None
    top = sheet.frame(document, wide, max(row, 1.0) * sizes.row, told)
    height = sheet.figure.get_figheight()
    for x, at, text, color, size, side in placed:
        sheet.write((sizes.margin + x) / wide, 1 - (top + (at + 0.5) * sizes.row) / height, text, color=color,
                    size=size, side=side)
    return sheet.figure


def _definition_told(one: Definition) -> str:
    return (visible(one.text).strip() or "␣") + ("" if one.complete else " …")


def _draw_phrase(sheet: _Sheet, item: Placed, xy: Callable) -> None:
    if item.start:
        beside = 0.155 * sheet.sizes.gap
        (x0, y0), (x1, y1) = (item.start[0] + beside, item.start[1]), (item.x - beside, item.y)
        middle = (x0 + x1) / 2
        curve = Path([xy(x0, y0), xy(middle, y0), xy(middle, y1), xy(x1, y1)],
                     [Path.MOVETO, Path.CURVE4, Path.CURVE4, Path.CURVE4])
        # Widths grow with the root of the probability, so that the small ones stay to be seen.
        width = 0.5 + sheet.sizes.link * math.sqrt(item.share)
        alpha = max(0.6, 0.85 + 0.1 * math.log10(max(item.share, 1e-9)))
        sheet.figure.add_artist(PathPatch(curve, fill=False, edgecolor=sheet.palette.link, linewidth=width, alpha=alpha,
                                          capstyle="round", transform=sheet.figure.transFigure))
    for piece in item.pieces:
        x, y = xy(piece.x, item.row_of(piece))
        sheet.write(x, y, piece.text, color=piece.color, size=piece.size)


def _all_texts(document: DefinitionTree, part: Shown) -> str:
    phrases = list(part.phrases)
    for phrase in phrases:
        phrases += phrase.children
    return "".join([_around(document, _drawn(document, part)), *(phrase.label for phrase in phrases)])


def _around(document: DefinitionTree, drawn: list[str]) -> str:
    """What a heading and a caption say."""
    return "".join([heading(document), *chain(*_caption(document, drawn))])


def _spelled(fonts: tuple[str, ...], text: str, weight: str = "normal") -> list[str]:
    """The characters of ``text``, those that no font here has as escapes."""
    drawn = drawable(fonts, weight)
    return [character if ord(character) in drawn else character.encode("unicode_escape").decode()
            for character in text]


def _as_it_is(text: str, weight: str = "normal") -> list[str]:
    return list(text)


def heading(document: DefinitionTree) -> str:
    """Which feature it is of."""
    return visible(feature_told(document.settings, "  ·  "))


def _caption(document: DefinitionTree, drawn: list[str]) -> list[list[str]]:
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
        [*drawn, f"sae-feature-multitool {s.get('version')}"],
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


def _listed(document: DefinitionTree, drawn: int) -> list[str]:
    """How many of the definitions a list holds."""
    n = len(document.definitions())
    told = "all definitions" if drawn == n else f"the {drawn} most probable of {n} definitions"
    return [told, "with their probability, in all spellings"]


def _checked(document: DefinitionTree) -> list[list[str]]:
    if document.tree.lifts is None:
        return []
    return [
        ["colour: lift, how much more probable than under the centroid and random ghosts", "grey: no more",
         f"blue: {MOST_LIFT:g} nats ({math.exp(MOST_LIFT):.0f} times) and more"],
        [str((document.evidence or {}).get("sentence", ""))],
    ]
