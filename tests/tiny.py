"""Tiny real things to test with: tokenizers trained on a few sentences, random models, SAE and model folders."""

import json
import os
from collections.abc import Sequence
from pathlib import Path

import torch
import transformers
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from multitool.model.ghost_prompt import GhostPrompt
from multitool.model.passes import WHAT_FITS, Batches, Continuations
from multitool.model.subject import Subject

SENTENCES = [
    'A typical definition of "OSS" would be "a small brown dog that barks."',
    'The word "OSS" means "a house in which people live."',
    'What is the meaning of "OSS"? It means "to be, or to become, a thing."',
    "A dog is an animal that barks. A house is a place in which people live.",
]
PROMPT = 'A typical definition of "{ghost}" would be "'
# Where the tiny models run. On "cuda" only the tests that are marked so are meant to (scripts/gpu_check).
DEVICE = os.environ.get("SAE_MULTITOOL_TEST_DEVICE", "cpu")
END_OF_TEXT = 0  # the byte-level tokenizer's token id
N_TOKENS = 300  # of the byte-level tokenizer
N_ROWS = 304  # of the models' embeddings: more than there are tokens, as in many models


def _small(**more) -> dict:
    return {
        "vocab_size": N_ROWS,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": 256,
        # Far larger than in practice, so that next tokens differ much in probability and paths in what follows.
        "initializer_range": 0.5,
    } | more


_WINDOW = {"sliding_window": 8, "num_hidden_layers": 4, "layer_types": ["sliding_attention", "full_attention"] * 2}
_GEMMA3 = _small(**_WINDOW, query_pre_attn_scalar=8)

