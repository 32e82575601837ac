"""The tools that agents get: short answers, ids, values as texts, and results that wait for who asks again."""

import asyncio
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from types import SimpleNamespace

import numpy as np
import pytest
from mcp import ClientSession, McpError
from mcp.client.streamable_http import streamable_http_client

from multitool.errors import UserError
from multitool.jobs.components import PrincipalComponent
from multitool.jobs.feature_card import FeatureCard
from multitool.jobs.find import FoundFeature, FoundFeatures, TokenFires
from multitool.jobs.token_table import TokenTable
from multitool.page.agent_values import values_of
from multitool.page.agents import Tool, telling, twin
from multitool.page.api import Endpoint, Parameter, add_endpoint
from multitool.page.brief import View, brief_tree, paged
from multitool.page.callers import Callers
from multitool.page.endpoints import endpoints
from multitool.page.gradio_workarounds import Page
from multitool.page.kept import Kept, call_name
from multitool.page.settings import ServerSettings
from multitool.page.tools import tools
from multitool.recipes.recipe import VectorRecipe
from multitool.store.saes import Context
from multitool.trees.document import DefinitionTree, read_tree
from multitool.trees.tree import ROOT, Tree

MOST = 40_000  # bytes of an answer that is not full
RAIN = VectorRecipe(sae="demo/hook_embed", feature=927)
ALL = View(0, 1000)


def tree_of(n_first: int, n_after: int, token: str = " word", **known) -> DefinitionTree:
    """A whole tree: so many first tokens, each with so many definitions that end behind it."""
    n = n_first * (1 + n_after)
    parent = [ROOT] * n_first + [first for first in range(n_first) for _ in range(n_after)]
    prob = np.repeat([1 / (n_first + 1), 1 / (n_after + 1)], [n_first, n - n_first])
    before = np.where(np.array(parent) == ROOT, 1.0, prob[0])
    tree = Tree(
        parent=np.array(parent), token_id=np.arange(n), prob=prob, cumulative_prob=prob * before,
        token=tuple(f"{token}{number}" + '."' * (number >= n_first) for number in range(n)),
        end=np.arange(n) >= n_first,
    )
    settings = {"sae": "demo/hook_embed", "feature": 927, "prompt": 'It is "', "top_k": 5} | known.pop("settings", {})
    return DefinitionTree(**{"tree": tree, "settings": settings, "vector": {"norm": 1.0}, "effective_cutoff": 1e-9,
                             "complete": True, "seconds": 1.0} | known)


LARGE = tree_of(100, 59)  # 6,000 nodes
MIDDLE = tree_of(20, 39)  # 800
EVIDENCE = {"verdict": "agrees", "sentence": "This tree agrees.", "judged_texts": ["a"] * 10, "auroc": 0.9}


def checked(document: DefinitionTree) -> DefinitionTree:
    n = len(document.tree)
    activation = np.where(document.tree.end, 2.0, np.nan)
    judged = Tree(**vars(document.tree) | {"lifts": np.ones((n, 2)), "activation": activation})
    return DefinitionTree(**vars(document) | {"tree": judged, "evidence": EVIDENCE})


