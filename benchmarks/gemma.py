"""Google's gemma-3-270m, of which the output head is two thirds: where the time of its trees goes, what precision
changes in them, and what lists and scans of its 262,144 tokens take."""

import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.lists import memory_rows, rises, speed
from benchmarks.material import passes
from benchmarks.measuring import PeakRise, Row, in_child, ratios, side_by_side, timed
from benchmarks.trees import products
from multitool.errors import UserError
from multitool.model.ghost_prompt import ghost_prompt
from multitool.model.passes import ghost_embeddings
from multitool.model.residual_stream import residuals
from multitool.model.subject import Subject
from multitool.model.tasks import ForestTask, GrowthTask, growth_task
from multitool.recipes.recipe import TreeRecipe
from multitool.store.demo_models import DEMO_MODEL, GEMMA_MODEL
from multitool.store.library import Library
from multitool.store.scans import scan_task
from multitool.trees.tree import Tree
from tests.plain_recursion import Path as TokenPath
from tests.plain_recursion import as_paths, cutoff_after, trimmed

# Single tokens of both models.
_WORDS = (" prison", " medicine", " despite", " rain", " music", " doctor", " French", " seven", " quickly", " because")
_HOOK = "blocks.9.hook_resid_post"
_SCANNED = 8192  # tokens that stand for all

Nodes = dict[TokenPath, tuple[float, float]]


def gemma(repeats: int, smoke: bool) -> list[Row] | str:
    """Words' own embedding rows are the ghosts; why there are no figures, in words, where the model cannot be had."""
    library = Library(dtype="float32", device="cpu", max_models=2)
    name = DEMO_MODEL if smoke else GEMMA_MODEL  # where only the code is tried, the one that is there
    try:
        subject = library.subject(name)
    except UserError as error:
        return str(error)
    subjects = {"Gemma": subject, "the demo": library.subject(DEMO_MODEL)}
    return [
        *_growth(library, subjects, repeats, smoke),
        *_precision(subject, smoke),
        *_lists(subject, repeats, smoke),
        _scan(library, subject, repeats, smoke),
    ]


def _task(subject: Subject, cutoff: float, words: Sequence[str] = _WORDS[:1]) -> GrowthTask:
    """Of one word a tree; of several a forest."""
    rows = torch.stack([subject.space.E[subject.token_ids[word]] for word in words])
    return growth_task(subject, rows if len(words) > 1 else rows[0], TreeRecipe(cutoff=cutoff))


def _grown(library: Library, task: GrowthTask) -> Tree:
    *_, growth = library.do(task)
    return growth.tree


def _growth(library: Library, subjects: dict[str, Subject], repeats: int, smoke: bool) -> list[Row]:
    """Trees of as many nodes of both models, each against its matrix products alone; and where their time goes."""
    sizes = (5, 10) if smoke else (100, 900)
    runs: dict[str, Callable[[], float]] = {}
    parts: dict[str, Callable[[], dict[str, float]]] = {}
    for name, subject in subjects.items():
        model = library.run(subject.name, subject.folder)
        large = as_paths(_grown(library, _task(subject, 1e-2 if smoke else 3e-5)))
        for size in sizes:
            run = partial(_grown, library, _task(subject, cutoff_after(large, size)))
            what = f"{size} nodes of {name}"
            runs[what] = timed(run)
            runs[f"{what}, products"] = timed(partial(products, model, passes(model, run)))
            parts[what] = partial(_parts, model, run)
    found = side_by_side(repeats, runs, warm=not smoke)

    rows = []
    for what in parts:
        seconds = {"growth": found[what], "products": found[f"{what}, products"]}
        rows.append(Row(f"{what} against the products at its own batches", seconds, ratio=ratios(seconds, *seconds)))
    for size in sizes:
        both = {name: found[f"{size} nodes of {name}"] for name in subjects}
        rows.append(Row(f"{size} nodes", both, ratio=ratios(both, *both), facts={"nodes": size}))
    for what, shares_of in parts.items():
        shares = [shares_of() for _ in range(repeats)]
        measured = {part: [each[part] for each in shares] for part in shares[0]}
        rows.append(Row(f"where the time of {what} goes", measured, unit="%"))
    return rows


def _parts(model, run: Callable[[], object]) -> dict[str, float]:
    """The percents of a run's processor time that parts of a model take, and what is done outside of it."""
    layers = model.get_decoder().layers
    watched = {"output head": [model.get_output_embeddings()], "MLPs": [layer.mlp for layer in layers],
               "attention": [layer.self_attn for layer in layers], "model": [model]}
    spent: dict[str, float] = defaultdict(float)
    hooks = [
        hook
        for part, modules in watched.items()
        for module in modules
        for hook in (module.register_forward_pre_hook(partial(_clock, spent, part, -1)),
                     module.register_forward_hook(partial(_clock, spent, part, 1)))
    ]
    try:
        started = time.process_time()
        run()
        whole = time.process_time() - started
    finally:
        for hook in hooks:
            hook.remove()
    in_model = spent.pop("model")
    spent["rest of the model"] = in_model - sum(spent.values())
    spent["choice of next tokens, tree"] = whole - in_model
    return {part: 100 * seconds / whole for part, seconds in spent.items()}