# The architectures of the models that have SAEs, with what each does in its own way.
ARCHITECTURES = {
    # multiplies the embeddings by the root of d_model
    "gemma": ("GemmaConfig", _small()),
    # so do these; and every other layer sees the last 8 tokens only
    "gemma2": ("Gemma2Config", _small(**_WINDOW, query_pre_attn_scalar=8)),
    "gemma3_text": ("Gemma3TextConfig", _GEMMA3),
    # a language model inside a model that also sees
    "gemma3": (
        "Gemma3Config",
        {
            "text_config": _GEMMA3,
            "vision_config": {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1,
                              "num_attention_heads": 2, "image_size": 28, "patch_size": 14},
            "mm_tokens_per_image": 4,
            "image_token_index": 301,
            "boi_token_index": 302,
            "eoi_token_index": 303,
        },
    ),
    # learned positions
    "gpt2": (
        "GPT2Config",
        {"vocab_size": N_ROWS, "n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 256, "initializer_range": 0.5},
    ),
    # attention beside the MLP
    "gpt_neox": ("GPTNeoXConfig", _small(tie_word_embeddings=False)),
    # attention sinks, a mixture of experts
    "gpt_oss": (
        "GptOssConfig",
        _small(**_WINDOW, num_local_experts=4, num_experts_per_tok=2,
               rope_parameters={"rope_type": "default", "rope_theta": 10_000.0}),
    ),
    "llama": ("LlamaConfig", _small(tie_word_embeddings=True)),
    # an output matrix of its own
    "llama_untied": ("LlamaConfig", _small(tie_word_embeddings=False)),
    "mistral": ("MistralConfig", _small(sliding_window=8, tie_word_embeddings=False)),
    "qwen2": ("Qwen2Config", _small(tie_word_embeddings=True)),
    "qwen3": ("Qwen3Config", _small(tie_word_embeddings=True)),
    "qwen3_moe": ("Qwen3MoeConfig", _small(num_experts=4, num_experts_per_tok=2, moe_intermediate_size=16)),
    # three of four layers keep a state instead of keys and values
    "qwen3_5": (
        "Qwen3_5TextConfig",
        _small(num_hidden_layers=4, linear_num_key_heads=2, linear_num_value_heads=4, linear_key_head_dim=8,
               linear_value_head_dim=8),
    ),
}
_SHARING = {
    "num_hidden_layers": 6, "num_kv_shared_layers": 2, "vocab_size_per_layer_input": N_ROWS, "sliding_window": 8,
    "hidden_size_per_layer_input": 8, "layer_types": ["sliding_attention", "full_attention"] * 3,
}
# Models whose layers look tokens up for themselves, and whose last layers use keys and values of earlier ones. No
# registry has SAEs for them, so not every test takes them.
LAYER_INPUTS = {
    # and whose layers carry several streams
    "gemma3n_text": ("Gemma3nTextConfig", _small(**_SHARING, altup_num_inputs=2, laurel_rank=4)),
    "gemma4_text": ("Gemma4TextConfig", _small(**_SHARING, global_head_dim=16)),
    "gemma4": (
        "Gemma4Config",
        {
            "text_config": _small(**_SHARING, global_head_dim=16),
            "vision_config": None, "audio_config": None, "image_token_id": 301, "video_token_id": 302,
            "audio_token_id": 303,
        },
    ),
}
WITH_WINDOW = ("gemma2", "gemma3_text", "gemma3", "gpt_oss", "mistral")
WITH_SCALE = ("gemma", "gemma2", "gemma3_text", "gemma3")


def byte_level_tokenizer() -> PreTrainedTokenizerFast:
    """As GPT-2's: every byte has a token, and a few pairs that the sentences repeat."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=N_TOKENS,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(SENTENCES * 3, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|endoftext|>")


def sentencepiece_tokenizer() -> PreTrainedTokenizerFast:
    """As Gemma's and Llama's: blanks are ▁, and a character without a piece falls back to bytes."""
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    pieces += ["▁", "a", "b", "X", '"', "▁a", "▁▁", "é"]
    merges = [("▁", "a"), ("▁", "▁")]
    model = models.BPE(
        {piece: i for i, piece in enumerate(pieces)}, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True
    )
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>")


def tiny_model(architecture: str, seed: int = 0, **more):
    """A random model of that architecture, the same one every time; ``more``: what its config has otherwise."""
    config_class, settings = (ARCHITECTURES | LAYER_INPUTS)[architecture]
    config = getattr(transformers, config_class)(
        **(settings | more), bos_token_id=None, eos_token_id=END_OF_TEXT, pad_token_id=None
    )
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config).eval().requires_grad_(False)
    if architecture in LAYER_INPUTS:  # what begins as zero until it is trained would keep them from mattering
        for parameter in model.parameters():
            if not parameter.any():
                parameter.normal_(0, 0.5)
    return model.to(DEVICE)


class RunningSubject(Subject):
    """A subject together with its model. The subject reads its embeddings on the processor, wherever the model runs."""

    def __init__(self, model, tokenizer: PreTrainedTokenizerFast, name: str):
        E = model.get_input_embeddings().weight.detach().cpu()
        super().__init__(E, tokenizer, model.config, name, Path(name), generation_config=model.generation_config)
        self.model = model

    def next_tokens(
        self, prompt: GhostPrompt, v: torch.Tensor, top_k: int, longest: int, batches: Batches = WHAT_FITS
    ) -> Continuations:
        return Continuations(self.model, prompt, v, top_k, longest, batches=batches)


def tiny_subject(architecture: str, tokenizer: PreTrainedTokenizerFast) -> RunningSubject:
    return RunningSubject(tiny_model(architecture), tokenizer, f"tiny/{architecture}")


def write_model(folder: Path, model, tokenizer) -> Path:
    """A model folder as users have them."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def write_sae(
    folder: Path,
    *,
    W_enc: torch.Tensor,
    W_dec: torch.Tensor,
    hook: str = "blocks.0.hook_resid_post",
    model: str = "",
    **cfg,
) -> Path:
    """An SAE folder in sae-lens format. W_enc is (d_model, d_sae), W_dec (d_sae, d_model)."""
    folder.mkdir(parents=True)
    d_in, d_sae = W_enc.shape
    weights = {"W_enc": W_enc, "W_dec": W_dec, "b_enc": torch.zeros(d_sae), "b_dec": torch.zeros(d_in)}
    save_file({name: tensor.contiguous() for name, tensor in weights.items()}, folder / "sae_weights.safetensors")
    cfg = {
        "architecture": "standard",
        "d_in": d_in,
        "d_sae": d_sae,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": True,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "metadata": {"hook_name": hook, "model_name": model},
    } | cfg
    (folder / "cfg.json").write_text(json.dumps(cfg), encoding="utf-8")
    return folder


def random_sae(
    folder: Path, d_model: int, d_sae: int = 6, seed: int = 0, *, dead: Sequence[int] = (), **options
) -> Path:
    generator = torch.Generator().manual_seed(seed)
    W_enc = torch.randn(d_model, d_sae, generator=generator)
    W_dec = W_enc.T + 0.3 * torch.randn(d_sae, d_model, generator=generator)
    W_enc[:, list(dead)], W_dec[list(dead)] = 0, 0
    return write_sae(folder, W_enc=W_enc, W_dec=W_dec, **options)
