"""Tiny random repositories for the stand-in hub, each with the files of the real one as its loaders read them.

The models are 32 wide, with more layers than needed only where an SAE belongs to a late one. The one exception is
Gemma 2: sae-lens knows the size of Gemma Scope's SAEs from a table and not from the files (get_gemma_2_config_from_hf),
and all other npz releases are in that table too. So that model is as wide as the real one, 2,304, and its SAEs have
4,096 and 16,384 features, of a few entries each so that the files stay small.
"""

import io
import json
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import transformers
from safetensors.torch import save_file
from tiny import ARCHITECTURES, byte_level_tokenizer, random_sae, sentencepiece_tokenizer
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

D_MODEL = 32
D_SAE = 24
D_MODEL_GEMMA_2 = 2304
GEMMA_2B_SAES = {
    0: "gemma_2b_blocks.0.hook_resid_post_16384_anthropic",
    6: "gemma_2b_blocks.6.hook_resid_post_16384_anthropic_fast_lr",
    10: "gemma_2b_blocks.10.hook_resid_post_16384",
    12: "gemma_2b_blocks.12.hook_resid_post_16384",
}
GPT2_SAES = [f"blocks.{layer}.hook_resid_pre" for layer in (*range(6), 11)]
GEMMA_SCOPE_SAES = {"embedding/width_4k/average_l0_6": 4096, "layer_1/width_16k/average_l0_102": 16384}
PYTHIA_SAE = "pythia70m_sweep_standard_ctx128_0712/resid_post_layer_3/trainer_10"


def standin_repos(folder: Path) -> dict[str, dict[str, Path]]:
    """Write all repositories below the folder. Returns their files by id and path."""
    _gemma_2b(folder / "google/gemma-2b")
    _gpt2(folder / "openai-community/gpt2")
    _gemma_2_2b(folder / "google/gemma-2-2b")
    _pythia(folder / "EleutherAI/pythia-70m-deduped")
    gemma_2b_saes(folder / "jbloom/Gemma-2b-Residual-Stream-SAEs", (0, 6, 10))
    for seed, hook in enumerate(GPT2_SAES):
        _own_format(folder / "jbloom/GPT2-Small-SAEs-Reformatted" / hook, hook, seed)
    for seed, (path, d_sae) in enumerate(GEMMA_SCOPE_SAES.items()):
        _gemma_scope(folder / "google/gemma-scope-2b-pt-res" / path, d_sae, seed)
    _dictionary_learning(folder / "canrager/lm_sae" / PYTHIA_SAE)
    return {repo.relative_to(folder).as_posix(): _files(repo) for repo in sorted(folder.glob("*/*"))}


def gemma_2b_saes(repo: Path, layers: Sequence[int], d_sae: int = D_SAE) -> dict[str, Path]:
    """Write the repository of Gemma-2B's SAEs with those of these layers. Returns its files by path."""
    for layer in layers:
        _own_format(repo / GEMMA_2B_SAES[layer], f"blocks.{layer}.hook_resid_post", layer, d_sae)
    return _files(repo)


def _files(repo: Path) -> dict[str, Path]:
    return {path.relative_to(repo).as_posix(): path for path in sorted(repo.rglob("*")) if path.is_file()}


def evil_ae(marker: Path) -> bytes:
    """Pythia's ae.pt, except that whoever unpickles it without care creates the file ``marker``."""
    file = io.BytesIO()
    torch.save(_autoencoder() | {"evil": _Evil(marker)}, file)
    return file.getvalue()


class _Evil:
    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self):
        return Path.touch, (self.marker,)


# Models


def _gemma_2b(repo: Path) -> None:
    model = _model("gemma", num_hidden_layers=18).to(torch.bfloat16)
    _save(repo, model, _gemma_tokenizer(), max_shard_size="200KB")
    # What else such repositories hold: the same weights in other formats, and not for transformers.
    (repo / "gemma-2b.gguf").write_bytes(b"GGUF" + bytes(60_000))
    (repo / "pytorch_model.bin").write_bytes(bytes(50_000))
    (repo / "original").mkdir()
    save_file({"embedder.weight": torch.zeros(100, D_MODEL)}, repo / "original/model.safetensors")


def _gemma_2_2b(repo: Path) -> None:
    wide = {"hidden_size": D_MODEL_GEMMA_2, "intermediate_size": 16, "num_attention_heads": 2, "num_key_value_heads": 1}
    # Vectors as long as in the narrow models.
    model = _model("gemma2", **wide, initializer_range=0.5 * (D_MODEL / D_MODEL_GEMMA_2) ** 0.5)
    # Among so many dimensions what the layers add would not count: every token would follow itself.
    for name, weight in model.named_parameters():
        if "post_" in name:
            weight.data.fill_(40)
    _save(repo, model.to(torch.bfloat16), _gemma_tokenizer(), max_shard_size="2MB")


