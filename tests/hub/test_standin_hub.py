"""The stand-in for the Hugging Face hub, asked by the real clients, each in a process of its own."""

import hashlib
import io
import json
import subprocess
import sys
import textwrap
from urllib.request import ProxyHandler, build_opener

import pytest
import torch
from standin_hub import Request, StandInHub
from standin_repos import (
    D_MODEL,
    D_MODEL_GEMMA_2,
    D_SAE,
    GEMMA_2B_SAES,
    GPT2_SAES,
    PYTHIA_SAE,
    evil_ae,
    standin_repos,
)

GEMMA = "google/gemma-2b"
SAES = "jbloom/Gemma-2b-Residual-Stream-SAEs"
SAE = GEMMA_2B_SAES[6]
SHARD = "model-00001-of-00002.safetensors"
COMMON = """
import json
from huggingface_hub import HfApi, hf_hub_download, snapshot_download

def error(call, *args, **options):
    try:
        call(*args, **options)
    except Exception as error:
        response = getattr(error, "response", None)
        return [type(error).__name__, response and response.status_code, str(error)]
    return None
"""


@pytest.fixture
def hub(repos):
    accounts = {"hf_good": "reader", "hf_other": "visitor"}
    with StandInHub(dict(repos), tokens=accounts, gated={GEMMA: {"hf_good"}}) as hub:
        yield hub


@pytest.fixture
def ask(hub, tmp_path):
    """Run Python in a client's process; what it leaves in ``answer`` comes back."""

    def run(code: str, token: str | None = None):
        code = f"{COMMON}\n{textwrap.dedent(code)}\nprint(json.dumps(answer))"
        environment = hub.environment(tmp_path / "home", token)
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    return run


def test_a_snapshot_comes_whole_and_then_only_the_revision_is_asked_for(hub, ask, repos):
    snapshot = f"""
        from pathlib import Path
        folder = Path(snapshot_download({SAES!r}, allow_patterns=["{SAE}/*"]))
        answer = [folder.name, {{str(path.relative_to(folder)): path.stat().st_size for path in folder.rglob("*.*")}}]
    """
    commit, sizes = ask(snapshot)
    names = [f"{SAE}/{name}" for name in ("cfg.json", "sae_weights.safetensors", "sparsity.safetensors")]
    assert commit == hub.commit(SAES)
    assert {name: sizes[name] for name in names} == {name: repos[SAES][name].stat().st_size for name in names}
    revision, tree, *files = hub.requests
    assert revision == Request("GET", f"/api/models/{SAES}/revision/main", 200, False)
    assert tree == Request("GET", f"/api/models/{SAES}/tree/{commit}", 200, False)
    assert sorted(files) == sorted(
        Request(method, f"/{SAES}/resolve/{commit}/{name}", 200, False) for method in ("HEAD", "GET") for name in names
    )

    hub.clear()
    assert ask(snapshot) == [commit, sizes]
    assert hub.requests == [revision]


def test_a_download_goes_on_where_the_connection_broke(hub, ask):
    content = bytes(range(251)) * 50_000
    # The client writes 10 MiB at once, and what came of the next ones is lost.
    hub.repos["some/one"] = {"model.bin": content}
    hub.cut[("some/one", "model.bin")] = 11_000_000
    answer = ask(
        """
        import hashlib
        from pathlib import Path
        answer = hashlib.sha256(Path(hf_hub_download("some/one", "model.bin")).read_bytes()).hexdigest()
        """,
        "hf_good",
    )
    assert answer == hashlib.sha256(content).hexdigest()
    assert [(asked.method, asked.status, asked.token) for asked in hub.requests] == [
        ("HEAD", 200, True),
        ("GET", 200, True),
        ("GET", 206, True),
    ]


