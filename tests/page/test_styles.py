"""The page's style sheet and the explorer's, which stand in one document."""

import re
from pathlib import Path

import multitool.page
import multitool.pictures.explorer


def test_no_rule_of_the_pages_is_for_a_class_that_the_explorer_has():
    sheet = (Path(multitool.page.__file__).parent / "page.css").read_text(encoding="utf-8")
    rules = re.findall(r"([^{}]+)\{", re.sub(r"/\*.*?\*/", "", sheet, flags=re.DOTALL))
    begun = {found[1] for rule in rules for part in rule.split(",") if (found := re.match(r"\s*\.([\w-]+)", part))}
    scripts = Path(multitool.pictures.explorer.__file__).parent.glob("*.js")
    named = [name for script in scripts for name in re.findall(r'class: [`"]([^`"]+)[`"]', script.read_text("utf-8"))]
    explorers = {word for name in named for word in name.split()}
    assert "finder" in explorers and "figures" in begun
    assert not begun & explorers


def test_no_selector_has_a_comma_in_brackets_as_gradio_would_cut_it_there():
    sheet = (Path(multitool.page.__file__).parent / "page.css").read_text(encoding="utf-8")
    selectors = re.findall(r"([^{}]+)\{", re.sub(r"/\*.*?\*/", "", sheet, flags=re.DOTALL))
    assert not [one.strip() for one in selectors if re.search(r"\([^()]*,[^()]*\)", one) and "@media" not in one]