def _gpt2(repo: Path) -> None:
    model = _model("gpt2", n_layer=12, n_positions=128)
    _save(repo, model, byte_level_tokenizer())
    # The real file is older than the class: no prefix, no output matrix, and the attention's mask as a tensor.
    mask = torch.ones(128, 128).tril().view(1, 1, 128, 128)
    weights = {f"h.{layer}.attn.bias": mask.clone() for layer in range(12)} | model.transformer.state_dict()
    save_file(weights, repo / "model.safetensors", metadata={"format": "pt"})


def _pythia(repo: Path) -> None:
    _save(repo, _model("gpt_neox", num_hidden_layers=6).to(torch.float16), byte_level_tokenizer())


def _model(architecture: str, **settings):
    config_class, small = ARCHITECTURES[architecture]
    tokenizer = _gemma_tokenizer() if architecture.startswith("gemma") else byte_level_tokenizer()
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": None}
    config = getattr(transformers, config_class)(**small | settings, **ends)
    torch.manual_seed(0)
    return transformers.AutoModelForCausalLM.from_config(config)


def _gemma_tokenizer() -> PreTrainedTokenizerFast:
    """The small tokenizer, which like Gemma's puts a token before every text."""
    tokenizer = sentencepiece_tokenizer()
    start = (tokenizer.bos_token, tokenizer.bos_token_id)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single=f"{start[0]} $A", special_tokens=[start])
    return tokenizer


def _save(repo: Path, model, tokenizer, **options) -> None:
    model.save_pretrained(repo, **options)
    tokenizer.save_pretrained(repo)
    (repo / "README.md").write_text(f"# {repo.name}\n", encoding="utf-8")


# SAEs


def _own_format(folder: Path, hook: str, seed: int, d_sae: int = D_SAE) -> None:
    """An SAE in sae-lens' own format, with the sparsity that it once kept beside it."""
    random_sae(folder, D_MODEL, d_sae, seed, hook=hook)
    save_file({"sparsity": torch.full((d_sae,), -3.0)}, folder / "sparsity.safetensors")


def _gemma_scope(folder: Path, d_sae: int, seed: int) -> None:
    folder.mkdir(parents=True)
    arrays = {
        "w_enc": np.ascontiguousarray(_sparse_rows(d_sae, 2 * seed).T),
        "w_dec": _sparse_rows(d_sae, 2 * seed + 1),
        "b_enc": np.zeros(d_sae, np.float32),
        "b_dec": np.zeros(D_MODEL_GEMMA_2, np.float32),
        "threshold": np.ones(d_sae, np.float32),
    }
    # As np.savez_compressed, but at the fastest level.
    with zipfile.ZipFile(folder / "params.npz", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file:
        for name, array in arrays.items():
            with file.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array)


def _sparse_rows(n: int, seed: int) -> np.ndarray:
    """Unit vectors of four entries, one in each quarter of the model's width."""
    random = np.random.default_rng(seed)
    quarter = D_MODEL_GEMMA_2 // 4
    columns = random.integers(quarter, size=(n, 4)) + quarter * np.arange(4)
    rows = np.zeros((n, D_MODEL_GEMMA_2), np.float32)
    rows[np.arange(n)[:, None], columns] = random.choice(np.float32([-0.5, 0.5]), size=(n, 4))
    return rows


def _dictionary_learning(folder: Path) -> None:
    folder.mkdir(parents=True)
    torch.save(_autoencoder(), folder / "ae.pt")
    trainer = {"dict_class": "AutoEncoder", "activation_dim": D_MODEL, "dict_size": D_SAE, "layer": 3,
               "lm_name": "EleutherAI/pythia-70m-deduped"}  # fmt: skip
    config = {"trainer": trainer, "buffer": {"ctx_len": 128}}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")


def _autoencoder() -> dict[str, torch.Tensor]:
    """The state of a dictionary_learning AutoEncoder."""
    generator = torch.Generator().manual_seed(100)
    encoder = torch.randn(D_SAE, D_MODEL, generator=generator)
    return {
        "bias": torch.zeros(D_MODEL),
        "encoder.weight": encoder,
        "encoder.bias": torch.zeros(D_SAE),
        "decoder.weight": (encoder + 0.3 * torch.randn(D_SAE, D_MODEL, generator=generator)).T.contiguous(),
    }
