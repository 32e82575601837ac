"""Writing results to files: refused before the work where it cannot be, and whole or not at all."""

import errno
import json
import os
import shutil
from pathlib import Path

from multitool.cli.telling import say
from multitool.errors import UserError

STANDARD_OUTPUT = Path("-")  # as commands commonly call it
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def check_writable(**paths: Path | None) -> None:
    """Before the work, not after it: can these files be written?

    Args:
        paths: by the options that name them.
    """
    named: dict[Path, str] = {}
    printed = [option for option, path in paths.items() if path == STANDARD_OUTPUT]
    if len(printed) > 1:
        raise UserError(f"--{' and --'.join(printed)} both name standard output. Write one of them to a file.")
    for option, path in paths.items():
        if path is None or path == STANDARD_OUTPUT:
            continue
        try:
            existed = path.exists()
            if not existed or path.is_file() or path.is_dir():  # opening a pipe would end what waits for it
                path.open("ab").close()
            if not existed:
                path.unlink()
            other = named.setdefault(path.resolve(), option) if not existed or path.is_file() else option
        except (OSError, ValueError) as error:
            raise _not_written(path, error) from error
        if other != option:
            raise UserError(f"--{other} and --{option} both name {told_path(path)}. Name two files.")


def write(path: Path, content: bytes) -> None:
    """Write a file, whole or not at all; for - print what would be in it."""
    if path == STANDARD_OUTPUT:
        print(content.decode().rstrip("\n"))
        return
    try:
        target = path.resolve()
        if target.exists() and not target.is_file():  # a device, or a pipe
            target.write_bytes(content)
        else:
            _replace(target, content)
    except OSError as error:
        raise _not_written(path, error) from error
    say(f"wrote {path}\n")


def _replace(target: Path, content: bytes) -> None:
    unfinished = target.with_name(f".unfinished-{os.getpid()}-{target.name[:50]}")  # a name has 255 bytes at most
    try:
        unfinished.write_bytes(content)
        if target.exists():
            shutil.copymode(target, unfinished)
        unfinished.replace(target)
    except PermissionError:  # of the folder; the file itself may be ours all the same
        target.write_bytes(content)
    finally:
        unfinished.unlink(missing_ok=True)


def write_json(path: Path, content) -> None:
    write(path, as_json(content))


def as_json(content) -> bytes:
    """JSON as a file; half a surrogate pair, as a file's name can have it, is an escape in it."""
    try:
        return json.dumps(content, ensure_ascii=False, allow_nan=False).encode(errors="backslashreplace")
    except ValueError as error:
        raise UserError(
            "The result holds a number that is none (NaN or infinite), which JSON does not have, and was not written. "
            "Try --dtype float32, or a smaller strength or scale."
        ) from error


def _not_written(path: Path, error: OSError | ValueError) -> UserError:
    if isinstance(error, ValueError):
        return UserError(f"{told_path(path)} cannot be the name of a file: {error}.")
    help_ = "Make room there" if error.errno in _FULL else "Name a file in a folder that you may write to"
    return UserError(f"{told_path(path)} cannot be written: {error.strerror}. {help_}.")


def told_path(path: Path) -> str:
    return str(path)[:300]

