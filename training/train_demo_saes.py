"""Train the SAEs of the demo's models, write their strongest contexts, and measure them.

    python -m training.train_demo_saes                                  everything for the demo's first model
    python -m training.train_demo_saes --model gemma-3-270m             for the other
    python -m training.train_demo_saes --hooks hook_embed               one of them
    python -m training.train_demo_saes --steps contexts quality         again from the shipped weights
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from sae_lens import SAE

from multitool.store.folders import cache_folder
from training.contexts import strongest_contexts, strongest_tokens, write_contexts
from training.corpus import CONTEXT_TOKENS, PARTS, Corpus, load_corpus
from training.evaluation import language_model_loss, reconstruction
from training.report import add_figures
from training.sae_training import Recipe, export, recipe_for, train, typical_mean
from training.subject_model import (
    EMBED,
    MODELS,
    TrainedOn,
    beginning,
    embeddings,
    load_model,
    load_tokenizer,
    residual_activations,
)

STEPS = ("train", "contexts", "quality")
HELD_OUT_CONTEXTS = 512
LOSS_CONTEXTS = 64  # of those; whole forward passes are the slowest part of measuring


def main() -> None:
    options = _options()
    torch.set_num_threads(options.threads)
    trained_on: TrainedOn = MODELS[options.model]
    needs_text = set(options.hooks) != {EMBED} or "quality" in options.steps
    corpus = _first_contexts(load_corpus(trained_on, options.cache), options.tokens) if needs_text else None
    for hook_name in options.hooks:
        folder = options.output / hook_name
        rows = _rows(trained_on, hook_name, corpus, options)
        if "train" in options.steps:
            _train(trained_on, recipe_for(trained_on, hook_name, options.passes), rows, folder)
        if "contexts" in options.steps:
            _write_contexts(trained_on, hook_name, folder, rows, corpus)
        if "quality" in options.steps:
            _measure(trained_on, hook_name, folder, rows, corpus, options)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m training.train_demo_saes", description="Train the SAEs of the demo's models."
    )
    parser.add_argument("--model", choices=MODELS, default=next(iter(MODELS)), help="for which model")
    parser.add_argument("--hooks", nargs="+", metavar="HOOK", help="which SAEs (all of the model's)")
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=STEPS, help="what to do (everything)")
    parser.add_argument("--tokens", type=int, default=800_000, help="text tokens for the layers' SAEs")
    parser.add_argument("--passes", type=float, default=2.0, help="passes over those tokens")
    parser.add_argument("--threads", type=int, default=2, help="processor cores to use")
    parser.add_argument("--output", type=Path, help="where the SAE folders go (into the package)")
    parser.add_argument(
        "--cache", type=Path, default=cache_folder() / "training",
        help="for packages, tokens and activations (150 kB per 128 tokens and layer)",
    )
    options = parser.parse_args()
    trained_on = MODELS[options.model]
    options.output = options.output or trained_on.output
    options.hooks = options.hooks or trained_on.hooks
    if unknown := set(options.hooks) - set(trained_on.hooks):
        parser.error(f"--hooks: {', '.join(sorted(unknown))} is none of {', '.join(trained_on.hooks)}")
    return options


def _first_contexts(corpus: Corpus, tokens: int) -> Corpus:
    count = min(tokens // CONTEXT_TOKENS, len(corpus.train))
    return Corpus(
        corpus.train[:count], corpus.train_parts[:count],
        corpus.held_out[:HELD_OUT_CONTEXTS], corpus.held_out_parts[:HELD_OUT_CONTEXTS],
    )


def _rows(
    trained_on: TrainedOn, hook_name: str, corpus: Corpus | None, options: argparse.Namespace
) -> np.ndarray:
    """What the SAE is trained on: embeddings (tokens, d), or activations (contexts, positions, d)."""
    if hook_name == EMBED:
        return embeddings(trained_on)
    # All layers that are asked for come out of the same forward passes.
    layers = [name for name in options.hooks if name != EMBED]
    assert corpus
    return residual_activations(trained_on, corpus.train, layers, trained_on.kept(options.cache))[hook_name]


def _train(trained_on: TrainedOn, recipe: Recipe, rows: np.ndarray, folder: Path) -> None:
    started = time.monotonic()
    flat = rows.reshape(-1, rows.shape[-1])
    sae, samples, used = train(recipe, flat)
    text = "; ".join(f"{part.name} ({part.licence})" for part in PARTS)
    on_rows = recipe.hook_name == EMBED
    export(
        sae,
        trained_on,
        recipe,
        folder,
        {
            "prepend_bos": bool(beginning(load_tokenizer(trained_on))),
            "context_size": 1 if on_rows else CONTEXT_TOKENS,
            "dataset": "the rows of the model's embedding matrix; no text" if on_rows else text,
            "distinct_training_vectors": used,
            "training_samples": samples,
            "training_tokens": 0 if on_rows else used,
        },
    )
    seconds = time.monotonic() - started
    print(f"{recipe.hook_name}: trained on {samples:,} samples in {seconds:.0f} s", flush=True)


def _load(folder: Path):
    """The shipped file as any user reads it."""
    return SAE.load_from_disk(folder, device="cpu", dtype="float32")


def _write_contexts(
    trained_on: TrainedOn, hook_name: str, folder: Path, rows: np.ndarray, corpus: Corpus | None
) -> None:
    sae, tokenizer = _load(folder), load_tokenizer(trained_on)
    if hook_name == EMBED:
        source = f"Tokens of {trained_on.vocabulary} whose embedding rows activate the feature most."
        features = strongest_tokens(sae, torch.from_numpy(rows), tokenizer)
    else:
        assert corpus
        quotable = [index for index, part in enumerate(PARTS) if part.quotable]
        chosen = np.flatnonzero(np.isin(corpus.train_parts, quotable))
        names = "; ".join(f"{PARTS[index].name} ({PARTS[index].licence})" for index in quotable)
        source = f"Passages from {chosen.size * CONTEXT_TOKENS:,} tokens of {names}."
        features = strongest_contexts(sae, rows, chosen, corpus.train, tokenizer)
    write_contexts(folder / "contexts.json", source, features)
    print(f"{hook_name}: contexts written", flush=True)


def _measure(
    trained_on: TrainedOn, hook_name: str, folder: Path, rows: np.ndarray, corpus: Corpus | None,
    options: argparse.Namespace,
) -> None:
    assert corpus
    sae = _load(folder)
    flat = rows.reshape(-1, rows.shape[-1])
    mean, typical = typical_mean(flat)
    if hook_name == EMBED:
        measured = torch.from_numpy(flat)
    else:
        kept = trained_on.kept(options.cache)
        held_out = residual_activations(trained_on, corpus.held_out, [hook_name], kept)[hook_name]
        measured = torch.from_numpy(held_out.reshape(-1, flat.shape[-1]).astype(np.float32))
    figures = {
        "architecture": sae.cfg.architecture(),
        "features": sae.cfg.d_sae,
        "measured_on": "all embedding rows (the training rows)" if hook_name == EMBED else "held-out text",
        "decoder_norm": sae.W_dec.norm(dim=1).mean().item(),
        "training_samples": sae.cfg.metadata.training_samples,
        "distinct_training_vectors": sae.cfg.metadata.distinct_training_vectors,
        "reconstruction": reconstruction(sae, measured, mean, typical),
        "language_model_loss": language_model_loss(
            load_model(trained_on), sae, corpus.held_out[:LOSS_CONTEXTS], mean
        ),
    }
    add_figures(options.output, hook_name, figures)
    print(json.dumps({hook_name: figures}, indent=1), flush=True)


if __name__ == "__main__":
    main()
