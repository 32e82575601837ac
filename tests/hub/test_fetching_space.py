"""The app with the hub: what a Space opens with, with a token and without; what visitors can have fetched, and what
they cannot; and on a person's own machine the demo, without a word to the hub.
"""

import threading
import time

import pytest
from gradio_client import Client
from gradio_client.exceptions import AppError
from hub_clients import (
    GEMMA,
    GEMMA_6,
    GEMMA_6_FOLDER,
    GEMMA_SAES,
    GPT2,
    GPT2_0,
    GPT2_SAES,
    PYTHIA,
    PYTHIA_3,
    READER,
    ROOT,
    UNKNOWN,
    VISITOR,
    App,
    as_at_first,
    environment,
    fetched,
)
from visit import opened, write

SPACE = {"SPACE_ID": "me/sae-multitool"}
DEMO_0 = "demo/hook_embed"
LICENCE = "https://huggingface.co/google/gemma-2b"
SMALL = {"feature": 5, "cutoff": 2e-2, "api_name": "/definition_tree"}
LIST = {"feature": 5, "top": 3, "api_name": "/token_list"}
GPT2_WEIGHTS = (GPT2, "model.safetensors")


def refusal(client: Client, **request) -> str:
    with pytest.raises(AppError) as error:
        client.predict(**request)
    return str(error.value)


# A duplicate of the Space with a token, as docs/deploying.md has it: the licence accepted, the token as the secret
# HF_TOKEN, nothing else


@pytest.fixture(scope="module")
def gemma_space(_hub, repos, tmp_path_factory):
    hub = as_at_first(_hub, repos)
    folder = tmp_path_factory.mktemp("space")
    with App(environment(hub, folder / "home", READER) | SPACE, folder / "log") as app:
        app.fetched = fetched(hub)
        yield app


@pytest.fixture(scope="module")
def client(gemma_space):
    return Client(gemma_space.url, verbose=False)


def test_with_a_token_the_space_opens_on_gemma_and_grows_a_tree_of_layer_6(gemma_space, client, hub):
    assert [gemma_space.shown(name) for name in ("model", "sae", "notice")] == [GEMMA, GEMMA_6, None]
    assert {file.rsplit("/", 1)[0] for file in gemma_space.fetched} == {GEMMA, f"{GEMMA_SAES}/{GEMMA_6_FOLDER}"}
    _, tree = client.predict(**SMALL)
    assert (tree["settings"]["sae"], tree["settings"]["model"]) == (GEMMA_6, GEMMA)
    assert tree["result"]["complete"]
    assert tree["result"]["nodes"] > 3
    assert len(client.predict(**LIST)["data"]) == 3
    assert hub.requests == []  # all of it is in memory


def test_a_visitor_sees_the_fetching_of_another_model_and_then_its_tree(gemma_space, client, hub):
    hub.stall.add(GPT2_WEIGHTS)

    def go_on() -> None:
        while "/".join(GPT2_WEIGHTS) not in fetched(hub):
            time.sleep(0.05)
        time.sleep(1)
        hub.stall.clear()

    threading.Thread(target=go_on, daemon=True).start()
    seen = gemma_space.press("grow", sae=GPT2_0, feature=5, cutoff="2e-2")
    waiting, words, growing = seen.partition("Growing: 1 tokens deep")
    assert words, seen
    assert f"Fetching {GPT2}: 0 of 1 MB" in waiting
    assert "Fetching" not in growing
    hub.clear()
    assert client.predict(sae=GPT2_0, **SMALL)[1]["settings"]["model"] == GPT2
    assert hub.requests == []


def test_a_gated_model_that_the_servers_token_may_not_read_is_named_with_its_page(gemma_space, client, hub):
    hub.gated[PYTHIA] = set()
    message = refusal(client, sae=PYTHIA_3, **LIST)
    assert PYTHIA in message
    assert f"https://huggingface.co/{PYTHIA}" in message
    assert "may not read" in gemma_space.press("grow", sae=PYTHIA_3)


