"""Where the phrases of a tree stand in a figure: from left to right, and below each other or in columns."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from matplotlib.colors import to_hex, to_rgb

from multitool.pictures.ruler import Ruler
from multitool.text import percent
from multitool.trees.phrases import END, Phrase, Shown


@dataclass(frozen=True)
class Palette:
    """Colours that are told apart by their lightness too, for eyes that see other hues."""

    paper: str
    ink: str
    faded: str  # the ink of the least probable phrases, still well readable
    faint: str
    link: str
    end: str
    # From a lift of 0 and less to one of MOST_LIFT nats and more: what is the feature's own stands out.
    generic: str
    own: str


@dataclass(frozen=True)
class Sizes:
    """How large things are drawn: type in points, all else in inches."""

    text: float
    small: float
    heading: float
    row: float  # from one line of the tree to the next
    gap: float  # between a phrase and those that follow it
    space: float  # between the texts of one phrase
    between: float  # lines between the first phrases
    margin: float
    link: float  # points: the widest link's width over the narrowest's
    column_gap: float
    line: float  # from one line of the caption to the next
    above_caption: float  # from the body to its first line
    heading_line: float


SCREEN = Sizes(10, 7.5, 12, row=0.235, gap=0.45, space=0.09, between=0.4, margin=0.25, link=4.5, column_gap=0.5,
               line=0.17, above_caption=0.25, heading_line=0.25)
# For a column of print, where a figure is not scaled: journals ask for 6 points at least.
PRINT = Sizes(7.5, 6.25, 8, row=0.15, gap=0.24, space=0.05, between=0.3, margin=0.04, link=2.7, column_gap=0.16,
              line=0.115, above_caption=0.14, heading_line=0.15)
MOST_LIFT = 6.0
# Columns make a figure lower. No figure gets wider by them than can be read on a page laid across.
_WIDEST_BY_COLUMNS = 10.5
_MOST_COLUMNS = 3
_SHAPE = 4 / 3  # width to height of the phrases, the nearer the better
NARROWEST = 6.5  # inches: a page's text
_LONGEST = 60  # characters of a phrase that are drawn
_LEADING = 0.8  # rows from one line of a phrase to its next
# Where less than this share of a phrase's probability is hidden, no mark tells it: behind the phrase, and beside its
# children, where the mark takes a line.
_WORTH_A_MARK, _WORTH_A_LINE = 0.01, 0.05


@dataclass(frozen=True)
class Piece:
    """A run of text in one colour and size; x in inches, ``line`` counted from the phrase's first one."""

    text: str
    x: float
    line: int
    color: str
    size: float


@dataclass(frozen=True)
class Placed:
    """A phrase with its place: x in inches, y in rows, of its middle; ``start`` is where its link comes from."""

    pieces: list[Piece]
    x: float
    right: float
    y: float
    start: tuple[float, float] | None
    share: float  # probability, relative to the most probable first phrase

    @property
    def lines(self) -> int:
        return max((piece.line for piece in self.pieces), default=0) + 1

    def row_of(self, piece: Piece) -> float:
        """Where a line of it stands, in rows."""
        return self.y + (piece.line - (self.lines - 1) / 2) * _LEADING

    @property
    def rows(self) -> float:
        """What its own lines take."""
        return 1 + (self.lines - 1) * _LEADING


@dataclass(frozen=True)
class _Block:
    """A phrase that stands at x = 0, its middle at y = 0, and what follows it."""

    own: Placed
    following: list["_Block"]

    @property
    def rows(self) -> float:
        return max(self.own.rows, self.rows_following)

    @property
    def rows_following(self) -> float:
        return sum(block.rows for block in self.following)


def place(part: Shown, ruler: Ruler, palette: Palette, sizes: Sizes, spell: Callable, *,
          width: float | None = None, wrap: float | None = None) -> list[Placed]:
    """The phrases, placed.

    Args:
        width: inches that columns may take together; None: what gives a page's shape.
        wrap: inches that the words of a line of a phrase may take; None: any.
    """
    best = max((phrase.cumulative_prob for phrase in part.phrases), default=1.0) or 1.0

    def measured(wanted: list[tuple[str, str, float]], share: float, following: list[_Block]) -> _Block:
        pieces, right = _set(wanted, ruler, sizes, wrap)
        return _Block(Placed(pieces, 0.0, right, 0.0, None, share), following)

    def mark(hidden_prob: float) -> _Block:
        return measured([_hidden_mark(hidden_prob, palette, sizes)], hidden_prob / best, [])

    def block(phrase: Phrase, is_root: bool) -> _Block:
        following = [block(child, False) for child in phrase.children]
        if _takes_a_line(phrase):
            following.append(mark(phrase.hidden_prob))
        share = phrase.cumulative_prob / best
        return measured(_wanted(phrase, share, palette, sizes, spell, is_root), share, following)

    blocks = [block(phrase, True) for phrase in part.phrases]
    if part.hidden:
        blocks.append(mark(part.hidden_prob))
    return _in_columns([_standing(one, sizes, 0.0, 0.0, None) for one in blocks], sizes, width)


