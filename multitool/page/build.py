"""The interface: the page with its tabs, the API, and how the page looks."""

from pathlib import Path

import gradio as gr
from starlette.middleware import Middleware

from multitool.page.about import about_panel
from multitool.page.address import Address, views_followed
from multitool.page.common import PRIVATE, part_heading
from multitool.page.endpoints import add_endpoints
from multitool.page.feature_card import CardPanel
from multitool.page.feature_choice import feature_choice
from multitool.page.find_tab import find_tab
from multitool.page.gradio_workarounds import Page
from multitool.page.how_to_read import how_to_read
from multitool.page.link_preview import FAVICON, LinkPreview
from multitool.page.list_tab import list_tab
from multitool.page.opening import Opening
from multitool.page.prompts_tab import prompts_tab
from multitool.page.service import MOST_LIGHT_CALLS, Service
from multitool.page.settings import ServerSettings
from multitool.page.steer_tab import steer_tab
from multitool.page.suggest_tab import suggest_tab
from multitool.page.text_tab import text_tab
from multitool.page.tree_tab import tree_tab
from multitool.page.vector_controls import vector_controls
from multitool.page.view import FIND, LIST, SEVERAL_PROMPTS, STEER, SUGGEST, TEXT, TREE
from multitool.page.zero_gpu import gpu_worker
from multitool.pictures.explorer import FOLDER as EXPLORER
from multitool.recipes.citation import NAME
from multitool.store.library import Library

TITLE = NAME
_THREADS = MOST_LIGHT_CALLS + 8  # a few for what is done at once, and counts as nobody's
_NEVER_FULL = 10**6


_HEAD = (
    f'<a class="skip" href="#result">Skip to the result</a><h1>{TITLE}</h1><p>What does a feature of a sparse '
    "autoencoder mean? Its weights become the embedding of a <em>ghost token</em>, a word that does not exist, and the "
    'model is asked to define it.</p><p role="status" class="unseen"></p>'
)
_HEAD_SCRIPT = Path(__file__).with_name("page_head.js")
_FOLDED_ON_A_PHONE = (
    "() => matchMedia('(max-width: 899px)').matches "
    "&& document.querySelectorAll(':is(#sae-fold, #vector-fold) > .label-wrap.open').forEach(fold => fold.click())"
)
CSS = [Path(__file__).with_name("page.css"), EXPLORER / "explorer.css"]


def _in_both(light: str, dark: str, *names: str) -> dict[str, str]:
    return dict.fromkeys(names, light) | {f"{name}_dark": dark for name in names}


# Fonts of the visitor's own system: nothing is fetched for them. Lines in place of shadows, labels in plain ink.
THEME = gr.themes.Soft(
    primary_hue="blue", neutral_hue="slate", spacing_size="sm", radius_size="md",
    font=["ui-sans-serif", "system-ui", "sans-serif"], font_mono=["ui-monospace", "Consolas", "monospace"],
).set(
    **_in_both("none", "none", "block_title_background_fill", "block_label_background_fill", "block_shadow",
               "button_primary_shadow", "button_primary_shadow_hover", "button_secondary_shadow",
               "button_secondary_shadow_hover", "checkbox_label_shadow", "input_shadow"),
    **_in_both("*body_text_color", "*body_text_color", "block_title_text_color", "block_label_text_color"),
    **_in_both("1px", "1px", "block_border_width", "input_border_width", "button_border_width",
               "checkbox_label_border_width"),
    **_in_both("*neutral_200", "*neutral_700", "block_border_color", "input_border_color", "border_color_primary",
               "button_secondary_border_color", "checkbox_label_border_color"),
    **_in_both("*neutral_300", "*neutral_600", "button_secondary_border_color_hover", "checkbox_border_color"),
    **_in_both("*primary_600", "*primary_600", "button_primary_background_fill", "button_primary_border_color",
               "checkbox_label_background_fill_selected", "checkbox_label_border_color_selected"),
    **_in_both("*primary_700", "*primary_500", "button_primary_background_fill_hover"),
    **_in_both("white", "*neutral_800", "button_secondary_background_fill", "checkbox_label_background_fill"),
    **_in_both("*neutral_100", "*neutral_700", "button_secondary_background_fill_hover"),
    **_in_both("*neutral_500", "*neutral_400", "block_info_text_color", "body_text_color_subdued"),
    **_in_both("*neutral_500", "*neutral_300", "input_placeholder_color"),
    **_in_both("*primary_600", "*primary_400", "link_text_color", "link_text_color_active", "link_text_color_visited"),
    **_in_both("*primary_700", "*primary_300", "link_text_color_hover"),
    block_title_padding="0", block_title_text_size="*text_sm",
    block_label_padding="0", block_label_text_size="*text_sm",
    block_padding="*spacing_lg *spacing_xl", button_large_padding="*spacing_md *spacing_xl",
    button_large_text_size="*text_md", button_large_text_weight="600", checkbox_label_padding="*spacing_sm *spacing_lg",
)


