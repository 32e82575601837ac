"""What the command line prints, writes and refuses, against the stored texts.

See tests/golden_files.py for how to renew what is stored.
"""

import contextlib
import io
import json
import re
import runpy
import sys
from pathlib import Path

import pytest
from golden_files import FOLDER, tree_told
from tiny import byte_level_tokenizer, random_sae, tiny_model, write_model

COMMANDS = ("tree", "tokens", "text", "steer", "find", "suggest", "atlas", "components", "saes")


def run(*arguments: str) -> str:
    """What ``python -m multitool`` says, in this process: the imports take longer than most commands."""
    out, err, status = io.StringIO(), io.StringIO(), 0
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        patch.setattr(sys, "argv", ["multitool", *arguments])
        try:
            runpy.run_module("multitool", run_name="__main__", alter_sys=True)
        except SystemExit as end:
            status = end.code or 0
    # Progress depends on the machine; a scan is done by the first that needs it.
    told = re.sub(r"multitool: [^\n]*: [\d,]+ (of [\d,]+|nodes)[^\n]*\n", "", err.getvalue())
    return f"{out.getvalue()}── standard error ──\n{told}── status {status}\n"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a tiny model that knows chats, and two SAEs on it."""
    place = tmp_path_factory.mktemp("golden-commands")
    tokenizer = byte_level_tokenizer()
    tokenizer.chat_template = "{{ messages[0].content }}:"
    model = str(write_model(place / "model", tiny_model("llama"), tokenizer))
    for name, hook in (("embed", "hook_embed"), ("layer", "blocks.1.hook_resid_post")):
        random_sae(place / name, 32, 30, hook=hook, model=model)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        yield place


@pytest.fixture
def own_cache(place, monkeypatch):
    """Scans of the tiny model are kept in its folder. The demo's model and scans are where they always are."""
    monkeypatch.setenv("SAE_MULTITOOL_CACHE", str(place / "cache"))


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help(golden, monkeypatch, command):
    # The layout is argparse's, and may be another one in another version of Python.
    monkeypatch.setenv("COLUMNS", "100")
    golden(f"help/{command or 'multitool'}", run(*[command] * bool(command), "--help"))


SMALL = ["--cutoff", "0.004", "--max-nodes", "40", "--max-depth", "5"]
EMBED, LAYER = (["--sae", f"./{name}", "--device", "cpu", "--feature", "2"] for name in ("embed", "layer"))
PRINTED = {
    "tree": ["tree", *EMBED, *SMALL],
    "tree-top-k-0": ["tree", *EMBED, *SMALL, "--top-k", "0", "--no-stop"],
    "tree-checked": ["tree", *LAYER, *SMALL, "--evidence"],
    "tree-changed": ["tree", *LAYER, *SMALL, "--inject-layer", "1", "--steer-strength", "0.5", "--clamp", "1",
                     "--steer-at", "all", "--weights", "decoder", "--evidence"],
    "tree-mix": ["tree", *LAYER, *SMALL, "--weights", "mix", "--encoder-share", "0.7", "--pca", "0.1", "-0.05",
                 "--no-centroid", "--scale", "3"],
    "tree-prompts": ["tree", *EMBED, "--cutoff", "0.03", "--prompt", "chat-meaning", "--prompt", 'My "{ghost}" is "',
                     "--evidence"],
    "tree-vocabulary": ["tree", *LAYER, *SMALL, "--weights", "vocabulary"],
    "tree-tokens": ["tree", *EMBED, *SMALL, "--weights", "tokens", "--tokens", "#70 - #71*0.5"],
    "tree-features": ["tree", "--sae", "./embed", "--feature", "1 - 2*0.5", *SMALL],
    "tokens": ["tokens", *EMBED, "--top", "8"],
    "tokens-checked": ["tokens", *LAYER, "--top", "8", "--measure", "activation", "--evidence"],
    "tokens-lens": ["tokens", *LAYER, "--top", "8", "--measure", "logit_lens", "--negative"],
    "text": ["text", *LAYER, "Zebras, and ñandús."],
    "components": ["components", "--sae", "./embed", "--count", "2", "--top", "4"],
    "suggest": ["suggest", *LAYER],
    "study": ["suggest", "--sae", "./layer", "--device", "cpu", "--features", "0:2"],
    "saes": ["saes", "--search", "gemma-2b res-jb"],
    "saes-of-the-demo": ["saes", "--search", "demo"],
}
OF_THE_DEMO = {
    "demo-tree": ["tree", "--sae", "demo/hook_embed", "--feature", "927", "--cutoff", "4e-3", "--dtype", "float32"],
    "demo-tokens": ["tokens", "--sae", "demo/hook_embed", "--feature", "927", "--top", "8", "--measure", "cosine",
                    "--dtype", "float32"],
}


