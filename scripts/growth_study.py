"""How top_k and cutoff change what the demo's trees say, and what they cost. Writes docs/growth.md.

    python -m scripts.growth_study [--features N] [--sae NAME ...]

Takes about a quarter of an hour on a machine that does nothing else; OMP_NUM_THREADS tells how many threads it uses.
"""

import argparse
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from multitool.evidence.statistics import mean_with_interval
from multitool.evidence.verdicts import strongest
from multitool.jobs.features import feature_source, resolve
from multitool.jobs.judging import activations_on
from multitool.jobs.local import definition_tree, scan_if_missing
from multitool.model.questions import text_of
from multitool.model.tasks import Place, ReadTask
from multitool.page.opening import usual_growth
from multitool.recipes.recipe import TreeRecipe, VectorRecipe
from multitool.store.library import Library
from multitool.text import percent, visible
from multitool.trees.document import DefinitionTree
from multitool.trees.tree import Definition

REPOSITORY = Path(__file__).parents[1]
SAES = ("demo/hook_embed", "demo/blocks.6.hook_resid_post")
PUBLISHED = TreeRecipe()
SETTINGS = (
    PUBLISHED, TreeRecipe(cutoff=5e-4), TreeRecipe(top_k=20, cutoff=1e-3), TreeRecipe(top_k=20, cutoff=2e-4),
    TreeRecipe(top_k=0, cutoff=1e-3), TreeRecipe(top_k=0, cutoff=5e-4), TreeRecipe(top_k=0, cutoff=2e-4),
)
FIRST, LISTED = 10, 20  # definitions that are read, features whose definitions are listed

HEAD = """# `top_k` and `cutoff`: what a tree says, and what it costs

Written by `python -m scripts.growth_study` from what it measures; only the last section is no figure. Model and SAEs
are the demo's, float32, on {threads} of a processor; {features} features of each SAE, chosen at random, by the weights
that suit the SAE. Each tree is grown with at most 2,000 nodes.

The published method looks at the 5 most probable next tokens of each path (`top_k` 5) down to a cutoff of 5e-5. With
`top_k` 0 all next tokens that reach the cutoff are followed. What answers of the model become is told in three shares:
in the tree, cut by `top_k` (a next token that reaches the cutoff is not among the 5), and below the cutoff.

- *nodes*, *seconds*: the median tree, and in brackets the largest.
- *in the tree*, *cut by top_k*, *below the cutoff*: means over the features.
- *definitions*: how many come to their end in the tree, on average.
- *firing*: of the first ten definitions that the page lists, read by the model as plain text, how many fire the
  feature, on average, with the 95 % interval over features. Tokens that the direction was made from do not count.
"""

CHOICE = """## The choice

The page begins with all next tokens above 5e-4 on the demo. Such a tree holds about ten times as much of the
probability as the published settings do, and takes about as long. Its first definitions are shorter: single words
(“rain”, “despite”) beside phrases. On the embedding they fire the feature about as often as the published ones; the
intervals overlap widely. On layer 6 they do so less often, but there the single words that name a feature best do not
count: its direction was made from them. Smaller cutoffs add definitions, and take longer in proportion.

`top_k` 5 and 5e-5, as published, stay the defaults of the API, the command line and Python, and of the page for every
other model.
"""


@dataclass(frozen=True)
class Grown:
    """A tree of a feature, and what came of reading its first definitions."""

    document: DefinitionTree
    first: list[Definition]
    firing: int
    seconds: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--features", type=int, default=24, help="of each SAE (default: %(default)s)")
    parser.add_argument("--sae", nargs="+", default=SAES)
    parser.add_argument("--out", type=Path, default=REPOSITORY / "docs" / "growth.md")
    options = parser.parse_args()
    library = Library(dtype="float32", device="cpu")
    parts = []
    for sae in options.sae:
        grown = measured(library, sae, options.features)
        parts.append(section(sae, grown, usual_growth(library.find(sae).model)))
    threads = torch.get_num_threads()
    told = "one thread" if threads == 1 else f"{threads} threads"
    head = HEAD.format(threads=told, features=options.features)
    options.out.write_text("\n".join([head, *parts, CHOICE]), encoding="utf-8")


