"""The tool on a GPU: Gemma-2B's shape with random weights in bfloat16, against the card's bandwidth and arithmetic.

    python -m benchmarks.gpu [NAME ...] --rows FILE [--repeats N] [--smoke]

does some of these measurements and writes each row into the file, a line of JSON, as soon as it is there
(``scripts/gpu_check`` does them one after another, each in a process of its own).
"""

import argparse
import json
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.gpu_model import CUTOFF, Setting, grown, prompt
from benchmarks.gpu_passes import compiled, graph, launches
from benchmarks.material import passes
from benchmarks.measuring import Reach, Row, side_by_side, timed
from multitool.model.logit_lens import read_directions
from multitool.model.pullback import pull_back
from multitool.model.questions import grow_together
from multitool.model.tasks import Base, ForestTask, GrowthTask, LensTask, Place, PullbackTask
from multitool.store.models import load_model
from multitool.store.scans import ScanTask, scan_vocabulary
from multitool.trees.growth import Growth
from multitool.vectors.embedding import EmbeddingSpace
from multitool.vectors.ranking import token_list

_REACH = {5000: 0.5, 900: 0.25}  # seconds for a tree of so many nodes
_NOWHERE: dict[str, Any] = {"model": "random", "folder": Path()}  # of tasks whose model is at hand


def growth(setting: Setting) -> Iterator[Row]:
    """Trees, and the shares that they are of what the card can do."""
    model, device, factor = setting.model, setting.device, setting.factor
    n_parameters = sum(parameter.numel() for parameter in model.parameters())
    weight_bytes = sum(parameter.nbytes for parameter in model.parameters())
    rates = {"copy": partial(_copy_bandwidth, setting, 1 << (20 if setting.smoke else 31)),
             "product": partial(_product_rate, setting, 64 if setting.smoke else 8192)}
    # The default tree's and the largest first: what has a reach.
    for size in sorted(setting.sizes, key=lambda size: size not in _REACH):
        n_levels, n_passes, n_tokens = _counted(setting, size)
        run = timed(partial(setting.synchronised, partial(grown, model, setting.levels, size)))
        found = side_by_side(setting.repeats, {"growth": run} | rates)
        seconds = found["growth"]
        facts = {"nodes": size, "levels": n_levels, "passes": n_passes, "tokens": n_tokens, "factor": factor}
        reach = Reach("at most", _REACH[size], of="growth") if size in _REACH else None
        yield Row(f"{size:,} nodes: {n_levels} levels, {n_passes} passes, {n_tokens:,} tokens",
                  {"growth": seconds}, reach=reach, facts=facts)
        yield _share("weights read", [weight_bytes * n_passes / s / 1e9 for s in seconds],
                     "copy", found["copy"], "GB/s", size)
        yield _share("arithmetic", [2 * n_parameters * size / s / 1e12 for s in seconds],
                     "product", found["product"], "TFLOP/s", size)
    if device == "cuda":
        peak = torch.cuda.max_memory_allocated()
        yield Row("memory at its highest", {"all": [peak / 1e6], "weights": [weight_bytes / 1e6]}, unit="MB",
                  ratio=[peak / weight_bytes])


def _share(what: str, reached: list[float], limit: str, rates: list[float], unit: str, size: int) -> Row:
    return Row(f"{size:,} nodes, {what}: share of the card's rate", {what: reached, limit: rates}, unit=unit,
               ratio=[a / b for a, b in zip(reached, rates, strict=True)])


def together(setting: Setting) -> Iterator[Row]:
    """Many small trees in the same batches, as an atlas grows them."""
    n_trees, size = (4, 6) if setting.smoke else (512, 80)
    model, _ = setting.model, setting.factor
    E = model.get_input_embeddings().weight
    growth = GrowthTask(
        **_NOWHERE, n_tokens=len(E), prompt=prompt(model), v=E[7 : 7 + n_trees].float().cpu().numpy(), top_k=5,
        cutoff=CUTOFF, max_depth=setting.levels, max_nodes=size, end_ids=None,
    )
    task = ForestTask(**_NOWHERE, growth=growth)
    trees: list[Growth] = []

    def run() -> None:
        *_, found = grow_together(model, task)
        trees[:] = found or []

    found = side_by_side(setting.repeats, {"growth": timed(partial(setting.synchronised, run))})
    (seconds,) = found.values()
    n_nodes = sum(len(each.tree) for each in trees)
    yield Row(f"{n_trees} trees together, {n_nodes:,} nodes", {"trees": [n_trees / s for s in seconds]},
              unit="a second", reach=Reach("at least", 100, of="trees"), facts={"trees": n_trees, "nodes": n_nodes})


def scan(setting: Setting) -> Iterator[Row]:
    """Every token read alone, to layer 12, and kept on disk."""
    model = setting.model
    n_tokens, d_model = model.get_input_embeddings().weight.shape
    hook = f"blocks.{1 if setting.smoke else 12}.hook_resid_post"
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "scan"

        def run(n_rows: int = n_tokens) -> None:
            task = ScanTask(**_NOWHERE, hook=hook, n_tokens=n_rows, d_model=d_model, bos_id=2, dtype="bfloat16",
                            path=place / str(len(list(place.parent.rglob("*")))))
            for _ in scan_vocabulary(model, task, max_bytes=1):  # so the one before it is deleted
                pass

        def write() -> None:
            with (Path(folder) / "written").open("wb") as file:
                np.zeros((n_tokens, d_model), np.float16).tofile(file)

        run(min(n_tokens, 5000))
        found = side_by_side(setting.repeats, {"scan": timed(run), "only writing": timed(write)}, warm=False)
    yield Row(f"scan of {n_tokens:,} tokens to {hook}", found, reach=Reach("at most", 5, of="scan"),
              facts={"tokens": n_tokens})