class StandIn:
    """A service with large answers."""

    settings = ServerSettings()
    library = SimpleNamespace(patterns=())

    def __init__(self):
        self.asked: list = []
        self.tree = MIDDLE

    def _answers(self, *answers):
        self.asked.append(answers)
        yield "Starting …"
        yield from answers

    def trees(self, vector, tree):
        return self._answers(self.tree)

    def trees_of_prompts(self, vector, trees):
        return self._answers([self.tree] * len(trees))

    def continued(self, document):
        return self._answers(document)

    def checked(self, document):
        return self._answers(checked(document))

    def table(self, vector, recipe, *, evidence):
        rows = [[rank, " token" * 20, rank, *[1 / 3] * 3] for rank in range(1, 1001)]
        columns = ("rank", "token", "token_id", "score", "distance_to_vector", "distance_to_centroid")
        judged = SimpleNamespace(to_dict=lambda: {"verdict": "agrees", "in_texts": [[1, 2]]}) if evidence else None
        return self._answers(TokenTable(columns, rows, {"sae": "demo"}, {"norm": 1.0}, judged))

    def suggestion(self, vector, tree):
        trial = {"weights": "encoder", "pca": [0.2], **{f"figure_{number}": 1 / 3 for number in range(20)}}
        data = {"sentence": "Of 300 …", "recipe": {"scale": 0.123456789}, "growth": {}, "trials": [trial] * 300}
        return self._answers(SimpleNamespace(to_dict=lambda: data))

    def continuations(self, vector, recipe):
        one = {"strength": 0.4, "text": " rain" * 200, "ended": False, "caution": "", "log_probability": -1 / 3,
               "repetition": 1 / 3, "tokens": [" rain"] * 200, "token_ids": [1] * 200, "activations": [1 / 3] * 200}
        data = {"settings": {"text": "rain" * 500}, "complete": True, "norms": {}, "continuations": [one] * 9}
        return self._answers(SimpleNamespace(to_dict=lambda: data))

    def activity(self, recipe, text):
        return self._answers([(" rain", float(place == 7)) for place in range(1000)])

    def whole_card(self, sae, feature):
        contexts = tuple(Context("rain " * 40, "rain", " rain" * 40, 1 / 3) for _ in range(1000))
        return self._answers(FeatureCard(sae, feature, "demo", contexts))

    def found(self, asked):
        features = [FoundFeature("demo/hook_embed", feature, {"cosine": 1 / 3}, "rain" * 20) for feature in range(200)]
        tokens = [TokenFires(" rain", [(feature, 1 / 3) for feature in range(10)])] * 1000
        return self._answers(FoundFeatures("text", ("cosine",), tuple(features), {}, "…", tuple(tokens)))

    found_by_text = found_by_tokens = found_like = found_in_atlas = found

    def components(self, **numbers):
        return self._answers([PrincipalComponent(index, 0.1, (" token" * 8,) * 1000, (" x",) * 1000)
                              for index in range(1, 61)])


@pytest.fixture
def ask(monkeypatch):
    """Call a tool of a service with large answers: its answer. ``ask.service`` tells what was asked of it."""
    facts = {"sae": "demo/hook_embed", "model": "x" * 60, "layer": 7, "gated": None}
    monkeypatch.setattr("multitool.page.tools.saes_json", lambda library, search: [facts] * 5000)
    service = StandIn()
    listed = endpoints(service, RAIN)
    twins = tools(service, listed)

    def ask(name: str, **given):
        defaults = {parameter.name: parameter.default for parameter in twins[name].parameters}
        *_, text = twins[name].run(defaults | given)
        ask.bytes = len(text.encode())
        return json.loads(text)

    ask.service = service
    ask.names = [endpoint.name for endpoint in listed]
    return ask


def test_every_tools_default_answer_is_below_40_kb(ask):
    sizes = {}
    needed = dict.fromkeys(("continue_tree", "trim_tree", "check_tree"), {"tree": MIDDLE.to_dict()})
    needed["find_by_tokens"] = {"tokens": "rain"}
    for name in ask.names:
        ask(name, **needed.get(name, {}))
        sizes[name] = ask.bytes
    assert len(sizes) == 17
    assert {name: size for name, size in sizes.items() if size >= MOST} == {}


def test_of_a_large_tree_the_most_probable_definitions_are_told(ask):
    ask.service.tree = LARGE
    tree = ask("definition_tree")
    assert ask.bytes < 10_000
    assert tree["result"]["nodes"] == 6000 and tree["result"]["complete"]
    assert tree["total"] == 5900 and len(tree["definitions"]) == tree["next_offset"] == 20
    most, *_ = LARGE.definitions(1)
    assert tree["definitions"][0] == {"text": most.text, "probability": pytest.approx(most.probability, rel=1e-4)}
    assert tree["recipe"] == {"sae": "demo/hook_embed", "feature": 927, "prompt": 'It is "', "top_k": 5}
    assert f'check_tree(tree="{tree["id"]}")' in tree["next"]
    ask("definition_tree", detail="full")
    assert ask.bytes > 500_000


