"""SAEs of any repository on the hub, ``hf://OWNER/REPO/PATH``: what is fetched, what comes of it, what is refused."""

import json

import pytest
import torch
from hub_clients import GPT2, READER, fetched
from safetensors.torch import load_file, save_file
from standin_repos import D_MODEL
from tiny import random_sae

REPO = "chanind/sae-tiny"
PLACE = f"hf://{REPO}/blocks.1.hook_resid_post"
TOKENS = ("tokens", "--feature", 3, "--top", 3, "--sae")


@pytest.fixture(scope="module")
def repo(tmp_path_factory):
    """A repository of SAEs in sae-lens' format, with other files in and beside their folders."""
    folder = tmp_path_factory.mktemp("any") / "repo"
    for layer in (1, 2):
        hook = f"blocks.{layer}.hook_resid_post"
        random_sae(folder / hook, d_model=D_MODEL, seed=layer, hook=hook, model="gpt2-small")
    one = folder / "blocks.1.hook_resid_post"
    save_file({"sparsity": torch.zeros(6)}, one / "sparsity.safetensors")
    (one / "evil.py").write_text("raise SystemExit")
    (one / "optimizer.pt").write_bytes(b"pickle")
    (one / "deeper").mkdir()
    (one / "deeper" / "more.json").write_text("{}")
    (folder / "README.md").write_text("# SAEs\n")
    # As sparsify writes them, the model's name above.
    lens = load_file(one / "sae_weights.safetensors")
    sae = {"W_dec": lens["W_dec"], "b_dec": lens["b_dec"], "encoder.weight": lens["W_dec"].clone()}
    (folder / "run" / "h.1").mkdir(parents=True)
    save_file(sae | {"encoder.bias": lens["b_enc"]}, folder / "run" / "h.1" / "sae.safetensors")
    (folder / "run" / "h.1" / "cfg.json").write_text(json.dumps({"d_in": D_MODEL, "num_latents": 6, "k": 2}))
    (folder / "run" / "config.json").write_text(json.dumps({"model": "openai-community/gpt2"}))
    return {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def with_repo(tool, hub, repo):
    hub.repos[REPO] = repo
    return tool


def assert_says(message: str, *parts: str) -> None:
    assert all(part in message for part in parts), message
    assert len(message) < 700, message


def test_its_lists_and_trees_come_and_only_its_own_plain_files_are_fetched(with_repo, hub, tmp_path):
    assert with_repo(*TOKENS, PLACE).status == 0
    of_sae = [file for file in fetched(hub) if file.startswith(REPO)]
    names = ["cfg.json", "sae_weights.safetensors", "sparsity.safetensors"]
    assert of_sae == [f"{REPO}/blocks.1.hook_resid_post/{name}" for name in names]
    saved = tmp_path / "tree.json"
    tree = with_repo("tree", "--feature", 3, "--cutoff", 0.3, "--json", saved, "--sae", PLACE)
    assert tree.status == 0, tree.err
    other = PLACE.replace("1.hook", "2.hook")
    assert with_repo("tokens", "--feature", f"3 - {other}:1*0.5", "--sae", PLACE, "--top", 2).status == 0
    settings = json.loads(saved.read_text())["settings"]
    assert (settings["sae"], settings["model"]) == (PLACE, GPT2)
    files = [file for file in fetched(hub) if file.startswith(PLACE.removeprefix("hf://"))]
    assert files == of_sae  # once


def test_the_model_of_sparsifys_saes_is_told_above_their_folder(with_repo, hub):
    place = f"hf://{REPO}/run/h.1"
    entry = with_repo.python(f"""
    from multitool.store.registry import find_sae
    entry = find_sae({place!r}, allow_folder=True)
    answer = [entry.name, entry.model, entry.hook]
    """)
    assert entry == [place, GPT2, "blocks.1.hook_resid_post"]
    names = ["config.json", "h.1/cfg.json", "h.1/sae.safetensors"]
    assert sorted(fetched(hub)) == [f"{REPO}/run/{name}" for name in names]
    # It makes no SAE of a folder that has none.
    assert_says(with_repo(*TOKENS, f"hf://{REPO}/run/h.2").refusal, "no folder", "run/h.1")


def test_it_is_what_the_folder_on_this_machine_is(with_repo, repo):
    folder = repo["blocks.1.hook_resid_post/cfg.json"].parent
    answer = with_repo.python(f"""
    from multitool.jobs.local import token_table
    from multitool.recipes.recipe import ListRecipe, VectorRecipe
    from multitool.store.library import Library
    library = Library(dtype="float32", device="cpu", allow_folder=True, bars=False)
    rows = [
        token_table(library, VectorRecipe(sae=sae, feature=3, weights=weights), ListRecipe(top=5)).rows
        for sae in ({PLACE!r}, {PLACE.replace("tiny/", "tiny@main/")!r}, {str(folder)!r})
        for weights in ("encoder", "vocabulary")
    ]
    entry = library.find({PLACE!r})
    answer = [rows[:2] == rows[2:4] == rows[4:], rows[0] != rows[1], entry.name, entry.hook, entry.repo_id]
    """)
    assert answer == [True, True, PLACE, "blocks.1.hook_resid_post", REPO]


def test_without_the_hub_what_was_fetched_is_read(with_repo, hub):
    assert with_repo(*TOKENS, PLACE).status == 0
    hub.stop()
    assert with_repo(*TOKENS, PLACE).status == 0
    assert_says(with_repo(*TOKENS, PLACE.replace("blocks.1", "blocks.2")).refusal, REPO, "cannot be reached")


def test_what_is_there_is_told_where_a_name_leads_to_no_sae(with_repo):
    folders = ("blocks.1.hook_resid_post", "blocks.2.hook_resid_post")
    assert_says(with_repo(*TOKENS, f"hf://{REPO}").refusal, "no SAE itself", *folders)
    assert_says(with_repo(*TOKENS, f"hf://{REPO}/blocks.3.hook_resid_post/").refusal, "no folder", *folders)
    assert_says(with_repo(*TOKENS, PLACE + "/cfg.json").refusal, "is a file", "folder")
    assert_says(with_repo(*TOKENS, f"hf://{GPT2}").refusal, "language model", "--model")
    assert_says(with_repo(*TOKENS, PLACE.replace("tiny/", "tiny@v2/")).refusal, REPO, "no such revision")
    assert_says(with_repo(*TOKENS, "hf://nobody/nothing/at", token=READER).refusal, "'nobody/nothing'", "Correct")


def test_a_folder_that_is_larger_than_an_saes_is_not_fetched(with_repo, hub):
    message = with_repo.python(f"""
    from unittest.mock import patch
    from multitool.errors import UserError
    from multitool.store.registry import find_sae
    with patch("multitool.store.hub.MAX_FOLDER_BYTES", 1000):
        try:
            find_sae({PLACE!r}, allow_folder=True)
        except UserError as error:
            answer = str(error)
    """)
    assert_says(message, PLACE, "at most")
    assert fetched(hub) == []


def test_where_folders_may_not_be_named_the_hub_is_not_asked(with_repo, hub):
    message = with_repo.python(f"""
    from multitool.errors import UserError
    from multitool.store.library import Library
    library = Library(device="cpu")
    answer = [library.offers({PLACE!r})]
    try:
        library.find({PLACE!r})
    except UserError as error:
        answer.append(str(error))
    """)
    assert message[0] is False
    assert_says(message[1], PLACE, "command line")
    assert hub.requests == []