def _standing(block: _Block, sizes: Sizes, x: float, first_row: float, start) -> list[Placed]:
    """A block at its place: a phrase stands beside the middle of the rows that follow it, so no two share a place."""
    y = first_row + (block.rows - 1) / 2
    own = replace(_moved(block.own, x, y), start=start)
    placed, row = [own], first_row + (block.rows - block.rows_following) / 2
    for following in block.following:
        placed += _standing(following, sizes, own.right + sizes.gap, row, (own.right, y))
        row += following.rows
    return placed


def _in_columns(blocks: list[list[Placed]], sizes: Sizes, width: float | None) -> list[Placed]:
    """The first phrases with what follows them, below each other or in the columns that give the better shape, or in
    a given width the lowest."""
    rows = [max(item.y + (item.rows + 1) / 2 for item in block) + sizes.between for block in blocks]
    rights = [max(item.right for item in block) for block in blocks]

    def size(columns: list[range]) -> tuple[float, float]:
        wide = sum(max(rights[i] for i in column) for column in columns) + sizes.column_gap * (len(columns) - 1)
        return wide, max(sum(rows[i] for i in column) for column in columns) * sizes.row

    def misshapen(columns: list[range]) -> float:
        wide, height = size(columns)
        return height if width else abs(math.log(max(wide, NARROWEST) / height / _SHAPE))

    ways = [way for n in range(1, _MOST_COLUMNS + 1) if (way := parted(rows, n))]
    most = width or _WIDEST_BY_COLUMNS - 2 * sizes.margin
    fitting = [way for way in ways if len(way) == 1 or size(way)[0] <= most]
    placed, x = [], 0.0
    for column in min(fitting, key=misshapen, default=[]):
        y = 0.0
        for i in column:
            placed += [_moved(item, x, y) for item in blocks[i]]
            y += rows[i]
        x += max(rights[i] for i in column) + sizes.column_gap
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


def _moved(item: Placed, x: float, y: float) -> Placed:
    """An item farther right and down, in inches and rows."""
    return replace(
        item, pieces=[replace(piece, x=piece.x + x) for piece in item.pieces], x=item.x + x, right=item.right + x,
        y=item.y + y, start=item.start and (item.start[0] + x, item.start[1] + y),
    )


def _takes_a_line(phrase: Phrase) -> bool:
    """Whether a mark beside the phrase's children tells what is hidden."""
    return bool(phrase.children) and phrase.hidden_prob > _WORTH_A_LINE * phrase.cumulative_prob


def _wanted(
    phrase: Phrase, share: float, palette: Palette, sizes: Sizes, spell: Callable, is_root: bool
) -> list[tuple[str, str, float]]:
    """A phrase's texts with their colours and sizes."""
    text = shortened(spell(phrase.label))
    # Where colour tells the lift, only links fade.
    color = _ink(share, palette) if phrase.lift is None else lift_color(phrase.lift, palette)
    # What only ends is told by its mark alone.
    wanted = [(text, color, sizes.text)] if phrase.text.strip() or not phrase.ended else []
    if is_root:
        wanted.append((percent(phrase.cumulative_prob), palette.faint, sizes.small))
    if phrase.ended:
        wanted.append((f"{END} {percent(phrase.definition)}", palette.end, sizes.small))
    if not phrase.children and phrase.hidden_prob > _WORTH_A_MARK * phrase.cumulative_prob:
        wanted.append(_hidden_mark(phrase.hidden_prob, palette, sizes))
    return wanted


def _set(
    wanted: list[tuple[str, str, float]], ruler: Ruler, sizes: Sizes, wrap: float | None
) -> tuple[list[Piece], float]:
    """Texts one after another from x = 0 on, words in lines of at most ``wrap`` inches, with the marks behind the last
    one; and where the longest line ends."""
    pieces: list[Piece] = []
    x = right = 0.0
    line = 0
    for words, color, size in wanted:
        for n, part in enumerate(ruler.lines(words, size, wrap) if size == sizes.text else [words]):
            wide = ruler.width(part, size)
            if n:
                x, line = 0.0, line + 1
            pieces.append(Piece(part, x, line, color, size))
            right = max(right, x + wide)
            x += wide + sizes.space
    return pieces, right


def _hidden_mark(probability: float, palette: Palette, sizes: Sizes) -> tuple[str, str, float]:
    return f"… {percent(probability)}", palette.faint, sizes.small


def shortened(characters: Sequence[str], longest: int = _LONGEST) -> str:
    """The text of these characters (some of them escapes) in at most ``longest``."""
    text = "".join(characters)
    if len(text) <= longest:
        return text
    kept, length = [], 0
    for character in characters:
        length += len(character)
        if length >= longest:
            break
        kept.append(character)
    return "".join(kept) + "…"


def _ink(share: float, palette: Palette) -> str:
    """The colour of a phrase: it fades with the logarithm of the probability, to the faintest at a thousandth."""
    return _between(palette.faded, palette.ink, 1 + math.log10(max(share, 1e-9)) / 3)


def lift_color(lift: float, palette: Palette) -> str:
    """The colour that tells a lift, in nats."""
    return _between(palette.generic, palette.own, lift / MOST_LIFT)


def _between(low: str, high: str, share: float) -> str:
    first, last = (np.array(to_rgb(colour)) for colour in (low, high))
    return to_hex(first + min(max(share, 0.0), 1.0) * (last - first))
