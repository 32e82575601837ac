"""The app's memory while many call it: it must not rise for ever."""

import json
import os
import re
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlencode

import httpx
import numpy as np

from benchmarks.measuring import Reach, Row
from benchmarks.starting import running_app
from multitool.recipes.recipe import TreeRecipe
from multitool.trees.document import DefinitionTree
from multitool.trees.tree import ROOT, Tree

_REQUESTS = 2000
_PARTS = 8  # memory is read after each
_CALLERS = 4  # at a time
_SAVED_NODES = 20_000  # of the tree that pages open; one of a visitor's own may have as many
# So small that the bounds are reached within the first half.
_BOUNDS = {"SAE_MULTITOOL_STATES": "100", "SAE_MULTITOOL_TREES_MB": "50", "SAE_MULTITOOL_FILES_MB": "50"}


def serving(repeats: int, smoke: bool) -> list[Row]:
    """2,000 mixed calls, each by somebody new as far as Gradio knows: trees, lists, trimming, and pages that open a
    large saved tree. Measured once."""
    n_requests = 40 if smoke else _REQUESTS
    with (
        tempfile.TemporaryDirectory(prefix="benchmark-served-") as served,
        running_app({**_BOUNDS, "GRADIO_TEMP_DIR": served}) as app,
    ):
        caller = _Caller(app.url, _saved(200 if smoke else _SAVED_NODES))
        memory = [_resident_mb(app.pid)]
        for part in range(_PARTS):
            size = n_requests // _PARTS
            with ThreadPoolExecutor(_CALLERS) as callers:
                list(callers.map(caller.call, range(part * size, (part + 1) * size)))
            memory.append(_resident_mb(app.pid))
        files = sum(path.stat().st_size for path in Path(served).rglob("*") if path.is_file()) / 1e6
    half = _PARTS // 2
    after = ", ".join(
        f"{n_requests * part // _PARTS:,}: {megabytes:,.0f}" for part, megabytes in enumerate(memory)
    )
    rise = max(0.0, max(memory[half + 1 :]) - memory[half])
    return [
        Row(f"memory after so many calls, in MB: {after}; ratio: the most in the second half to its beginning",
            {"at the start": [memory[0]], "in the end": [memory[-1]], "rise in the second half": [rise]}, unit="MB",
            ratio=[max(memory[half + 1 :]) / memory[half]],
            reach=Reach("at most", 50, of="rise in the second half")),
        Row(f"files that it serves, in the end; their bound is {_BOUNDS['SAE_MULTITOOL_FILES_MB']} MB",
            {"files": [files]}, unit="MB"),
    ]


class _Caller:
    """A program, and a page, that call the app: every time as somebody new."""

    def __init__(self, url: str, saved: bytes):
        self._saved = saved
        self._client = httpx.Client(base_url=url, timeout=300, trust_env=False)
        config = self._client.get("/config").json()
        self._components = {one["id"]: one for one in config["components"]}
        named = {one["props"].get("elem_id"): one["id"] for one in config["components"]}
        events = config["dependencies"]
        self._opening = next(one for one in events if [named["open"], "upload"] in [list(t) for t in one["targets"]])
        self._showing = next(one for one in events if named["tree-view"] in one["outputs"]
                             and named["definitions"] in one["outputs"] and named["order"] in one["inputs"])
        self._upload = named["open"]
        self._numbers, self._lock = iter(range(10**9)), threading.Lock()
        self._small = self._api("definition_tree", cutoff=1e-2)[1]

    def call(self, number: int) -> None:
        kind = number % 20
        if kind < 2:  # never the same again: no answer comes from the trees that are kept
            self._api("definition_tree", cutoff=2e-2, max_nodes=1000 + number)
        elif kind < 3:
            self._page_opens()
        elif kind < 7:
            self._api("trim_tree_json", tree=self._small, cutoff=2e-2)
        elif kind < 8:
            self._api("trim_tree", tree=self._small, cutoff=2e-2)
        elif kind < 10:
            self._api("components", top=3 + number % 5)
        elif kind < 13:
            self._api("saes", search="gemma-2b-res-jb")
        else:
            self._api("token_list", feature=number % 2048, top=100)

    def _api(self, name: str, **given) -> list:
        began = self._client.post(f"/gradio_api/call/v2/{name}", json=given)
        began.raise_for_status()
        said = self._client.get(f"/gradio_api/call/v2/{name}/{began.json()['event_id']}").text
        if (found := re.findall(r"^event: complete\ndata: (.*)$", said, re.M)) == []:
            raise RuntimeError(f"{name}: {said[-500:]}")
        return json.loads(found[-1])

    def _page_opens(self) -> None:
        with self._lock:
            session = f"page{next(self._numbers)}"
        sent = self._client.post("/gradio_api/upload", files={"files": ("tree.json", self._saved)})
        file = {"path": sent.json()[0], "orig_name": "tree.json", "meta": {"_type": "gradio.FileData"}}
        self._event(self._opening, session, {self._upload: file})
        self._event(self._showing, session, {})

    def _event(self, event: dict, session: str, values: dict) -> None:
        data = [values.get(one, self._components[one]["props"].get("value")) for one in event["inputs"]]
        self._client.post("/gradio_api/queue/join", json={
            "data": data, "fn_index": event["id"], "session_hash": session, "trigger_id": event["targets"][0][0],
        }).raise_for_status()
        said = self._client.get(f"/gradio_api/queue/data?{urlencode({'session_hash': session})}").text
        if '"success":true' not in said.replace(" ", "") or '"success":false' in said.replace(" ", ""):
            raise RuntimeError(f"{event['id']}: {said[-500:]}")


def _saved(n_nodes: int) -> bytes:
    """A saved tree: many short definitions."""
    numbers = np.arange(n_nodes)
    first = numbers % 4 == 0
    tree = Tree(
        parent=np.where(first, ROOT, numbers - 1), token_id=numbers % 40_000,
        token=tuple(f" word{number}" for number in range(n_nodes)), prob=np.where(first, 1 / n_nodes, 1.0),
        cumulative_prob=np.full(n_nodes, 1 / n_nodes), end=numbers % 4 == 3,
    )
    settings = {"sae": "demo/hook_embed", "feature": 927, "weights": "encoder", "prompt": TreeRecipe.prompt}
    return DefinitionTree(tree, settings, {}, 1 / n_nodes, True, 1.0).to_json().encode()


def _resident_mb(pid: int) -> float:
    status = Path(f"/proc/{pid}/statm").read_text(encoding="utf-8")
    return int(status.split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
