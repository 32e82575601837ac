"""scripts/published.py as a person runs it, on a random Gemma where the real one would come from: to its honest end."""

import json
import subprocess
import sys

import pytest
from hub_clients import GEMMA_SAES, READER, ROOT, VISITOR, environment
from standin_repos import gemma_2b_saes


@pytest.fixture(scope="module")
def saes(tmp_path_factory):
    """Random SAEs with as many features as the real ones, of all layers that outputs were published of."""
    return gemma_2b_saes(tmp_path_factory.mktemp("saes"), (0, 6, 10, 12), d_sae=16_384)


@pytest.fixture
def published(hub, saes, tmp_path):
    """Runs the script with these options."""
    hub.repos[GEMMA_SAES] = saes

    def run(*options, token=READER):
        return subprocess.run(
            [sys.executable, "scripts/published.py", "--device", "cpu", *map(str, options)], cwd=ROOT, text=True,
            env=environment(hub, tmp_path / "home", token), capture_output=True, timeout=300, check=False,
        )

    return run


def test_on_other_weights_nothing_agrees_and_it_says_so(published, tmp_path):
    file = tmp_path / "compared.json"
    done = published("--json", file)
    assert done.returncode == 1, done.stderr
    lines = done.stdout.splitlines()
    not_gemma = ("These are not Gemma-2B's weights: embeddings of 304 tokens, 32 wide, where it has 256,000 tokens, "
                 "2,048 wide.")
    assert lines[2] == not_gemma
    assert lines[-2:] == [
        "None of 10 published outputs agree.", f"{not_gemma} So this says nothing about the published outputs."]
    assert sum(line.startswith("  DOES NOT AGREE: ") for line in lines) == 10
    assert max(map(len, lines)) <= 120
    found = json.loads(file.read_text())
    assert (found["model"], found["release"], found["dtype"]) == ("google/gemma-2b", "gemma-2b-res-jb", "float32")
    assert (found["machine"]["device"], found["is_gemma_2b"], len(found["cases"])) == ("cpu", False, 10)
    cases = {case["name"]: case for case in found["cases"]}
    assert not any(case["agrees"] for case in cases.values())
    tree, listed = cases["tree-12-121"], cases["list-6-8924"]
    assert (len(tree["nodes"]), tree["ours"]["settings"]["max_nodes"]) == (50, 20_000)
    assert tree["ours"]["settings"]["stop"] is False and tree["ours"]["result"]["complete"]
    assert (len(listed["ranks"]), listed["sign"]) == (100, "unknown")
    assert listed["ours"]["settings"]["pca"] == [0.24]


def test_a_part_of_it_prints_every_line(published):
    done = published("--cases", "list-0-0", "--all", "--dtype", "float16")
    assert done.returncode == 1, done.stderr
    assert "float16 on cpu" in done.stdout
    assert "list-0-0: layer 0, feature 0, encoder, scale 3.8, exponent 1.4" in done.stdout
    assert sum(" | " in line for line in done.stdout.splitlines()) == 101


@pytest.mark.parametrize(
    ("options", "token", "says"),
    [
        (("--cases", "tree-9"), READER, "There is no case 'tree-9'. There are list-0-0, "),
        (("--json", "no/such/folder/file.json"), READER, "there is no such folder"),
        (("--dtype", "bfloat16"), READER, "invalid choice: 'bfloat16'"),
        (("--release", "gemma-2b"), READER, "gemma-2b/blocks.0.hook_resid_post"),
        ((), VISITOR, "Accept the licence"),
    ],
)
def test_what_can_be_put_right_is_told(published, options, token, says):
    done = published(*options, token=token)
    assert done.returncode == 2 and says in done.stderr
    assert "Traceback" not in done.stderr and done.stdout == ""
