"""What a definition tree is shown as on the page: in words, as a view to explore, a table, a figure, and files."""

import json
import math
from dataclasses import replace
from html import escape
from pathlib import Path

import gradio as gr
import numpy as np

from multitool.errors import UserError
from multitool.page.common import save
from multitool.page.copying import definitions_copied
from multitool.page.evidence_html import BEGINS_JUDGED, JUDGED, tree_verdict_html
from multitool.pictures import explorer as tree_explorer
from multitool.pictures.figure import render
from multitool.recipes import links
from multitool.recipes.captions import title_told
from multitool.recipes.directions import DIRECTIONS
from multitool.recipes.fields import recipe_fields
from multitool.recipes.recipe import TreeRecipe, VectorRecipe, recipes
from multitool.text import join_tokens, percent, spelling_key, visible
from multitool.trees.comparison import Comparison
from multitool.trees.document import UNFINISHED, DefinitionTree, feature_maximum, judged_definitions
from multitool.trees.tree import Definition

ORDERS = ("probability", "lift per token")
FIGURES = ("png", "svg", "pdf")
FILES = ("json", "html", "csv")
_DEFINITIONS_SHOWN = 50
# Each with its kind and its part of the width.
_COLUMNS = {"%": ("number", 19), "Definition": ("str", 81)}
_CHECKED_COLUMNS = {"%": ("number", 17), "Definition": ("str", 46), "Lift per token": ("number", 19)}
_FIRES = {True: {"Fires %": ("number", 18)}, False: {"Fires": ("number", 18)}}  # is the feature's maximum known?
_KEPT_COLUMN = {"Kept: %": ("str", 22)}
_IN_PAGE = Path(__file__).with_name("explorer_in_page.js")  # between Gradio and the explorer
EMPTY = "No tree yet. Choose a feature and press “Grow tree”."


def explored(document: DefinitionTree, shared: np.ndarray | None = None) -> str:
    """What ``explorer`` shows, as JSON: Gradio keeps it for every visitor, and a text takes a tenth of the memory.

    Args:
        shared: as ``tree_explorer.payload`` takes it.
    """
    return json.dumps(tree_explorer.payload(document, shared), ensure_ascii=False, allow_nan=False)


def explorer(value: str | None, elem_id: str, **options) -> gr.HTML:
    """A tree to explore on the page, from ``explored``; nothing until there is one."""
    script = tree_explorer.SCRIPT + _IN_PAGE.read_text(encoding="utf-8")
    return gr.HTML(value, html_template='<div class="tree-root"></div>', js_on_load=script, apply_default_css=False,
                   elem_id=elem_id, **options)


def summary(document: DefinitionTree | None) -> str:
    """In one line how large the tree is and whether it is whole."""
    if document is None:
        return EMPTY
    state = "" if document.complete else "Not whole: “Go on” grows the rest. "
    return (
        f"{state}{len(document.tree):,} nodes at cutoff {document.effective_cutoff:.3g}, grown in "
        f"{document.seconds:.1f} s."
    )


def pictures(document: DefinitionTree, order: str = ORDERS[0], compared: Comparison | None = None) -> dict:
    """All that shows the tree itself, by the names of the components."""
    return {
        "bar": probability_bar(document),
        "verdict": tree_verdict_html(document.evidence),
        "view": explored(document, compared.nodes if compared else None),
        "definitions": gr.Dataframe(**table(document, order, compared)),
    }


