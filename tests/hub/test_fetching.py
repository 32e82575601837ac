"""From an empty cache to trees and token lists on the command line: what is fetched, that it is fetched once, that
what is kept suffices without a hub, and that the numbers are those of the files in the repositories.
"""

import json
import re
import shutil

import csv_files
import numpy as np
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
    Tool,
    as_at_first,
    fetched,
    run,
)
from plain_recursion import PlainRecursion
from safetensors import safe_open
from standin_hub import Request
from standin_repos import PYTHIA_SAE
from transformers import AutoModelForCausalLM, AutoTokenizer

GEMMA_SCOPE = "google/gemma-scope-2b-pt-res"
CUTOFF = 5e-3
SPLIT_MODEL = (
    "config.json", "generation_config.json", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors",
    "model.safetensors.index.json", "tokenizer.json", "tokenizer_config.json",
)
WHOLE_MODEL = ("config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
OWN_FORMAT = ("cfg.json", "sae_weights.safetensors", "sparsity.safetensors")


# The same by hand, from the files in the repositories


def embeddings(repo: dict) -> torch.Tensor:
    for path, file in repo.items():
        if path.startswith("model") and path.endswith(".safetensors"):
            with safe_open(file, framework="pt") as weights:
                for name in weights.keys():  # noqa: SIM118
                    if name.endswith(("embed_tokens.weight", "wte.weight", "embed_in.weight")):
                        return weights.get_tensor(name).float()
    raise AssertionError("no embeddings")


def unit(x):
    return x / x.norm()


def vector_by_hand(E, direction):
    c = E.mean(0)
    return c + (E - c).norm(dim=1).mean() * unit(direction)


def tree_by_hand(repo: dict, word: str, direction) -> dict:
    """The tree of the default prompt, in which ``word`` is one token, at CUTOFF: probabilities by path."""
    folder = repo["config.json"].parent
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, use_safetensors=True).eval()
    ids = tokenizer(f'A typical definition of "{word}" would be "').input_ids
    pieces = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    quotes = {i for i, piece in enumerate(pieces) if piece and ('"' in piece or piece == "<0x22>")}
    plain = PlainRecursion(model, ids, tokenizer.convert_ids_to_tokens(ids).index(word),
                           vector_by_hand(embeddings(repo), direction))
    nodes = plain.tree(top_k=5, cutoff=CUTOFF, max_depth=25, ends=quotes | {tokenizer.eos_token_id})
    return {path: prob for path, (prob, _) in nodes.items()}


def list_by_hand(E, direction) -> list[tuple[int, float]]:
    """(token id, score) of the ten nearest tokens."""
    v, c = vector_by_hand(E, direction), E.mean(0)
    scores = (1 - torch.cosine_similarity(v, E)) ** 1.4 / (1 - torch.cosine_similarity(c, E))
    best = scores.topk(10, largest=False)
    return list(zip(best.indices.tolist(), best.values.tolist(), strict=True))


def probabilities(node: dict, before=()) -> dict:
    """Of a tree JSON, by path."""
    found = {}
    for child in node["children"]:
        path = (*before, child["token_id"])
        found |= {path: child["prob"]} | probabilities(child, path)
    return found


def assert_tree(file, expected: dict) -> None:
    document = json.loads(file.read_text())
    assert document["result"]["complete"]
    found = probabilities(document["tree"])
    assert found == pytest.approx(expected, abs=1e-5)
    assert len(found) > 5 and max(map(len, found)) > 1


def assert_list(file, expected: list) -> None:
    with file.open(newline="") as text:
        found = [(int(row["token_id"]), float(row["score"])) for row in csv_files.rows_of(text.read())]
    assert [token_id for token_id, _ in found] == [token_id for token_id, _ in expected]
    assert [score for _, score in found] == pytest.approx([score for _, score in expected], abs=1e-4)


def own_format(file) -> tuple[torch.Tensor, torch.Tensor]:
    with safe_open(file, framework="pt") as weights:
        return weights.get_tensor("W_enc"), weights.get_tensor("W_dec")


# Gemma-2B, layer 6


