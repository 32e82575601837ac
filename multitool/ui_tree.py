"""The tab with the definition tree."""

import contextlib
import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import gradio as gr

from multitool import explore, links
from multitool.compare import compare_trees
from multitool.defaults import DEMO, Opening
from multitool.document import DefinitionTree, read_tree
from multitool.draw import DEFAULT_NODES
from multitool.tree import Tree
from multitool.ui_common import PRIVATE, QUIETLY, by_name, on_model, shown_errors
from multitool.ui_controls import FeatureControls, control_values
from multitool.ui_examples import examples
from multitool.ui_growth import CUTOFFS, check, go_on, grow, growth_controls, growth_values
from multitool.ui_service import Service
from multitool.ui_views import (
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
    summary,
    table,
    titled,
)

# The tree of the demo's opening feature is kept, so that the page opens on it.
DEMO_TREE = Path(__file__).parent / "demo" / "opening_tree.json"
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
    growing_controls = growth_controls(service)
    with gr.Row(elem_classes="actions"):
        grow_button = gr.Button("Grow tree", variant="primary", min_width=160, elem_id="grow")
        stop = gr.Button("Stop", min_width=80, elem_id="stop")
        more = gr.Button("Go on", min_width=80, visible=False, elem_id="go-on")
        check_button, keep = (
            gr.Button(text, min_width=140, interactive=opened is not None, elem_id=name)
            for text, name in (("Check this tree", "check"), ("Keep to compare", "keep"))
        )
        drop = gr.Button("Stop comparing", min_width=140, visible=False, elem_id="drop")
    status = gr.Textbox(summary(opened), show_label=False, container=False, lines=1, max_lines=8, interactive=False,
                        elem_id="status", elem_classes="status")
    bar = gr.HTML(probability_bar(opened), elem_id="coverage", apply_default_css=False)
    verdict = gr.HTML("", elem_id="tree-verdict")
    comparison = gr.HTML("", elem_id="comparison", visible=False)
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
    document, kept, on_figure, linked = gr.State(opened), gr.State(), gr.State(False), gr.State("")

    shown = views | {
        "status": status, "bar": bar, "verdict": verdict, "go_on": more, "check": check_button, "keep": keep,
        "link": link, "drop": drop, "comparison": comparison, **dict(zip(FILES, data, strict=True)),
    }
    grown = {"document": document} | {name: shown[name] for name in ("status", "bar", "verdict", "view", "definitions")}

    def on_the_model(handler, inputs) -> dict:
        return {
            "fn": shown_errors(by_name(grown, partial(handler, service))), "inputs": inputs,
            "outputs": list(grown.values()), "show_progress": "hidden", **on_model(service.settings), **PRIVATE,
        }

    growing = on_the_model(grow, [*controls.all(), *growing_controls])
    reset = {
        "fn": _reset, "inputs": document, "outputs": [trim, least_lift, order], "show_progress": "hidden", **PRIVATE,
    }
    trimming = [document, trim, least_lift]
    show = {
        "fn": shown_errors(by_name(shown, _shown)), "inputs": [*trimming, order, kept],
        "outputs": list(shown.values()), "show_progress_on": views["view"], **PRIVATE,
    }
    draw = {
        "fn": shown_errors(_drawn), "inputs": [*trimming, *drawing, on_figure], "outputs": drawn,
        "show_progress_on": drawn[0], **PRIVATE,
    }

    set_by_link = [*controls.all(), *growing_controls, linked]

    def from_link(request: gr.Request) -> list:  # Gradio knows by the annotation what to give
        return _from_link(service, opening, request.query_params, len(set_by_link))

    def show_after(event, after="then") -> None:
        getattr(event, after)(**show).then(**draw)

    growths = [grow_button.click(**growing), more.click(**on_the_model(go_on, document)), linked.change(**growing)]
    for button, recipe in buttons:
        fill = button.click(
            partial(control_values, service.library, recipe), None, controls.all(), queue=False, **PRIVATE
        )
        growths.append(fill.then(**growing))
    for growth in growths:
        controls.tell_after(growth)
        # A tree whose growth broke off is shown as far as it has grown. (Plain `then` would also follow a stop.)
        show_after(growth.success(**reset))
        show_after(growth.failure(**reset))
    checking = check_button.click(**on_the_model(check, document))
    show_after(checking.success(_of_lifts, document, [least_lift, order], show_progress="hidden", **PRIVATE))
    show_after(checking, "failure")
    # One event each: of a list, each would wait for those before it, and may then stop what has just been started.
    for running in (*growths, checking):
        stop.click(None, cancels=running, **PRIVATE)
    show_after(stop.click(**reset))
    show_after(upload.upload(shown_errors(_opened), upload, document, **PRIVATE).success(**reset))
    show_after(keep.click(lambda shown: shown, document, kept, show_progress="hidden", **PRIVATE))
    show_after(drop.click(lambda: None, None, kept, show_progress="hidden", **PRIVATE))
    gr.on([trim.input, least_lift.release, order.input], trigger_mode="always_last", **show).then(**draw)
    nodes, *options = drawing
    gr.on([nodes.release, *(option.input for option in options)], trigger_mode="always_last", **draw)
    figure_tab.select(lambda: True, None, on_figure, **QUIETLY).then(**draw)
    explore_tab.select(lambda: False, None, on_figure, **QUIETLY)
    gr.on([link.change, page.load], None, link, link, js=_WHOLE_LINK, show_progress="hidden", **PRIVATE)
    page.load(
        shown_errors(from_link), None, set_by_link, show_progress="hidden", **PRIVATE,
    )
    return growing_controls


