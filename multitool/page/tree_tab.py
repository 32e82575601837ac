"""The tab with the definition tree."""

import contextlib
import math
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from html import escape
from pathlib import Path

import gradio as gr

from multitool.errors import UserError
from multitool.page.common import PRIVATE, QUIETLY, by_name, on_model, quiet, shown_errors
from multitool.page.growth import (
    CUTOFFS,
    Turns,
    check,
    filling,
    go_on,
    grow,
    growth_controls,
    growth_of_model,
    growth_values,
    no_tree,
    only_latest,
    recipes_shown,
    suited_growth,
)
from multitool.page.opening import DEMO, Opening, usual_growth
from multitool.page.result_title import Made, as_shown, cleared_on_error, heading, tell_changes, title_box
from multitool.page.service import Service
from multitool.page.tree_views import (
    EMPTY,
    FIGURES,
    FILES,
    ORDERS,
    comparison_line,
    data_files,
    explorer,
    figure_files,
    link_query,
    pictures,
    probability_bar,
    recipes_told,
    summary,
    table,
    titled,
)
from multitool.page.vector_controls import FeatureControls, check_shows, control_values
from multitool.pictures import explorer as explore
from multitool.pictures.figure import DEFAULT_NODES
from multitool.recipes import links
from multitool.recipes.captions import title_told
from multitool.recipes.recipe import TreeRecipe, VectorRecipe
from multitool.store.demo_model import DEMO_MODEL
from multitool.store.library import Library
from multitool.store.registry import DEMO_FOLDER
from multitool.trees.comparison import compare_trees
from multitool.trees.document import DefinitionTree, read_tree
from multitool.trees.tree import Tree

# The tree of the demo's opening feature is kept, so that the page opens on it.
DEMO_TREE = DEMO_FOLDER / "opening_tree.json"
_AS_GROWN = "as grown"
_RESOLUTIONS = [("screen, 100", 100), ("slides, 150", 150), ("print, 300", 300), ("print, 600", 600)]
# Only a browser knows under which address it sees the page.
_WHOLE_LINK = "link => link.startsWith('?') ? location.origin + location.pathname + link : link"


