"""How fast definition trees grow: against the plain recursion, against the machine's limit, against stock parts."""

import time
from collections.abc import Callable, Iterable
from functools import partial

import numpy as np
import torch
from torch import nn

from benchmarks.material import Pass, demo_model, grown, passes, prepared
from benchmarks.measuring import PeakRise, Reach, Row, in_child, ratios, side_by_side, timed
from multitool.model.passes import ghost_embeddings
from multitool.model.tasks import GrowthTask
from multitool.trees.growth import Next, grow
from multitool.trees.tree import NO_TREE, Tree
from tests.plain_recursion import Path, PlainRecursion, as_paths, assert_same_tree

_MOST_BEAMS = 128


def recursion(repeats: int, smoke: bool) -> list[Row]:
    """The engine against the plain recursion: one full forward pass per node, no cache."""
    plain = _plain_recursion(prepared(0.5).task)
    if smoke:
        return [_whole(plain, 2e-2, repeats, warm=False), _sampled(plain, 1e-2, repeats, n_paths=3, warm=False)]
    return [
        _whole(plain, 1e-2, repeats),
        _whole(plain, 2e-3, repeats),
        _sampled(plain, 2e-4, repeats, reach=Reach("at least", 25)),
        _sampled(plain, 5e-5, repeats, reach=Reach("at least", 35)),
    ]


def _plain_recursion(task: GrowthTask) -> PlainRecursion:
    return PlainRecursion(demo_model(), list(task.prompt.token_ids), task.prompt.position, torch.from_numpy(task.v))


def _whole(plain: PlainRecursion, cutoff: float, repeats: int, *, warm: bool = True) -> Row:
    """The recursion runs whole; all nodes are compared."""
    task = prepared(cutoff).task
    ends = set() if task.end_ids is None else set(task.end_ids.tolist())
    tree, expected = NO_TREE, {}

    def by_engine() -> None:
        nonlocal tree
        tree = grown(task).tree

    def by_recursion() -> None:
        nonlocal expected
        expected = plain.tree(top_k=task.top_k, cutoff=task.cutoff, max_depth=task.max_depth, ends=ends)

    seconds = side_by_side(repeats, {"recursion": timed(by_recursion), "engine": timed(by_engine)}, warm=warm)
    assert_same_tree(tree, expected)
    n = len(tree)
    return Row(
        f"cutoff {cutoff:g}, {n} nodes",
        seconds,
        ratio=ratios(seconds, "recursion", "engine"),
        facts={"nodes": n, "same_tree": True, "compared": "all nodes"},
    )


def _sampled(
    plain: PlainRecursion, cutoff: float, repeats: int, *, n_paths: int = 40, reach: Reach | None = None,
    warm: bool = True,
) -> Row:
    """The recursion's time is that of a random sample of its forward passes, scaled; those paths are compared."""
    task = prepared(cutoff).task
    tree = grown(task).tree
    nodes = as_paths(tree)
    followed = [path for path, end in zip(nodes, tree.end, strict=True) if not end and len(path) < task.max_depth]
    followed.append(())  # the prompt
    children: dict[Path, dict[int, float]] = {path: {} for path in (*nodes, ())}
    for path, (prob, _) in nodes.items():
        children[path[:-1]][path[-1]] = prob
    random, compared = np.random.default_rng(0), set()

    def by_recursion() -> float:
        chosen = [followed[i] for i in random.choice(len(followed), min(n_paths, len(followed)), replace=False)]
        started = time.perf_counter()
        answers = [plain.next_tokens(path, task.top_k) for path in chosen]
        seconds = time.perf_counter() - started
        for path, answer in zip(chosen, answers, strict=True):
            reached = nodes[path][1] if path else 1.0
            kept = {token_id: prob for token_id, prob in answer if reached * prob >= cutoff}
            assert kept.keys() == children[path].keys(), f"after {path} the recursion goes on otherwise"
            assert all(abs(children[path][token_id] - prob) <= 1e-5 for token_id, prob in kept.items()), path
        compared.update(chosen)
        return seconds * len(followed) / len(chosen)

    runs = {"recursion": by_recursion, "engine": timed(lambda: grown(task))}
    seconds = side_by_side(repeats, runs, warm=warm)
    what_was_compared = f"the children of {len(compared)} of {len(followed)} paths"
    return Row(
        f"cutoff {cutoff:g}, {len(tree)} nodes; recursion sampled, {what_was_compared} compared",
        seconds,
        ratio=ratios(seconds, "recursion", "engine"),
        reach=reach,
        facts={"nodes": len(tree), "forward_passes": len(followed), "same_tree": True, "compared": what_was_compared},
    )