@pytest.mark.parametrize("name", PRINTED)
def test_what_is_printed(golden, place, own_cache, name):
    said = run(*PRINTED[name])
    assert said.endswith("── status 0\n")
    golden(f"commands/{name}", said, {str(place): "FOLDER"})


@pytest.mark.parametrize("name", OF_THE_DEMO)
def test_what_is_printed_of_the_demo(golden, name):
    said = run(*OF_THE_DEMO[name])
    assert said.endswith("── status 0\n")
    golden(f"commands/{name}", said)


def test_no_command_was_lost():
    assert {path.stem for path in (FOLDER / "commands").iterdir()} == {*PRINTED, *OF_THE_DEMO, "refused"}


TREE, TOKENS = ["tree", *EMBED], ["tokens", *EMBED]
REFUSED = [
    ["grow"], ["tree"], ["tree", "--sae", "./embed"], ["tree", "--sae", "demo/nothing", "--feature", "1"],
    ["tree", "--sae", "./nothing", "--feature", "1"], ["tree", "--sae", "./embed", "--feature", "30"],
    ["tree", "--sae", "./embed", "--feature", "many"], ["tree", "--sae", "./embed", "--feature", "-1"],
    ["tree", "--sae", "gpt2-small-mlp-tm/blocks.0.hook_mlp_out", "--feature", "1"],
    ["tree", "--sae", "./embed", "--feature", "1 + 2", "--evidence"],
    ["tree", "--sae", "./embed", "--feature", "1 + 2", "--clamp", "1"],
    [*TREE, "--cutoff", "2"], [*TREE, "--cutoff", "x"], [*TREE, "--top-k", "-1"], [*TREE, "--max-nodes", "0"],
    [*TREE, "--max-depth", "0"], [*TREE, "--scale", "0"], [*TREE, "--encoder-share", "2"], [*TREE, "--pca", "nan"],
    [*TREE, "--prompt", "no place"], [*TREE, "--prompt", "{ghost} {ghost}"], [*TREE, "--answer", "It is"],
    [*TREE, "--weights", "tokens"], [*TREE, "--weights", "tokens", "--tokens", "king -"], [*TREE, "--tokens", "king"],
    [*TREE, "--weights", "none"], [*TREE, "--steer-at", "nowhere"], [*TREE, "--inject-layer", "9"],
    [*TREE, "--inject-scale", "0"], [*TREE, "--steer-strength", "1000"], [*TREE, "--image", "tree.jpg"],
    [*TREE, "--dark"], [*TREE, "--image", "tree.png", "--drawn", "0"], [*TREE, "--json", "nowhere/tree.json"],
    [*TREE, "--dtype", "float8"], [*TREE, "--model", "./nothing"],
    [*TOKENS, "--top", "0"], [*TOKENS, "--measure", "size"], [*TOKENS, "--exponent", "0"],
    [*TOKENS, "--measure", "activation", "--negative"],
    ["components"], ["components", "--sae", "./embed", "--count", "0"],
    ["components", "--sae", "./embed", "--top", "0"],
    ["suggest", "--sae", "./embed"], ["suggest", "--sae", "./embed", "--features", "3:1"],
    ["saes", "--search", "no such thing"],
]


def test_what_is_refused(golden, place, own_cache):
    """All in one text: a command, and what is said of it."""
    told = "".join(f"$ multitool {' '.join(arguments)}\n{run(*arguments)}\n" for arguments in REFUSED)
    golden("commands/refused", told, {str(place): "FOLDER"})


def test_what_is_written(golden, place, own_cache):
    run("tree", *LAYER, *SMALL, "--evidence", "--json", "tree.json", "--image", "tree.svg", "--drawn", "10", "--dark")
    run("tokens", *LAYER, "--top", "5", "--evidence", "--json", "list.json")
    run("tokens", *LAYER, "--top", "5", "--csv", "list.csv")
    run("components", "--sae", "./embed", "--count", "1", "--top", "3", "--json", "components.json")
    run("suggest", *EMBED, "--json", "suggestion.json")
    found = {name: json.loads(Path(f"{name}.json").read_text("utf-8"))
             for name in ("tree", "list", "components", "suggestion")}
    found["tree"] = tree_told(found["tree"])
    found["list.csv"] = next(line for line in Path("list.csv").read_text("utf-8").splitlines() if line[0] != "#")
    found["svg"] = "<svg" in Path("tree.svg").read_text("utf-8")
    golden("written", found, {str(place): "FOLDER"})
