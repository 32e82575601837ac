"""Fit the Jacobian lenses of the demo's hooks, and write them as float16.

    python -m training.fit_demo_lenses --prepare texts.npy       contexts of the SAEs' held-out text, with a network
    python -m training.fit_demo_lenses --texts texts.npy --device cuda

The second command needs no network where the demo's model is there. How far the lens is still noise is told by two halves
of the contexts: the cosine of what they make of random directions.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from multitool.model.jacobian_lens import JacobianLens
from multitool.store.demo_model import DEMO_MODEL
from multitool.store.folders import cache_folder
from multitool.store.lenses import LENS_FILE
from multitool.store.library import Library
from multitool.store.registry import DEMO_FOLDER
from training.corpus import load_corpus
from training.subject_model import load_tokenizer
from training.train_demo_saes import HOOKS

CONTEXTS = 256
GROUP = 16  # contexts in memory at a time
_GRAPH_BYTES = {"cpu": 4 << 30, "cuda": 32 << 30}


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m training.fit_demo_lenses", description="Fit the Jacobian lenses of the demo."
    )
    parser.add_argument("--prepare", type=Path, metavar="FILE", help="only write the contexts (token ids, npy)")
    parser.add_argument("--texts", type=Path, metavar="FILE", help="read the contexts from there, not from the corpus")
    parser.add_argument("--contexts", type=int, default=CONTEXTS, help="how many")
    parser.add_argument("--hooks", nargs="+", choices=HOOKS, default=HOOKS)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--output", type=Path, default=DEMO_FOLDER, help="where the hooks' folders are")
    parser.add_argument("--cache", type=Path, default=cache_folder() / "training", help="where the corpus is kept")
    options = parser.parse_args()
    contexts = np.load(options.texts) if options.texts else load_corpus(load_tokenizer(), options.cache).held_out
    contexts = contexts[: options.contexts]
    if options.prepare:
        np.save(options.prepare, contexts)
        return
    torch.backends.cuda.matmul.allow_tf32 = True  # its rounding is far below what the sample leaves open
    library = Library(dtype="float32", device=options.device)
    subject = library.subject(DEMO_MODEL)
    model = library.run(subject.name, subject.folder)
    texts = [(subject.bos_id, *context.tolist()) for context in contexts]
    for hook in options.hooks:
        started = time.monotonic()
        halves = [fitted(model, hook, half, options.device) for half in (texts[::2], texts[1::2])]
        J = sum(halves) / 2
        path = options.output / hook / LENS_FILE
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({"J": J.to(torch.float16).contiguous()}, path)
        directions = torch.randn(100, J.shape[1], generator=torch.Generator().manual_seed(0))
        agree = torch.cosine_similarity(*(directions @ half.T for half in halves), dim=1)
        print(f"{hook}: {len(texts)} contexts, halves agree by cosine {agree.mean():.3f} (lowest {agree.min():.3f}), "
              f"{time.monotonic() - started:.0f} s", flush=True)


def fitted(model, hook: str, texts: list, device: str) -> torch.Tensor:
    """The lens of some contexts, all of the same length: (d_model, d_model)."""
    total, groups = torch.zeros(()), [texts[first : first + GROUP] for first in range(0, len(texts), GROUP)]
    for group in groups:
        lens = JacobianLens(model, hook, group, graph_bytes=_GRAPH_BYTES[device])
        every = range(model.config.hidden_size)
        rows = [lens.rows(every[first : first + lens.at_once]) for first in range(0, len(every), lens.at_once)]
        total = total + torch.cat(rows) * len(group) / len(texts)
    return total


if __name__ == "__main__":
    main()