def tree_tab(service: Service, controls: FeatureControls, opening: Opening, page: gr.Blocks) -> list:
    """Build the tab and wire it to the controls; a link's settings are taken from the page's address.

    Returns:
        The controls of growth and steering, as ``growth_controls`` gives them.
    """
    opened = read_tree(DEMO_TREE.read_bytes()) if opening.recipe == DEMO else None
    buttons = examples(service.library, controls, opening)
    growing_controls = growth_controls(service, opening)
    all_controls = [*controls.all(), *growing_controls]
    opened_with = opened and Made(title_told(opened.settings), as_shown(recipes_shown, _values(all_controls)))
    with gr.Row(elem_classes="actions"):
        grow_button = gr.Button("Grow tree", variant="primary", min_width=160, elem_id="grow")
        stop = gr.Button("Stop", min_width=80, elem_id="stop")
        more = gr.Button("Go on", min_width=80, visible=False, elem_id="go-on")
        check_button, keep = (
            gr.Button(text, min_width=140, interactive=opened is not None, elem_id=name)
            for text, name in (("Check this tree", "check"), ("Keep to compare", "keep"))
        )
        drop = gr.Button("Stop comparing", min_width=140, visible=False, elem_id="drop")
    title = title_box(opened_with, "tree-title")
    status = gr.Textbox(summary(opened), show_label=False, container=False, lines=1, max_lines=8, interactive=False,
                        elem_id="status", elem_classes="status")
    bar = gr.HTML(probability_bar(opened), elem_id="coverage", elem_classes="greys", apply_default_css=False)
    with gr.Row(visible=bool(_offer(opened)), elem_classes="actions", elem_id="offer") as offer:
        offered = gr.HTML(_offer(opened), elem_classes="greys", apply_default_css=False, padding=False, min_width=280)
        follow_all = gr.Button("Follow all above the cutoff", size="sm", scale=0, min_width=220, elem_id="follow-all")
    verdict = gr.HTML("", elem_id="tree-verdict", elem_classes="greys")
    comparison = gr.HTML("", elem_id="comparison", elem_classes="greys", visible=False)
    with gr.Tabs():
        with gr.Tab("Explore", elem_id="explore-tab") as explore_tab:
            views = _explore_views(opened)
        with gr.Tab("Figure", elem_id="figure-tab") as figure_tab:
            drawing, drawn = _figure_controls()
    with gr.Row():
        trim = gr.Dropdown(
            _trims(opened), value=_AS_GROWN, label="Trim to cutoff", allow_custom_value=True, elem_id="trim",
            info="Leaves the rest out of all views and files, without growing again", visible=opened is not None,
            min_width=220,
        )
        least_lift = gr.Slider(
            0, 1, 0, step=0.1, label="Least lift", elem_id="least-lift", visible=False, min_width=260,
            info="In nats, over the centroid and random directions; 0 shows all",
        )
        link = gr.Textbox(
            link_query(opened), label="Link to this tree", interactive=False, buttons=["copy"], max_lines=1,
            info="Opens the page with the same settings and grows the tree", visible=opened is not None, elem_id="link",
            scale=2, min_width=280,
        )
    files = data_files(opened) if opened else dict.fromkeys(FILES)
    with gr.Row():
        data = [
            gr.DownloadButton(text, files[kind], size="sm", elem_id=kind, visible=opened is not None)
            for kind, text in zip(FILES, ("Data (JSON)", "Interactive page (HTML)"), strict=True)
        ]
        upload = gr.UploadButton("Open a saved tree (JSON)", size="sm", file_types=[".json"], elem_id="open")
    order = views.pop("order")
    document, kept, on_figure = gr.State(opened), gr.State(), gr.State(False)
    made, reason = gr.State(opened_with), gr.State("")  # of no tree: why there is none
    # The last growth that was asked for. Its number goes with what the page sends, so that each growth knows its own.
    turns, number, linked = gr.State(Turns()), gr.Number(0, visible=False), gr.State("")
    suited = gr.State(opening.entry.model)  # whose growth the controls were last given

    shown = views | {
        "status": status, "bar": bar, "verdict": verdict, "go_on": more, "check": check_button, "keep": keep,
        "link": link, "drop": drop, "offer": offer, "offered": offered, "comparison": comparison,
        **dict(zip(FILES, data, strict=True)),
    }
    grown = {"document": document, "made": made, "title": title, "reason": reason} | {
        name: shown[name] for name in ("status", "bar", "verdict", "view", "definitions", "go_on", "offer")
    }

    def on_the_model(handler, *inputs) -> dict:
        return {
            "fn": shown_errors(by_name(grown, handler)), "inputs": [*inputs], "outputs": list(grown.values()),
            "show_progress": "hidden", **on_model(service.settings), **PRIVATE,
        }

    def in_turn(growth, *inputs) -> dict:
        return on_the_model(only_latest(growth), turns, number, *inputs) | {"trigger_mode": "multiple"}

    growing = in_turn(cleared_on_error(recipes_shown, no_tree, partial(grow, service)), made, *all_controls)
    continuing = in_turn(partial(go_on, service), document)
    asking = {"fn": _asked, "inputs": turns, "outputs": [number, status], **QUIETLY}
    reset = {
        "fn": _reset, "inputs": document, "outputs": [trim, least_lift, order], "show_progress": "hidden", **PRIVATE,
    }
    trimming = [document, trim, least_lift]
    show = {
        "fn": shown_errors(by_name(shown, _shown)), "inputs": [*trimming, order, kept, turns, reason],
        "outputs": list(shown.values()), "show_progress_on": views["view"], **PRIVATE,
    }
    draw = {
        "fn": shown_errors(_drawn), "inputs": [*trimming, *drawing, on_figure], "outputs": drawn,
        "show_progress_on": drawn[0], **PRIVATE,
    }

    told_by_file = {"document": document, "made": made, "title": title, "reason": reason, "suited": suited}
    set_by_link = {"linked": linked, "number": number, **told_by_file}
    named_controls = dict(enumerate(all_controls))

    def from_link(turns: Turns, request: gr.Request) -> dict:  # Gradio knows by the annotation what to give
        return by_name(set_by_link | named_controls, _from_link)(
            service, opening, all_controls, request.query_params, turns
        )

    def show_after(event, after="then") -> None:
        getattr(event, after)(**show).then(**draw)

    for button in (grow_button, more):
        button.click(**asking)  # before it grows: the events of a click follow each other
    growths = [grow_button.click(**growing), more.click(**continuing), linked.change(**growing)]
    filled = {"outputs": [number, status, suited, *all_controls], **QUIETLY}
    for button, recipe in buttons:
        growths.append(button.click(partial(_example, service, recipe), turns, **filled).then(**growing))
    following_all = shown_errors(partial(_following_all, service, all_controls))
    growths.append(follow_all.click(following_all, [turns, document], **filled).success(**growing))
    following_model = [*growth_of_model(growing_controls), suited]
    controls.model.change(suited_growth, [controls.model, suited], following_model, **QUIETLY)
    telling = tell_changes(recipes_shown, made, title, all_controls)
    for growth in growths:
        controls.tell_after(growth)
        growth.then(**telling)  # the controls may have changed meanwhile
        # A tree whose growth broke off is shown as far as it has grown. (To Gradio a stop is a failure too.)
        show_after(growth.success(**reset))
        show_after(growth.failure(_refused, turns, None, **QUIETLY).then(**reset))
    checking = check_button.click(**on_the_model(partial(check, service), turns, document))
    show_after(checking.success(_of_lifts, document, [least_lift, order], show_progress="hidden", **PRIVATE))
    show_after(checking, "failure")
    # One event each: of a list, each would wait for those before it, and may then stop what has just been started.
    stop.click(_stopped, turns, None, **QUIETLY)
    for running in (*growths, checking):
        stop.click(None, cancels=running, **PRIVATE)
    show_after(stop.click(**reset))
    opening_file = upload.upload(
        shown_errors(by_name(told_by_file | named_controls, partial(_opened, service, all_controls))),
        [turns, upload, *all_controls], [*told_by_file.values(), *all_controls], show_progress="hidden", **PRIVATE,
    )
    show_after(opening_file.success(**reset))
    show_after(keep.click(lambda shown: shown, document, kept, show_progress="hidden", **PRIVATE))
    show_after(drop.click(lambda: None, None, kept, show_progress="hidden", **PRIVATE))
    gr.on([trim.input, least_lift.release, order.input], trigger_mode="always_last", **show).then(**draw)
    nodes, *options = drawing
    gr.on([nodes.release, *(option.input for option in options)], trigger_mode="always_last", **draw)
    figure_tab.select(lambda: True, None, on_figure, **QUIETLY).then(**draw)
    explore_tab.select(lambda: False, None, on_figure, **QUIETLY)
    gr.on([link.change, page.load], None, link, link, js=_WHOLE_LINK, show_progress="hidden", **PRIVATE)
    page.load(from_link, turns, [*set_by_link.values(), *all_controls], show_progress="hidden", **PRIVATE)
    show_after(reason.change(**reset))  # a link that cannot be followed
    return growing_controls


