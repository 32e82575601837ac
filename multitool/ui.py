"""The interface: the page with its two tabs, and the API."""

from pathlib import Path

import gradio as gr

from multitool.loading import Library
from multitool.ui_controls import feature_controls
from multitool.ui_endpoints import add_endpoints
from multitool.ui_tokens import tokens_tab
from multitool.ui_tree import OPENING, tree_tab

TITLE = "SAE feature multitool"
THEME = gr.themes.Soft(primary_hue="blue", neutral_hue="slate")
CSS = Path(__file__).with_name("page.css")


def build(library: Library) -> gr.Blocks:
    """The whole interface, with the opening SAE and its model loaded.

    Args:
        library: where models and SAEs come from.

    Raises:
        UserError: the opening SAE or its model cannot be loaded.
    """
    with gr.Blocks(title=TITLE, delete_cache=(3600, 24 * 3600), analytics_enabled=False) as page:
        gr.Markdown(
            f"# {TITLE}\n"
            "What does a feature of a sparse autoencoder mean? Its weights become the embedding of a *ghost token*, "
            "a word that does not exist, and the model is asked to define it."
        )
        with gr.Row():
            with gr.Column(scale=1, min_width=320):
                controls = feature_controls(library, OPENING)
            with gr.Column(scale=3, min_width=480), gr.Tabs():
                with gr.Tab("Definition tree"):
                    tree_tab(library, controls)
                with gr.Tab("Token list"):
                    tokens_tab(library, controls)
        add_endpoints(library, OPENING)
    return page.queue(max_size=32, default_concurrency_limit=4)