def test_the_page_tells_of_vector_and_components_as_soon_as_a_list_has_loaded_the_model(browser, gemma_space, hub):
    with opened(browser, gemma_space.url, shows="#grow") as page:
        component = page.locator(".component", has_text="of the variance").first
        distance = page.locator("#distance", has_text="Distance from the centroid")
        # By key: right after scrolling a click may still go to Neuronpedia's frame, which was there before.
        page.get_by_role("button", name="Principal components").press("Enter")
        component.wait_for()
        distance.wait_for()
        write(page, "#sae input", PYTHIA_3)
        page.press("#sae input", "Enter")
        page.get_by_text("will be told here when a tree or a list has loaded the model").wait_for()
        component.wait_for(state="detached")
        distance.wait_for(state="detached")
        page.get_by_role("tab", name="Token list").click()
        page.click("#list")
        component.wait_for()
        distance.wait_for()


NOT_FOR_VISITORS = [
    "google/gemma-2b",
    f"{GPT2_SAES}/blocks.0.hook_resid_pre",
    "some-one/some-sae",
    "https://example.org/sae",
    str(ROOT / "multitool" / "store" / "demo" / "hook_embed"),
    "multitool/store/demo/hook_embed",
    "../../etc/passwd",
    "/",
    "local/sae",
    f"{GEMMA_6}/../../..",
]


def test_a_visitor_cannot_name_a_repository_or_a_path(gemma_space, client, hub):
    _, whole = client.predict(**SMALL)
    hub.clear()
    for name in NOT_FOR_VISITORS:
        broken_off = whole | {"settings": whole["settings"] | {"sae": name}}
        broken_off["result"] = whole["result"] | {"complete": False}
        for request in (
            {"sae": name, **SMALL},
            {"sae": name, **LIST},
            {"tree": broken_off, "api_name": "/continue_tree"},
        ):
            assert f"There is no SAE {name!r}" in refusal(client, **request)
        assert "There is no SAE" in gemma_space.press("grow", sae=name)
    assert hub.requests == []


def test_a_visitor_cannot_name_a_model(client, hub):
    _, whole = client.predict(**SMALL)
    hub.clear()
    for name in ("nobody/nothing", GPT2, str(ROOT)):
        broken_off = whole | {"settings": whole["settings"] | {"model": name}}
        broken_off["result"] = whole["result"] | {"complete": False}
        assert name in refusal(client, tree=broken_off, api_name="/continue_tree")
    assert hub.requests == []


# Other Spaces


def test_without_a_token_the_space_opens_with_gpt2_and_says_how_to_get_gemma(hub, tmp_path):
    allowed = {"SAE_MULTITOOL_ALLOW": "gemma-2b-res-jb gpt2-small-res-jb"}
    with App(environment(hub, tmp_path / "home") | SPACE | allowed, tmp_path / "log") as app:
        assert [app.shown(name) for name in ("model", "sae")] == [GPT2, GPT2_0]
        notice = app.shown("notice")
        assert all(part in notice for part in ("Gemma-2B", LICENCE, "HF_TOKEN", "Variables and secrets")), notice
        assert not [file for file in fetched(hub) if "emma" in file]
        client = Client(app.url, verbose=False)
        assert client.predict(**SMALL)[1]["settings"]["sae"] == GPT2_0
        message = refusal(client, sae=GEMMA_6, **SMALL)
        assert all(part in message for part in (GEMMA, "no token", LICENCE, "HF_TOKEN")), message

        hub.clear()
        for request in (SMALL, LIST):
            message = refusal(client, sae=PYTHIA_3, **request)
            assert all(part in message for part in (PYTHIA_3, "not served here", "gpt2-small-res-jb")), message
        assert "not served here" in app.press("grow", sae=PYTHIA_3)
        assert {sae["sae"].partition("/")[0] for sae in client.predict(api_name="/saes")} == {
            "demo", "gemma-2b-res-jb", "gpt2-small-res-jb",
        }
        assert hub.requests == []


def test_a_space_without_a_hub_opens_with_the_demo_and_says_why(hub, tmp_path):
    hub.down = True
    with App(environment(hub, tmp_path / "home", READER) | SPACE, tmp_path / "log") as app:
        assert app.shown("sae") == DEMO_0
        assert "hub" in app.shown("notice")
        client = Client(app.url, verbose=False)
        assert client.predict(**SMALL)[1]["settings"]["sae"] == DEMO_0
        assert GPT2_SAES in refusal(client, sae=GPT2_0, **LIST)
        hub.down = False
        assert client.predict(sae=GPT2_0, **LIST)["data"]


