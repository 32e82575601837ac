"""How fast features are found, in the demo and in SAEs of 65,536 features with random weights."""

import json
import tempfile
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from benchmarks.finding_atlas import search_of_an_atlas
from benchmarks.material import library
from benchmarks.measuring import Reach, Row, side_by_side, timed
from multitool.jobs.local import find_by_text, find_by_tokens, find_like
from multitool.recipes.plain_texts import PASSAGES
from multitool.store.demo_models import DEMO_MODEL
from multitool.store.library import Library

_TEXT = PASSAGES[0]  # some 110 tokens
_HOOK = "blocks.1.hook_resid_post"
_REACH = {"by text": 1.0}  # seconds
_OTHER_REACH = 0.3


def finding(repeats: int, smoke: bool) -> list[Row]:
    """By a text of some 110 tokens, by a word with each kind of direction, by likeness, in an atlas: once loaded."""
    demo = "demo/blocks.6.hook_resid_post"
    rows = _rows(demo, library(), demo, repeats, ("encoder", "decoder", "mix", "pullback", "mapped"))
    shapes = ((64, 500),) if smoke else ((576, 65_536), (2304, 65_536))
    for d_model, d_sae in shapes:
        with tempfile.TemporaryDirectory() as folder:
            sae = _random_sae(Path(folder), d_model, d_sae)
            made = Library(dtype="float32", device="cpu", allow_folder=True)
            what = f"{d_sae:,} features of {d_model:,} entries, random"
            rows += _rows(what, made, sae, repeats, ("encoder", "decoder", "mix"))
    return rows + search_of_an_atlas(repeats, smoke)


def _rows(what: str, library: Library, sae: str, repeats: int, kinds: tuple[str, ...]) -> list[Row]:
    runs = {
        "by text": partial(find_by_text, library, sae, _TEXT),
        **{f"by word, {weights}": partial(find_by_tokens, library, sae, "rain", weights=weights) for weights in kinds},
        "by word, activation": partial(find_by_tokens, library, sae, "rain", measure="activation"),
        "by likeness": partial(find_like, library, sae, 7, among=[sae]),
    }
    seconds = side_by_side(repeats, {name: timed(run) for name, run in runs.items()})
    return [
        Row(f"{what}: {name}", {name: seconds[name]}, reach=Reach("at most", _REACH.get(name, _OTHER_REACH), of=name))
        for name in runs
    ]


def _random_sae(folder: Path, d_model: int, d_sae: int) -> str:
    """An SAE of random weights after the second layer of a random model that has the demo's tokens."""
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(library().subject(DEMO_MODEL).folder)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=d_model, intermediate_size=2 * d_model, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=4, max_position_embeddings=512, tie_word_embeddings=True,
    )
    model, sae = folder / "model", folder / "sae"
    LlamaForCausalLM(config).save_pretrained(model)
    tokenizer.save_pretrained(model)
    sae.mkdir()
    W = torch.randn(d_model, d_sae) / d_model**0.5
    biases = {"b_enc": torch.zeros(d_sae), "b_dec": torch.zeros(d_model)}
    save_file({"W_enc": W, "W_dec": W.T.contiguous()} | biases, sae / "sae_weights.safetensors")
    told = {
        "architecture": "standard", "d_in": d_model, "d_sae": d_sae, "dtype": "float32", "device": "cpu",
        "apply_b_dec_to_input": True, "normalize_activations": "none", "reshape_activations": "none",
        "metadata": {"hook_name": _HOOK, "model_name": str(model)},
    }
    (sae / "cfg.json").write_text(json.dumps(told), encoding="utf-8")
    return str(sae)
