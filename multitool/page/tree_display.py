"""What a tree is shown in on the page, and the events that show it."""

from collections.abc import Callable, Iterable, Mapping
from functools import partial

import gradio as gr
from gradio.components import Component
from gradio.events import Dependency

from multitool.page.common import LATEST, PRIVATE, QUIETLY, counted, event, pick, status_line
from multitool.page.copying import copy_buttons
from multitool.page.link_box import link_box
from multitool.page.recipe_controls import recipes_shown
from multitool.page.result import Done, Made, Result, Views
from multitool.page.service import Service
from multitool.page.shelf import Held
from multitool.page.tree_updates import (
    AS_GROWN,
    figure_drawn,
    no_tree,
    offer_told,
    reset,
    reset_lifts,
    suited_number,
    suited_to_width,
    tree_shown,
    trims,
)
from multitool.page.tree_views import (
    FIGURES,
    FILES,
    ORDERS,
    data_files,
    explored,
    explorer,
    link_query,
    probability_bar,
    summary,
    table,
    to_copy,
)
from multitool.page.turns import Turns
from multitool.page.view import View
from multitool.pictures.drawing import DEFAULT_NODES, WIDTHS
from multitool.recipes.captions import title_told
from multitool.trees.document import DefinitionTree

_KINDS = [("tree", "tree"), ("list of definitions", "definitions")]
_WIDTHS_TOLD = [
    ("as wide as it needs", ""), (f"one column, {WIDTHS['single']:g} in", "single"),
    (f"two columns, {WIDTHS['double']:g} in", "double"),
]
_RESOLUTIONS = [("screen, 100", 100), ("slides, 150", 150), ("print, 300", 300), ("print, 600", 600)]
# Components whose content depends on the tree, or on the part of it that is shown.
_SHOWN = ("status", "bar", "verdict", "go_on", "check", "keep", "link", "drop", "offer", "offered", "comparison",
          "kept_column", "kept_name", "kept_view", "tree_name", "view", "definitions", "copies", *FILES)
_PART = ("document", "trim", "least_lift")  # tell which part of which tree is shown
_DRAWN_BY = ("kind", "nodes", "width", "caption", "dpi", "dark")
_HIDDEN = {"show_progress": "hidden", **PRIVATE}


class TreeDisplay:
    """All that stands under the controls: buttons, the tree's views, its figure, link and files.

    Args:
        service: holds the trees that are shown.
        opened: the tree that the page opens on.
        controls: those of vector and growth, by name.
        actions: where the buttons stand.
        view: what leads to a tree from a link; ``views``: of which it is one.
        suited: what a link fills in besides the controls.

    Attributes:
        parts: the components by name, states among them: ``document`` is the tree that is shown and ``reason`` why
            there is none, ``kept`` is one to compare with, ``turns`` are the growths that have been asked for.
        reset, reset_when_done: arguments of events that make the views leave out nothing of another tree; or of what
            there is when something is done.
    """

    def __init__(
        self, service: Service, opened: DefinitionTree | None, controls: Mapping[str, Component], actions: gr.Row,
        view: View, views: Views, suited: gr.State,
    ):
        with actions:
            buttons = _buttons(opened)
        title = title_told(opened.settings) if opened else ""
        self._shelf = service.shelf
        # What a link tells of the tree to compare with: the query of its own link.
        beside = gr.State("")
        self.result = Result("tree", controls, recipes_shown, no_tree, opened=title, view=view, views=views,
                             extras={"beside": beside}, fills={"suited": suited})
        self.parts = {
            **buttons, **self.result.gives, **_words(opened), **_tabs(opened), **_part_and_link(opened),
            **_files(opened),
            "document": gr.State(Held(opened) if opened else None), "reason": gr.State(""), "kept": gr.State(),
            "beside": beside, "turns": gr.State(Turns()),
        }
        self.reset = self.event(reset, ("document",), ("trim", "least_lift", "order"), show_progress="hidden")
        self.reset_when_done = self.event(
            _reset_when_done, ("done", "document"), ("trim", "least_lift", "order"), show_progress="hidden"
        )
        self._show = self.event(
            tree_shown, (*_PART, "order", "kept", "turns", "reason"), _SHOWN, show_progress_on=self.parts["view"],
            **counted(service.light_callers),
        )
        self._draw = self.event(
            figure_drawn, (*_PART, *_DRAWN_BY, "on_figure"), ("picture", *FIGURES),
            show_progress_on=self.parts["picture"], **counted(service.light_callers),
        )
        self._follow_its_controls()

    def event(self, handler: Callable, takes: Iterable[str], gives: Iterable[str], **options) -> dict:
        """The arguments of an event of parts, by their names; see ``common.event``."""
        return event(handler, pick(self.parts, takes), pick(self.parts, gives), shelf=self._shelf, **options)

    def show_after(self, event: Dependency) -> None:
        """Show what there is after an event."""
        event.then(**self._show).then(**self._draw)

    def _follow_its_controls(self) -> None:
        """Show other parts of the tree, and draw it otherwise, as the display's own controls say."""
        parts = self.parts
        keeping = self.event(_kept, ("document",), ("kept", "beside"), show_progress="hidden")
        self.show_after(parts["keep"].click(**keeping))
        dropping = self.event(partial(_dropped, self.result), ("made",), ("kept", "beside", "address"), **QUIETLY)
        self.show_after(parts["drop"].click(**dropping))
        trimming = [parts["trim"].input, parts["least_lift"].release, parts["order"].input]
        gr.on(trimming, trigger_mode="always_last", **self._show).then(**self._draw)
        drawing = [parts["nodes"].release, *(parts[name].input for name in ("caption", "dpi", "dark"))]
        gr.on(drawing, trigger_mode="always_last", **self._draw)
        to_kind = self.event(suited_number, ("kind", "width"), ("nodes",), **LATEST)
        to_width = self.event(suited_to_width, ("kind", "width"), ("nodes", "caption"), **LATEST)
        parts["kind"].input(**to_kind).then(**self._draw)
        parts["width"].input(**to_width).then(**self._draw)
        parts["figure_tab"].select(lambda: True, None, parts["on_figure"], **QUIETLY).then(**self._draw)
        parts["explore_tab"].select(lambda: False, None, parts["on_figure"], **QUIETLY)


