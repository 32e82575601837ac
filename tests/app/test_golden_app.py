"""The app's interfaces and answers against the stored ones: as gradio_client sees them, and as an MCP client does.

See tests/golden_files.py for how to renew what is stored.
"""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict

import pytest
from golden_cases import TREES
from golden_files import tree_told
from gradio_client import Client
from gradio_client.exceptions import AppError
from mcp import ClientSession
from mcp.client.streamable_http import streamable_http_client


@pytest.fixture(scope="module")
def client(app_url):
    return Client(app_url, verbose=False)


def test_the_api(golden, client, app_url):
    golden("app/api", client.view_api(return_format="dict", print_info=False), {app_url: "URL"})


def test_the_tools(golden, app_url):
    async def tools():
        address = f"{app_url}/gradio_api/mcp/"
        async with streamable_http_client(address) as (read, write, _), ClientSession(read, write) as session:
            await session.initialize()
            return (await session.list_tools()).tools

    # In a thread of its own: the browser of other tests keeps an event loop in this one.
    with ThreadPoolExecutor(1) as thread:
        found = thread.submit(asyncio.run, tools()).result()
    golden("app/tools", {
        tool.name: {"description": tool.description.splitlines(), "input": tool.inputSchema} for tool in found
    }, {app_url: "URL"})


@pytest.fixture(scope="module")
def asked(client):
    """A tree of the cases, as the app gives it."""

    def tree(name: str) -> dict:
        vector, growth = map(asdict, TREES[name])
        settings = {key: list(value) if isinstance(value, tuple) else value for key, value in (vector | growth).items()}
        return client.predict(**settings, api_name="/definition_tree")[1]

    return tree


def test_a_tree_is_trimmed_checked_and_pruned(golden, client, asked):
    tree = asked("encoder")
    _, checked = client.predict(tree, api_name="/check_tree")
    golden("app/trees", {
        "grown": tree_told(tree),
        "trimmed": tree_told(client.predict(tree, 6e-3, api_name="/trim_tree")[1]),
        "checked": tree_told(checked),
        "pruned": tree_told(client.predict(checked, 1e-12, 1.0, api_name="/trim_tree")[1]),
    })


def test_other_trees(golden, client, asked):
    golden("app/other-trees", {
        "changed": tree_told(asked("all-interventions")),
        "several prompts": [
            tree_told(tree) for tree in client.predict(
                prompts=["synonym", "chat-synonym"], cutoff=8e-3, api_name="/definition_trees")
        ],
    })


def test_a_tree_is_grown_on(golden, client):
    job = client.submit(feature=152, cutoff=8e-3, api_name="/definition_tree")
    job.result()
    begun = job.outputs()[0][1]
    assert not begun["result"]["complete"]
    golden("app/grown-on", {
        "begun": tree_told(begun), "whole": tree_told(client.predict(begun, api_name="/continue_tree")[1])
    })


def test_other_answers(golden, client):
    golden("app/answers", {
        "list": client.predict(top=6, evidence=True, measure="cosine", api_name="/token_list"),
        "checked list": client.predict(top=6, words=True, api_name="/check_list"),
        "activity": client.predict("demo/hook_embed", 927, "Is it rain?\nNo rain.", api_name="/activity"),
        "components": client.predict(count=2, top=3, api_name="/components"),
        "saes": client.predict("gemma-2b-res-jb", api_name="/saes"),
    })


REFUSED = {
    "/definition_tree": [{"sae": "demo/hook_embedd"}, {"feature": 2048}, {"feature": "seven"}, {"weights": "both"},
                         {"pca": [0.5, None]}, {"prompt": "no place"}, {"stop": "yes"}, {"max_nodes": 10**9}],
    "/definition_trees": [{"prompts": []}, {"prompts": [7]}, {"prompts": "meaning"}],
    "/trim_tree": [{"tree": {"name": "x"}, "cutoff": 0.1}],
    "/token_list": [{"measure": "size"}, {"words": "yes"}, {"top": 0}],
    "/activity": [{}, {"feature": "1 + 2", "text": "rain"}],
    "/components": [{"top": 0}],
}


def test_what_is_refused(golden, client):
    told = []
    for endpoint, requests in REFUSED.items():
        for request in requests:
            with pytest.raises(AppError) as error:
                client.predict(**request, api_name=endpoint)
            told.append([f"{endpoint} {request}", str(error.value)])
    golden("app/refused", told)
