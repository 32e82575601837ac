"""The Gradio API, called as a program calls it."""

import concurrent.futures
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import httpx
import numpy as np
import pytest
from gradio_client import Client
from gradio_client.exceptions import AppError

ROOT = Path(__file__).parents[2]
SMALL = {"cutoff": 5e-3}


@pytest.fixture(scope="module")
def client(app_url):
    return Client(app_url, verbose=False)


ENDPOINTS = {
    "/definition_tree", "/definition_trees", "/continue_tree", "/trim_tree", "/check_tree", "/token_list",
    "/check_list", "/continuations", "/activity", "/find_by_text", "/find_by_tokens", "/find_like", "/find_in_atlas",
    "/suggest", "/components", "/saes", "/feature_card",
}


def test_the_api_has_the_documented_endpoints_with_their_twins_and_no_other(client):
    api = client.view_api(return_format="dict", print_info=False)
    assert set(api["named_endpoints"]) == ENDPOINTS | {f"{endpoint}_json" for endpoint in ENDPOINTS}
    assert not api["unnamed_endpoints"]


def test_a_twin_answers_with_the_same_as_one_json_text(client):
    _, tree = client.predict(**SMALL, api_name="/definition_tree")
    told = json.loads(client.predict(**SMALL, api_name="/definition_tree_json"))
    assert told["result"] == tree["result"]
    assert json.loads(client.predict(**SMALL, detail="full", api_name="/definition_tree_json")) == tree
    _, trimmed = client.predict(tree, 1e-2, api_name="/trim_tree")
    for given in (tree, told["id"]):
        text = client.predict(given, 1e-2, detail="full", api_name="/trim_tree_json")
        assert json.loads(text) == trimmed


def test_parameters_are_those_of_the_command_line_each_with_a_default(client):
    api = client.view_api(return_format="dict", print_info=False)["named_endpoints"]
    vector = ["sae", "feature", "weights", "encoder_share", "tokens", "centroid", "scale", "pca", "vector",
              "vector_name"]
    growth = ["top_k", "cutoff", "max_depth", "max_nodes", "stop"]
    steering = ["steer_strength", "clamp", "steer_at", "steer_sinks", "inject_layer", "inject_mode", "inject_scale"]
    listed = ["exponent", "top", "measure", "negative", "words"]
    assert _names(api["/definition_tree"]) == [*vector, "prompt", "chat", "answer", *growth, *steering]
    assert _names(api["/definition_trees"]) == [*vector, *growth, *steering, "prompts"]
    assert _names(api["/token_list"]) == [*vector, *listed, "evidence"]
    assert _names(api["/check_list"]) == [*vector, *listed]
    assert [answer["label"] for answer in api["/definition_tree"]["returns"]] == ["picture", "tree"]
    for endpoint in ENDPOINTS - {"/continue_tree", "/trim_tree", "/check_tree"}:
        assert all(parameter["parameter_has_default"] for parameter in api[endpoint]["parameters"])


def _names(endpoint: dict) -> list[str]:
    return [parameter["parameter_name"] for parameter in endpoint["parameters"]]


def test_a_tree_streams_while_it_grows_and_ends_whole(client):
    job = client.submit(cutoff=4e-3, api_name="/definition_tree")
    picture, tree = job.result()
    answers = job.outputs()
    nodes = [answer[1]["result"]["nodes"] for answer in answers]
    assert nodes == sorted(nodes)
    assert len(answers) > 2
    assert [answer[1]["result"]["complete"] for answer in answers] == [False] * (len(answers) - 1) + [True]
    assert Path(picture).read_bytes().startswith(b"\x89PNG")
    assert tree["schema"] == "sae-multitool/definition-tree/1"


def test_a_tree_that_loses_nodes_while_it_streams_comes_whole(client):
    settings = {"feature": 1785, "cutoff": 1e-3, "top_k": 0, "max_nodes": 60}
    job = client.submit(**settings, api_name="/definition_tree")
    _, tree = job.result()
    nodes = [answer[1]["result"]["nodes"] for answer in job.outputs()]
    assert 0 in nodes[1:-1] and nodes[-1] == len(_paths(tree["tree"])) == 60
    assert json.loads(client.predict(**settings, detail="full", api_name="/definition_tree_json")) == tree
    assert tree["settings"]["top_k"] == 0 and tree["result"]["beyond_top_k"] == 0
    assert tree["result"]["in_tree"] + tree["result"]["below_cutoff"] == pytest.approx(1)


