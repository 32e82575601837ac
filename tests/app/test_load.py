"""Eight programs at once for a minute: no failure, no wrong answer, no growing memory."""

import itertools
import threading
import time
from pathlib import Path

import pytest
from gradio_client import Client

from multitool.engine import definition_tree, token_table
from multitool.recipe import ListRecipe, TreeRecipe, VectorRecipe

CLIENTS = 8
SECONDS = 60
SETTLED = 20  # seconds until everything has been used once: libraries loaded, caches at their size
MOST_GROWTH = 60  # MB of resident memory from then to the end; a tree kept by mistake with its caches is some 10 MB
FEATURES = (927, 648, 152, 513)
CUTOFFS = (2e-2, 1e-2)


def rows(tree: dict) -> dict:
    """Path of token ids → cumulative probability."""
    found, waiting = {}, [((), tree)]
    for path, node in waiting:
        for child in node["children"]:
            found[*path, child["token_id"]] = child["cumulative_prob"]
            waiting.append(((*path, child["token_id"]), child))
    return found


@pytest.fixture(scope="module")
def expected(demo_library):
    """What each request must give, computed without the app."""
    trees = {
        (feature, cutoff): rows(
            definition_tree(
                demo_library, VectorRecipe(sae="demo/hook_embed", feature=feature), TreeRecipe(cutoff=cutoff)
            ).to_dict()["tree"]
        )
        for feature, cutoff in itertools.product(FEATURES, CUTOFFS)
    }
    lists = {
        feature: [
            row[2]
            for row in token_table(
                demo_library, VectorRecipe(sae="demo/hook_embed", feature=feature), ListRecipe(top=20)
            ).rows
        ]
        for feature in FEATURES
    }
    return trees, lists


def resident_mb(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


def test_a_minute_of_eight_clients(app_server, expected):
    url, pid = app_server
    trees, lists = expected
    answered, problems = [0] * CLIENTS, []
    end = time.monotonic() + SECONDS

    def visit(number: int) -> None:
        try:
            client = Client(url, verbose=False)
            # Everybody in another order, and scales of their own so that no answer comes from the cache of trees.
            for turn, (feature, cutoff) in enumerate(itertools.cycle(itertools.product(FEATURES, CUTOFFS))):
                if time.monotonic() > end:
                    return
                if (turn + number) % 3:
                    table = client.predict(feature=feature, top=20, api_name="/token_list")
                    assert [row[2] for row in table["data"]] == lists[feature]
                else:
                    # A longest path that no other request asks for, and that no path reaches.
                    unique = 60 + (turn * CLIENTS + number) % 130
                    _, tree = client.predict(
                        feature=feature, cutoff=cutoff, max_depth=unique, api_name="/definition_tree"
                    )
                    assert rows(tree["tree"]) == pytest.approx(trees[feature, cutoff], abs=1e-5)
                answered[number] += 1
        except Exception as error:  # told to the test, which fails with it
            problems.append(repr(error))

    visitors = [threading.Thread(target=visit, args=(number,)) for number in range(CLIENTS)]
    for visitor in visitors:
        visitor.start()
    time.sleep(SETTLED)
    settled = resident_mb(pid)
    for visitor in visitors:
        visitor.join()
    assert not problems
    assert min(answered) >= 5, answered
    assert resident_mb(pid) - settled < MOST_GROWTH
