"""The page in a real browser, as a person uses it."""

import csv
import io
import json
from pathlib import Path

import pytest
from visit import open_growth

ARTEFACTS = Path(__file__).parents[2] / "test-artefacts"


@pytest.fixture(autouse=True)
def _screenshot(page, request):
    """A picture of the page as each test leaves it, to look at."""
    yield
    ARTEFACTS.mkdir(exist_ok=True)
    page.screenshot(path=ARTEFACTS / f"{request.node.name}.png", full_page=True)


def picture(page) -> str:
    return page.get_attribute("#tree-picture img", "src")


def status(page) -> str:
    return page.input_value("#status textarea")


def wait_for_status(page, text: str) -> None:
    page.wait_for_function("text => document.querySelector('#status textarea').value.includes(text)", arg=text)


def wait_for_new_picture(page, old: str) -> None:
    page.wait_for_function("old => document.querySelector('#tree-picture img')?.src !== old", arg=old)


def set_cutoff(page, cutoff: str) -> None:
    open_growth(page)
    box = page.locator("#cutoff input")
    box.fill(cutoff)
    box.press("Enter")


def grow(page, cutoff: str = "1e-3") -> None:
    """Grow with few nodes, and wait until the new tree is shown."""
    set_cutoff(page, cutoff)
    before = picture(page)
    page.click("#grow")
    wait_for_new_picture(page, before)
    wait_for_status(page, f"at cutoff {float(cutoff):.3g}")


def download(page, button: str) -> bytes:
    with page.expect_download() as caught:
        page.click(button)
    return Path(caught.value.path()).read_bytes()


def definitions(page) -> list[str]:
    return page.locator("#definitions .virtual-row [role=gridcell]:nth-child(2)").all_inner_texts()


def test_the_page_opens_on_a_tree_that_shows_what_the_tool_is_for(page):
    assert any("water falling from the sky" in text for text in definitions(page))
    assert page.evaluate("document.querySelector('#tree-picture img').naturalWidth") >= 800


def test_growing_trimming_and_downloading_a_tree(page):
    grow(page)
    whole = json.loads(download(page, "#json"))
    assert whole["schema"] == "sae-multitool/definition-tree/1"
    assert whole["settings"]["cutoff"] == 1e-3
    assert whole["result"]["complete"]

    before = picture(page)
    slider = page.locator("#trim input[type=range]")
    slider.focus()
    for _ in range(20):  # twenty steps of 0.05: one power of ten
        page.keyboard.press("ArrowRight")
    slider.dispatch_event("pointerup")
    wait_for_new_picture(page, before)
    wait_for_status(page, "at cutoff 0.01")
    trimmed = json.loads(download(page, "#json"))
    assert 0 < trimmed["result"]["nodes"] < whole["result"]["nodes"]
    assert trimmed["settings"]["cutoff"] == 1e-3

    assert download(page, "#png").startswith(b"\x89PNG")
    svg = download(page, "#svg").decode()
    assert svg.startswith("<?xml") and "demo/hook_embed" in svg


def test_an_example_grows_with_one_click(page):
    before = picture(page)
    page.get_by_role("button", name="prison").click()
    wait_for_new_picture(page, before)
    assert page.input_value("#feature input") == "648"
    assert any("held" in text for text in definitions(page))


def test_stopping_shows_the_tree_as_far_as_it_has_grown(page):
    set_cutoff(page, "1e-7")
    page.locator("#evidence").wait_for()
    page.click("#grow")
    wait_for_status(page, "2 tokens deep")
    before = picture(page)
    page.click("#stop")
    wait_for_new_picture(page, before)
    wait_for_status(page, "Not whole: it was stopped")
    assert json.loads(download(page, "#json"))["result"]["complete"] is False


def test_a_list_of_tokens_and_its_csv(page):
    page.get_by_role("tab", name="Token list").click()
    page.click("#list")
    page.locator("#tokens [role=gridcell]", has_text="␣rain").first.wait_for()
    rows = list(csv.DictReader(io.StringIO(download(page, "#csv").decode())))
    assert len(rows) == 100
    assert rows[0]["token"] == " rain"


