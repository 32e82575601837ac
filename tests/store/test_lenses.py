"""Jacobian lenses: fitted here and kept, those of the demo, and files as the reference implementation writes them."""

from pathlib import Path

import pytest
import torch
from tiny import random_sae, tiny_model, write_model

from multitool.errors import UserError
from multitool.jobs.features import resolve
from multitool.jobs.lenses import fitted
from multitool.jobs.local import finish
from multitool.model.jacobian_lens import JacobianLens
from multitool.recipes.recipe import VectorRecipe
from multitool.store import lenses
from multitool.store.demo_models import DEMO_MODEL
from multitool.store.entries import registry_facts
from multitool.store.library import Library

GPT2 = "openai-community/gpt2"
D = 8


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub with one lens file: ``hub(state)`` writes it."""
    def fetch(repo_id, file, download):
        assert (repo_id, file) == ("neuronpedia/jacobian-lens", registry_facts()["jacobian_lenses"]["files"][GPT2])
        return tmp_path

    monkeypatch.setattr(lenses, "fetch_lens_file", fetch)

    def write(state) -> Path:
        path = tmp_path / registry_facts()["jacobian_lenses"]["files"][GPT2]
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(state, path)
        return path

    return write


def lens_state(layers=(0, 1, 2)) -> dict:
    """As JacobianLens.save of the reference implementation: layer l's matrix holds l at (0, 1)."""
    matrices = {layer: torch.eye(D, dtype=torch.float16) for layer in layers}
    for layer, matrix in matrices.items():
        matrix[0, 1] = layer
    return {"J": matrices, "n_prompts": 5, "source_layers": list(layers), "d_model": D}


@pytest.mark.parametrize(("hook", "layer"), [("blocks.2.hook_resid_post", 2), ("blocks.2.hook_resid_pre", 1)])
def test_a_lens_of_the_hub_begins_at_the_output_of_a_layer(hub, hook, layer):
    hub(lens_state())
    assert lenses.is_fitted(GPT2, hook)
    lens = lenses.fitted_lens(GPT2, hook, D)
    assert (lens.J.dtype, lens.source) == (torch.float32, "neuronpedia/jacobian-lens on the hub")
    carried = lens.carry(torch.eye(D)[[1]])  # column 1 of J
    assert carried.tolist() == [[layer, 1, *[0] * (D - 2)]]


@pytest.mark.parametrize("hook", ["hook_embed", "blocks.0.hook_resid_pre", "blocks.3.hook_resid_mid"])
def test_places_of_which_the_hub_has_none_are_fitted_here(hook):
    assert not lenses.is_fitted(GPT2, hook) and not lenses.is_fitted("someone/else", "blocks.1.hook_resid_post")


def test_every_lens_of_the_hub_is_of_a_model_by_its_id():
    known = registry_facts()["jacobian_lenses"]
    assert len(known["files"]) > 20
    for model, file in known["files"].items():
        assert "/" in model and file.endswith("_jacobian_lens.pt") and file.count("/") == 3


class _Code:
    def __reduce__(self):
        return print, ("this must not run",)


@pytest.mark.parametrize(("state", "said"), [
    ({"jacobian_sum": {0: torch.eye(D)}}, "no Jacobian lens for the output of layer 1"),  # a checkpoint
    (lens_state(layers=(0,)), "no Jacobian lens for the output of layer 1"),
    ({"J": torch.eye(D)}, "no Jacobian lens"),
    ({"J": {1: torch.eye(D + 1)}}, r"\(9, 9\).* 8 entries"),
    ({"J": {1: torch.zeros(1, 1).expand(D, D)}}, "no Jacobian lens"),
    ({"J": {1: torch.eye(D)}, "x": _Code()}, "more than plain weights"),
])
def test_what_is_no_lens_is_refused(hub, state, said, capsys):
    hub(state)
    with pytest.raises(UserError, match=said):
        lenses.fitted_lens(GPT2, "blocks.1.hook_resid_post", D)
    assert "must not run" not in capsys.readouterr().out


def test_where_the_environment_would_run_pickles_none_is_read(hub, monkeypatch):
    hub(lens_state())
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    with pytest.raises(UserError, match="Unset that variable"):
        lenses.fitted_lens(GPT2, "blocks.1.hook_resid_post", D)


@pytest.mark.parametrize("hook", ["hook_embed", *(f"blocks.{layer}.hook_resid_post" for layer in (1, 6, 12))])
def test_the_demo_has_a_lens_for_each_of_its_hooks(hook):
    assert lenses.is_fitted(DEMO_MODEL, hook)
    lens = lenses.fitted_lens(DEMO_MODEL, hook, 576)
    assert lens.J.shape == (576, 576) and lens.J.isfinite().all() and lens.source == "the demo's"
    assert 0 < lens.J.diagonal().mean() < lens.J.norm(dim=1).mean()


@pytest.mark.parametrize("hook", ["hook_embed", "blocks.1.hook_resid_post"])
def test_a_lens_is_fitted_once_and_kept(tmp_path, tokenizer, monkeypatch, hook):
    monkeypatch.setenv("SAE_MULTITOOL_CACHE", str(tmp_path / "cache"))
    model = tiny_model("llama")
    write_model(tmp_path / "model", model, tokenizer)
    sae = random_sae(tmp_path / "sae", 32, model=str(tmp_path / "model"), hook=hook)
    library = Library(dtype="float32", device="cpu", allow_folder=True, bars=False)
    target = resolve(library, VectorRecipe(sae=str(sae), feature=1, weights="decoder"))
    told = []
    lens = finish(fitted(target), library, lambda progress: told.append(progress.done))
    assert told[0] == 0 and told[-1] == 32
    task = library.lens_task(target.sae.entry, target.subject)
    assert len(task.texts) == 6 and all(len(text) == 128 and text[0] == 0 for text in task.texts)
    expected = JacobianLens(model, hook, task.texts).rows(range(32))
    torch.testing.assert_close(lens.J, expected, rtol=2e-3, atol=2e-3 * float(expected.abs().max()))
    assert lens.source == "fitted on 6 texts"

    def run(*_):
        raise AssertionError("it was there already")

    monkeypatch.setattr(library, "run", run)
    assert torch.equal(finish(fitted(target), library).J, lens.J)


def test_features_of_different_hooks_have_no_common_lens(demo_library):
    recipe = VectorRecipe(sae="demo/hook_embed", feature="1 + demo/blocks.6.hook_resid_post:2", weights="decoder")
    with pytest.raises(UserError, match="read blocks.6.hook_resid_post and hook_embed.*begins at one hook"):
        finish(fitted(resolve(demo_library, recipe)), demo_library)
