"""Stored results ("golden files") in tests/golden: how they are compared, and how they are renewed.

A test gives the fixture ``golden`` a name and what it found; it fails where that differs from the stored file, and says
which key, what was stored and what is there now. Where a difference is meant, store the new results and look at them:

    python -m pytest tests/golden tests/app/test_golden_app.py tests/app/test_golden_page.py --renew
    git diff --stat tests/golden

Timings, versions and the places of temporary folders are no results and are left out. Some files hold what other
packages say: the layout of help/ is argparse's (Python 3.11), saes.json is of sae-lens' registry, app/api.json of
Gradio.
"""

import difflib
import json
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from multitool import __version__

FOLDER = Path(__file__).parent / "golden"
# Float32 arithmetic in another order (other threads, another processor) changes the last digits.
ABSOLUTE, RELATIVE = 1e-5, 1e-3
_FRACTION = re.compile(r"(-?\d+\.\d+(?:e-?\d+)?)")
_LEFT_OUT = {"seconds", "version"}
_DIGITS = 9
_WIDTH = 118
_MOST_TOLD = 25


class Golden:
    """Compares results with the stored ones, or stores them."""

    def __init__(self, renew: bool):
        self.renew = renew

    def __call__(self, name: str, value, hidden: Mapping[str, str] | None = None) -> None:
        """Compare ``value`` with the file of that name: a text with NAME.txt, all else with NAME.json.

        Args:
            hidden: texts that differ from run to run, such as a temporary folder, and what stands for them.
        """
        value = cleaned(value, hidden or {})
        is_text = isinstance(value, str)
        path = FOLDER / f"{name}.{'txt' if is_text else 'json'}"
        if self.renew:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(value if is_text else written(value) + "\n", encoding="utf-8")
            return
        assert path.exists(), f"There is no golden file {path.relative_to(FOLDER)}; --renew stores it."
        stored = path.read_text(encoding="utf-8")
        found = list(_lines(stored, value) if is_text else differences(json.loads(stored), value))
        if found:
            told = "\n".join(found[:_MOST_TOLD]) + "\n…" * (len(found) > _MOST_TOLD)
            pytest.fail(
                f"{path.relative_to(FOLDER.parent)} and the present result differ ({len(found)} lines of differences; "
                f"if that is meant: --renew):\n{told}",
                pytrace=False,
            )


def cleaned(value, hidden: Mapping[str, str]):
    """As JSON has it, without what differs from run to run."""
    if isinstance(value, Mapping):
        return {cleaned(str(key), hidden): cleaned(of, hidden) for key, of in value.items() if key not in _LEFT_OUT}
    if isinstance(value, (list, tuple)):
        return [cleaned(item, hidden) for item in value]
    if isinstance(value, str):
        for text, instead in hidden.items():
            value = value.replace(text, instead)
        value = value.replace(f"sae-feature-multitool {__version__}", "sae-feature-multitool …")
        return re.sub(r" in \d+\.\d s\b", " in … s", value)
    if isinstance(value, float):
        assert math.isfinite(value), value
        return float(f"{value:.{_DIGITS}g}")
    assert value is None or isinstance(value, (bool, int)), type(value)
    return value


def written(value, indent: int = 0) -> str:
    """JSON to be read and compared by line: sorted keys, and on one line what fits there."""
    line = json.dumps(value, ensure_ascii=False, sort_keys=True)
    if len(line) + indent <= _WIDTH or not isinstance(value, (dict, list)):
        return line
    inside = indent + 1
    if isinstance(value, dict):
        parts = [f"{json.dumps(key, ensure_ascii=False)}: {written(of, inside)}" for key, of in sorted(value.items())]
    else:
        parts = [written(item, inside) for item in value]
    start, end = "{}" if isinstance(value, dict) else "[]"
    return f"{start}\n" + ",\n".join(" " * inside + part for part in parts) + f"\n{' ' * indent}{end}"


