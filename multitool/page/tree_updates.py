"""What the components of the tree tab become for a tree: answers by their names."""

import math

import gradio as gr

from multitool.page.common import as_number, quiet
from multitool.page.growth_controls import CUTOFFS
from multitool.page.tree_views import (
    EMPTY,
    FIGURES,
    FILES,
    ORDERS,
    comparison_line,
    data_files,
    explored,
    figure_files,
    link_query,
    pictures,
    summary,
    table,
    titled,
    to_copy,
)
from multitool.page.turns import Turns
from multitool.pictures.drawing import inches, usual_number
from multitool.trees.comparison import compare_trees
from multitool.trees.document import DefinitionTree
from multitool.trees.tree import Tree

AS_GROWN = "as grown"


def tree_shown(
    document: DefinitionTree | None, trim: str | None, least_lift: float, order: str, kept: DefinitionTree | None,
    turns: Turns, reason: str,
) -> dict:
    """The views of a tree, trimmed, beside a kept one if there is one.

    Args:
        turns: while a growth is running or waited for, the status is the growth's.
        reason: of no tree, why there is none.
    """
    if document is None:
        return _nothing_shown(reason or EMPTY, kept)
    whole, document = document, _trimmed(document, trim, least_lift)
    compared = compare_trees(document, kept) if kept else None
    link, offered = link_query(document), offer_told(document)
    told = {} if turns.running else {"status": summary(document), "go_on": gr.update(visible=not whole.complete)}
    views = pictures(document, order, compared) | told | {
        "check": gr.update(interactive=len(whole.tree) > 0),
        "keep": gr.update(interactive=len(whole.tree) > 0),
        **{kind: gr.update(value=path, visible=True) for kind, path in data_files(document).items()},
        "link": link,
        "copies": to_copy(document, order),
        "offer": gr.update(visible=bool(offered)),
        "offered": offered,
        **{name: gr.update(visible=bool(compared)) for name in ("drop", "kept_column", "tree_name", "comparison")},
    }
    if kept and compared:
        views |= {
            "kept_name": titled("Kept", kept),
            "kept_view": explored(kept, compared.other_nodes),
            "tree_name": gr.update(value=titled("This one", document), visible=True),
            "comparison": gr.update(value=comparison_line(document, kept, compared), visible=True),
        }
    return views


def _nothing_shown(status: str, kept: DefinitionTree | None) -> dict:
    """The views without a tree; a kept one stays."""
    hidden = gr.update(visible=False)
    return {
        "status": status, "bar": "", "verdict": "", "view": None,
        "definitions": gr.Dataframe(**table(None, ORDERS[0], None)), "copies": "",
        "go_on": hidden, "check": gr.update(interactive=False), "keep": gr.update(interactive=False),
        "link": "", "tree_name": hidden, "comparison": hidden, "offer": hidden,
        **{kind: gr.update(value=None, visible=False) for kind in FILES},
        **{name: gr.update(visible=kept is not None) for name in ("drop", "kept_column")},
    }


def no_tree(reason: str) -> dict:
    """What leaves the page without a tree, after one that could not be grown."""
    return {"document": None, "reason": reason}


def figure_drawn(
    document: DefinitionTree | None, trim: str | None, least_lift: float, kind: str, nodes: int, width: str | None,
    caption: bool, dpi: int, dark: bool, on_figure: bool,
) -> dict:
    """The figure and its files, while somebody looks at it: drawing takes a second."""
    if document is None:
        return dict.fromkeys(("picture", *FIGURES))
    if not on_figure:
        return {}
    files = figure_files(_trimmed(document, trim, least_lift), kind=kind, max_nodes=nodes, width=width or None,
                         caption=caption, dpi=dpi, dark=dark)
    return {"picture": files["png"], **files}


def suited_number(kind: str, width: str | None) -> dict:
    """How much is drawn, as it suits what is drawn, and how wide."""
    nodes = {"label": "Definitions in the figure", "minimum": 5, "maximum": 100, "step": 5} if kind == "definitions" \
        else {"label": "Nodes in the figure", "minimum": 10, "maximum": 250, "step": 10}
    return {"nodes": gr.update(**nodes, value=usual_number(kind, inches(width or None)))}


def suited_to_width(kind: str, width: str | None) -> dict:
    """The same; and a paper has captions of its own."""
    return suited_number(kind, width) | {"caption": not width}


def reset(document: DefinitionTree | None) -> dict:
    """The controls of the views, so that they leave out nothing of this tree."""
    trim = gr.update(choices=trims(document), value=AS_GROWN, visible=document is not None)
    return {"trim": trim, **reset_lifts(document)}


def reset_lifts(document: DefinitionTree | None) -> dict:
    """The slider that prunes by lift and the order of definitions; hidden where no lifts are known."""
    highest = None if document is None else _highest_lift(document.tree)
    known = highest is not None
    return {
        "least_lift": gr.update(visible=known, value=0, maximum=highest or 1),
        "order": gr.update(visible=known, value=ORDERS[known]),  # by lift, where it is known: see docs/lists.md
    }


def trims(document: DefinitionTree | None) -> list[str]:
    """What a tree can be trimmed to."""
    least = 0.0 if document is None else document.effective_cutoff
    return [AS_GROWN, *(cutoff for cutoff in CUTOFFS if float(cutoff) > least)]


def offer_told(document: DefinitionTree | None) -> str:
    """As HTML why all next tokens are offered; empty where they are not."""
    return quiet(document.caution) if document and document.caution else ""


def _trimmed(document: DefinitionTree, trim: str | None, least_lift: float) -> DefinitionTree:
    """The part of a tree that its controls leave."""
    if trim and trim != AS_GROWN:
        document = document.trimmed(as_number(trim))
    if document.tree.lifts is not None and least_lift > 0:
        document = document.lifted(least_lift)
    return document


def _highest_lift(tree: Tree) -> float | None:
    """The slider's end, where there is still something to show; None if no lifts are known."""
    if tree.lift is None or not len(tree.lift):
        return None
    return max(0.1, math.floor(tree.lift.max() * 10) / 10)
