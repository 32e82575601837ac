"""The interactive view in a real browser, as the file that people take home: without a server and without a network."""

import contextlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_figure import HOSTILE, WORDS
from test_figure import document as some_document

from multitool.pictures.explorer import standalone
from multitool.text import percent
from multitool.trees.document import read_tree
from multitool.trees.tree import ROOT

ARTEFACTS = Path(__file__).parents[2] / "test-artefacts"
RAIN = read_tree((Path(__file__).parents[1] / "rain_tree.json").read_bytes())  # as published, 568 nodes; an older file


@pytest.fixture
def opened(browser, tmp_path, request):
    """Opens a tree's file; keeps a picture of how the test leaves it. No request, no error, no dialog may occur."""
    troubles = []

    @contextlib.contextmanager
    def open_file(document, *, width=900, height=900, dark=False, touch=False):
        file = tmp_path / "tree.html"
        file.write_text(standalone(document), encoding="utf-8")
        context = browser.new_context(
            viewport={"width": width, "height": height}, color_scheme="dark" if dark else "light", has_touch=touch,
        )
        page = context.new_page()
        page.set_default_timeout(10_000)
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on("console", lambda message: message.type == "error" and troubles.append(message.text))
        page.on("dialog", lambda dialog: troubles.append(f"a script ran: {dialog.message}"))
        page.on("request", lambda asked: asked.url.startswith("file:") or troubles.append(asked.url))
        page.goto(file.as_uri())
        page.wait_for_selector(".explorer [role=treeitem]")
        try:
            yield page
            ARTEFACTS.mkdir(exist_ok=True)
            name = request.node.name.replace("/", "-")
            page.screenshot(path=ARTEFACTS / f"explorer_{name}.png")
        finally:
            context.close()

    yield open_file
    assert not troubles


def choose(page, view: str) -> None:
    page.get_by_role("button", name=view, exact=True).click()


def rows(page) -> list[str]:
    return page.locator("[role=treeitem] > .words").all_inner_texts()


def details(page) -> str:
    return page.inner_text(".details q")


def active(page) -> str:
    """The text of the row or the cell where the keyboard is."""
    return page.evaluate(
        "document.getElementById(document.querySelector('.body').getAttribute('aria-activedescendant'))"
        ".querySelector('.words')?.innerText"
    )


def set_share(page, percent: int) -> None:
    page.locator("input[type=range]").fill(str(percent))


@pytest.mark.parametrize("n", [50, 500, 5000])
@pytest.mark.parametrize("view", ["Tree", "Outline", "Icicle"])
def test_trees_of_any_size_are_drawn_without_leaving_the_window(opened, n, view):
    with opened(some_document(n, words=WORDS, branching=5)) as page:
        assert page.inner_text(".told").startswith(f"{n:,} nodes, ")
        choose(page, "Open all")
        choose(page, view)
        items = page.locator("[role=treeitem]")
        if view == "Icicle":
            assert 5 <= items.count() < 4000
        else:
            assert 5 <= items.count() <= 120, "only what can be seen is drawn"
            page.locator(".body").evaluate("body => body.scrollTop = body.scrollHeight")
            page.wait_for_timeout(100)
            body, last = page.locator(".body").bounding_box(), items.last.bounding_box()
            assert body["y"] <= last["y"] <= body["y"] + body["height"]
        assert page.evaluate("document.documentElement.scrollWidth") <= 900


@pytest.mark.parametrize("view", ["Tree", "Outline"])
def test_the_likeliest_branches_are_open_and_a_click_opens_others(opened, view):
    with opened(RAIN) as page:
        choose(page, view)
        assert page.locator("[aria-level='1']", has_text="water").get_attribute("aria-expanded") == "true"
        closed = page.locator("[role=treeitem][aria-expanded=false]").first
        words, before = closed.locator(".words").inner_text(), page.locator(".list").bounding_box()["height"]
        closed.click()
        assert page.locator("[role=treeitem].active > .words").inner_text() == words
        assert page.locator(".active").get_attribute("aria-expanded") == "true"
        assert page.locator(".list").bounding_box()["height"] > before
        choose(page, "Close all")
        assert rows(page) == ["a", "the", "water", "when", "A"]


def test_a_closed_phrase_tells_how_its_likeliest_answer_goes_on(opened):
    with opened(RAIN) as page:
        choose(page, "Close all")
        water = page.locator("[role=treeitem]", has_text="water").filter(has_text="■ 0.65%")
        assert water.locator(".preview").inner_text() == "that falls from the sky"
        below = int(water.locator(".more").inner_text().removeprefix("+"))
        choose(page, "Outline")
        assert water.locator(".preview").inner_text() == "that falls from the sky"
        water.click()
        assert water.locator(".preview").count() == 0
        choose(page, "Open all")
        assert below > 20


