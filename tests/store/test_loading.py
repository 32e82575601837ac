"""Loading models and SAEs from folders and from the demo, and what is said when that cannot be."""

import builtins
import json
import shutil
import threading
import time
import weakref

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import byte_level_tokenizer, random_sae, tiny_model, write_model, write_sae

from multitool.errors import UserError
from multitool.jobs.local import definition_tree, token_table
from multitool.recipes.recipe import ListRecipe, TreeRecipe, VectorRecipe
from multitool.store.demo_models import DEMO_MODEL
from multitool.store.devices import Gpu
from multitool.store.folders import folder_sae
from multitool.store.library import Library, _MadeOnce
from multitool.store.models import load_model, load_subject
from multitool.store.problems import asking_hub
from multitool.store.registry import demo_saes, find_sae
from multitool.store.saes import load_sae, strongest_contexts

W_ENC = torch.tensor([[1.0, 0.0, 3.0], [0.0, 2.0, 4.0]])  # (d_model 2, d_sae 3)
W_DEC = torch.tensor([[1.0, 0.1], [0.2, 2.0], [3.0, 5.0]])


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory, tokenizer):
    return write_model(tmp_path_factory.mktemp("models") / "tiny-llama", tiny_model("llama"), tokenizer)


@pytest.fixture
def copied_model(model_folder, tmp_path):
    """A model folder to damage."""
    return shutil.copytree(model_folder, tmp_path / "model")


@pytest.fixture
def sae_folder(tmp_path):
    return write_sae(tmp_path / "sae", W_enc=W_ENC, W_dec=W_DEC, model="gemma-2b")


def library(**options) -> Library:
    return Library(**({"dtype": "float32", "device": "cpu"} | options))


def loaded(folder):
    return load_sae(folder_sae(folder))


def load_whole(name, dtype="float32"):
    """A model's embeddings and tokens, and the model itself."""
    subject = load_subject(str(name))
    return subject, load_model(subject.name, subject.folder, dtype, "cpu")


def refusal(call, *args, **options) -> str:
    with pytest.raises(UserError) as caught:
        call(*args, **options)
    message = str(caught.value)
    assert len(message) < 1000
    assert "\n" not in message
    return message


# SAEs


def test_an_sae_folder_gives_the_weights_that_were_written(sae_folder):
    sae = loaded(sae_folder)
    assert torch.equal(sae.W_enc, W_ENC)
    assert torch.equal(sae.W_dec, W_DEC)
    assert (sae.d_model, sae.d_sae) == (2, 3)


def test_a_feature_is_a_column_of_the_encoder_and_a_row_of_the_decoder(sae_folder):
    feature = loaded(sae_folder).feature(2)
    assert feature.encoder.tolist() == [3, 4]
    assert feature.decoder.tolist() == [3, 5]


def test_weights_in_half_precision_stay_so_and_features_come_in_single_precision(tmp_path):
    sae = loaded(write_sae(tmp_path / "half", W_enc=W_ENC.half(), W_dec=W_DEC.half(), dtype="float16"))
    assert sae.W_enc.dtype == torch.float16
    assert sae.feature(2).encoder.dtype == torch.float32


@pytest.mark.parametrize("index", [3, 100, 10**30, -1])
def test_a_feature_that_the_sae_does_not_have_is_refused_with_the_range(sae_folder, index):
    message = refusal(loaded(sae_folder).feature, index)
    assert f"feature is {index}" in message
    assert "0 to 2" in message


def test_an_sae_without_weights_is_refused_with_the_missing_file(sae_folder):
    (sae_folder / "sae_weights.safetensors").unlink()
    message = refusal(loaded, sae_folder)
    assert str(sae_folder / "sae_weights.safetensors") in message
    assert "missing" in message


@pytest.mark.parametrize("size", [0, 4, 100, -1])
def test_weights_that_are_cut_short_are_refused(sae_folder, size):
    path = sae_folder / "sae_weights.safetensors"
    path.write_bytes(path.read_bytes()[:size])
    assert "cut short" in refusal(loaded, sae_folder)


@pytest.mark.parametrize("content", [b"garbage" * 100, b"\xff" * 64, b"PK\x03\x04" + b"\0" * 100])
def test_weights_that_are_something_else_are_refused(sae_folder, content):
    (sae_folder / "sae_weights.safetensors").write_bytes(content)
    assert "cannot be read" in refusal(loaded, sae_folder)


