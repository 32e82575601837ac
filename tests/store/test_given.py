"""Models and SAEs as objects in place of names: the same results bit for bit, nothing copied, nothing changed."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny import PROMPT, random_sae, tiny_model, write_model

from multitool.errors import UserError
from multitool.jobs.features import resolve
from multitool.jobs.local import check_tree, definition_tree, token_table
from multitool.recipes.recipe import ListRecipe, TreeRecipe, VectorRecipe
from multitool.store.given import given_model
from multitool.store.library import Library

HOOK = "blocks.1.hook_resid_post"
GROWTH = TreeRecipe(prompt=PROMPT, cutoff=0.005, max_depth=4, max_nodes=60)
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=["llama", "gemma2"])
def folders(request, tmp_path_factory, tokenizer):
    """A model's folder, and an SAE's."""
    folder = tmp_path_factory.mktemp("given")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SAE_MULTITOOL_CACHE", str(folder / "cache"))
        model = write_model(folder / "model", tiny_model(request.param), tokenizer)
        told = {"hook_name": HOOK, "model_name": str(model), "sae_lens_version": "6.0.0"}
        yield model, random_sae(folder / "sae", 32, 30, metadata=told)


def loaded(folder, **options):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, **options)


def lens_sae(folder):
    from sae_lens import SAE

    return SAE.load_from_disk(str(folder))


def same_tree(a, b):
    assert [definition.text for definition in a.definitions()] == [definition.text for definition in b.definitions()]
    assert np.array_equal(a.tree.prob, b.tree.prob) and np.array_equal(a.tree.token_id, b.tree.token_id)


@pytest.mark.parametrize("weights", ["encoder", "pullback", "vocabulary"])
def test_objects_give_what_their_names_give(folders, tokenizer, weights):
    model, sae = folders
    named = Library(allow_folder=True, dtype="float32", device="cpu")
    by_name = definition_tree(named, VectorRecipe(sae=str(sae), feature=3, weights=weights), GROWTH)
    given = Library(device="cpu")
    assert given.add_model(loaded(model), tokenizer, name=str(model)) == str(model)
    name = given.add_sae(lens_sae(sae))
    assert name == f"mine/{HOOK}"
    recipe = VectorRecipe(sae=name, feature=3, weights=weights)
    by_object = definition_tree(given, recipe, GROWTH)
    same_tree(by_name, by_object)
    assert by_object.settings["dtype"] == "float32" and by_object.settings["model"] == str(model)
    checked = [check_tree(library, tree).evidence for library, tree in ((named, by_name), (given, by_object))]
    assert checked[0] == checked[1]
    lists = ListRecipe(measure="logit_lens", top=5)
    assert token_table(given, recipe, lists).rows == (
        token_table(named, VectorRecipe(sae=str(sae), feature=3, weights=weights), lists).rows)


def test_nothing_is_copied_and_nothing_changes(folders, tokenizer):
    model, sae = loaded(folders[0]), lens_sae(folders[1])
    model.requires_grad_(True)
    library = Library(device="cpu")
    name = library.add_sae(sae, model=library.add_model(model, tokenizer, "mine/tiny"))
    before = {key: weight.clone() for key, weight in (*model.state_dict().items(), *sae.state_dict().items())}
    cfg = json.dumps(sae.cfg.to_dict(), sort_keys=True)
    target = resolve(library, VectorRecipe(sae=name, feature=1))
    assert target.subject.space.E.data_ptr() == model.get_input_embeddings().weight.data_ptr()
    assert target.sae.W_enc.data_ptr() == sae.W_enc.data_ptr() and target.sae.W_dec.data_ptr() == sae.W_dec.data_ptr()
    assert library.run(target.subject.name, target.subject.folder) is model
    encoder = library.encoder(target.sae.entry)
    assert {weight.data_ptr() for weight in encoder._sae.state_dict().values()} == (
        {weight.data_ptr() for weight in sae.state_dict().values()})
    for weights in ("pullback", "vocabulary"):
        check_tree(library, definition_tree(library, VectorRecipe(sae=name, feature=1, weights=weights), GROWTH))
    for key, weight in (*model.state_dict().items(), *sae.state_dict().items()):
        assert torch.equal(before[key], weight), key
    assert json.dumps(sae.cfg.to_dict(), sort_keys=True) == cfg
    assert all(weight.requires_grad and weight.grad is None for weight in model.parameters())


def test_a_model_runs_in_its_own_precision(folders, tokenizer):
    model = loaded(folders[0], dtype=torch.bfloat16)
    library = Library(device="cpu", dtype="float32")
    name = library.add_sae(lens_sae(folders[1]).to(dtype=torch.bfloat16), model=library.add_model(model, tokenizer))
    tree = definition_tree(library, VectorRecipe(sae=name, feature=3, weights="encoder"), GROWTH)
    assert tree.settings["dtype"] == "bfloat16"
    encoder = library.encoder(library.find(name))
    assert encoder.encode(torch.ones(2, 32)).dtype == torch.float32
    assert model.dtype == torch.bfloat16 and model.get_input_embeddings().weight.dtype == torch.bfloat16


def test_a_model_whose_weights_changed_is_told_from_what_it_was(folders, tokenizer):
    model = loaded(folders[0])
    before, again = (given_model(model, tokenizer).subject.folder for _ in range(2))
    assert before == again
    weight = model.get_decoder().layers[1].mlp.down_proj.weight
    with torch.no_grad():
        weight[5, 7] += 1
    changed = given_model(model, tokenizer).subject.folder
    with torch.no_grad():
        weight.copy_(weight.flip(0))
    assert len({before, changed, given_model(model, tokenizer).subject.folder}) == 3


def test_a_published_sae_reads_the_given_model_of_that_name(folders, tokenizer):
    """No second model is loaded for an SAE that names the same one."""
    model, sae = loaded(folders[0]), folders[1]
    library = Library(device="cpu", allow_folder=True)
    library.add_model(model, tokenizer)  # transformers knows the folder that it came from, which the SAE names
    target = resolve(library, VectorRecipe(sae=str(sae), feature=1))
    assert library.run(target.subject.name, target.subject.folder) is model


def test_saes_of_one_name_are_not_confused(folders, tokenizer):
    model, sae = loaded(folders[0]), lens_sae(folders[1])
    library = Library(device="cpu")
    library.add_model(model, tokenizer, "mine/tiny")
    name = library.add_sae(sae, model="mine/tiny")
    assert library.add_sae(sae, model="mine/tiny") == name, "the same cell, run again"
    other = lens_sae(folders[1])
    with torch.no_grad():
        other.W_dec.neg_()
    with pytest.raises(UserError, match=f"another SAE {name} here already. Name this one, e.g. name='{name}-2'"):
        library.add_sae(other, model="mine/tiny")
    assert library.add_sae(other, "my/second", model="mine/tiny") == "my/second"
    first, second = (library.sae(library.find(one)) for one in (name, "my/second"))
    assert torch.equal(first.W_dec, -second.W_dec)
    library.add_sae(other, name, model="mine/tiny")
    assert torch.equal(library.sae(library.find(name)).W_dec, second.W_dec)
    given = f"given models: mine/tiny, given SAEs: {name}, my/second"
    assert repr(library) == f"Library(device='cpu', dtype='float32', {given})"
    assert repr(second) == f"Sae(my/second: 30 features, d_model 32, {HOOK} of mine/tiny)"


def test_what_is_no_model_or_no_sae_is_refused(folders, tokenizer):
    library, model, sae = Library(device="cpu"), loaded(folders[0]), lens_sae(folders[1])
    with pytest.raises(UserError, match="model is a str; it must be a causal language model of transformers"):
        library.add_model("gpt2", tokenizer)
    with pytest.raises(UserError, match="it must be a causal language model"):
        library.add_model(model.get_decoder(), tokenizer)
    with pytest.raises(UserError, match="tokenizer is missing; give the model's fast one"):
        library.add_model(model)
    with pytest.raises(UserError, match=r"in training mode.* Call model\.eval\(\) before"):
        library.add_model(model.train(), tokenizer)
    name = library.add_model(model.eval(), tokenizer, "mine/tiny")
    with pytest.raises(UserError, match=r"sae is a str; it must be a sae_lens\.SAE"):
        library.add_sae(str(folders[1]))
    sae.cfg.metadata.model_name = None
    with pytest.raises(UserError, match="does not say which model it was trained on"):
        library.add_sae(sae)
    sae.cfg.metadata.hook_name = "blocks.1.hook_mlp_out"
    with pytest.raises(UserError, match="reads 'blocks.1.hook_mlp_out', and features of the residual stream alone"):
        library.add_sae(sae, model=name)
    sae.cfg.metadata.hook_name = None
    with pytest.raises(UserError, match="at a place that its cfg.metadata does not name"):
        library.add_sae(sae, model=name)
    mine = library.add_sae(sae, model=name, hook="blocks.0.hook_resid_pre")
    assert library.find(mine).hook == "blocks.0.hook_resid_pre"
    model.train()
    with pytest.raises(UserError, match="training mode"):
        definition_tree(library, VectorRecipe(sae=mine, feature=0, weights="encoder"), GROWTH)


# TransformerLens


def test_a_bridge_whose_layers_forget_is_refused(folders, tokenizer):
    """TransformerLens 3.9 hands its layers no cache by the name that transformers has for it since version 5.
    Where this fails a bridge's own model has become as good as any: let it be run, and say so in the README."""
    from transformer_lens.model_bridge import TransformerBridge
    from transformers import AutoTokenizer

    own = AutoTokenizer.from_pretrained(folders[0])
    bridge = TransformerBridge.boot_transformers(
        str(folders[0]), hf_model=loaded(folders[0]), tokenizer=own, device="cpu"
    )
    with pytest.raises(UserError, match="forgets earlier tokens .* Load the transformers model anew"):
        Library(device="cpu").add_model(bridge)


def test_a_bridge_that_fits_gives_its_own_model_and_tokenizer(folders, tokenizer):
    model = loaded(folders[0])
    bridge = SimpleNamespace(original_model=model, tokenizer=tokenizer, compatibility_mode=False)
    library = Library(device="cpu")
    name = library.add_model(bridge)
    subject = library.subject(name)
    assert library.run(name, subject.folder) is model and subject.tokenizer is tokenizer


def test_weights_that_transformer_lens_processed_are_refused(tokenizer):
    hooked = type("HookedTransformer", (), {"tokenizer": tokenizer})()
    with pytest.raises(UserError, match="HookedTransformer, which holds TransformerLens' own copy of the weights"):
        Library(device="cpu").add_model(hooked)
    bridge = SimpleNamespace(original_model=tiny_model("llama"), tokenizer=tokenizer, compatibility_mode=True)
    with pytest.raises(UserError, match="in compatibility mode, whose weights are no longer those"):
        Library(device="cpu").add_model(bridge)
