"""``python -m multitool``, and the installed command: the command line."""

import sys

from multitool.process import leave_on_interrupt, prepare_streams


def main(arguments: list[str] | None = None) -> int:
    """Run a command. Returns the exit status, see ``cli.command_line.main``."""
    prepare_streams()
    leave_on_interrupt()
    from multitool.cli import main as run

    return run(arguments)


if __name__ == "__main__":
    sys.exit(main())