def _reset_when_done(done: Done, document: DefinitionTree | None) -> dict:
    return reset(document) if done.anew else reset_lifts(document)


def _kept(document: DefinitionTree | None) -> dict:
    """The tree that is shown is kept to compare with."""
    return {"kept": document, "beside": link_query(document).removeprefix("?")}


def _dropped(result: Result, made: Made | None) -> dict:
    return {"kept": None, "beside": ""} | ({"address": result.where(made, {"beside": ""})} if made else {})


def _buttons(opened: DefinitionTree | None) -> dict[str, gr.Button]:
    there = opened is not None
    return {
        "grow": gr.Button("Grow tree", variant="primary", min_width=160, elem_id="grow"),
        "stop_growth": gr.Button("Stop", min_width=80, elem_id="stop"),
        "go_on": gr.Button("Go on", min_width=80, visible=False, elem_id="go-on"),
        "check": gr.Button("Check this tree", min_width=140, interactive=there, elem_id="check"),
        "keep": gr.Button("Keep to compare", min_width=140, interactive=there, elem_id="keep"),
        "drop": gr.Button("Stop comparing", min_width=140, visible=False, elem_id="drop"),
    }


def _words(opened: DefinitionTree | None) -> dict[str, Component | gr.Row]:
    """What is said of the tree: status, coverage, the offer to follow all next tokens, verdict and comparison."""
    offer = offer_told(opened)
    status = status_line("status", value=summary(opened))
    bar = gr.HTML(probability_bar(opened), elem_id="coverage", elem_classes="greys", apply_default_css=False)
    with gr.Row(visible=bool(offer), elem_classes="actions", elem_id="offer") as row:
        offered = gr.HTML(offer, elem_classes="greys", apply_default_css=False, padding=False, min_width=280)
        follow_all = gr.Button("Follow all above the cutoff", size="sm", scale=0, min_width=220, elem_id="follow-all")
    return {
        "status": status, "bar": bar, "offer": row, "offered": offered, "follow_all": follow_all,
        "verdict": gr.HTML("", elem_id="tree-verdict", elem_classes="greys"),
        "comparison": gr.HTML("", elem_id="comparison", elem_classes="greys", visible=False),
    }


def _tabs(opened: DefinitionTree | None) -> dict[str, Component | gr.Tab | gr.Column]:
    """The tree to explore, beside the kept one and the definitions; and the figure."""
    with gr.Tabs():
        with gr.Tab("Explore", elem_id="explore-tab") as explore_tab:
            views = _views(opened)
        with gr.Tab("Figure", elem_id="figure-tab") as figure_tab:
            figure = _figure()
    return {"explore_tab": explore_tab, "figure_tab": figure_tab, "on_figure": gr.State(False), **views, **figure}