def lists(setting: Setting) -> Iterator[Row]:
    """A token list is the processor's work, of an embedding matrix in its memory; through the final norm the card's."""
    E = setting.model.get_input_embeddings().weight
    on_processor = E.cpu()
    space, v = EmbeddingSpace(on_processor), on_processor[5].float()
    task = LensTask(**_NOWHERE, directions=v.numpy()[None])
    found = side_by_side(setting.repeats, {
        "list": timed(partial(token_list, space, v)),
        "logit lens": timed(lambda: list(read_directions(setting.model, task))),
    })
    yield Row(f"a warm list of {len(E):,} tokens; a direction through the logit lens", found, facts={"tokens": len(E)})


def pullback(setting: Setting) -> Iterator[Row]:
    """Directions carried back through the layers to the embeddings."""
    model, n = setting.model, 2 if setting.smoke else 64
    hook = f"blocks.{1 if setting.smoke else 12}.hook_resid_post"
    directions = np.random.default_rng(0).standard_normal((n, model.config.hidden_size)).astype(np.float32)
    base = Base(Place(hook, 2), tuple(range(100, 100 + (4 if setting.smoke else 64))))
    task = PullbackTask(**_NOWHERE, base=base, directions=directions)
    found = side_by_side(setting.repeats, {"together": timed(lambda: list(pull_back(model, task)))})
    yield Row(f"{n} directions back from {hook}", found, facts={"directions": n})


def loading(setting: Setting) -> Iterator[Row]:
    """From files that the system has in its memory to the card."""
    with tempfile.TemporaryDirectory() as folder:
        setting.model.save_pretrained(folder)
        n_bytes = sum(file.stat().st_size for file in Path(folder).glob("*.safetensors"))

        def load() -> None:
            load_model("random", Path(folder), "bfloat16", setting.device)

        found = side_by_side(setting.repeats, {"loading": timed(partial(setting.synchronised, load))})
    yield Row(f"a model of {n_bytes / 1e9:.1f} GB", found, facts={"bytes": n_bytes})


# By what each is worth where there is time for some only.
MEASUREMENTS: dict[str, Callable[[Setting], Iterator[Row]]] = {
    made.__name__: made for made in (growth, together, launches, graph, scan, pullback, lists, loading, compiled)
}


def gpu(repeats: int, smoke: bool) -> list[Row] | str:
    """All of these; why there are none, in words, where there is no GPU."""
    if not (smoke or torch.cuda.is_available()):
        return "no GPU here"
    setting = Setting(repeats, smoke)
    return [row for measure in MEASUREMENTS.values() for row in measure(setting)]


def _counted(setting: Setting, size: int) -> tuple[int, int, int]:
    """The levels of a tree, and the passes and the tokens of all paths that it takes."""
    trees = []
    done = passes(setting.model, lambda: trees.append(grown(setting.model, setting.levels, size).tree))
    (tree,) = trees
    if len(tree) != size:
        raise RuntimeError(f"the tree has {len(tree)} nodes instead of {size}")
    return int(tree.depth.max()), len(done), sum(each.tokens for each in done)


def _copy_bandwidth(setting: Setting, n_bytes: int) -> float:
    """GB/s read and written, on a copy of so many bytes."""
    source = torch.zeros(n_bytes, dtype=torch.uint8, device=setting.device)
    target = torch.empty_like(source)
    setting.synchronised(lambda: target.copy_(source))
    seconds = timed(partial(setting.synchronised, lambda: [target.copy_(source) for _ in range(10)]))() / 10
    return 2 * n_bytes / seconds / 1e9


def _product_rate(setting: Setting, size: int) -> float:
    """TFLOP/s of the product of two square matrices in bfloat16."""
    a = torch.randn(size, size, dtype=torch.bfloat16, device=setting.device)
    setting.synchronised(lambda: a @ a)
    seconds = timed(partial(setting.synchronised, lambda: [a @ a for _ in range(10)]))() / 10
    return 2 * size**3 / seconds / 1e12


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", default=list(MEASUREMENTS), metavar="NAME")
    parser.add_argument("--rows", type=Path, required=True, metavar="FILE")
    parser.add_argument("--repeats", type=int, default=3, metavar="N")
    parser.add_argument("--smoke", action="store_true")
    options = parser.parse_args()
    setting = Setting(options.repeats, options.smoke)
    with options.rows.open("a", encoding="utf-8") as file:
        for name in options.names:
            for row in MEASUREMENTS[name](setting):
                # What is to be reached is meant for the real sizes.
                row = replace(row, reach=None) if options.smoke else row
                file.write(json.dumps({"measurement": name} | row.to_dict(), ensure_ascii=False) + "\n")
                file.flush()
                print(f"{name}: {row.what}: {row.measured}", flush=True)


if __name__ == "__main__":
    main()