def test_a_folder_in_the_place_of_the_weights_is_refused(sae_folder):
    path = sae_folder / "sae_weights.safetensors"
    path.unlink()
    path.mkdir()
    assert str(path) in refusal(loaded, sae_folder)


@pytest.mark.parametrize("missing", ["W_enc", "W_dec"])
def test_a_missing_matrix_is_named(sae_folder, missing):
    weights = {"W_enc": W_ENC, "W_dec": W_DEC}
    del weights[missing]
    save_file(weights, sae_folder / "sae_weights.safetensors")
    assert f"has no {missing}" in refusal(loaded, sae_folder)


@pytest.mark.parametrize(
    ("W_enc", "W_dec"),
    [
        ((2, 3), (2, 3)),  # both the same way round
        ((2, 3), (4, 2)),  # another number of features
        ((2, 3), (3, 5)),  # another model
        ((6,), (3, 2)),
        ((2, 3), (6,)),
        ((2, 3), ()),
        ((), ()),
        ((2, 3, 1), (1, 3, 2)),
    ],
    ids=str,
)
@pytest.mark.filterwarnings("error")
def test_matrices_that_do_not_fit_together_are_refused_with_their_shapes(sae_folder, W_enc, W_dec):
    save_file({"W_enc": torch.ones(W_enc), "W_dec": torch.ones(W_dec)}, sae_folder / "sae_weights.safetensors")
    message = refusal(loaded, sae_folder)
    assert str(tuple(W_enc)) in message
    assert str(tuple(W_dec)) in message


def test_an_sae_trained_on_an_mlp_is_refused_before_it_is_read(tmp_path):
    folder = write_sae(tmp_path / "mlp", W_enc=W_ENC, W_dec=W_DEC, hook="blocks.0.hook_mlp_out")
    (folder / "sae_weights.safetensors").unlink()
    assert "the output of an MLP layer" in refusal(find_sae, str(folder), allow_folder=True)


def test_an_sae_of_the_registry_cannot_be_loaded_without_the_hub():
    # Its weights are not here and the tests allow no network.
    message = refusal(load_sae, find_sae("gemma-2b-res-jb/blocks.6.hook_resid_post"))
    assert "gemma-2b-res-jb/blocks.6.hook_resid_post" in message
    assert "network" in message


def test_the_demos_saes_are_read_as_sae_lens_reads_them():
    from sae_lens import SAE

    for entry in demo_saes():
        ours, theirs = load_sae(entry), SAE.load_from_disk(str(entry.folder), device="cpu")
        assert torch.equal(ours.W_enc, theirs.W_enc), entry.name
        assert torch.equal(ours.W_dec, theirs.W_dec), entry.name
        assert entry.hook == theirs.cfg.metadata.hook_name
        assert theirs.cfg.normalize_activations == "none"


def test_a_folder_that_sae_lens_wrote_is_read(tmp_path):
    from sae_lens import StandardSAE, StandardSAEConfig
    from sae_lens.saes.sae import SAEMetadata

    metadata = SAEMetadata(model_name="gemma-2b", hook_name="blocks.6.hook_resid_post")
    theirs = StandardSAE(StandardSAEConfig(d_in=4, d_sae=6, metadata=metadata))
    theirs.save_model(tmp_path / "theirs")
    ours = loaded(tmp_path / "theirs")
    assert torch.equal(ours.W_enc, theirs.W_enc)
    assert torch.equal(ours.W_dec, theirs.W_dec)
    assert (ours.entry.model, ours.entry.layer, ours.entry.kind) == ("google/gemma-2b", 6, "resid_post")


# Contexts


def test_contexts_kept_with_an_sae_are_told_by_feature(sae_folder):
    contexts = [[["the ", "dog", " barks", 2.5], ["a ", "cat", "", 1.0]], [], [["", "x", "", 0.5]]]
    (sae_folder / "contexts.json").write_text(json.dumps({"features": contexts}))
    found = strongest_contexts(folder_sae(sae_folder), 0)
    assert [(c.before, c.token, c.after, c.activation) for c in found] == [tuple(c) for c in contexts[0]]
    assert strongest_contexts(folder_sae(sae_folder), 1) == []
    assert strongest_contexts(folder_sae(sae_folder), 3) == []


def test_without_contexts_there_are_none(sae_folder):
    assert strongest_contexts(folder_sae(sae_folder), 0) == []
    assert strongest_contexts(find_sae("gemma-2b-res-jb/blocks.6.hook_resid_post"), 0) == []


