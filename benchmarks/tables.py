"""Rows of figures as tables to read: plain text, and Markdown."""

import statistics
import textwrap
from collections.abc import Sequence
from itertools import zip_longest

from benchmarks.measuring import Row

_COLUMNS = ("what", "measured", "ratio", "reach")
_WIDTHS = (44, 40, 22, 22)


def as_text(rows: Sequence[Row]) -> str:
    """Columns side by side, long texts in several lines."""
    lines = [_COLUMNS, tuple("-" * width for width in _WIDTHS)]
    for row in rows:
        wrapped = [textwrap.wrap(cell, width) for cell, width in zip(_cells(row), _WIDTHS, strict=True)]
        lines += zip_longest(*wrapped, fillvalue="")
    return "\n".join(
        "  ".join(f"{cell:{width}}" for cell, width in zip(line, _WIDTHS, strict=True)).rstrip() for line in lines
    )


def as_markdown(rows: Sequence[Row]) -> str:
    lines = [_COLUMNS, ("---",) * len(_COLUMNS), *map(_cells, rows)]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)


def _cells(row: Row) -> tuple[str, str, str, str]:
    measured = ", ".join(f"{name} {_with_spread(values, row.unit)}" for name, values in row.measured.items())
    ratio = "" if row.ratio is None else _with_spread(row.ratio, "×")
    reach = ""
    if row.reach is not None:
        unit = "×" if row.reach.of is None else row.unit
        always = ", always" if row.reach.always else ""
        reach = f"{row.reach.bound} {row.reach.limit:g} {unit}{always}: {'reached' if row.reached else 'MISSED'}"
    return row.what, measured, ratio, reach


def _with_spread(values: Sequence[float], unit: str) -> str:
    """The median, and from the least to the most where there are several."""
    median = statistics.median(values)
    if unit == "s" and median < 0.1:
        values, median, unit = [1000 * value for value in values], 1000 * median, "ms"
    around = f" ({_number(min(values))}–{_number(max(values))})" if len(values) > 1 else ""
    return f"{_number(median)} {unit}{around}"


def _number(value: float) -> str:
    """Three digits, or as many as stand before the point."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:#.3g}"