def test_errors_without_a_token(hub, ask):
    hub.missing.add((SAES, f"{SAE}/cfg.json"))
    gated, listed, auth, unknown, not_there, absent, revision, whoami = ask(
        f"""
        answer = [
            error(hf_hub_download, "{GEMMA}", "config.json"),
            error(HfApi().model_info, "{GEMMA}", files_metadata=True),
            error(HfApi().auth_check, "{GEMMA}"),
            error(snapshot_download, "google/gemma-3b"),
            error(hf_hub_download, "{SAES}", "nothing.json"),
            error(hf_hub_download, "{SAES}", "{SAE}/cfg.json"),
            error(HfApi().model_info, "{SAES}", revision="v2"),
            error(HfApi().whoami),
        ]
        """
    )
    assert gated[:2] == ["GatedRepoError", 401]
    assert "Access to model google/gemma-2b is restricted. You must have access to it" in gated[2]
    assert listed is None
    assert auth[:2] == ["GatedRepoError", 401]
    assert unknown[:2] == ["RepositoryNotFoundError", 401]
    assert not_there[:2] == absent[:2] == ["RemoteEntryNotFoundError", 404]
    assert revision[:2] == ["RevisionNotFoundError", 404]
    assert whoami[0] == "LocalTokenNotFoundError"


def test_errors_with_a_token(hub, ask):
    others = f"""
        answer = [
            error(hf_hub_download, "{GEMMA}", "config.json"),
            error(HfApi().auth_check, "{GEMMA}"),
            error(HfApi().auth_check, "google/gemma-3b"),
            error(HfApi().whoami),
        ]
    """
    gated, auth, unknown, whoami = ask(others, "hf_other")
    assert gated[:2] == auth[:2] == ["GatedRepoError", 403]
    assert "you are not in the authorized list. Visit https://huggingface.co/google/gemma-2b" in gated[2]
    assert unknown[:2] == ["RepositoryNotFoundError", 404]
    assert whoami is None
    refused = ask(others, "hf_unknown")
    assert {(name, status) for name, status, _ in refused} == {("HfHubHTTPError", 401)}
    assert "Invalid credentials in Authorization header" in refused[0][2]


def test_who_has_access_reads_and_is_known(hub, ask):
    name, access, listed, tensors, here = ask(
        f"""
        api = HfApi()
        answer = [
            api.whoami()["name"],
            api.auth_check("{GEMMA}"),
            [[file.path, file.lfs and file.lfs.sha256] for file in api.get_paths_info("{GEMMA}", ["config.json"])],
            len(api.get_safetensors_metadata("{GEMMA}").weight_map),
            [entry.path for entry in api.list_repo_tree("{GEMMA}")],
        ]
        """,
        "hf_good",
    )
    assert (name, access) == ("reader", None)
    assert listed == [["config.json", None]]
    assert tensors == 18 * 9 + 2
    assert {"original", "gemma-2b.gguf", "config.json"} < set(here)
    assert "original/model.safetensors" not in here
    assert {asked.status for asked in hub.requests if SHARD in asked.path} == {206}


