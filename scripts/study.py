"""The study of a local model: which settings work on its SAEs, by the evidence. Writes docs/study.md.

    python -m scripts.study [--device cpu|cuda|auto] [--work FOLDER] [--sae NAME ...] [--processes N]
    python -m scripts.study --model gemma-3-270m     of the second one: docs/study-gemma.md

Figures are written to FOLDER as they come and are not measured again: a run that was cut off goes on with the same
command, and --only-page writes the document from what there is. With --processes 4 each SAE is measured in a process of
its own: some five minutes on a GPU with 16 cores, some hours on two cores.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from multitool.errors import UserError
from multitool.jobs.candidates import PUBLISHED, Candidate
from multitool.jobs.features import resolve
from multitool.jobs.local import check_tree, definition_tree, scan_if_missing, token_table
from multitool.recipes.directions import DIRECTIONS
from multitool.recipes.recipe import ListRecipe, TreeRecipe, VectorRecipe
from multitool.store.demo_models import DEMO_MODEL
from multitool.store.library import Library
from multitool.store.registry import demo_saes
from multitool.store.saes import strongest_contexts
from multitool.text import visible
from scripts.study_bench import Bench
from scripts.study_page import STUDIES, page
from scripts.study_records import Records

REPOSITORY = Path(__file__).parents[1]
CHOOSING, HELD_OUT, EXAMPLES = 24, 300, 5  # features
EXAMPLE_TREE = TreeRecipe(cutoff=5e-4, max_nodes=300)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--device", choices=("cpu", "cuda", "auto"), default="cpu", help="where the model runs")
    parser.add_argument("--work", type=Path, default=REPOSITORY / "study-work", help="where figures are kept")
    parser.add_argument("--model", choices=STUDIES, default=next(iter(STUDIES)), help="whose SAEs")
    parser.add_argument("--sae", nargs="+", metavar="NAME", help="which of them (all)")
    parser.add_argument("--processes", type=int, default=1, help="measure so many SAEs at a time")
    parser.add_argument("--features", type=int, nargs=2, metavar="N", default=(CHOOSING, HELD_OUT),
                        help="so many choose, so many others judge: small numbers to try the script")
    parser.add_argument("--page", type=Path, help="the document (in docs/)")
    parser.add_argument("--only-page", action="store_true", help="measure nothing")
    options = parser.parse_args()
    study = STUDIES[options.model]
    all_saes = [entry.name for entry in demo_saes(study.model)]
    options.sae, options.page = options.sae or all_saes, options.page or REPOSITORY / "docs" / study.page
    if unknown := set(options.sae) - set(all_saes):
        parser.error(f"--sae: {', '.join(sorted(unknown))} is none of {', '.join(all_saes)}")
    options.work.mkdir(parents=True, exist_ok=True)
    paths = {sae: options.work / (sae.replace("/", "-") + ".jsonl") for sae in all_saes}
    failed: list[str] = []
    if options.only_page:
        pass
    elif options.processes > 1:
        failed = measured_apart(options)
    else:
        library = Library(dtype="float32", device=options.device, max_saes=1)
        for sae in options.sae:
            measure(library, sae, paths[sae], *options.features)
    kept = {sae: Records(path) for sae, path in paths.items() if path.exists()}
    there = {sae: records for sae, records in kept.items() if records.settings("trees")}
    if there and options.page != Path(os.devnull):
        lenses = options.work / "lenses.json"  # of scripts.lens_study, where it was run
        has_lenses = study.model == DEMO_MODEL and lenses.exists()
        told = json.loads(lenses.read_text(encoding="utf-8")) if has_lenses else None
        options.page.write_text(page(study, there, told), encoding="utf-8")
        print(f"wrote {options.page} with {len(there)} of {len(all_saes)} SAEs")
    if failed:
        sys.exit(f"not whole: {', '.join(failed)}; the same command goes on")


def measured_apart(options: argparse.Namespace) -> list[str]:
    """Each SAE in a process of its own, some at a time, each on its share of the processor's cores; those that
    failed."""
    threads = str(max(1, (os.cpu_count() or 1) // options.processes))

    def run(sae: str) -> int:
        command = [sys.executable, "-m", "scripts.study", "--model", options.model, "--sae", sae,
                   "--work", options.work.resolve(), "--device", options.device, "--page", os.devnull,
                   "--features", *map(str, options.features)]
        environment = os.environ | dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), threads)
        return subprocess.run(command, cwd=REPOSITORY, env=environment).returncode

    with ThreadPoolExecutor(options.processes) as pool:
        return [sae for sae, status in zip(options.sae, pool.map(run, options.sae), strict=True) if status]


def measure(library: Library, sae: str, path: Path, n_choosing: int, n_held_out: int) -> None:
    """All figures of one SAE that are not there yet, some features at a time."""
    started = time.monotonic()

    def say(text: str) -> None:
        print(f"{time.monotonic() - started:6.0f} s  {sae}  {text}", flush=True)

    recipe = VectorRecipe(sae=sae, feature=0)
    scan_if_missing(library, recipe, always=True)
    d_sae = resolve(library, recipe).sae.d_sae
    features = np.random.default_rng(1).permutation(d_sae).tolist()[: n_choosing + n_held_out]
    choosing, held_out = features[:n_choosing], features[n_choosing:]
    entry = library.find(sae)
    default = {what: str(Candidate(weights, DIRECTIONS[weights].relative_scale))
               for what, weights in (("lists", entry.list_weights), ("trees", entry.default_weights))}
    published = [str(one) for one in PUBLISHED[: 2 if entry.kind == "embed" else 1]]  # in the layers both are at chance
    head = {"sae": sae, "default": default, "published": published, "choosing": n_choosing, "held_out": n_held_out,
            "d_sae": d_sae}
    bench = Bench(library, sae, features, Records(path, head))
    say("begins")
    bench.lists("choose lists", bench.list_settings(), choosing)
    bench.bounds("choose lists", choosing)
    say("lists chosen")
    for some in parts(choosing, bench.at_once // 8):
        bench.trees("choose trees", bench.tree_settings(), some)
    say("trees chosen")
    for some in parts(held_out, bench.at_once):
        bench.facts(some)
        bench.lists("lists", bench.compared("lists"), some)
        bench.bounds("lists", some)
        bench.trees("trees", bench.compared("trees"), some)
        say(f"lists and trees of {len(some)} features")
        bench.prompts(some)
        bench.read_outs(some)
        say("prompts and read-outs")
    for feature in held_out[:EXAMPLES]:
        if not bench.records.has("examples", "default", feature):
            bench.records.add("examples", [("default", feature, example(library, sae, feature))])
    bench.records.add("seconds", [("all", round(time.time()), {"seconds": time.monotonic() - started})])
    say("done")


def parts(features: Sequence[int], n: int) -> list[Sequence[int]]:
    return [features[first : first + max(1, n)] for first in range(0, len(features), max(1, n))]


def example(library: Library, sae: str, feature: int) -> dict:
    """What a person sees who opens a feature with the default settings."""
    recipe = VectorRecipe(sae=sae, feature=feature)
    contexts = [
        visible(context.before[-40:] + "**" + context.token.strip() + "**" + context.after[:20])
        for context in strongest_contexts(library.find(sae), feature)[:3]
    ]
    try:
        table = token_table(library, recipe, ListRecipe(top=8), evidence=True)
        tree = check_tree(library, definition_tree(library, recipe, EXAMPLE_TREE))
    except UserError as error:
        return {"contexts": contexts, "problem": str(error)}
    assert table.evidence and tree.evidence
    return {
        "contexts": contexts,
        "tokens": [visible(row[1].strip() or row[1]) for row in table.rows],
        "list": table.evidence.verdict,
        "definitions": [visible(found.text) for found in tree.definitions(5)],
        "lifted": [visible(found.text) for listed in tree.most_lifted(3) for found in listed][:3],
        "tree": tree.evidence["verdict"],
    }


if __name__ == "__main__":
    main()
