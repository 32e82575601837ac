"""What a person takes from the page into a paper: copies, figures for a column, and what to cite."""

import ast
import csv
import io

import pytest
from test_browser import choose, download, figure_tab, picture, wait_for_new_picture, width

from multitool import __version__


def clipboard(page) -> str:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    return page.evaluate("navigator.clipboard.readText()")


def copy(page, buttons: str, name: str) -> str:
    """Copy by keyboard, and wait until the page says that it has."""
    page.locator(f"{buttons} button", has_text=name).focus()
    page.keyboard.press("Enter")
    page.locator(f"{buttons} [role=status]", has_text=f"Copied as {name}").wait_for()
    assert page.evaluate("document.activeElement.innerText") == name, "the focus stays"
    return clipboard(page)


def test_definitions_are_copied_by_keyboard_in_each_format(page):
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    markdown = copy(page, "#copy-definitions", "Markdown")
    assert "demo/hook\\_embed feature 927" in markdown and "| definition | probability |" in markdown
    assert "| water falling from the sky |" in markdown
    assert copy(page, "#copy-definitions", "LaTeX").count("\\hline") == 3
    page.select_option("#copy-definitions select", "10")
    texts = ast.literal_eval(copy(page, "#copy-definitions", "Python list"))
    assert len(texts) == 10 and texts[0] == "water"
    header, *rows = csv.reader(io.StringIO(copy(page, "#copy-definitions", "CSV")))
    assert header == ["definition", "probability"] and len(rows) == 10
    assert download(page, "#definitions-csv").decode().startswith("# ")


def test_a_list_is_copied_as_the_published_tool_shows_it(page):
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.get_by_role("tab", name="Token list").click()
    page.click("#list")
    page.locator("#copy-list button").first.wait_for()
    tokens = copy(page, "#copy-list", "Python list")
    assert tokens.startswith("[' Rain', ") and len(ast.literal_eval(tokens)) == 100
    assert "| 1 | ␣Rain |" in copy(page, "#copy-list", "Markdown")


def test_a_figure_for_a_column_of_a_paper_and_one_that_lists_the_definitions(page):
    figure_tab(page)
    before = picture(page)
    choose(page, "#figure-width", "one column, 3.3 in")
    wait_for_new_picture(page, before)
    assert width(page) == pytest.approx(3.3 * 150, abs=1)
    assert not page.locator("#caption input").is_checked()
    assert page.input_value("#drawn input[type=number]") == "40"
    assert "cutoff" not in download(page, "#svg").decode().split("</metadata>")[1]
    before = picture(page)
    page.locator("#drawn-as").get_by_text("list of definitions").click()
    wait_for_new_picture(page, before)
    assert page.input_value("#drawn input[type=number]") == "15"
    assert "water falling from the sky" in download(page, "#svg").decode()


def test_the_page_tells_whose_method_it_is_and_how_to_cite_it(page):
    page.get_by_text("About, and how to cite").click()
    page.locator("#bibtex pre").wait_for()
    told = page.inner_text("#about")
    for words in ("Matthew Watkins", "SelfIE", "Patchscopes", f"version {__version__}", "GPL-3.0"):
        assert words in told
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    bibtex = copy(page, "#copy-bibtex", "BibTeX")
    assert bibtex.count("@misc{") == 2 and f"Version {__version__}" in bibtex
