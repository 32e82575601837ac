"""The demo's language models as training needs them: their rows, their activations, and replacing these."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from multitool.store.demo_models import DEMO_MODEL, DEMO_MODELS, GEMMA_MODEL, demo_model_folder

EMBED = "hook_embed"


@dataclass(frozen=True)
class TrainedOn:
    """A model that SAEs are trained on, and what is trained for it."""

    name: str  # one of ``DEMO_MODELS``
    vocabulary: str  # whose tokens are quoted, in words
    layers: tuple[int, ...]
    embed_features: int
    embed_passes: float
    stored: str  # the type that activations are kept in: float16 where it holds the largest

    @property
    def hub_id(self) -> str:
        return DEMO_MODELS[self.name].same_as

    @property
    def output(self) -> Path:
        """Where the SAEs' folders go."""
        return DEMO_MODELS[self.name].saes

    @property
    def hooks(self) -> list[str]:
        return [EMBED, *(f"blocks.{layer}.hook_resid_post" for layer in self.layers)]

    @property
    def folder(self) -> Path:
        return demo_model_folder(self.name)

    def kept(self, cache: Path) -> Path:
        """Where its tokens and activations are kept; made if need be."""
        folder = cache / DEMO_MODELS[self.name].short_name
        folder.mkdir(parents=True, exist_ok=True)
        return folder


MODELS = {
    "SmolLM2-135M-Instruct": TrainedOn(
        DEMO_MODEL, "SmolLM2's vocabulary (Apache-2.0)", layers=(1, 6, 12), embed_features=2048, embed_passes=40,
        stored="float16",
    ),
    "gemma-3-270m": TrainedOn(
        GEMMA_MODEL, "Gemma 3's vocabulary (Gemma Terms of Use)", layers=(0, 5, 9, 13), embed_features=3072,
        embed_passes=8, stored="float32",
    ),
}


def load_tokenizer(trained_on: TrainedOn):
    return AutoTokenizer.from_pretrained(trained_on.folder)


def load_model(trained_on: TrainedOn, dtype: torch.dtype = torch.float32):
    model = AutoModelForCausalLM.from_pretrained(trained_on.folder, dtype=dtype)
    return model.eval().requires_grad_(False)


def embeddings(trained_on: TrainedOn) -> np.ndarray:
    """What the layers get of every token, (V, d_model): Gemma's rows multiplied by √d_model."""
    embed = load_model(trained_on).get_input_embeddings()
    return embed(torch.arange(embed.num_embeddings)).numpy()


def beginning(tokenizer) -> list[int]:
    """What the tokenizer puts before every text: BOS, or nothing."""
    return tokenizer("").input_ids


def layer_of(hook_name: str) -> int:
    """The layer whose output ``blocks.L.hook_resid_post`` names."""
    return int(hook_name.split(".")[1])


def hf_module_name(hook_name: str) -> str:
    """The same place in the names that transformers uses."""
    return "model.embed_tokens" if hook_name == EMBED else f"model.layers.{layer_of(hook_name)}"


@contextmanager
def replaced_output(model, hook_name: str, change: Callable[[torch.Tensor], torch.Tensor]) -> Iterator[None]:
    """While this is open, the output of the hooked module is ``change(output)``."""

    def hook(_module, _inputs, output):
        if isinstance(output, tuple):
            return (change(output[0]), *output[1:])
        return change(output)

    handle = model.get_submodule(hf_module_name(hook_name)).register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def residual_activations(
    trained_on: TrainedOn, contexts: np.ndarray, hook_names: list[str], folder: Path, batch: int = 16
) -> dict[str, np.memmap]:
    """Activations ``(contexts, positions - 1, d_model)`` of every hook, from one forward pass each.

    Position 0 is left out: whatever token stands there, these models put a huge constant vector on it.
    The files in ``folder`` are used again when they are already complete.
    """
    paths = {name: folder / f"{name}.{len(contexts)}x{contexts.shape[1]}.{trained_on.stored}" for name in hook_names}
    width = AutoConfig.from_pretrained(trained_on.folder).hidden_size
    shape = (len(contexts), contexts.shape[1] - 1, width)
    missing = {name: path for name, path in paths.items() if not path.exists()}
    if missing:
        _dump(load_model(trained_on), trained_on.stored, contexts, missing, shape, batch)
    return {name: np.memmap(paths[name], trained_on.stored, "r", shape=shape) for name in hook_names}


def _dump(
    model, stored: str, contexts: np.ndarray, paths: dict[str, Path], shape: tuple[int, ...], batch: int
) -> None:
    # Layers above the last hook would only cost time.
    model.model.layers = model.model.layers[: 1 + max(layer_of(name) for name in paths)]
    unfinished = {name: path.with_suffix(".unfinished") for name, path in paths.items()}
    stores = {name: np.memmap(path, stored, "w+", shape=shape) for name, path in unfinished.items()}
    seen: dict[str, torch.Tensor] = {}

    def keep(name: str):
        def hook(_module, _inputs, output):
            seen[name] = output[0] if isinstance(output, tuple) else output

        return hook

    for name in paths:
        model.get_submodule(hf_module_name(name)).register_forward_hook(keep(name))
    with torch.inference_mode():
        for start in range(0, len(contexts), batch):
            model.model(torch.from_numpy(contexts[start : start + batch].astype(np.int64)), use_cache=False)
            for name, store in stores.items():
                store[start : start + batch] = seen[name][:, 1:].numpy()
            if start // batch % 100 == 0:
                print(f"activations: {start} of {len(contexts)} contexts", flush=True)
    for name, store in stores.items():
        store.flush()
        unfinished[name].rename(paths[name])
