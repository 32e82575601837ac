"""Eight programs at once: no failure, no wrong answer, no growing memory."""

import itertools
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from gradio_client import Client

from multitool.jobs.local import definition_tree, token_table
from multitool.recipes.recipe import ListRecipe, TreeRecipe, VectorRecipe

CLIENTS = 8
SETTLED = 6  # requests of each until libraries are loaded
TURNS = 15  # requests of each from then on, a third of them trees
MOST_GROWTH = 120  # MB of resident memory meanwhile; 40 trees kept by mistake with their caches would be some 400 MB
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


def test_eight_clients_at_once(app_server, expected):
    url, pid = app_server
    trees, lists = expected
    clients = [Client(url, verbose=False) for _ in range(CLIENTS)]
    requests = list(itertools.product(FEATURES, CUTOFFS))

    def visit(number: int, turns: range) -> None:
        # Each goes through the requests from another place on.
        for turn in turns:
            feature, cutoff = requests[(turn + number) % len(requests)]
            if turn % 3:
                table = clients[number].predict(feature=feature, top=20, api_name="/token_list")
                assert [row[2] for row in table["data"]] == lists[feature]
            else:
                # Never so many nodes, and asked for by no other request: no answer comes from the trees that are kept.
                unique = 1000 + turn * CLIENTS + number
                _, tree = clients[number].predict(
                    feature=feature, cutoff=cutoff, max_nodes=unique, api_name="/definition_tree"
                )
                assert rows(tree["tree"]) == pytest.approx(trees[feature, cutoff], abs=1e-5)

    def visits(turns: range) -> None:
        with ThreadPoolExecutor(CLIENTS) as pool:
            list(pool.map(lambda number: visit(number, turns), range(CLIENTS)))

    visits(range(SETTLED))
    settled = resident_mb(pid)
    visits(range(SETTLED, SETTLED + TURNS))
    assert resident_mb(pid) - settled < MOST_GROWTH