def differences(stored, now, where: str = "") -> Iterator[str]:
    """A line for each place where two values of JSON differ by more than the tolerance."""
    if isinstance(stored, dict) and isinstance(now, dict):
        for key in sorted(stored.keys() | now.keys()):
            at = f"{where}.{key}" if where else key
            if key not in now:
                yield f"{at}: stored {_shown(stored[key])}, now missing"
            elif key not in stored:
                yield f"{at}: not stored, now {_shown(now[key])}"
            else:
                yield from differences(stored[key], now[key], at)
    elif isinstance(stored, list) and isinstance(now, list):
        if len(stored) != len(now):
            yield f"{where}: stored {len(stored)} entries, now {len(now)}"
            # Of a tree's nodes that would be all behind the first that is gone: told by their names instead.
            known, found = ({_name(item): item for item in items} for items in (stored, now))
            yield from (f"{where}: only stored: {_shown(item)}" for name, item in known.items() if name not in found)
            yield from (f"{where}: only now: {_shown(item)}" for name, item in found.items() if name not in known)
            for name in known:
                if name in found:
                    yield from differences(known[name], found[name], f"{where}[{name!r}]")
            return
        for i, (one, other) in enumerate(zip(stored, now, strict=True)):
            name = f" {one[0]!r}" if isinstance(one, list) and one and isinstance(one[0], str) else ""
            yield from differences(one, other, f"{where}[{i}{name}]")
    elif isinstance(stored, str) and isinstance(now, str) and not _same(stored, now):
        at = next((i for i, (one, other) in enumerate(zip(stored, now, strict=False)) if one != other),
                  min(len(stored), len(now)))
        start = max(0, at - 60)
        yield f"{where}: stored {_shown(stored[start:])}, now {_shown(now[start:])}" + f" (from {start})" * (start > 0)
    elif type(stored) is not type(now) or not _same(stored, now):
        yield f"{where}: stored {_shown(stored)}, now {_shown(now)}"


def _says_the_same(stored: str, now: str) -> bool:
    """Whether two texts differ in fractions at most, and these by no more than the tolerance or their last digit."""
    one, other = _FRACTION.split(stored), _FRACTION.split(now)
    if one[::2] != other[::2]:
        return False
    last_digits = (1.01 * 10.0 ** -len(number.partition("e")[0].partition(".")[2]) for number in one[1::2])
    return all(
        math.isclose(float(a), float(b), rel_tol=RELATIVE, abs_tol=last if "e" not in a else 0.0)
        for a, b, last in zip(one[1::2], other[1::2], last_digits, strict=True)
    )


def _same(stored, now) -> bool:
    if isinstance(stored, str):
        return _says_the_same(stored, now)
    if isinstance(stored, float):
        return math.isclose(stored, now, rel_tol=RELATIVE, abs_tol=ABSOLUTE)
    return stored == now


def _name(item) -> str:
    return item[0] if isinstance(item, list) and item and isinstance(item[0], str) else json.dumps(item, sort_keys=True)


def _shown(value) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 300 else text[:300] + "…"


def _lines(stored: str, now: str) -> list[str]:
    lines, others = stored.splitlines(), now.splitlines()
    if len(lines) == len(others) and all(map(_says_the_same, lines, others)):
        return []
    return list(difflib.unified_diff(lines, others, "stored", "now", lineterm="", n=1))


def tree_rows(root: dict) -> list[list]:
    """The nodes of a tree's JSON: [path, token id, probability, cumulative probability], and what else is known."""
    rows, names = [], set()
    waiting = [((), child) for child in reversed(root["children"])]
    while waiting:
        before, node = waiting.pop()
        path = (*before, node["token"])
        name = "|".join(path)
        if name in names:  # tokens that are parts of a character look alike
            name += f" #{node['token_id']}"
        names.add(name)
        known = {key: value for key, value in node.items()
                 if key not in ("token", "token_id", "prob", "cumulative_prob", "children")}
        rows.append([name, node["token_id"], node["prob"], node["cumulative_prob"], *([known] if known else [])])
        waiting += [(path, child) for child in reversed(node["children"])]
    return rows


def tree_told(data: dict) -> dict:
    """A tree's JSON as it is stored: its nodes as rows, all else as it is."""
    root = {key: value for key, value in data["tree"].items() if key != "children"}
    return data | {"tree": tree_rows(data["tree"]), "root": root}