def _explore_views(opened: DefinitionTree | None) -> dict:
    """By name: the view of the tree, that of the kept one, the definitions and their order."""
    with gr.Row():
        with gr.Column(scale=2, min_width=400, visible=False) as kept_column:
            kept_name = gr.HTML("", elem_id="kept-name", elem_classes="view-title", padding=False)
            kept_view = explorer(None, "kept-view")
        with gr.Column(scale=2, min_width=400):
            name = gr.HTML("", elem_id="tree-name", elem_classes="view-title", padding=False, visible=False)
            view = explorer(explore.payload(opened) if opened else None, "tree-view", elem_classes="greys")
        with gr.Column(scale=1, min_width=300):
            order = gr.Radio(ORDERS, value=ORDERS[0], label="Definitions by", elem_id="order", visible=False)
            definitions = gr.Dataframe(
                **table(opened, ORDERS[0], None), interactive=False, wrap=True, max_height=620, elem_id="definitions",
                elem_classes=["table", "greys"], label="Definitions",
            )
    return {
        "kept_column": kept_column, "kept_name": kept_name, "kept_view": kept_view, "name": name, "view": view,
        "order": order, "definitions": definitions,
    }


def _figure_controls() -> tuple[list, list]:
    """What a figure is drawn by; and the figure with its files."""
    with gr.Row():
        drawing = [
            gr.Slider(10, 250, DEFAULT_NODES, step=10, label="Nodes in the figure", elem_id="drawn",
                      info="The most probable ones; the rest is told as “…”"),
            gr.Dropdown(_RESOLUTIONS, value=150, label="Resolution of the PNG", elem_id="dpi",
                        info="Pixels per inch; SVG and PDF are sharp at any size"),
            gr.Checkbox(False, label="Dark figure", elem_id="dark", info="For dark slides and pages"),
        ]
    picture = gr.Image(
        type="filepath", format="png", interactive=False, show_label=False, label="Definition tree",
        buttons=["download", "fullscreen"], elem_id="tree-picture", elem_classes="greys",
    )
    with gr.Row():
        files = [gr.DownloadButton(kind.upper(), size="sm", elem_id=kind) for kind in FIGURES]
    return drawing, [picture, *files]


