"""``python -m multitool``: the command line."""

import sys

from multitool.cli import main

if __name__ == "__main__":
    sys.exit(main())
