"""The command line as a whole: its parser, errors in one line, and the exit status."""

import argparse
import errno
import sys

from multitool.cli import atlas, find, listings, suggest, tokens, tree
from multitool.cli.telling import INSTALLED, program, say
from multitool.errors import UserError
from multitool.process import drop, interrupted, interruptible, prepare_streams
from multitool.store.folders import with_hook
from multitool.store.terms import accept_gemma_terms
from multitool.text import visible

_COMMANDS = (tree, tokens, find, suggest, atlas, listings)  # as help lists them
_LONGEST_ERROR = 600  # characters
# Of writing to standard output, whose errors name no file.
_OUTPUT = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EBADF, errno.EFBIG}


def main(arguments: list[str] | None = None) -> int:
    """Run a command; the exit status is 0, or 2 for anything that a user can put right, 1 where standard output fails,
    130 after Ctrl-C.
    """
    prepare_streams()
    try:
        with interruptible():
            _run(sys.argv[1:] if arguments is None else arguments)
    except UserError as error:
        say(f"{visible(str(error))}\n")
        return 2
    except BrokenPipeError:  # the reader of our output has left, as `head` does
        drop(sys.stdout)
    except KeyboardInterrupt:
        return interrupted()
    except OSError as error:
        if error.errno not in _OUTPUT or error.filename is not None:
            raise
        drop(sys.stdout)
        say(f"The output cannot be written: {error.strerror}. Send it elsewhere.\n")
        return 1
    return 0


def _run(arguments: list[str]) -> None:
    for argument in arguments:
        if argument.startswith("--") and argument.endswith("=--"):  # argparse would make a list of it
            raise UserError(f"{argument[:200]}: -- is no value. Leave the option out, or give it one.")
    try:
        options = parser().parse_args(arguments)
        if getattr(options, "hook", None):
            options.sae = with_hook(options.sae, options.hook)
        if getattr(options, "accept_gemma_terms", False):
            accept_gemma_terms()
        options.run(options)
    finally:
        sys.stdout.flush()  # here it can be told that it fails


class _Parser(argparse.ArgumentParser):
    """Errors in one line, like all others."""

    def error(self, message: str):
        if len(message) > _LONGEST_ERROR:  # it tells what was typed
            message = f"{message[:_LONGEST_ERROR // 2]} … {message[-_LONGEST_ERROR // 2:]}"
        command = self.prog if self.prog.startswith(INSTALLED) else f"python -m {self.prog}"
        raise UserError(f"{message}. See `{command} --help`.")


def parser() -> argparse.ArgumentParser:
    """What reads the arguments; a command's options have its function as ``run``."""
    reading = _Parser(prog=program(), description="What does an SAE feature mean? Asked of the model's own weights.")
    commands = reading.add_subparsers(required=True, metavar="COMMAND", parser_class=_Parser)
    for command in _COMMANDS:
        command.declare(commands)
    return reading