def _values(controls: list) -> list:
    """What the controls show when the page opens."""
    return [control.value for control in controls]


def _set(service: Service, controls: list, vector: VectorRecipe, tree: TreeRecipe) -> list:
    """What the controls show for recipes, in their order. Raises UserError if they cannot."""
    service.library.find(vector.sae)
    values = [*control_values(service.library, vector), *growth_values(tree)]
    for control, value in zip(controls, values, strict=True):
        check_shows(control, value)
    return values


def _asked(turns: Turns) -> tuple:
    """A growth is asked for: its number, and for the status that it is on its way."""
    return turns.ask(), "Starting …"


def _stopped(turns: Turns) -> None:
    turns.stop()


def _refused(turns: Turns) -> None:
    turns.refuse()


def _example(service: Service, recipe: VectorRecipe, turns: Turns) -> list:
    """A growth is asked for, and the controls as an example sets them."""
    model = service.library.find(recipe.sae).model
    values = [*control_values(service.library, recipe), *growth_values(usual_growth(model))]
    return [*_asked(turns), model, *filling(values)]


def _following_all(service: Service, controls: list, turns: Turns, document: DefinitionTree) -> list:
    """The growth of the tree that is shown is asked for once more, with all next tokens above the cutoff."""
    if document is None:
        raise UserError("There is no tree to grow so. Grow one first.")
    vector, tree = recipes_told(document)
    values = _set(service, controls, vector, replace(tree, top_k=0))
    return [*_asked(turns), service.library.find(vector.sae).model, *filling(values)]


def _offer(document: DefinitionTree | None) -> str:
    """As HTML why all next tokens are offered; empty where they are not."""
    return quiet(document.caution) if document and document.caution else ""


def _from_link(service: Service, opening: Opening, controls: list, parameters: Mapping[str, str], turns: Turns) -> dict:
    """The controls as a link's query sets them, and a growth asked for; nothing without one.

    A link that cannot be followed leaves no tree: one from elsewhere would pass for what it was to show. (It does not
    raise, and yields nothing: states that an error or a generator leaves behind set off no event.)
    """
    try:
        found = links.recipes_of(parameters, opening.recipe)
        if found is None:
            return {"linked": ""}
        values = _set(service, controls, *found)
    except UserError as error:
        gr.Warning(escape(str(error)), duration=None, title="Link")
        return no_tree(str(error))
    model = service.library.find(found[0].sae).model
    return {"linked": links.query(*found), "number": turns.ask(), "suited": model, **dict(enumerate(filling(values)))}


def _opened(service: Service, controls: list, turns: Turns, path: str, *values) -> dict:
    """A saved tree, and the controls as they were for it, where they can be shown here; else they stay."""
    document = read_tree(Path(path).read_bytes())
    turns.stop()
    filled = {}
    try:
        vector, tree = recipes_told(document)
        values = _set(service, controls, vector, tree)
        filled = {"suited": service.library.find(vector.sae).model, **dict(enumerate(filling(values)))}
    except UserError:
        pass
    made = Made(title_told(document.settings), as_shown(recipes_shown, values))
    return {"document": document, "made": made, "title": heading(made), "reason": "", **filled}


def _trims(document: DefinitionTree | None) -> list[str]:
    """What a tree can be trimmed to."""
    least = 0.0 if document is None else document.effective_cutoff
    return [_AS_GROWN, *(cutoff for cutoff in CUTOFFS if float(cutoff) > least)]


def _reset(document: DefinitionTree | None) -> list:
    """The controls of the views, so that they leave out nothing of this tree."""
    trim = gr.update(choices=_trims(document), value=_AS_GROWN, visible=document is not None)
    return [trim, *_of_lifts(document)]


def _of_lifts(document: DefinitionTree | None) -> list:
    """The slider that prunes by lift and the order of definitions; hidden where no lifts are known."""
    highest = None if document is None else _highest_lift(document.tree)
    known = highest is not None
    return [gr.update(visible=known, value=0, maximum=highest or 1), gr.update(visible=known, value=ORDERS[0])]


def _highest_lift(tree: Tree) -> float | None:
    """The slider's end, where there is still something to show; None if no lifts are known."""
    if tree.lift is None or not len(tree.lift):
        return None
    return max(0.1, math.floor(tree.lift.max() * 10) / 10)


