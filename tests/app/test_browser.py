"""The page in a real browser, as a person uses it."""

import json
import re
from pathlib import Path

import csv_files
import numpy as np
import pytest
from visit import open_growth, write

from multitool.store.demo_models import DEMO_MODEL

ARTEFACTS = Path(__file__).parents[2] / "test-artefacts"
CLAMP = "#clamp input, #clamp textarea"
INTERVENE = "#intervene input"


@pytest.fixture(autouse=True)
def _screenshot(page, request):
    """A picture of the page as a test leaves it that fails, to look at."""
    yield
    if request.node.failed:
        ARTEFACTS.mkdir(exist_ok=True)
        page.screenshot(path=ARTEFACTS / f"{request.node.name}.png", full_page=True)


def view(page) -> str:
    """A number that is another one when another tree has been shown."""
    return page.get_attribute("#tree-view [data-shown]", "data-shown")


def status(page) -> str:
    return page.input_value("#status textarea")


def wait_for_status(page, text: str) -> None:
    page.wait_for_function("text => document.querySelector('#status textarea').value.includes(text)", arg=text)


def wait_for_whole_tree(page) -> None:
    """Wait until a tree that is growing has grown to its end."""
    page.wait_for_function("/^[0-9,]+ nodes at cutoff/.test(document.querySelector('#status textarea').value)")


def wait_for_new_view(page, old: str) -> None:
    page.wait_for_function(
        "old => document.querySelector('#tree-view [data-shown]')?.dataset.shown !== old", arg=old
    )


def set_cutoff(page, cutoff: str) -> None:
    if not page.locator("#cutoff input").is_visible():
        open_growth(page)
    write(page, "#cutoff input", cutoff)
    page.press("#cutoff input", "Enter")


def grow(page, cutoff: str = "1e-3") -> None:
    """Grow with few nodes, and wait until the new tree is shown."""
    set_cutoff(page, cutoff)
    before = view(page)
    page.click("#grow")
    wait_for_new_view(page, before)
    wait_for_status(page, f"at cutoff {float(cutoff):.3g}")


def download(page, button: str) -> bytes:
    with page.expect_download() as caught:
        page.click(button)
    return Path(caught.value.path()).read_bytes()


def title(page, result: str = "tree") -> str:
    """What stands above a result, without the words on its controls."""
    return page.inner_text(f"#{result}-title b")


def wait_until_changed(page, changed: bool = True, result: str = "tree") -> None:
    """Wait until a result is greyed because the controls have changed; or, like its title, as usual."""
    mark = page.locator(f"#{result}-title .changed")
    mark.wait_for(state="visible" if changed else "hidden")
    assert not changed or mark.inner_text() == "the controls have changed"


def wait_for_opacity(page, view: str, opacity: float) -> None:
    """Wait until a view has faded, or is back."""
    page.wait_for_function(
        "([view, opacity]) => getComputedStyle(document.querySelector(view)).opacity === opacity",
        arg=[view, str(opacity)],
    )


def definitions(page) -> list[str]:
    return page.locator("#definitions .virtual-row [role=gridcell]:nth-child(2)").all_inner_texts()


def test_the_page_opens_on_a_tree_that_shows_what_the_tool_is_for(page):
    assert any("water falling from the sky" in text for text in definitions(page))
    assert "water" in page.inner_text("#tree-view")
    assert "end within the tree" in page.inner_text("#coverage")
    assert "nats" in page.inner_text("#coverage")
    assert title(page) == "demo/hook_embed · feature 927 · encoder"
    wait_until_changed(page, False)


def test_a_tree_is_greyed_as_long_as_its_controls_have_changed(page):
    feature = page.locator("#feature input")
    feature.fill("648")
    wait_until_changed(page)
    assert title(page) == "demo/hook_embed · feature 927 · encoder"  # still what is shown
    wait_for_opacity(page, "#tree-view", 0.4)
    feature.fill(" 927")
    wait_until_changed(page, False)
    wait_for_opacity(page, "#tree-view", 1)
    open_growth(page)
    write(page, "#prompt textarea", "no place")  # no recipe at all
    wait_until_changed(page)
    choose(page, "#prompt-menu", "meaning: often in one word")
    page.wait_for_function("document.querySelector('#prompt textarea').value.includes('meaning')")
    choose(page, "#prompt-menu", "definition: ")
    wait_until_changed(page, False)

    # What fires the feature says nothing of a vector that it has no part in.
    assert "precipitation" in page.inner_text("#card")
    page.locator("#weights input[value=random]").check()
    page.wait_for_selector("#card .feature-card", state="hidden")
    wait_until_changed(page)
    before = view(page)
    page.get_by_role("button", name="prison").click()
    wait_for_new_view(page, before)
    wait_for_whole_tree(page)
    wait_until_changed(page, False)
    assert title(page) == "demo/hook_embed · feature 648 · encoder"
    assert "prisoner" in page.inner_text("#card")


def test_a_menu_that_is_left_as_it_was_changes_nothing(page):
    choose(page, "#sae", "demo/blocks.6.hook_resid_post")
    page.get_by_text("Trees by vocabulary: the tokens that fire it").wait_for()
    page.locator("#weights input[value=decoder]").check()
    page.click("#model input")
    page.click("#head")
    page.fill("#model input", "no such")
    page.keyboard.press("Tab")
    page.click("#sae input")
    page.click("#head")
    page.wait_for_timeout(1000)
    assert page.input_value("#sae input") == "demo/blocks.6.hook_resid_post"
    assert weights(page) == "decoder"
    choose(page, "#sae", "gpt2-small-res-jb/blocks.3.hook_resid_pre")
    page.wait_for_function("document.querySelector('#model input').value === 'openai-community/gpt2'")
    page.fill("#sae input", "blocks.")
    page.get_by_role("option", name="gpt2-small-res-jb/blocks.5.hook_resid_pre").wait_for()
    assert page.get_by_role("option", name="demo/blocks").count() == 0


def test_growing_trimming_and_downloading_a_tree(page):
    grow(page)
    whole = json.loads(download(page, "#json"))
    assert whole["schema"] == "sae-multitool/definition-tree/1"
    assert whole["settings"]["cutoff"] == 1e-3
    assert whole["result"]["complete"]

    before = view(page)
    page.click("#trim input")
    page.get_by_role("option", name="1e-2").click()
    wait_for_new_view(page, before)
    wait_for_status(page, "at cutoff 0.01")
    trimmed = json.loads(download(page, "#json"))
    assert 0 < trimmed["result"]["nodes"] < whole["result"]["nodes"]
    assert trimmed["settings"]["cutoff"] == 1e-3

    before = view(page)
    box = page.locator("#trim input")
    box.fill("0.004")  # one that is not in the menu
    box.press("Enter")
    wait_for_new_view(page, before)
    wait_for_status(page, "at cutoff 0.004")
    box.fill("often")
    box.press("Enter")
    page.locator(".toast-body", has_text="cutoff is 'often'; it must be a number").wait_for()

    page_of_its_own = download(page, "#html").decode()
    assert page_of_its_own.startswith("<!DOCTYPE html>") and "demo/hook_embed" in page_of_its_own


def figure_tab(page) -> None:
    page.get_by_role("tab", name="Figure").click()
    page.wait_for_selector("#tree-picture img")


def picture(page) -> str:
    return page.get_attribute("#tree-picture img", "src")


def wait_for_new_picture(page, old: str) -> None:
    page.wait_for_function("old => document.querySelector('#tree-picture img')?.src !== old", arg=old)


def width(page) -> int:
    page.wait_for_function("document.querySelector('#tree-picture img')?.complete")
    return page.evaluate("document.querySelector('#tree-picture img').naturalWidth")


