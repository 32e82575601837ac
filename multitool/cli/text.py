"""The command ``text``: where a feature fires in a text of one's own."""

import math
import shutil
import sys
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path

from multitool._version import __version__
from multitool.cli.options import add_output_group, add_sae_options
from multitool.cli.work import done, library_of, note_other_model
from multitool.cli.writing import check_writable, told_path, write, write_json
from multitool.errors import UserError
from multitool.recipes.recipe import VectorRecipe
from multitool.text import csv_table, has_bytes, join_tokens, visible

Activity = Sequence[tuple[str, float]]  # token by token: its text, and how strongly the feature fires there
_STRONGEST_PRINTED = 10
_MARKS = "▁▂▃▄▅▆▇█"  # under a token, by how strongly it fires
_SPACE = (" ", " ")  # between words, without a mark
_WIDEST = 100  # characters of a line of text, where the terminal is wider
_LONGEST_FILE = 1_000_000  # bytes


def declare(commands) -> None:
    """Add the command to those of the parser."""
    reading = commands.add_parser("text", help="tell where a feature fires in a text")
    add_sae_options(reading)
    group = reading.add_argument_group("feature and text")
    group.add_argument("--feature", type=int, required=True, metavar="N", help="the feature's number, from 0")
    which = group.add_mutually_exclusive_group(required=True)
    which.add_argument("text", nargs="?", metavar="TEXT", help="what is read, in quotes; - reads standard input")
    which.add_argument("--file", type=Path, metavar="FILE", help="a file with the text, in UTF-8")
    add = add_output_group(reading).add_argument
    add("--csv", type=Path, metavar="FILE", help="write how strongly it fires on each token as a table")
    add("--json", type=Path, metavar="FILE", help="write that, and what was asked")
    reading.set_defaults(run=_run)


def _run(options) -> None:
    recipe = VectorRecipe(sae=options.sae, feature=options.feature)
    check_writable(csv=options.csv, json=options.json)
    text = _text(options)
    from multitool.jobs.text import check_length, text_job

    check_length(text)
    library = library_of(options)
    activity = done(text_job(library, recipe, text, model=options.model), library)
    entry = library.find(recipe.sae)
    note_other_model(options.model, entry)
    model = library.model_of(entry, options.model)
    settings = {"sae": entry.name, "feature": recipe.feature, "model": model, "dtype": library.precision(model),
                "version": __version__}
    told = {"schema": "sae-multitool/activity/1", "settings": settings, "text": text}
    if options.csv:
        rows = [(place, token, value) for place, (token, value) in enumerate(activity, 1)]
        recipe_told = settings | {"schema": told["schema"], "text": text}
        table = csv_table(("place", "token", "activation"), rows, recipe_told)
        write(options.csv, table.encode(errors="backslashreplace"))
    if options.json:
        write_json(options.json, told | {
            "tokens": [{"token": token, "activation": value} for token, value in activity]
        })
    if not (options.csv or options.json):
        print(visible(f"{recipe.sae} feature {recipe.feature}, on {model}"))
        _print_activity(activity)


def _text(options) -> str:
    """The text that is to be read: as typed, of a file, or of standard input. Line ends at its end are left out."""
    if options.file is None and options.text != "-":
        return options.text
    name = "standard input" if options.file is None else told_path(options.file)
    try:
        if options.file is None:
            content = sys.stdin.buffer.read(_LONGEST_FILE + 1)
        else:
            with options.file.open("rb") as file:
                content = file.read(_LONGEST_FILE + 1)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise UserError(f"{name} cannot be read: {why}. Name a file with a text, or - for standard input.") from error
    if len(content) > _LONGEST_FILE:
        raise UserError(f"{name} has more than {_LONGEST_FILE:,} bytes. Give a shorter text.")
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        raise UserError(f"{name} is no text in UTF-8: {error.reason} at byte {error.start:,}. Convert it.") from error
    return text.replace("\r\n", "\n").rstrip("\n")


def _print_activity(activity: Activity) -> None:
    firing = sorted(((value, place, token) for place, (token, value) in enumerate(activity, 1) if value > 0),
                    key=lambda fired: (-fired[0], fired[1]))
    if not firing:
        print(f"It does not fire on any of the {len(activity):,} tokens.")
        return
    shown = firing[:_STRONGEST_PRINTED]
    first = f", most on these {len(shown)}" if len(firing) > len(shown) else ""
    print(f"It fires on {len(firing):,} of {len(activity):,} tokens{first}:\n")
    for value, place, token in shown:
        print(f"{value:10.3f}  {visible(token, spaces=True):24} token {place:,}")
    print(f"\nThe text, under each token how strongly it fires ({_MARKS[-1]} {firing[0][0]:.3g})")
    width = min(shutil.get_terminal_size().columns - 1, _WIDEST)
    for line, marks in marked_lines(activity, width):
        print(line)
        if marks:
            print(marks)


def marked_lines(activity: Activity, width: int) -> Iterator[tuple[str, str]]:
    """A text in lines of at most this many columns, each with its marks below: the higher, the stronger it fires there.

    Line ends of the text are shown, and kept. Lines break between words where they can.
    """
    most = max((value for _, value in activity), default=0.0)
    line: list[tuple[str, str]] = []  # characters, each with its mark
    for token, value in whole_characters(activity):
        mark = " " if value <= 0 else _MARKS[math.ceil(len(_MARKS) * value / most) - 1]
        for part in token.replace("\n", "⏎\n").splitlines(keepends=True):
            shown = visible(part.rstrip("\n"))
            first = len(shown) - len(shown.lstrip(" ")) if shown.strip(" ") else 0  # spaces before a word have no mark
            line += [(character, mark if place >= first else " ") for place, character in enumerate(shown)]
            if part.endswith("\n"):
                yield from _wrapped(line, width)
                line = []
    yield from _wrapped(line, width)


def whole_characters(activity: Activity) -> Iterator[tuple[str, float]]:
    """The same, but tokens that are parts of a character only are one, which fires as its strongest part does."""
    parts: list[str] = []
    most = 0.0
    for place, (token, value) in enumerate(activity):
        parts, most = [*parts, token], max(most, value)
        following = activity[place + 1][0] if place + 1 < len(activity) else ""
        if not (has_bytes(join_tokens(parts)) and has_bytes(following)):
            yield join_tokens(parts), most
            parts, most = [], 0.0


def _wrapped(line: list[tuple[str, str]], width: int) -> Iterator[tuple[str, str]]:
    """Characters, each with its mark, as lines of at most this many columns, and the marks below each."""
    while line:
        end, taken = 0, 0
        while end < len(line) and (taken := taken + columns(line[end][0])) <= width:
            end += 1
        end = max(end, 1)
        if end < len(line) and line[end] != _SPACE:
            end = next((place + 1 for place in range(end - 1, 0, -1) if line[place] == _SPACE), end)
        shown = line[:end]
        yield (
            "".join(character for character, _ in shown).rstrip(),
            "".join(mark * columns(character) for character, mark in shown).rstrip(),
        )
        line = line[end:]
        while line and line[0] == _SPACE:
            line = line[1:]


def columns(text: str) -> int:
    """How many columns of a terminal a text takes."""
    return sum(
        0 if unicodedata.combining(character) else 2 if unicodedata.east_asian_width(character) in "WF" else 1
        for character in text
    )
