"""Models as users have them: in shards, pickles, adapters, quantised, with a configuration of another model, changed
meanwhile. What can be read safely is read; of the rest the true reason is told, and what helps.
"""

import json
import os
import shutil
from importlib.util import find_spec

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import END_OF_TEXT, N_ROWS, random_sae, tiny_model, write_model

from multitool.errors import UserError
from multitool.store.folders import folder_sae
from multitool.store.library import Library
from multitool.store.models import load_model, load_subject

UP = "model.layers.1.mlp.up_proj.weight"
E_NAME = "model.embed_tokens.weight"


@pytest.fixture(scope="module")
def written(tmp_path_factory, tokenizer):
    return write_model(tmp_path_factory.mktemp("models") / "llama", tiny_model("llama"), tokenizer)


@pytest.fixture
def folder(written, tmp_path):
    """A model folder to change."""
    return shutil.copytree(written, tmp_path / "model")


def weights_of(folder) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def store(weights: dict[str, torch.Tensor], path) -> None:
    save_file(weights, path, metadata={"format": "pt"})


def in_parts(folder, names=("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")) -> dict:
    """Replace the one file by two, without an index; a pickle where the name ends so."""
    weights = weights_of(folder)
    (folder / "model.safetensors").unlink()
    half = len(weights) // 2
    for name, part in zip(names, (list(weights.items())[:half], list(weights.items())[half:]), strict=True):
        (torch.save if name.endswith(".bin") else store)(dict(part), folder / name)
    return weights


def as_pickle(folder, content=None) -> None:
    torch.save(weights_of(folder) if content is None else content, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def configured(folder, **values) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def load_whole(folder):
    subject = load_subject(str(folder))
    return subject, load_model(subject.name, subject.folder, "float32", "cpu")


def assert_is_whole(folder) -> None:
    subject, model = load_whole(folder)
    expected = tiny_model("llama").state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in model.state_dict().items())
    assert torch.equal(subject.space.E, expected[E_NAME])


def refusal(call, *args) -> str:
    with pytest.raises(UserError) as caught:
        call(*args)
    message = str(caught.value)
    assert len(message) < 800
    assert "\n" not in message
    return message


# Shards


@pytest.mark.parametrize("names", [("a.safetensors", "b.safetensors"), None], ids=["of any name", "numbered"])
def test_shards_without_an_index_are_read(folder, names):
    in_parts(folder, *([names] if names else []))
    assert_is_whole(folder)


def test_a_shard_that_is_missing_is_named_with_and_without_an_index(folder, tokenizer, tmp_path):
    in_parts(folder)
    (folder / "model-00002-of-00002.safetensors").unlink()
    assert "model-00002-of-00002.safetensors" in refusal(load_subject, str(folder))
    tiny_model("llama").save_pretrained(tmp_path / "indexed", max_shard_size="40kB")
    tokenizer.save_pretrained(tmp_path / "indexed")
    lost = sorted((tmp_path / "indexed").glob("model-*.safetensors"))[1]
    lost.unlink()
    message = refusal(load_whole, tmp_path / "indexed")
    assert lost.name in message
    assert "damaged" not in message


def test_files_that_hold_the_same_tensor_are_refused_with_both_names(folder):
    weights = weights_of(folder)
    (folder / "model.safetensors").rename(folder / "model-a.safetensors")
    store({E_NAME: weights[E_NAME] + 1}, folder / "model-b.safetensors")
    message = refusal(load_subject, str(folder))
    assert all(part in message for part in (E_NAME, "model-a.safetensors", "model-b.safetensors"))


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"weight_map": 3}', '{"weight_map": {"a": 3}}'])
def test_an_index_that_is_none_is_said_to_be_damaged(folder, content):
    (folder / "model.safetensors").rename(folder / "model-1.safetensors")
    (folder / "model.safetensors.index.json").write_text(content)
    assert "model.safetensors.index.json" in refusal(load_subject, str(folder))


# Pickles


def test_weights_in_a_pickle_are_read_as_plain_weights(folder):
    as_pickle(folder)
    assert_is_whole(folder)


def test_so_are_those_in_several(folder):
    in_parts(folder, ("pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin"))
    assert_is_whole(folder)