@pytest.mark.parametrize(("least", "n_beginnings"), [(1e-9, 0), (0.04, 20)])
def test_beginnings_are_told_where_few_definitions_are_complete(least, n_beginnings):
    told = brief_tree(Kept(), tree_of(21, 2).trimmed(least).to_dict(), ALL)
    assert (told["total"], len(told["beginnings"])) == (42 - 42 * (n_beginnings > 0), n_beginnings)


def test_a_list_that_is_too_long_for_one_answer_is_told_in_parts(ask):
    texts, offset = [], 0
    while offset is not None:
        part = ask("definition_tree", offset=offset, limit=1000)
        assert ask.bytes < MOST
        texts += [told["text"] for told in part["definitions"]]
        offset = part.get("next_offset")
    assert texts == [found.text for found in MIDDLE.definitions()]
    assert len(ask.service.asked) == 1, "a tree that is kept is not grown again"


def test_what_is_full_is_the_endpoints_json(ask):
    assert ask("definition_tree", detail="full") == MIDDLE.to_dict()
    assert ask("definition_trees", prompts=["meaning"], detail="full") == [MIDDLE.to_dict()]
    assert [row[0] for row in ask("token_list", detail="full")["data"]] == list(range(1, 1001))
    assert len(ask("check_list", detail="full")["tokens"]) == 1000
    assert len(ask("suggest", detail="full")["trials"]) == 300
    assert len(ask("activity", text="x", detail="full")) == 1000
    assert len(ask("components", detail="full")) == 60
    assert len(ask("saes", detail="full")) == 5000


def test_a_tree_is_named_by_its_id_or_given_whole_as_object_or_text(ask):
    tree = ask("definition_tree")
    judged = ask("check_tree", tree=tree["id"])
    assert judged["evidence"] == {"verdict": "agrees", "sentence": "This tree agrees.", "auroc": 0.9}
    assert judged["definitions"][0] | {"lift": 1.0, "activation": 2.0} == judged["definitions"][0]
    assert judged["id"] != tree["id"]
    for given in (tree, json.dumps(tree), MIDDLE.to_dict(), MIDDLE.to_json(), f" {tree['id']}\n"):
        assert ask("check_tree", tree=given)["evidence"] == judged["evidence"]
    assert len(ask.service.asked) == 2, "the same tree, however it is given, is checked once"
    trimmed = ask("trim_tree", tree=judged["id"], cutoff=1e-3, lift="0.5")
    assert trimmed["result"]["nodes"] == 800 and trimmed["evidence"]["verdict"] == "agrees"
    assert f'trim_tree(tree="{judged["id"]}", lift=1)' in judged["next"] and "trim_tree" not in trimmed["next"]


@pytest.mark.parametrize(
    ("tree", "said"),
    [
        ("tree-of-life", "There is no tree 'tree-of-life' here.* Grow it again, or send its whole JSON"),
        ("927", "tree is '927'; give the id that came with a tree, or"),
        ('{"a": ', "tree is a text that cannot be read as JSON"),
        ('{"a":' * 100_000, "tree is a text that cannot be read as JSON"),
        ('{"schema": "x"}', "its schema is 'x'"),
        ("{" + " " * 20_000_000, "The tree has 20,000,001 characters; as text it can have at most 20,000,000"),
        (["tree"], r"tree is \['tree'\]; give the id"),
        (None, "tree is None; give the id"),
        ({"id": "call-0"}, "tree is 'call-0'"),
    ],
)
def test_what_is_no_tree_is_refused(tree, said):
    with pytest.raises(UserError, match=said):
        Kept().tree(tree)


def test_the_same_call_has_one_name_and_what_cannot_be_asked_its_own():
    asked, same = {"tree": MIDDLE, "cutoff": 0.1}, {"cutoff": 0.1, "tree": read_tree(MIDDLE.to_dict())}
    assert call_name("trim_tree", asked) == call_name("trim_tree", same)
    assert call_name("trim_tree", asked) != call_name("check_tree", asked)
    assert call_name("trim_tree", asked) != call_name("trim_tree", asked | {"tree": LARGE})
    assert call_name("components", {"count": 10**5000}) != call_name("components", {"count": 10**5000})
    assert call_name("activity", {"text": b"x"}) and call_name("activity", {"text": "\ud800"})