def build(library: Library, settings: ServerSettings, opening: Opening) -> gr.Blocks:
    """The whole interface.

    Args:
        library: where models and SAEs come from.
        settings: the operator's limits.
        opening: what the page opens with, loaded in ``library``.
    """
    service = Service(library, settings, gpu_worker(library, settings, opening.entry.model))
    with Page(title=TITLE, delete_cache=(3600, 24 * 3600), analytics_enabled=False, fill_width=True) as page:
        gr.HTML(_HEAD, js_on_load=_HEAD_SCRIPT.read_text(encoding="utf-8"), elem_id="head", apply_default_css=False)
        if notices := [opening.notice] * bool(opening.notice) + list(library.notes):
            gr.Markdown("\n\n".join(notices), elem_id="notice")
        views = views_followed(opening.recipe)
        with gr.Row(elem_id="layout"):
            with gr.Column(elem_id="choice"):
                part_heading("Feature")
                choice = feature_choice(service, opening)
            # In the order in which a phone shows them; events of the result need the vector's controls.
            result = gr.Column(elem_id="result")
            with gr.Column(elem_id="vector"):
                part_heading("Vector")
                with gr.Accordion("The feature's vector", elem_id="vector-fold"):
                    controls = vector_controls(service, opening, choice)
            with result:
                part_heading("Result")
                card = CardPanel(service, controls, opening)
                with gr.Tabs(elem_id="tabs", overflow_behavior="wrap") as tabs:
                    tree = gr.Tab("Definition tree", id=TREE)
                    with gr.Tab("Find", id=FIND) as finding:
                        found = find_tab(service, controls, tabs, finding, views)
                    with gr.Tab("Token list", id=LIST) as listing:
                        list_again = list_tab(service, controls, listing, views)
                    with gr.Tab("Steer", id=STEER):
                        steer_tab(service, controls, views)
                    with gr.Tab("Text", id=TEXT):
                        text_tab(service, controls, views)
                    with gr.Tab("Prompts", id=SEVERAL_PROMPTS):
                        prompts_tab(service, controls, views)
                    with gr.Tab("Suggest settings", id=SUGGEST):
                        suggested = suggest_tab(service, controls, views)
                    with tree:  # it grows what is found and suggested, too
                        list_again(tree_tab(service, controls, opening, found, suggested, tabs, card, views))
        controls.tell_after([result.done.change for result in views.results.values()])
        with gr.Column(elem_id="foot"):
            how_to_read()
            about_panel()
        Address(service, views).connect(page, tabs)
        page.load(None, js=_FOLDED_ON_A_PHONE, **PRIVATE)
        add_endpoints(page, service, opening.recipe)
    # All events begin at once: what would wait in Gradio's queue waits behind anybody's. ``callers`` tells who may.
    # (Without a size it would be 1 on ZeroGPU.)
    return page.queue(max_size=_NEVER_FULL, default_concurrency_limit=None)


def launch_options(settings: ServerSettings) -> dict:
    """What ``launch`` is told, other than how the page looks."""
    return {
        "max_file_size": "20mb" if settings.on_space else None, "ssr_mode": False, "mcp_server": True,
        "enable_monitoring": False,  # it would tell anybody who calls what
        "favicon_path": FAVICON, "app_kwargs": {"middleware": [Middleware(LinkPreview, title=TITLE)]},
        # One for each that may wait for the model, beside those who need none.
        "max_threads": _THREADS + settings.queue + settings.concurrency,
        "state_session_capacity": settings.states,
    }