# Models


def test_a_model_folder_gives_the_model_that_was_written(model_folder):
    subject, model = load_whole(model_folder)
    expected = tiny_model("llama").state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in model.state_dict().items())
    assert subject.name == str(model_folder)
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert subject.tokenizer("dog")["input_ids"] == byte_level_tokenizer()("dog")["input_ids"]


def assert_same_weights(model, expected):
    assert type(model) is type(expected)
    assert model.state_dict().keys() == expected.state_dict().keys()
    assert all(torch.equal(tensor, expected.state_dict()[name]) for name, tensor in model.state_dict().items())


def test_a_folder_of_every_architecture_is_loaded_whole_and_its_embeddings_alone(subject, tokenizer, tmp_path):
    again, model = load_whole(write_model(tmp_path, subject.model, tokenizer))
    assert_same_weights(model, subject.model)
    assert torch.equal(again.space.E, subject.space.E)
    assert (again.max_length, again.n_layers) == (256, subject.n_layers)


def test_a_folder_in_many_files_is_loaded_whole(tokenizer, tmp_path):
    expected = tiny_model("llama")
    expected.save_pretrained(tmp_path, max_shard_size="20kB")
    tokenizer.save_pretrained(tmp_path)
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 3
    subject, model = load_whole(tmp_path)
    assert_same_weights(model, expected)
    assert torch.equal(subject.space.E, expected.get_input_embeddings().weight)


def test_an_index_that_names_a_file_outside_of_the_folder_is_refused(copied_model, tmp_path):
    shutil.move(copied_model / "model.safetensors", tmp_path / "elsewhere.safetensors")
    index = {"weight_map": {"model.embed_tokens.weight": "../elsewhere.safetensors"}}
    (copied_model / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "outside" in refusal(load_subject, str(copied_model))


def test_a_folder_without_the_output_matrix_that_is_the_embedding_is_whole(tokenizer, tmp_path):
    # So is GPT-2 kept on the hub: the inner model alone.
    expected = tiny_model("gpt2")
    subject, model = load_whole(write_model(tmp_path, expected.base_model, tokenizer))
    assert torch.equal(model.lm_head.weight, expected.lm_head.weight)
    assert torch.equal(subject.space.E, expected.lm_head.weight)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_a_model_runs_in_the_precision_that_was_asked_for_and_its_embeddings_stay_as_stored(model_folder, dtype):
    subject, model = load_whole(model_folder, dtype)
    assert str(model.dtype) == f"torch.{dtype}"
    assert subject.space.E.dtype == torch.float32


def test_the_demo_model_is_what_its_saes_were_trained_on(demo_library):
    sae, subject = demo_library.load(find_sae("demo/hook_embed"))
    assert subject.name == DEMO_MODEL
    assert (subject.space.n_tokens, subject.space.d_model) == (49_152, 576)
    assert sae.d_model == 576
    assert subject.space.mean_distance == pytest.approx(2.388, abs=1e-3)


def text(file, content):
    return lambda folder: (folder / file).write_text(content)


def gone(*files):
    return lambda folder: [(folder / file).unlink() for file in files]


def cut(file):
    return lambda folder: (folder / file).write_bytes((folder / file).read_bytes()[:5_000])


def setting(**values):
    def change(folder):
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | values))

    return change


def without_tensor(name):
    def change(folder):
        weights = load_file(folder / "model.safetensors")
        del weights[name]
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})

    return change


