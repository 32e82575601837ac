"""Measure this tool on the machine at hand.

    python -m benchmarks [NAME ...] [--repeats N] [--json FILE] [--markdown FILE] [--smoke]
"""

import argparse
import json
import os
import platform
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import torch
import transformers

from benchmarks.bulk import bulk
from benchmarks.drawing import drawing
from benchmarks.finding import finding
from benchmarks.gemma import gemma
from benchmarks.gpu import gpu
from benchmarks.lists import lists
from benchmarks.measuring import Row
from benchmarks.pullback import pullback
from benchmarks.serving import serving
from benchmarks.starting import starting
from benchmarks.steering import steering
from benchmarks.tables import as_markdown, as_text
from benchmarks.trees import floor, memory, recursion, stock

# Each is given the number of repeats and whether only to try the code, and answers with rows, or why it has none.
BENCHMARKS: dict[str, Callable[[int, bool], list[Row] | str]] = {
    made.__name__: made for made in (
        recursion, floor, stock, bulk, steering, lists, pullback, finding, memory, starting, drawing, serving,
        gemma, gpu
    )
}


def main() -> int:
    options = _options()
    # No bars and warnings between the tables.
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    machine = _machine()
    print(", ".join(f"{name} {value}" for name, value in machine.items()), flush=True)
    found: dict[str, list[Row] | str | Exception] = {}
    for name in options.names or BENCHMARKS:
        started = time.monotonic()
        found[name] = _measured(name, 1 if options.smoke else options.repeats, options.smoke)
        print(f"\n## {name} ({time.monotonic() - started:.0f} s)\n\n{_shown(found[name], as_text)}", flush=True)
        # Written anew after each benchmark: a run of an hour that is stopped keeps what there is.
        if options.json:
            _write_json(options, machine, found)
        if options.markdown:
            tables = [f"## {each}\n\n{_shown(rows, as_markdown)}\n" for each, rows in found.items()]
            options.markdown.write_text("\n".join(tables), encoding="utf-8")
    return int(any(isinstance(rows, Exception) for rows in found.values()))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.partition("\n")[0])
    add = parser.add_argument
    add("names", nargs="*", metavar="NAME", help=f"which to run (default: all): {', '.join(BENCHMARKS)}")
    add("--repeats", type=int, default=5, metavar="N", help="how often each figure is measured (default: %(default)s)")
    add("--json", type=Path, metavar="FILE", help="write all figures")
    add("--markdown", type=Path, metavar="FILE", help="write the tables")
    add("--smoke", action="store_true", help="only try whether everything runs; the figures say nothing")
    options = parser.parse_args()
    unknown = [name for name in options.names if name not in BENCHMARKS]
    if unknown:
        parser.error(f"there is no benchmark {unknown[0]!r}; there are {', '.join(BENCHMARKS)}.")
    if options.repeats < 1:
        parser.error(f"--repeats is {options.repeats}; it must be at least 1.")
    return options


def _measured(name: str, repeats: int, smoke: bool) -> list[Row] | str | Exception:
    """The rows of a benchmark, why it has none, or what went wrong: the others can still be run."""
    try:
        rows = BENCHMARKS[name](repeats, smoke)
    except Exception as error:
        traceback.print_exc()
        return error
    # What is to be reached is meant for the real sizes.
    return [replace(row, reach=None) for row in rows] if smoke and not isinstance(rows, str) else rows


def _shown(rows: list[Row] | str | Exception, as_table: Callable[[list[Row]], str]) -> str:
    if isinstance(rows, Exception):
        return f"FAILED: {type(rows).__name__}: {rows}"
    return rows if isinstance(rows, str) else as_table(rows)


def _write_json(options: argparse.Namespace, machine: dict, found: dict) -> None:
    def plain(rows: list[Row] | str | Exception) -> dict:
        if isinstance(rows, list):
            return {"rows": [row.to_dict() for row in rows]}
        return {"skipped" if isinstance(rows, str) else "failed": str(rows) or type(rows).__name__}

    written = {
        "machine": machine,
        "repeats": 1 if options.smoke else options.repeats,
        "smoke": options.smoke,
        "benchmarks": {name: plain(rows) for name, rows in found.items()},
    }
    options.json.write_text(json.dumps(written, ensure_ascii=False, indent=1), encoding="utf-8")


def _machine() -> dict:
    """What the figures were measured on. The load tells whether something else ran at the time."""
    facts = {
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)),
        "threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
    }
    return facts | ({"gpu": torch.cuda.get_device_name()} if torch.cuda.is_available() else {})


def _cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


if __name__ == "__main__":
    sys.exit(main())