def _clock(spent: dict[str, float], part: str, sign: int, *_) -> None:
    spent[part] += sign * time.process_time()


def _precision(subject: Subject, smoke: bool) -> list[Row]:
    """The words' trees in half precision against those in float32; and how large the numbers get for float16."""
    cutoffs, words = ((5e-2, 2e-2), _WORDS[:2]) if smoke else ((1e-2, 1e-3, 1e-4), _WORDS)
    exact = _forest(subject, "float32", cutoffs[-1], words)
    rows = []
    for dtype in ("bfloat16", "float16"):
        half = _forest(subject, dtype, cutoffs[-1], words)
        if not half:
            continue  # why, the last row tells
        for cutoff in cutoffs:
            pairs = [(trimmed(a, cutoff), trimmed(b, cutoff)) for a, b in zip(exact, half, strict=True)]
            nodes = {"float32": sum(len(a) for a, _ in pairs), dtype: sum(len(b) for _, b in pairs),
                     "both": sum(len(a.keys() & b.keys()) for a, b in pairs)}
            either = sum(len(a.keys() | b.keys()) for a, b in pairs)
            changes = [abs(b[path][1] / a[path][1] - 1) for a, b in pairs for path in a.keys() & b.keys()]
            rows.append(Row(
                f"nodes of {len(words)} trees at cutoff {cutoff:g}; ratio: those in both to those in any. A cumulative "
                f"probability changes by {np.median(changes):.1%} (median; most {max(changes):.0%})",
                {name: [n] for name, n in nodes.items()}, unit="", ratio=[nodes["both"] / either],
            ))
    return [*rows, *_largest(subject)]


def _forest(subject: Subject, dtype: str, cutoff: float, words: Sequence[str]) -> list[Nodes]:
    """The words' trees; none where the model does not compute finite numbers."""
    task = ForestTask(model=subject.name, folder=subject.folder, growth=_task(subject, cutoff, words))
    try:
        grown, = Library(dtype=dtype, device="cpu").do(task)
    except UserError:
        return []
    return [as_paths(growth.tree) for growth in grown]


def _largest(subject: Subject) -> list[Row]:
    """The largest number of the stream behind any layer while the prompt is read, and how far float16 gets with it."""
    largest = {dtype: _by_layer(subject, dtype) for dtype in ("float32", "float16")}
    finite = [bool(np.isfinite(each)) for each in largest["float16"]]
    return [
        Row("largest number of the prompt's residual stream; float16 ends at 65,504",
            {"float32": [max(largest["float32"])]}, unit="", facts={"layers": largest["float32"]}),
        Row("layers behind which the stream is finite in float16", {"finite": [sum(finite)], "layers": [len(finite)]},
            unit=""),
    ]


def _by_layer(subject: Subject, dtype: str) -> list[float]:
    model = Library(dtype=dtype, device="cpu").run(subject.name, subject.folder)
    prompt = ghost_prompt(subject, TreeRecipe().prompt, 25)
    embeddings = ghost_embeddings(model, prompt, subject.space.E[subject.token_ids[_WORDS[0]]])
    ids = torch.tensor([prompt.token_ids])
    return [
        float(residuals(model, f"blocks.{layer}.hook_resid_post", input_ids=ids, inputs_embeds=embeddings).abs().max())
        for layer in range(subject.n_layers or 0)
    ]


def _lists(subject: Subject, repeats: int, smoke: bool) -> list[Row]:
    """A warm list, and the memory of the first statistics and of a warm list."""
    rows = [speed("Gemma", subject.space.E, repeats, smoke)]
    make = partial(_matrix, subject.name)
    found = [rises(make) if smoke else in_child(rises, make) for _ in range(repeats)]
    return rows + memory_rows("Gemma", found)


def _matrix(name: str) -> Tensor:
    return Library(dtype="float32", device="cpu").subject(name).space.E.clone()  # or the first look at the file counts


def _scan(library: Library, subject: Subject, repeats: int, smoke: bool) -> Row:
    """Some tokens of the vocabulary read up to a layer; their time scaled to all."""
    n_tokens = 512 if smoke else _SCANNED
    task = scan_task(subject.name, subject.folder, _HOOK, n_tokens=n_tokens, d_model=subject.space.d_model,
                     bos_id=subject.bos_id, dtype="float32")
    scale = subject.space.n_tokens / n_tokens

    def run() -> float:
        with tempfile.TemporaryDirectory() as folder, PeakRise() as peak:
            seconds = timed(lambda: list(library.do(replace(task, path=Path(folder) / "scan"))))()
        memory.append(peak.megabytes)
        return scale * seconds

    memory: list[float] = []
    seconds = [run() for _ in range(repeats)]
    what = f"scan of {subject.space.n_tokens:,} tokens to {_HOOK}, of which {n_tokens:,} were read"
    return Row(f"{what}; memory rises by {max(memory):.0f} MB", {"scan": seconds})