def test_and_those_that_an_index_lists_or_that_are_written_in_the_format_of_old(folder):
    weights = weights_of(folder)
    torch.save(weights, folder / "pytorch_model-x.bin", _use_new_zipfile_serialization=False)
    index = {"weight_map": dict.fromkeys(weights, "pytorch_model-x.bin")}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    (folder / "model.safetensors").unlink()
    assert_is_whole(folder)


class Payload:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return type(self.marker).touch, (self.marker,)


@pytest.mark.parametrize("forced", [False, True])
def test_a_pickle_that_holds_more_than_weights_is_not_run(folder, tmp_path, monkeypatch, forced):
    as_pickle(folder, weights_of(folder) | {"evil": Payload(tmp_path / "marker")})
    if forced:
        monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    for load in (load_subject, lambda name: load_model(name, folder, "float32", "cpu")):
        message = refusal(load, str(folder))
        assert str(folder / "pytorch_model.bin") in message
        assert ("Unset" if forced else "more than plain weights") in message
    assert not (tmp_path / "marker").exists()


@pytest.mark.parametrize("content", [b"", b"garbage" * 100, b"PK\x03\x04" + bytes(100)], ids=["empty", "other", "zip"])
def test_a_pickle_that_is_none_is_refused(folder, content):
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(content)
    assert "pytorch_model.bin" in refusal(load_subject, str(folder))


def test_a_pickle_of_something_else_is_refused(folder):
    as_pickle(folder, [torch.ones(2)])
    assert "no weights by name" in refusal(load_subject, str(folder))


def test_a_folder_without_weights_is_told_what_it_has(folder):
    (folder / "model.safetensors").rename(folder / "model.gguf")
    message = refusal(load_subject, str(folder))
    assert "has no weights" in message
    assert "model.gguf" in message


# Adapters


def adapter(folder, base: object = "EleutherAI/pythia-70m"):
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": base, "peft_type": "LORA"}))
    return folder


def test_an_adapter_is_told_as_one_with_the_command_that_makes_a_model_of_it(tmp_path):
    message = refusal(load_subject, str(adapter(tmp_path)))
    assert "adapter of EleutherAI/pythia-70m" in message
    assert f"from_pretrained('{tmp_path}').merge_and_unload()" in message
    assert "safetensors" not in message


def test_a_model_with_an_adapters_settings_beside_it_is_not_taken_for_the_whole(folder):
    message = refusal(load_subject, str(adapter(folder)))
    assert "move adapter_config.json away" in message
    assert "merge_and_unload()" in message


@pytest.mark.parametrize("base", ["x'); import os; os.system('rm -rf ~", "$(id)", None, 3, "a\nb", ["a"]], ids=repr)
def test_what_an_adapter_says_never_gets_into_the_command_if_it_could_do_anything_there(tmp_path, base):
    message = refusal(load_subject, str(adapter(tmp_path, base)))
    assert "T.from_pretrained('BASE_MODEL')" in message
    assert "os.system" not in message


# Quantised


@pytest.mark.parametrize("method", ["gptq", "awq", "bitsandbytes", "compressed-tensors", "torchao", "aqlm"])
def test_a_quantised_model_says_which_package_it_takes(folder, method):
    package = {"gptq": "gptqmodel", "awq": "gptqmodel"}.get(method, method).replace("-", "_")
    if find_spec(package) or find_spec("optimum"):
        pytest.skip(f"{package} is installed")
    more = {"load_in_4bit": True} if method == "bitsandbytes" else {"bits": 4}
    configured(folder, quantization_config={"quant_method": method} | more)
    load_subject(str(folder))  # its embeddings are plain numbers
    message = refusal(load_whole, folder)
    assert f"is quantised ({method})" in message
    assert f"pip install {package.replace('_', '-')}" in message
    assert "not quantised" in message