def test_the_figure_is_drawn_as_wanted_and_downloaded_in_three_formats(page):
    figure_tab(page)
    before, usual = picture(page), width(page)
    assert usual >= 800
    choose(page, "#dpi", "print, 300")
    wait_for_new_picture(page, before)
    assert width(page) == pytest.approx(2 * usual, abs=2)
    before = picture(page)
    page.locator("#dark input").check()
    wait_for_new_picture(page, before)
    assert download(page, "#png").startswith(b"\x89PNG")
    assert download(page, "#pdf").startswith(b"%PDF")
    svg = download(page, "#svg").decode()
    assert svg.startswith("<?xml") and "demo/hook_embed" in svg
    before = picture(page)
    page.get_by_role("button", name="prison").click()  # the next tree is drawn too
    wait_for_new_picture(page, before)


def test_an_example_grows_with_one_click(page):
    before = view(page)
    page.get_by_role("button", name="prison").click()
    wait_for_new_view(page, before)
    wait_for_whole_tree(page)
    assert page.input_value("#feature input") == "648"
    assert any("held" in text for text in definitions(page))


def test_stopping_shows_the_tree_as_far_as_it_has_grown(page):
    set_cutoff(page, "1e-7")
    page.click("#grow")
    wait_for_status(page, "tokens deep")
    page.click("#stop")
    wait_for_status(page, "Not whole: “Go on” grows the rest")
    assert json.loads(download(page, "#json"))["result"]["complete"] is False


def test_a_list_of_tokens_and_its_csv(page):
    page.get_by_role("tab", name="Token list").click()
    page.click("#list")
    page.locator("#tokens [role=gridcell]", has_text="Rain").first.wait_for()
    rows = csv_files.rows_of(download(page, "#csv").decode())
    assert len(rows) == 100
    assert rows[0]["token"] == " Rain"
    assert title(page, "list") == "demo/hook_embed · feature 927 · pullback"
    assert page.input_value("#list-status textarea").startswith("By score; distance")
    page.locator("#negative input").check()
    wait_until_changed(page, result="list")
    wait_for_opacity(page, "#tokens", 0.4)
    page.locator("#negative input").uncheck()
    wait_until_changed(page, False, result="list")
    page.fill("#feature input", "5000")
    page.click("#list")
    page.locator(".toast-body", has_text="0 to 2047").wait_for()
    page.wait_for_function("document.querySelector('#list-status textarea').value.includes('0 to 2047')")
    page.wait_for_selector("#tokens [role=gridcell]:has-text('rain')", state="detached")
    page.wait_for_selector("#list-title p", state="hidden")


def test_a_saved_tree_opens_again_and_hostile_tokens_stay_text(page, tmp_path):
    saved = json.loads(download(page, "#json"))
    saved["settings"] |= {"feature": 3, "pca": [0.25], "top_k": 7}
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
    assert definitions(page)[1:] == [r"<img src=x onerror=alert(1)> $x$ **bold**\n\x00\u202e …"]
    assert page.locator("#definitions img").count() == 0
    # The controls are as they were for it, where they can be.
    page.wait_for_function("document.querySelector('#feature input').value === '3'")
    assert title(page) == "demo/hook_embed · feature 3 · encoder"
    page.wait_for_timeout(500)
    wait_until_changed(page, False)
    saved["settings"] |= {"sae": "<b>/elsewhere", "feature": 4}
    file.write_text(json.dumps(saved))
    with page.expect_file_chooser() as chooser:
        page.click("#open")
    chooser.value.set_files(file)
    page.wait_for_function("document.querySelector('#tree-title').innerText.includes('<b>/elsewhere · feature 4')")
    page.wait_for_timeout(500)
    wait_until_changed(page, False)
    assert page.input_value("#feature input") == "3"
    page.fill("#feature input", "5")
    wait_until_changed(page)


def test_a_vector_of_ones_own_stands_in_the_feature_s_place_until_it_is_removed(page, tmp_path):
    def choose(name: str, array) -> None:
        np.save(tmp_path / name, array)
        with page.expect_file_chooser() as chooser:
            page.click("#own-vector-file")
        chooser.value.set_files(tmp_path / name)

    def told(text: str) -> None:
        page.wait_for_function("text => document.querySelector('#own-vector-told').innerText.includes(text)", arg=text)

    page.click("#own-vector > .label-wrap")
    choose("table.npy", np.ones((2, 3)))
    told("it must be one row")
    choose("mood.npy", np.random.default_rng(0).standard_normal(576))
    told("576 numbers, stands in place of the feature, where demo/hook_embed reads")
    grow(page, "1e-2")
    assert re.fullmatch(r"mood \(vector [0-9a-f]{8}\) · demo/hook_embed · encoder", title(page))
    assert json.loads(download(page, "#json"))["settings"]["vector_name"] == "mood"
    page.click("#own-vector-remove")
    wait_until_changed(page)
    page.wait_for_function("document.querySelector('#own-vector-told').innerText.trim() === ''")
    grow(page, "1e-2")
    assert title(page).startswith("demo/hook_embed · feature ")


def test_an_error_says_what_to_do_and_shows_its_values_as_text(page):
    open_growth(page)
    write(page, "#prompt textarea", "<img src=x onerror=alert(1)> no place")
    page.on("dialog", lambda dialog: pytest.fail(f"a prompt ran as a script: {dialog.message}"))
    page.click("#grow")
    toast = page.locator(".toast-body")
    toast.wait_for()
    assert "exactly once" in toast.inner_text()
    assert "<img src=x onerror=alert(1)>" in toast.inner_text()
    assert toast.locator("img").count() == 0
    # A tree from other controls does not stay under these.
    wait_for_status(page, "exactly once")
    page.wait_for_selector("#tree-view .empty")
    for gone in ("#tree-title p", "#coverage .bar", "#json", "#link input", "#trim"):
        page.wait_for_selector(gone, state="hidden")
    assert definitions(page) == [] and page.locator("#check").is_disabled()


def wait_for_card(page, words: str) -> None:
    page.wait_for_function("words => document.querySelector('#card').innerText.includes(words)", arg=words)


def test_the_page_opens_on_a_card_that_tells_a_student_what_the_feature_is(page):
    card = page.locator("#card")
    told = card.inner_text()
    assert "The model reads this feature as: water, rain, precipitation. It fires on" in told
    for part in ("Fires on", "snow", "Writes", "storm", "How often", "Nearest features"):
        assert part in told, part
    assert not card.locator("dl").is_visible()
    card.locator("summary").click()
    assert "cosine" in card.locator("dl").inner_text()
    assert card.bounding_box()["height"] < 500


def test_features_that_are_chosen_grow_without_another_click(page):
    before = view(page)
    page.get_by_role("button", name="Next").click()
    page.wait_for_function("document.querySelector('#feature input').value === '928'")
    wait_for_card(page, "demo/hook_embed · feature 928")
    wait_for_new_view(page, before)
    assert title(page) == "demo/hook_embed · feature 928 · encoder"
    # A later choice ends the earlier growth.
    before = view(page)
    feature = page.locator("#feature input")
    feature.fill("648")
    wait_for_card(page, "prisoner")
    feature.press("Enter")
    page.locator("#tree-title", has_text="feature 648").wait_for()
    wait_for_whole_tree(page)
    assert any("held" in text for text in definitions(page))
    wait_for_card(page, "The model reads this feature as: ")
    wait_for_card(page, "likeliest definitions")
    wait_for_card(page, "Writes less")
    # So does one that is near, by keyboard too.
    near = page.locator("#card [data-number]").first
    number = near.inner_text()
    near.focus()
    page.keyboard.press("Enter")
    page.locator("#tree-title", has_text=f"feature {number} ·").wait_for()
    assert page.input_value("#feature input") == number
    page.click("#stop")


