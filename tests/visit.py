"""The app's page in a real browser, as a visitor opens it."""

import contextlib


@contextlib.contextmanager
def opened(browser, url: str, shows: str = "#tree-view .explorer"):
    """The page, freshly opened until the context ends; fails on an error in the page's own scripts.

    Args:
        shows: what is seen once it is there.
    """
    context = browser.new_context(viewport={"width": 1280, "height": 900}, accept_downloads=True)
    page = context.new_page()
    page.set_default_timeout(60_000)
    errors = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(url)
    page.wait_for_selector(shows)
    try:
        yield page
    finally:
        context.close()
    assert not errors, errors


def open_growth(page) -> None:
    """Unfold the controls of prompt and growth."""
    page.get_by_text("Prompt and growth").click()
    page.locator("#prompt textarea").wait_for()


def write(page, selector: str, text: str) -> None:
    """Type into a control until it stays there: one that has just appeared is still given its first value.

    How long that takes depends on whether the browser has the control's code already, and on what else it does.
    """
    box = page.locator(selector)
    for _ in range(20):
        box.fill(text)
        page.wait_for_timeout(300)
        if box.input_value() == text:
            return
    raise AssertionError(f"{selector} shows {box.input_value()!r}, not {text!r}")