DAMAGES = {
    "an empty folder": lambda folder: [path.unlink() for path in folder.iterdir()],
    "no configuration": gone("config.json"),
    "an empty configuration": text("config.json", ""),
    "a configuration that is no JSON": text("config.json", "garbage"),
    "a configuration that is a list": text("config.json", "[]"),
    "no tokenizer": gone("tokenizer.json", "tokenizer_config.json"),
    "a tokenizer that is no JSON": text("tokenizer.json", "garbage"),
    "a tokenizer that is a list": text("tokenizer.json", "[]"),
    "a tokenizer that is cut short": cut("tokenizer.json"),
    "a tokenizer's configuration that is a list": text("tokenizer_config.json", "[]"),
    "no weights": gone("model.safetensors"),
    "empty weights": text("model.safetensors", ""),
    "weights that are cut short": cut("model.safetensors"),
    "weights that are something else": text("model.safetensors", "garbage" * 100),
    "an unknown architecture": setting(model_type="nonesuch"),
    "a model that translates": setting(model_type="t5", architectures=["T5ForConditionalGeneration"]),
    "a size that is no number": setting(hidden_size="wide"),
    "another size than the weights have": setting(hidden_size=64),
    "more tokens than the weights have": setting(vocab_size=400),
    "no attention heads": setting(num_attention_heads=0),
    # Such a model loads, with random numbers in the place of what is missing.
    "more layers than the weights have": setting(num_hidden_layers=5),
    "a matrix is missing": without_tensor("model.layers.1.mlp.up_proj.weight"),
    "the embedding is missing": without_tensor("model.embed_tokens.weight"),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_model_folder_is_refused_with_its_path(copied_model, damage):
    damage(copied_model)
    assert str(copied_model) in refusal(load_whole, copied_model)


def test_pickled_weights_are_not_read(copied_model):
    class Payload:
        def __reduce__(self):
            return print, ("the pickle was run",)

    torch.save({"model.embed_tokens.weight": Payload()}, copied_model / "pytorch_model.bin")
    (copied_model / "model.safetensors").unlink()
    assert "safetensors" in refusal(load_whole, copied_model)


@pytest.mark.parametrize("part", ["model", "tokenizer"])
def test_code_that_comes_with_a_model_is_not_run_whatever_the_user_answers(copied_model, part, monkeypatch, tmp_path):
    trace = tmp_path / "it was run"
    (copied_model / "theirs.py").write_text(f"open({str(trace)!r}, 'w')\nclass Config: pass\nclass Model: pass\n")
    if part == "model":
        setting(model_type="theirs", auto_map={"AutoConfig": "theirs.Config", "AutoModelForCausalLM": "theirs.Model"})(
            copied_model
        )
    else:
        path = copied_model / "tokenizer_config.json"
        theirs = {"tokenizer_class": "Theirs", "auto_map": {"AutoTokenizer": ["theirs.Model", "theirs.Model"]}}
        path.write_text(json.dumps(json.loads(path.read_text()) | theirs))
    asked = []
    monkeypatch.setattr(builtins, "input", lambda *question: asked.append(question) or "y")
    refusal(load_whole, copied_model)
    assert not trace.exists()
    assert asked == []


def test_a_tokenizer_without_a_fast_version_is_refused(copied_model):
    (copied_model / "tokenizer.json").unlink()
    path = copied_model / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"tokenizer_class": "ByT5Tokenizer"}))
    assert "no fast version" in refusal(load_whole, copied_model)


@pytest.mark.parametrize("name", ["no such model", "/gone/folder", "./gone", "../gone", "a/b/c", "x" * 300])
def test_a_model_that_is_nowhere_is_refused_by_name_with_what_could_be_there(name):
    message = refusal(load_subject, name)
    assert name[:60] in message
    assert "hub id" in message
    assert "folder" in message


@pytest.mark.parametrize("name", ["no/such-model", "demo/other", "gpt2"])
def test_a_model_of_the_hub_needs_a_network_the_first_time(name):
    message = refusal(load_subject, name)
    assert name in message
    assert "hub cannot be reached" in message
    assert "HF_HUB_OFFLINE is set" in message


def test_behind_a_proxy_it_is_named_among_what_to_check_without_its_password(monkeypatch):
    monkeypatch.setenv("https_proxy", "http://me:secret@proxy:3128")
    with pytest.raises(UserError) as caught, asking_hub("owner/model"):
        raise ConnectionError("refused")
    assert "Check the network and the proxy that is set (HTTPS_PROXY, ALL_PROXY)" in str(caught.value)
    assert "secret" not in str(caught.value)


# The library


@pytest.mark.parametrize("dtype", ["float64", "int8", "", "Float32", 32])
def test_an_unknown_dtype_is_refused(dtype):
    message = refusal(Library, dtype=dtype, device="cpu")
    assert f"dtype is {dtype!r}" in message
    assert "float32, bfloat16, float16" in message


@pytest.mark.parametrize("device", ["gpu", "mps", "cuda:0", "", None])
def test_an_unknown_device_is_refused(device):
    message = refusal(Library, device=device)
    assert f"device is {device!r}" in message
    assert "auto, cpu, cuda" in message


