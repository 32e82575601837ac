"""How long work takes of a GPU, from the rows that ``benchmarks.gpu`` wrote: ``python -m benchmarks.gpu_fit FILE``."""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.optimize import nnls

from multitool.page.gpu_times import ASSUMED, GpuTimes


def fitted(rows: Sequence[Mapping], card: str) -> GpuTimes:
    """What the rows tell; where they tell nothing, what was assumed.

    Args:
        rows: as ``Row.to_dict`` gives them, each with its ``measurement``.

    Trees: seconds = level · levels + node · nodes, neither below 0, with the least sum of squared relative errors. All
    else is the median of the first row that tells it.
    """
    trees = [
        (row["facts"]["levels"], row["facts"]["nodes"], row["measured"]["growth"]["median"])
        for row in rows if row["measurement"] == "growth" and "levels" in row["facts"]
    ]
    found: dict[str, float] = {}
    if len(trees) > 1:
        levels, nodes, seconds = np.array(trees, dtype=np.float64).T
        (found["level"], found["node"]), _ = nnls(np.stack([levels, nodes], axis=1) / seconds[:, None],
                                                  np.ones(len(trees)))
    for name, measurement, what, count in (
        ("scanned", "scan", "scan", "tokens"),
        ("backward_pass", "pullback", "together", "directions"),
        ("bytes_per_second", "loading", "loading", "bytes"),
    ):
        for row in rows:
            if row["measurement"] == measurement and name not in found:
                each = row["measured"][what]["median"] / row["facts"][count]
                found[name] = 1 / each if name == "bytes_per_second" else each
    rounded: dict[str, Any] = {name: float(f"{value:.2g}") for name, value in found.items()}
    return replace(ASSUMED, card=card, **rounded)


def as_table(times: GpuTimes) -> str:
    """Ready to be pasted into ``multitool/page/gpu_times.py``."""
    assumed = asdict(ASSUMED)
    lines = [
        f"    {name}={value!r},{'  # assumed' if value == assumed[name] else ''}"
        for name, value in asdict(times).items()
    ]
    return "\n".join(["GpuTimes(", *lines, ")"])


def main() -> None:
    rows = [json.loads(line) for line in Path(sys.argv[1]).read_text(encoding="utf-8").splitlines()]
    card = torch.cuda.get_device_name() if torch.cuda.is_available() else "a processor: of no use"
    print(as_table(fitted(rows, card)))


if __name__ == "__main__":
    main()