def floor(repeats: int, smoke: bool) -> list[Row]:
    """Growth against the model's matrix products alone, and what a node costs in small and in large trees."""
    cutoffs = (2e-2, 1e-2, 5e-3) if smoke else (2e-4, 1e-4, 5e-5, 1.6e-5, 4.9e-6)
    model, batches = demo_model(), (8,) if smoke else (64, 128, 256, 512)
    tasks = [prepared(cutoff).task for cutoff in cutoffs]
    sizes: dict[float, int] = {}  # by cutoff

    def grow_one(task: GrowthTask) -> None:
        sizes[task.cutoff] = len(grown(task).tree)

    runs: dict[str, Callable[[], float]] = {}
    for task in tasks:
        done = passes(model, partial(grow_one, task))  # which also warms up
        runs[f"growth {task.cutoff}"] = timed(partial(grow_one, task))
        runs[f"best {task.cutoff}"] = partial(seconds_per_token, model, batches)
        runs[f"same {task.cutoff}"] = timed(partial(products, model, done))
    found = side_by_side(repeats, runs, warm=False)

    rows = []
    for cutoff in cutoffs:
        size, growth = sizes[cutoff], found[f"growth {cutoff}"]
        best = {"growth": growth, "products": [seconds * size for seconds in found[f"best {cutoff}"]]}
        same = {"growth": growth, "products": found[f"same {cutoff}"]}
        what = f"{size:,} nodes (cutoff {cutoff:g}) against the products"
        rows.append(Row(f"{what} at the best batch", best, ratio=ratios(best, *best),
                        reach=Reach("at most", 1.3) if size >= 500 else None, facts={"nodes": size}))
        rows.append(Row(f"{what} at its own batches", same, ratio=ratios(same, *same), facts={"nodes": size}))
    per_node = {f"{size:,} nodes": [seconds / size for seconds in found[f"growth {cutoff}"]]
                for cutoff, size in sizes.items()}
    first, *_, largest = per_node
    rows.append(Row(f"seconds per node; ratio: {largest} to {first}", per_node, ratio=ratios(per_node, largest, first),
                    reach=Reach("at most", 1.1)))
    return rows


def seconds_per_token(model, batches: tuple[int, ...], paths_per_token: float = 1.0) -> float:
    """Of the model's matrix products alone (all linear layers, and the output head per path), at the best of the
    batches."""
    return min(
        timed(partial(products, model, [Pass(round(batch * paths_per_token), batch)]), at_least=0.3)() / batch
        for batch in batches
    )


@torch.inference_mode()
def products(model, done: Iterable[Pass]) -> None:
    """The matrix products of such passes and nothing else: all linear layers, and the output head per path."""
    head = model.get_output_embeddings()
    linear = [module for module in model.modules() if isinstance(module, nn.Linear) and module is not head]
    widths = {module.in_features for module in linear}
    for each in done:
        inputs = {width: torch.ones(each.tokens, width) for width in widths}
        for module in linear:
            module(inputs[module.in_features])
        head(inputs[head.in_features][: each.paths])


def stock(repeats: int, smoke: bool) -> list[Row]:
    """Growth against what there is ready-made: beam search, and a loop over the levels without a cache."""
    task, model = prepared(2e-2 if smoke else 2e-4).task, demo_model()
    tree = grown(task).tree
    leaves, depth = int(tree.is_leaf.sum()), int(tree.depth.max())
    beams = min(_MOST_BEAMS, leaves)
    by_beams: list[list[int]] = []
    of_loop = NO_TREE

    def by_beam_search() -> None:
        by_beams[:] = _beam_search(model, task, beams, depth)

    def by_loop() -> None:
        nonlocal of_loop
        # Like the engine's in all but how next tokens are computed.
        for growth in grow(_WithoutCache(model, task), cutoff=task.cutoff, max_depth=task.max_depth,
                           max_nodes=task.max_nodes, ends=task.ends):
            of_loop = growth.tree

    seconds = side_by_side(repeats, {
        "engine": timed(lambda: grown(task)), "beam search": timed(by_beam_search), "loop": timed(by_loop),
    }, warm=not smoke)  # fmt: skip
    assert_same_tree(tree, as_paths(of_loop))
    covered = _covered(tree, by_beams)
    limit = f" (at most {_MOST_BEAMS}; the tree has {leaves} leaves)" if beams < leaves else ", one per leaf"
    return [
        Row(
            f"transformers' beam search, {beams} beams{limit}, {depth} tokens; it finds {covered} of the tree's "
            f"{len(tree)} nodes",
            {name: seconds[name] for name in ("beam search", "engine")},
            ratio=ratios(seconds, "beam search", "engine"),
            facts={"nodes": len(tree), "leaves": leaves, "beams": beams, "tokens": depth, "nodes_found": covered},
        ),
        Row(
            f"level by level, each path in full, 64 at once, no cache; the same {len(tree)} nodes",
            {name: seconds[name] for name in ("loop", "engine")},
            ratio=ratios(seconds, "loop", "engine"),
            facts={"nodes": len(tree), "same_tree": True, "compared": "all nodes"},
        ),
    ]