def test_an_id_is_the_callers_own_and_kept_trees_are_bounded():
    kept, small = Kept(), tree_of(2, 1)
    first, second = kept.keep_tree(small), kept.keep_tree(small)
    assert first != second and len(first) > 20
    assert kept.tree(first).to_dict() == kept.tree(second).to_dict() == small.to_dict()
    few = Kept(most_names=2)
    ids = [few.keep_tree(small) for _ in range(3)]
    assert few.text(ids[0]) is None and few.text(ids[2])
    n_bytes = 20_000
    tight = Kept(most_bytes=n_bytes)
    ids = [tight.keep_tree(tree_of(200, 1, token)) for token in "abcdefghij"]
    there = [name for name in ids if tight.text(name)]
    assert 0 < len(there) < 10 and there == ids[-len(there):], "the oldest go first"
    too_large = tight.keep_tree(LARGE)
    assert tight.text(too_large) is None and tight.text(ids[-1])


PARAMETERS = [
    Parameter("top", int, "", 5), Parameter("cutoff", float, "", 0.1), Parameter("words", bool, "", False),
    Parameter("pca", list[float], "", None), Parameter("weights", str, "", None), Parameter("tokens", str, "", ""),
    Parameter("feature", int | str, "", 1), Parameter("tree", dict, ""), Parameter("prompts", list[str], "", None),
]


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("top", "5", 5), ("top", " 5 ", 5), ("top", "5.0", 5.0), ("top", "null", "null"), ("top", "five", "five"),
        ("top", "true", "true"), ("top", "[5]", "[5]"), ("cutoff", "0.5", 0.5), ("cutoff", "5e-3", 5e-3),
        ("cutoff", "NaN", "NaN"), ("cutoff", "9" * 5000, "9" * 5000), ("words", "true", True),
        ("words", "False", False), ("words", "1", "1"), ("pca", "[0.1, -0.2]", [0.1, -0.2]), ("pca", "null", None),
        ("pca", "", ""), ("pca", "[" * 9999, "[" * 9999), ("weights", "null", None), ("weights", "None", None),
        ("weights", "encoder", "encoder"), ("tokens", "null", "null"), ("feature", "927*1.0", "927*1.0"),
        ("tree", '{"a": 1}', {"a": 1}), ("tree", "tree-a", "tree-a"), ("prompts", '["meaning"]', ["meaning"]),
    ],
)
def test_values_may_come_as_texts(name, text, value):
    found = values_of(PARAMETERS, {name: text})[name]
    assert found == value and type(found) is type(value)


def test_values_that_are_no_texts_stay_as_they_are():
    given = {"top": 5, "cutoff": None, "pca": [1, "2"], "tree": {"top": "5"}, "words": True}
    assert values_of(PARAMETERS, given) == given


@pytest.mark.parametrize(
    ("name", "given", "said"),
    [
        ("definition_tree", {"cutoff": "low"}, "cutoff is 'low'"), ("definition_tree", {"scale": "x"}, "scale is 'x'"),
        ("definition_tree", {"detail": "all"}, "detail is 'all'; valid are brief, full"),
        ("saes", {"limit": "many"}, "limit is 'many'; it must be a whole number from 1 to 1000"),
        ("saes", {"offset": -1}, "offset is -1"), ("token_list", {"evidence": "maybe"}, "evidence is 'maybe'"),
        ("definition_trees", {"prompts": "meaning"}, "prompts is 'meaning'"),
        ("check_tree", {"tree": "null"}, "tree is 'null'"),
    ],
)
def test_a_value_that_cannot_be_is_named(ask, name, given, said):
    with pytest.raises(UserError, match=said):
        ask(name, **given)


def test_a_forged_tree_cannot_make_a_long_answer():
    forged = tree_of(
        20, 10, "🦊" * 900, settings={"prompt": "🦊" * 1900 + '"', "answer": "x" * 1900, "tokens": "🦊" * 1900} | {
            f"setting {number}": "x" * 9000 for number in range(150)
        }, evidence={"sentence": "🦊" * 9000} | {f"figure {number}": "🦊" * 9000 for number in range(190)},
    )
    told = brief_tree(Kept(), forged.to_dict(), ALL)
    assert len(json.dumps(told, ensure_ascii=False).encode()) < MOST
    assert told["definitions"] and told["next_offset"]
    assert not {"setting 1"} & told["recipe"].keys()


