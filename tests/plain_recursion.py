"""The definition tree by plain recursion, straight from the formulas: one full forward pass per node, no cache.

Slow and obvious on purpose; the engine's trees are compared with it. The ghost is made in the other way there is:
by writing its vector over the placeholder's row in a copy of the model.
"""

import copy
from collections.abc import Collection, Sequence

import torch

from multitool.model.residual_stream import model_layers

Path = tuple[int, ...]  # token ids from the prompt down to a node


class PlainRecursion:
    """A model with a ghost in it, asked one path at a time."""

    def __init__(self, model, token_ids: Sequence[int], position: int, v: torch.Tensor):
        assert token_ids.count(token_ids[position]) == 1, "the row of another token in the prompt would change too"
        self.model = copy.deepcopy(model)
        self.prompt = list(token_ids)
        self.placeholder = token_ids[position]
        with torch.no_grad():
            # Where input and output embeddings are one matrix this changes the placeholder's output row too, but
            # that output is masked below.
            self.model.get_input_embeddings().weight[self.placeholder] = v.to(self.model.dtype)
        self.forward_passes = 0

    def next_tokens(self, path: Path, top_k: int) -> list[tuple[int, float]]:
        """The ``top_k`` most probable tokens after the prompt and ``path``, by falling probability."""
        self.forward_passes += 1
        with torch.no_grad():
            token_ids = torch.tensor([self.prompt + list(path)], device=self.model.device)
            logits = self.model(token_ids, use_cache=False).logits[0, -1]
        logits[self.placeholder] = -torch.inf
        best = logits.softmax(dim=0).topk(top_k)
        return list(zip(best.indices.tolist(), best.values.tolist(), strict=True))

    def tree(
        self, *, top_k: int, cutoff: float, max_depth: int, ends: Collection[int] = ()
    ) -> dict[Path, tuple[float, float]]:
        """(probability, cumulative probability) of every node, by its path."""
        nodes: dict[Path, tuple[float, float]] = {}

        def expand(path: Path, reached: float) -> None:
            if len(path) == max_depth or (path and path[-1] in ends):
                return
            for token_id, prob in self.next_tokens(path, top_k):
                if reached * prob >= cutoff:
                    nodes[(*path, token_id)] = (prob, reached * prob)
                    expand((*path, token_id), reached * prob)

        expand((), 1.0)
        return nodes


def trimmed(nodes: dict[Path, tuple[float, float]], cutoff: float) -> dict[Path, tuple[float, float]]:
    return {path: node for path, node in nodes.items() if node[1] >= cutoff}


def most_probable(nodes: dict[Path, tuple[float, float]], n: int) -> dict[Path, tuple[float, float]]:
    """The ``n`` nodes of highest cumulative probability; shorter paths first where two are equal."""
    best = sorted(nodes, key=lambda path: (-nodes[path][1], len(path)))[:n]
    return {path: nodes[path] for path in best}


def safe_cut(nodes: dict[Path, tuple[float, float]], at_least: int, at_most: int) -> int:
    """How many nodes to keep so that rounding cannot change which: before the widest gap in that range."""
    ranked = sorted((cumulative for _, cumulative in nodes.values()), reverse=True)
    return max(range(at_least, at_most + 1), key=lambda n: ranked[n - 1] / ranked[n])


def cutoff_after(nodes: dict[Path, tuple[float, float]], n: int) -> float:
    """A cutoff that keeps exactly the ``n`` most probable nodes, in the middle of the gap after them."""
    ranked = sorted((cumulative for _, cumulative in nodes.values()), reverse=True)
    return (ranked[n - 1] * ranked[n]) ** 0.5


def as_paths(tree) -> dict[Path, tuple[float, float]]:
    """A ``multitool.trees.tree.Tree`` in the same form; two nodes of one path would be a mistake of the tree."""
    nodes = {}
    for node in range(len(tree)):
        path = tuple(int(tree.token_id[i]) for i in tree.path(node))
        assert path not in nodes, f"{path} stands in the tree twice"
        nodes[path] = (float(tree.prob[node]), float(tree.cumulative_prob[node]))
    return nodes


def assert_same_tree(tree, expected: dict[Path, tuple[float, float]], tolerance: float = 1e-5) -> None:
    """The same set of paths, every probability within ``tolerance``, every cumulative one within as much of itself
    for each token of its path."""
    nodes = as_paths(tree)
    assert nodes.keys() == expected.keys()
    for path, (prob, cumulative) in expected.items():
        assert abs(nodes[path][0] - prob) <= tolerance, path
        assert abs(nodes[path][1] - cumulative) <= tolerance * len(path) + 1e-9, path


def edit_stream(model, hook: str, edited) -> None:
    """Have a model's own code, at one place, go on with ``edited(stream)``: (batch, tokens, d_model) each."""
    if hook == "hook_embed":
        module = model.get_input_embeddings()
        embed = module.forward
        module.forward = lambda ids: edited(embed(ids))
        return
    layer = model_layers(model)[int(hook.split(".")[1])]
    run = layer.forward
    if hook.endswith("pre"):
        layer.forward = lambda hidden_states, *args, **more: run(edited(hidden_states), *args, **more)
    else:
        def forward(*args, **more):
            output = run(*args, **more)
            return (edited(output[0]), *output[1:]) if isinstance(output, tuple) else edited(output)

        layer.forward = forward