def _views(opened: DefinitionTree | None) -> dict[str, Component | gr.Column]:
    with gr.Row():
        with gr.Column(scale=2, min_width=400, visible=False) as kept_column:
            kept_name = gr.HTML("", elem_id="kept-name", elem_classes="view-title", padding=False)
            kept_view = explorer(None, "kept-view")
        with gr.Column(scale=2, min_width=400):
            tree_name = gr.HTML("", elem_id="tree-name", elem_classes="view-title", padding=False, visible=False)
            view = explorer(explored(opened) if opened else None, "tree-view", elem_classes="greys")
        with gr.Column(scale=1, min_width=300):
            order = gr.Radio(ORDERS, value=ORDERS[0], label="Definitions by", elem_id="order", visible=False)
            definitions = gr.Dataframe(
                **table(opened, ORDERS[0], None), interactive=False, wrap=True, max_height=620, elem_id="definitions",
                elem_classes=["table", "greys"], label="Definitions",
            )
            copies = copy_buttons(to_copy(opened, ORDERS[0]), "copy-definitions", "the definitions")
    return {
        "kept_column": kept_column, "kept_name": kept_name, "kept_view": kept_view, "tree_name": tree_name,
        "view": view, "order": order, "definitions": definitions, "copies": copies,
    }


def _figure() -> dict[str, Component]:
    drawn_by: dict[str, Component] = {}
    with gr.Row():
        drawn_by |= {
            "kind": gr.Radio(_KINDS, value="tree", label="Drawn as", elem_id="drawn-as"),
            "width": gr.Dropdown(_WIDTHS_TOLD, value="", label="Width", elem_id="figure-width",
                                 info="A column's width has type that can be read without scaling"),
            "nodes": gr.Slider(10, 250, DEFAULT_NODES, step=10, label="Nodes in the figure", elem_id="drawn",
                               info="The most probable ones"),
        }
    with gr.Row():
        drawn_by |= {
            "dpi": gr.Dropdown(_RESOLUTIONS, value=150, label="Resolution of the PNG", elem_id="dpi",
                               info="Pixels per inch; SVG and PDF are sharp at any size"),
            "caption": gr.Checkbox(True, label="Caption", elem_id="caption",
                                   info="The recipe; the files hold it either way"),
            "dark": gr.Checkbox(False, label="Dark figure", elem_id="dark", info="For dark slides and pages"),
        }
    picture = gr.Image(
        type="filepath", format="png", interactive=False, show_label=False, label="Definition tree",
        buttons=["download", "fullscreen"], elem_id="tree-picture", elem_classes="greys",
    )
    with gr.Row():
        files = {kind: gr.DownloadButton(kind.upper(), size="sm", elem_id=kind) for kind in FIGURES}
    return {**drawn_by, "picture": picture, **files}


def _part_and_link(opened: DefinitionTree | None) -> dict[str, Component]:
    """What chooses the part of the tree that is shown; and the link to it."""
    with gr.Row():
        return {
            "trim": gr.Dropdown(
                trims(opened), value=AS_GROWN, label="Trim to cutoff", allow_custom_value=True, elem_id="trim",
                info="Leaves the rest out of all views and files, without growing again", visible=opened is not None,
                min_width=220,
            ),
            "least_lift": gr.Slider(
                0, 1, 0, step=0.1, label="Least lift", elem_id="least-lift", visible=False, min_width=260,
                info="In nats, over the centroid and random directions; 0 shows all",
            ),
            "link": link_box(
                "link", "Link to this tree", "Opens the page with the same settings and grows the tree",
                link_query(opened),
            ),
        }


def _files(opened: DefinitionTree | None) -> dict[str, Component]:
    files = data_files(opened) if opened else dict.fromkeys(FILES)
    texts = {"json": "Data (JSON)", "html": "Interactive page (HTML)", "csv": "Definitions (CSV)"}
    ids = {kind: kind for kind in FILES} | {"csv": "definitions-csv"}  # a list has a CSV too
    with gr.Row():
        return {
            **{
                kind: gr.DownloadButton(texts[kind], path, size="sm", elem_id=ids[kind], visible=opened is not None)
                for kind, path in files.items()
            },
            "upload": gr.UploadButton("Open a saved tree (JSON)", size="sm", file_types=[".json"], elem_id="open"),
        }
