"""The terms of the second local model on the page: shown and accepted before anything of it is fetched."""

from dataclasses import replace
from types import SimpleNamespace

import gradio as gr
import pytest
import standin_gemma
from visit import opened

from multitool.errors import UserError
from multitool.page import terms_panel
from multitool.page.build import CSS
from multitool.page.callers import Callers
from multitool.page.sae_choice import _about
from multitool.page.service import Service
from multitool.page.settings import ServerSettings
from multitool.recipes.recipe import ListRecipe, VectorRecipe
from multitool.store.library import Library
from multitool.store.terms import GEMMA_TERMS

DEMO, HERE = "demo/hook_embed", "127.0.0.1"


@pytest.fixture
def service(tmp_path, monkeypatch, tokenizer):
    standin_gemma.put_in_place(tmp_path, monkeypatch, tokenizer)
    settings, library = ServerSettings(), Library(dtype="float32", device="cpu")
    return SimpleNamespace(settings=settings, library=library, light_callers=Callers())


@pytest.fixture
def called_from(monkeypatch):
    return lambda address: monkeypatch.setattr(terms_panel, "this_caller", lambda: address)


def test_it_is_seen_for_an_sae_of_that_model_until_the_terms_are_accepted(service, called_from):
    called_from(HERE)
    for sae in (DEMO, None, "", "no/such-sae"):
        assert terms_panel._asked(service, sae) == {"panel": gr.update(visible=False)}
    asked = terms_panel._asked(service, standin_gemma.SAE)
    assert asked["panel"]["visible"] and asked["accept"]["visible"]
    assert 'href="https://ai.google.dev/gemma/terms"' in asked["text"]
    assert terms_panel._accepted(service) == {"panel": gr.update(visible=False)}
    assert GEMMA_TERMS.accepted
    assert terms_panel._asked(service, standin_gemma.SAE) == {"panel": gr.update(visible=False)}


@pytest.mark.parametrize(
    ("address", "on_space"), [("192.168.1.7", False), ("8.8.8.8", False), ("", False), (HERE, True)]
)
def test_only_who_sits_at_the_machine_accepts_for_it(service, called_from, address, on_space):
    called_from(address)
    service.settings = replace(service.settings, on_space=on_space)
    asked = terms_panel._asked(service, standin_gemma.SAE)
    assert not asked["accept"]["visible"] and "SAE_MULTITOOL_ACCEPT_GEMMA_TERMS to 1" in asked["text"]
    with pytest.raises(UserError, match="Whoever runs this page"):
        terms_panel._accepted(service)
    assert not GEMMA_TERMS.accepted


def test_an_address_of_this_machine_may_be_written_as_ipv6(service):
    assert terms_panel._may_accept(service, "::1")


def test_their_text_is_shown_whole_and_escaped():
    text = 'T\n\n1. <b>one\n   more\n2. "two"\n\nlast'
    terms = SimpleNamespace(page="https://a.b/?c=1&d", title="Terms <of> use", variable="X", text=text)
    told = terms_panel.terms_html(terms, here=True)
    assert 'href="https://a.b/?c=1&amp;d"' in told and "Terms &lt;of&gt; use</a>" in told
    assert "<p>T</p><p>1. &lt;b&gt;one more\n2. &quot;two&quot;</p><p>last</p>" in told
    real = terms_panel.terms_html(GEMMA_TERMS, here=True)
    assert "Last modified: March 24, 2025" in real and "terms-archive" in real and "caution" not in real


def test_a_program_that_has_not_accepted_them_is_told_how(service):
    asking = Service(service.library, service.settings, lambda task: iter(()))
    with pytest.raises(UserError, match=r"must accept once .* SAE_MULTITOOL_ACCEPT_GEMMA_TERMS=1"):
        list(asking.table(VectorRecipe(sae=standin_gemma.SAE, feature=1, weights="encoder"), ListRecipe(top=2)))


def test_what_is_known_of_the_sae_says_nothing_of_another_licence(service):
    about = _about(service.library, standin_gemma.SAE)
    assert "demo/gemma-3-270m-Q4_K_M" in about and "after its terms" in about and "licence" not in about


@pytest.fixture
def url(service):
    """A page with nothing but the choice of an SAE and the panel."""
    with gr.Blocks() as page:
        sae = gr.Dropdown([DEMO, standin_gemma.SAE], value=DEMO, label="SAE", elem_id="sae")
        terms_panel.terms_panel(service, sae)
    page.launch(prevent_thread_lock=True, quiet=True, css_paths=CSS)
    yield page.local_url
    page.close()


def test_in_a_browser_it_comes_with_the_choice_and_goes_with_the_button(url, browser):
    with opened(browser, url, shows="#sae input") as page:
        assert not page.locator("#terms").is_visible()
        page.locator("#sae input").fill(standin_gemma.SAE)
        page.locator("#sae input").press("Enter")
        page.locator("#accept-terms").wait_for()
        assert "4.9 No Waiver" in page.locator("#terms .terms").inner_text()
        assert page.locator("#terms .terms").evaluate("box => box.scrollHeight > box.clientHeight")
        page.locator("#accept-terms").click()
        page.locator("#terms").wait_for(state="hidden")
    assert GEMMA_TERMS.accepted
