"""The study of the demo: which settings work on its SAEs, by the evidence. Writes docs/study.md.

    python -m scripts.study [--work FOLDER] [--sae NAME ...] [--processes N]

Each SAE's figures are kept in FOLDER when they are done, and are not measured again; the document holds those that are
there. With --processes 2 each SAE is measured in a process of its own, two at a time: some 40 minutes on two cores.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from multitool.evidence.statistics import mean_with_interval
from multitool.evidence.verdicts import DEFINITIONS_JUDGED, tree_verdict
from multitool.jobs.candidates import PUBLISHED, RANDOM, Candidate, candidates_for
from multitool.jobs.check import RANDOM_GHOSTS
from multitool.jobs.features import Resolved, feature_sources, resolve, vectors_of
from multitool.jobs.judging import (
    DEFINITIONS_ASKED,
    control_sources,
    lifts_of,
    mean_lifts,
    random_ghosts,
    read_judged,
    scores_of,
    small_recipe,
)
from multitool.jobs.local import check_tree, definition_tree, scan_if_missing, token_table, try_features
from multitool.jobs.steering import interventions
from multitool.jobs.study import STUDY_COLUMNS, Study
from multitool.jobs.trials import Trial
from multitool.model.interventions import Interventions
from multitool.model.tasks import Asked, AskTask, Checked, CheckTask, Place, growth_task
from multitool.recipes.directions import needs_scan
from multitool.recipes.recipe import ListRecipe, TreeRecipe, VectorRecipe
from multitool.store.library import Library
from multitool.store.saes import strongest_contexts
from multitool.text import visible
from multitool.trees.tree import NO_TREE, ROOT, Tree, definitions
from scripts.study_page import page

REPOSITORY = Path(__file__).parents[1]
SAES = ("demo/hook_embed", *(f"demo/blocks.{layer}.hook_resid_post" for layer in (1, 6, 12)))
CHOOSING, HELD_OUT, EXAMPLES = 24, 300, 5  # features
AT_ONCE = 32  # features whose trees are judged together: bounds the memory
EXAMPLE_TREE = TreeRecipe(cutoff=5e-4, max_nodes=300)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--work", type=Path, default=REPOSITORY / "study-work", help="where figures are kept")
    parser.add_argument("--sae", nargs="+", choices=SAES, default=SAES)
    parser.add_argument("--processes", type=int, default=1, help="measure so many SAEs at a time")
    parser.add_argument("--features", type=int, nargs=2, metavar="N", default=(CHOOSING, HELD_OUT),
                        help="so many choose, so many others judge: small numbers to try the script")
    parser.add_argument("--page", type=Path, default=REPOSITORY / "docs" / "study.md", help="the document")
    options = parser.parse_args()
    options.work.mkdir(exist_ok=True)
    paths = {sae: options.work / (sae.replace("/", "-") + ".json") for sae in SAES}
    missing = [sae for sae in options.sae if not paths[sae].exists()]
    if options.processes > 1:
        measured_apart(missing, options)
    else:
        library = Library(dtype="float32", device="cpu")
        for sae in missing:
            figures = measured(library, sae, *options.features)
            paths[sae].write_text(json.dumps(figures, ensure_ascii=False, indent=1), encoding="utf-8")
    found = {sae: json.loads(path.read_text(encoding="utf-8")) for sae, path in paths.items() if path.exists()}
    options.page.write_text(page(found), encoding="utf-8")
    print(f"wrote {options.page} with {len(found)} of {len(SAES)} SAEs")


def measured_apart(saes: list[str], options: argparse.Namespace) -> None:
    """Each SAE in a process of its own, some at a time, each on its share of the processor's cores."""
    threads = str(max(1, (os.cpu_count() or 1) // options.processes))

    def run(sae: str) -> None:
        command = [sys.executable, "-m", "scripts.study", "--sae", sae, "--work", options.work.resolve(),
                   "--page", options.page.resolve(), "--features", *map(str, options.features)]
        subprocess.run(command, check=True, cwd=REPOSITORY, env=os.environ | {"OMP_NUM_THREADS": threads})

    with ThreadPoolExecutor(options.processes) as pool:
        list(pool.map(run, saes))


def measured(library: Library, sae: str, n_choosing: int, n_held_out: int) -> dict:
    """All figures of one SAE."""
    started = time.monotonic()

    def say(text: str) -> None:
        print(f"{time.monotonic() - started:6.0f} s  {sae}  {text}", flush=True)

    recipe = VectorRecipe(sae=sae, feature=0)
    scan_if_missing(library, recipe, always=True)
    target = resolve(library, recipe)
    entry = target.sae.entry
    features = np.random.default_rng(1).permutation(target.sae.d_sae).tolist()
    choosing, held_out = features[:n_choosing], features[n_choosing : n_choosing + n_held_out]

    def tried(chosen: list[int], candidates: Sequence[Candidate]) -> Study:
        trials: list[Trial] = []
        for part in try_features(library, recipe, chosen, candidates=candidates):
            trials += part
            say(f"{len(trials)} trials on {len({trial.feature for trial in trials})} features")
        return Study(trials)

    first = tried(choosing, (*candidates_for(entry, target.subject), RANDOM))
    ranked = [candidate for candidate in first.candidates if candidate != RANDOM]
    suggested = ranked[0]
    best = [next(candidate for candidate in ranked if candidate.weights == weights and candidate.inject_layer < 0)
            for weights in ("vocabulary", "mapped")]
    best += [candidate for candidate in ranked if candidate.inject_layer >= 0][:1]
    default = Candidate(entry.default_weights)
    published = PUBLISHED if entry.kind == "embed" else PUBLISHED[:1]  # in the layers both are at chance
    compared = list(dict.fromkeys([*published, suggested, *best, default, RANDOM]))
    say(f"suggested: {suggested}; compared: {', '.join(map(str, compared))}")
    second = tried(held_out, compared)
    each = first.chosen_each()
    return {
        "suggested": str(suggested),
        "default": str(default),
        "choosing": {"columns": list(Study.columns), "rows": first.rows, "features": len(choosing)},
        "each": {
            "score": mean_with_interval([trial.judged.score for trial in each]),
            "suggested": first.mean(suggested, "score"),
            "published": first.mean(PUBLISHED[0], "score"),
        },
        "components": {weights: component_effect(first, weights)
                       for weights in ("encoder", "decoder", "vocabulary", "mapped")},
        "held_out": [
            {"setting": str(candidate), "features": second.n_features(candidate)}
            | {measure: second.mean(candidate, measure) for measure in STUDY_COLUMNS}
            for candidate in compared
        ],
        "gain": {measure: second.difference(suggested, PUBLISHED[0], measure) for measure in STUDY_COLUMNS},
        "agreement": agreement(target, held_out),
        "checked": {
            str(candidate): trees_judged(target, candidate, held_out, say)
            for candidate in dict.fromkeys([PUBLISHED[0], default, suggested])
        },
        "examples": [example(library, sae, feature, say) for feature in held_out[:EXAMPLES]],
        "seconds": time.monotonic() - started,
    }


def component_effect(study: Study, weights: str) -> tuple[float, float, float]:
    """How much the first component, at a fifth, adds to the score: over all scales."""
    pairs = [(candidate, Candidate(weights, candidate.relative_scale)) for candidate in study.candidates
             if candidate.weights == weights and candidate.pca]
    values = [study.difference(with_it, without, "score")[0] for with_it, without in pairs]
    return mean_with_interval(values)


def agreement(target: Resolved, features: list[int]) -> dict:
    """Of the encoder with the decoder."""
    cosines, shared = [], []
    for feature in features:
        weights = target.sae.feature(feature)
        cosines.append(float(torch.cosine_similarity(weights.encoder, weights.decoder, dim=0)))
        lists = [
            {row[2] for row in token_table(target.library, replace(target.recipe, feature=feature, weights=kind)).rows}
            for kind in ("encoder", "decoder")
        ]
        shared.append(len(lists[0] & lists[1]))
    return {"cosine": mean_with_interval(cosines), "shared": mean_with_interval(shared)}


def trees_judged(target: Resolved, candidate: Candidate, features: list[int], say: Callable[[str], None]) -> dict:
    """The evidence of the definition trees that a setting gives, as ``check_tree`` judges them, for many at once."""
    library, sae, subject = target.library, target.sae, target.subject
    recipe = candidate.of(target.recipe, subject)
    target = target.by(recipe)
    encoder, small = library.encoder(sae.entry), small_recipe(TreeRecipe())
    wanted = interventions(target, candidate.growth(small))
    place = Place(sae.entry.hook, subject.bos_id)
    given: dict[str, Any] = {"model": subject.name, "folder": subject.folder, "place": place}

    def answers(vs: torch.Tensor, wanted: Interventions | None = None) -> list[Asked]:
        growth = growth_task(subject, vs, small, interventions=wanted)
        task = AskTask(**given, growth=growth, n_definitions=DEFINITIONS_ASKED)
        return [answer for part in library.do(task) for answer in part]

    def held_against(
        first: torch.Tensor, others: torch.Tensor, tree: Tree, wanted: Interventions | None = None
    ) -> Checked:
        growth = growth_task(subject, first, small, interventions=wanted)
        task = CheckTask(**given, growth=growth, tree=tree, controls=others.numpy(), texts=[])
        checked, = library.do(task)
        return checked

    def first_entropies(vs: torch.Tensor) -> list[float]:
        if wanted is None:
            return held_against(vs[0], vs[1:], NO_TREE).entropies.tolist()
        # Of an injected vector the others that it is held against stand among the embeddings: so each for itself.
        return [float(held_against(v, subject.space.centroid[None], NO_TREE, wanted).entropies[0]) for v in vs]

    controls = control_sources(target)
    control_definitions = read_judged(
        encoder, [source.index for source, _ in controls], answers(torch.stack([vector.v for _, vector in controls])),
        subject.token_texts,
    )
    found: list[dict[str, float]] = []
    verdicts: Counter[str] = Counter()
    entropy_centroid = 0.0
    for first in range(0, len(features), AT_ONCE):
        sources = feature_sources(target, sae, features[first : first + AT_ONCE], scan=needs_scan(recipe.kind))
        vectors = vectors_of(sources, subject, recipe)
        vs = torch.stack([vector.v if wanted is None else vector.direction for _, vector in vectors])
        asked = answers(vs, wanted)
        entropies = first_entropies(vs)
        # All trees in one: what they share is run once. The controls are the same ghosts for all.
        all_nodes, places = joined([answer.tree for answer in asked])
        randoms = random_ghosts(subject, vectors[0][1].distance_from_centroid, RANDOM_GHOSTS)
        others = held_against(subject.space.centroid, randoms, all_nodes)
        entropy_centroid = float(others.entropies[0])
        for (source, _), answer, entropy, nodes in zip(vectors, asked, entropies, places, strict=True):
            own = read_judged(encoder, [source.index], [answer], subject.token_texts)
            if not own:
                verdicts["unknown"] += 1
                continue
            made_from = source.used_in_texts(recipe, subject)
            scores = scores_of(source.index, own, control_definitions, made_from)
            assert scores, "there are definitions of other features to compare with"
            fires_at_all = float(np.mean([text.fires[:, source.index].max() > 0 for text in own]))
            verdicts[tree_verdict(scores, fires_at_all, int(made_from.sum()))] += 1
            tree = answer.tree.spelled(subject.token_texts)
            tree = replace(tree, lifts=lifts_of(np.log(tree.cumulative_prob), others.log_probs[:, nodes]))
            lifts = mean_lifts(tree, [definition.node for definition in definitions(tree, DEFINITIONS_JUDGED)])
            found.append({"entropy": entropy, "hit_rate": scores.hit_rate, "auroc": scores.auroc,
                          "lift_centroid": lifts[0], "lift_random": lifts[1]})
        say(f"judged {len(found)} trees by {candidate}")
    names = ("entropy", "lift_centroid", "lift_random", "hit_rate", "auroc")
    means = {name: mean_with_interval([one[name] for one in found]) for name in names}
    return {"verdicts": dict(verdicts), "trees": sum(verdicts.values()), "entropy_centroid": entropy_centroid} | means


def joined(trees: list[Tree]) -> tuple[Tree, list[np.ndarray]]:
    """One tree that holds the paths of all (its probabilities mean nothing), and where each one's nodes are in it."""
    index: dict[tuple[int, int], int] = {}  # by parent and token
    places = []
    for tree in trees:
        place = np.empty(len(tree) + 1, dtype=np.int64)
        place[ROOT] = ROOT
        for node, (parent, token_id) in enumerate(zip(tree.parent, tree.token_id.tolist(), strict=True)):
            place[node] = index.setdefault((int(place[parent]), token_id), len(index))
        places.append(place[:-1])
    n = len(index)
    parent, token_id = np.array(list(index), dtype=np.int64).reshape(n, 2).T
    empty = np.zeros(n)
    return Tree(parent, token_id, ("",) * n, empty, empty, empty.astype(bool)), places


def example(library: Library, sae: str, feature: int, say: Callable[[str], None]) -> dict:
    """What a person sees who opens a feature with the default settings."""
    recipe = VectorRecipe(sae=sae, feature=feature)
    contexts = [
        visible(context.before[-40:] + "**" + context.token.strip() + "**" + context.after[:20])
        for context in strongest_contexts(library.find(sae), feature)[:3]
    ]
    try:
        table = token_table(library, recipe, ListRecipe(top=8), evidence=True)
        tree = check_tree(library, definition_tree(library, recipe, EXAMPLE_TREE))
    except Exception as error:
        return {"feature": feature, "contexts": contexts, "problem": str(error)}
    assert table.evidence and tree.evidence
    say(f"example {feature}")
    return {
        "feature": feature,
        "contexts": contexts,
        "tokens": [visible(row[1].strip() or row[1]) for row in table.rows],
        "list": table.evidence.verdict,
        "definitions": [visible(found.text) for found in tree.definitions(5)],
        "lifted": [visible(found.text) for listed in tree.most_lifted(3) for found in listed][:3],
        "tree": tree.evidence["verdict"],
    }


if __name__ == "__main__":
    main()