def test_several_prompts_give_a_list_of_trees(client):
    trees = client.predict(prompts=["synonym", "chat-synonym"], **SMALL, api_name="/definition_trees")
    assert [tree["settings"]["chat"] for tree in trees] == [False, True]
    assert all(tree["result"]["complete"] and tree["settings"]["cutoff"] == 5e-3 for tree in trees)
    for tree in trees:
        prompt = {name: tree["settings"][name] for name in ("prompt", "chat", "answer")}
        assert client.predict(**prompt, **SMALL, api_name="/definition_tree")[1] == tree, "from memory"
    assert len(client.predict(cutoff=2e-2, api_name="/definition_trees")) == 5


@pytest.mark.parametrize(
    ("prompts", "said"),
    [
        ([], "There are 0 prompts; give 1 to 8"), (["meaning"] * 9, "There are 9 prompts"),
        (["meaning", "no place"], "exactly once"), ([7], "prompt is 7"), ("meaning", "must be a list"),
    ],
)
def test_prompts_that_cannot_be_are_refused(client, prompts, said):
    with pytest.raises(AppError, match=said):
        client.predict(prompts=prompts, **SMALL, api_name="/definition_trees")


def test_a_tree_of_one_answer_is_trimmed_by_the_next_call(client):
    _, tree = client.predict(**SMALL, api_name="/definition_tree")
    picture, trimmed = client.predict(tree, 1e-2, api_name="/trim_tree")
    _, grown = client.predict(cutoff=1e-2, api_name="/definition_tree")
    assert _paths(trimmed["tree"]) == pytest.approx(_paths(grown["tree"]), abs=1e-6)
    assert len(_paths(trimmed["tree"])) > 3
    assert trimmed["settings"]["cutoff"] == 5e-3
    assert trimmed["result"]["effective_cutoff"] == 1e-2
    assert Path(picture).read_bytes().startswith(b"\x89PNG")


def _paths(node: dict, before: tuple = ()) -> dict[tuple, float]:
    """Cumulative probability by path of token ids."""
    paths = {}
    for child in node["children"]:
        path = (*before, child["token_id"])
        paths |= {path: child["cumulative_prob"]} | _paths(child, path)
    return paths


def test_a_token_list_is_a_dataframe(client):
    table = client.predict(top=3, api_name="/token_list")
    assert table["headers"] == ["rank", "token", "token_id", "score", "distance_to_vector", "distance_to_centroid"]
    assert [row[0] for row in table["data"]] == [1, 2, 3]
    assert table["data"][0][1] == " Rain"


def test_saes_are_found_by_name_and_by_model(client):
    found = client.predict("gemma-2b-res-jb", api_name="/saes")
    assert {sae["layer"] for sae in found} == {0, 6, 10, 12, 17}
    assert found[1]["neuronpedia_id"] == "gemma-2b/6-res-jb"


def test_several_features_make_one_vector(client):
    _, tree = client.predict(feature="927 - 648*0.5", cutoff=2e-2, api_name="/definition_tree")
    assert tree["settings"]["feature"] == "927*1.0 + 648*-0.5"
    _, again = client.predict(feature=tree["settings"]["feature"], cutoff=2e-2, api_name="/definition_tree")
    assert again["tree"] == tree["tree"]
    assert client.predict(feature="927", top=1, api_name="/token_list")["data"][0][1] == " Rain"
    with pytest.raises(AppError, match="Evidence is about one feature"):
        client.predict(tree, api_name="/check_tree")
    with pytest.raises(AppError, match="Evidence is about one feature"):
        client.predict(feature="1 + 2", text="rain", api_name="/activity")


