"""The page for those who see little, hear it, use the keyboard alone, or hold a phone."""

from pathlib import Path

import pytest
from visit import opened

CONTRAST = Path(__file__).with_name("contrast.js").read_text(encoding="utf-8")
PHONE = {"width": 390, "height": 844}
FINGER = 44  # pixels


def tabs(page) -> list:
    """The buttons of the page's own tabs, without those of the figure."""
    return page.locator("#tabs > .tab-wrapper [role=tab]").all()


@pytest.fixture
def phone(browser, app_url):
    with opened(browser, app_url) as page:
        page.set_viewport_size(PHONE)
        page.reload()
        page.wait_for_selector("#tree-view [role=treeitem]")
        page.wait_for_selector("#vector-fold > .label-wrap:not(.open)")
        yield page


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_text_is_told_from_its_ground(page, app_url, theme):
    page.goto(f"{app_url}/?__theme={theme}")
    page.wait_for_selector("#tree-view [role=treeitem]")
    for label in page.locator(".gradio-container button.label-wrap:not(.open)").all():  # what is folded
        if label.is_visible():
            label.click()
    hard = {}
    for tab in tabs(page):
        tab.click()
        page.wait_for_timeout(700)  # colours change by and by
        for told in page.evaluate(CONTRAST):
            hard.setdefault(told, tab.inner_text())
    assert not hard, "\n".join(f"{tab}: {told}" for told, tab in hard.items())


def test_a_verdict_and_an_error_are_told_from_their_ground(page):
    page.fill("#feature input", "none")
    page.click("#grow")
    page.locator(".toast-body").wait_for()
    page.wait_for_selector("#tree-view .empty")  # until then there is a greyed tree
    page.wait_for_timeout(700)
    assert page.evaluate(CONTRAST) == []


def test_a_phone_shows_all_tabs_and_nothing_beside_the_screen(phone):
    for tab in tabs(phone):
        tab.click()
        box = tab.bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= PHONE["width"], tab.inner_text()
        phone.wait_for_timeout(300)
        assert phone.evaluate("document.documentElement.scrollWidth") <= PHONE["width"], tab.inner_text()
    assert not phone.locator("#tabs > .tab-wrapper .overflow-menu > button").is_visible()


def test_a_phone_has_the_result_before_the_controls_which_are_folded(phone):
    def top(selector: str) -> float:
        return phone.locator(selector).bounding_box()["y"]

    assert top("#choice") < top("#tabs") < top("#tree-view") < top("#vector")
    assert not phone.locator("#weights").is_visible() and not phone.locator("#prompt").is_visible()
    assert phone.locator("#tree-view .explorer").get_attribute("data-mode") == "outline"
    phone.click("#vector-fold > .label-wrap")
    phone.locator("#weights").wait_for()


def test_what_a_finger_touches_is_large_enough(phone):
    small = {}
    for tab in tabs(phone):
        tab.click()
        phone.wait_for_timeout(300)
        found = phone.evaluate(
            """least => [...document.querySelectorAll("#layout :is(button, input:not([type=range]), textarea)")]
               .filter(control => control.checkVisibility({ visibilityProperty: true }) && !control.disabled)
               .map(control => ["checkbox", "radio"].includes(control.type) ? control.closest("label") : control)
               .map(control => [control, control.getBoundingClientRect()])
               .filter(([, box]) => box.width > 1 && (box.height < least - 0.5 || box.width < least - 0.5))
               .map(([control, box]) => `${control.closest("[id]")?.id} ${control.className} ${control.innerText}: `
                 + `${box.width.toFixed(0)} x ${box.height.toFixed(0)}`)""",
            FINGER,
        )
        small |= dict.fromkeys(found, tab.inner_text())
    assert not small, "\n".join(f"{tab}: {told}" for told, tab in small.items())


def test_the_keyboard_leaps_over_the_controls_and_its_place_is_always_seen(page):
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.innerText") == "Skip to the result"
    assert page.evaluate("document.activeElement.getBoundingClientRect().top >= 0")
    unseen = []
    for _ in range(60):
        page.keyboard.press("Tab")
        told = page.evaluate(
            """() => { const at = document.activeElement, seen = [at, at.parentElement, at.closest("label")]
                 .filter(Boolean).some(part => { const of = getComputedStyle(part);
                   return of.outlineStyle !== "none" && parseFloat(of.outlineWidth) >= 1 || of.boxShadow !== "none" });
               // Nothing has it for a moment where a menu's list has closed behind it.
               return seen || at === document.body ? "" : at.outerHTML.slice(0, 120) }"""
        )
        unseen += [told] * bool(told)
    assert not unseen, "\n".join(unseen)
    page.reload()
    page.wait_for_selector("#tree-view .explorer")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.closest('#result') !== null")


def test_headings_go_down_step_by_step(page):
    levels = [
        int(heading.get_attribute("aria-level") or heading.evaluate("element => element.tagName")[1:])
        for heading in page.get_by_role("heading").all()
    ]
    assert levels[0] == 1 and levels.count(1) == 1 and {2, 3} <= set(levels)
    assert all(after <= before + 1 for before, after in zip(levels, levels[1:], strict=False)), levels


NAMED = {"button", "checkbox", "combobox", "grid", "link", "radio", "searchbox", "slider", "spinbutton", "tab", "table",
         "textbox", "tree"}


def nameless(session) -> set[tuple[str, str]]:
    """The controls of the page that assistive technology has no name for: their roles and attributes."""
    found = set()
    for node in session.send("Accessibility.getFullAXTree")["nodes"]:
        role = node.get("role", {}).get("value")
        if role in NAMED and not node["ignored"] and not node.get("name", {}).get("value", "").strip():
            described = session.send("DOM.describeNode", {"backendNodeId": node["backendDOMNodeId"]})["node"]
            found.add((role, str(described.get("attributes"))))
    return found


def test_every_control_has_a_name(page):
    session = page.context.new_cdp_session(page)
    for tab in tabs(page):
        tab.click()
        page.wait_for_timeout(300)
        for _ in range(20):  # a control that has just come is given its name a moment later
            if not (found := nameless(session)):
                break
            page.wait_for_timeout(250)
        assert not found, (tab.inner_text(), found)


def test_what_the_page_does_is_said_and_an_error_calls_controls_by_their_labels(page):
    said = page.locator("#head [role=status]")
    assert said.inner_text() == ""
    page.get_by_text("Prompt and growth").click()
    page.fill("#cutoff input", "often")
    page.press("#cutoff input", "Enter")
    page.click("#grow")
    sentence = "“Cutoff” is 'often'; it must be a number"
    page.locator(".toast-body", has_text=sentence).wait_for()
    page.wait_for_function(
        "words => document.querySelector('#head [role=status]').textContent.startsWith(words)", arg=sentence
    )
    page.locator(".toast-body").wait_for(state="detached", timeout=20_000)  # it fades; the status keeps what it said


def test_tables_have_captions(page):
    page.get_by_role("tab", name="Find").click()
    page.fill("#find-by textarea", "rain")
    page.click("#find")
    page.locator("#found tbody tr").first.wait_for()
    tables = page.locator("#layout table:visible").all()
    assert tables and all(table.locator("caption").count() or table.get_attribute("aria-label") for table in tables)