@pytest.fixture(scope="module")
def first(_hub, repos, tmp_path_factory):
    """The first tree: the cache that it filled, the tree, and what was fetched."""
    hub = as_at_first(_hub, repos)
    folder = tmp_path_factory.mktemp("first")
    home, tree = folder / "home", folder / "tree.json"
    done = run(hub, home, "tree", "--sae", GEMMA_6, "--feature", 5, "--cutoff", CUTOFF, "--json", tree, token=READER)
    assert done.status == 0, done.err
    assert done.out == "" and done.err.endswith(f"wrote {tree}\n")
    return home, tree, fetched(hub), {asked.token for asked in hub.requests}


def test_the_first_tree_is_that_of_the_files_in_the_repositories(first, repos):
    _, tree, _, _ = first
    W_enc, _ = own_format(repos[GEMMA_SAES][f"{GEMMA_6_FOLDER}/sae_weights.safetensors"])
    assert_tree(tree, tree_by_hand(repos[GEMMA], "X", W_enc[:, 5]))


def test_only_what_is_needed_is_fetched_each_file_once_with_the_token(first, repos):
    _, _, files, with_token = first
    of_sae = [f"{GEMMA_SAES}/{GEMMA_6_FOLDER}/{name}" for name in OWN_FORMAT]
    assert files == sorted([*of_sae, *(f"{GEMMA}/{name}" for name in SPLIT_MODEL)])
    assert {"gemma-2b.gguf", "pytorch_model.bin", "original/model.safetensors"} < repos[GEMMA].keys()
    assert with_token == {True}


def test_the_second_start_asks_for_the_revisions_alone_and_needs_no_sae_lens(first, hub, tmp_path, repos):
    home, *_ = first
    table = tmp_path / "list.csv"
    done = run(hub, home, "tokens", "--sae", GEMMA_6, "--feature", 5, "--top", 10, "--csv", table,
               token=READER, python=("-X", "importtime"))
    assert done.status == 0, done.err
    assert hub.requests == [
        Request("GET", f"/api/models/{GEMMA_SAES}", 200, True), Request("GET", f"/api/models/{GEMMA}", 200, True)
    ]
    assert "| transformers" in done.err.replace("|   ", "| ")
    assert not re.search(r"\bsae_lens\b", done.err)
    W_enc, _ = own_format(repos[GEMMA_SAES][f"{GEMMA_6_FOLDER}/sae_weights.safetensors"])
    assert_list(table, list_by_hand(embeddings(repos[GEMMA]), W_enc[:, 5]))


def test_what_is_kept_suffices_offline_and_what_is_not_is_named(first, hub):
    home, *_ = first
    with Tool(hub, home, HF_HUB_OFFLINE="1") as tool:
        done = tool("tree", "--sae", GEMMA_6, "--feature", 5, "--cutoff", 0.05)
        assert (done.status, done.err.count("multitool:")) == (0, 0)
        other_sae = tool("tokens", "--sae", "gemma-2b-res-jb/blocks.0.hook_resid_post", "--feature", 5).refusal
        assert "gemma-2b-res-jb/blocks.0.hook_resid_post" in other_sae
        other_model = tool("tokens", "--sae", GEMMA_6, "--feature", 5, "--model", GPT2).refusal
        assert GPT2 in other_model
        for message in (other_sae, other_model):
            assert "HF_HUB_OFFLINE is set" in message
            assert "demo" in message
    assert hub.requests == []


def test_what_is_kept_suffices_while_the_hub_is_down_or_gone_and_later_what_has_changed_is_fetched(
    first, tool, hub, repos
):
    home, *_ = first
    shutil.copytree(home, tool.home, symlinks=True)
    tokens = ("tokens", "--sae", GEMMA_6, "--feature", 5)
    hub.down = True
    listed = tool(*tokens, token=READER)
    assert listed.status == 0, listed.err
    hub.stop()
    assert tool(*tokens, token=READER).out == listed.out
    hub.start()
    hub.down = False
    hub.repos[GEMMA] = repos[GEMMA] | {"generation_config.json": b'{"eos_token_id": 2}'}
    hub.clear()
    assert tool(*tokens, token=READER).out == listed.out
    assert fetched(hub) == [f"{GEMMA}/generation_config.json"]


