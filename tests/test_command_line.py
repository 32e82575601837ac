"""The command line: what it prints and writes, and one clear line for everything that cannot be."""

import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import csv_files
import numpy as np
import pytest
import standin_gemma
import torch
from atlas_material import row, write_atlas
from PIL import Image
from safetensors.torch import load_file
from tiny import byte_level_tokenizer, random_sae, tiny_model, write_model, write_sae

from multitool._version import __version__
from multitool.cli import main
from multitool.cli.suggest import options_of
from multitool.jobs.suggest import Setting, Suggestion
from multitool.pictures.drawing import DEFAULT_NODES
from multitool.pictures.figure import DEFAULT_DPI, DPI
from multitool.recipes.prompts import PROMPTS
from multitool.recipes.recipe import ListRecipe, TreeRecipe, VectorRecipe
from multitool.store.demo_models import GEMMA_MODEL
from multitool.trees.document import read_tree

pytestmark = pytest.mark.slow  # runs the demo

ROOT = Path(__file__).parents[1]
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}  # more threads than free cores would wait for each other
TREE = ["tree", "--sae", "demo/hook_embed", "--feature", "123"]
TOKENS = ["tokens", "--sae", "demo/hook_embed", "--feature", "123"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory, tokenizer):
    """A tiny model and an SAE on it, as options."""
    place = tmp_path_factory.mktemp("folders")
    model = write_model(place / "model", tiny_model("llama"), tokenizer)
    sae = random_sae(place / "sae", d_model=32, model=str(model))
    return ["--sae", str(sae), "--device", "cpu"]


def run(*arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "multitool", *arguments]
    return subprocess.run(
        command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, encoding="utf-8", check=False, timeout=120
    )


@pytest.fixture
def refused(capsys):
    """Run a command that must fail: its one line on standard error."""

    def run_it(*arguments: str) -> str:
        assert main(list(map(str, arguments))) == 2
        shown = capsys.readouterr()
        assert shown.out == ""
        assert shown.err.startswith("multitool: ")
        assert shown.err.count("\n") == 1
        assert shown.err.endswith("\n")
        assert len(shown.err) < 1500
        return shown.err

    return run_it


# The demo, as a newcomer would start it


def test_a_tree_of_the_demo_is_printed_readably():
    done = run(*TREE, "--cutoff", "0.005")
    assert (done.returncode, done.stderr) == (0, "")
    title, prompt, summary, *rest = done.stdout.splitlines()
    assert "demo/hook_embed feature 123, weights encoder, scale 2.39, on demo/SmolLM2-135M-Instruct-Q4_1" in title
    assert prompt == 'Prompt: A typical definition of "{ghost}" would be "'
    assert re.search(r"\d+ nodes at cutoff 0.005", summary)
    assert any(line.startswith("Most probable definitions") for line in rest)
    assert any(line.startswith("Tree") for line in rest)
    probabilities = [line for line in rest if re.match(r" *\d+\.\d\d%  +\S", line)]
    assert len(probabilities) > 10


def test_a_wrong_model_is_one_line_on_standard_error_whatever_the_libraries_say(folders, tmp_path, tokenizer):
    # transformers logs tables about weights that do not fit.
    wrong = write_model(tmp_path / "wrong", tiny_model("llama"), tokenizer)
    config = json.loads((wrong / "config.json").read_text())
    (wrong / "config.json").write_text(json.dumps(config | {"hidden_size": 64}))
    done = run("tokens", *folders, "--feature", "1", "--model", str(wrong))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1, done.stderr
    assert str(wrong) in done.stderr