def probability_bar(document: DefinitionTree | None) -> str:
    """As HTML how much of the probability the tree holds, and how sure the model is of the first token."""
    if document is None:
        return ""
    held = document.shares
    parts = [
        ("complete", held.complete, "end within the tree"),
        ("unfinished", held.unfinished, "begin in it and go on"),
        ("below", held.below, "are below the cutoff"),
    ]
    if held.beyond is None:
        parts[-1] = ("below", held.below, "are not in it")  # an older file does not tell why
    elif held.beyond:
        top_k = escape(visible(str(document.settings.get("top_k"))))  # the settings may be anybody's
        parts.insert(2, ("beyond", held.beyond, f"are cut by top_k {top_k}"))
    bar = "".join(f'<span class="{name}" style="flex-grow: {share:.4f}"></span>' for name, share, _ in parts)
    told = "<li>Of all answers</li>" + "".join(
        f'<li class="{name}"><b>{percent(share)}</b> {words}</li>' for name, share, words in parts
    )
    entropy = document.first_token_entropy
    if entropy is not None:
        told += (
            '<li title="Entropy over the whole vocabulary; e to its power is the number of equally probable tokens '
            f'that would be as open a choice.">First-token entropy <b>{entropy:.1f} nats</b>: '
            f"about {_about(math.exp(min(entropy, 50)))} equally likely first words</li>"
        )
    return f'<div class="coverage"><div class="bar" aria-hidden="true">{bar}</div><ul>{told}</ul></div>'


def _about(number: float) -> str:
    """A number with two digits, without an exponent."""
    digits = max(0, 1 - math.floor(math.log10(number))) if number > 0 else 0
    return f"{number:,.{digits}f}" if number < 10 else f"{round(number, 1 - math.floor(math.log10(number))):,.0f}"


def table(document: DefinitionTree | None, order: str, compared: Comparison | None) -> dict:
    """The definitions, for a dataframe: complete ones first, by probability or by lift per token.

    Args:
        compared: with another tree, whose probabilities of the same definitions are told too.
    """
    if document is None:
        return _frame(_COLUMNS, [])
    checked = document.tree.lifts is not None
    shares = feature_maximum(document.evidence) is not None
    columns = _CHECKED_COLUMNS | _FIRES[shares] if checked else _COLUMNS
    columns = columns | (_KEPT_COLUMN if compared else {})
    judged = {spelling_key(text) for text, _ in judged_definitions(document.evidence)}

    def rows(definitions: list[Definition]) -> list[list]:
        return [[*_row(document, one, judged), *([_kept(one, compared)] if compared else [])] for one in definitions]

    complete, unfinished = _definitions(document, order)
    heading = [["", UNFINISHED, *[""] * (len(columns) - 2)]] * bool(unfinished)
    return _frame(columns, [*rows(complete), *heading, *rows(unfinished)])


def _definitions(document: DefinitionTree, order: str) -> tuple[list[Definition], list[Definition]]:
    """Those that are listed: complete ones and beginnings."""
    by_lift = order == ORDERS[1] and document.tree.lifts is not None
    return (document.most_lifted if by_lift else document.most_probable)(_DEFINITIONS_SHOWN)


def to_copy(document: DefinitionTree | None, order: str) -> str:
    """The listed definitions, for the buttons that copy them."""
    if document is None or not len(document.tree):
        return ""
    complete, unfinished = _definitions(document, order)
    return definitions_copied(document, complete + unfinished)


def _frame(columns: dict, rows: list[list]) -> dict:
    datatypes, widths = zip(*columns.values(), strict=True)
    return {
        "value": {"headers": list(columns), "data": rows}, "datatype": list(datatypes),
        "column_widths": [f"{100 * width / sum(widths):.1f}%" for width in widths],
    }


def _row(document: DefinitionTree, definition: Definition, judged: set[str]) -> list:
    tree = document.tree
    probability = float(f"{100 * definition.probability:.2g}")
    text = visible(definition.text) + ("" if definition.complete else " …")
    lifts = tree.lift_per_token
    if lifts is None:
        return [probability, text]
    lift = round(float(lifts[definition.node]), 2)
    return [probability, _judged_mark(document, definition, judged) + text, lift, _fires(document, definition)]


