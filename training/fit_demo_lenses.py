"""Fit the Jacobian lenses of the hooks of the demo's first model, and write them as float16.

    python -m training.fit_demo_lenses --prepare texts.npy       contexts of the SAEs' held-out text, with a network
    python -m training.fit_demo_lenses --texts texts.npy [--device cuda --contexts 256]

The second command needs no network where the demo's model is there. The lenses of all hooks come out of the same
backward passes. How far they are still noise is told by two halves of the contexts: the cosine of what they make of
random directions.
"""

import argparse
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from multitool.model.jacobian_lens import SKIPPED_FIRST, SKIPPED_LAST
from multitool.model.residual_stream import EMBEDDING, changed, last_residuals
from multitool.store.folders import cache_folder
from multitool.store.lenses import LENS_FILE
from multitool.store.library import Library
from training.corpus import load_corpus
from training.subject_model import EMBED, MODELS

MODEL = MODELS["SmolLM2-135M-Instruct"]
LAYERS = [hook for hook in MODEL.hooks if hook != EMBED]
CONTEXTS = 256  # a minute and a half on an H100; ten hours on one core
_COPIES = {"cpu": 8, "cuda": 96}  # of a context that go through the layers together


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m training.fit_demo_lenses", description="Fit the Jacobian lenses of the demo."
    )
    parser.add_argument("--prepare", type=Path, metavar="FILE", help="only write the contexts (token ids, npy)")
    parser.add_argument("--texts", type=Path, metavar="FILE", help="read the contexts from there, not from the corpus")
    parser.add_argument("--contexts", type=int, default=CONTEXTS, help="how many")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--output", type=Path, default=MODEL.output, help="where the hooks' folders are")
    parser.add_argument("--cache", type=Path, default=cache_folder() / "training", help="where the corpus is kept")
    options = parser.parse_args()
    contexts = np.load(options.texts) if options.texts else load_corpus(MODEL, options.cache).held_out
    if options.prepare:
        np.save(options.prepare, contexts)
        return
    # The rounding is far below what the sample of texts leaves open.
    library = Library(dtype="bfloat16", device=options.device)
    subject = library.subject(MODEL.name)
    model = library.run(subject.name, subject.folder)
    started = time.monotonic()
    halves = torch.zeros(2, 1 + len(LAYERS), subject.space.d_model, subject.space.d_model)
    for done, context in enumerate(contexts[: options.contexts].tolist()):
        halves[done % 2] += jacobians(model, [subject.bos_id, *context], _COPIES[options.device])
        print(f"{time.monotonic() - started:6.0f} s  {done + 1} contexts", flush=True)
        if done % 2:
            write(halves, done + 1, options.output)


def jacobians(model, text: Sequence[int], copies: int) -> Tensor:
    """As ``model.jacobian_lens.JacobianLens``, of one text and of all hooks at once: (hooks, d_model, d_model)."""
    streams: list[Tensor] = []

    def seen(stream: Tensor) -> Tensor:
        streams.append(stream if streams else stream.detach().clone().requires_grad_())
        return streams[-1]

    ids = torch.tensor([text] * copies)
    with ExitStack() as stack:
        for hook in LAYERS:
            stack.enter_context(changed(model, hook, seen))
        last = last_residuals(model, EMBEDDING, seen, input_ids=ids)
    counted = slice(SKIPPED_FIRST, len(text) - SKIPPED_LAST)
    d_model, found = last.shape[-1], []
    for first in range(0, d_model, copies):
        rows = torch.arange(first, min(first + copies, d_model), device=last.device)
        cotangents = torch.zeros_like(last)
        cotangents[torch.arange(len(rows)), counted, rows] = 1
        gradients = torch.autograd.grad(last, streams, cotangents, retain_graph=True)
        found.append(torch.stack([one[: len(rows), counted].float().mean(dim=1).cpu() for one in gradients]))
    return torch.cat(found, dim=1)


def write(halves: Tensor, n_contexts: int, output: Path) -> None:
    """The lenses as they are by now, and how far two halves of the contexts agree."""
    J = halves.sum(dim=0) / n_contexts
    directions = torch.randn(100, J.shape[-1], generator=torch.Generator().manual_seed(0))
    for hook, one, pair in zip((EMBEDDING, *LAYERS), J, halves.transpose(0, 1), strict=True):
        path = output / hook / LENS_FILE
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({"J": one.to(torch.float16).contiguous()}, path)
        agree = torch.cosine_similarity(*(directions @ half.T for half in pair), dim=1)
        print(f"         {hook}: halves agree by cosine {agree.mean():.3f} (lowest {agree.min():.3f})", flush=True)


if __name__ == "__main__":
    main()
