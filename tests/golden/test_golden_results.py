"""Results of the Python API against the stored ones: trees, lists, evidence, suggestions, components, figures.

See tests/golden_files.py for how to renew what is stored. Everything goes through ``import multitool``.
"""

import inspect
import json
import re
import xml.etree.ElementTree as ET
from dataclasses import asdict, fields, is_dataclass
from hashlib import sha256

import csv_files
import pytest
from golden_cases import CHECKED, EMBED, FIRST, LISTS, SIXTH, TINY, TREES
from golden_files import FOLDER, tree_told
from tiny import random_sae, tiny_model, write_model

import multitool as mt

SAE_FIELDS = ("name", "model", "hook", "layer", "d_sae", "gated", "neuronpedia_id")


@pytest.fixture(scope="module")
def grown(demo_library):
    """The trees of the cases, each grown once, by name."""
    known = {}

    def tree(name: str) -> mt.DefinitionTree:
        if name not in known:
            known[name] = mt.definition_tree(demo_library, *TREES[name])
        return known[name]

    return tree


@pytest.fixture(scope="module")
def checked(demo_library, grown):
    """The checked trees, each checked once, by name."""
    known = {}

    def tree(name: str) -> mt.DefinitionTree:
        if name not in known:
            known[name] = mt.check_tree(demo_library, grown(name))
        return known[name]

    return tree


@pytest.fixture(scope="module")
def listed(demo_library):
    """The lists of the cases, each made once, by name."""
    known = {}

    def table(name: str) -> mt.TokenTable:
        if name not in known:
            vector, recipe, evidence = LISTS[name]
            known[name] = mt.token_table(demo_library, vector, recipe, evidence=evidence)
        return known[name]

    return table


def told(tree: mt.DefinitionTree) -> dict:
    """All that a tree tells: its JSON, and what is made of it."""
    definitions = [[found.text, found.probability, found.complete] for found in tree.definitions(12)]
    return tree_told(tree.to_dict()) | {
        "asked": tree.asked, "caution": tree.caution, "closing_quote": tree.closing_quote, "definitions": definitions,
    }


# ── The demo ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", TREES)
def test_trees(golden, grown, name):
    golden(f"trees/{name}", told(grown(name)))


@pytest.mark.parametrize("name", CHECKED)
def test_checked_trees(golden, checked, name):
    tree = checked(name)
    lifted = [[found.text, found.probability] for part in tree.most_lifted(5) for found in part]
    golden(f"checked/{name}", told(tree) | {"most_lifted": lifted})


def test_a_tree_trimmed_and_pruned(golden, grown, checked):
    pruned = checked("encoder").lifted(1.0)
    golden("trees/trimmed", told(grown("encoder").trimmed(6e-3)))
    golden("checked/pruned", told(pruned))
    golden("checked/pruned-and-trimmed", told(pruned.trimmed(6e-3)))


def test_a_tree_is_read_as_it_was_written(grown, checked):
    for tree in (grown("top-k-0"), checked("encoder"), checked("encoder").lifted(1.0)):
        again = mt.read_tree(tree.to_json()).to_dict()
        again["result"]["seconds"] = tree.to_dict()["result"]["seconds"]
        assert again == tree.to_dict()


def test_a_tree_as_it_grows(golden, demo_library):
    levels = mt.definition_trees(demo_library, *TREES["most-nodes"])
    golden("growth", [[tree.depth_grown, tree.complete, len(tree.definitions()), tree.effective_cutoff,
                       tree.result["nodes"]] for tree in levels])


def test_trees_of_several_prompts(golden, demo_library):
    vector, _ = TREES["encoder"]
    asked = [mt.TreeRecipe(prompt=prompt, cutoff=8e-3) for prompt in ("meaning", "chat-synonym", 'A "{ghost}" is a "')]
    golden("trees-of-prompts", [told(tree) for tree in mt.trees_of_prompts(demo_library, vector, asked)])


