"""The second local model: its terms come first, and its SAEs go by the same ways as the demo's.

A tiny model of its width stands in for it, see ``standin_gemma``.
"""

import os
import re

import pytest
import standin_gemma
import torch
from safetensors.torch import save_file

import multitool as mt
from multitool.errors import UserError
from multitool.recipes import links
from multitool.store import demo_models, lenses, terms
from multitool.store.demo_models import DEMO_MODEL, DEMO_MODELS, GEMMA_MODEL, demo_model_folder
from multitool.store.entries import registry_facts
from multitool.store.library import Library
from multitool.store.models import load_subject
from multitool.store.pullbacks import write_shipped
from multitool.store.registry import demo_saes, find_sae, local_saes, models, saes
from multitool.store.terms import GEMMA_TERMS


@pytest.fixture
def cache(tmp_path, monkeypatch, tokenizer):
    return standin_gemma.put_in_place(tmp_path, monkeypatch, tokenizer)


def refusal(work, *args, **options) -> str:
    with pytest.raises(UserError) as caught:
        work(*args, **options)
    return str(caught.value)


# The terms


def test_their_text_is_shipped_whole_and_the_notice_is_the_one_that_they_ask_for():
    text = GEMMA_TERMS.text
    assert text.startswith("Gemma Terms of Use\n") and GEMMA_TERMS.version == "Last modified: March 24, 2025"
    headings = re.findall(r"^(\d\.\d) |^(Section \d):|^(Appendix)$", text, re.MULTILINE)
    assert ["".join(found) for found in headings] == [
        "Section 1", "1.1", "Section 2", "2.1", "2.2", "Section 3", "3.1", "3.2", "3.3", "Section 4",
        *(f"4.{number}" for number in range(1, 10)), "Appendix",
    ]  # fmt: skip
    notice = GEMMA_TERMS.file.with_name("NOTICE.txt").read_text()
    asked_for = re.search(r'contains the following notice: "(.*?)"', " ".join(text.split()))
    assert notice.splitlines()[0] == asked_for[1]


