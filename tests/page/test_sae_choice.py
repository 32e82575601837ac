"""Choosing an SAE on the page: what the menus and the search make of what is chosen."""

from dataclasses import replace
from types import SimpleNamespace

import gradio as gr
import pytest

from multitool.errors import UserError
from multitool.page.opening import DEMO, Opening
from multitool.page.sae_choice import (
    _about,
    _found,
    _menus_shown,
    _of_menu,
    _of_model,
    _of_row,
    _of_sae,
    sae_choice,
    sae_names,
)
from multitool.page.saes_html import found_rows
from multitool.store.capacity import Machine, RunsHere
from multitool.store.library import Library
from multitool.store.registry import find_sae

CANONICAL = "gemma-scope-2b-pt-res-canonical/layer_12/width_16k/canonical"


@pytest.fixture(scope="module")
def library():
    return Library(device="cpu")


def test_a_model_brings_the_first_of_its_saes(library):
    model, own, gpt2 = "demo/SmolLM2-135M-Instruct-Q4_1", "demo/blocks.6.hook_resid_post", "openai-community/gpt2"
    assert _of_model(library, model, own) == {"model": model}
    for none in (None, "", "no such model"):
        assert _of_model(library, none, own) == {"model": model}
        assert _of_model(library, none, "no such SAE") == {}
    following = _of_model(library, gpt2, own)
    assert following["sae"]["value"] == "gpt2-small-res-jb/blocks.0.hook_resid_pre"
    assert following["sae"]["value"] in following["sae"]["choices"]
    assert _of_model(library, "google/gemma-2-2b", own)["sae"]["value"].endswith("layer_0/width_16k/canonical")


def test_menus_are_seen_where_there_is_a_choice(library):
    def seen(sae):
        return [name for name, menu in _menus_shown(library, find_sae(sae)).items() if menu["visible"]]

    assert seen("demo/hook_embed") == ["place"]
    assert seen("llama-3-8b-it-res-jh/blocks.25.hook_resid_post") == []
    assert seen(CANONICAL) == ["release", "place", "width"]
    assert seen("gemma-scope-2b-pt-res/layer_12/width_16k/average_l0_82") == ["release", "place", "width", "l0"]


def test_another_sae_sets_the_menus_and_offers_those_of_its_release(library):
    shown = _of_sae(library, CANONICAL, None)
    assert shown["model"] == "google/gemma-2-2b" and shown["fold"]["label"] == f"SAE: {CANONICAL}"
    assert (shown["place"]["value"], shown["width"]["value"]) == ("blocks.12.hook_resid_post", "16384")
    assert shown["sae"]["choices"][0] == CANONICAL and len(shown["sae"]["choices"]) == 58
    assert "value" not in shown["sae"]


def test_a_menu_sets_the_sae(library):
    chosen = _of_menu(library, "width", "65536", CANONICAL)
    assert chosen["sae"]["value"] == "gemma-scope-2b-pt-res-canonical/layer_12/width_65k/canonical"
    for nothing in ("16384", "no such width", None, ""):
        assert _of_menu(library, "width", nothing, CANONICAL) == {}
    assert _of_menu(library, "width", "65536", "no such SAE") == {}


def test_a_search_shows_the_first_rows_and_how_many_more_there_are(library):
    html = _found(library, "16k GEMMA-2-2b canonical")
    assert html.count("<tr data-sae=") == 26 and "26 found" in html
    assert f'<tr data-sae="{CANONICAL}">' in html
    many = _found(library, "gemma")
    assert many.count("<tr data-sae=") == 30 and "more: add words" in many and "found: choose one" in many
    assert len(many) < 30_000
    assert _found(library, " ") == ""
    assert "No SAE has all of these" in _found(library, "no such model")
    assert "more:" not in _found(library, "gemma-2b-res-jb")


def test_a_search_finds_what_the_operator_serves():
    only = Library(device="cpu", patterns=("gemma-2b-res-jb",))
    assert "No SAE has all of these" in _found(only, "gpt2")
    assert _found(only, "gemma-2b-res-jb").count("<tr data-sae=") == 5
    with pytest.raises(UserError, match="only gemma-2b-res-jb"):
        _of_row(only, "gpt2-small-res-jb/blocks.0.hook_resid_pre")


def test_a_row_tells_what_it_is_and_whether_it_runs_here():
    wide = find_sae("gemma-scope-2b-pt-res-canonical/layer_12/width_1m/canonical")
    html = found_rows([wide], [RunsHere(False, "30 GB of memory, <16> here")], 1)
    cells = ['"Model">google/gemma-2-2b<', '"Layer">12<', '"Width">1,048,576<', '"L0">', '"Parameters">2.61 B<',
             '"Licence">gated<', 'title="no: 30 GB of memory, &lt;16&gt; here">✗ no<']
    assert all(cell in html for cell in cells)
    hostile = replace(wide, sae_id='"><script>', model="<b>")
    assert "<script>" not in found_rows([hostile], [RunsHere(None, "")], 1)


def test_a_row_sets_the_sae_and_closes_the_search(library):
    assert _of_row(library, CANONICAL)["sae"]["value"] == CANONICAL
    assert _of_row(library, CANONICAL) | {"sae": None} == {"sae": None, "search": "", "found": ""}
    for name in ("no/such", 7, None, ["a"]):
        with pytest.raises(UserError, match="no SAE"):
            _of_row(library, name)


def test_an_sae_tells_where_it_was_trained_and_whether_its_model_is_gated(library):
    html = _about(library, "gemma-2b-res-jb/blocks.6.hook_resid_post")
    assert "layer 6 of google/gemma-2b (<code>blocks.6.hook_resid_post</code>)" in html
    assert "16,384 features, L0 56, a model of 2.51 B parameters" in html
    assert 'href="https://huggingface.co/google/gemma-2b"' in html
    assert "licence" not in _about(library, "gpt2-small-res-jb/blocks.0.hook_resid_pre")
    assert _about(library, "no/such") == _about(library, None) == ""


def test_what_is_in_memory_is_not_said_to_run():
    here = SimpleNamespace(
        offers=lambda name: True, find=find_sae, has=lambda entry: True, machine=Machine("cpu", "float32", None)
    )
    assert "Runs here" not in _about(here, "demo/hook_embed")
    assert "Trained on token embeddings of demo/SmolLM2" in _about(here, "demo/hook_embed")


def test_the_page_is_sent_the_saes_of_one_release_only(library):
    with gr.Blocks():
        choice = sae_choice(library, Opening(DEMO, library.find(DEMO.sae)))
    assert [value for _, value in choice.sae.choices] == sae_names(library, "demo/SmolLM2-135M-Instruct-Q4_1")
    assert choice.found.value == ""