def _trimmed(document: DefinitionTree, trim: str | None, least_lift: float) -> DefinitionTree:
    """The part of a tree that its controls leave."""
    if trim and trim != _AS_GROWN:
        with contextlib.suppress(ValueError):  # the check says what is wrong with it
            trim = float(trim)
        document = document.trimmed(trim)
    if document.tree.lifts is not None and least_lift > 0:
        document = document.lifted(least_lift)
    return document


def _shown(
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
    link, offered = link_query(document), _offer(document)
    told = {} if turns.running else {"status": summary(document), "go_on": gr.update(visible=not whole.complete)}
    views = pictures(document, order, compared) | told | {
        "check": gr.update(interactive=len(whole.tree) > 0),
        "keep": gr.update(interactive=len(whole.tree) > 0),
        **{kind: gr.update(value=path, visible=True) for kind, path in data_files(document).items()},
        "link": gr.update(value=link, visible=bool(link)),
        "offer": gr.update(visible=bool(offered)),
        "offered": offered,
        **{name: gr.update(visible=bool(compared)) for name in ("drop", "kept_column", "name", "comparison")},
    }
    if compared:
        views |= {
            "kept_name": titled("Kept", kept),
            "kept_view": explore.payload(kept, compared.other_nodes),
            "name": gr.update(value=titled("This one", document), visible=True),
            "comparison": gr.update(value=comparison_line(document, kept, compared), visible=True),
        }
    return views


def _nothing_shown(status: str, kept: DefinitionTree | None) -> dict:
    """The views without a tree; a kept one stays."""
    hidden = gr.update(visible=False)
    return {
        "status": status, "bar": "", "verdict": "", "view": None,
        "definitions": gr.Dataframe(**table(None, ORDERS[0], None)),
        "go_on": hidden, "check": gr.update(interactive=False), "keep": gr.update(interactive=False),
        "link": gr.update(value="", visible=False), "name": hidden, "comparison": hidden, "offer": hidden,
        **{kind: gr.update(value=None, visible=False) for kind in FILES},
        **{name: gr.update(visible=kept is not None) for name in ("drop", "kept_column")},
    }


def _drawn(document: DefinitionTree | None, trim, least_lift, drawn: int, dpi: int, dark: bool, wanted: bool) -> list:
    """The figure and its files, while somebody looks at it: drawing takes a second."""
    if document is None:
        return [None] * (1 + len(FIGURES))
    if not wanted:
        return [gr.skip() for _ in range(1 + len(FIGURES))]
    files = figure_files(_trimmed(document, trim, least_lift), drawn=drawn, dpi=dpi, dark=dark)
    return [files["png"], *files.values()]


_DEMO_FEATURES = {"rain": 927, "viruses": 1521, "prison": 648, "stars": 152, "symptoms": 513, "smell": 2006,
                  "military": 1785}


_GEMMA_FEATURES = ((12, 121), (6, 17), (0, 0), (0, 7), (10, 777))


# By model: features whose trees are worth a look, by the text of a button.
EXAMPLES = {
    DEMO_MODEL: {name: VectorRecipe(sae=DEMO.sae, feature=feature) for name, feature in _DEMO_FEATURES.items()},
    "google/gemma-2b": {
        f"layer {layer}: {feature}": VectorRecipe(
            sae=f"gemma-2b-res-jb/blocks.{layer}.hook_resid_post", feature=feature
        )
        for layer, feature in _GEMMA_FEATURES
    },
}


def examples(library: Library, controls: FeatureControls, opening: Opening) -> list[tuple[gr.Button, VectorRecipe]]:
    """A row of buttons for each model that has examples; the chosen model's is seen, or else the demo's."""
    offered = {
        model: {name: recipe for name, recipe in recipes.items() if library.offers(recipe.sae)}
        for model, recipes in EXAMPLES.items()
    }
    offered = {model: recipes for model, recipes in offered.items() if recipes}

    def seen(model: str) -> list[bool]:
        shown = model if model in offered else DEMO_MODEL
        return [one == shown for one in offered]

    def of_sae(name: str | None) -> dict:
        model = library.find(name).model if library.offers(name or "") else ""
        return {row: gr.update(visible=is_seen) for row, is_seen in zip(rows, seen(model), strict=True)}

    rows, buttons = [], []
    for recipes, is_seen in zip(offered.values(), seen(opening.entry.model), strict=True):
        with gr.Row(elem_classes="examples", visible=is_seen) as row:
            gr.Markdown("Examples")
            buttons += [(gr.Button(name, size="sm", min_width=60), recipe) for name, recipe in recipes.items()]
        rows.append(row)
    if rows:
        controls.sae.change(of_sae, controls.sae, rows, **QUIETLY)
    return buttons