# ── The picture ─────────────────────────────────────────────────────────────────────────────────────────────────────


def boxes(page) -> dict[str, dict]:
    """Where the labels of the picture are, by their ids, with their texts."""
    return page.evaluate(
        "Object.fromEntries([...document.querySelectorAll('.branch')].map((label, i) => [label.id || `rest-${i}`,"
        " {...label.getBoundingClientRect().toJSON(), text: label.innerText}]))"
    )


@pytest.mark.parametrize("words", [WORDS, HOSTILE], ids=["words", "hostile"])
@pytest.mark.parametrize("scrolled", [0, 333, 10_000])
def test_no_two_labels_of_the_picture_overlap(opened, words, scrolled):
    with opened(some_document(300, words=words, branching=5)) as page:
        choose(page, "Open all")
        page.locator(".body").evaluate("(body, y) => body.scrollTop = y", scrolled)
        page.wait_for_timeout(100)
        placed = list(boxes(page).values())
        assert len(placed) > 10
        for i, one in enumerate(placed):
            for other in placed[:i]:
                apart = (
                    one["right"] <= other["left"] + 1 or other["right"] <= one["left"] + 1
                    or one["bottom"] <= other["top"] + 1 or other["bottom"] <= one["top"] + 1
                )
                assert apart, (one["text"], other["text"])


def test_the_likeliest_continuation_stands_on_the_line_of_its_phrase(opened):
    with opened(RAIN) as page:
        water, that = (
            page.locator(f"[aria-level='{level}']", has=page.locator(".words", has_text=words)).first.bounding_box()
            for level, words in ((1, "water"), (2, "that"))
        )
        assert water["y"] == that["y"]
        assert 40 <= that["x"] - (water["x"] + water["width"]) <= 60


def test_what_is_read_on_top_is_read_from_its_beginning(opened):
    """A phrase stays at the edge while a part of its branch is seen."""
    with opened(RAIN) as page:
        choose(page, "Open all")
        body = page.locator(".body").bounding_box()
        page.locator(".body").evaluate("body => body.scrollTop = 900")
        page.wait_for_timeout(100)
        on_top = [box for box in boxes(page).values() if abs(box["top"] - body["y"]) <= 3]
        assert len(on_top) >= 2
        assert min(on_top, key=lambda box: box["left"])["text"].split("\n")[0] in ("a", "the", "water", "when", "A")


def test_links_are_as_wide_as_their_phrases_are_probable(opened):
    with opened(RAIN) as page:
        widths = page.evaluate(
            "[...document.querySelectorAll('.explorer path')].map(link => parseFloat(link.style.strokeWidth))"
        )
        assert len(widths) > 10
        assert max(widths) > 1.5 * min(widths)
        page.locator("[role=treeitem]", has_text="falls").first.click()
        assert page.locator("path.on-path").count() == 2, "the links on the way to it are marked"


def test_a_narrow_window_has_the_outline_until_the_picture_is_chosen(opened):
    with opened(RAIN, width=390) as page:
        assert page.locator(".row").count() > 5 and page.locator(".branch").count() == 0
        choose(page, "Tree")
        assert page.locator(".branch").count() > 5
        assert page.evaluate("document.documentElement.scrollWidth") <= 390


# ── Reading and finding ─────────────────────────────────────────────────────────────────────────────────────────────


def test_hovering_tells_the_whole_definition_and_its_probability(opened):
    with opened(RAIN) as page:
        page.fill("input[type=search]", "falling from the sky")
        row = page.locator("[role=treeitem].match").first
        page.locator("[role=treeitem]").first.hover()
        assert details(page) == "a"
        row.hover()
        assert details(page) == "a drop of water falling from the sky"
        told = page.inner_text(".details span")
        assert "of all answers begin this way" in told and "of those that came to “water”" in told


def test_a_search_opens_what_it_finds_also_across_phrases(opened):
    with opened(RAIN) as page:
        choose(page, "Close all")
        page.fill("input[type=search]", "THAT FALLS FROM")
        assert page.locator(".match").count() >= 1
        assert int(page.inner_text(".found").split(" of ")[0]) >= 2
        first = details(page)
        page.press("input[type=search]", "Enter")
        second = details(page)
        assert first != second and "that falls from" in first and "that falls from" in second
        page.press("input[type=search]", "Shift+Enter")
        assert details(page) == first
        page.fill("input[type=search]", "no such words anywhere")
        assert page.inner_text(".found").startswith("0 of")
        assert page.locator(".match").count() == 0