def test_a_saved_tree_opens_again_and_hostile_tokens_stay_text(page, tmp_path):
    saved = json.loads(download(page, "#json"))
    hostile = "<img src=x onerror=alert(1)> $x$ **bold**\n\x00\u202e"
    node = {"token_id": 1, "token": hostile, "prob": 0.5, "cumulative_prob": 0.5, "children": [], "end": False}
    saved["tree"]["children"] = [node]
    file = tmp_path / "tree.json"
    file.write_text(json.dumps(saved))
    page.on("dialog", lambda dialog: pytest.fail(f"a token ran as a script: {dialog.message}"))
    with page.expect_file_chooser() as chooser:
        page.click("#open")
    chooser.value.set_files(file)
    wait_for_status(page, "1 nodes")
    assert definitions(page) == [r"<img src=x onerror=alert(1)> $x$ **bold**\n\x00\u202e"]
    assert page.locator("#definitions img").count() == 0


def test_an_error_says_what_to_do_and_shows_its_values_as_text(page):
    open_growth(page)
    page.fill("#prompt textarea", "<img src=x onerror=alert(1)> no place")
    page.on("dialog", lambda dialog: pytest.fail(f"a prompt ran as a script: {dialog.message}"))
    page.click("#grow")
    toast = page.locator(".toast-body")
    toast.wait_for()
    assert "exactly once" in toast.inner_text()
    assert "<img src=x onerror=alert(1)>" in toast.inner_text()
    assert toast.locator("img").count() == 0
    wait_for_status(page, "568 nodes at cutoff 5e-05")  # still the tree that is shown


def test_the_next_feature_is_one_click_away(page):
    page.get_by_role("button", name="Next").click()
    page.wait_for_function("document.querySelector('#feature input').value === '928'")


def test_a_phone_shows_everything_without_scrolling_sideways(browser, app_url, page):
    page.set_viewport_size({"width": 390, "height": 844})
    page.wait_for_timeout(500)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def choose(page, box: str, text: str) -> None:
    field = page.locator(f"{box} input")
    field.fill(text)
    field.press("Enter")


def test_another_model_lists_its_saes_and_says_what_it_takes_without_fetching_anything(page):
    choose(page, "#model", "google/gemma-2b")
    page.wait_for_function("document.querySelector('#sae input').value.startsWith('gemma-2b-res-jb/blocks.')")
    page.get_by_text("0 to 16,383").wait_for()
    page.get_by_text("must be accepted first").wait_for()
    assert page.locator("#evidence a", has_text="licence").get_attribute("href").endswith("/google/gemma-2b")

    # Typed from another model's list, an SAE brings its model with it.
    choose(page, "#sae", "gpt2-small-res-jb/blocks.3.hook_resid_pre")
    page.wait_for_function("document.querySelector('#model input').value === 'openai-community/gpt2'")
    page.get_by_text("0 to 24,575").wait_for()


def test_a_model_that_cannot_be_had_is_told_and_the_page_goes_on(page):
    before = picture(page)
    choose(page, "#sae", "gemma-2b-res-jb/blocks.6.hook_resid_post")
    page.wait_for_function("document.querySelector('#model input').value === 'google/gemma-2b'")
    page.click("#grow")
    toast = page.locator(".toast-body", has_text="hub cannot be reached")
    toast.wait_for()
    assert "gemma-2b-res-jb/blocks.6.hook_resid_post" in toast.inner_text()
    page.get_by_role("button", name="prison").click()
    wait_for_new_picture(page, before)


def test_a_scale_of_ones_own(page):
    page.locator("#usual-scale input").uncheck()
    number = page.locator("#scale input[type=number]")
    number.wait_for()
    assert number.input_value() == "2.39"
    number.fill("3.5")
    number.press("Tab")
    grow(page, "2e-2")
    assert json.loads(download(page, "#json"))["settings"]["scale"] == 3.5


def test_a_stopped_tree_is_grown_on(page):
    set_cutoff(page, "2e-4")
    page.click("#grow")
    wait_for_status(page, "2 tokens deep")
    before = picture(page)
    page.click("#stop")
    wait_for_new_picture(page, before)
    before = picture(page)
    page.click("#go-on")
    wait_for_new_picture(page, before)
    wait_for_status(page, "at cutoff 0.0002")
    assert json.loads(download(page, "#json"))["result"]["complete"] is True
    assert not page.locator("#go-on").is_visible()