def measured(library: Library, sae: str, n_features: int) -> dict[TreeRecipe, dict[int, Grown]]:
    """The trees of each setting, by feature."""
    scan_if_missing(library, VectorRecipe(sae=sae, feature=0))
    d_sae = library.sae(library.find(sae)).d_sae
    features = np.random.default_rng(0).permutation(d_sae)[:n_features].tolist()
    definition_tree(library, VectorRecipe(sae=sae, feature=features[0]), TreeRecipe(cutoff=1e-2))  # warms up
    found: dict[TreeRecipe, dict[int, Grown]] = {recipe: {} for recipe in SETTINGS}
    for done, feature in enumerate(features, 1):
        for recipe in SETTINGS:
            found[recipe][feature] = grown(library, VectorRecipe(sae=sae, feature=feature), recipe)
        print(f"{sae}: {done} of {n_features} features", flush=True)
    return found


def grown(library: Library, vector: VectorRecipe, recipe: TreeRecipe) -> Grown:
    started = time.perf_counter()
    document = definition_tree(library, vector, recipe)
    seconds = time.perf_counter() - started
    complete, unfinished = document.most_probable(FIRST)
    first = [*complete, *unfinished][:FIRST]
    target = resolve(library, vector)
    entry, subject = target.sae.entry, target.subject
    texts = [text_of(document.tree, definition.node) for definition in first]
    task = ReadTask(model=subject.name, folder=subject.folder, place=Place(entry.hook, subject.bos_id),
                    texts=[text for text in texts if text])
    residuals, = library.do(task)
    made_from = feature_source(target).used_in_texts(target.recipe, subject)
    fires = activations_on(library.encoder(entry), residuals)
    firing = sum(
        strongest(fired, text, made_from)[target.index] > 0 for fired, text in zip(fires, task.texts, strict=True)
    )
    return Grown(document, first, int(firing), seconds)


def section(sae: str, found: dict[TreeRecipe, dict[int, Grown]], usual: TreeRecipe) -> str:
    """What was found for an SAE, as Markdown."""
    rows = [row(recipe, list(trees.values()), usual) for recipe, trees in found.items()]
    table = [
        "| top_k, cutoff | nodes | seconds | in the tree | cut by top_k | below the cutoff | definitions | firing |",
        "|---|---|---|---|---|---|---|---|", *rows,
    ]
    told = [f"The first ten definitions of {LISTED} of these features, as published and with the page's setting on the "
            "demo (“…”: unfinished; in bold the number of those that fire the feature):", ""]
    for feature in list(found[PUBLISHED])[:LISTED]:
        told += [f"- {feature}", *(f"  - {named(recipe)}: {definitions(found[recipe][feature])}"
                                   for recipe in (PUBLISHED, usual))]
    return "\n".join([f"## `{sae}`", "", *table, "", *told, ""])


def row(recipe: TreeRecipe, trees: list[Grown], usual: TreeRecipe) -> str:
    nodes = [len(tree.document.tree) for tree in trees]
    seconds = [tree.seconds for tree in trees]
    shares = [tree.document.shares for tree in trees]
    complete = [sum(found.complete for found in tree.document.definitions()) for tree in trees]
    marks = {PUBLISHED: " *(as published)*", usual: " *(the page's on the demo)*"}
    firing, low, high = mean_with_interval([tree.firing for tree in trees])
    cells = [
        named(recipe) + marks.get(recipe, ""),
        f"{statistics.median(nodes):,.0f} ({max(nodes):,})",
        f"{statistics.median(seconds):.1f} ({max(seconds):.1f})",
        percent(statistics.mean(share.in_tree for share in shares)),
        percent(statistics.mean(share.beyond or 0.0 for share in shares)),
        percent(statistics.mean(share.below or 0.0 for share in shares)),
        f"{statistics.mean(complete):.0f}",
        f"{firing:.2f} [{low:.2f}, {high:.2f}]",
    ]
    return f"| {' | '.join(cells)} |"


def named(recipe: TreeRecipe) -> str:
    return f"{recipe.top_k or 'all'}, {recipe.cutoff:g}"


def definitions(tree: Grown) -> str:
    told = [visible(found.text).replace("|", "\\|").replace("`", "'") + " …" * (not found.complete)
            for found in tree.first]
    return f"**{tree.firing}** " + " · ".join(told)


if __name__ == "__main__":
    main()