@torch.inference_mode()
def _beam_search(model, task: GrowthTask, beams: int, depth: int) -> list[list[int]]:
    """The token ids of each beam, as ``generate`` finds them."""
    embeddings = ghost_embeddings(model, task.prompt, torch.from_numpy(task.v))
    found = model.generate(
        inputs_embeds=embeddings,
        attention_mask=torch.ones(embeddings.shape[:2], dtype=torch.long),
        do_sample=False,
        num_beams=beams,
        num_return_sequences=beams,
        max_new_tokens=depth,
        pad_token_id=model.get_input_embeddings().weight.shape[0] - 1,
    )
    return found.tolist()


def _covered(tree: Tree, beams: list[list[int]]) -> int:
    """How many of the tree's paths are beginnings of beams."""
    beginnings = {tuple(beam[:length]) for beam in beams for length in range(1, len(beam) + 1)}
    return sum(path in beginnings for path in as_paths(tree))


class _WithoutCache:
    """Next tokens (a ``growth.NextTokens``) with every path run in full, 64 at once."""

    def __init__(self, model, task: GrowthTask):
        self._model, self._task = model, task
        self._start = ghost_embeddings(model, task.prompt, torch.from_numpy(task.v))
        self._paths = np.empty((1, 0), dtype=np.int64)
        self.entropies: np.ndarray | None = None

    def start(self, paths: np.ndarray | None = None, least: np.ndarray | None = None) -> Next:
        return self._answer()

    def advance(self, rows: np.ndarray, token_ids: np.ndarray, least: np.ndarray | None = None) -> Next:
        self._paths = np.column_stack([self._paths[rows], token_ids])
        return self._answer()

    @torch.inference_mode()
    def _answer(self) -> Next:
        ids, probs = [], []
        for paths in torch.from_numpy(self._paths).split(64):
            followers = self._model.get_input_embeddings()(paths)
            embeddings = torch.cat([self._start.expand(len(paths), -1, -1), followers], dim=1)
            logits = self._model(inputs_embeds=embeddings, use_cache=False, logits_to_keep=1).logits[:, -1]
            logits[:, self._task.prompt.placeholder_id] = -torch.inf
            best = logits.softmax(dim=-1).topk(self._task.top_k)
            ids.append(best.indices.numpy())
            probs.append(best.values.numpy())
        rows = np.repeat(np.arange(len(self._paths)), self._task.top_k)
        return Next(rows, np.concatenate(ids).ravel(), np.concatenate(probs).ravel(), np.zeros(len(self._paths)))


def memory(repeats: int, smoke: bool) -> list[Row]:
    """How far memory rises above the loaded model while a tree grows."""
    found = [in_child(_rise_of_growth, *((1e-2, 10) if smoke else (1e-6, 5000))) for _ in range(repeats)]
    rises, (n_nodes, *_) = zip(*found, strict=True)
    return [Row(f"{n_nodes:,} nodes, above the loaded model", {"rise": list(rises)}, unit="MB",
                reach=Reach("at most", 1500, of="rise", always=True), facts={"nodes": n_nodes})]


def _rise_of_growth(cutoff: float, max_nodes: int) -> tuple[float, int]:
    """In megabytes; and how many nodes the tree has."""
    grown(prepared(5e-2).task)  # loads the model, and whatever the first growth keeps
    task = prepared(cutoff, max_nodes).task
    with PeakRise() as peak:
        tree = grown(task).tree
    return peak.megabytes, len(tree)