def test_a_vector_of_ones_own_stands_in_the_feature_s_place(client):
    row = [float(number) for number in np.random.default_rng(0).standard_normal(576)]
    given = {"sae": "demo/hook_embed", "vector": row, "vector_name": "mood", "cutoff": 2e-2}
    _, tree = client.predict(**given, api_name="/definition_tree")
    assert tree["settings"]["vector_name"] == "mood" and tree["settings"]["feature"] == 0
    assert np.array_equal(np.float32(tree["settings"]["vector"]), np.float32(row))
    _, checked = client.predict(tree, api_name="/check_tree")
    assert checked["evidence"]["verdict"] == "unknown" and "vector of your own" in checked["evidence"]["sentence"]
    given["sae"] = "model:demo/SmolLM2-135M-Instruct-Q4_1@hook_embed"
    assert client.predict(**given, api_name="/definition_tree")[1]["tree"] == tree["tree"]
    for wrong, said in (({"vector": row[:5]}, "The vector has 5 numbers"), ({"vector": [0.0]}, "all zeros"),
                        ({"sae": "model:elsewhere/model@hook_embed"}, "There is no model")):
        with pytest.raises(AppError, match=said):
            client.predict(**given | wrong, api_name="/definition_tree")


def test_components_are_told(client):
    first, second = client.predict(count=2, top=3, api_name="/components")
    assert first["index"] == 1 and first["share"] > second["share"]
    assert len(first["positive"]) == len(second["negative"]) == 3
    with pytest.raises(AppError, match="top is 0"):
        client.predict(top=0, api_name="/components")


def test_features_are_found(client):
    found = client.predict(tokens="rain", top=2, api_name="/find_by_tokens")
    assert found["features"][0]["feature"] == 927 and len(found["features"]) == 2
    found = client.predict(text="No rain at all", api_name="/find_by_text")
    assert found["features"][0]["feature"] == 927 and found["tokens"][1]["token"] == " rain"
    found = client.predict(feature=927, among=["demo/hook_embed"], api_name="/find_like")
    assert len(found["features"]) == 20
    with pytest.raises(AppError, match="tokens is ''; it cannot be read"):
        client.predict(api_name="/find_by_tokens")


def test_requests_at_the_same_time_answer_as_those_one_after_the_other(client):
    requests = [{"feature": 927, **SMALL}, {"feature": 648, **SMALL}, {"feature": 927, "scale": 3.0, **SMALL}]

    def ask(request: dict) -> dict:
        return client.predict(**request, api_name="/definition_tree")[1]["tree"]

    in_turn = [ask(request) for request in requests]
    with concurrent.futures.ThreadPoolExecutor(3) as threads:
        # With another longest path, which none reaches: the same request again would be answered from memory.
        at_once = list(threads.map(ask, [request | {"max_depth": 26} for request in requests]))
    assert at_once == in_turn
    assert in_turn[0] != in_turn[2]


def test_the_same_request_again_is_answered_from_memory(client):
    first = client.predict(feature=5, cutoff=2e-2, api_name="/definition_tree")[1]
    job = client.submit(feature=5, cutoff=2e-2, api_name="/definition_tree")
    assert job.result()[1] == first, "the seconds too"
    assert len(job.outputs()) == 1


@pytest.fixture(scope="module")
def begun_and_whole(client):
    """A tree after its first level, and the whole of it."""
    job = client.submit(feature=152, cutoff=1e-2, api_name="/definition_tree")
    job.result()
    begun, *_, whole = [tree for _, tree in job.outputs()]
    assert not begun["result"]["complete"]
    return begun, whole


def test_a_tree_that_was_stopped_is_grown_on(client, begun_and_whole):
    begun, whole = begun_and_whole
    picture, tree = client.predict(begun, api_name="/continue_tree")
    assert _paths(tree["tree"]) == pytest.approx(_paths(whole["tree"]), abs=1e-5)
    assert tree["settings"] == whole["settings"]
    assert Path(picture).read_bytes().startswith(b"\x89PNG")
    with pytest.raises(AppError, match="This tree is whole"):
        client.predict(whole, api_name="/continue_tree")


