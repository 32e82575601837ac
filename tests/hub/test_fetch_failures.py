"""What goes wrong between the tool and the hub: each failure has a message of its own, in one line, that names what it
is about and what to do, with exit status 2. No pickle is executed.
"""

import io
import shutil
import subprocess

import pytest
import torch
from hub_clients import (
    GEMMA,
    GEMMA_2,
    GEMMA_6,
    GEMMA_6_FOLDER,
    GEMMA_SAES,
    GPT2,
    GPT2_0,
    GPT2_SAES,
    PYTHIA,
    PYTHIA_3,
    PYTHIA_SAES,
    READER,
    UNKNOWN,
    VISITOR,
    Tool,
    fetched,
    run,
)
from standin_hub import StandInHub
from standin_repos import D_MODEL, PYTHIA_SAE, evil_ae
from tiny import byte_level_tokenizer, random_sae, tiny_model, write_model

GPT2_WEIGHTS = (GPT2, "model.safetensors")
TOKENS = ("tokens", "--feature", 5, "--top", 3, "--sae")


def assert_says(message: str, *parts: str) -> None:
    assert all(part in message for part in parts), message
    assert len(message) < 700, message
    # Escapes of a terminal, and what a program says to programmers.
    assert not any(part in message for part in ("\\x1b", "Traceback", "weights_only")), message


# Tokens


def test_without_a_token_the_line_on_the_terminal_says_where_the_licence_is_accepted_and_where_a_token_goes(
    hub, tmp_path
):
    done = run(hub, tmp_path / "home", *TOKENS, GEMMA_6)
    licence = "https://huggingface.co/google/gemma-2b"
    assert_says(done.refusal, GEMMA, "gated", "no token", licence, "HF_TOKEN", "hf auth login")
    assert not [file for file in fetched(hub) if file.startswith(GEMMA)]


def test_a_token_without_access_is_told_from_none(tool):
    message = tool(*TOKENS, GEMMA_6, token=VISITOR).refusal
    assert_says(message, GEMMA, "may not read it", "https://huggingface.co/google/gemma-2b", "Accept the licence")
    assert "no token" not in message


def test_a_gated_model_that_the_registry_does_not_know_is_told_as_such(tool, hub):
    hub.gated[PYTHIA] = set()
    message = tool(*TOKENS, PYTHIA_3).refusal
    assert_says(message, PYTHIA, "gated", f"https://huggingface.co/{PYTHIA}")


def test_a_token_that_the_hub_does_not_know(tool, hub):
    message = tool(*TOKENS, GEMMA_6, token=UNKNOWN).refusal
    assert_says(message, "refuses the token", "https://huggingface.co/settings/tokens", "HF_TOKEN")
    assert fetched(hub) == []


def test_a_token_with_a_character_that_no_token_has(tool):
    message = tool(*TOKENS, GEMMA_6, token="hf_secretReader–").refusal
    assert_says(message, "token", "https://huggingface.co/settings/tokens")
    assert "network" not in message


# Names


@pytest.mark.parametrize("name", ["nobody/nothing", "nothing"])
@pytest.mark.parametrize("token", [None, READER])
def test_a_model_that_the_hub_does_not_have(tool, name, token):
    assert_says(tool(*TOKENS, GPT2_0, "--model", name, token=token).refusal, f"'{name}'", "Correct the name")


def test_a_name_that_cannot_be_one(tool, hub):
    assert_says(tool(*TOKENS, GPT2_0, "--model", "../../etc/passwd").refusal, "../../etc/passwd", "hub id")
    assert GPT2 not in str(hub.requests)


def test_an_sae_and_a_model_that_do_not_fit(tool):
    message = tool(*TOKENS, GPT2_0, "--model", GEMMA_2, token=READER).refusal
    assert_says(message, GPT2_0, GEMMA_2, "do not fit", "32", "2304", f"trained on {GPT2}")


def test_an_sae_of_a_layer_that_the_model_does_not_have(tool):
    sae = "gpt2-small-res-jb/blocks.11.hook_resid_pre"
    assert_says(tool(*TOKENS, sae, "--model", PYTHIA).refusal, sae, PYTHIA, "blocks.11", "numbered 0 to 5")


# The network


def test_without_a_network_or_a_hub(tool, hub):
    hub.down = True
    down = tool(*TOKENS, GPT2_0).refusal
    hub.stop()
    gone = tool(*TOKENS, GPT2_0).refusal
    mirror = f"the hub's mirror {hub.url} (HF_ENDPOINT)"
    assert_says(down, GPT2_SAES, GPT2_0, f"{mirror} answered 503", "ry again", "unset HF_ENDPOINT")
    assert_says(gone, GPT2_SAES, GPT2_0, f"{mirror} cannot be reached", "Check the network and", "demo")


