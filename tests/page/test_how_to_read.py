"""The seven steps through the page, and what the Space's front matter names."""

import re
from pathlib import Path

from multitool.page.how_to_read import STEPS

ROOT = Path(__file__).parents[2]


def test_there_are_seven_steps_and_the_docs_have_the_same_words():
    assert re.findall(r"^(\d)\. \*\*", STEPS, re.MULTILINE) == list("1234567")
    assert STEPS in (ROOT / "docs" / "how-to-read.md").read_text(encoding="utf-8")


def test_the_thumbnail_that_a_space_may_name_is_part_of_the_repository():
    told = (ROOT / "docs" / "deploying.md").read_text(encoding="utf-8")
    path, = re.findall(r"`thumbnail: https://\S+/OWNER/SPACE/resolve/main/(\S+)`", told)
    assert (ROOT / path).is_file()
