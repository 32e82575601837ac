"""Whether the workarounds do their work, and whether Gradio still needs them."""

import time
from pathlib import Path

import gradio as gr
import pytest
from gradio.mcp import GradioMCPServer
from gradio_client import Client

from multitool.errors import UserError
from multitool.page.common import file_data, save
from multitool.page.gradio_workarounds import Page, name_endpoint, told_whole

KEPT = 2  # seconds that files are


def twice(number: int = 3) -> tuple[int, str]:
    """Twice the number."""
    return 2 * number, "two"


def file(text: str) -> dict:
    return file_data(save(text, {"sae": "some/sae", "feature": 1}, "tree.txt"), "text/plain")


def filled(page: gr.Blocks) -> gr.Blocks:
    """The page with a public and an undocumented endpoint, and one that gives a file."""
    with page:
        gr.api(twice, api_name="open")
        named = gr.api(twice, api_name="hidden", api_visibility="undocumented")
        gr.api(file, api_name="file")
        if isinstance(page, Page):
            name_endpoint(page, named, ["number"], ["doubled", "word"])
    return page


def described(page: gr.Blocks) -> dict:
    return page.get_api_info()["named_endpoints"]


@pytest.fixture(scope="module")
def client():
    page = filled(Page(delete_cache=(1, KEPT)))
    _, url, _ = page.launch(prevent_thread_lock=True, quiet=True, mcp_server=True)
    yield Client(url, verbose=False)
    page.close()


def test_undocumented_endpoints_are_called_by_name_and_public_ones_alone_are_shown(client):
    assert client.predict(number=4, api_name="/hidden") == (8, "two")
    assert client.predict(number=4, api_name="/open") == (8, "two")
    shown = {event["api_name"] for event in client.config["dependencies"] if event["api_visibility"] == "public"}
    assert shown == {"open", "file"}


def test_undocumented_endpoints_alone_are_tools():
    page = filled(Page())
    assert GradioMCPServer(page).get_tool_to_endpoint() == {"twice": "/hidden"}
    assert set(page.get_api_info(all_endpoints=True)["named_endpoints"]) == {"/open", "/hidden", "/file"}


def test_gradio_makes_tools_of_all_public_endpoints_and_documents_no_other():
    """Should this fail, Gradio may have learnt to tell tools from endpoints, and ``Page`` may no longer be needed."""
    page = filled(gr.Blocks())
    assert set(GradioMCPServer(page).get_tool_to_endpoint().values()) == set(described(page)) == {"/open", "/file"}


def test_endpoints_are_named(client):
    endpoint = client.view_api(return_format="dict", print_info=False)["named_endpoints"]["/hidden"]
    assert [part["label"] for part in endpoint["parameters"] + endpoint["returns"]] == ["number", "doubled", "word"]


def test_gradio_numbers_what_endpoints_take_and_answer():
    """Should this fail, Gradio names them by itself, and ``name_endpoint`` is no longer needed."""
    endpoint = described(filled(gr.Blocks()))["/open"]
    assert [part["label"] for part in endpoint["parameters"] + endpoint["returns"]] == ["1st", "1st", "2nd"]


def refusal(page: gr.Blocks) -> Exception:
    """What is raised where a request brings none of the values that an endpoint takes."""
    page = filled(page)
    with pytest.raises(Exception) as error:  # noqa: B017  # which, is what the tests ask
        page.validate_inputs(next(event for event in page.fns.values() if event.api_name == "hidden"), [])
    return error.value


def test_a_request_with_too_few_values_is_answered_with_their_names():
    error = refusal(Page())
    assert isinstance(error, gr.Error)
    assert error.message == "/hidden takes 1 values, in this order: number. There are 0."


def test_gradio_has_no_words_for_clients_where_values_are_missing():
    """Should this fail, Gradio may tell clients what is missing, and ``Page.validate_inputs`` may not be needed."""
    assert type(refusal(gr.Blocks())) is ValueError


def test_files_are_where_gradio_serves_them_from_and_are_deleted_in_time(client):
    """Should this fail, Gradio has another folder for the files that it serves, or cares for them in another way."""
    given = client.predict("some text", api_name="/file")
    assert Path(given).read_text() == "some text" and Path(given).name == "some-sae-feature-1-tree.txt"
    served = Path(save("some text", {"sae": "some/sae", "feature": 1}, "tree.txt"))
    assert served.is_relative_to(gr.File().GRADIO_CACHE)
    deadline = time.monotonic() + KEPT + 20
    while served.exists():
        assert time.monotonic() < deadline, "the file has not been deleted"
        time.sleep(0.2)


def test_a_stream_ends_with_all_that_it_told():
    shown, hidden = gr.update(visible=True, value="a"), gr.update(visible=False)

    def last(*answers) -> dict:
        *told, ending = told_whole(answers, {"done": 1})
        assert told == list(answers)
        return ending

    assert last() == {"done": 1}
    assert last({"rows": [1], "status": ""}, {"status": "two"}) == {"rows": [1], "status": "two", "done": 1}
    assert last({"file": shown}, {"file": hidden}) == {"file": gr.update(visible=False, value="a"), "done": 1}
    assert last({"file": "a"}, {"file": hidden}) == {"file": gr.update(visible=False, value="a"), "done": 1}
    assert last({"file": hidden}, {"file": "b"}) == {"file": "b", "done": 1}


def test_a_stream_that_fails_tells_all_before():
    def failing():
        yield {"status": "one"}
        raise UserError("No.")

    answers = told_whole(failing(), {"done": 1})
    assert [next(answers), next(answers)] == [{"status": "one"}, {"status": "one", "done": 1}]
    with pytest.raises(UserError):
        next(answers)