def test_before_they_are_accepted_nothing_is_fetched_and_every_way_to_accept_them_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("SAE_MULTITOOL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(demo_models, "_fetch", lambda *_: pytest.fail("fetched"))
    message = refusal(load_subject, GEMMA_MODEL)
    for named in (str(GEMMA_TERMS.file), "https://ai.google.dev/gemma/terms", "--accept-gemma-terms",
                  "mt.accept_gemma_terms()", "the button on the page", "SAE_MULTITOOL_ACCEPT_GEMMA_TERMS=1"):
        assert named in message
    assert not (tmp_path / "cache").exists()


def test_they_are_accepted_once_and_a_plain_file_says_when(cache):
    assert "must accept once" in refusal(demo_model_folder, GEMMA_MODEL), "though the model is there already"
    mt.accept_gemma_terms()
    file = cache / "gemma-terms-accepted.txt"
    said = file.read_text()
    assert re.fullmatch(
        r"The Gemma Terms of Use \(https://ai\.google\.dev/gemma/terms; Last modified: March 24, 2025\) were accepted "
        r"on \d{4}-\d\d-\d\d at \d\d:\d\d UTC\.\n", said
    )
    os.utime(file, (0, 0))
    mt.accept_gemma_terms()
    assert file.stat().st_mtime == 0
    assert demo_model_folder(GEMMA_MODEL) == cache / "gemma-3-270m-Q4_K_M"


def test_other_terms_than_those_that_were_accepted_are_asked_for_again(cache, tmp_path, monkeypatch):
    mt.accept_gemma_terms()
    later = tmp_path / "TERMS.txt"
    later.write_text("Gemma Terms of Use\n\nLast modified: March 25, 2035\n")
    monkeypatch.setattr(terms.Terms, "text", later.read_text())
    assert not GEMMA_TERMS.accepted


def test_an_operator_accepts_them_by_a_variable(cache, monkeypatch):
    for value, accepted in {"1": True, " True ": True, "yes": True, "0": False, "": False}.items():
        monkeypatch.setenv("SAE_MULTITOOL_ACCEPT_GEMMA_TERMS", value)
        assert GEMMA_TERMS.accepted == accepted


def test_a_cache_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    (tmp_path / "cache").write_text("I am a file")
    monkeypatch.setenv("SAE_MULTITOOL_CACHE", str(tmp_path / "cache"))
    assert str(tmp_path / "cache") in refusal(mt.accept_gemma_terms)


def test_the_demo_has_no_terms():
    assert DEMO_MODELS[DEMO_MODEL].terms is None
    assert find_sae("demo/hook_embed").licence_page is None


# Its SAEs


def test_they_are_listed_behind_the_demos_under_their_own_model(cache):
    assert [entry.name for entry in demo_saes(GEMMA_MODEL)] == [standin_gemma.SAE, standin_gemma.LAYER_SAE]
    assert local_saes() == (*demo_saes(), *demo_saes(GEMMA_MODEL))
    assert models()[:2] == (DEMO_MODEL, GEMMA_MODEL)
    assert [entry.name for entry in saes("gemma-3-270m q4_k")] == [standin_gemma.SAE, standin_gemma.LAYER_SAE]
    assert find_sae(standin_gemma.SAE).facts() == {
        "sae": "demo/gemma-3-270m/hook_embed", "model": GEMMA_MODEL, "hook": "hook_embed", "layer": None, "d_sae": 6,
        "l0": None, "canonical": False, "model_parameters": 268_000_000, "gated": True, "neuronpedia_id": None,
    }
    assert find_sae(standin_gemma.SAE).licence_page == GEMMA_TERMS.page == registry_facts()["terms"][GEMMA_MODEL]
    with pytest.raises(UserError, match="Release demo has gemma-3-270m/hook_embed"):
        find_sae("demo/gemma-3-270m/hook_embedding")


def test_their_layers_take_pullback_weights_which_need_no_scan(cache):
    embedding, layer = demo_saes(GEMMA_MODEL)
    assert (embedding.default_weights, layer.default_weights) == ("encoder", "pullback")
    assert embedding.list_weights == layer.list_weights == "pullback"


def test_without_any_the_model_is_not_offered(cache, tmp_path):
    for folder in (tmp_path / "demo" / "gemma-3-270m").iterdir():
        (folder / "cfg.json").unlink()
    assert demo_saes(GEMMA_MODEL) == ()
    assert GEMMA_MODEL not in models()


def test_on_a_space_they_are_served_once_its_operator_has_accepted_the_terms(cache, monkeypatch):
    monkeypatch.setenv("SPACE_ID", "me/space")
    assert GEMMA_MODEL not in models()
    message = refusal(find_sae, standin_gemma.SAE)
    assert "operator of this Space has not accepted" in message and "SAE_MULTITOOL_ACCEPT_GEMMA_TERMS to 1" in message
    monkeypatch.setenv("SAE_MULTITOOL_ACCEPT_GEMMA_TERMS", "1")
    assert GEMMA_MODEL in models()
    assert find_sae(standin_gemma.SAE, patterns=("gemma-2b-res-jb",)).model == GEMMA_MODEL


def test_what_lies_beside_one_is_of_its_own_model(cache, tmp_path):
    hook = find_sae(standin_gemma.LAYER_SAE).hook
    assert not lenses.is_fitted(GEMMA_MODEL, hook) and lenses.is_fitted(DEMO_MODEL, hook)
    folder = tmp_path / "demo" / "gemma-3-270m" / hook
    square = torch.randn(standin_gemma.D_MODEL, standin_gemma.D_MODEL)
    save_file({"J": square}, folder / "jacobian_lens.safetensors")
    write_shipped(folder, square)
    mt.accept_gemma_terms()
    library = Library(dtype="float32", device="cpu")
    entry = library.find(standin_gemma.LAYER_SAE)
    _, subject = library.load(entry)
    assert torch.equal(library.lens(entry, subject).J, square)
    assert library.pullback(entry, subject).shape == square.shape


def test_one_goes_through_trees_lists_links_and_sums(cache):
    library = Library(dtype="float32", device="cpu")
    vector = mt.VectorRecipe(sae=standin_gemma.SAE, feature=f"1 + {standin_gemma.LAYER_SAE}:2*0.5", weights="encoder")
    assert "must accept once" in refusal(mt.definition_tree, library, vector)
    mt.accept_gemma_terms()
    tree = mt.definition_tree(library, vector, mt.TreeRecipe(cutoff=0.05, max_nodes=20))
    assert tree.settings["sae"] == standin_gemma.SAE and tree.settings["model"] == GEMMA_MODEL
    rows = mt.token_table(library, mt.VectorRecipe(sae=standin_gemma.LAYER_SAE, feature=1), mt.ListRecipe(top=3)).rows
    assert len(rows) == 3
    parameters = links.parsed(links.query(links.told(vector)))
    assert links.vector_of(parameters, mt.VectorRecipe(sae="demo/hook_embed", feature=927)) == vector
