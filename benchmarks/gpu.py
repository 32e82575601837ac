"""Growth on a GPU: Gemma-2B's shape with random weights in bfloat16, against the card's bandwidth and arithmetic."""

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from transformers import AutoModelForCausalLM, GemmaConfig

from benchmarks.material import passes
from benchmarks.measuring import Reach, Row, side_by_side, timed
from multitool.model.ghost_prompt import GhostPrompt
from multitool.model.passes import Continuations
from multitool.trees.growth import Growth, grow

_SHAPE = {
    "vocab_size": 256_000, "hidden_size": 2048, "intermediate_size": 16_384, "num_hidden_layers": 18,
    "num_attention_heads": 8, "num_key_value_heads": 1, "head_dim": 256,
}  # fmt: skip
_TINY = {
    "vocab_size": 500, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1, "head_dim": 16,
}  # fmt: skip
_CUTOFF = 1e-300  # as good as none: the number of nodes is what ends the growth


@dataclass(frozen=True)
class _Work:
    """What a growth asked of the model."""

    levels: int
    passes: int
    tokens: int


def gpu(repeats: int, smoke: bool) -> list[Row] | str:
    """Trees of Gemma-2B's shape; why there are none, in words, where there is no GPU."""
    if not (smoke or torch.cuda.is_available()):
        return "no GPU here"
    device = "cpu" if smoke else "cuda"
    sizes = (5, 10, 20) if smoke else (500, 2000, 5000)
    levels = 6 if smoke else 25
    model = _random_model(_TINY if smoke else _SHAPE, device)
    factor = _sharpened(model, levels, sizes[-1])
    work = {size: _counted(model, levels, size) for size in sizes}
    runs = {f"{size} nodes": timed(partial(_synchronised, partial(_grown, model, levels, size), device))
            for size in sizes}
    runs |= {"copy": partial(_copy_bandwidth, device, 1 << (20 if smoke else 31)),
             "product": partial(_product_rate, device, 64 if smoke else 8192)}
    found = side_by_side(repeats, runs)

    n_parameters = sum(parameter.numel() for parameter in model.parameters())
    weight_bytes = sum(parameter.nbytes for parameter in model.parameters())
    rows = []
    for size in sizes:
        seconds, done = found[f"{size} nodes"], work[size]
        facts = {"nodes": size, "levels": done.levels, "passes": done.passes, "tokens": done.tokens, "factor": factor}
        reach = Reach("at most", 0.5, of="growth") if size == 5000 else None
        rows.append(Row(f"{size:,} nodes: {done.levels} levels, {done.passes} passes, {done.tokens:,} tokens",
                        {"growth": seconds}, reach=reach, facts=facts))
        rows.append(_share("weights read", [weight_bytes * done.passes / s / 1e9 for s in seconds],
                           "copy", found["copy"], "GB/s", size))
        rows.append(_share("arithmetic", [2 * n_parameters * size / s / 1e12 for s in seconds],
                           "product", found["product"], "TFLOP/s", size))
    return rows


def _share(what: str, reached: list[float], limit: str, rates: list[float], unit: str, size: int) -> Row:
    return Row(f"{size:,} nodes, {what}: share of the card's rate", {what: reached, limit: rates}, unit=unit,
               ratio=[a / b for a, b in zip(reached, rates, strict=True)])


def _random_model(shape: dict[str, int], device: str):
    """A Gemma in bfloat16, the same one every time on the same device."""
    torch.manual_seed(0)
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(GemmaConfig(**shape), dtype=torch.bfloat16)
    return model.eval().requires_grad_(False)


def _sharpened(model, levels: int, size: int) -> float:
    """Make the model's logits so far apart that its ``size`` most probable nodes reach about so many levels.

    Random weights make all next tokens nearly as probable, and the last token more so than others, since input and
    output embeddings are one matrix. Random signs in the final norm end the latter, a factor there the former.
    Returns the factor: found by doubling, then by bisection.
    """
    weight = model.get_decoder().norm.weight
    signs = torch.randint(0, 2, weight.shape, generator=torch.Generator().manual_seed(1)).to(weight) * 2 - 1

    def deep_enough(factor: float) -> bool:
        weight.copy_(factor * signs - 1)  # Gemma's norm multiplies by 1 + weight
        tree = _grown(model, levels, size).tree
        # A tree that is smaller has next tokens whose probability is rounded to 0: sharper still.
        return len(tree) < size or int(tree.depth.max()) >= levels - 1

    low, high = 0.0, 1.0
    while not deep_enough(high):
        low, high = high, 2 * high
    for _ in range(5):
        middle = (low + high) / 2
        low, high = (low, middle) if deep_enough(middle) else (middle, high)
    deep_enough(high)
    return high


def _grown(model, levels: int, size: int) -> Growth:
    E = model.get_input_embeddings().weight
    token_ids = np.random.default_rng(0).choice(len(E), 12, replace=False)
    prompt = GhostPrompt(tuple(token_ids.tolist()), position=5)
    source = Continuations(model, prompt, E[7].float().cpu(), 5, levels)
    for growth in grow(source, cutoff=_CUTOFF, max_depth=levels, max_nodes=size):  # noqa: B007
        pass
    return growth


def _counted(model, levels: int, size: int) -> _Work:
    grown = []
    done = passes(model, lambda: grown.append(_grown(model, levels, size).tree))
    (tree,) = grown
    if len(tree) != size:
        raise RuntimeError(f"the tree has {len(tree)} nodes instead of {size}")
    return _Work(int(tree.depth.max()), len(done), sum(each.tokens for each in done))


def _synchronised(run, device: str) -> None:
    run()
    if device == "cuda":
        torch.cuda.synchronize()


def _copy_bandwidth(device: str, n_bytes: int) -> float:
    """GB/s read and written, on a copy of so many bytes."""
    source = torch.zeros(n_bytes, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    _synchronised(lambda: target.copy_(source), device)
    seconds = timed(partial(_synchronised, lambda: [target.copy_(source) for _ in range(10)], device))() / 10
    return 2 * n_bytes / seconds / 1e9


def _product_rate(device: str, size: int) -> float:
    """TFLOP/s of the product of two square matrices in bfloat16."""
    a = torch.randn(size, size, dtype=torch.bfloat16, device=device)
    _synchronised(lambda: a @ a, device)
    seconds = timed(partial(_synchronised, lambda: [a @ a for _ in range(10)], device))() / 10
    return 2 * size**3 / seconds / 1e12
