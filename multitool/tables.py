"""Tables as a notebook shows them."""

from collections.abc import Iterable, Sequence
from html import escape

from multitool.text import visible


def html_table(title: str, columns: Sequence[str], rows: Iterable[Sequence]) -> str:
    """A table with its title above; of numbers four digits, of texts what they are, with blanks at their ends seen."""
    head = "".join(f"<th>{escape(column)}</th>" for column in columns)
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
    return (
        f'<table><caption style="text-align: left">{escape(visible(title))}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    )


def _cell(value) -> str:
    if isinstance(value, str):
        return f'<td style="text-align: left">{escape(visible(value, spaces=True))}</td>'
    return f"<td>{f'{value:.4g}' if isinstance(value, float) else escape(str(value))}</td>"