def test_a_share_of_the_probability_leaves_the_fewest_endings_that_hold_it(opened):
    with opened(RAIN) as page:
        set_share(page, 50)
        told = page.inner_text(".told")
        endings = int(told.split(", ")[1].split(" of ")[0])
        assert 1 <= endings < 60
        assert page.locator(".rest").count() > 0
        before = page.locator("[role=treeitem]").count()
        page.locator(".rest").first.click()
        assert page.locator("[role=treeitem]").count() > before
        set_share(page, 100)
        assert page.locator(".rest").count() == 0
        assert page.inner_text(".told").startswith("568 nodes, ")


@pytest.mark.parametrize("view", ["Tree", "Outline"])
def test_the_whole_view_is_used_by_keyboard_alone(opened, view):
    with opened(RAIN) as page:
        page.locator("button", has_text=view).focus()
        page.keyboard.press("Enter")
        page.locator("input[type=range]").focus()
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.getAttribute('role')") == "tree"
        assert active(page) == "a"
        page.keyboard.press("End")
        assert active(page) == rows(page)[-1]
        page.keyboard.press("Home")
        page.keyboard.press("ArrowLeft")  # closes it
        page.keyboard.press("ArrowDown")
        assert active(page) == "the"
        page.keyboard.press("ArrowLeft")
        page.keyboard.press("ArrowDown")
        page.keyboard.press("ArrowRight")  # into the open "water"
        page.keyboard.press("ArrowRight")
        assert details(page).startswith("water ")
        page.keyboard.press("Enter")
        opened_row = page.locator("[role=treeitem].active")
        expanded = opened_row.get_attribute("aria-expanded")
        page.keyboard.press(" ")
        assert opened_row.get_attribute("aria-expanded") != expanded
        page.keyboard.press("ArrowLeft")  # up to "that"
        page.keyboard.press("ArrowLeft")  # closes it
        page.keyboard.press("ArrowLeft")
        assert active(page) == "water"
        assert page.evaluate("document.activeElement.getAttribute('role')") == "tree", "the focus stays"


def test_the_icicle_is_zoomed_by_click_and_by_keyboard(opened):
    with opened(RAIN) as page:
        choose(page, "Icicle")
        whole = page.locator(".cell[aria-level='1']", has_text="water").bounding_box()["height"]
        page.locator(".cell[aria-level='1']", has_text="water").click()
        zoomed = page.locator(".cell.active").bounding_box()["height"]
        assert zoomed > 1.5 * whole
        assert page.locator(".crumbs button").all_inner_texts()[:2] == ["All", "water"]
        page.locator(".body").focus()
        page.keyboard.press("ArrowRight")
        page.keyboard.press("Enter")
        assert page.locator(".crumbs button").count() == 3
        page.keyboard.press("Escape")
        page.keyboard.press("Backspace")
        assert not page.locator(".crumbs").is_visible()


def test_the_icicle_scrolls_to_the_cell_that_the_keyboard_reaches(opened):
    with opened(RAIN, width=390) as page:
        choose(page, "Icicle")
        page.locator("[aria-level='1']", has_text="water").click()
        page.locator(".body").focus()
        for _ in range(3):
            page.keyboard.press("ArrowRight")
            body, cell = page.locator(".body").bounding_box(), page.locator(".cell.active").bounding_box()
            assert body["x"] - 1 <= cell["x"] and cell["x"] + cell["width"] <= body["x"] + body["width"] + 1


def test_heights_of_the_icicle_are_probabilities(opened):
    with opened(RAIN) as page:
        choose(page, "Icicle")
        page.select_option("select", "all")
        inside = page.locator(".list").bounding_box()["height"]
        best = RAIN.tree.cumulative_prob[0]
        assert page.locator(".cell").first.bounding_box()["height"] == pytest.approx(best * inside, abs=2)
        page.select_option("select", "tree")
        tops = page.locator(".cell[aria-level='1']")
        filled = sum(tops.nth(i).bounding_box()["height"] + 1 for i in range(tops.count()))
        assert filled == pytest.approx(inside, abs=4)
        # Whatever the heights stand for, a phrase has one number: that of the other views.
        assert tops.first.locator(".percent").inner_text() == percent(best)


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_hostile_tokens_stay_text_on_a_phone_too(opened, dark):
    with opened(some_document(60, words=HOSTILE, branching=8), width=390, height=844, dark=dark, touch=True) as page:
        choose(page, "Open all")
        shown = " ".join(rows(page))
        for word in ("$x$", "<script>alert(1)</s", "&amp;", "\\n", "\\x00", "عربية"):
            assert word in shown, word
        assert page.locator(".body img, .body script").count() == 0
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        assert page.locator("button:visible").first.bounding_box()["height"] >= 30


