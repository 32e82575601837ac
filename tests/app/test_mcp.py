"""The app as an MCP server, used by a real MCP client: what an agent sees of it."""

import asyncio
import json
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest
from mcp import ClientSession
from mcp.client.streamable_http import streamable_http_client


@pytest.fixture(scope="module")
def call(app_url):
    """Call a tool: (whether it failed, its answer's texts). Without a name: the tools that there are."""

    async def talk(name, arguments):
        address = f"{app_url}/gradio_api/mcp/"
        async with streamable_http_client(address) as (read, write, _), ClientSession(read, write) as session:
            await session.initialize()
            if name is None:
                return {tool.name: tool for tool in (await session.list_tools()).tools}
            result = await session.call_tool(name, arguments)
            return bool(result.isError), [content.text for content in result.content]

    # In a thread of its own: the browser of other tests keeps an event loop in this one.
    with ThreadPoolExecutor(1) as thread:
        yield lambda name=None, **arguments: thread.submit(asyncio.run, talk(name, arguments)).result()


def answer(call, name, **arguments):
    """The single JSON that a tool must answer with; a short one unless all is asked for."""
    failed, texts = call(name, **arguments)
    assert not failed, texts
    (text,) = texts
    assert len(text.encode()) < 40_000 or arguments.get("detail") == "full"
    return json.loads(text)


def test_the_tools_are_the_endpoints_and_read_as_documentation(call, app_url):
    tools = call()
    assert set(tools) == {
        "definition_tree", "definition_trees", "continue_tree", "trim_tree", "check_tree", "token_list", "check_list",
        "continuations", "activity", "find_by_text", "find_by_tokens", "find_like", "find_in_atlas", "suggest",
        "components", "saes", "feature_card",
    }
    # What Gradio's page on the API counts as public; the twins are called by their names as before.
    with urllib.request.urlopen(f"{app_url}/config") as config:
        public = [event["api_name"] for event in json.load(config)["dependencies"]
                  if event["api_visibility"] == "public"]
    assert set(public) == set(tools)
    tree = tools["definition_tree"]
    assert tree.description.startswith("Grow a definition tree: what the model says")
    assert "picture" not in tree.description.lower().partition("returns:")[2]
    described = tree.inputSchema["properties"]
    assert described["cutoff"]["description"] == "smallest cumulative probability of a node, between 0 and 1."
    assert described["cutoff"]["default"] == 5e-5
    assert {"null", "string", "number"} == {kind["type"] for kind in described["scale"]["anyOf"]}
    assert max(len(tool.description) for tool in tools.values()) < 900
    assert all(parameter.get("description") for tool in tools.values()
               for parameter in tool.inputSchema["properties"].values())


def test_a_tree_is_grown_checked_and_trimmed_by_its_id(call):
    # As some agents write values.
    tree = answer(call, "definition_tree", feature="648", cutoff="2e-2", scale="null", pca="null", stop="true")
    assert tree["recipe"]["feature"] == 648 and tree["recipe"]["cutoff"] == 2e-2 and tree["result"]["complete"]
    whole = answer(call, "definition_tree", feature=648, cutoff=2e-2, detail="full")
    assert whole["schema"] == "sae-multitool/definition-tree/1"
    assert whole["result"] == tree["result"]
    checked = answer(call, "check_tree", tree=tree["id"])
    assert checked["evidence"]["sentence"]
    assert "lift" in checked["beginnings"][0]
    by_id, whole_one = (answer(call, "trim_tree", tree=given, cutoff=5e-2) for given in (tree["id"], whole))
    assert by_id["result"] == whole_one["result"]
    assert by_id["result"]["nodes"] < tree["result"]["nodes"]
    failed, (text,) = call("continue_tree", tree=tree["id"])
    assert failed and "This tree is whole" in text


def test_several_prompts_are_asked(call):
    trees = answer(call, "definition_trees", prompts='["meaning", "category"]', cutoff=2e-2)["trees"]
    prompts = ['The meaning of "{ghost}" is "', 'A "{ghost}" is a kind of "']
    assert [tree["recipe"]["prompt"] for tree in trees] == prompts
    assert trees[0]["id"] != trees[1]["id"]


def test_defaults_give_short_answers(call):
    tree = answer(call, "definition_tree")
    assert tree["result"]["nodes"] > 500 and len(tree["definitions"]) == 20 < tree["total"]
    table = answer(call, "token_list")
    assert [row[:2] for row in table["data"]][0] == [1, " Rain"]
    assert (table["total"], table["next_offset"]) == (100, 50)
    found = answer(call, "saes")
    assert found["total"] > 4000 and len(found["saes"]) == 50
    assert answer(call, "saes", offset=50)["saes"][0] not in found["saes"]
    assert len(answer(call, "components")["components"]) == 8
    assert answer(call, "find_by_tokens", tokens="rain")["features"][0]["feature"] == 927
    assert answer(call, "activity", text="Is it rain?")["strongest"][0]["token"] == " rain"


def test_tokens_are_judged_and_saes_found(call):
    assert answer(call, "check_list", top=3)["evidence"]["verdict"] == "agrees"
    (found,) = answer(call, "saes", search="gemma-2b-res-jb blocks.6.")["saes"]
    assert found.pop("runs_here").startswith(("yes", "no", "not known"))
    assert found == {
        "sae": "gemma-2b-res-jb/blocks.6.hook_resid_post", "model": "google/gemma-2b",
        "hook": "blocks.6.hook_resid_post", "layer": 6, "d_sae": 16384, "l0": 56.0,
        "canonical": False, "model_parameters": 2506000000, "gated": True,
        "neuronpedia_id": "gemma-2b/6-res-jb",
    }  # fmt: skip


def test_an_error_says_what_is_valid(call):
    failed, texts = call("token_list", feature=10**6)
    assert failed
    assert "0 to 2047" in texts[0]
    failed, texts = call("token_list", top="many")
    assert failed
    assert "top is 'many'; it must be a whole number" in texts[0]
