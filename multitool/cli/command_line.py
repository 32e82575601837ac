"""The command line as a whole: its parser, errors in one line, and the exit status."""

import argparse
import errno
import platform
import sys
from importlib.metadata import version

from multitool._version import __version__
from multitool.cli import atlas, find, listings, steer, suggest, text, tokens, tree
from multitool.cli.telling import INSTALLED, TELLING, program, say
from multitool.errors import UserError
from multitool.process import drop, interrupted, interruptible, prepare_streams
from multitool.store.folders import with_hook
from multitool.store.terms import accept_gemma_terms
from multitool.text import visible

_BUILT_ON = ("torch", "transformers", "sae-lens")
_COMMANDS = (tree, tokens, text, steer, find, suggest, atlas, listings)  # as help lists them
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
        reading = parser()
        if not arguments:
            reading.print_help()
            return
        options = reading.parse_args(arguments)
        TELLING.quiet = getattr(options, "quiet", False)
        if getattr(options, "hook", None) and options.sae is not None:
            options.sae = with_hook(options.sae, options.hook)
        if getattr(options, "accept_gemma_terms", False):
            accept_gemma_terms()
        options.run(options)
    finally:
        TELLING.leave()
        sys.stdout.flush()  # here it can be told that it fails


class _Parser(argparse.ArgumentParser):
    """Errors in one line, like all others."""

    def error(self, message: str):
        if len(message) > _LONGEST_ERROR:  # it tells what was typed
            message = f"{message[:_LONGEST_ERROR // 2]} … {message[-_LONGEST_ERROR // 2:]}"
        command = self.prog if self.prog.startswith(INSTALLED) else f"python -m {self.prog}"
        raise UserError(f"{message}. See `{command} --help`.")


class _Version(argparse.Action):
    """Tell the version, and those of what it is built on as installed: none of them is imported for it."""

    def __call__(self, *args):
        print(f"sae-multitool {__version__}")
        print(", ".join(f"{name} {version(name)}" for name in _BUILT_ON) + f", Python {platform.python_version()}")
        raise SystemExit


def parser() -> argparse.ArgumentParser:
    """What reads the arguments; a command's options have its function as ``run``."""
    reading = _Parser(prog=program(), description="What does an SAE feature mean? Asked of the model's own weights.")
    reading.add_argument("--version", action=_Version, nargs=0, help="tell the version, and what it is built on")
    commands = reading.add_subparsers(title="commands", required=True, metavar="COMMAND", parser_class=_Parser)
    for command in _COMMANDS:
        command.declare(commands)
    return reading