@pytest.mark.parametrize("name", LISTS)
def test_token_list(golden, listed, name):
    table = listed(name)
    found = table.to_dict()
    rows = [list(token.values()) for token in found.pop("tokens")]
    # A list's rows as rows, each by its token.
    golden(f"lists/{name}", found | {"columns": table.columns, "rows": [[row[1], row[0], *row[2:]] for row in rows]})
    _, (header, *lines) = csv_files.read(table.to_csv())
    assert header == list(table.columns) and len(lines) == len(rows)


def test_components(golden, demo_library):
    golden("components", [found.to_dict() for found in mt.components(demo_library, EMBED, count=3, top=6)])


def test_a_suggestion(golden, demo_library):
    vector = mt.VectorRecipe(sae=EMBED, feature=927)
    found = mt.suggest(demo_library, vector, mt.TreeRecipe())
    golden("suggestions/demo", suggestion_told(found))


def suggestion_told(found) -> dict:
    return {
        "sentence": found.sentence, "recipe": asdict(found.recipe), "tree": asdict(found.tree),
        "growth": found.growth, "columns": found.columns, "rows": found.rows, "json": found.to_dict(),
    }


# ── What is shown ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", ["encoder", "mix-with-components", "vocabulary", "tokens", "top-k-0", "most-nodes",
                                  "all-interventions", "chat-of-the-menu", "several-features", "encoder checked",
                                  "injected checked", "pruned"])
def test_the_texts_of_figures(golden, grown, checked, tmp_path, name):
    case, _, is_checked = name.partition(" ")
    tree = checked("encoder").lifted(1.0) if case == "pruned" else (checked if is_checked else grown)(case)
    mt.Picture(tree, max_nodes=25).save(tmp_path / "tree.svg")
    golden(f"figures/{name.replace(' ', '-')}", figure_told((tmp_path / "tree.svg").read_text(encoding="utf-8")))


def figure_told(svg: str) -> dict:
    """A figure's words, and what the file says of itself."""
    root = ET.fromstring(svg)
    texts = ["".join(text.itertext()) for text in root.iter("{http://www.w3.org/2000/svg}text")]
    dublin_core = "{http://purl.org/dc/elements/1.1/}"
    title = next(root.iter(f"{dublin_core}title")).text
    description = json.loads(next(root.iter(f"{dublin_core}description")).text)
    return {"texts": texts, "title": title, "description": description}


def test_what_a_notebook_shows(golden, grown, checked, listed):
    golden("notebook", {
        "tree": grown("encoder")._repr_html_(),
        "checked tree": checked("encoder")._repr_html_(),
        "list": listed("score-checked")._repr_html_(),
    })