def test_a_gpu_where_there_is_none_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    message = refusal(Library, device="cuda")
    assert "cuda" in message
    assert "cpu or auto" in message


@pytest.mark.parametrize(
    ("gpu", "device", "dtype"), [(None, "cpu", "float32"), (Gpu("H100", (9, 0)), "cuda", "bfloat16")]
)
def test_by_default_the_device_is_what_there_is_and_the_precision_what_suits_it(gpu, device, dtype):
    library = Library(gpu=lambda: gpu)
    assert (library.device, library.precision("any/model")) == (device, dtype)
    assert Library(device="cpu", gpu=lambda: gpu).precision("any/model") == "float32"
    assert Library(dtype="float16", gpu=lambda: gpu).precision("any/model") == "float16"


@pytest.fixture
def saes(tmp_path, model_folder):
    """Three SAE folders for the tiny model."""
    return [
        folder_sae(random_sae(tmp_path / name, d_model=32, seed=seed, model=str(model_folder)))
        for seed, name in enumerate("abc")
    ]


def test_what_was_loaded_is_kept(saes):
    kept = library()
    first, again = kept.load(saes[0]), kept.load(saes[0])
    assert first[0] is again[0]
    assert first[1] is again[1]


def test_one_model_serves_all_its_saes(saes):
    kept = library()
    (one, subject), (other, same) = kept.load(saes[0]), kept.load(saes[1])
    assert subject is same
    assert one is not other


def test_the_sae_that_was_not_used_for_longest_is_dropped(saes):
    kept = library(max_saes=2)
    a, b, c = saes
    first_a, first_b = kept.load(a)[0], kept.load(b)[0]
    kept.load(a)
    kept.load(c)  # b goes
    assert kept.load(a)[0] is first_a
    assert kept.load(b)[0] is not first_b


def test_one_model_is_kept_at_a_time_unless_more_are_asked_for(model_folder, copied_model):
    one, two = library(), library(max_models=2)
    first = one.run("a", model_folder), two.run("a", model_folder)
    dropped = weakref.ref(first[0])
    one.run("b", copied_model), two.run("b", copied_model)
    assert two.run("a", model_folder) is first[1]
    del first
    assert dropped() is None, "its memory is given back"
    assert one.run("a", model_folder) is one.run("a", model_folder)


def test_lists_and_vectors_run_no_model(saes, monkeypatch):
    monkeypatch.setattr("multitool.store.library.load_model", None)
    token_table(library(allow_folder=True), VectorRecipe(sae=str(saes[0].folder), feature=0), ListRecipe())


