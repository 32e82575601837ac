"""The page's address in a real browser: it follows what is shown; reload, Back, Forward and links lead there again."""

import re

import pytest
from playwright.sync_api import expect
from visit import opened, write

pytestmark = pytest.mark.slow
SAE = "demo/hook_embed"
SMALL = "cutoff=2e-3&top_k=5"  # grows in a second


def query(page) -> str:
    return page.evaluate("location.search")


def wait_for_query(page, part: str) -> None:
    page.wait_for_function("part => location.search.includes(part)", arg=part)


def wait_for_tree(page, feature: int) -> None:
    """Wait until the whole tree of a feature is shown, under controls that show the same."""
    page.wait_for_function(
        "feature => document.querySelector('#tree-title')?.innerText.endsWith(feature) && "
        "/^[0-9,]+ nodes at cutoff/.test(document.querySelector('#status textarea')?.value)",
        arg=f"{SAE} · feature {feature} · encoder",
    )
    assert page.input_value("#feature input") == str(feature)


def grow(page, feature: int) -> None:
    write(page, "#feature input", str(feature))
    page.locator("#feature input").press("Tab")
    page.click("#grow")
    wait_for_tree(page, feature)


def tab(page) -> str:
    return page.locator("#tabs [role=tab][aria-selected=true]").first.inner_text()


def entries(page) -> int:
    return page.evaluate("history.length")


def test_the_address_follows_trees_and_leads_back_and_forward_to_them(page, app_url):
    assert query(page) == "", "the page as it opens needs none"
    grow(page, 648)
    wait_for_query(page, f"?sae={SAE}&feature=648")
    grow(page, 152)
    wait_for_query(page, "feature=152")
    there = entries(page)
    page.go_back()
    wait_for_tree(page, 648)
    assert query(page) == f"?sae={SAE}&feature=648"
    page.go_back()
    wait_for_tree(page, 927)
    assert query(page) == ""
    page.go_forward()
    wait_for_tree(page, 648)
    page.go_forward()
    wait_for_tree(page, 152)
    assert (query(page), entries(page)) == (f"?sae={SAE}&feature=152", there), "nothing is added by going back"
    page.reload()
    wait_for_tree(page, 152)
    assert query(page) == f"?sae={SAE}&feature=152"


def test_the_same_once_more_adds_nothing_to_the_history(page):
    there = entries(page)
    page.click("#grow")
    wait_for_tree(page, 927)
    page.wait_for_timeout(500)
    assert entries(page) == there
    page.locator("a.skip").evaluate("link => link.click()")  # a place in the page is no other page
    grow(page, 648)
    wait_for_query(page, "feature=648")


def test_tabs_are_in_the_address_with_what_they_show(page):
    grow(page, 648)
    wait_for_query(page, "feature=648")
    page.get_by_role("tab", name="Token list").click()
    wait_for_query(page, f"?view=list&sae={SAE}&feature=648")
    page.click("#list")
    page.locator("#tokens [role=gridcell]", has_text="␣prison").first.wait_for()
    page.get_by_role("tab", name="Text").click()
    wait_for_query(page, f"?view=text&sae={SAE}&feature=648")
    write(page, "#text textarea", "He went to prison & stayed.")
    page.click("#read")
    wait_for_query(page, "&text=He+went+to+prison+%26+stayed.")
    page.get_by_role("tab", name="Definition tree").click()
    wait_for_query(page, f"?sae={SAE}&feature=648")
    page.go_back()
    wait_for_query(page, "view=text")
    expect(page.locator("#fires .fires")).to_be_visible()
    page.go_back()
    wait_for_query(page, "view=list")
    expect(page.locator("#tokens")).to_be_visible()
    page.go_back()
    wait_for_query(page, f"?sae={SAE}")
    wait_for_tree(page, 648)
    expect(page.locator("#tree-view")).to_be_visible()
    page.reload()
    wait_for_tree(page, 648)


