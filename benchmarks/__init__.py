"""How fast this tool is and how much memory it takes, on the machine at hand. See README.md."""

from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
