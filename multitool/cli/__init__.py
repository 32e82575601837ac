"""The command line: ``python -m multitool tree|tokens|…``, or ``sae-multitool`` where installed.

Uses everything below but the page. Torch and matplotlib take seconds, so what needs them is imported inside a command,
after its options have been checked.

- ``command_line``: ``main``, the parser of all commands, and the exit status
- ``tree``, ``tokens``, ``text``, ``steer``, ``find``, ``suggest``, ``atlas``: a command each; ``listings``:
  ``components`` and ``saes``. Each declares its options (``declare``) and does what they ask for
- ``options``: options that several commands have, by the fields of recipes; ``work``: has a job done
- ``printing``: what is printed; ``writing``: files; ``telling``: what is told meanwhile, on standard error
"""

from multitool.cli.command_line import main

__all__ = ["main"]
