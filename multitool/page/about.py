"""What the page tells of itself: the method, whose it is, what it builds upon, and how to cite it."""

import os
import re
from collections.abc import Mapping
from html import escape
from urllib.parse import quote

import gradio as gr

from multitool._version import __version__
from multitool.page.copying import copied, copy_buttons
from multitool.recipes.citation import (
    BUILT_UPON,
    LICENCE,
    LICENCE_PAGE,
    METHOD,
    METHOD_NOTEBOOK,
    NAME,
    Reference,
    method_bibtex,
    tool_bibtex,
)
from multitool.recipes.tables import Pasted

_METHOD = (
    "A sparse autoencoder (SAE) splits a language model's activations into features. A feature's weights give a "
    "direction; a vector that lies that way, as far from the mean of all token embeddings as a typical token, becomes "
    "the embedding of a <em>ghost token</em>, a word that does not exist. The model reads "
    '<code>A typical definition of "ghost" would be "</code>, and its most probable answers grow into a '
    "<b>definition tree</b>. A <b>token list</b> ranks the real tokens by how near they are to that vector and how far "
    "from the mean, which is near to everything. What comes of it is tested: does the feature fire on it, more than "
    "on what another feature or a random direction gives?"
)

_COLAB, _NOTEBOOK = "https://colab.research.google.com/#fileId=", "notebooks/sae_feature_multitool.ipynb"


def about_panel(environment: Mapping[str, str] = os.environ) -> None:
    """Build the panel, folded.

    Args:
        environment: tells which Space this is, if it is one.
    """
    address = space_address(environment)
    bibtex = f"{tool_bibtex(address)}\n{method_bibtex()}"
    with gr.Accordion("About, and how to cite", open=False, elem_id="about"):
        gr.HTML(about_html(address), elem_id="about-text", apply_default_css=False, padding=False)
        gr.HTML(f'<pre tabindex="0" aria-label="BibTeX">{escape(bibtex)}</pre>', elem_id="bibtex",
                apply_default_css=False, padding=False)
        copy_buttons(copied({"BibTeX": Pasted(bibtex, (), "", "")}), "copy-bibtex", "the references")


def space_address(environment: Mapping[str, str]) -> str | None:
    """Where the Space is that this runs on; None elsewhere."""
    name = environment.get("SPACE_ID", "")
    return f"https://huggingface.co/spaces/{name}" if re.fullmatch(r"[\w.-]+/[\w.-]+", name) else None


def about_html(address: str | None) -> str:
    """The panel's text.

    Args:
        address: where the tool is to be had, if that is known.
    """
    if address:
        help_ = (f'{_link(f"{address}/blob/main/README.md", "README")}, {_link(f"{address}/tree/main/docs", "docs")}; '
                 f'the code: {_link(f"{address}/tree/main", "repository")}; '
                 f'{_link(_COLAB + quote(f"{address}/blob/main/{_NOTEBOOK}", safe="/"), "the notebook in Colab")}')
    else:
        help_ = "its README and the folder docs, where you have it from"
    built = "".join(f"<li>{_told(reference)}: {escape(reference.of)}</li>" for reference in BUILT_UPON)
    return (
        f"<h3>The method</h3><p>{_METHOD}</p>"
        f"<p>The method is {escape(METHOD.authors)}’s, published with the post {_told(METHOD, author=False)} and the "
        f"notebook {_told(METHOD_NOTEBOOK, author=False)}.</p>"
        f"<h3>It builds upon</h3><ul>{built}</ul>"
        f"<h3>This tool</h3><p>{NAME}, version {__version__}, under {_link(LICENCE_PAGE, LICENCE)}. Help: {help_}.</p>"
        "<h3>Cite</h3><p>The tool with its version, and the post. Every file that it makes tells its whole recipe.</p>"
    )


def _told(reference: Reference, *, author: bool = True) -> str:
    by = f"{escape(reference.authors)} {reference.year}, " if author else ""
    year = "" if author else f" ({reference.year})"
    return f"{by}{_link(reference.url, reference.title)}{year}"


def _link(url: str, text: str) -> str:
    return f'<a href="{escape(url, quote=True)}" target="_blank" rel="noopener">{escape(text)}</a>'
