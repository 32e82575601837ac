"""A stand-in for the second local model: tiny, of the real one's width, with an SAE on it; nothing is fetched."""

from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from tiny import random_sae, tiny_model, write_model

from multitool.store import demo_models, lenses, pullbacks, registry
from multitool.store.demo_models import DEMO_MODELS, GEMMA_MODEL

D_MODEL = 640
SAE = "demo/gemma-3-270m/hook_embed"
LAYER_SAE = "demo/gemma-3-270m/blocks.1.hook_resid_post"


def put_in_place(tmp_path: Path, monkeypatch, tokenizer) -> Path:
    """The stand-in in a cache of its own, where no terms have been accepted; that cache's folder."""
    cache = tmp_path / "cache"
    monkeypatch.setenv("SAE_MULTITOOL_CACHE", str(cache))
    monkeypatch.delenv("SAE_MULTITOOL_ACCEPT_GEMMA_TERMS", raising=False)
    model = tiny_model("gemma3_text", hidden_size=D_MODEL, initializer_range=0.05)
    write_model(cache / "gemma-3-270m-Q4_K_M", model, tokenizer)
    saes = tmp_path / "demo" / "gemma-3-270m"
    for name in (SAE, LAYER_SAE):
        hook = name.rpartition("/")[2]
        random_sae(saes / hook, d_model=D_MODEL, model="google/gemma-3-270m", hook=hook)
    known = MappingProxyType({**DEMO_MODELS, GEMMA_MODEL: replace(DEMO_MODELS[GEMMA_MODEL], saes=saes)})
    for module in (demo_models, lenses, pullbacks, registry):
        monkeypatch.setattr(module, "DEMO_MODELS", known)
    return cache
