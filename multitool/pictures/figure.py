"""A definition tree as a figure in files: PNG, SVG and PDF, whose metadata tell the recipe exactly."""

import io
import json
import math
import threading
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Any, get_args

import matplotlib
from matplotlib.figure import Figure
from matplotlib.text import Text

from multitool._version import __version__
from multitool.errors import UserError, shown
from multitool.pictures.drawing import Kind, draw_definitions, draw_tree, heading, inches, usual_number
from multitool.pictures.fonts import drawable
from multitool.recipes.fields import whole
from multitool.trees.document import DefinitionTree

FORMATS = ("png", "svg", "pdf")
MOST_NODES = 1000
DEFAULT_DPI = 150
DPI = (50, 600)
MOST_PIXELS = 50_000_000
# matplotlib's layout of text keeps shared caches that are not made for threads.
_LOCK = threading.Lock()

matplotlib.rcParams["svg.fonttype"] = "none"  # text stays text
matplotlib.rcParams["svg.hashsalt"] = "sae-feature-multitool"  # or its ids would be other ones every time
matplotlib.rcParams["pdf.fonttype"] = 42
matplotlib.rcParams["text.hinting"] = "none"  # or texts would be wider or narrower with the resolution


def render(
    document: DefinitionTree, formats: Sequence[str] = FORMATS, *, kind: Kind = "tree", max_nodes: int | None = None,
    dpi: int = DEFAULT_DPI, dark: bool = False, caption: bool = True, width: float | str | None = None,
    fonts: tuple[str, ...] | None = None, most_pixels: int = MOST_PIXELS,
) -> dict[str, bytes]:
    """The figure as files, by format.

    Args:
        formats: some of ``FORMATS``.
        kind: ``tree``, or ``definitions`` for a list of them.
        max_nodes: draw this many nodes, or definitions, the most probable ones; None: what is well read in the width.
        dpi: pixels per inch of a PNG.
        dark: light inks on a dark paper.
        caption: with the feature above and the recipe below. The files' metadata tell the recipe in any case.
        width: for a paper, in inches, or ``single`` (one column, 3.3 inches) or ``double`` (7 inches), with type that
            is read there without scaling; None: as wide as it needs.
        fonts: as for ``draw_tree``.
        most_pixels: of a PNG.

    Raises:
        UserError: kind is neither; max_nodes is not from 1 to ``MOST_NODES``, dpi not within ``DPI`` or width not
            within ``WIDTH``; or a PNG would have more than ``most_pixels``.
    """
    drawing, max_nodes, options = _checked(kind, max_nodes, dpi, width)
    options |= {"dark": dark, "caption": caption, "fonts": fonts}
    figures: dict[bool, Figure] = {}
    files = {}
    with _LOCK, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # in an SVG they are the viewer's task
        for name in sorted(formats, key=lambda name: name != "svg"):
            escaped = name != "svg"  # an SVG's text is text, and its viewer has more fonts
            if escaped not in figures:
                other = figures.get(not escaped)
                if other is None or any(map(_missing, other.texts)):
                    other = drawing(document, max_nodes, escaped=escaped, **options)
                figures[escaped] = other
            figure = figures[escaped]
            saving: dict[str, Any] = {}
            if name == "png":
                _check_pixels(figure, dpi, most_pixels)
                saving["pil_kwargs"] = {"compress_level": 4}  # half the time of 6 for 1 % more bytes
            buffer = io.BytesIO()
            figure.savefig(buffer, format=name, dpi=dpi, metadata=_metadata(document, name, max_nodes), **saving)
            files[name] = buffer.getvalue()
    return {name: files[name] for name in formats}


@dataclass(frozen=True)
class Picture:
    """A tree's figure. A notebook shows it by itself; ``save`` writes it.

    Args:
        kind, max_nodes, dpi, dark, caption, width: as for ``render``; so are the errors.

    >>> tree = mt.definition_tree(library, vector, mt.TreeRecipe(cutoff=5e-3))
    >>> mt.Picture(tree, dark=True).save("tree.pdf")
    >>> mt.Picture(tree, caption=False, width="single").save("figure-1.pdf")  # for a column of a paper
    >>> mt.Picture(tree, kind="definitions", caption=False, width=3.3).save("figure-2.pdf")
    """

    tree: DefinitionTree
    max_nodes: int | None = None
    dpi: int = DEFAULT_DPI
    dark: bool = False
    kind: Kind = "tree"
    caption: bool = True
    width: float | str | None = None

    def __post_init__(self):
        _checked(self.kind, self.max_nodes, self.dpi, self.width)

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
        return render(self.tree, [kind], kind=self.kind, max_nodes=self.max_nodes, dpi=self.dpi, dark=self.dark,
                      caption=self.caption, width=self.width)[kind]

    def _repr_png_(self) -> tuple[bytes, dict[str, int]]:
        """The PNG, and how large a notebook shows it: as many inches as it has, of 96 of a page's pixels each."""
        png = self._file("png")
        width, height = (int.from_bytes(png[at : at + 4]) for at in (16, 20))  # where a PNG tells its size
        return png, {"width": round(width * 96 / self.dpi), "height": round(height * 96 / self.dpi)}


def _checked(
    kind: str, max_nodes: int | None, dpi: int, width: float | str | None
) -> tuple[Callable[..., Figure], int, dict[str, Any]]:
    """What draws the figure, with how much on it, and with what other options. Errors as of ``render``."""
    if kind not in get_args(Kind):
        raise UserError(f"kind is {shown(kind)}; valid are {' and '.join(get_args(Kind))}.")
    whole(dpi, "dpi", *DPI)
    wide = inches(width)
    n = usual_number(kind, wide) if max_nodes is None else whole(max_nodes, "max_nodes", 1, MOST_NODES)
    return draw_tree if kind == "tree" else draw_definitions, n, {"width": wide}


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
    software, title = f"sae-feature-multitool {__version__}", f"Definition tree of {heading(document)}"
    if name == "png":
        return {"Software": software, "Title": title, "Description": recipe}
    # Without dates, the same tree gives the same file.
    if name == "svg":
        return {"Creator": software, "Title": title, "Description": recipe, "Date": None}
    return {"Creator": software, "Title": title, "Subject": recipe, "Keywords": "SAE feature, definition tree",
            "CreationDate": None}


def _missing(artist: Text) -> bool:
    drawn = drawable(tuple(artist.get_fontfamily()), artist.get_fontweight())
    return not drawn.issuperset(map(ord, artist.get_text()))