def test_a_tree_from_elsewhere_is_grown_on_only_where_its_recipe_may_be_grown(client, begun_and_whole):
    begun, _ = begun_and_whole

    def refusal(**settings) -> str:
        with pytest.raises(AppError) as error:
            client.predict(begun | {"settings": begun["settings"] | settings}, api_name="/continue_tree")
        return str(error.value)

    assert "own model" in refusal(model="somebody/else")
    assert "There is no SAE" in refusal(sae="/etc")
    assert "exactly once" in refusal(prompt="no place for it")


@pytest.mark.parametrize(
    ("request_", "named"),
    [
        ({"sae": "demo/hook_embedd"}, ["'demo/hook_embedd'", "hook_embed"]),
        ({"sae": "gpt2-small-mlp-tm/blocks.0.hook_mlp_out"}, ["MLP", "gpt2-small-res-jb"]),
        ({"sae": str(ROOT / "multitool" / "demo" / "hook_embed")}, ["no SAE"]),
        ({"feature": 2048}, ["2048", "0 to 2047"]),
        ({"feature": "seven"}, ["'seven'", "whole number"]),
        ({"weights": "both"}, ["'both'", "encoder, decoder, mix, vocabulary, mapped"]),
        ({"scale": 0}, ["scale is 0", "above 0"]),
        ({"cutoff": 1.0}, ["cutoff is 1.0", "between 0 and 1"]),
        ({"pca": [0.5, None]}, ["None", "number"]),
        ({"prompt": "A definition would be"}, ["exactly once"]),
        ({"answer": "It is"}, ["answer is 'It is'", "chat is off"]),
        ({"prompt": "{ghost} is {ghost}"}, ["2 times", "exactly once"]),
        ({"prompt": "word " * 9000 + '"{ghost}" is "'}, ["45,014", "at most 2,000 characters"]),
        ({"max_nodes": 10**9}, ["1000000000", "from 1 to"]),
        ({"stop": "yes"}, ["'yes'", "true or false"]),
    ],
)
def test_a_bad_value_is_named_with_what_is_valid(client, request_, named):
    with pytest.raises(AppError) as error:
        client.predict(**request_, api_name="/definition_tree")
    assert all(part in str(error.value) for part in named), str(error.value)


def test_values_of_no_type_and_missing_ones_are_sentences_over_plain_http(app_url):
    def answer(endpoint: str, data: list) -> str:
        sent = json.dumps({"data": data})  # of half a surrogate pair, which httpx would not send, an escape
        headers = {"content-type": "application/json"}
        begun = httpx.post(f"{app_url}/gradio_api/call/{endpoint}", content=sent, headers=headers).json()
        return httpx.get(f"{app_url}/gradio_api/call/{endpoint}/{begun['event_id']}", timeout=60).text

    assert "search is None; it must be a text." in answer("saes", [None])
    assert "/trim_tree takes 3 values, in this order: tree, cutoff, lift. There are 1." in answer("trim_tree", [{}])
    assert "half a surrogate pair" in answer("activity", ["demo/hook_embed", 927, "rain \ud800"])


def test_nobody_is_told_who_calls_what(app_url):
    """Gradio's monitoring counts the calls of every function and of every hour."""
    for page in ("monitoring", "monitoring/summary", "monitoring/some-key"):
        assert httpx.get(f"{app_url}/{page}").status_code == 403, page


def test_a_foreign_tree_is_refused_and_the_app_goes_on(client):
    with pytest.raises(AppError, match="not a tree JSON"):
        client.predict({"name": "package.json"}, 0.1, api_name="/trim_tree")
    assert client.predict(top=1, api_name="/token_list")["data"]


# ── Evidence ────────────────────────────────────────────────────────────────────────────────────────────────────────

VERDICTS = ("agrees", "partly", "no", "unknown")


@pytest.fixture(scope="module")
def checked(client):
    """A small tree with its evidence, and its picture."""
    _, tree = client.predict(**SMALL, api_name="/definition_tree")
    return client.predict(tree, api_name="/check_tree")


