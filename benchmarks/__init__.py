"""How fast this tool is and how much memory it takes, on the machine at hand. See README.md."""

import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
# The plain recursion, with which trees are compared, lies among the tests.
sys.path.append(str(REPOSITORY / "tests"))
