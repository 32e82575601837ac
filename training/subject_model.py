"""The demo's language model as training needs it: its rows, its activations, and replacing them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from multitool.store.demo_models import demo_model_folder

MODEL_NAME = "HuggingFaceTB/SmolLM2-135M-Instruct"
EMBED = "hook_embed"


def load_tokenizer():
    return AutoTokenizer.from_pretrained(demo_model_folder())


def load_model(dtype: torch.dtype = torch.float32):
    model = AutoModelForCausalLM.from_pretrained(demo_model_folder(), dtype=dtype)
    return model.eval().requires_grad_(False)


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
    contexts: np.ndarray, hook_names: list[str], folder: Path, batch: int = 16
) -> dict[str, np.memmap]:
    """Float16 activations ``(contexts, positions - 1, d_model)`` of every hook, from one forward pass each.

    Position 0 is left out: whatever token stands there, this model puts a huge constant vector on it.
    The files in ``folder`` are used again when they are already complete.
    """
    paths = {name: folder / f"{name}.{len(contexts)}x{contexts.shape[1]}.float16" for name in hook_names}
    width = AutoConfig.from_pretrained(demo_model_folder()).hidden_size
    shape = (len(contexts), contexts.shape[1] - 1, width)
    missing = {name: path for name, path in paths.items() if not path.exists()}
    if missing:
        _dump(load_model(), contexts, missing, shape, batch)
    return {name: np.memmap(paths[name], np.float16, "r", shape=shape) for name in hook_names}


def _dump(model, contexts: np.ndarray, paths: dict[str, Path], shape: tuple[int, ...], batch: int) -> None:
    # Layers above the last hook would only cost time.
    model.model.layers = model.model.layers[: 1 + max(layer_of(name) for name in paths)]
    unfinished = {name: path.with_suffix(".unfinished") for name, path in paths.items()}
    stores = {name: np.memmap(path, np.float16, "w+", shape=shape) for name, path in unfinished.items()}
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