def test_a_tree_is_checked(checked):
    picture, tree = checked
    assert Path(picture).read_bytes().startswith(b"\x89PNG")
    found = tree["evidence"]
    assert found["verdict"] in VERDICTS and found["sentence"]
    assert len(found["judged_texts"]) == len(found["judged_activations"]) == found["n_definitions"] <= 10
    assert sum(activation > 0 for activation in found["judged_activations"]) == found["hits"]
    assert found["feature_maximum"] > 0
    nodes = [tree["tree"]]
    for node in nodes:
        nodes += node["children"]
    assert all({"lift_centroid", "lift_random"} <= node.keys() for node in nodes[1:])
    assert any("activation" in node for node in nodes)


def test_a_checked_tree_is_pruned_by_lift(client, checked):
    _, tree = checked
    _, pruned = client.predict(tree, 1e-12, 3.0, api_name="/trim_tree")
    assert 0 < len(_paths(pruned["tree"])) < len(_paths(tree["tree"]))
    assert pruned["evidence"] == tree["evidence"]
    leaves = [pruned["tree"]]
    for node in leaves:
        leaves += node["children"]
    assert all(min(node["lift_centroid"], node["lift_random"]) >= 3 for node in leaves if not node["children"])
    with pytest.raises(AppError, match="lift is 'much'"):
        client.predict(tree, 1e-12, "much", api_name="/trim_tree")


def test_a_tree_that_was_not_checked_is_not_pruned_by_lift(client):
    _, tree = client.predict(**SMALL, api_name="/definition_tree")
    with pytest.raises(AppError, match="Check it first"):
        client.predict(tree, 1e-12, 1.0, api_name="/trim_tree")


def test_a_tree_from_elsewhere_is_checked_only_where_it_can_be(client, checked):
    _, tree = checked

    def refusal(**settings) -> str:
        with pytest.raises(AppError) as error:
            client.predict(tree | {"settings": tree["settings"] | settings}, api_name="/check_tree")
        return str(error.value)

    assert "own model" in refusal(model="somebody/else")
    assert "There is no SAE" in refusal(sae="/etc")
    assert "weights is 'none'" in refusal(weights="none")


def test_a_tree_without_a_word_of_its_weights_is_checked_by_those_that_suit(client, checked):
    _, tree = checked
    settings = {name: value for name, value in tree["settings"].items() if name != "weights"}
    _, again = client.predict(tree | {"settings": settings}, api_name="/check_tree")
    for name, value in tree["evidence"].items():
        assert again["evidence"][name] == (value if name == "judged_texts" else pytest.approx(value)), name


def test_a_list_is_checked(client):
    found = client.predict(top=5, api_name="/check_list")
    assert found["schema"] == "sae-multitool/token-list/1"
    assert found["evidence"]["verdict"] == "agrees"
    assert found["tokens"][0]["token"] == " Rain" and found["tokens"][0]["activation"] > 0
    table = client.predict(top=5, evidence=True, api_name="/token_list")
    assert table["headers"][-1] == "activation"
    assert [row[-1] for row in table["data"]] == [token["activation"] for token in found["tokens"]]


def test_a_list_by_activation_and_by_the_weights_that_suit(client):
    table = client.predict(top=5, measure="activation", api_name="/token_list")
    activations = [row[-1] for row in table["data"]]
    assert activations == sorted(activations, reverse=True) and activations[-1] > 0
    layer = {"sae": "demo/blocks.1.hook_resid_post", "feature": 5, "top": 5}
    own, suited, named = (
        client.predict(**layer, **weights, api_name="/token_list")["data"]
        for weights in ({"weights": "encoder"}, {}, {"weights": "pullback"})
    )
    assert suited == named != own


def test_a_list_by_other_measures_from_both_ends(client):
    for measure in ("cosine", "dot", "jacobian_lens", "logit_lens"):
        table, other_end = (
            client.predict(top=5, measure=measure, negative=negative, words=True, api_name="/token_list")
            for negative in (False, True)
        )
        assert table["headers"][-1] == other_end["headers"][-1] == measure
        values = [row[-1] for row in (*table["data"], *other_end["data"][::-1])]
        assert values == sorted(values, reverse=True) and len(set(values)) == 10
    assert table["data"][0][1] == " rain"
    found = client.predict(top=5, measure="logit_lens", api_name="/check_list")
    assert found["evidence"]["rising"] == 100 and found["settings"]["measure"] == "logit_lens"
    assert "pushed along the feature's decoder" in found["evidence"]["sentence"] and "change" in found["tokens"][0]