def test_a_mirror_that_sends_files_elsewhere_without_their_revision(tool, hub, repos):
    with StandInHub({READER}) as other:
        other.repos = repos
        hub.redirects, hub.bare = {"file": other.url}, True
        message = tool(*TOKENS, GPT2_0).refusal
    assert_says(message, GPT2_SAES, hub.url, "without what tells the files' revision", "unset HF_ENDPOINT")
    assert "Check the network" not in message


@pytest.mark.parametrize("fault", ["cut", "stall"])
def test_a_connection_that_breaks_off_or_stalls_and_the_next_try(tool, hub, fault):
    if fault == "cut":
        hub.cut[GPT2_WEIGHTS] = 1000
    else:
        hub.stall.add(GPT2_WEIGHTS)
    message = tool(*TOKENS, GPT2_0).refusal
    assert_says(message, GPT2, "connection broke off", "try again")
    hub.cut.clear()
    hub.stall.clear()
    hub.clear()
    assert tool(*TOKENS, GPT2_0).status == 0
    assert fetched(hub) == ["/".join(GPT2_WEIGHTS)]  # what had arrived is kept


# What is in a repository, and what is not


def without(repos, repo: str, *endings: str) -> dict:
    return {path: file for path, file in repos[repo].items() if not path.endswith(endings)}


def test_a_file_that_is_listed_and_not_there(tool, hub):
    hub.missing.add(GPT2_WEIGHTS)
    assert_says(tool(*TOKENS, GPT2_0).refusal, GPT2, "model.safetensors", "not in its repository")


def test_a_model_without_safetensors_is_refused_and_its_pickle_not_fetched(tool, hub, repos):
    hub.repos["some/pickled"] = without(repos, GPT2, ".safetensors") | {"pytorch_model.bin": b"pickled"}
    message = tool(*TOKENS, GPT2_0, "--model", "some/pickled").refusal
    assert_says(message, "some/pickled", "no weights in safetensors format")
    assert "some/pickled/pytorch_model.bin" not in fetched(hub)


def test_a_repository_without_a_model(tool):
    assert_says(tool(*TOKENS, GPT2_0, "--model", GEMMA_SAES).refusal, GEMMA_SAES, "none of the files")


@pytest.mark.parametrize("missing", ["sae_weights.safetensors", "cfg.json"])
def test_an_sae_whose_repository_lacks_a_file(tool, hub, repos, missing):
    hub.repos[GEMMA_SAES] = without(repos, GEMMA_SAES, f"{GEMMA_6_FOLDER}/{missing}")
    message = tool(*TOKENS, GEMMA_6, token=READER).refusal
    assert_says(message, GEMMA_6, missing, GEMMA_SAES)
    assert "copy or write it again" not in message  # nobody can who does not own the repository


def test_an_sae_whose_folder_is_gone(tool, hub, repos):
    hub.repos[GPT2_SAES] = {"README.md": b"moved"}
    message = tool(*TOKENS, GPT2_0).refusal
    assert_says(message, GPT2_SAES, GPT2_0, "none of the files", "blocks.0.hook_resid_pre/cfg.json")


@pytest.mark.parametrize(
    ("sae", "name", "repo", "file"),
    [
        (GEMMA_6, GEMMA_6, GEMMA_SAES, f"{GEMMA_6_FOLDER}/sae_weights.safetensors"),
        (PYTHIA_3, PYTHIA_3, PYTHIA_SAES, f"{PYTHIA_SAE}/ae.pt"),
        (GPT2_0, GPT2, GPT2, "model.safetensors"),
    ],
    ids=["an SAE in safetensors", "an SAE in a pickle", "a model"],
)
def test_a_file_that_was_damaged_in_the_cache_is_fetched_again_when_what_the_message_names_is_deleted(
    tool, hub, repos, sae, name, repo, file
):
    arguments = (*TOKENS, sae)
    assert tool(*arguments, token=READER).status == 0
    (damaged,) = tool.home.glob(f"hub/models--{repo.replace('/', '--')}/snapshots/*/{file}")
    damaged.resolve().write_bytes(b"garbage" * 1000)
    message = tool(*arguments, token=READER).refusal
    assert_says(message, name, "damaged", "delete", str(tool.home))
    shutil.rmtree(message.partition(" delete ")[2].partition(" to have ")[0])
    hub.clear()
    assert tool(*arguments, token=READER).status == 0
    assert f"{repo}/{file}" in fetched(hub)


# Pickles


