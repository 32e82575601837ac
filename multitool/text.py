"""Token text: what a token adds to a text, and how to show it without it doing anything."""

import csv
import io
import json
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pandas import DataFrame

END_PUNCTUATION = ".,;:!?…。，、；：！？،؛؟।"  # says nothing at the end of a definition
_BYTE_RUN = re.compile(r"(?:\\x[89a-f][0-9a-f])+")
_LETTERS_FIRST, _LETTERS_LAST = re.compile(r"[^\W_]*"), re.compile(r"[^\W_]*\Z")
_TO_A_SPACE = re.compile(r"\S*\s?")
_HALF_PAIR = re.compile("[\ud800-\udfff]")
_HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
_UNSEEN_BREAK = re.compile("[\x7f-\x9f\u2028\u2029]")  # ends a line for some readers
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


def whole_word(before: str, token: str, after: str) -> tuple[str, str, str]:
    """A token in its text as the whole word that it is in: what stands before, the word, what stands behind.

    Spaces go to what stands around. Of that, half words at the outer ends are left out where the text was cut there:
    they are half if no space stands at the end.

    >>> whole_word("lasses were", " warm", "ing the roo")
    ('were ', 'warming', ' the')
    """
    word = token.strip() or token
    if token.strip():
        before, after = before + token[: len(token) - len(token.lstrip())], token[len(token.rstrip()):] + after
    if word[:1].isalnum():
        start = _LETTERS_LAST.search(before).start()  # type: ignore[union-attr]  # they match anything
        before, word = before[:start], before[start:] + word
    if word[-1:].isalnum():
        end = _LETTERS_FIRST.match(after).end()  # type: ignore[union-attr]
        word, after = word + after[:end], after[end:]
    if not before[:1].isspace():
        before = before[_TO_A_SPACE.match(before).end():] or before  # type: ignore[union-attr]
    if not after[-1:].isspace():
        after = after[: _LETTERS_LAST.search(after).start()] or after  # type: ignore[union-attr]
    return before.lstrip(), word, after.rstrip()


def spelling_key(text: str) -> str:
    """The same for definitions that differ in case, in spaces, or in punctuation at the end alone."""
    plain = " ".join(text.casefold().split())
    return plain.rstrip(f"{END_PUNCTUATION} ") or plain


def percent(share: float) -> str:
    """A probability as a person reads it: two digits, and no power of ten."""
    if share <= 0 or share >= 0.0995:
        return f"{share:.0%}"
    return f"{100 * share:.2g}%" if share >= 1e-6 else "<0.0001%"


def html_table(title: str, columns: Sequence[str], rows: Iterable[Sequence]) -> str:
    """A table with its title above; of numbers four digits, of texts what they are, with spaces at their ends seen."""
    head = "".join(f"<th>{escape(column)}</th>" for column in columns)
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
    return (
        f'<table><caption style="text-align: left">{escape(visible(title))}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    )


def count_shown(number: int) -> str:
    """A large number as models' sizes are told: 2.51 B, 135 M."""
    return f"{number / 1e9:.3g} B" if number >= 1e9 else f"{number / 1e6:.0f} M"


def csv_table(columns: Sequence[str], rows: Iterable[Sequence], recipe: Mapping | None = None) -> str:
    """A header line and one line per row; texts are exact, in quotes.

    Args:
        recipe: how the table was made: told in comment lines before the header, ``# key: value in JSON``. Readers that
            know comments skip them, and leave a # in quotes alone: pandas.read_csv(file, comment="#").
    """
    text = io.StringIO()
    for key, value in (recipe or {}).items():
        told = json.dumps(value, ensure_ascii=False)
        text.write(f"# {visible(key)}: {_UNSEEN_BREAK.sub(_json_escape, told)}\n")
    # Every text in quotes: before Python 3.13 a lone carriage return would not be quoted and end the line.
    writer = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    writer.writerow(columns)
    writer.writerows(rows)
    return text.getvalue()


def _json_escape(character: re.Match) -> str:
    return f"\\u{ord(character.group()):04x}"


def data_frame(columns: Sequence[str], rows: Iterable[Sequence]) -> "DataFrame":
    """A table as pandas has it, one row for each row."""
    from pandas import DataFrame  # nothing else takes it, and it takes its time to import

    return DataFrame(list(rows), columns=list(columns))


def _cell(value) -> str:
    if isinstance(value, str):
        return f'<td style="text-align: left">{escape(visible(value, spaces=True))}</td>'
    return f"<td>{f'{value:.4g}' if isinstance(value, float) else escape(str(value))}</td>"