def test_another_sae_shows_its_card_and_grows_nothing(page):
    before = view(page)
    choose(page, "#sae", "demo/blocks.6.hook_resid_post")
    wait_for_card(page, "demo/blocks.6.hook_resid_post · feature 927")
    wait_for_card(page, "Nearest features")
    assert page.locator("#card .contexts li mark").count() == 4
    assert view(page) == before


def test_the_list_is_there_when_its_tab_opens_and_follows_the_feature(page):
    page.get_by_role("tab", name="Token list").click()
    page.locator("#tokens [role=gridcell]", has_text="Rain").first.wait_for()
    assert title(page, "list") == "demo/hook_embed · feature 927 · pullback"
    page.locator("#feature input").fill("648")
    wait_until_changed(page, result="list")
    page.locator("#feature input").press("Enter")
    page.locator("#tokens [role=gridcell]", has_text="prison").first.wait_for()
    assert title(page, "list") == "demo/hook_embed · feature 648 · pullback"
    wait_until_changed(page, False, result="list")
    # While another tab is open it waits until it is seen.
    page.get_by_role("tab", name="Definition tree").click()
    page.get_by_role("button", name="stars").click()
    page.locator("#tree-title", has_text="feature 152").wait_for()
    page.click("#stop")
    page.get_by_role("tab", name="Token list").click()
    page.locator("#list-title", has_text="feature 152").wait_for()
    page.locator("#tokens [role=gridcell]", has_text="star").first.wait_for()
    # It stays as it is when its tab is left and opened again.
    status = page.input_value("#list-status textarea")
    page.get_by_role("tab", name="Text").click()
    page.get_by_role("tab", name="Token list").click()
    page.wait_for_timeout(1500)
    assert title(page, "list") == "demo/hook_embed · feature 152 · pullback"
    assert page.input_value("#list-status textarea") == status and status.startswith("By score")
    assert "feature=152" in page.input_value("#list-link input")


def found_features(page) -> list[str]:
    return [text.rstrip(" ▸") for text in page.locator("#found tbody button").all_inner_texts()]


def wait_for_found(page, sentence: str) -> None:
    page.wait_for_function(
        "sentence => document.querySelector('#find-status textarea').value.includes(sentence)", arg=sentence
    )


def open_find(page) -> None:
    """Open the tab; its box waits for words."""
    page.get_by_role("tab", name="Find").click()
    page.wait_for_function("document.activeElement.matches('#find-by textarea')")


def test_from_a_word_to_a_features_tree_in_three_clicks(page):
    write(page, "#feature input", "5")
    before = view(page)
    open_find(page)  # the first click
    page.keyboard.type("rain")
    page.click("#find")
    page.locator("#found tbody tr").first.click()
    wait_for_new_view(page, before)
    wait_for_whole_tree(page)
    wait_until_changed(page, False)
    assert title(page) == "demo/hook_embed · feature 927 · encoder"
    assert page.input_value("#feature input") == "927"
    assert page.locator("#tree-view").is_visible() and not page.locator("#found").is_visible()
    assert any("water falling from the sky" in text for text in definitions(page))
    # What was found is still there, and so is the way to it beside the feature's number.
    page.click("#to-find")
    page.locator("#found").wait_for()
    assert found_features(page)[0] == "927"


def test_features_are_found_by_a_text_and_at_its_tokens(page):
    open_find(page)
    page.keyboard.type("The <b>soldiers</b> sat in prison.")
    page.keyboard.press("Enter")
    wait_for_found(page, "fire on this text")
    assert {"1785", "648"} <= set(found_features(page))
    assert page.inner_text("#find-tokens .tokens") == "The <b>soldiers</b> sat in prison."
    assert {" prison"} <= set(page.locator("#find-tokens mark").all_text_contents())
    whole = found_features(page)
    tokens = page.locator("#find-tokens [role=button]")
    tokens.get_by_text(" prison", exact=True).click()
    page.get_by_text("What fires on ␣prison").wait_for()
    assert found_features(page)[0] == "648" and found_features(page) != whole
    assert all(page.locator("#found .told").all_inner_texts()), "each tells what is known of it"
    # Once more: back. By keyboard: to a token, to its neighbour, and back to all by the button.
    tokens.get_by_text(" prison", exact=True).click()
    page.wait_for_selector("#find-tokens [aria-pressed=true]", state="detached")
    assert found_features(page) == whole
    tokens.first.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    page.get_by_text("What fires on ␣<").wait_for()
    page.wait_for_function("document.activeElement.matches('#find-tokens [aria-pressed=true]')")
    page.get_by_role("button", name="Back to the whole text").click()
    page.wait_for_selector("#find-tokens [aria-pressed=true]", state="detached")
    assert found_features(page) == whole
    before = view(page)
    tokens.get_by_text(" prison", exact=True).click()
    page.get_by_text("What fires on ␣prison").wait_for()
    page.locator("#found tbody tr").first.click()
    wait_for_new_view(page, before)
    assert title(page) == "demo/hook_embed · feature 648 · encoder"
    page.click("#stop")


def test_what_cannot_be_found_is_told_beside_the_box(page):
    open_find(page)
    page.click("#find")
    wait_for_found(page, "nothing to find features by")
    page.fill("#find-by textarea", "king - xylophones")
    page.keyboard.press("Enter")
    wait_for_found(page, "no single token")
    assert page.locator(".toast-body").count() == 0
    page.fill("#find-by textarea", "xylophones")
    page.keyboard.press("Enter")
    wait_for_found(page, "This word is no single token, so it was read as a text")
    assert len(found_features(page)) > 2
    page.locator("#find-way").get_by_text("word", exact=True).click()
    wait_until_changed(page, result="find")
    page.fill("#find-by textarea", "99999")
    page.locator("#find-way").get_by_text("likeness").click()
    page.click("#find")
    wait_for_found(page, "99999")
    assert page.locator("#found tbody tr").count() == 0


def test_features_are_found_by_likeness_and_grown_by_keyboard_alone(page):
    open_find(page)
    page.locator("#find-way").get_by_text("likeness").click()
    page.wait_for_function("document.querySelector('#find-by textarea').value === '927'")
    page.locator("#find-others input").uncheck()
    page.focus("#find-by textarea")
    page.keyboard.press("Enter")
    wait_for_found(page, "nearest to that of feature 927")
    second = found_features(page)[1]
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.closest('#found') !== null"):
            break
    page.keyboard.press("ArrowDown")
    before = view(page)
    page.keyboard.press("Enter")
    wait_for_new_view(page, before)
    assert title(page) == f"demo/hook_embed · feature {second} · encoder"
    assert page.input_value("#feature input") == second
    page.click("#stop")


def test_features_are_found_by_what_the_atlas_says_of_them(page):
    open_find(page)
    page.locator("#find-way").get_by_text("descriptions").click()
    page.locator("#find-only input").check()
    page.locator("#find-verdict input[value=partly]").check()
    page.fill("#find-by textarea", "rain")
    page.click("#find")
    row = page.locator("#found tbody tr").first
    row.wait_for()
    assert found_features(page)[0] == "927"
    assert "rain" in row.inner_text() and "in part" in row.inner_text()


def test_a_row_of_another_sae_brings_that_sae(page):
    page.locator("#weights input[value=decoder]").check()
    open_find(page)
    page.keyboard.type("927")
    page.keyboard.press("Enter")
    wait_for_found(page, "nearest to that of feature 927")
    row = page.locator("#found tbody tr", has_text="demo/blocks.6.hook_resid_post").first
    number = row.locator("button").inner_text().rstrip(" ▸")
    row.click()
    page.wait_for_function("document.querySelector('#sae input').value === 'demo/blocks.6.hook_resid_post'")
    page.locator("#tree-title", has_text=f"demo/blocks.6.hook_resid_post · feature {number}").wait_for()
    assert weights(page) == "suits"
    page.click("#stop")