@pytest.mark.parametrize(
    ("link", "name", "shows", "text"),
    [
        (f"sae={SAE}&feature=648", "Definition tree", "#tree-view", "person"),
        (f"sae={SAE}&feature=648&weights=encoder&{SMALL}", "Definition tree", "#tree-view", "person"),
        (f"view=list&sae={SAE}&feature=648&measure=cosine&top=10", "Token list", "#tokens", "␣imprison"),
        (f"view=text&sae={SAE}&feature=648&text=In+prison", "Text", "#fires", "In prison"),
        (f"view=prompts&sae={SAE}&feature=648&prompts=definition%0Ameaning&cutoff=1e-2", "Prompts", "#answers",
         "forced labor"),
        (f"view=find&sae={SAE}&find=prison&way=tokens", "Find", "#found", "648"),
        (f"view=steer&sae={SAE}&feature=927&text=I+saw&strengths=0.4&length=3", "Steer", "#steered", "I saw"),
        (f"view=suggest&sae={SAE}&feature=648", "Suggest settings", "#suggest", "Try the settings"),
    ],
)
def test_a_link_to_a_view_opens_it_with_its_result(browser, app_url, link, name, shows, text):
    with opened(browser, f"{app_url}/?{link}", shows=f"{shows}:visible") as page:
        expect(page.locator(shows)).to_contain_text(text, timeout=60_000)
        assert tab(page) == name
        assert page.input_value("#sae input") == SAE
        assert page.input_value("#feature input") == ("648" if "648" in link else "927")
        told = page.locator(".link-box:visible input")
        if name not in ("Suggest settings", "Definition tree"):
            expect(told.first).to_have_value(re.compile(re.escape(f"{app_url}/?{link.split('&')[0]}&sae={SAE}")),
                                              timeout=60_000)
        there = entries(page)
        page.reload()
        expect(page.locator(shows)).to_contain_text(text, timeout=60_000)
        assert (tab(page), entries(page)) == (name, there)


def test_a_comparison_has_a_link(page, browser, app_url):
    page.click("#keep")
    page.wait_for_selector("#kept-view .explorer")
    grow(page, 648)
    wait_for_query(page, "beside=")
    page.wait_for_selector("#comparison .comparison")
    said = page.inner_text("#comparison")
    with opened(browser, page.url, shows="#comparison .comparison") as other:
        wait_for_tree(other, 648)
        expect(other.locator("#comparison")).to_have_text(said, use_inner_text=True)
        assert "927" in other.inner_text("#kept-name")
    page.click("#drop")
    page.wait_for_function("!location.search.includes('beside')")
    page.go_back()
    page.wait_for_selector("#comparison .comparison")
    page.go_back()
    wait_for_tree(page, 927)
    page.wait_for_selector("#kept-view", state="hidden")


def test_a_text_that_is_too_long_for_a_link_has_none(page):
    page.get_by_role("tab", name="Text").click()
    write(page, "#text textarea", " —" * 450)
    page.click("#read")
    page.wait_for_selector("#fires .fires")
    box = page.locator("#text-link input")
    assert box.input_value() == ""
    assert "can have 4,000 at most: the text is too long" in box.get_attribute("placeholder")
    assert query(page) == f"?view=text&sae={SAE}&feature=927"


def test_what_a_link_says_is_text(browser, app_url):
    script = "%3Cimg+src%3Dx+onerror%3Dalert(1)%3E"
    with opened(browser, f"{app_url}/?view={script}&feature=3", shows=".toast-body") as page:
        page.on("dialog", lambda dialog: pytest.fail(f"a link ran as a script: {dialog.message}"))
        assert "valid are find, list" in page.inner_text(".toast-body")
        page.wait_for_selector("#tree-view .empty")
        page.goto(f"{app_url}/?view=text&feature=3&text={script}")
        page.wait_for_selector("#fires .fires")
        assert "<img src=x onerror=alert(1)>" in page.inner_text("#fires .fires")


def test_in_a_frame_of_the_hub_its_page_is_told(browser, app_url):
    context = browser.new_context(permissions=["local-network-access"])  # here the Space is this machine
    page = context.new_page()
    page.set_default_timeout(60_000)
    outer = (
        "<script>addEventListener('message', ({origin, data}) => { if (data.queryString !== undefined) "
        "document.title = JSON.stringify([origin, data]); })</script>"
        f"<iframe src='{app_url}/?__theme=dark&__sign=secret&feature=648&cutoff=2e-3' width=1000 height=900></iframe>"
    )
    page.route("https://huggingface.co/**", lambda route: route.fulfill(body=outer, content_type="text/html"))
    page.goto("https://huggingface.co/spaces/somebody/some-space")
    page.wait_for_function("document.title.includes('cutoff')")
    told = f'["{app_url}",{{"queryString":"__theme=dark&sae=demo/hook_embed&feature=648&cutoff=0.002"}}]'
    assert page.title() == told, "the key of a private Space is told to nobody"
    context.close()


def test_what_others_put_into_the_address_stays(browser, app_url):
    with opened(browser, f"{app_url}/?__theme=dark") as page:
        grow(page, 648)
        wait_for_query(page, f"?__theme=dark&sae={SAE}&feature=648")
