"""How the page is read, in seven steps; docs/how-to-read.md has the same words."""

from pathlib import Path

import gradio as gr

STEPS = Path(__file__).with_suffix(".md").read_text(encoding="utf-8")


def how_to_read() -> None:
    """Build the panel, folded away."""
    with gr.Accordion("How to read this", open=False, elem_id="how-to-read"):
        gr.Markdown(STEPS)