@pytest.mark.parametrize("told", [{"quant_method": "nonesuch"}, {"bits": 4}, {"quant_method": 3}], ids=str)
def test_weights_quantised_in_an_unknown_way_are_not_taken_as_they_are(folder, told):
    configured(folder, quantization_config=told)
    assert "is quantised" in refusal(load_whole, folder)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_eight_bit_floats_are_read_with_their_scales(folder, dtype):
    weights = weights_of(folder)
    scale = weights[UP].abs().max() / 448
    weights |= {UP: (weights[UP] / scale).to(torch.float8_e4m3fn), UP + "_scale_inv": scale.reshape(1, 1)}
    store(weights, folder / "model.safetensors")
    rest = [name.removesuffix(".weight") for name in weights if name not in (UP, UP + "_scale_inv") and "proj" in name]
    configured(folder, quantization_config={
        "quant_method": "fp8", "weight_block_size": [128, 128], "modules_to_not_convert": rest,
    })  # fmt: skip
    model = load_model(str(folder), folder, dtype, "cpu")
    found, expected = model.get_parameter(UP), tiny_model("llama").get_parameter(UP)
    assert {str(weight.dtype) for weight in model.parameters()} == {f"torch.{dtype}"}
    assert (found.float() - expected).norm() < 0.05 * expected.norm()


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.int8, torch.uint8], ids=str)
def test_embeddings_that_are_quantised_are_not_taken_for_numbers(folder, dtype):
    weights = weights_of(folder)
    store(weights | {E_NAME: weights[E_NAME].to(dtype)}, folder / "model.safetensors")
    configured(folder, quantization_config={"quant_method": "fp8"})
    message = refusal(load_subject, str(folder))
    assert str(dtype).removeprefix("torch.") in message
    assert E_NAME in message
    assert "fp8" in message


# Weights and a configuration that do not belong together


def test_what_does_not_fit_is_named_with_what_is_there_and_what_is_asked_for(folder):
    weights = weights_of(folder)
    store(weights | {UP: torch.ones(3, 5)}, folder / "model.safetensors")
    message = refusal(load_whole, folder)
    assert all(part in message for part in (UP, "(3, 5)", "(64, 32)"))
    assert "damaged" not in message


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"vocab_size": 400}, f"{E_NAME} is (304, 32), and config.json asks for (400, 32)"),
        ({"hidden_size": 64}, f"{E_NAME} is (304, 32), and config.json asks for (304, 64)"),
        ({"num_hidden_layers": 5}, "its weights lack model.layers.3.input_layernorm.weight and 17 more"),
        # transformers would leave the others out without a word.
        ({"num_hidden_layers": 2}, "more layers than its config.json asks for: model.layers.2.input_layernorm.weight"),
        ({"num_hidden_layers": 10**12}, "num_hidden_layers is 1000000000000"),
        ({"max_position_embeddings": 0}, "max_position_embeddings is 0"),
        ({"max_position_embeddings": -5}, "max_position_embeddings is -5"),
    ],
    ids=str,
)
def test_a_configuration_of_another_model_is_told_by_what_is_missing_or_too_much(folder, change, said):
    configured(folder, **change)
    message = refusal(load_whole, folder)
    assert said in message
    assert "damaged" not in message
    assert "delete" not in message


def test_further_layers_show_where_the_weights_are_those_of_the_inner_model_alone(tokenizer, tmp_path):
    write_model(tmp_path, tiny_model("gpt2").base_model, tokenizer)
    configured(tmp_path, n_layer=2)
    assert "h.2." in refusal(load_whole, tmp_path)


def test_tensors_that_are_no_layers_are_left_alone(folder):
    weights = weights_of(folder)
    extra = {"vision.layers.9.weight": torch.ones(2), "model.layers.1.self_attn.rotary_emb.inv_freq": torch.ones(4)}
    store(weights | extra, folder / "model.safetensors")
    assert_is_whole(folder)


def test_a_model_that_brings_its_own_code_is_told_so_and_nothing_is_run(folder, tmp_path):
    code = f"open({str(tmp_path / 'it was run')!r}, 'w')"
    (folder / "own.py").write_text(code)
    configured(folder, model_type="own", auto_map={"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"})
    with pytest.raises(UserError, match="code that it brings itself"):
        load_subject(str(folder))
    assert not (tmp_path / "it was run").exists()


