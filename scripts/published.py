"""The published outputs of Gemma-2B beside ours: four definition trees and six token lists, with a verdict.

    python scripts/published.py [--device cuda] [--dtype float16] [--cases tree-0-0 list …] [--all] [--json FILE]

Needs Gemma-2B (5 GB; accept its licence on the hub and log in with `hf auth login`) and four SAEs of it (0.3 GB each),
all fetched once. In float16 it takes a GPU with 8 GB; in float32 one with 16 GB, or a processor with 16 GB of memory.

What was published: scripts/published_outputs.json. What agreement is, and why: docs/published.md. The exit status is 0
if all cases agree, 1 if not, and 2 for what you can put right.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import textwrap
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).parents[1]))  # so that it runs as a file too

import multitool as mt
from multitool.process import interrupted, prepare_streams
from multitool.text import visible
from scripts.published_rules import (
    FIRST,
    SURELY_THERE,
    ComparedList,
    ComparedNode,
    ComparedTree,
    Node,
    compared_tree,
    logged,
    turned,
)

if TYPE_CHECKING:
    from multitool.jobs.token_table import TokenTable
    from multitool.recipes.recipe import VectorRecipe
    from multitool.store.library import Library

OUTPUTS = Path(__file__).with_name("published_outputs.json")
SCHEMA = "sae-multitool/published-comparison/1"
RELEASE = "gemma-2b-res-jb"
PRECISIONS = ("float32", "float16")  # bfloat16 rounds these probabilities by up to 6 %, more than may differ
MOST_NODES = 20_000
LOOKED_AT = 1000  # tokens of our lists, to tell where those stand that are not among the first
GEMMA_2B = (256_000, 2048)  # the shape of its embeddings
PLACEHOLDER = "OSS"
_WIDTH = 116  # characters of a line
_LONGEST = 70  # of a text in it
_MOST_APART = 40  # tokens that are told


@dataclass(frozen=True)
class Case:
    """A published output with its settings."""

    name: str
    kind: str  # tree or list
    layer: int
    vector: dict  # fields of a VectorRecipe
    recipe: dict  # fields of a TreeRecipe or a ListRecipe
    nodes: tuple[Node, ...] = ()  # of a tree
    whole: bool = False  # whether these are all that the tree had
    tokens: tuple[str, ...] = ()  # of a list

    @property
    def title(self) -> str:
        """The case in a line."""
        vector, recipe = self.vector, self.recipe
        told = [f"layer {self.layer}, feature {vector['feature']}, {vector['weights']}, scale {vector['scale']:g}"]
        told += [f"component {weight:g}" for weight in vector["pca"]]
        told += [f"cutoff {recipe['cutoff']:.3g}" if self.kind == "tree" else f"exponent {recipe['exponent']:g}"]
        return f"{self.name}: {', '.join(told)}"


@dataclass(frozen=True)
class Outcome:
    """What came of a case."""

    case: Case
    compared: ComparedTree | ComparedList
    ours: dict = field(repr=False)  # our tree or list as its JSON has it, with its whole recipe
    seconds: float

    def to_dict(self) -> dict:
        """For JSON."""
        compared = self.compared
        found = {"name": self.case.name, "agrees": compared.agrees, "reasons": compared.reasons,
                 "seconds": round(self.seconds, 1)}
        if isinstance(compared, ComparedTree):
            nodes = [asdict(node.published) | {"ours": node.ours, "tokens": node.tokens, "factor": node.factor}
                     for node in compared.nodes]
            return found | {"nodes": nodes, "beyond": [asdict(node) for node in compared.beyond], "ours": self.ours}
        signs = {"sign": compared.sign, "shared_when_turned": compared.shared_when_turned}
        return found | {"shared": compared.shared, **signs, "ranks": compared.ranks, "ours": self.ours}


def main(arguments: Sequence[str] | None = None) -> int:
    prepare_streams()
    options = _parser().parse_args(arguments)
    outcomes: list[Outcome] = []
    try:
        if options.json and not options.json.resolve().parent.is_dir():
            raise mt.UserError(f"--json is {options.json}, and there is no such folder. Make it, or name another file.")
        cases = chosen(published_cases(), options.cases)
        library = mt.Library(device=options.device, dtype=options.dtype or usual_precision(options.device), max_saes=1)
        about = setting(library, options.release, options.model, cases[0])
        print("\n".join(introduction(about)), flush=True)
        try:
            for outcome in compare(library, options.release, options.model, cases):
                outcomes.append(outcome)
                print("\n".join(["", outcome.case.title, *told(outcome.compared, everything=options.all)]), flush=True)
        finally:
            if options.json and outcomes:
                write(options.json, about, outcomes)
    except mt.UserError as error:
        print(f"published: {visible(str(error))}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return interrupted()
    print("\n".join(conclusion(about, outcomes, options.json)))
    return 0 if all(outcome.compared.agrees for outcome in outcomes) else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n")[0], epilog=__doc__.partition("\n\n")[2].partition("\n\n")[2],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--device", choices=("auto", "cpu", "cuda"), default="auto")
    add("--dtype", choices=PRECISIONS, help="default: float16 on a GPU, as published; float32 on a processor")
    add("--cases", nargs="+", metavar="NAME", help="only these: names as they are printed, or how they begin")
    add("--all", action="store_true", help="print every node and token, not only what differs")
    add("--json", type=Path, metavar="FILE", help="write all figures, with versions, card and precision: to be sent")
    add("--model", help="another model than the SAEs name: a hub id or a folder")
    add("--release", default=RELEASE, help="of the SAEs (default: %(default)s)")
    return parser


def published_cases() -> list[Case]:
    """All of them, so that each SAE is loaded once, and the lists of a layer, which need no running model, first."""
    cases = [
        Case(**found | {"nodes": tuple(Node(*node) for node in found.get("nodes", ())),
                        "tokens": tuple(found.get("tokens", ()))})
        for found in json.loads(OUTPUTS.read_text(encoding="utf-8"))["cases"]
    ]
    return sorted(cases, key=lambda case: (case.layer, case.kind, case.name))


def chosen(cases: Sequence[Case], names: Sequence[str] | None) -> list[Case]:
    """The cases whose names begin with one of these; all if there are none. Raises UserError for a name of no case."""
    for name in names or ():
        if not any(case.name.startswith(name) for case in cases):
            valid = ", ".join(case.name for case in cases)
            raise mt.UserError(f"There is no case {name!r}. There are {valid}; tree and list name all of a kind.")
    return [case for case in cases if not names or case.name.startswith(tuple(names))]


def usual_precision(device: str) -> str:
    """The published one, but on a processor, which computes in it slowly."""
    from multitool.store.devices import gpu_here  # imports torch

    card = None if device == "cpu" else gpu_here()
    return "float16" if card and card.usable else "float32"


def setting(library: "Library", release: str, model: str | None, case: Case) -> dict:
    """What it runs with, on what: all that figures depend on. Raises UserError where model or SAE cannot be had."""
    from multitool.model.ghost_prompt import ghost_prompt
    from multitool.store.devices import gpu_here

    sae, subject = library.load(library.find(_sae(release, case)), model)
    recipe = mt.TreeRecipe()
    place = ghost_prompt(subject, recipe.prompt, recipe.max_depth).placeholder_id
    shape = (subject.space.n_tokens, subject.space.d_model)
    card = gpu_here() if library.device == "cuda" else None
    packages = ("torch", "transformers", "sae-lens", "numpy")
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {"multitool": mt.__version__, "python": platform.python_version()}
        | {name: version(name) for name in packages},
        "machine": {"device": library.device, "card": card and card.name, "processor": platform.processor(),
                    "cores": os.cpu_count(), "system": platform.platform()},
        "dtype": library.precision(subject.name),
        "model": subject.name,
        "release": release,
        "embeddings": {"shape": shape, "dtype": str(subject.space.E.dtype).removeprefix("torch."),
                       "mean_distance": subject.space.mean_distance},
        "placeholder": subject.token_texts[place],
        "is_gemma_2b": shape == GEMMA_2B,
    }


def compare(library: "Library", release: str, model: str | None, cases: Sequence[Case]) -> Iterator[Outcome]:
    """Each case beside ours. Raises UserError where one cannot be done."""
    for case in cases:
        began = time.perf_counter()
        vector = mt.VectorRecipe(sae=_sae(release, case), **case.vector)
        if case.kind == "tree":
            tree = mt.definition_tree(library, vector, mt.TreeRecipe(max_nodes=MOST_NODES, **case.recipe), model=model)
            compared: ComparedTree | ComparedList = compared_tree(
                case.nodes, logged(tree.tree), cutoff=case.recipe["cutoff"], whole=case.whole
            )
            ours = tree.to_dict()
        else:
            compared, ours = _compared_list(library, vector, case, model)
        yield Outcome(case, compared, ours, time.perf_counter() - began)


def _compared_list(
    library: "Library", vector: "VectorRecipe", case: Case, model: str | None
) -> tuple[ComparedList, dict]:
    recipe = mt.ListRecipe(**case.recipe | {"top": LOOKED_AT})
    table = mt.token_table(library, vector, recipe, model=model)
    when_turned = None
    if case.vector["pca"]:
        weight, = case.vector["pca"]
        scale, other_weight = turned(case.vector["scale"], weight)
        other = mt.VectorRecipe(sae=vector.sae, **case.vector | {"scale": scale, "pca": [other_weight]})
        when_turned = _texts(mt.token_table(library, other, recipe, model=model))
    return ComparedList(case.tokens, _texts(table), when_turned), table.to_dict()


def _texts(table: "TokenTable") -> tuple[str, ...]:
    return tuple(token for rank, token, *numbers in table.rows)


def _sae(release: str, case: Case) -> str:
    return f"{release}/blocks.{case.layer}.hook_resid_post"


def introduction(about: dict) -> list[str]:
    """What is compared with what, in lines."""
    where = about["machine"]["card"] or about["machine"]["device"]
    return [
        f"Published: Gemma-2B, float16, {PLACEHOLDER} in the ghost's place.",
        f"Ours:      {about['model']}, {about['dtype']} on {where}, {visible(about['placeholder'])} in the ghost's "
        f"place, {about['release']}, version {about['versions']['multitool']}.",
        *([] if about["is_gemma_2b"] else [_not_gemma(about)]),
    ]


def _not_gemma(about: dict) -> str:
    (tokens, width), (all_tokens, whole_width) = about["embeddings"]["shape"], GEMMA_2B
    return (
        f"These are not Gemma-2B's weights: embeddings of {tokens:,} tokens, {width:,} wide, where it has "
        f"{all_tokens:,} tokens, {whole_width:,} wide."
    )


def told(compared: ComparedTree | ComparedList, *, everything: bool = False) -> list[str]:
    """A case in lines: what differs, or everything, and the verdict."""
    lines = _tree_told(compared, everything) if isinstance(compared, ComparedTree) else _list_told(compared, everything)
    verdict = "agrees" if compared.agrees else f"DOES NOT AGREE: {'; '.join(compared.reasons)}"
    return [f"  {line}" for line in (*lines, verdict)]


def _tree_told(compared: ComparedTree, everything: bool) -> list[str]:
    nodes = [node for node in compared.nodes if everything or node in compared.missing or node.is_off]
    rows = [f"{'published':>10}  {'ours':>10}  {'per token':>9}  text"] if nodes or compared.beyond else []
    rows += [_node_told(node, compared) for node in nodes]
    rows += [f"{'–':>10}  {node.probability:10.8f}  {'':>9}  {_short(node.text)}" for node in compared.beyond]
    there = [abs(factor - 1) for factor in compared.factors]
    found = f"{len(there)} of {len(compared.nodes)} published nodes are there"
    if there:
        found += f"; a token's probability differs by {statistics.median(there):.1%} (median), {max(there):.1%} at most"
    return [*rows, found]


def _node_told(node: ComparedNode, compared: ComparedTree) -> str:
    near = node.published.probability < SURELY_THERE * compared.cutoff
    ours = f"{'missing':>10}" if node.ours is None else f"{node.ours:10.8f}"
    factor = f"{'near cut' if near else '':>9}" if node.factor is None else f"{node.factor - 1:+9.1%}"
    return f"{node.published.probability:10.8f}  {ours}  {factor}  {_short(node.published.text)}"


def _list_told(compared: ComparedList, everything: bool) -> list[str]:
    n = len(compared.published)
    lines = []
    if everything:
        ours = [*map(_token, compared.ours[:n]), *[""] * n]
        rows = zip(range(1, n + 1), compared.ranks, map(_token, compared.published), ours, strict=False)
        lines = ["rank  of ours  published | ours"]
        lines += [f"{rank:4}  {_rank(at):>7}  {one} | {own}" for rank, at, one, own in rows]
    elif not compared.first_in_order:
        lines = [f"the first published: {_tokens(compared.published[:FIRST])}",
                 f"our first:           {_tokens(compared.ours[:FIRST])}"]
    apart = [f"{_token(token)} {_rank(at)}" for token, at in zip(compared.published, compared.ranks, strict=True)
             if at is None or at > n]
    if apart and not everything:
        more = f" and {len(apart) - _MOST_APART} more" * (len(apart) > _MOST_APART)
        text = f"published, and not among our first {n} (our rank): {', '.join(apart[:_MOST_APART])}{more}"
        lines += textwrap.wrap(text, _WIDTH, subsequent_indent="  ", break_on_hyphens=False)
    shared = f"{compared.shared} of {n} tokens shared"
    if compared.shared_when_turned is not None:
        shared += f"; with the component's sign turned {compared.shared_when_turned}"
    return [*lines, shared]


def _tokens(tokens: Sequence[str]) -> str:
    return ", ".join(map(_token, tokens))


def _token(token: str) -> str:
    return visible(token, spaces=True)


def _rank(rank: int | None) -> str:
    return f">{LOOKED_AT}" if rank is None else str(rank)


def _short(text: str) -> str:
    text = visible(text)
    return text if len(text) <= _LONGEST else f"…{text[1 - _LONGEST:]}"


def conclusion(about: dict, outcomes: Sequence[Outcome], file: Path | None) -> list[str]:
    """What all cases together say, and what to do with it, in lines."""
    agreeing = sum(outcome.compared.agrees for outcome in outcomes)
    lines = ["", f"{agreeing or 'None'} of {len(outcomes)} published outputs agree{'s' * (agreeing == 1)}."]
    if not about["is_gemma_2b"]:
        return [*lines, f"{_not_gemma(about)} So this says nothing about the published outputs."]
    if about["placeholder"] != PLACEHOLDER:
        lines.append(f"Another token held the ghost's place: {visible(about['placeholder'])}, not {PLACEHOLDER}.")
    if file is None:
        return [*lines, "To tell others, run it again with --json FILE, and send them that file, whatever it says."]
    return [*lines, f"Written to {file}, with versions, card and precision: please send it to those whom you have this "
            "tool from, whatever it says."]


def write(file: Path, about: dict, outcomes: Sequence[Outcome]) -> None:
    """All figures, and our trees and lists as they are. Raises UserError where the file cannot be written."""
    text = json.dumps({"schema": SCHEMA, **about, "cases": [outcome.to_dict() for outcome in outcomes]},
                      ensure_ascii=False, indent=1)
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise mt.UserError(f"{file} cannot be written: {error.strerror}. Name another file.") from error


if __name__ == "__main__":
    sys.exit(main())