def _explore_views(opened: DefinitionTree | None) -> dict:
    """By name: the view of the tree, that of the kept one, the definitions and their order."""
    with gr.Row():
        with gr.Column(scale=2, min_width=400, visible=False) as kept_column:
            kept_name = gr.HTML("", elem_id="kept-name", elem_classes="view-title", padding=False)
            kept_view = explorer(None, "kept-view")
        with gr.Column(scale=2, min_width=400):
            name = gr.HTML("", elem_id="tree-name", elem_classes="view-title", padding=False, visible=False)
            view = explorer(explore.payload(opened) if opened else None, "tree-view")
        with gr.Column(scale=1, min_width=300):
            order = gr.Radio(ORDERS, value=ORDERS[0], label="Definitions by", elem_id="order", visible=False)
            definitions = gr.Dataframe(
                **table(opened, ORDERS[0], None), interactive=False, wrap=True, max_height=620, elem_id="definitions",
                elem_classes="table", label="Definitions (“…”: goes on below the cutoff)",
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
        buttons=["download", "fullscreen"], elem_id="tree-picture",
    )
    with gr.Row():
        files = [gr.DownloadButton(kind.upper(), size="sm", elem_id=kind) for kind in FIGURES]
    return drawing, [picture, *files]


def _from_link(service: Service, opening: Opening, parameters: Mapping[str, str], n_outputs: int) -> list:
    """The controls as a link's query sets them, and the query, which starts the growth; nothing without one."""
    found = links.recipes_of(parameters, opening.recipe)
    if found is None:
        return [gr.skip()] * n_outputs
    return [*control_values(service.library, found[0]), *growth_values(found[1]), links.query(*found)]


def _opened(path: str) -> DefinitionTree:
    return read_tree(Path(path).read_bytes())


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
    document: DefinitionTree | None, trim: str | None, least_lift: float, order: str, kept: DefinitionTree | None
) -> dict:
    """The views of a tree, trimmed, beside a kept one if there is one."""
    if document is None:
        return {"status": EMPTY}
    whole, document = document, _trimmed(document, trim, least_lift)
    compared = compare_trees(document, kept) if kept else None
    link = link_query(document)
    views = pictures(document, order, compared) | {
        "status": summary(document),
        "go_on": gr.update(visible=not whole.complete),
        "check": gr.update(interactive=len(whole.tree) > 0),
        "keep": gr.update(interactive=len(whole.tree) > 0),
        **{kind: gr.update(value=path, visible=True) for kind, path in data_files(document).items()},
        "link": gr.update(value=link, visible=bool(link)),
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


def _drawn(document: DefinitionTree | None, trim, least_lift, drawn: int, dpi: int, dark: bool, wanted: bool) -> list:
    """The figure and its files, while somebody looks at it: drawing takes a second."""
    if document is None or not wanted:
        return [gr.skip() for _ in range(1 + len(FIGURES))]
    files = figure_files(_trimmed(document, trim, least_lift), drawn=drawn, dpi=dpi, dark=dark)
    return [files["png"], *files.values()]