# ── A tiny random model in a folder ─────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def tiny(tmp_path_factory, tokenizer):
    """A library and, by architecture, an SAE's folder; and the texts that stand for the temporary folder."""
    place = tmp_path_factory.mktemp("golden")
    saes = {}
    for architecture in TINY:
        model = write_model(place / f"{architecture}-model", tiny_model(architecture), tokenizer)
        for hook in ("hook_embed", "blocks.1.hook_resid_post"):
            folder = place / f"{architecture}-{hook}"
            saes[architecture, hook] = str(random_sae(folder, 32, 30, hook=hook, model=str(model)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SAE_MULTITOOL_CACHE", str(place / "cache"))
        library = mt.Library(dtype="float32", device="cpu", allow_folder=True, bars=False)
        yield library, saes, {str(place): "FOLDER"}


SMALL = {"cutoff": 4e-3, "max_nodes": 40, "max_depth": 5}


@pytest.mark.parametrize("hook", ["hook_embed", "blocks.1.hook_resid_post"])
@pytest.mark.parametrize("architecture", TINY)
def test_tiny_trees_and_lists(golden, tiny, architecture, hook):
    library, saes, hidden = tiny
    of = {"sae": saes[architecture, hook], "feature": 2}
    plain = mt.definition_tree(library, mt.VectorRecipe(**of), mt.TreeRecipe(**SMALL))
    changed = mt.definition_tree(
        library, mt.VectorRecipe(**of, weights="decoder", pca=(0.1,)),
        mt.TreeRecipe(**SMALL, inject_layer=0, steer_strength=0.5, clamp=1.0, steer_at="all", top_k=0),
    )
    lists = {
        measure: mt.token_table(library, mt.VectorRecipe(**of), mt.ListRecipe(measure=measure, top=6), evidence=True)
        for measure in ("score", "cosine", "dot", "logit_lens", "activation")
    }
    checked = told(mt.check_tree(library, plain))
    del checked["evidence"]["auroc"]  # rounding decides between activations that are as good as equal
    golden(f"tiny/{architecture}-{hook}", {
        "checked": checked,
        "changed": told(changed),
        "lists": {measure: {"rows": [row[1:] for row in table.rows], "columns": table.columns,
                            "evidence": table.evidence.to_dict()} for measure, table in lists.items()},
        "components": [found.to_dict() for found in mt.components(library, of["sae"], count=2, top=3)],
    }, hidden)


@pytest.mark.parametrize("weights", ["vocabulary", "mapped", "pullback", "mix", "random", "centroid", "tokens"])
def test_tiny_trees_of_all_weights(golden, tiny, weights):
    library, saes, hidden = tiny
    tokens = {"tokens": "#70 - #71*0.5"} if weights == "tokens" else {}
    vector = mt.VectorRecipe(sae=saes["llama", "blocks.1.hook_resid_post"], feature=3, weights=weights, **tokens)
    golden(f"tiny/weights-{weights}", told(mt.definition_tree(library, vector, mt.TreeRecipe(**SMALL))), hidden)


def test_a_tiny_suggestion(golden, tiny):
    library, saes, hidden = tiny
    vector = mt.VectorRecipe(sae=saes["llama", "blocks.1.hook_resid_post"], feature=1)
    found = mt.suggest(library, vector, mt.TreeRecipe(cutoff=0.02, max_depth=4))
    golden("suggestions/tiny", suggestion_told(found), hidden)


# ── What is stored ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("folder", "names"), [
    ("trees", {*TREES, "trimmed"}), ("checked", {*CHECKED, "pruned", "pruned-and-trimmed"}), ("lists", LISTS),
])
def test_no_case_was_lost(folder, names):
    assert {path.stem for path in (FOLDER / folder).iterdir()} == set(names)


# ── Names ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_there_is_to_load(golden):
    """Thousands: each release by its number of SAEs and a sum over all that is told of them."""
    releases = {}
    for entry in mt.saes(""):
        releases.setdefault(entry.name.partition("/")[0], []).append([getattr(entry, name) for name in SAE_FIELDS])
    sums = {name: [len(of), sha256(json.dumps(of).encode()).hexdigest()[:12]] for name, of in releases.items()}
    published = ("gemma-2b-res-jb/blocks.6.hook_resid_post", "gpt2-small-res-jb/blocks.3.hook_resid_pre")
    golden("saes", {
        "releases": sums,
        "found": {name: [getattr(mt.find_sae(name), field) for field in SAE_FIELDS]
                  for name in (EMBED, FIRST, SIXTH, *published)},
        "searched": {text: [entry.name for entry in mt.saes(text)] for text in ("demo", "gemma-2b res-jb", "nothing")},
    })


def test_public_names(golden):
    """Signatures, settings with their defaults, and documentation; wherever in the package a name is defined."""
    names = {}
    for name in sorted(mt.__all__):
        if name == "__version__":
            continue
        value = getattr(mt, name)
        if name == "PROMPTS":
            names[name] = {prompt: asdict(of) for prompt, of in value.items()}
            continue
        names[name] = {"doc": inspect.getdoc(value)}
        if name == "UserError":  # an exception like others
            continue
        names[name]["signature"] = _placeless(str(inspect.signature(value)))
        if inspect.isclass(value):
            public = {part: of for part, of in inspect.getmembers(value) if not part.startswith("_")}
            names[name]["methods"] = {part: _placeless(str(inspect.signature(of)))
                                      for part, of in public.items() if inspect.isfunction(of)}
            names[name]["properties"] = [part for part, of in public.items() if isinstance(of, property)]
        if is_dataclass(value):
            names[name]["fields"] = [field.name for field in fields(value)]
    golden("names", names)


def _placeless(text: str) -> str:
    """Without the modules in which names are defined, which may move, and the addresses of functions, which do."""
    return re.sub(r"\bmultitool(\.\w+)*\.(?=\w)| at 0x[0-9a-f]+", "", text)
