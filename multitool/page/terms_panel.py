"""The terms of use of a local model, shown under the choice of its SAEs until they have been accepted."""

import re
from functools import partial
from html import escape
from ipaddress import ip_address

import gradio as gr

from multitool.errors import UserError
from multitool.page.callers import this_caller
from multitool.page.common import counted, event
from multitool.page.service import Service
from multitool.store.demo_models import terms_of
from multitool.store.library import Library
from multitool.store.terms import GEMMA_TERMS, Terms, accept_gemma_terms

_IN_A_LIST = r"\n(?!\d\. |- )\s*"  # a line's end where none of a list's lines follows


def terms_panel(service: Service, sae: gr.Dropdown) -> None:
    """Build it, unseen until an SAE is chosen whose model has terms that are not accepted yet.

    The button is for visitors on the machine that the page runs on: for others' machines their owners accept.
    """
    with gr.Column(visible=False, elem_id="terms") as panel:
        text = gr.HTML("", elem_id="terms-text", padding=False)
        accept = gr.Button(f"I accept the {GEMMA_TERMS.title}", variant="primary", elem_id="accept-terms")
    parts = {"panel": panel, "text": text, "accept": accept}
    options = {"show_progress": "hidden", **counted(service.light_callers)}
    sae.change(**event(partial(_asked, service), {"sae": sae}, parts, trigger_mode="always_last", **options))
    accept.click(**event(partial(_accepted, service), {}, {"panel": panel}, **options))


def _asked(service: Service, sae: str | None) -> dict:
    """The panel for an SAE that has been chosen."""
    terms = _awaited(service.library, sae)
    if terms is None:
        return {"panel": gr.update(visible=False)}
    here = _may_accept(service, this_caller())
    return {"panel": gr.update(visible=True), "text": terms_html(terms, here), "accept": gr.update(visible=here)}


def _accepted(service: Service) -> dict:
    """The panel once the terms have been accepted. Raises UserError for a visitor who cannot."""
    if not _may_accept(service, this_caller()):
        raise UserError(_elsewhere(GEMMA_TERMS))
    accept_gemma_terms()
    return {"panel": gr.update(visible=False)}


def _awaited(library: Library, sae: str | None) -> Terms | None:
    """The terms that must be accepted before the SAE's model is fetched; None where there are none."""
    terms = terms_of(library.find(sae).model) if sae and library.offers(sae) else None
    return terms if terms and not terms.accepted else None


def _may_accept(service: Service, caller: str) -> bool:
    """Whether it is the machine's own user who asks, as far as an address tells; on a Space none is."""
    try:
        return not service.settings.on_space and ip_address(caller).is_loopback
    except ValueError:
        return False


def terms_html(terms: Terms, here: bool) -> str:
    """What is told of terms, and their text.

    Args:
        here: whether the visitor may accept them.
    """
    page, title = escape(terms.page, quote=True), escape(terms.title)
    paragraphs = "".join(
        f"<p>{escape(re.sub(_IN_A_LIST, ' ', paragraph))}</p>" for paragraph in terms.text.split("\n\n")
    )
    elsewhere = "" if here else f'<p class="caution">{escape(_elsewhere(terms))}</p>'
    return (
        f'<p>This model is used under the <a href="{page}" target="_blank" rel="noopener">{title}</a>. They must be '
        f"accepted once; nothing of it is fetched before.</p>{elsewhere}"
        f'<div class="terms" tabindex="0" role="region" aria-label="{title}">{paragraphs}</div>'
    )


def _elsewhere(terms: Terms) -> str:
    return (
        f"Whoever runs this page accepts the {terms.title} on the machine that it runs on: by the button there, or "
        f"by setting {terms.variable} to 1."
    )