def test_a_pickle_that_holds_more_than_weights_is_refused_and_not_executed(tool, hub, repos, tmp_path):
    marker = tmp_path / "executed"
    torch.load(io.BytesIO(evil_ae(marker)), weights_only=False)
    assert marker.exists()  # it is as evil as it should be
    marker.unlink()
    hub.repos[PYTHIA_SAES] = repos[PYTHIA_SAES] | {f"{PYTHIA_SAE}/ae.pt": evil_ae(marker)}
    message = tool(*TOKENS, PYTHIA_3).refusal
    assert_says(message, PYTHIA_3, "pickle")
    assert not marker.exists()
    hub.clear()
    message = tool(*TOKENS, PYTHIA_3, TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD="1").refusal
    assert_says(message, PYTHIA_3, "pickle", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "Unset")
    assert hub.requests == []
    assert not marker.exists()


# The disk


def test_a_disk_with_too_little_room_is_told_before_anything_is_fetched(tool, hub):
    message = tool(*TOKENS, GPT2_0, free=1_000_000).refusal  # enough for the SAE
    assert_says(message, GPT2, "takes 1.5 MB on disk", "1.0 MB left", str(tool.home), "HF_HOME")
    assert not [file for file in fetched(hub) if file.startswith(GPT2)]


@pytest.fixture(scope="module")
def mounting_tool(_hub, tmp_path_factory):
    """A tool that may mount disks at its cache's place."""
    folder = tmp_path_factory.mktemp("disk")
    wrapper = ("unshare", "--user", "--map-root-user", "--mount")
    mount = shutil.which("unshare") and subprocess.run(
        [*wrapper, "mount", "-t", "tmpfs", "none", folder], capture_output=True, check=False
    )
    if not mount or mount.returncode:
        pytest.skip("no disk can be mounted here")
    with Tool(_hub, folder / "home", wrapper) as tool:
        yield tool


@pytest.fixture
def on_disk(mounting_tool, hub):
    """The tool with its cache on an empty disk of its own, by the disk's options."""

    def on(options: str) -> Tool:
        mount = ["mount", "-t", "tmpfs", "-o", options, "none", str(mounting_tool.home.parent)]
        assert mounting_tool.python(f"import subprocess; answer = subprocess.run({mount}).returncode") == 0
        return mounting_tool

    return on


def test_a_disk_that_becomes_full_while_files_come(on_disk):
    # A disk may have room left, and none for another file's name.
    message = on_disk("size=100m,nr_inodes=32")(*TOKENS, GPT2_0).refusal
    assert_says(message, "The disk is full", GPT2, "HF_HOME")


def test_a_disk_that_cannot_be_written(on_disk):
    message = on_disk("size=100m,ro")(*TOKENS, GPT2_0).refusal
    assert_says(message, GPT2_SAES, "could not be stored", "HF_HOME")
    assert "network" not in message


# The memory


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """A model with 38 MB of embeddings and an SAE on it with twice 38 MB of directions.

    Each of them more than the 32 MB up to which malloc keeps what was freed for the process' next tensor.
    """
    folder = tmp_path_factory.mktemp("large")
    model = tiny_model("llama")
    model.resize_token_embeddings(300_000, mean_resizing=False)
    write_model(folder / "model", model, byte_level_tokenizer())
    random_sae(folder / "sae", d_model=D_MODEL, d_sae=300_000, model=str(folder / "model"))
    random_sae(folder / "small-sae", d_model=D_MODEL, model=str(folder / "model"))
    return folder


@pytest.mark.parametrize("command", ["tree", "tokens"])
@pytest.mark.parametrize("sae", ["sae", "small-sae"])
def test_too_little_memory_is_told_as_that_wherever_it_ends(tool, large, command, sae):
    arguments = (command, "--sae", large / sae, "--feature", 1, "--dtype", "float32")
    assert tool(*arguments).status == 0
    for megabytes in range(10, 130, 20):
        done = tool(*arguments, memory=megabytes)
        if done.status:
            assert "does not fit into the memory" in done.refusal or "Out of memory" in done.refusal, done.refusal
            assert str(large) in done.refusal or "local/sae" in done.refusal, done.refusal
    assert tool(*arguments, memory=10).status == 2


def test_too_little_memory_for_an_sae_that_sae_lens_reads(tool):
    arguments = (*TOKENS, "gemma-scope-2b-pt-res-canonical/layer_1/width_16k/canonical")
    assert tool(*arguments, token=READER).status == 0
    message = tool(*arguments, token=READER, memory=150).refusal
    assert_says(message, "layer_1/width_16k", "does not fit into the memory", "smaller")
