"""The interface: the page with its tabs, and the API."""

import gradio as gr

from multitool.defaults import Opening
from multitool.library import Library
from multitool.settings import Settings
from multitool.ui_controls import feature_controls
from multitool.ui_endpoints import add_endpoints
from multitool.ui_gpu import gpu_worker
from multitool.ui_prompts import prompts_tab
from multitool.ui_service import Service
from multitool.ui_suggest import suggest_tab
from multitool.ui_text import text_tab
from multitool.ui_tokens import tokens_tab
from multitool.ui_tree import tree_tab

TITLE = "SAE feature multitool"


def build(library: Library, settings: Settings, opening: Opening) -> gr.Blocks:
    """The whole interface.

    Args:
        library: where models and SAEs come from.
        settings: the operator's limits.
        opening: what the page opens with, loaded in ``library``.
    """
    service = Service(library, settings, gpu_worker(library, settings, opening.entry.model))
    with gr.Blocks(title=TITLE, delete_cache=(3600, 24 * 3600), analytics_enabled=False, fill_width=True) as page:
        gr.HTML(
            f"<h1>{TITLE}</h1><p>What does a feature of a sparse autoencoder mean? Its weights become the embedding of "
            "a <em>ghost token</em>, a word that does not exist, and the model is asked to define it.</p>",
            elem_id="head", apply_default_css=False,
        )
        if opening.notice:
            gr.Markdown(opening.notice, elem_id="notice")
        with gr.Row():
            with gr.Column(scale=1, min_width=320, elem_id="controls"):
                controls = feature_controls(service, opening)
            with gr.Column(scale=3, min_width=480), gr.Tabs():
                with gr.Tab("Definition tree"):
                    growing = tree_tab(service, controls, opening, page)
                with gr.Tab("Token list"):
                    tokens_tab(service, controls)
                with gr.Tab("Text"):
                    text_tab(service, controls)
                with gr.Tab("Prompts"):
                    prompts_tab(service, controls)
                with gr.Tab("Suggest settings"):
                    suggest_tab(service, controls, growing)
        add_endpoints(page, service, opening.recipe)
    return page.queue(max_size=settings.queue, default_concurrency_limit=4)