@pytest.mark.parametrize(("request_", "said"), [({"measure": "size"}, "measure is 'size'"),
                                                ({"evidence": "yes"}, "evidence is 'yes'"),
                                                ({"words": "yes"}, "words is 'yes'"),
                                                ({"measure": "activation", "negative": True}, "has no other end")])
def test_a_bad_value_of_a_list_is_named(client, request_, said):
    with pytest.raises(AppError, match=said):
        client.predict(**request_, api_name="/token_list")


def test_a_text_is_read(client):
    found = client.predict("demo/hook_embed", 927, "Is it <b>rain</b>?\nNo rain.", api_name="/activity")
    assert "".join(part["token"] for part in found) == "Is it <b>rain</b>?\nNo rain."
    assert max(found, key=lambda part: part["activation"])["token"] == " rain"
    with pytest.raises(AppError, match="0 characters"):
        client.predict(api_name="/activity")


def test_a_text_is_continued_with_and_without_a_feature(client):
    found = client.predict(
        "demo/hook_embed", 927, text="Yesterday I went to", strengths=[0.8], length=6, api_name="/continuations"
    )
    plain, steered = found["continuations"]
    assert (plain["strength"], steered["strength"]) == (0, 0.8) and plain["text"] != steered["text"]
    assert "".join(steered["tokens"]) == steered["text"] and len(steered["activations"]) == 6
    assert found["complete"] and found["settings"]["text"] == "Yesterday I went to"
    with pytest.raises(AppError, match="it must be a list of 1 to 8 numbers"):
        client.predict(strengths=[], api_name="/continuations")
    with pytest.raises(AppError, match="The text has 2,001 characters"):
        client.predict(text="a" * 2001, api_name="/continuations")


def test_settings_are_suggested(client):
    found = client.predict(api_name="/suggest")
    assert found["recipe"]["sae"] == "demo/hook_embed" and found["recipe"]["feature"] == 927
    assert found["sentence"] and len(found["trials"]) > 10
    assert found["trials"][0]["scale"] == found["recipe"]["scale"] and found["trials"][0]["definitions"]
    assert found["growth"].keys() == {"inject_layer", "inject_mode", "inject_scale"}
    _, tree = client.predict(**found["recipe"], **found["growth"], cutoff=1e-2, api_name="/definition_tree")
    assert all(tree["settings"][name] == value for name, value in found["growth"].items())
    assert tree["settings"]["weights"] == found["recipe"]["weights"]


# ── The README's examples ───────────────────────────────────────────────────────────────────────────────────────────


def _blocks(language: str) -> list[str]:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", readme, flags=re.M | re.S)


def test_the_python_examples_of_the_readme_run(app_url, tmp_path):
    examples = _blocks("python")
    assert len(examples) >= 2
    for example in examples:
        code = example.replace("http://127.0.0.1:7860", app_url)
        subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=_environment(), check=True, timeout=120)


# In one process, as imports take most of a command's time.
_COMMANDS = """
import shlex, sys
from multitool.__main__ import main

for line in sys.stdin:
    status = main(shlex.split(line)[3:])
    assert status == 0, line
"""


def test_the_commands_of_the_readme_run(tmp_path):
    commands = [line for block in _blocks("bash") for line in block.splitlines() if line.startswith("python -m")]
    assert len(commands) >= 3
    (tmp_path / "essay.txt").write_text("We had heavy rain all day.", encoding="utf-8")  # one of them reads it
    assert all(command.startswith("python -m multitool ") for command in commands)
    subprocess.run(
        [sys.executable, "-c", _COMMANDS], input="\n".join(commands), text=True, cwd=tmp_path, env=_environment(),
        stdout=subprocess.DEVNULL, check=True, timeout=600,
    )


def _environment() -> dict:
    return os.environ | {"PYTHONPATH": str(ROOT)}