def test_a_reader_that_leaves_early_is_no_error():
    command = [sys.executable, "-m", "multitool", "saes"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout.readline().startswith(b"SAE")
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(timeout=60) == 0


@pytest.mark.parametrize(
    "arguments",
    [["saes"], [], ["--version"], ["--help"], ["tree", "--help"], [*TREE, "--cutoff", "2"],
     [*TOKENS, "--top", "0", "--evidence"], [*TREE, "--json", "gone/tree.json"],
     ["suggest", *TREE[1:3], "--feature", "1", "--prompt", "no ghost"]],
    ids=" ".join,
)  # fmt: skip
def test_what_needs_no_model_is_answered_without_waiting_for_torch(arguments):
    code = (
        "import contextlib, sys; from multitool.cli import main\n"
        f"with contextlib.suppress(SystemExit): main({arguments})\n"
        "assert not {'torch', 'transformers', 'sae_lens', 'matplotlib', 'gradio'} & sys.modules.keys()"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout or done.stderr.startswith("multitool: ")


# Results


def test_a_tree_is_written_as_json_and_as_a_picture(folders, tmp_path, capsys):
    json_file, image = tmp_path / "tree.json", tmp_path / "tree.PNG"
    options = ["--cutoff", "0.01", "--max-depth", "3", "--json", str(json_file), "--image", str(image)]
    assert main(["tree", *folders, "--feature", "2", *options]) == 0
    document = read_tree(json_file.read_text(encoding="utf-8"))
    assert len(document.tree) > 3
    assert document.settings["cutoff"] == 0.01
    assert image.read_bytes().startswith(b"\x89PNG")
    shown = capsys.readouterr()
    assert shown.err.splitlines() == [f"multitool: wrote {json_file}", f"multitool: wrote {image}"]
    assert shown.out == ""


@pytest.fixture(scope="module")
def in_chats(folders, tmp_path_factory):
    """The tiny model with a chat template, as an option."""
    tokenizer = byte_level_tokenizer()
    tokenizer.chat_template = "{{ messages[0].content }}:"
    return ["--model", str(write_model(tmp_path_factory.mktemp("chat") / "model", tiny_model("llama"), tokenizer))]


def test_several_prompts_give_a_tree_and_files_each(folders, in_chats, tmp_path, capsys):
    ask = ["tree", *folders, *in_chats, "--feature", "2", "--cutoff", "0.05", "--prompt", "chat-meaning",
           "--prompt", 'My "{ghost}" is "']
    files = ["--json", str(tmp_path / "tree.json"), "--image", str(tmp_path / "tree.v1.svg")]
    assert main([*ask, *files]) == 0
    written = ["tree-1.json", "tree.v1-1.svg", "tree-2.json", "tree.v1-2.svg"]
    assert [line for line in capsys.readouterr().err.splitlines() if "wrote" in line] == [
        f"multitool: wrote {tmp_path / name}" for name in written
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(written)
    settings = [json.loads((tmp_path / name).read_text())["settings"] for name in written[::2]]
    told = [[tree[name] for name in ("prompt", "chat", "answer")] for tree in settings]
    assert told == [['What does the word "{ghost}" mean?', True, 'It means "'], ['My "{ghost}" is "', False, ""]]

    assert main(ask) == 0
    shown = [line for line in capsys.readouterr().out.splitlines() if line.startswith("Prompt: ")]
    assert shown == ['Prompt: user: What does the word "{ghost}" mean? – assistant: It means "',
                     'Prompt: My "{ghost}" is "']


def test_a_prompt_and_an_answer_of_ones_own_in_a_chat(folders, in_chats, tmp_path):
    file = tmp_path / "tree.json"
    chat = ["--prompt", "Define it.", "--chat", "--answer", '"{ghost}" means "']
    assert main(["tree", *folders, *in_chats, "--feature", "2", "--cutoff", "0.05", *chat, "--json", str(file)]) == 0
    settings = {"prompt": "Define it.", "chat": True, "answer": '"{ghost}" means "'}
    assert json.loads(file.read_text())["settings"].items() >= settings.items()


def test_a_chat_with_a_model_that_knows_none_is_refused(folders, refused):
    assert "has no chat template" in refused("tree", *folders, "--feature", "2", "--prompt", "chat-meaning")


def test_results_may_be_printed_for_another_command(folders, refused, capsys):
    options = ["tree", *folders, "--feature", "2", "--cutoff", "0.05", "--max-depth", "3"]
    assert main([*options, "--prompt", "meaning", "--prompt", "synonym", "--json", "-"]) == 0
    trees = [read_tree(line) for line in capsys.readouterr().out.splitlines()]
    assert [tree.settings["prompt"] for tree in trees] == [PROMPTS[name].prompt for name in ("meaning", "synonym")]
    assert main(["tokens", *folders, "--feature", "2", "--top", "3", "--csv", "-"]) == 0
    assert [row["rank"] for row in csv_files.rows_of(capsys.readouterr().out)] == ["1", "2", "3"]
    told = refused("tokens", *folders, "--feature", "2", "--csv", "-", "--json", "-")
    assert "--csv and --json both name standard output" in told
    assert main(["saes", "--search", "demo", "--json", "-"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert {"sae", "model", "hook", "layer"} <= listed[0].keys()


@pytest.mark.parametrize(("name", "magic"), [("tree.svg", b"<?xml"), ("tree.pdf", b"%PDF")])
def test_the_ending_tells_the_format(folders, tmp_path, name, magic):
    assert main(["tree", *folders, "--feature", "2", "--cutoff", "0.05", "--image", str(tmp_path / name)]) == 0
    assert (tmp_path / name).read_bytes().startswith(magic)


def test_a_picture_is_drawn_as_it_was_asked_for(folders, tmp_path, capsys):
    plain, asked = tmp_path / "plain.png", tmp_path / "asked.png"
    grow = ["tree", *folders, "--feature", "2", "--cutoff", "0.01", "--max-depth", "3", "--image"]
    assert main([*grow, str(plain)]) == 0
    assert main([*grow, str(asked), "--dpi", "60", "--dark", "--drawn", "4"]) == 0
    with Image.open(plain) as picture, Image.open(asked) as smaller:
        assert round(picture.info["dpi"][0]) == DEFAULT_DPI
        assert round(smaller.info["dpi"][0]) == 60
        assert json.loads(picture.info["Description"])["result"]["drawn"] == DEFAULT_NODES
        assert json.loads(smaller.info["Description"])["result"]["drawn"] == 4
        assert sum(picture.convert("RGB").getpixel((0, 0))) > 700 > 200 > sum(smaller.convert("RGB").getpixel((0, 0)))
    capsys.readouterr()
    with pytest.raises(SystemExit):
        main(["tree", "--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert f"nodes (default: {DEFAULT_NODES}, {DEFAULT_NODES // 2} in one column)" in shown
    assert f"{DPI[0]} to {DPI[1]} (default: {DEFAULT_DPI})" in shown


def test_a_tree_is_written_for_a_paper(folders, tmp_path):
    list_, image, table = (tmp_path / name for name in ("list.svg", "tree.png", "definitions.csv"))
    grow = ["tree", *folders, "--feature", "2", "--cutoff", "0.01", "--max-depth", "3"]
    for_paper = ["--width", "2.5", "--no-caption", "--as", "definitions", "--drawn", "3"]
    assert main([*grow, "--image", str(list_), *for_paper, "--csv", str(table)]) == 0
    assert 'width="180pt"' in list_.read_text(encoding="utf-8")
    assert main([*grow, "--image", str(image), "--width", "single"]) == 0
    with Image.open(image) as picture:
        assert picture.width == round(3.3 * DEFAULT_DPI)
    with table.open(encoding="utf-8", newline="") as text:
        recipe, (header, *rows) = csv_files.read(text.read())
    assert recipe["feature"] == 2 and recipe["result"]["nodes"] > 3
    assert header == ["text", "probability", "complete"] and rows


def test_every_option_reaches_the_result(folders, tmp_path):
    options = {
        "feature": 3, "weights": "mix", "encoder_share": 0.25, "scale": 7.5, "prompt": 'My "{ghost}" is a "',
        "top_k": 4, "cutoff": 0.02, "max_depth": 4, "max_nodes": 9, "dtype": "float32",
    }  # fmt: skip
    arguments = [part for name, value in options.items() for part in (f"--{name.replace('_', '-')}", str(value))]
    file = tmp_path / "tree.json"
    flags = ["--no-centroid", "--no-stop", "--pca", "0.2", "-0.1"]
    assert main(["tree", *folders, *arguments, *flags, "--json", str(file)]) == 0
    data = json.loads(file.read_text())
    assert data["settings"].items() >= (options | {"centroid": False, "stop": False, "pca": [0.2, -0.1]}).items()
    assert data["result"]["nodes"] == 9
    assert data["result"]["effective_cutoff"] > 0.02


def test_an_sae_whose_files_tell_neither_hook_nor_model(folders, tmp_path, refused):
    model = json.loads((Path(folders[1]) / "cfg.json").read_text())["metadata"]["model_name"]
    sae = random_sae(tmp_path / "mine", d_model=32, metadata={})
    grow = ["tree", "--device", "cpu", "--feature", "2", "--cutoff", "0.05", "--json", str(tmp_path / "tree.json")]
    assert "--hook" in refused(*grow, "--sae", sae, "--model", model)
    told = refused(*grow, "--sae", sae, "--hook", "model.layers.1")
    assert "--model" in told
    assert str(sae / "cfg.json") in told
    assert "leave it out" in refused(*grow, "--sae", "demo/hook_embed", "--hook", "model.layers.1")
    assert main([*grow, "--sae", str(sae), "--hook", "model.layers.1", "--model", model]) == 0
    first = read_tree((tmp_path / "tree.json").read_text())
    # The result names the SAE so that it is found again.
    assert first.settings["sae"] == f"{sae}@model.layers.1"
    assert main([*grow, "--sae", first.settings["sae"], "--model", model, "--evidence"]) == 0
    again = read_tree((tmp_path / "tree.json").read_text())
    assert again.definitions(5) == first.definitions(5)
    assert again.evidence


def test_a_tree_of_tokens_in_place_of_a_feature(folders, tmp_path, capsys):
    file = tmp_path / "tree.json"
    options = ["tree", *folders, "--feature", "1", "--cutoff", "0.05", "--weights", "tokens"]
    assert main([*options, "--tokens", "a  -  b*0.5", "--json", str(file)]) == 0
    settings = json.loads(file.read_text())["settings"]
    assert (settings["weights"], settings["tokens"]) == ("tokens", "a - b*0.5")
    capsys.readouterr()
    assert main([*options, "--tokens", "a  -  b*0.5"]) == 0
    assert "weights tokens a - b*0.5, scale" in capsys.readouterr().out
    assert main(options) == 2
    assert "tokens is ''" in capsys.readouterr().err


def test_a_vector_of_ones_own_in_place_of_a_feature(folders, tmp_path, capsys, refused):
    sae = folders[1]
    encoder = load_file(Path(sae) / "sae_weights.safetensors")["W_enc"][:, 3]
    np.save(tmp_path / "mood.npy", encoder.numpy())
    model = json.loads((Path(sae) / "cfg.json").read_text())["metadata"]["model_name"]
    place = ["--model", model, "--hook", "blocks.0.hook_resid_post", "--device", "cpu"]
    own = ["--vector", str(tmp_path / "mood.npy"), *place]
    files = tmp_path / "own.json", tmp_path / "feature.json"
    assert main(["tree", *own, "--cutoff", "0.05", "--json", str(files[0])]) == 0
    assert main(["tree", *folders, "--feature", "3", "--weights", "pullback", "--cutoff", "0.05",
                 "--json", str(files[1])]) == 0
    ours, theirs = (read_tree(file.read_text()) for file in files)
    assert ours.definitions() == theirs.definitions() and ours.settings["vector_name"] == "mood"
    assert main(["tree", "--vector", own[1], *folders, "--cutoff", "0.05", "--json", str(files[0])]) == 0
    assert read_tree(files[0].read_text()).definitions() == theirs.definitions(), "where that SAE reads"
    capsys.readouterr()
    assert main(["tree", *own, "--vector-name", "sad", "--cutoff", "0.05", "--evidence"]) == 0
    shown = capsys.readouterr().out
    assert "sad (vector " in shown and "Nothing tells when a vector of your own fires" in shown
    assert "nan" not in shown and "fires as" not in shown
    assert main(["tokens", *own, "--measure", "logit_lens", "--evidence", "--top", "3"]) == 0
    assert "mood (vector " in capsys.readouterr().out
    assert "--sae and --feature must be given, or --vector FILE" in refused("tree")
    assert "Name it with --model" in refused("tree", "--vector", own[1])
    assert "'none.npy' cannot be read" in refused("tokens", "--vector", tmp_path / "none.npy", *place)
    assert "vector_name is 'sad', which goes with a vector" in refused(*TREE, "--vector-name", "sad")
    assert "Nothing tells when a vector" in refused("tree", *own, "--clamp", "1")


def test_several_features_in_one_vector(folders, tmp_path, capsys):
    file = tmp_path / "tree.json"
    options = ["tree", *folders, "--feature", "1 - 2*0.5", "--cutoff", "0.05"]
    assert main([*options, "--json", str(file)]) == 0
    assert json.loads(file.read_text())["settings"]["feature"] == "1*1.0 + 2*-0.5"
    assert main(["tokens", *folders, "--feature", "7", "--top", "3"]) == 2
    assert "0 to 5" in capsys.readouterr().err
    assert main([*options, "--evidence"]) == 2
    assert "Evidence is about one feature" in capsys.readouterr().err


def test_a_precision_that_was_asked_for_is_used(folders, tmp_path):
    file = tmp_path / "tree.json"
    options = ["--cutoff", "0.1", "--dtype", "bfloat16", "--json", str(file)]
    assert main(["tree", *folders, "--feature", "1", *options]) == 0
    assert json.loads(file.read_text())["settings"]["dtype"] == "bfloat16"


def test_another_model_may_be_named(folders, tmp_path, tokenizer):
    other = write_model(tmp_path / "other", tiny_model("qwen2"), tokenizer)
    file = tmp_path / "list.json"
    assert main(["tokens", *folders, "--feature", "1", "--model", str(other), "--json", str(file)]) == 0
    assert json.loads(file.read_text())["settings"]["model"] == str(other)


def test_an_sae_on_another_model_than_its_own_is_noted(tmp_path, tokenizer, capsys):
    model = write_model(tmp_path / "other", tiny_model("qwen2"), tokenizer)
    sae = random_sae(tmp_path / "sae", d_model=32, model="gemma-2b")
    options = ["--sae", str(sae), "--feature", "1", "--top", "3", "--device", "cpu"]
    assert main(["tokens", *options, "--model", str(model)]) == 0
    assert f"local/sae was trained on google/gemma-2b, not on {model}" in capsys.readouterr().err
    copy = write_model(tmp_path / "gemma-2b", tiny_model("qwen2"), tokenizer)  # a folder of that name
    assert main(["tokens", *options, "--model", str(copy)]) == 0
    assert capsys.readouterr().err == ""


def test_the_second_local_model_takes_its_terms_accepted_once(tmp_path, tokenizer, monkeypatch, capsys):
    cache = standin_gemma.put_in_place(tmp_path, monkeypatch, tokenizer)
    command = ["tokens", "--sae", standin_gemma.SAE, "--feature", "1", "--top", "3", "--device", "cpu"]
    assert main(command) == 2
    told = capsys.readouterr().err
    assert "--accept-gemma-terms" in told and "TERMS.txt or at https://ai.google.dev/gemma/terms" in told
    assert main([*command, "--accept-gemma-terms"]) == 0
    assert (cache / "gemma-terms-accepted.txt").is_file()
    assert main(command) == 0


def test_the_hubs_saes_of_the_second_local_model_are_read_on_it(tmp_path, tokenizer, monkeypatch, capsys):
    standin_gemma.put_in_place(tmp_path, monkeypatch, tokenizer)
    sae = random_sae(tmp_path / "scope", d_model=standin_gemma.D_MODEL, model="google/gemma-3-270m")
    file = tmp_path / "tree.json"
    options = ["--sae", str(sae), "--feature", "1", "--device", "cpu", "--model", GEMMA_MODEL, "--accept-gemma-terms"]
    assert main(["tree", *options, "--cutoff", "0.1", "--max-nodes", "9", "--json", str(file)]) == 0
    assert json.loads(file.read_text())["settings"]["model"] == GEMMA_MODEL
    note = f"local/scope was trained on google/gemma-3-270m; but for its rounding {GEMMA_MODEL} is the same"
    assert note in capsys.readouterr().err
    assert main(["components", "--model", GEMMA_MODEL, "--count", "1", "--top", "2"]) == 0
    assert main(["saes", "--search", "gemma-scope-2-270m-pt-res layer_5"]) == 0
    assert f"with --model {GEMMA_MODEL}" in capsys.readouterr().err


def test_a_token_list_is_printed_as_a_table(folders, capsys):
    assert main(["tokens", *folders, "--feature", "2", "--top", "7"]) == 0
    lines = capsys.readouterr().out.splitlines()
    heading = next(i for i, line in enumerate(lines) if line.split()[:3] == ["rank", "token", "token_id"])
    rows = [line.split() for line in lines[heading + 1 :]]
    assert [row[0] for row in rows] == ["1", "2", "3", "4", "5", "6", "7"]
    scores = [float(row[-3]) for row in rows]
    assert scores == sorted(scores)


def test_a_token_list_is_written_as_a_table_and_as_json_with_the_same_numbers(folders, tmp_path):
    table, file = tmp_path / "list.csv", tmp_path / "list.json"
    # All 304 tokens: quotes, commas, line breaks and escaped bytes are among them.
    options = ["--top", "304", "--csv", str(table), "--json", str(file)]
    assert main(["tokens", *folders, "--feature", "2", *options]) == 0
    with table.open(encoding="utf-8", newline="") as text:
        recipe, (header, *rows) = csv_files.read(text.read())
    assert header == ["rank", "token", "token_id", "score", "distance_to_vector", "distance_to_centroid"]
    listed = json.loads(file.read_text(encoding="utf-8"))
    assert recipe == listed["settings"] | {name: listed[name] for name in ("schema", "vector")}
    assert listed["schema"] == "sae-multitool/token-list/1"
    assert listed["settings"].items() >= {"feature": 2, "exponent": 1.4, "top": 304}.items()
    assert listed["vector"].keys() == {"norm", "distance_from_centroid", "mean_token_distance"}
    assert [[str(token[column]) for column in header] for token in listed["tokens"]] == rows
    assert len(rows) == 304
    assert {"\n", "\r", '"', ",", "\\xe2", "<|endoftext|>", "<no token 301>"} <= {row[1] for row in rows}


# Evidence, on a model whose cache is the test's own


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SAE_MULTITOOL_CACHE", str(tmp_path / "cache"))


def test_evidence_that_cannot_be_had_is_refused_before_a_tree_grows(folders, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr("multitool.jobs.tree.grown", lambda *anything: pytest.fail("a tree grew"))
    sae = random_sae(tmp_path / "topk", 32, architecture="topk", model=str(Path(folders[1]).with_name("model")))
    assert main(["tree", *folders, "--sae", str(sae), "--feature", "2", "--evidence"]) == 2
    assert "has no k" in capsys.readouterr().err


def test_a_tree_is_checked_on_request(folders, cache, tmp_path, capsys):
    file = tmp_path / "tree.json"
    options = ["tree", *folders, "--feature", "2", "--cutoff", "0.05", "--max-depth", "4", "--evidence"]
    assert main(options) == 0
    printed = capsys.readouterr().out
    assert re.search(r"This tree|Do not trust this tree", printed)
    rows = [line.split("  ") for line in printed.splitlines()]
    names = [line[1] for line in rows if len(line) > 1]
    assert {"Lift over the centroid", "Lift over random directions", "Self-similarity"} <= set(names)
    assert main([*options, "--json", str(file)]) == 0
    checked = read_tree(file.read_bytes())
    assert checked.evidence["sentence"] in printed
    assert checked.evidence["n_features"] == 6
    assert checked.tree.lifts.shape == (len(checked.tree), 2)


def test_a_list_is_checked_and_ordered_by_activation_on_request(folders, cache, tmp_path, capsys):
    file = tmp_path / "list.json"
    options = ["tokens", *folders, "--feature", "2", "--top", "30", "--evidence"]
    assert main([*options, "--measure", "activation", "--json", str(file)]) == 0
    assert "Scanning the vocabulary (once for this model and layer): 304 of 304 tokens\n" in capsys.readouterr().err
    table = json.loads(file.read_text())
    activations = [row["activation"] for row in table["tokens"]]
    assert activations == sorted(activations, reverse=True)
    assert min(activations) > 0
    assert table["settings"]["measure"] == "activation"
    assert main(options) == 0
    shown = capsys.readouterr()
    assert shown.err == "", "the scan is kept"
    assert table["evidence"]["sentence"] in shown.out
    header = next(line for line in shown.out.splitlines() if line.lstrip().startswith("rank"))
    assert header.split()[-1] == "activation"


@pytest.mark.parametrize("measure", ["cosine", "dot", "logit_lens", "jacobian_lens"])
def test_a_list_of_words_is_ordered_by_another_measure_from_its_other_end(folders, tmp_path, capsys, measure):
    file = tmp_path / "list.json"
    options = ["tokens", *folders, "--feature", "2", "--top", "9", "--measure", measure, "--negative", "--words"]
    assert main(options) == 0
    header = next(line for line in capsys.readouterr().out.splitlines() if line.lstrip().startswith("rank"))
    assert header.split()[-1] == measure
    assert main([*options, "--json", str(file)]) == 0
    table = json.loads(file.read_text())
    values = [token[measure] for token in table["tokens"]]
    assert len(values) == 9 and values == sorted(values)
    assert all(token["token"].strip().isalpha() for token in table["tokens"])
    assert [table["settings"][name] for name in ("measure", "negative", "words")] == [measure, True, True]


@pytest.mark.parametrize("weights", ["vocabulary", "mapped"])
def test_weights_that_need_a_scan_have_it_done(folders, cache, tmp_path, capsys, weights):
    file = tmp_path / "tree.json"
    options = ["--feature", "1", "--weights", weights, "--json", str(file)]
    assert main(["tree", *folders, "--cutoff", "0.05", *options]) == 0
    assert "304 of 304 tokens" in capsys.readouterr().err
    assert json.loads(file.read_text())["settings"]["weights"] == weights


def test_settings_are_suggested_for_one_feature_and_for_many(folders, cache, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("multitool.cli.telling._WORTH_TELLING", 0)
    file = tmp_path / "found.json"
    assert main(["suggest", *folders, "--feature", "1"]) == 0
    printed, told = capsys.readouterr()
    assert "multitool: Settings tried: 43 of 43\n" in told
    assert re.search(r"multitool: Comparing with control vectors: (\d+) of \1\n", told)
    # The model has three layers, so that all three injections have one that reads them.
    assert printed.startswith("Of 43 settings the best is ")
    assert len(printed.splitlines()) == 4 + 1 + 43
    options = re.search("Grow it with: (.*)", printed)[1].split()
    assert main(["tree", *folders, "--feature", "1", "--cutoff", "0.05", *options]) == 0
    assert f"weights {options[1]}" in capsys.readouterr().out
    assert main(["suggest", *folders, "--feature", "1", "--json", str(file)]) == 0
    assert json.loads(file.read_text())["schema"] == "sae-multitool/suggestion/1"
    capsys.readouterr()
    assert main(["suggest", *folders, "--features", "0:3", "--quiet", "--json", str(file)]) == 0
    assert capsys.readouterr().err == f"multitool: wrote {file}\n"
    study = json.loads(file.read_text())
    assert study["schema"] == "sae-multitool/study/1"
    assert {trial["feature"] for trial in study["trials"]} == {0, 1, 2}
    assert len(study["trials"]) == 3 * 43


def test_the_options_of_what_is_suggested_are_those_that_are_not_the_usual_ones():
    def options(tree=TreeRecipe(), **vector) -> str:
        recipe = VectorRecipe(sae="demo/hook_embed", feature=1, **vector)
        return options_of(Suggestion((Setting(None, recipe, tree, ()),), "float32"))

    assert options(weights="encoder") == "--weights encoder"
    assert options(weights="mapped", scale=1.25, pca=[0.2]) == "--weights mapped --scale 1.25 --pca 0.2"
    assert options(TreeRecipe(inject_layer=1), weights="decoder") == "--weights decoder --inject-layer 1"
    added = TreeRecipe(inject_layer=0, inject_mode="add", inject_scale=2)
    assert options(added, weights="decoder") == (
        "--weights decoder --inject-layer 0 --inject-mode add --inject-scale 2.0"
    )


def test_components_are_printed_and_written(folders, tmp_path, capsys):
    file = tmp_path / "components.json"
    options = ["components", *folders[:2], "--count", "2", "--top", "3"]
    assert main(options) == 0
    lines = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"component 1: [0-9.]+% of the variance", lines[0])
    assert [line.split()[0] for line in lines] == ["component", "+", "-"] * 2
    assert main([*options, "--json", str(file)]) == 0
    first, second = json.loads(file.read_text())
    assert first.keys() == {"index", "share", "positive", "negative"}
    assert first["share"] > second["share"] and len(first["positive"]) == 3
    assert main(["components"]) == 2
    assert "Name a model" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "columns"),
    [(["--tokens", "#100 - #101", "--weights", "mix"], "cosine"), (["--like", "2", "--by", "encoder"], "cosine"),
     (["--tokens", "#100", "--measure", "activation"], "cosine  activation"),
     (["--text", "A dog"], "above_prose     maximum        mean    fires_on       prose")],
)
def test_features_are_found_and_printed_and_written(folders, cache, tmp_path, capsys, options, columns):
    command = ["find", *folders, "--top", "3", *options]
    assert main(command) == 0
    sentence, _, heading, first, *_ = capsys.readouterr().out.splitlines()
    assert sentence.endswith(".") and re.sub(" +", " ", heading) == re.sub(
        " +", " ", f"rank SAE feature {columns} description")
    assert first.split()[0] == "1"
    table, file = tmp_path / "found.csv", tmp_path / "found.json"
    assert main([*command, "--csv", str(table), "--json", str(file)]) == 0
    told = json.loads(file.read_text())
    rows = csv_files.rows_of(table.read_text())
    assert [int(row["feature"]) for row in rows] == [one["feature"] for one in told["features"]]


def test_features_are_found_in_an_atlas_that_is_named(folders, tmp_path, capsys):
    command = ["find", "--atlas", "rain", "--in", str(write_atlas(tmp_path / "atlas"))]
    assert main([*command, "--verdict", "agrees"]) == 0
    *_, line = capsys.readouterr().out.splitlines()
    assert line.split()[:3] == ["1", "demo/hook_embed", "927"] and "agrees" in line
    assert main([*command, "--max-entropy", "0"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1  # no table of nothing


def test_where_none_is_named_the_environments_atlas_is_searched(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("SAE_MULTITOOL_ATLAS", str(write_atlas(tmp_path / "atlas", [row(41, [("rainfall", 0.5)])])))
    assert main(["find", "--atlas", "rain"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].split()[:3] == ["1", "demo/hook_embed", "41"]
    other = write_atlas(tmp_path / "other", [row(42, [("rainfall", 0.5)])])
    assert main(["find", "--atlas", "rain", "--in", str(other)]) == 0
    assert capsys.readouterr().out.splitlines()[-1].split()[:3] == ["1", "demo/hook_embed", "42"]


def test_printing_works_where_only_ascii_can_be_shown(folders, monkeypatch):
    shown = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(shown, encoding="ascii"))
    assert main(["tree", *folders, "--feature", "2", "--cutoff", "0.01"]) == 0
    assert main(["tokens", *folders, "--feature", "2"]) == 0
    sys.stdout.flush()
    assert b"Unfinished: these go on beyond the tree" in shown.getvalue()


def test_saes_are_listed_with_all_that_is_known_without_a_download(capsys):
    assert main(["saes", "--search", "gemma-2b-res-jb"]) == 0
    heading, *rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert heading == ["SAE", "MODEL", "PARAMETERS", "HOOK", "FEATURES", "L0", "NEURONPEDIA"]
    assert [
        "gemma-2b-res-jb/blocks.6.hook_resid_post", "google/gemma-2b", "(gated)", "2.51", "B",
        "blocks.6.hook_resid_post", "16384", "56", "gemma-2b/6-res-jb",
    ] in rows  # fmt: skip


def test_all_saes_are_listed_and_the_demos_first(capsys):
    assert main(["saes"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith("demo/hook_embed ")
    assert len(lines) > 4_800


# Options


VECTOR_OPTIONS = {
    "--sae", "--hook", "--feature", "--vector", "--vector-name", "--model", "--weights", "--encoder-share", "--tokens",
    "--no-centroid", "--scale",
    "--pca", "--dtype", "--device", "--accept-gemma-terms", "--quiet",
}  # fmt: skip


@pytest.mark.parametrize(
    ("command", "own"),
    [
        ("tree", {"--prompt", "--chat", "--answer", "--top-k", "--cutoff", "--max-depth", "--max-nodes", "--no-stop",
                  "--steer-strength", "--clamp", "--steer-at", "--steer-sinks", "--inject-layer", "--inject-mode",
                  "--inject-scale",
                  "--evidence", "--json", "--csv", "--image", "--as", "--drawn", "--width", "--no-caption", "--dpi",
                  "--dark"}),
        ("tokens", {"--exponent", "--top", "--measure", "--negative", "--words", "--evidence", "--csv", "--json"}),
        ("suggest", {"--features", "--prompt", "--json"}),
        ("steer", {"--text", "--strengths", "--length", "--temperature", "--seed", "--json"}),
        ("find", {"--text", "--like", "--atlas", "--measure", "--by", "--among", "--verdict", "--max-entropy",
                  "--min-cosine", "--in", "--top", "--csv", "--json"}),
        ("components", {"--sae", "--model", "--count", "--top", "--json"}),
        ("text", {"--feature", "--file", "--csv", "--json"}),
        ("saes", {"--search", "--json"}),
    ],
)
def test_the_options_are_those_of_the_contract(command, own, capsys):
    with pytest.raises(SystemExit) as left:
        main([command, "--help"])
    assert left.value.code == 0
    shown = capsys.readouterr().out
    options = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", shown)) - {"--help"}
    assert options >= own | (VECTOR_OPTIONS if command in ("tree", "tokens") else set())
    assert options <= own | VECTOR_OPTIONS


def test_without_options_the_recipe_is_the_default_one(folders, tmp_path):
    file = tmp_path / "tree.json"
    assert main(["tree", *folders, "--feature", "0", "--cutoff", "0.05", "--json", str(file)]) == 0
    settings = json.loads(file.read_text())["settings"]
    tree, vector = TreeRecipe(cutoff=0.05), VectorRecipe(sae="x", feature=0)
    assert {name: settings[name] for name in TreeRecipe.__dataclass_fields__} == vars(tree)
    for name in ("encoder_share", "centroid"):
        assert settings[name] == getattr(vector, name)
    assert settings["weights"] == "encoder"
    assert main(["tokens", *folders, "--feature", "0", "--json", str(file)]) == 0
    settings = json.loads(file.read_text())["settings"]
    assert {name: settings[name] for name in ListRecipe.__dataclass_fields__} == vars(ListRecipe())


# Errors


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["grow"], "grow"),
        (["tree"], "--sae"),
        (["tree", "--sae", "demo/hook_embed"], "--feature"),
        ([*TREE, "--colour", "red"], "--colour"),
        ([*TREE, "--cutoff"], "--cutoff"),
        (["saes", "demo"], "demo"),
        (["tree", "--sae", "demo/nothing", "--feature", "1"], "There is no SAE 'demo/nothing'"),
        (["tree", "--sae", "", "--feature", "1"], "sae is ''"),
        (["tree", "--sae", "/gone/folder", "--feature", "1"], "/gone/folder"),
        (["tree", "--sae", "x" * 5_000, "--feature", "1"], "name one as RELEASE/SAE_ID"),
        (["tree", "--sae", "gpt2-small-mlp-out-v5-32k/blocks.0.hook_mlp_out", "--feature", "1"], "output of an MLP"),
        ([*TREE[:3], "--feature", "-1"], "feature is -1"),
        ([*TREE[:3], "--feature", "1.5"], "1.5"),
        ([*TREE[:3], "--feature", "seven"], "seven"),
        ([*TREE, "--weights", "both"], "both"),
        ([*TREE, "--encoder-share", "1.5"], "encoder_share is 1.5"),
        ([*TREE, "--scale", "0"], "scale is 0"),
        ([*TREE, "--scale", "-3"], "scale is -3"),
        ([*TREE, "--scale", "nan"], "scale is nan"),
        ([*TREE, "--scale", "inf"], "scale is inf"),
        ([*TREE, "--scale", "far"], "far"),
        ([*TREE, "--pca", "x"], "x"),
        ([*TREE, "--pca", "nan"], "nan"),
        ([*TREE, "--prompt", "no ghost"], "prompt is 'no ghost'"),
        ([*TREE, "--prompt", "{ghost}\n{ghost}"], "2 times"),
        ([*TREE, "--top-k", "-1"], "top_k is -1"),
        ([*TREE, "--top-k", "101"], "top_k is 101"),
        ([*TREE, "--cutoff", "0"], "cutoff is 0"),
        ([*TREE, "--cutoff", "1"], "cutoff is 1"),
        ([*TREE, "--cutoff", "nan"], "cutoff is nan"),
        ([*TREE, "--max-depth", "0"], "max_depth is 0"),
        ([*TREE, "--max-nodes", "-5"], "max_nodes is -5"),
        ([*TREE, "--dtype", "float64"], "float64"),
        ([*TREE, "--device", "gpu"], "gpu"),
        ([*TREE, "--image", "tree.gif"], "tree.gif"),
        ([*TREE, "--image", "tree"], ".png, .svg, .pdf"),
        ([*TREE, "--image", "tree.png", "--dpi", "5"], "dpi is 5; it must be a whole number from 50 to 600"),
        ([*TREE, "--image", "tree.png", "--dpi", "fine"], "fine"),
        ([*TREE, "--image", "tree.png", "--drawn", "0"], "drawn is 0"),
        ([*TREE, "--json", "tree.json", "--dark"], "--dark is about a picture. Add --image"),
        ([*TREE, "--dpi", "300"], "--dpi is about a picture"),
        ([*TREE, "--no-caption"], "--no-caption is about a picture"),
        ([*TREE, "--image", "x.png", "--width", "wide"], "width is 'wide'; valid are single (3.3 inches), double"),
        ([*TREE, "--image", "x.png", "--width", "50"], "a number of inches from 2 to 20"),
        ([*TOKENS, "--exponent", "0"], "exponent is 0"),
        ([*TOKENS, "--top", "0"], "top is 0"),
        ([*TOKENS, "--top", "20000"], "top is 20000"),
        (["saes", "--search", "no such words"], "no such words"),
        ([*TOKENS, "--measure", "size"], "size"),
        (["suggest", *TREE[1:3]], "--feature"),
        (["text", *TREE[1:]], "TEXT"),
        (["text", *TREE[1:], "rain", "--file", "rain.txt"], "not allowed"),
        (["text", *TREE[1:], "--file", "gone.txt"], "gone.txt cannot be read: No such file"),
        (["text", *TREE[1:], " "], "The text is empty"),
        (["text", *TREE[1:], "x" * 20_001], "at most 20,000"),
        (["suggest", *TREE[1:], "--features", "0:2"], "not allowed"),
        (["suggest", *TREE[1:3], "--features", "5:5"], "5:5"),
        (["suggest", *TREE[1:3], "--features", "many"], "FIRST:LAST"),
        (["suggest", *TREE[1:3], "--features", "2040:2050"], "feature is 2049"),
    ],
    ids=lambda value: " ".join(value[-2:])[:40] if isinstance(value, list) else None,
)
def test_a_wrong_option_is_answered_with_one_line(refused, arguments, named):
    assert named in refused(*arguments)


def test_a_hint_for_a_wrong_option_is_a_command_that_works(refused, capsys):
    for arguments in (["tree"], ["tree", "--colour"], ["saes", "--colour"]):
        hint = re.search(r"`python -m multitool ?(.*)`", refused(*arguments))
        with pytest.raises(SystemExit) as left:
            main(hint[1].split())
        assert left.value.code == 0
        capsys.readouterr()


def test_without_a_command_help_is_printed(capsys):
    assert main([]) == 0
    shown = capsys.readouterr()
    assert shown.out.startswith("usage: multitool [-h] [--version] COMMAND") and shown.err == ""
    assert re.search("^    text +tell where", shown.out, re.MULTILINE)


def test_the_version_is_told_with_those_of_what_it_is_built_on(capsys):
    with pytest.raises(SystemExit) as left:
        main(["--version"])
    first, second = capsys.readouterr().out.splitlines()
    assert not left.value.code
    assert first == f"sae-multitool {__version__}" and f"torch {torch.__version__}" in second


def test_the_installed_command_calls_itself_by_its_name(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["/usr/bin/sae-multitool"])
    assert main(["tree"]) == 2
    shown = capsys.readouterr().err
    assert shown.startswith("sae-multitool: ")
    assert shown.endswith("See `sae-multitool tree --help`.\n")


def test_a_gpu_where_there_is_none_is_one_line(refused, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "Use cpu or auto" in refused(*TREE, "--device", "cuda")


def test_what_only_loading_can_tell_is_one_line_too(refused, folders, tmp_path, tokenizer):
    model = write_model(tmp_path / "model", tiny_model("llama"), tokenizer)
    assert "feature is 6" in refused("tree", *folders, "--feature", "6")
    assert "pca has 33 weights" in refused("tree", *folders, "--feature", "1", "--pca", *["0.01"] * 33)
    assert "Shorten the prompt" in refused("tree", *folders, "--feature", "1", "--prompt", "dog " * 300 + '"{ghost}" "')
    assert "no/such-model" in refused("tokens", *folders, "--feature", "1", "--model", "no/such-model")
    assert "x" * 60 in refused("tokens", *folders, "--feature", "1", "--model", "x" * 300)
    narrow = random_sae(tmp_path / "narrow", d_model=16)
    assert "16" in refused("tree", "--sae", narrow, "--feature", "1", "--model", model)
    assert "--model" in refused("tree", "--sae", random_sae(tmp_path / "nameless", d_model=32), "--feature", "1")
    dead = write_sae(tmp_path / "dead", W_enc=torch.zeros(32, 2), W_dec=torch.ones(2, 32))
    assert "dead feature" in refused("tree", "--sae", dead, "--feature", "1", "--model", model)
    (dead / "sae_weights.safetensors").unlink()
    assert "missing" in refused("tree", "--sae", dead, "--feature", "1", "--model", model)
    (dead / "cfg.json").unlink()
    assert "cfg.json" in refused("tree", "--sae", dead, "--feature", "1", "--model", model)
    (model / "model.safetensors").write_text("garbage")
    assert str(model) in refused("tokens", *folders, "--feature", "1", "--model", model)


@pytest.mark.parametrize("place", ["gone/{}", "file/{}", "folder.{}", "x" * 300 + ".{}"], ids=lambda place: place[:9])
@pytest.mark.parametrize(
    ("command", "option", "ending"),
    [(TREE, "--json", "json"), (TREE, "--image", "png"), (TOKENS, "--json", "json"), (TOKENS, "--csv", "csv")],
    ids=["tree json", "image", "tokens json", "csv"],
)
def test_an_output_that_cannot_be_written_is_refused_before_any_work(
    refused, tmp_path, monkeypatch, command, option, ending, place
):
    def work(*arguments, **options):
        raise AssertionError("the work was begun")

    monkeypatch.setattr("multitool.store.library.Library.find", work)
    (tmp_path / "file").write_text("I am a file")
    (tmp_path / f"folder.{ending}").mkdir()
    path = tmp_path / place.format(ending)
    assert str(path)[:200] in refused(*command, option, path)


def test_a_failed_command_leaves_the_outputs_as_they_were(refused, tmp_path):
    new, old = tmp_path / "new.json", tmp_path / "old.png"
    old.write_text("I was here")
    refused("tree", "--sae", "demo/hook_embed", "--feature", "99999999", "--json", new, "--image", old)
    assert not new.exists()
    assert old.read_text() == "I was here"