def test_a_stalled_file_comes_when_the_hub_goes_on(hub, repos):
    file = (SAES, f"{SAE}/sae_weights.safetensors")
    content = repos[file[0]][file[1]].read_bytes()
    hub.stall.add(file)
    direct = build_opener(ProxyHandler({}))
    with direct.open(f"{hub.url}/{file[0]}/resolve/main/{file[1]}", timeout=0.3) as response:
        half = response.read(len(content) // 2)
        with pytest.raises(TimeoutError):
            response.read(1)
    with direct.open(f"{hub.url}/{file[0]}/resolve/main/{file[1]}", timeout=30) as response:
        assert response.read(len(content) // 2) == half == content[: len(content) // 2]
        hub.stall.remove(file)
        assert half + response.read() == content


def test_a_hub_that_is_down_or_gone_and_comes_back(hub, ask):
    download = f'answer = error(snapshot_download, "{SAES}", allow_patterns="{SAE}/cfg.json")'
    hub.down = True
    assert ask(download)[0] == "LocalEntryNotFoundError"
    assert {asked.status for asked in hub.requests} == {503}
    hub.stop()
    assert ask(download)[0] == "LocalEntryNotFoundError"
    hub.down = False
    hub.start()
    assert ask(download) is None
    hub.stop()
    assert ask(download) is None  # from the cache


def test_transformers_and_sae_lens_read_everything(hub, ask, repos, tmp_path):
    """In one process: its imports take longer than all the rest."""
    models = [GEMMA, "openai-community/gpt2", "google/gemma-2-2b", "EleutherAI/pythia-70m-deduped"]
    saes = [
        *(("gemma-2b-res-jb", f"blocks.{layer}.hook_resid_post") for layer in GEMMA_2B_SAES),
        *(("gpt2-small-res-jb", hook) for hook in GPT2_SAES),
        ("gemma-scope-2b-pt-res", "embedding/width_4k/average_l0_6"),
        ("gemma-scope-2b-pt-res-canonical", "layer_1/width_16k/canonical"),
        ("sae_bench_pythia70m_sweep_standard_ctx128_0712", "blocks.3.hook_resid_post__trainer_10"),
    ]
    marker = tmp_path / "marker"
    hub.repos["evil/lm_sae"] = repos["canrager/lm_sae"] | {f"{PYTHIA_SAE}/ae.pt": evil_ae(marker)}
    answer = ask(
        f"""
        import torch
        from sae_lens import SAE
        from sae_lens.loading import pretrained_sae_loaders as loaders
        from transformers import AutoModelForCausalLM, AutoTokenizer
        answer = {{"models": [], "saes": []}}
        for name in {models!r}:
            tokenizer = AutoTokenizer.from_pretrained(name)
            options = {{"dtype": torch.float32, "use_safetensors": True, "output_loading_info": True}}
            model, report = AutoModelForCausalLM.from_pretrained(name, **options)
            ids = tokenizer('A house "X"', return_tensors="pt").input_ids
            answer["models"].append([
                type(model).__name__,
                model.get_input_embeddings().weight.shape[1],
                model.config.num_hidden_layers,
                tokenizer.decode(ids[0], skip_special_tokens=True),
                ids[0, 0].item() == tokenizer.bos_token_id,
                model(ids).logits[0, -1].softmax(-1).max().item() < 0.9,
                sorted(report["missing_keys"]),
            ])
        for release, sae_id in {saes!r}:
            sae = SAE.from_pretrained(release, sae_id)
            norms = sae.W_dec.norm(dim=1)
            answer["saes"].append([*sae.W_dec.shape, sae.cfg.metadata.hook_name, bool(norms.min() > 0.1)])
        answer["header"] = loaders.get_safetensors_tensor_shapes("{SAES}", "{SAE}/sae_weights.safetensors")
        loader = loaders.dictionary_learning_sae_huggingface_loader_1
        answer["evil"] = error(SAE.from_pretrained, "evil/lm_sae", "{PYTHIA_SAE}", converter=loader)
        """,
        "hf_good",
    )
    text = 'A house "X"'
    tiny = [D_SAE, D_MODEL]
    assert answer["models"] == [
        ["GemmaForCausalLM", D_MODEL, 18, text, True, True, []],
        ["GPT2LMHeadModel", D_MODEL, 12, text, False, True, []],
        ["Gemma2ForCausalLM", D_MODEL_GEMMA_2, 4, text, True, True, []],
        ["GPTNeoXForCausalLM", D_MODEL, 6, text, False, True, []],
    ]
    assert answer["saes"] == [
        *([*tiny, f"blocks.{layer}.hook_resid_post", True] for layer in GEMMA_2B_SAES),
        *([*tiny, hook, True] for hook in GPT2_SAES),
        [4096, D_MODEL_GEMMA_2, "hook_embed", True],
        [16384, D_MODEL_GEMMA_2, "blocks.1.hook_resid_post", True],
        [*tiny, "blocks.3.hook_resid_post", True],
    ]
    fetched = [asked.path for asked in hub.requests if asked.method == "GET" and asked.status == 200]
    assert not [path for path in fetched if path.endswith((".gguf", ".bin", "original/model.safetensors"))]
    assert answer["header"]["W_dec"] == tiny
    ranges = [asked.path for asked in hub.requests if asked.status == 206]
    assert ranges == [f"/{SAES}/resolve/main/{SAE}/sae_weights.safetensors"] * 2
    assert answer["evil"][0] == "UnpicklingError"
    assert not marker.exists()


def test_the_evil_pickle_is_one(tmp_path):
    marker = tmp_path / "marker"
    state = torch.load(io.BytesIO(evil_ae(marker)), weights_only=False)
    assert state["encoder.weight"].shape == (D_SAE, D_MODEL)
    assert marker.exists()


def test_the_repositories_are_the_same_every_time(hub, repos, tmp_path):
    again = StandInHub(standin_repos(tmp_path))
    assert {repo: again.commit(repo) for repo in again.repos} == {repo: hub.commit(repo) for repo in repos}
    again.repos["canrager/lm_sae"][f"{PYTHIA_SAE}/ae.pt"] = b"other"
    assert again.commit("canrager/lm_sae") != hub.commit("canrager/lm_sae")