# The other ways in which SAEs and models are kept


def gpt2_sae(repos):
    return own_format(repos[GPT2_SAES]["blocks.0.hook_resid_pre/sae_weights.safetensors"])


def npz_sae(path: str):
    def read(repos):
        arrays = np.load(repos[GEMMA_SCOPE][f"{path}/params.npz"])
        return torch.from_numpy(arrays["w_enc"]), torch.from_numpy(arrays["w_dec"])

    return read


def pickled_sae(repos):
    state = torch.load(repos[PYTHIA_SAES][f"{PYTHIA_SAE}/ae.pt"], weights_only=True)
    return state["encoder.weight"].T, state["decoder.weight"].T


@pytest.mark.parametrize(
    ("sae", "read", "sae_files", "model", "model_files", "word", "asked_again"),
    [
        pytest.param(
            GPT2_0, gpt2_sae, [f"{GPT2_SAES}/blocks.0.hook_resid_pre/{name}" for name in OWN_FORMAT],
            GPT2, WHOLE_MODEL, "OSS", [], id="weights without a prefix in their names",
        ),
        pytest.param(
            "gemma-scope-2b-pt-res/embedding/width_4k/average_l0_6", npz_sae("embedding/width_4k/average_l0_6"),
            [f"{GEMMA_SCOPE}/embedding/width_4k/average_l0_6/params.npz"],
            GEMMA_2, SPLIT_MODEL, "X", [f"/{GEMMA_SCOPE}/resolve/main/embedding/width_4k/average_l0_6/params.npz"],
            id="an SAE on the embedding in npz",
        ),
        pytest.param(
            "gemma-scope-2b-pt-res-canonical/layer_1/width_16k/canonical", npz_sae("layer_1/width_16k/average_l0_102"),
            [f"{GEMMA_SCOPE}/layer_1/width_16k/average_l0_102/params.npz"],
            GEMMA_2, SPLIT_MODEL, "X", [f"/{GEMMA_SCOPE}/resolve/main/layer_1/width_16k/average_l0_102/params.npz"],
            id="an SAE on a layer in npz",
        ),
        pytest.param(
            PYTHIA_3, pickled_sae, [f"{PYTHIA_SAES}/{PYTHIA_SAE}/{name}" for name in ("ae.pt", "config.json")],
            PYTHIA, WHOLE_MODEL, "OSS",
            [f"/{PYTHIA_SAES}/resolve/main/{PYTHIA_SAE}/{name}" for name in ("ae.pt", "config.json")],
            id="an SAE in a pickle of plain weights",
        ),
    ],
)
def test_other_releases(tool, hub, repos, tmp_path, sae, read, sae_files, model, model_files, word, asked_again):
    """Tree and list are those of the files, which are fetched once; then sae-lens' loaders ask for changes again."""
    W_enc, W_dec = read(repos)
    tree, table = tmp_path / "tree.json", tmp_path / "list.csv"
    done = tool("tree", "--sae", sae, "--feature", 5, "--cutoff", CUTOFF, "--json", tree, token=READER)
    assert done.status == 0, done.err
    assert fetched(hub) == sorted([*sae_files, *(f"{model}/{name}" for name in model_files)])
    assert_tree(tree, tree_by_hand(repos[model], word, W_enc[:, 5]))

    hub.clear()
    mixed = ("--weights", "mix", "--encoder-share", 0.3, "--top", 10, "--csv", table)
    done = tool("tokens", "--sae", sae, "--feature", 7, *mixed, token=READER)
    assert done.status == 0, done.err
    assert_list(table, list_by_hand(embeddings(repos[model]), 0.3 * unit(W_enc[:, 7]) + 0.7 * unit(W_dec[7])))
    assert fetched(hub) == []
    repository = sae_files[0].split("/")[:2]
    revisions = [f"/api/models/{'/'.join(repository)}", f"/api/models/{model}"]
    assert sorted({asked.path for asked in hub.requests}) == sorted([*revisions, *asked_again])
