"""How fast token lists are, and what they take of memory, against one product of the matrix and a vector."""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from benchmarks.material import DTYPES, GEMMA_2B, SMALL, compute_statistics, demo_matrix, described, random_matrix
from benchmarks.measuring import PeakRise, Reach, Row, in_child, ratios, side_by_side, timed
from multitool.vectors.embedding import EmbeddingSpace
from multitool.vectors.ranking import token_list

_ROWS = 1024  # converted at once


def lists(repeats: int, smoke: bool) -> list[Row]:
    """A warm token list against ``E @ v``; the memory of the first statistics and of a warm list."""
    shape = SMALL if smoke else GEMMA_2B
    rows = [speed("SmolLM2", demo_matrix(), repeats, smoke)]
    for dtype in DTYPES:
        rows.append(speed("Gemma-2B's shape", random_matrix(shape, dtype), repeats, smoke))
    for dtype in DTYPES:
        # Time and again: how freed memory lies, and whether it can be used again, differs from process to process.
        make = partial(random_matrix, shape, dtype)
        found = [rises(make) if smoke else in_child(rises, make) for _ in range(repeats)]
        rows += memory_rows(f"Gemma-2B's shape, {str(dtype).removeprefix('torch.')}", found)
    return rows


def speed(name: str, E: Tensor, repeats: int, smoke: bool) -> Row:
    """A warm list against one product."""
    space, v, at_least = EmbeddingSpace(E), E[5].clone(), 0.0 if smoke else 0.5

    @torch.inference_mode()
    def product() -> None:
        E @ v

    @torch.inference_mode()
    def conversion() -> None:
        part = torch.empty_like(E[:_ROWS], dtype=torch.float32)
        for rows in E.split(_ROWS):
            part[: len(rows)].copy_(rows)

    runs = {
        "list": timed(partial(token_list, space, v.float()), at_least=at_least),
        "E @ v": timed(product, at_least=at_least),
    }
    if E.dtype != torch.float32:
        runs["E to float32"] = timed(conversion, at_least=at_least)
    seconds = side_by_side(repeats, runs)
    return Row(described(name, E), seconds, ratio=ratios(seconds, "list", "E @ v"), reach=Reach("at most", 1.5))


def rises(make: Callable[[], Tensor]) -> tuple[float, float, float]:
    """In megabytes: a matrix, and how far memory rises above it for the statistics and then for a list."""
    E = make()
    space, v = EmbeddingSpace(E), E[5].float()
    with PeakRise() as statistics:
        compute_statistics(space)
    token_list(space, v)
    with PeakRise() as warm:
        token_list(space, v)
    return E.nbytes / 1e6, statistics.megabytes, warm.megabytes


def memory_rows(name: str, found: Sequence[tuple[float, float, float]]) -> list[Row]:
    """What ``rises`` found, repeat by repeat."""
    matrix, *risen = map(list, zip(*found, strict=True))
    rows = []
    for what, rise in zip(("the statistics' first computation", "a warm list"), risen, strict=True):
        measured = {"rise": rise, "matrix": matrix}
        rows.append(Row(f"memory of {what}, {name}", measured, unit="MB", ratio=ratios(measured, "rise", "matrix"),
                        reach=Reach("at most", 0.1, always=True)))
    return rows