def test_what_two_ask_for_at_once_is_made_once_and_a_failure_is_told_to_both():
    kept, made, both = _MadeOnce(2), [], threading.Barrier(2)

    def make():
        made.append(1)
        time.sleep(0.05)
        raise UserError("no")

    def ask(answers):
        both.wait()
        with pytest.raises(UserError) as caught:
            kept.get("key", make)
        answers.append(str(caught.value))

    answers = []
    threads = [threading.Thread(target=ask, args=(answers,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (made, answers) == ([1], ["no", "no"])
    assert kept.get("key", lambda: "now it works") == "now it works"


def test_a_slow_load_does_not_hold_up_what_is_there_already(saes):
    kept, waiting, go_on = _MadeOnce(2), threading.Event(), threading.Event()
    kept.get("there", lambda: 1)
    slow = threading.Thread(target=kept.get, args=("slow", lambda: (waiting.set(), go_on.wait(10))))
    slow.start()
    waiting.wait(10)
    assert kept.get("there", lambda: 2) == 1
    assert "there" in kept
    assert "slow" not in kept
    go_on.set()
    slow.join()


@pytest.mark.parametrize("said", [
    "[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory",
    "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
])  # fmt: skip
def test_memory_that_does_not_suffice_is_said(model_folder, saes, monkeypatch, said):
    def full(*_, **__):
        raise RuntimeError(said)

    kept = library(allow_folder=True)
    recipe = VectorRecipe(sae=str(saes[0].folder), feature=0)
    monkeypatch.setattr("multitool.model.passes.Continuations.start", full)
    assert "fewer nodes" in refusal(definition_tree, kept, recipe, TreeRecipe())
    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", full)
    message = refusal(load_model, "big", model_folder, "float32", "cpu")
    assert "does not fit into the memory" in message
    assert "bfloat16" in message


class Large:
    """Stands for what lies on the GPU."""


@pytest.mark.parametrize("where", ["multitool.model.passes.Continuations.start", "transformers.PreTrainedModel.to"])
def test_what_was_held_when_the_memory_was_full_is_given_back_while_the_error_is_told(saes, monkeypatch, where):
    held, given_back = [], []

    def full(*_, **__):
        large = Large()
        held.append(weakref.ref(large))
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(where, full)
    monkeypatch.setattr("multitool.store.library._give_memory_back", lambda: given_back.append(held[0]() is None))
    recipe = VectorRecipe(sae=str(saes[0].folder), feature=0)
    with pytest.raises(UserError, match="memory"):  # which has that error, and its frames, as its cause
        definition_tree(library(allow_folder=True), recipe)
    assert given_back == [True]


def test_requests_at_the_same_time_share_one_model(saes):
    kept = library()
    found = []
    threads = [threading.Thread(target=lambda: found.append(kept.load(saes[0]))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert len({id(subject) for _, subject in found}) == 1


def test_a_failed_request_does_not_spoil_the_next(saes, tmp_path):
    kept = library()
    assert "cannot be loaded" in refusal(kept.load, saes[0], str(tmp_path))
    assert kept.load(saes[0])[1].space.d_model == 32
    assert "cannot be loaded" in refusal(kept.load, saes[0], str(tmp_path))


def test_an_sae_and_a_model_of_different_width_are_refused_with_both_widths(tmp_path, model_folder):
    narrow = folder_sae(random_sae(tmp_path / "narrow", d_model=16, model="gemma-2b"))
    message = refusal(library().load, narrow, str(model_folder))
    assert "16" in message
    assert "32" in message
    assert "google/gemma-2b" in message


def test_an_sae_of_a_layer_that_the_model_does_not_have_is_refused(tmp_path, model_folder):
    deep = folder_sae(random_sae(tmp_path / "deep", d_model=32, hook="blocks.3.hook_resid_post"))
    message = refusal(library().load, deep, str(model_folder))
    assert "blocks.3.hook_resid_post" in message
    assert "0 to 2" in message


def test_an_sae_that_does_not_name_its_model_needs_one_named(tmp_path, model_folder):
    nameless = folder_sae(random_sae(tmp_path / "nameless", d_model=32))
    assert "--model" in refusal(library().load, nameless)
    assert library().load(nameless, str(model_folder))[1].name == str(model_folder)


# The whole way with folders


def test_a_tree_and_a_list_come_from_two_local_folders(tmp_path, model_folder):
    folder = random_sae(tmp_path / "mine", d_model=32)
    kept = library(allow_folder=True)
    recipe = VectorRecipe(sae=str(folder), feature=3)
    options = {"model": str(model_folder)}
    document = definition_tree(kept, recipe, TreeRecipe(cutoff=0.01, max_depth=3), **options)
    assert document.complete
    assert len(document.tree) > 3
    assert document.settings | {"version": None} == {
        "model": str(model_folder), "sae": str(folder), "feature": 3, "weights": "encoder", "encoder_share": 0.5,
        "tokens": "", "centroid": True, "scale": document.vector["mean_token_distance"], "pca": [],
        "prompt": 'A typical definition of "{ghost}" would be "', "chat": False, "answer": "", "top_k": 5,
        "cutoff": 0.01, "max_depth": 3, "max_nodes": 2000, "stop": True, "dtype": "float32", "version": None,
        "steer_strength": 0.0, "clamp": None, "steer_at": "ghost", "steer_sinks": False, "inject_layer": -1,
        "inject_mode": "replace", "inject_scale": 1.0,
    }  # fmt: skip
    table = token_table(kept, recipe, ListRecipe(top=7), **options)
    assert [row[0] for row in table.rows] == [1, 2, 3, 4, 5, 6, 7]
    scores = [row[3] for row in table.rows]
    assert scores == sorted(scores)
    assert np.isfinite(scores).all()
    json.dumps(table.to_dict(), allow_nan=False)


def test_a_folder_is_refused_where_folders_are_not_allowed(tmp_path, model_folder):
    folder = random_sae(tmp_path / "mine", d_model=32)
    recipe = VectorRecipe(sae=str(folder), feature=3)
    assert "There is no SAE" in refusal(definition_tree, library(), recipe, TreeRecipe(), model=str(model_folder))
    assert "There is no SAE" in refusal(token_table, library(), recipe, ListRecipe(), model=str(model_folder))
