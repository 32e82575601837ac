"""A CSV file as the tool writes it, read with nothing but Python."""

import csv
import io
import json


def read(text: str) -> tuple[dict, list[list[str]]]:
    """The recipe in the comment lines at its head, and the rows, the header first."""
    recipe, lines = {}, io.StringIO(text, newline="")
    for line in lines:
        if not line.startswith("# "):
            break
        key, _, value = line.removeprefix("# ").partition(": ")
        recipe[key] = json.loads(value)
    else:
        line = ""
    return recipe, list(csv.reader(io.StringIO(line + lines.read(), newline="")))


def rows_of(text: str) -> list[dict[str, str]]:
    """The rows, by the names of their columns."""
    _, (header, *rows) = read(text)
    return [dict(zip(header, row, strict=True)) for row in rows]