def test_a_phone_shows_everything_without_scrolling_sideways(browser, app_url, page):
    page.set_viewport_size({"width": 390, "height": 844})
    page.wait_for_timeout(500)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.click("#to-find")
    page.wait_for_function("document.activeElement.matches('#find-by textarea')")
    page.keyboard.type("The soldiers sat in prison.")
    page.keyboard.press("Enter")
    row = page.locator("#found tbody tr").first
    row.wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    row.scroll_into_view_if_needed()
    before = view(page)
    row.click()
    wait_for_new_view(page, before)
    page.wait_for_function("document.querySelector('#tree-title').getBoundingClientRect().top < innerHeight")
    page.click("#stop")


def test_a_feature_is_chosen_grown_and_explored_by_keyboard_alone(page):
    def tab_to(there: str) -> None:
        for _ in range(80):
            page.keyboard.press("Tab")
            if page.evaluate("there => document.activeElement.closest(there) !== null", there):
                return
        pytest.fail(f"the Tab key does not lead to {there}")

    tab_to("#feature")
    page.keyboard.press("Control+A")
    page.keyboard.type("648")
    before = view(page)
    tab_to("#grow")
    page.keyboard.press("Enter")
    wait_for_new_view(page, before)
    tab_to("#tree-view .body")
    wait_for_whole_tree(page)
    assert page.evaluate("document.activeElement.matches('#tree-view .body')"), "the focus stays while the tree grows"
    assert page.inner_text("#tree-view .details q") == "a"
    page.keyboard.press("ArrowDown")
    assert page.inner_text("#tree-view .details q") == "a person"


def test_a_dark_page_has_a_dark_view(page, app_url):
    page.goto(f"{app_url}/?__theme=dark")
    page.wait_for_selector("#tree-view [role=treeitem]")
    ink, paper = (
        page.evaluate(
            "name => { const c = document.createElement('canvas').getContext('2d');"
            "          c.fillStyle = getComputedStyle(document.querySelector('#tree-view .body'))[name];"
            "          c.fillRect(0, 0, 1, 1); return c.getImageData(0, 0, 1, 1).data[1] }", name
        )
        for name in ("color", "backgroundColor")
    )
    assert ink > 200 and paper < 60


