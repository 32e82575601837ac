"""scripts/published.py as a person runs it, on a random Gemma where the real one would come from: to its honest end."""

import json
import subprocess
import sys

import pytest
from hub_clients import GEMMA_SAES, READER, ROOT, VISITOR, as_at_first, environment
from standin_repos import gemma_2b_saes

from multitool.trees.document import read_tree
from scripts.published_rules import logged

NOT_GEMMA = ("These are not Gemma-2B's weights: embeddings of 304 tokens, 32 wide, where it has 256,000 tokens, 2,048 "
             "wide.")


@pytest.fixture(scope="module")
def published(_hub, repos, tmp_path_factory):
    """Runs the script with these options; the SAEs have as many features as the real ones."""
    hub = as_at_first(_hub, repos)
    hub.repos[GEMMA_SAES] = gemma_2b_saes(tmp_path_factory.mktemp("saes"), (0, 6, 10, 12), d_sae=16_384)
    home = tmp_path_factory.mktemp("home")

    def run(*options, token=READER, python=("scripts/published.py",), home=home):
        return subprocess.run(
            [sys.executable, *python, "--device", "cpu", *map(str, options)], cwd=ROOT, text=True,
            env=environment(hub, home, token), capture_output=True, timeout=300, check=False,
        )

    return run


@pytest.fixture(scope="module")
def all_cases(published, tmp_path_factory):
    """What it says of all cases, and the file that it writes."""
    file = tmp_path_factory.mktemp("compared") / "compared.json"
    return published("--json", file), file


def test_on_other_weights_nothing_agrees_and_it_says_so(all_cases):
    done, file = all_cases
    assert done.returncode == 1, done.stderr
    lines = done.stdout.splitlines()
    assert lines[2] == NOT_GEMMA
    assert lines[-3:] == [
        "None of 10 published outputs agree.", NOT_GEMMA, "So this says nothing about the published outputs."]
    assert sum(line.startswith("  DOES NOT AGREE: ") for line in lines) == 10
    assert max(map(len, lines)) <= 120
    found = json.loads(file.read_text(encoding="utf-8"))
    assert (found["model"], found["release"], found["dtype"]) == ("google/gemma-2b", "gemma-2b-res-jb", "float32")
    assert (found["machine"]["device"], found["is_gemma_2b"], len(found["cases"])) == ("cpu", False, 10)
    cases = {case["name"]: case for case in found["cases"]}
    assert not any(case["agrees"] for case in cases.values())
    tree, listed = cases["tree-12-121"], cases["list-6-8924"]
    assert (len(tree["nodes"]), tree["ours"]["settings"]["max_nodes"]) == (50, 20_000)
    assert tree["ours"]["settings"]["stop"] is False and tree["ours"]["result"]["complete"]
    assert (len(listed["ranks"]), listed["sign"]) == (100, "unknown")
    assert listed["ours"]["settings"]["pca"] == [0.24]


def test_had_these_weights_outputs_been_published_they_would_agree(published, all_cases, tmp_path):
    """With what came of them in the place of the published outputs."""
    _, file = all_cases
    ours = {case["name"]: case["ours"] for case in json.loads(file.read_text(encoding="utf-8"))["cases"]}
    outputs = json.loads((ROOT / "scripts/published_outputs.json").read_text(encoding="utf-8"))
    for case in outputs["cases"]:
        found = ours[case["name"]]
        if case["kind"] == "list":
            case["tokens"] = [row["token"] for row in found["tokens"][:100]]
        else:
            log = logged(read_tree(found).tree)
            path = [node for depth, node in enumerate(log[:3], 1) if node.depth == depth]  # the most probable one
            case |= {"nodes": [(node.depth, node.text, node.probability) for node in path], "whole": False}
    other = tmp_path / "outputs.json"
    other.write_text(json.dumps(outputs), encoding="utf-8")
    code = ("import sys; from pathlib import Path; from scripts import published; "
            f"published.OUTPUTS = Path({str(other)!r}); sys.exit(published.main())")
    done = published("--cases", "tree-0-0", "list-6-8924", python=("-c", code))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 of 2 published outputs agree." in done.stdout.splitlines()


def test_a_part_of_it_prints_every_line(published):
    done = published("--cases", "list-0-0", "--all", "--dtype", "float16")
    assert done.returncode == 1, done.stderr
    assert ", float16 on cpu, " in done.stdout
    assert "list-0-0: layer 0, feature 0, encoder, scale 3.8, exponent 1.4" in done.stdout.splitlines()
    assert sum(" | " in line for line in done.stdout.splitlines()) == 101


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--cases", "tree-9"), "There is no case 'tree-9'. There are list-0-0, "),
        (("--json", "no/such/folder/file.json"), "there is no such folder"),
        (("--dtype", "bfloat16"), "invalid choice: 'bfloat16'"),
        (("--release", "gemma-2b"), "gemma-2b/blocks.0.hook_resid_post"),
    ],
)
def test_what_can_be_put_right_is_told(published, options, says):
    done = published(*options)
    assert done.returncode == 2 and says in done.stderr
    assert "Traceback" not in done.stderr and done.stdout == ""


def test_whose_licence_is_not_accepted_is_told_so(published, tmp_path):
    done = published(token=VISITOR, home=tmp_path)
    assert done.returncode == 2 and "Accept the licence" in done.stderr
    assert "Traceback" not in done.stderr and done.stdout == ""