def luminance(page, script: str) -> float:
    """Of a colour that the script gives as rgb(…), from 0 to 1."""
    canvas = f"""() => {{ const c = document.createElement('canvas').getContext('2d'); c.fillStyle = {script};
        c.fillRect(0, 0, 1, 1); return [...c.getImageData(0, 0, 1, 1).data] }}"""
    linear = [(v / 255 / 12.92) if v / 255 <= 0.03928 else ((v / 255 + 0.055) / 1.055) ** 2.4
              for v in page.evaluate(canvas)[:3]]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_texts_stand_out_in_light_and_dark(opened, dark):
    lifts = np.random.default_rng(0).uniform(-1, 8, (len(RAIN.tree), 2))
    checked = replace(RAIN, tree=replace(RAIN.tree, lifts=lifts, activation=lifts[:, 0]))
    with opened(checked, dark=dark) as page:
        page.fill("input[type=search]", "water")
        paper = luminance(page, "getComputedStyle(document.querySelector('.body')).backgroundColor")
        assert paper < 0.05 if dark else paper > 0.9
        seen = [f"{{}} {part}" for part in (".percent", ".more", ".end", ".preview")]
        seen += ["{}:not(.match) .words", ".told", ".found"]
        for where in dict.fromkeys(part.format(kind) for kind in (".branch", ".row") for part in seen):
            if where.startswith(".row"):
                choose(page, "Outline")
            ink = luminance(page, f"getComputedStyle(document.querySelector('{where}')).color")
            assert (max(ink, paper) + 0.05) / (min(ink, paper) + 0.05) >= 4.5, where


@pytest.mark.parametrize("view", ["Tree", "Outline", "Icicle"])
def test_colour_tells_the_lift(opened, view):
    """Of the first tokens, as they come: nothing, 3 nats, 6 and more."""
    first = np.flatnonzero(RAIN.tree.parent == ROOT)
    lifts = np.zeros((len(RAIN.tree), 2))
    lifts[first] = np.array([[-1, 3, 6, 9, 9]]).T
    with opened(replace(RAIN, tree=replace(RAIN.tree, lifts=lifts))) as page:
        choose(page, "Close all")
        choose(page, view)
        colours = page.evaluate(
            "[...document.querySelectorAll(\"[aria-level='1'] > .words\")].map(words => getComputedStyle(words).color)"
        )
        assert len(colours) == 5
        assert len(set(colours)) == 3 and colours[2] == colours[3] == colours[4]
        assert "lift from 0 to 6 nats" in page.inner_text(".legend")


@pytest.mark.parametrize(
    ("activation", "evidence", "told"),
    [(2.0, {"feature_maximum": 4.0}, "fires at 50% of its maximum"), (0.0, {"feature_maximum": 4.0}, "does not fire"),
     (2.5, {}, "fires: 2.5 (its maximum is not known)"), (2.5, {"feature_maximum": "<b>"}, "fires: 2.5 (its maximum")],
)
def test_the_details_tell_how_strongly_the_feature_fires_as_a_share_of_its_maximum(opened, activation, evidence, told):
    tree, n = RAIN.tree, len(RAIN.tree)
    checked = replace(tree, lifts=np.zeros((n, 2)), activation=np.full(n, activation))
    with opened(replace(RAIN, tree=checked, evidence=evidence)) as page:
        page.locator("[role=treeitem]").first.hover()
        assert told in page.inner_text(".explorer")


def test_an_empty_tree_says_what_to_do(browser, tmp_path):
    file = tmp_path / "tree.html"
    file.write_text(standalone(RAIN.trimmed(0.9)), encoding="utf-8")
    page = browser.new_page()
    page.goto(file.as_uri())
    assert "Lower it" in page.inner_text(".explorer")
    choose(page, "Icicle")
    page.locator(".body").press("ArrowDown")
    page.close()


def test_a_file_whose_probabilities_are_all_nought_is_shown_without_harm(opened):
    nothing = np.zeros(len(RAIN.tree))
    with opened(replace(RAIN, tree=replace(RAIN.tree, cumulative_prob=nothing))) as page:
        page.locator("[role=treeitem]").first.hover()
        assert "NaN" not in page.inner_text(".explorer")
        choose(page, "Icicle")
        assert page.locator(".cell").count() == 0


def test_the_legend_explains_what_the_view_has(opened):
    with opened(RAIN) as page:
        legend = page.locator(".legend")
        assert "+9" in legend.inner_text() and "a definition ends" in legend.inner_text()
        choose(page, "Icicle")
        assert "+9" not in legend.inner_text() and "a definition ends" in legend.inner_text()
        choose(page, "Outline")
        assert "+9" in legend.inner_text()