@pytest.mark.parametrize("n_layers", [0, -1, 10**9])
def test_a_model_without_layers_or_with_more_than_any_is_none(folder, n_layers):
    configured(folder, num_hidden_layers=n_layers)
    with pytest.raises(UserError, match=f"num_hidden_layers is {n_layers} in its config.json"):
        load_subject(str(folder))


@pytest.mark.parametrize("file", ["tokenizer.json", "model.safetensors", "pytorch_model.bin"])
def test_a_pointer_of_git_lfs_is_told_as_one(folder, file):
    (folder / file).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 302000000\n")
    with pytest.raises(UserError, match=rf"{file} is only a pointer .*git lfs pull"):
        load_subject(str(folder))


@pytest.mark.parametrize("file", ["config.json", "tokenizer.json", "model.safetensors"])
def test_a_file_that_is_cut_short_is_said_to_be_damaged(folder, file):
    path = folder / file
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    message = refusal(load_whole, folder)
    assert f"its {file} is damaged" in message


# End-of-text tokens


@pytest.mark.parametrize(
    ("told", "ends"),
    [(-1, set()), (10**9, set()), (N_ROWS, set()), (5, {5}), ([5, 7, 10**9, -3], {5, 7}), (None, set())],
    ids=str,
)
def test_end_of_text_tokens_that_there_are_none_of_are_left_out(folder, told, ends):
    for file in ("config.json", "generation_config.json"):
        (folder / file).write_text(json.dumps(json.loads((folder / file).read_text()) | {"eos_token_id": told}))
    subject = load_subject(str(folder))
    assert set(subject.ends(None).nonzero()[0].tolist()) == ends | {END_OF_TEXT}
    assert subject.bos_id == END_OF_TEXT


@pytest.mark.parametrize("told", [["5", 7], True, {"a": 1}, 1.5], ids=str)
def test_end_of_text_tokens_that_are_no_numbers_never_end_in_a_bare_error(folder, told):
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": told}))
    try:
        assert set(load_subject(str(folder)).ends(None).nonzero()[0].tolist()) <= {END_OF_TEXT, 7}
    except UserError as error:
        assert "eos_token_id" in str(error)


# Files that change meanwhile


def test_a_model_that_has_changed_on_the_disk_is_loaded_anew(folder, tmp_path):
    entry = folder_sae(random_sae(tmp_path / "sae", d_model=32, hook="blocks.1.hook_resid_post"))
    library = Library(device="cpu", dtype="float32", allow_folder=True)
    first, running = library.subject(str(folder)), library.run(str(folder), folder)
    assert library.subject(str(folder)) is first
    assert library.run(str(folder), folder) is running
    task = library.scan_task(entry, first)
    weights = weights_of(folder)
    store(weights | {E_NAME: weights[E_NAME] + 1}, folder / "model.safetensors")
    os.utime(folder / "model.safetensors", ns=(1, 1))
    second = library.subject(str(folder))
    assert torch.equal(second.space.E, weights[E_NAME] + 1)
    assert torch.equal(library.run(str(folder), folder).get_input_embeddings().weight, second.space.E)
    assert library.scan_task(entry, second).path != task.path


def test_so_is_one_in_a_pickle(folder, tmp_path):
    entry = folder_sae(random_sae(tmp_path / "sae", d_model=32, hook="blocks.1.hook_resid_post"))
    as_pickle(folder)
    library = Library(device="cpu", dtype="float32", allow_folder=True)
    task = library.scan_task(entry, library.subject(str(folder)))
    os.utime(folder / "pytorch_model.bin", ns=(1, 1))
    assert library.scan_task(entry, library.subject(str(folder))).path != task.path


def test_an_sae_that_has_changed_on_the_disk_is_read_anew(folder, tmp_path):
    sae = random_sae(tmp_path / "sae", d_model=32)
    library = Library(device="cpu", allow_folder=True)
    entry, before = library.find(str(sae)), library.state(str(sae))
    first = library.sae(entry)
    assert library.sae(entry) is first
    assert library.state(str(sae)) == before
    shutil.rmtree(sae)
    random_sae(sae, d_model=32, seed=1)
    assert not torch.equal(library.sae(entry).W_enc, first.W_enc)
    assert library.state(str(sae)) != before