def test_on_a_persons_own_machine_the_demo_without_a_request_and_behind_any_proxy(hub, tmp_path):
    # Nothing listens at the proxy.
    proxies = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"), "http://127.0.0.1:1") | {"NO_PROXY": ""}
    with App(environment(hub, tmp_path / "home", READER) | proxies, tmp_path / "log") as app:
        assert [app.shown(name) for name in ("sae", "notice")] == [DEMO_0, None]
        assert Client(app.url, verbose=False).predict(**SMALL)[1]["settings"]["sae"] == DEMO_0
        assert hub.requests == []


# The opening alone, without the page


OPEN = """
    from multitool.page.opening import choose_opening
    from multitool.page.settings import read_settings
    from multitool.store.library import Library

    settings = read_settings()
    library = Library(
        dtype="float32", device="cpu", patterns=settings.allow, max_model_bytes=settings.max_model_bytes, bars=False
    )
    opening = choose_opening(library, settings)
    answer = [opening.recipe.sae, opening.notice]
"""


def test_a_token_without_access_is_as_good_as_none(tool):
    sae, notice = tool.python(OPEN, token=VISITOR, **SPACE)
    assert sae == GPT2_0
    assert LICENCE in notice


def test_a_token_that_the_hub_refuses_is_told(tool):
    sae, notice = tool.python(OPEN, token=UNKNOWN, **SPACE)
    assert sae == DEMO_0
    assert "https://huggingface.co/settings/tokens" in notice


def test_gemma_that_cannot_be_loaded_gives_way_to_gpt2_and_the_page_says_why(tool, hub):
    hub.missing.add((GEMMA, "model.safetensors.index.json"))
    sae, notice = tool.python(OPEN, token=READER, **SPACE)
    assert sae == GPT2_0
    assert "model.safetensors.index.json" in notice
    assert "demo" not in notice


def test_a_limit_on_models_holds_for_the_opening_and_nothing_too_large_is_fetched(tool, hub):
    sae, notice = tool.python(OPEN, token=READER, SAE_MULTITOOL_MAX_MODEL_GB="0.0002", **SPACE)
    assert sae == DEMO_0
    assert "at most 0.2 MB (SAE_MULTITOOL_MAX_MODEL_GB)" in notice
    assert not [file for file in fetched(hub) if file.startswith((GEMMA, GPT2))]


def test_the_second_start_asks_for_access_and_revisions_and_a_chosen_sae_opens_without_a_hub(tool, hub):
    assert tool.python(OPEN, token=READER, **SPACE) == [GEMMA_6, ""]
    hub.clear()
    assert tool.python(OPEN, token=READER, **SPACE) == [GEMMA_6, ""]
    assert [asked.path for asked in hub.requests] == [
        f"/api/models/{GEMMA}/auth-check", f"/api/models/{GEMMA_SAES}", f"/api/models/{GEMMA}"
    ]
    hub.stop()
    assert tool.python(OPEN, SAE_MULTITOOL_SAE=GEMMA_6) == [GEMMA_6, ""]


def test_what_visitors_may_not_load_the_space_does_not_open_with(tool, hub):
    sae, notice = tool.python(OPEN, token=READER, SAE_MULTITOOL_ALLOW="gpt2-small-res-jb", **SPACE)
    assert (sae, notice) == (GPT2_0, "")
    assert "emma" not in str(hub.requests)


def test_the_operators_choice_comes_first_and_is_told_when_it_cannot_be_had(tool, hub):
    chosen = {"SAE_MULTITOOL_SAE": PYTHIA_3, "SAE_MULTITOOL_FEATURE": "7"}
    assert tool.python(OPEN, **chosen, **SPACE) == [PYTHIA_3, ""]
    code = OPEN.replace("opening = ", "from multitool.errors import UserError\n    try: opening = ").replace(
        "answer = [opening.recipe.sae, opening.notice]", "except UserError as error: answer = str(error)"
    )
    message = tool.python(code, **chosen | {"SAE_MULTITOOL_SAE": GEMMA_6})
    assert all(part in message for part in ("SAE_MULTITOOL_SAE", GEMMA, "gated", LICENCE)), message