def test_a_part_has_at_least_one_item_and_says_where_to_go_on():
    assert paged({}, "things", ["x" * 300] * 3, ALL, room=10) == {
        "total": 3, "offset": 0, "things": ["x" * 300], "next_offset": 1
    }
    assert paged({}, "things", [1, 2], View(1, 5)) == {"total": 2, "offset": 1, "things": [2]}
    assert paged({}, "things", [1], View(7, 5)) == {"total": 1, "offset": 7, "things": []}


def test_who_waits_is_told_again(monkeypatch):
    told, twice = [], threading.Event()

    class Progress:
        def __call__(self, number, desc):
            told.append((number, desc))
            if len(told) == 3:
                twice.set()

    monkeypatch.setattr("gradio.Progress", Progress)
    with telling(remind=0.01) as tell:
        tell("Scanning …")
        assert twice.wait(20)
    assert told[:3] == [((number, None), "Scanning …") for number in (1, 2, 3)]


def test_the_same_call_at_the_same_time_is_worked_on_once(monkeypatch):
    monkeypatch.setattr("multitool.page.agents._POLL", 0.01)
    asked = []

    def work(given: dict):
        asked.append(given)
        yield "Thinking"
        yield given["number"]

    kept = Kept()
    run = twin(TWICE, replace(DOUBLING, work=work), kept).run
    given = {"number": 4, "detail": "brief", "offset": 0, "limit": 5}
    first, second, third = run(given.copy()), run(given.copy()), run(given.copy())
    assert next(first) == '{"status": "Thinking"}'
    assert "Waiting for the same call" in next(second) and "Waiting" in next(third)
    first.close()  # who has left leaves the work to the next
    assert list(second)[-1] == list(third)[-1] == '{"is": 4}'
    assert len(asked) == 2
    assert not kept._turns and not kept._waiting


TWICE = Endpoint("twice", "Twice.", [Parameter("number", int, "a number.", 3)], {"n": int}, "It.", "it.",
                 run=lambda given: 2 * given["number"])
DOUBLING = Tool("Twice the number.", "JSON.", "things", 5, work=lambda given: [2 * given["number"]],
                data=lambda found: found, brief=lambda data, view: {"is": data})


@pytest.fixture(scope="module")
def served():
    """The address of a page with one tool, what it was asked, and an event that lets it come to its end."""
    asked, go_on = [], threading.Event()

    def work(given: dict):
        asked.append(given["number"])
        yield "Thinking"
        for _ in range(1000):
            yield "Thinking still"
            if go_on.wait(0.02):
                break
        yield 2 * given["number"]

    with Page() as page:
        add_endpoint(page, TWICE, twin(TWICE, replace(DOUBLING, work=work), Kept()), Callers(None))
    _, url, _ = page.launch(prevent_thread_lock=True, quiet=True, mcp_server=True)
    yield f"{url}gradio_api/mcp/", asked, go_on
    page.close()


@pytest.mark.slow
def test_work_goes_on_for_a_client_that_has_left_and_waits_for_it(served):
    url, asked, go_on = served
    told = []

    async def progress(done, total, message):
        told.append(message)

    async def talk():
        async with streamable_http_client(url) as (read, write, _), ClientSession(read, write) as session:
            await session.initialize()
            with pytest.raises(McpError, match="Timed out"):
                await session.call_tool("twice", {"number": "4"}, timedelta(seconds=0.5), progress)
        async with streamable_http_client(url) as (read, write, _), ClientSession(read, write) as session:
            await session.initialize()
            go_on.set()
            return await session.call_tool("twice", {"number": 4}, progress_callback=progress)

    with ThreadPoolExecutor(1) as thread:  # where no browser of other tests has its loop
        result = thread.submit(asyncio.run, talk()).result()
    assert [content.text for content in result.content] == ['{"is": 8}']
    assert asked == [4], "the second call was answered with what the first had begun"
    assert any("Thinking" in (message or "") for message in told)