def _fires(document: DefinitionTree, definition: Definition) -> float | str:
    """How strongly the feature fires, in percent of its maximum where that is known; nothing where it was not read."""
    activations, most = document.tree.activation, feature_maximum(document.evidence)
    activation = math.nan if activations is None else float(activations[definition.node])
    told = 100 * activation / most if most else activation
    if not math.isfinite(told):  # not read, or anybody's numbers
        return ""
    return round(told) if most else round(told, 2)


def _judged_mark(document: DefinitionTree, definition: Definition, judged: set[str]) -> str:
    """What tells that the verdict speaks of this definition, or of one that it goes on from.

    Args:
        judged: the keys of those that it speaks of.
    """
    if definition.key in judged:
        return f"{JUDGED} "
    tokens = [document.tree.token[node] for node in document.tree.path(definition.node)]
    begins = any(spelling_key(join_tokens(tokens[:n])) in judged for n in range(1, len(tokens)))
    return f"{BEGINS_JUDGED} " if begins else ""


def _kept(definition: Definition, compared: Comparison) -> str:
    both = compared.definitions.get(definition.key) if definition.complete else None
    return percent(both[1]) if both else ""


def comparison_line(document: DefinitionTree, kept: DefinitionTree, compared: Comparison) -> str:
    """As HTML what the tree and the kept one share."""
    # Older files do not tell all settings.
    usual = {setting.name: setting.default for kind in (VectorRecipe, TreeRecipe) for setting in recipe_fields(kind)}
    before, after = usual | kept.settings, usual | document.settings
    differing = [
        f"{name} <b>{escape(visible(str(before.get(name))))}</b> → <b>{escape(visible(str(after.get(name))))}</b>"
        for name in usual
        if before.get(name) != after.get(name)
    ]
    settings = ", ".join(differing) or "nothing differs"
    return (
        f'<div class="comparison"><p>Kept → this one: {settings}.</p><p>Both trees have '
        f"<b>{int(compared.nodes.sum()):,}</b> nodes in common (of {len(kept.tree):,} and {len(document.tree):,}) and "
        f"<b>{len(compared.definitions):,}</b> complete definitions, which overlap by "
        f"<b>{percent(compared.overlap)}</b> of all probability. What they share is marked in both.</p></div>"
    )


def titled(which: str, document: DefinitionTree) -> str:
    """As HTML, in one line, which of two trees it is: its feature and its vector."""
    settings = document.settings
    scale = settings.get("scale")
    far = f", scale {scale:.3g}" if isinstance(scale, (int, float)) else ""
    name = visible(title_told(settings) + far)[:200]
    return f'<p title="{escape(name, quote=True)}"><b>{which}</b> · {escape(name)}</p>'


def recipes_told(document: DefinitionTree) -> tuple[VectorRecipe, TreeRecipe]:
    """The recipes of a tree, the usual scale left to the model. Raises UserError for settings that cannot be used."""
    vector, tree = recipes(document.settings)
    usual = vector.scale == document.vector.get("mean_token_distance") and not DIRECTIONS[vector.kind].own_length
    return replace(vector, scale=None) if usual else vector, tree


def link_query(document: DefinitionTree | None) -> str:
    """The query of a link that reopens the settings; empty for a file whose settings cannot be used."""
    if document is None:
        return ""
    try:
        return "?" + links.query(links.told(*recipes_told(document)))
    except UserError:
        return ""


def figure_files(document: DefinitionTree, **drawn) -> dict[str, str]:
    """Paths of the figure's files, by format; drawn as ``render`` takes it."""
    files = render(document, FIGURES, **drawn)
    return {kind: save(files[kind], document.settings, f"tree.{kind}") for kind in FIGURES}


def data_files(document: DefinitionTree) -> dict[str, str]:
    """Paths of the files that hold the tree itself, by format."""
    files = {"json": document.to_json(), "html": tree_explorer.standalone(document), "csv": document.to_csv()}
    stems = {"csv": "definitions"}
    return {kind: save(files[kind], document.settings, f"{stems.get(kind, 'tree')}.{kind}") for kind in FILES}