def test_the_view_works_inside_the_frame_of_another_site(browser, app_url):
    """As on Hugging Face, whose page frames the Space's."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    outer = context.new_page()
    outer.set_content(
        f'<iframe src="{app_url}" width="1200" height="850" allow="clipboard-write; fullscreen" sandbox="'
        'allow-scripts allow-same-origin allow-forms allow-popups allow-downloads allow-modals"></iframe>'
    )
    inner = outer.frame_locator("iframe")
    inner.locator("#tree-view [role=treeitem]").first.wait_for(timeout=60_000)
    inner.locator("#tree-view").get_by_role("button", name="Close all").click()
    first = inner.locator("#tree-view [role=treeitem] > .words").all_inner_texts()[:5]
    assert first == ["a", "the", "water", "when", "A"]
    inner.locator("#tree-view").get_by_role("button", name="Fill the screen").click()
    outer.wait_for_function("document.fullscreenElement?.tagName === 'IFRAME'")
    context.close()


def choose(page, box: str, text: str) -> None:
    field = page.locator(f"{box} input")
    field.fill(text)
    field.press("Enter")


def test_another_model_lists_its_saes_and_says_what_it_takes_without_fetching_anything(page):
    choose(page, "#model", "google/gemma-2b")
    page.wait_for_function("document.querySelector('#sae input').value.startsWith('gemma-2b-res-jb/blocks.')")
    page.get_by_text("0 to 16,383").wait_for()
    page.locator("#sae-about", has_text="must be accepted").wait_for()
    assert page.locator("#sae-about a", has_text="licence").get_attribute("href").endswith("/google/gemma-2b")

    # It has examples of its own.
    page.get_by_role("button", name="a style of dress").wait_for()
    assert not page.get_by_role("button", name="prison").is_visible()

    # Typed from another model's list, an SAE brings its model with it.
    choose(page, "#sae", "gpt2-small-res-jb/blocks.3.hook_resid_pre")
    page.wait_for_function("document.querySelector('#model input').value === 'openai-community/gpt2'")
    page.get_by_text("0 to 24,575").wait_for()
    page.get_by_role("button", name="prison").wait_for()  # a model without examples of its own shows the demo's


def wait_for_sae(page, name: str) -> None:
    page.wait_for_function("name => document.querySelector('#sae input').value === name", arg=name)


def search_saes(page, words: str, n_found: int) -> None:
    page.locator("#sae-search input").fill("")
    page.locator("#sae-search input").press_sequentially(words)
    page.locator("#sae-found caption", has_text=re.compile(rf"(?<![\d,]){n_found:,} found")).wait_for()


def test_an_sae_is_found_among_all_and_chosen_by_keyboard(page):
    search_saes(page, "canonical 16k layer 12 gemma-2-2b", 1)
    row = page.locator("#sae-found tbody tr")
    told = row.inner_text()
    assert all(part in told for part in ("google/gemma-2-2b", "12", "16,384", "82", "2.61 B", "gated"))
    assert any(mark in told for mark in ("✓ yes", "✗ no", "? not known"))
    page.keyboard.press("ArrowDown")
    assert row.locator("button").evaluate("button => button === document.activeElement")
    page.keyboard.press("Enter")
    wait_for_sae(page, "gemma-scope-2b-pt-res-canonical/layer_12/width_16k/canonical")
    row.wait_for(state="hidden")
    page.wait_for_function("document.querySelector('#model input').value === 'google/gemma-2-2b'")
    assert page.input_value("#sae-search input") == ""
    page.get_by_text("0 to 16,383").wait_for()

    # The menus are set to it, and narrow each other.
    page.wait_for_function("document.querySelector('#sae-place input').value === '12'")
    assert page.input_value("#sae-width input") == "16,384"
    assert not page.locator("#sae-l0").is_visible()
    page.click("#sae-release input")
    page.get_by_role("option", name="gemma-scope-2b-pt-res", exact=True).click()
    wait_for_sae(page, "gemma-scope-2b-pt-res/layer_12/width_16k/average_l0_82")
    page.click("#sae-l0 input")
    listed = page.locator("#sae-l0 [role=option]")
    assert [text.strip("✓ \n") for text in listed.all_inner_texts()] == ["22", "41", "82", "176", "445"]
    page.get_by_role("option", name="176", exact=True).click()
    wait_for_sae(page, "gemma-scope-2b-pt-res/layer_12/width_16k/average_l0_176")


def test_a_search_shows_thirty_rows_and_closes(page):
    page.locator("#sae-search input").press_sequentially("gemma")
    page.get_by_text("more: add words").wait_for()
    assert page.locator("#sae-found tbody tr").count() == 30
    page.keyboard.press("Escape")
    page.locator("#sae-found table").wait_for(state="hidden")
    search_saes(page, "gpt2-small-res-jb layer 8", 9)
    page.locator("#sae-found tbody tr").first.click()
    wait_for_sae(page, "gpt2-small-res-jb/blocks.8.hook_resid_pre")
    page.get_by_role("button", name="rain").wait_for()


def test_a_layers_menu_brings_its_sae_and_its_examples(page):
    page.click("#sae-place input")
    page.get_by_role("option", name="12", exact=True).click()
    wait_for_sae(page, "demo/blocks.12.hook_resid_post")
    page.get_by_role("button", name="weekdays").wait_for()
    assert weights(page) == "suits"


def test_a_model_that_cannot_be_had_is_told_and_the_page_goes_on(page):
    before = view(page)
    choose(page, "#sae", "gemma-2b-res-jb/blocks.6.hook_resid_post")
    page.wait_for_function("document.querySelector('#model input').value === 'google/gemma-2b'")
    page.click("#grow")
    toast = page.locator(".toast-body", has_text="hub cannot be reached")
    toast.wait_for()
    assert "gemma-2b-res-jb/blocks.6.hook_resid_post" in toast.inner_text()
    choose(page, "#model", DEMO_MODEL)
    page.get_by_role("button", name="prison").click()
    wait_for_new_view(page, before)


def test_a_scale_of_ones_own(page):
    page.locator("#usual-scale input").uncheck()
    number = page.locator("#scale input[type=number]")
    number.wait_for()
    assert number.input_value() == "2.39"
    number.fill("3.5")
    number.press("Tab")
    grow(page, "2e-2")
    assert json.loads(download(page, "#json"))["settings"]["scale"] == 3.5


def test_the_tree_is_seen_while_it_grows(page):
    page.locator("#feature input").fill("648")
    set_cutoff(page, "1e-5")
    page.click("#grow")
    for _ in range(2):
        wait_for_new_view(page, view(page))
    assert status(page).startswith("Growing: ")
    assert "person" in page.inner_text("#tree-view")
    seen = int(page.inner_text("#tree-view .told").split(" nodes")[0].replace(",", ""))
    page.click("#stop")
    wait_for_status(page, "at cutoff")
    assert json.loads(download(page, "#json"))["result"]["nodes"] >= seen


def test_a_stopped_tree_is_grown_on(page):
    set_cutoff(page, "2e-4")
    page.click("#grow")
    wait_for_status(page, "tokens deep")
    page.click("#stop")
    wait_for_status(page, "Not whole")
    page.click("#go-on")
    wait_for_status(page, "tokens deep")
    wait_for_whole_tree(page)
    assert json.loads(download(page, "#json"))["result"]["complete"] is True
    assert not page.locator("#go-on").is_visible()


def test_a_new_growth_ends_the_one_before_which_is_not_said_to_be_stopped(page):
    page.evaluate(
        "() => { window.said = []; setInterval(() => { const now = document.querySelector('#status textarea').value;"
        "        if (window.said.at(-1) !== now) window.said.push(now) }, 20) }"
    )
    set_cutoff(page, "1e-6")
    page.click("#grow")
    wait_for_status(page, "4 tokens deep")
    before = view(page)
    page.click("#trim input")  # the views are made anew while it grows
    page.get_by_role("option", name="1e-2").click()
    wait_for_new_view(page, before)
    page.get_by_role("button", name="prison").click()
    wait_for_status(page, "nodes at cutoff 0.0005")
    page.wait_for_timeout(1000)
    assert title(page) == "demo/hook_embed · feature 648 · encoder"
    said = page.evaluate("window.said")
    assert not [words for words in said if "Not whole" in words or "nodes at cutoff 1e-06" in words]
    assert not page.locator("#go-on").is_visible()


def test_the_page_of_the_api_counts_as_many_tools_as_there_are(page):
    page.get_by_role("button", name="Use via API").click()
    page.get_by_text("17 Available MCP Tools").wait_for()  # it counts from 0 until the page has asked for them
    assert page.locator("h2 .counts").inner_text().split()[:3] == ["17", "MCP", "Tools"]


# ── Evidence ────────────────────────────────────────────────────────────────────────────────────────────────────────


def check(page) -> None:
    """Check the tree that is shown, and wait until its evidence is."""
    before = view(page)
    page.click("#check")
    page.wait_for_selector("#tree-verdict .verdict")
    wait_for_new_view(page, before)


def column(page, number: int) -> list[str]:
    return page.locator(f"#definitions .virtual-row [role=gridcell]:nth-child({number})").all_inner_texts()


def test_checking_a_tree_tells_the_verdict_and_the_figures(page):
    assert not page.locator("#least-lift").is_visible()
    grow(page, "2e-3")
    check(page)
    assert page.locator("#tree-verdict .mark").get_attribute("aria-label")
    assert not page.locator("#tree-verdict table").is_visible()
    page.click("#tree-verdict summary")
    assert "AUROC" in page.inner_text("#tree-verdict table")
    page.locator("#definitions", has_text="Lift per token").wait_for()
    assert all(float(lift) < 50 for lift in column(page, 3) if lift)

    assert page.locator("#order input:checked").get_attribute("value") == "lift per token", "where it is known"
    # The finished ones first: those that go on end in an ellipsis.
    page.wait_for_function(
        "() => { const cells = n => [...document.querySelectorAll("
        "          `#definitions .virtual-row [role=gridcell]:nth-child(${n})`)].map(cell => cell.innerText);"
        "        const ended = cells(2).map(text => !text.trim().endsWith('…') && !text.startsWith('Unfinished'));"
        "        const lifts = cells(3).map(lift => lift === '' ? Infinity : Number(lift));"  # of the heading
        "        return lifts.length > 1 && lifts.every((lift, i) => !i || (ended[i - 1] && !ended[i])"
        "          || (ended[i] === ended[i - 1] && lifts[i - 1] >= lift)) }"
    )
    whole = json.loads(download(page, "#json"))
    found = whole["evidence"]
    assert found["sentence"] in page.inner_text("#tree-verdict")
    judged = page.locator("#tree-verdict .judged li")
    assert judged.locator("q").all_inner_texts() == found["judged_texts"]
    assert page.locator("#tree-verdict .judged li.firing").count() == found["hits"]
    marked = [text.partition(" ")[0] for text in column(page, 2)]
    assert {"●", "◐"} >= set(marked) & {"●", "◐"} != set()

    before = view(page)
    slider = page.locator("#least-lift input[type=range]")
    slider.focus()
    for _ in range(40):  # steps of 0.1
        page.keyboard.press("ArrowRight")
    slider.dispatch_event("pointerup")
    wait_for_new_view(page, before)
    assert 0 < json.loads(download(page, "#json"))["result"]["nodes"] < whole["result"]["nodes"]

    page.click("#grow")  # the next tree has not been checked
    page.wait_for_selector("#tree-verdict .verdict", state="hidden")
    page.wait_for_selector("#least-lift", state="hidden")


def test_evidence_of_a_strangers_tree_is_text(page, tmp_path):
    saved = json.loads(download(page, "#json"))
    saved["evidence"] = {
        "verdict": "agrees\"><img src=x onerror=alert(1)>", "sentence": "<img src=x onerror=alert(1)> Trust me.",
        "hit_rate": "<script>alert(1)</script>", "hit_rate_chance": 0.1, "entropy": 1.0, "entropy_centroid": 2.0,
        "judged_texts": ["<img src=x onerror=alert(1)>", "rain"], "judged_activations": [2, 0], "feature_maximum": "4",
    }
    file = tmp_path / "tree.json"
    file.write_text(json.dumps(saved))
    page.on("dialog", lambda dialog: pytest.fail(f"evidence ran as a script: {dialog.message}"))
    with page.expect_file_chooser() as chooser:
        page.click("#open")
    chooser.value.set_files(file)
    page.wait_for_selector("#tree-verdict .verdict.unknown")
    assert "<img src=x onerror=alert(1)> Trust me." in page.inner_text("#tree-verdict .verdict")
    page.click("#tree-verdict summary")
    assert page.locator("#tree-verdict tr").count() == 1  # the entropy; the others lack a number
    assert page.locator("#tree-verdict img, #tree-verdict script").count() == 0
    assert page.locator("#tree-verdict .judged q").all_inner_texts() == ["<img src=x onerror=alert(1)>", "rain"]


def test_checking_a_list_tells_the_verdict_and_adds_the_activations(page):
    page.get_by_role("tab", name="Token list").click()
    page.locator("#tokens [role=gridcell]", has_text="␣rain").first.wait_for()
    page.click("#check-list")
    page.wait_for_selector("#list-verdict .verdict.agrees")
    page.locator("#tokens", has_text="activation").wait_for()
    assert "activation" in csv_files.rows_of(download(page, "#csv").decode())[0]

    page.locator("#measure").get_by_text("activation").click()
    page.click("#list")
    page.wait_for_selector("#list-verdict .verdict", state="hidden")
    assert page.locator("#check-list").is_disabled()


def test_a_list_by_the_logit_lens_of_words_from_its_other_end(page):
    page.get_by_role("tab", name="Token list").click()
    page.locator("#measure").get_by_text("logit_lens").click()
    page.wait_for_selector("#exponent", state="hidden")
    assert "unembedding" in page.inner_text("#measure")
    page.locator("#words input").check()
    page.click("#list")
    page.wait_for_function("document.querySelector('#list-status textarea').value.includes('logit lens, only words')")
    page.locator("#tokens [role=gridcell]", has_text="␣rain").first.wait_for()
    first = csv_files.rows_of(download(page, "#csv").decode())
    assert first[0]["token"] == " rain" and float(first[0]["logit_lens"]) > 0
    assert all(row["token"].strip().isalpha() for row in first)
    page.locator("#negative input").check()
    page.click("#list")
    page.wait_for_function(
        "document.querySelector('#list-status textarea').value.includes('least similar, only words')"
    )
    page.click("#check-list")
    page.wait_for_selector("#list-verdict .verdict")
    assert "pushed along the feature's decoder" in page.inner_text("#list-verdict")

    page.locator("#measure").get_by_text("activation").click()
    page.wait_for_selector("#negative", state="hidden")
    page.click("#list")
    page.locator("#tokens [role=gridcell]", has_text="␣rain").first.wait_for()
    assert page.locator("#check-list").is_disabled()


def test_a_text_shows_where_the_feature_fires(page):
    page.get_by_role("tab", name="Text").click()
    write(page, "#text textarea", "No <b>snow</b>,\nbut rain.")
    page.click("#read")
    page.wait_for_selector("#fires .fires")
    assert page.inner_text("#fires .fires") == "No <b>snow</b>,⏎\nbut rain."
    assert " rain" in page.locator("#fires mark").all_text_contents()
    assert title(page, "text") == "demo/hook_embed · feature 927"
    write(page, "#text textarea", " \n")
    wait_until_changed(page, result="text")
    page.click("#read")
    page.wait_for_function("document.querySelector('#text-status textarea').value.startsWith('There is no text')")
    page.wait_for_selector("#fires .fires", state="detached")
    assert page.locator(".toast-body, #fires .error").count() == 0


def weights(page) -> str:
    return page.locator("#weights input:checked").get_attribute("value")


def test_the_weights_follow_the_sae_and_an_example_brings_its_own(page):
    assert weights(page) == "suits"
    page.get_by_text("Trees by encoder: what the feature looks for.").wait_for()
    page.locator("#weights input[value=decoder]").check()
    choose(page, "#sae", "demo/blocks.1.hook_resid_post")
    page.wait_for_selector("#weights input[value=suits]:checked")
    page.get_by_text("Trees by vocabulary: the tokens that fire it").wait_for()
    page.wait_for_selector("#weights-help .caution", state="hidden")  # it is there until the weights have followed
    page.locator("#weights input[value=decoder]").check()
    page.wait_for_selector("#weights-help .caution")
    page.locator("#weights input[value=suits]").check()
    page.locator("#feature input").fill("5")
    page.locator("#feature input").press("Tab")
    grow(page, "2e-3")
    assert json.loads(download(page, "#json"))["settings"]["weights"] == "vocabulary"
    page.locator("#weights input[value=decoder]").check()
    page.get_by_role("button", name="schools").click()
    page.wait_for_selector("#weights input[value=suits]:checked")


def test_the_prompt_menu_fills_in_a_chat_and_knows_a_prompt_of_ones_own(page):
    open_growth(page)
    assert not page.locator("#answer").is_visible()
    choose(page, "#prompt-menu", "chat-synonym: asked in a chat")
    page.locator("#answer textarea").wait_for()
    assert page.input_value("#prompt textarea") == 'Give me a synonym of the word "{ghost}".'
    assert page.input_value("#answer textarea") == 'A synonym is "'
    write(page, "#answer textarea", 'Another word is "')
    page.wait_for_function("document.querySelector('#prompt-menu input').value === ''")
    choose(page, "#cutoff", "2e-3")
    before = view(page)
    page.click("#grow")
    wait_for_new_view(page, before)
    wait_for_status(page, "at cutoff 0.002")
    settings = json.loads(download(page, "#json"))["settings"]
    assert (settings["chat"], settings["answer"]) == (True, 'Another word is "')
    choose(page, "#prompt-menu", "meaning: often in one word")
    page.locator("#answer").wait_for(state="hidden")
    assert page.input_value("#prompt textarea") == 'The meaning of "{ghost}" is "'


def test_several_prompts_are_asked_and_downloaded(page):
    page.get_by_role("tab", name="Prompts").click()
    write(page, "#prompts textarea", 'synonym\n\n<b>The</b> "{ghost}" is "')
    page.click("#ask-all")
    page.locator("#trees").wait_for()
    cells = page.locator("#answers .virtual-row [role=gridcell]").all_inner_texts()
    assert cells[0] == 'A synonym of "{ghost}" is "' and cells[3] == '<b>The</b> "{ghost}" is "'
    assert re.search(r"rain \d", cells[1]) and float(cells[2]) > 1
    trees = json.loads(download(page, "#trees"))
    assert [tree["settings"]["prompt"] for tree in trees] == [cells[0], cells[3]]
    assert trees[0]["settings"]["cutoff"] == 1e-3
    assert title(page, "prompts") == "demo/hook_embed · feature 927 · encoder"
    wait_until_changed(page, False, result="prompts")
    write(page, "#prompts textarea", "")
    wait_until_changed(page, result="prompts")
    page.click("#ask-all")
    page.wait_for_function("document.querySelector('#prompts-status textarea').value.startsWith('There is no prompt')")
    page.locator("#trees").wait_for(state="hidden")
    assert page.locator(".toast-body").count() == 0
    write(page, "#prompts textarea", "no place")
    page.click("#ask-all")
    page.locator(".toast-body", has_text="exactly once").wait_for()


def test_settings_are_suggested_the_best_grows_at_once_and_each_with_one_click(page):
    page.check(INTERVENE)
    page.fill("#inject-layer input", "3")  # none of the settings tried on an embedding injects
    before = view(page)
    page.get_by_role("tab", name="Suggest settings").click()
    page.click("#suggest")
    page.wait_for_selector("#trials tbody tr", timeout=120_000)
    assert title(page, "suggest") == "demo/hook_embed · feature 927"
    settings = page.locator("#trials tbody button")
    assert settings.count() == 32
    said = page.locator("#trials tbody td.told").all_inner_texts()
    assert all(said) and "rain" in said[0]
    # Nothing more is clicked: the best one's tree is there.
    best = settings.first.inner_text().split(",")[0]
    page.wait_for_selector(f"#weights input[value={best}]:checked")
    page.get_by_role("tab", name="Definition tree").click()
    wait_for_new_view(page, before)
    wait_for_whole_tree(page)
    assert not page.is_checked(INTERVENE)
    assert weights(page) == best
    assert json.loads(download(page, "#json"))["settings"]["inject_layer"] == -1
    # By keyboard: the row below, which opens the tree's tab.
    before = view(page)
    page.get_by_role("tab", name="Suggest settings").click()
    settings.first.focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.locator("#tree-view").wait_for()
    wait_for_new_view(page, before)
    wait_for_whole_tree(page)
    second = settings.nth(1).text_content()
    assert weights(page) == second.split(",")[0]
    page.get_by_role("tab", name="Suggest settings").click()
    wait_until_changed(page, False, result="suggest")
    page.fill("#feature input", "1")
    wait_until_changed(page, result="suggest")


# ── Steering ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def written(page) -> None:
    page.wait_for_function("document.querySelector('#steer-status textarea').value === 'Written.'")


def test_a_text_is_continued_with_and_without_the_feature_side_by_side(page):
    page.get_by_role("tab", name="Steer").click()
    write(page, "#strengths input, #strengths textarea", "−0.4, 0.8")
    write(page, "#steer-length input[type=number]", "12")
    page.click("#continue")
    page.wait_for_selector("#steered section")
    written(page)
    assert page.locator("#steered h3").all_inner_texts() == ["Unsteered", "−0.4", "+0.8"]
    texts = page.locator("#steered .written").all_inner_texts()
    assert len(set(texts)) == 3 and all(text.startswith("Yesterday I went to ") for text in texts)
    tops = {round(page.locator("#steered section").nth(number).bounding_box()["y"]) for number in range(3)}
    assert len(tops) == 1, "beside each other"
    assert page.locator("#steered section").nth(2).locator("mark").count() > 0, "it writes what fires it"
    assert all("nats a token" in line for line in page.locator("#steered .figures-line").all_inner_texts())
    assert "feature 927" in title(page, "steer")
    page.set_viewport_size({"width": 390, "height": 844})
    lefts = {round(page.locator("#steered section").nth(number).bounding_box()["x"]) for number in range(3)}
    assert len(lefts) == 1, "on a phone under each other"
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    page.set_viewport_size({"width": 1280, "height": 900})
    wait_until_changed(page, False, result="steer")
    write(page, "#strengths input, #strengths textarea", "much")
    wait_until_changed(page, result="steer")
    page.click("#continue")
    page.wait_for_function("document.querySelector('#steer-status textarea').value.includes(\"is 'much'\")")
    assert page.locator("#steered section").count() == 0


def test_a_text_that_breaks_is_told_of_and_drawn_tokens_have_a_seed(page):
    page.get_by_role("tab", name="Steer").click()
    assert not page.locator("#steer-seed").is_visible()
    write(page, "#strengths input, #strengths textarea", "4")
    write(page, "#steer-length input[type=number]", "20")
    page.click("#continue")
    written(page)
    page.locator("#steered section.toward .caution").wait_for()
    write(page, "#steer-temperature input[type=number]", "1")
    page.press("#steer-temperature input[type=number]", "Tab")
    page.locator("#steer-seed").wait_for()


# ── The vector ────────────────────────────────────────────────────────────────────────────────────────────────────────


def distance(page) -> float:
    """That of trees, where lists have another."""
    return float(page.inner_text("#distance").split("centroid ")[1].replace(";", " ").split()[0])


def wait_for_distance(page, test: str) -> None:
    """Wait until the line says so, of the distance ``d`` and its whole ``text``."""
    page.wait_for_function(
        "test => { const text = document.querySelector('#distance').innerText;"
        "          return Function('d', 'text', 'return ' + test)(parseFloat(text.split('centroid ')[1]), text) }",
        arg=test,
    )


def test_the_distance_from_the_centroid_follows_the_controls(page):
    assert distance(page) == 2.39
    assert "2.39 in trees, 1.07 in lists" in page.inner_text("#distance")
    page.locator("#usual-scale input").uncheck()
    number = page.locator("#scale input[type=number]")
    number.fill("3.5")
    number.press("Tab")
    wait_for_distance(page, "d === 3.5")
    page.locator("#feature input").fill("<img src=x onerror=alert(1)>")
    page.on("dialog", lambda dialog: pytest.fail(f"a feature ran as a script: {dialog.message}"))
    wait_for_distance(page, "text.includes('<img src=x onerror=alert(1)>') && text.includes('weighted list')")
    assert page.locator(".toast-body").count() == 0
    page.locator("#feature input").fill("1 - 2")
    wait_for_distance(page, "d === 3.5")
    page.get_by_role("button", name="Next").click()
    page.locator(".toast-body", has_text="only the number of one feature has neighbours").wait_for()


def test_components_tell_what_they_are_and_are_mixed_in(page):
    assert not page.locator("#component-1").is_visible()
    page.get_by_text("Principal components").click()
    lines = page.locator(".component", has_text="of the variance")
    lines.nth(7).wait_for()
    assert lines.nth(0).locator("q").count() == 12
    number = page.locator("#component-2 input[type=number]")
    number.fill("-0.5")
    number.press("Tab")
    wait_for_distance(page, "d > 3")  # 1.5 f - 0.5 p
    grow(page, "2e-2")
    found = json.loads(download(page, "#json"))
    assert found["settings"]["pca"] == [0, -0.5]
    assert found["vector"]["distance_from_centroid"] == pytest.approx(distance(page), abs=0.01)
    link = page.input_value("#link input")
    page.goto(link)
    page.wait_for_selector("#tree-view .explorer")
    wait_for_status(page, "at cutoff 0.02")
    wait_for_distance(page, "d > 3")


def test_token_arithmetic_and_several_features_are_grown(page):
    assert not page.locator("#arithmetic").is_visible()
    page.locator("#weights input[value=tokens]").check()
    write(page, "#arithmetic input", "king - man + woman")
    wait_for_distance(page, "d === 2.97")
    grow(page, "2e-2")
    assert json.loads(download(page, "#json"))["settings"]["tokens"] == "king - man + woman"
    before = view(page)
    page.locator("#weights input[value=encoder]").check()
    page.locator("#feature input").fill("927 - 648*0.5")
    page.click("#grow")
    wait_for_new_view(page, before)
    wait_for_status(page, "at cutoff 0.02")
    settings = json.loads(download(page, "#json"))["settings"]
    assert (settings["feature"], settings["tokens"]) == ("927*1.0 + 648*-0.5", "")


# ── Links and comparisons ───────────────────────────────────────────────────────────────────────────────────────────


def test_a_link_reopens_the_settings_and_grows_the_tree(page, app_url):
    page.locator("#feature input").fill("648")
    page.locator("#feature input").press("Tab")
    page.locator("#weights input[value=decoder]").check()
    grow(page, "1e-3")
    page.wait_for_function("document.querySelector('#link input').value.includes('feature=648')")
    link = page.input_value("#link input")
    assert link.startswith(app_url)
    first = json.loads(download(page, "#json"))

    page.goto(link)
    page.wait_for_selector("#tree-view .explorer")
    wait_for_status(page, "at cutoff 0.001")
    assert page.input_value("#feature input") == "648"
    assert weights(page) == "decoder"
    again = json.loads(download(page, "#json"))
    assert again["settings"] == first["settings"]
    assert again["tree"] == first["tree"]


def test_a_tree_is_steered_and_its_link_brings_the_controls_back(page):
    assert not page.locator(CLAMP).is_visible()
    page.check(INTERVENE)
    write(page, CLAMP, "1")
    page.get_by_label("at every token of the prompt").check()
    grow(page, "2e-3")
    settings = json.loads(download(page, "#json"))["settings"]
    assert (settings["clamp"], settings["steer_at"], settings["steer_strength"]) == (1.0, "prompt", 0.0)
    assert {"fog", "frost"} & set(definitions(page)), "held at its maximum, the feature speaks of weather"
    write(page, "#inject-layer input", "0")
    page.locator("#inject-mode input[value=add]").check()
    before = view(page)
    page.click("#grow")
    wait_for_new_view(page, before)
    wait_for_whole_tree(page)
    settings = json.loads(download(page, "#json"))["settings"]
    assert (settings["inject_layer"], settings["inject_mode"]) == (0, "add")
    page.goto(page.input_value("#link input"))
    page.wait_for_selector("#tree-view .explorer")
    wait_for_status(page, "at cutoff 0.002")
    assert json.loads(download(page, "#json"))["settings"] == settings
    assert page.is_checked(INTERVENE)
    page.locator(CLAMP).wait_for()
    assert page.input_value(CLAMP) == "1.0"
    assert page.get_by_label("at every token of the prompt").is_checked()
    # Switched off, none of it counts, though it stays as it was set.
    before = view(page)
    page.uncheck(INTERVENE)
    page.click("#grow")
    wait_for_new_view(page, before)
    wait_for_whole_tree(page)
    settings = json.loads(download(page, "#json"))["settings"]
    assert (settings["clamp"], settings["steer_at"], settings["inject_layer"]) == (None, "ghost", -1)
    page.check(INTERVENE)
    page.locator(CLAMP).wait_for()
    assert page.input_value(CLAMP) == "1.0"


def test_what_cannot_be_steered_is_told(page):
    page.check(INTERVENE)
    write(page, CLAMP, "much")
    page.click("#grow")
    toast = page.locator(".toast-body")
    toast.wait_for()
    assert "“Clamp the feature to” is 'much'; it must be a number within ±100" in toast.inner_text()


def test_a_link_that_cannot_be_is_told_and_leaves_no_tree(page, app_url):
    page.on("dialog", lambda dialog: pytest.fail(f"a link ran as a script: {dialog.message}"))
    page.goto(f"{app_url}/?feature=3&weights=%3Cimg+src%3Dx+onerror%3Dalert(1)%3E")
    toast = page.locator(".toast-body")
    toast.wait_for()
    assert "valid are encoder" in toast.inner_text()
    wait_for_status(page, "valid are encoder")
    page.wait_for_selector("#tree-view .empty")
    page.wait_for_selector("#tree-title p", state="hidden")
    page.goto(f"{app_url}/?feature=3&scale=50")
    page.wait_for_selector("#status")
    wait_for_status(page, "“Scale” is 50.0; this page can show from 0.1 to 10")
    page.wait_for_selector("#tree-view .empty")
    before = view(page)
    page.get_by_role("button", name="prison").click()
    wait_for_new_view(page, before)
    page.wait_for_function("document.querySelector('#tree-title').innerText.includes('feature 648')")


def test_two_trees_are_compared_side_by_side(page):
    assert not page.locator("#kept-view").is_visible()
    before = view(page)
    page.click("#keep")
    wait_for_new_view(page, before)
    page.locator("#weights input[value=decoder]").check()
    grow(page, "1e-3")
    page.wait_for_selector("#kept-view .explorer")
    assert "encoder → decoder" in page.inner_text("#comparison")
    assert "nodes in common" in page.inner_text("#comparison")
    assert "encoder" in page.inner_text("#kept-name") and "decoder" in page.inner_text("#tree-name")
    assert page.locator("#tree-view .shared").count() > 0
    assert page.locator("#kept-view .shared").count() > 0
    kept = page.locator("#definitions", has_text="Kept: %")
    kept.wait_for()
    table, header = (page.locator(where).bounding_box() for where in
                     ("#definitions", "#definitions .header-cell:nth-child(3)"))
    assert header["x"] + header["width"] <= table["x"] + table["width"] + 1, "all columns are seen"
    page.click("#drop")
    page.wait_for_selector("#kept-view", state="hidden")
    page.wait_for_selector("#comparison .comparison", state="hidden")


def test_two_lists_are_compared_side_by_side(page):
    page.get_by_role("tab", name="Token list").click()
    page.click("#list")
    page.locator("#tokens [role=gridcell]", has_text="␣rain").first.wait_for()
    page.click("#keep-list")
    page.locator("#kept-tokens [role=gridcell]", has_text="␣rain").first.wait_for()
    assert "100 of 100" in page.inner_text("#lists-shared")
    page.locator("#weights input[value=decoder]").check()
    page.click("#list")
    page.wait_for_function("!document.querySelector('#lists-shared').innerText.includes('100 of 100')")
    assert page.locator("#tokens [role=gridcell]", has_text="= ").count() > 0
    page.click("#drop-list")
    page.wait_for_selector("#kept-tokens", state="hidden")


def top_k(page) -> str:
    return page.locator("#top-k label:has(input:checked)").inner_text()


def test_where_top_k_cuts_most_all_next_tokens_are_one_click_away(page, app_url):
    open_growth(page)
    assert top_k(page) == "all above the cutoff"
    assert not page.locator("#follow-all").is_visible()
    page.goto(f"{app_url}/?sae=demo/hook_embed&feature=927&cutoff=1e-3&top_k=3")
    page.locator("#follow-all").wait_for()
    open_growth(page)
    assert top_k(page) == "3", "a number that is none of the usual ones"
    assert "of the probability is cut by top_k: more than the 3 most probable" in page.inner_text("#offer")
    assert "are cut by top_k 3" in page.inner_text("#coverage")
    assert "rain" not in definitions(page)
    before = view(page)
    page.click("#follow-all")
    wait_for_new_view(page, before)
    wait_for_whole_tree(page)
    page.locator("#follow-all").wait_for(state="hidden")
    assert top_k(page) == "all above the cutoff"
    assert "are cut by" not in page.inner_text("#coverage") and "are below the cutoff" in page.inner_text("#coverage")
    assert {"water", "rain", "precipitation"} <= set(definitions(page))
    saved = json.loads(download(page, "#json"))
    assert (saved["settings"]["top_k"], saved["settings"]["cutoff"]) == (0, 1e-3)


def test_the_growth_follows_the_model_as_its_method_was_published(page):
    open_growth(page)
    choose(page, "#model", "openai-community/gpt2")
    chosen = "#top-k label:has(input:checked)"
    page.locator(chosen, has_text="5, as published").wait_for()
    choose(page, "#model", DEMO_MODEL)
    page.locator(chosen, has_text="all above the cutoff").wait_for()


def test_what_is_unfinished_stands_under_a_heading(page):
    grow(page)
    page.wait_for_function(
        "() => { const cells = document.querySelectorAll('#definitions .virtual-row [role=gridcell]:nth-child(2)');"
        "        const texts = [...cells].map(cell => cell.innerText);"
        "        return texts[1] === 'rain' && texts.some(text => text.startsWith('Unfinished')) }"
    )
    listed = definitions(page)
    heading = listed.index("Unfinished: these go on beyond the tree")
    assert not any(text.endswith("…") for text in listed[:heading])
    assert listed[heading + 1 :] and all(text.endswith("…") for text in listed[heading + 1 :])
    numbers = dict(zip(listed, column(page, 1), strict=True))
    page.get_by_role("button", name="Outline").click()
    page.locator("#tree-view").get_by_role("button", name="Close all").click()
    ends = page.locator("#tree-view [role=treeitem]:has(.end)")
    shown = dict(zip(ends.locator(".words").all_inner_texts(), ends.locator(".end").all_inner_texts(), strict=True))
    assert shown["water"] == f"■ {numbers['water']}%" and shown["rain"] == f"■ {numbers['rain']}%"
