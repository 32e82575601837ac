"""Token text: what a token adds to a text, and how to show it without it doing anything."""

import csv
import io
import re
import unicodedata
from collections.abc import Iterable, Sequence
from html import escape

END_PUNCTUATION = ".,;:!?…。，、；：！？،؛؟।"  # says nothing at the end of a definition
_BYTE_RUN = re.compile(r"(?:\\x[89a-f][0-9a-f])+")
_HALF_PAIR = re.compile("[\ud800-\udfff]")
_HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def is_text(text: str) -> bool:
    """Whether it can be written: half a surrogate pair cannot."""
    return not _HALF_PAIR.search(text)


def bytes_to_text(raw: bytes) -> str:
    r"""UTF-8 text of ``raw``; bytes that are no whole character become escapes (``\xe2\x80``), never lost."""
    return raw.decode("utf-8", errors="backslashreplace")


def has_bytes(text: str) -> bool:
    """Whether it has bytes that are no whole character, as ``bytes_to_text`` writes them."""
    return bool(_BYTE_RUN.search(text))


def join_tokens(tokens) -> str:
    r"""The text that the tokens spell together: escaped bytes that now make whole characters become those."""

    def whole(match: re.Match) -> str:
        return bytes_to_text(bytes.fromhex(match.group().replace("\\x", "")))

    return _BYTE_RUN.sub(whole, "".join(tokens))


def visible(text: str, *, spaces: bool = False) -> str:
    """``text`` on one line with nothing hidden: control, format and unassigned characters become escapes.

    With ``spaces``, blanks at either end become ``␣`` (for a single token, where they tell two tokens apart).
    """
    shown = "".join(_visible_character(character) for character in text)
    if not spaces:
        return shown
    core = shown.strip(" ")
    if not core:
        return "␣" * len(shown)
    left = len(shown) - len(shown.lstrip(" "))
    return "␣" * left + core + "␣" * (len(shown) - left - len(core))


def _visible_character(character: str) -> str:
    if unicodedata.category(character) not in _HIDDEN:
        # Blanks other than the plain one look like it and are told apart only as an escape.
        plain = character == " " or unicodedata.category(character) != "Zs"
        return character if plain else _escape(character)
    return _SHORT.get(character) or _escape(character)


def _escape(character: str) -> str:
    code = ord(character)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def spelling_key(text: str) -> str:
    """The same for definitions that differ in case, in blanks, or in punctuation at the end alone."""
    plain = " ".join(text.casefold().split())
    return plain.rstrip(f"{END_PUNCTUATION} ") or plain


def percent(share: float) -> str:
    """A probability as a person reads it: two digits, and no power of ten."""
    if share <= 0 or share >= 0.0995:
        return f"{share:.0%}"
    return f"{100 * share:.2g}%" if share >= 1e-6 else "<0.0001%"


def html_table(title: str, columns: Sequence[str], rows: Iterable[Sequence]) -> str:
    """A table with its title above; of numbers four digits, of texts what they are, with blanks at their ends seen."""
    head = "".join(f"<th>{escape(column)}</th>" for column in columns)
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
    return (
        f'<table><caption style="text-align: left">{escape(visible(title))}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    )


def count_shown(number: int) -> str:
    """A large number as models' sizes are told: 2.51 B, 135 M."""
    return f"{number / 1e9:.3g} B" if number >= 1e9 else f"{number / 1e6:.0f} M"


def csv_table(columns: Sequence[str], rows: Iterable[Sequence]) -> str:
    """A header line and one line per row; texts are exact, in quotes."""
    text = io.StringIO()
    # Every text in quotes: before Python 3.13 a lone carriage return would not be quoted and end the line.
    writer = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    writer.writerow(columns)
    writer.writerows(rows)
    return text.getvalue()


def _cell(value) -> str:
    if isinstance(value, str):
        return f'<td style="text-align: left">{escape(visible(value, spaces=True))}</td>'
    return f"<td>{f'{value:.4g}' if isinstance(value, float) else escape(str(value))}</td>"
