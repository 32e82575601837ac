"""The command line: ``python -m multitool tree|tokens|…``, or ``sae-multitool`` where installed.

Torch and matplotlib take seconds, so what needs them is imported inside a command, after its options have been checked.
"""

import argparse
import errno
import json
import math
import os
import re
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import MISSING, replace
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Literal, get_args, get_origin

from multitool.errors import UserError, shown
from multitool.process import drop, interrupted, interruptible, prepare_streams
from multitool.recipes.atlas import ATLAS_TREE, PER_PART, AtlasRecipe, AtlasSearch
from multitool.recipes.captions import distance_told, fires_told, interventions_told, is_injected, source_told
from multitool.recipes.components import COMPONENTS_SHOWN, TOKENS_PER_END
from multitool.recipes.fields import Declared, RecipeField, recipe_fields, whole
from multitool.recipes.finding import LikenessSearch, TextSearch, TokenSearch
from multitool.recipes.recipe import Device, Dtype, ListRecipe, TreeRecipe, VectorRecipe
from multitool.store.demo_models import DEMO_MODELS, GEMMA_MODEL, same_model
from multitool.store.entries import SaeEntry, hub_id
from multitool.store.folders import with_hook
from multitool.store.registry import saes
from multitool.store.terms import GEMMA_TERMS, accept_gemma_terms
from multitool.text import percent, visible
from multitool.trees.document import UNFINISHED, DefinitionTree, feature_maximum, judged_definitions
from multitool.trees.phrases import END, outline

if TYPE_CHECKING:
    from multitool.jobs.atlas_parts import AtlasProgress
    from multitool.jobs.find import FoundFeatures
    from multitool.jobs.steps import Job, Result
    from multitool.jobs.study import Study
    from multitool.jobs.suggest import Suggestion
    from multitool.store.kept_rows import RowsTask
    from multitool.store.library import Library

_INSTALLED = "sae-multitool"  # the command that pip makes
_DEFINITIONS_PRINTED = 15
_NODES_PRINTED = 60
_FIRING_PRINTED = 5  # features at a token
# The options of the command find, by that which they go with.
_SEARCH_OPTIONS = {
    "text": (), "tokens": ("weights", "measure"), "like": ("by", "among"),
    "atlas": ("verdict", "max_entropy", "min_cosine"),
}
_LONGEST_ERROR = 600  # characters
_LONGEST_LIST = 10_000_000  # bytes of a file of features' numbers
_WIDEST = 78  # characters of a line of progress, so that it covers the one before
_TOLD_AFTER = 30  # seconds, where what is told does not take the place of what was told before
_IMAGES = (".png", ".svg", ".pdf")
# Of writing to standard output, whose errors name no file.
_OUTPUT = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EBADF, errno.EFBIG}
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def main(arguments: list[str] | None = None) -> int:
    """Run a command; the exit status is 0, or 2 for anything that a user can put right, 1 where standard output fails,
    130 after Ctrl-C.
    """
    prepare_streams()
    try:
        with interruptible():
            _run(sys.argv[1:] if arguments is None else arguments)
    except UserError as error:
        _say(f"{visible(str(error))}\n")
        return 2
    except BrokenPipeError:  # the reader of our output has left, as `head` does
        drop(sys.stdout)
    except KeyboardInterrupt:
        return interrupted()
    except OSError as error:
        if error.errno not in _OUTPUT or error.filename is not None:
            raise
        drop(sys.stdout)
        _say(f"The output cannot be written: {error.strerror}. Send it elsewhere.\n")
        return 1
    return 0


def _run(arguments: list[str]) -> None:
    for argument in arguments:
        if argument.startswith("--") and argument.endswith("=--"):  # argparse would make a list of it
            raise UserError(f"{argument[:200]}: -- is no value. Leave the option out, or give it one.")
    try:
        options = _parser().parse_args(arguments)
        if getattr(options, "hook", None):
            options.sae = with_hook(options.sae, options.hook)
        if getattr(options, "accept_gemma_terms", False):
            accept_gemma_terms()
        options.run(options)
    finally:
        sys.stdout.flush()  # here it can be told that it fails


class _Parser(argparse.ArgumentParser):
    """Errors in one line, like all others."""

    def error(self, message: str):
        if len(message) > _LONGEST_ERROR:  # it tells what was typed
            message = f"{message[:_LONGEST_ERROR // 2]} … {message[-_LONGEST_ERROR // 2:]}"
        command = self.prog if self.prog.startswith(_INSTALLED) else f"python -m {self.prog}"
        raise UserError(f"{message}. See `{command} --help`.")


def _program() -> str:
    """What this was started as."""
    return _INSTALLED if Path(sys.argv[0]).stem == _INSTALLED else "multitool"


def _say(text: str, before: str = "") -> None:
    """Tell something that is no result."""
    try:
        sys.stderr.write(f"{before}{_program()}: {text}")
        sys.stderr.flush()
    except OSError:  # a full disk, or a reader that has left: there is nowhere to tell it
        drop(sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog=_program(), description="What does an SAE feature mean? Asked of the model's own weights.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=_Parser)

    tree = commands.add_parser("tree", help="grow a definition tree")
    _add_vector_options(tree)
    _add_fields(tree, TreeRecipe, several={"prompt": "several trees"})
    add = tree.add_argument
    add("--evidence", action="store_true", help="check the tree: does what it says fire the feature?")
    add("--json", type=Path, metavar="FILE", help="write the tree and its recipe")
    add("--image", type=Path, metavar="FILE", help="write a picture: .png, .svg or .pdf")
    # The defaults are those of pictures.figure, which is imported only where a picture is wanted.
    add("--drawn", type=int, metavar="N", help="with --image: draw the N most probable nodes (default: 80)")
    add("--dpi", type=int, metavar="N", help="with --image FILE.png: pixels per inch, 50 to 600 (default: 150)")
    add("--dark", action="store_true", help="with --image: light on dark")
    tree.set_defaults(run=_tree)

    tokens = commands.add_parser("tokens", help="list the tokens nearest to a feature's vector")
    _add_vector_options(tokens)
    _add_fields(tokens, ListRecipe)
    add = tokens.add_argument
    add("--evidence", action="store_true",
        help="check the list: do its tokens fire the feature? By a lens: does the feature write them?")
    add("--csv", type=Path, metavar="FILE", help="write the list as a table")
    add("--json", type=Path, metavar="FILE", help="write the list and its recipe")
    tokens.set_defaults(run=_tokens)

    finding = commands.add_parser("find", help="find features by a text, by tokens, by another feature, in an atlas")
    _add_sae_options(finding, required=False)
    kinds = (TextSearch, TokenSearch, LikenessSearch, AtlasSearch)
    fields = {field.name: field for kind in kinds for field in recipe_fields(kind)}
    which = finding.add_mutually_exclusive_group(required=True)
    which.add_argument("--text", metavar="TEXT", help="those that fire on a text more than on plain prose")
    which.add_argument("--tokens", metavar="SUM", help=f"those near to {_help(fields['tokens'])}")
    which.add_argument("--like", type=int, metavar="FEATURE", help="those near to this feature, by its number")
    which.add_argument("--atlas", metavar="WORDS", help=f"those of an atlas by {_help(fields['words'])}")
    for goes_with, names in _SEARCH_OPTIONS.items():
        for name in names:
            option = _option(fields[name]) | {"default": None}  # so that one is seen where it does not belong
            finding.add_argument(
                f"--{name.replace('_', '-')}", help=f"with --{goes_with}: {_help(fields[name])}", **option
            )
    finding.add_argument("--in", dest="place", metavar="ATLAS", help="the atlas that is searched, and that tells of "
                         "what is found: a folder, or a dataset repository on the hub (default: what the environment "
                         "variable SAE_MULTITOOL_ATLAS names, or the demo's)")
    add = finding.add_argument
    add("--top", type=int, default=TextSearch.top, metavar="N", help=_help(fields["top"]))
    add("--csv", type=Path, metavar="FILE", help="write them as a table")
    add("--json", type=Path, metavar="FILE", help="write them, and what was asked")
    finding.set_defaults(run=_find)

    trying = commands.add_parser("suggest", help="try many settings on features and judge each by the evidence")
    _add_sae_options(trying)
    which = trying.add_mutually_exclusive_group(required=True)
    which.add_argument("--feature", type=int, metavar="N", help="one feature's number, from 0")
    which.add_argument("--features", type=_span, metavar="FIRST:LAST", help="many, the last one not included")
    _add_fields(trying, TreeRecipe, ("prompt",))
    add = trying.add_argument
    add("--json", type=Path, metavar="FILE", help="write what was tried and what came of it")
    trying.set_defaults(run=_suggest)

    describing = commands.add_parser("atlas", help="describe many features, or all, in a table on disk")
    _add_sae_options(describing)
    add = describing.add_argument
    add("--features", required=True, type=_features, metavar="all|FIRST:LAST|FILE",
        help="all; many, the last one not included; or a file with a feature's number on each line")
    add("--out", required=True, metavar="FOLDER",
        help="where the table is written; what is there already is not made again")
    add("--per-part", type=int, default=PER_PART, metavar="N",
        help=f"describe so many features together, and write them to one file (default: {PER_PART})")
    add("--ray", nargs="?", const=True, default=False, metavar="ADDRESS",
        help="let several workers by Ray describe: on the cluster at HOST:PORT, or without an address on this machine")
    add("--workers", type=int, metavar="N",
        help="with --ray: how many (default: one for each GPU, or for each machine where there is none)")
    add("--push", metavar="OWNER/NAME", help="then put it into a dataset repository on the hub, made if there is none")
    add("--public", action="store_true",
        help="with --push: a repository that is made is seen by all, and not by its owner only")
    add("--licence", metavar="NAME", help="with --push: under which you share it, e.g. cc-by-4.0")
    own = [field.name for field in recipe_fields(VectorRecipe)][2:]  # but SAE and feature
    _add_fields(describing, VectorRecipe, own, several={"weights": "several rows of each feature"})
    _add_fields(describing, TreeRecipe, defaults=ATLAS_TREE)
    _add_fields(describing, AtlasRecipe)
    describing.set_defaults(run=_atlas, feature=0)  # recipes name one; all that differ in it are made

    showing = commands.add_parser("components", help="what the principal components of a model's embeddings are")
    add = showing.add_argument
    add("--sae", metavar="NAME", help="an SAE of the model, named as for trees")
    add("--model", metavar="PATH_OR_HF_ID", help="the model itself")
    _add_terms_option(showing)
    add("--count", type=int, default=COMPONENTS_SHOWN, metavar="N",
        help=f"how many, the first ones (default: {COMPONENTS_SHOWN})")
    add("--top", type=int, default=TOKENS_PER_END, metavar="N", help=f"tokens at each end (default: {TOKENS_PER_END})")
    add("--json", type=Path, metavar="FILE", help="write them")
    showing.set_defaults(run=_components, dtype=None, device="cpu")  # only the embeddings are read

    listing = commands.add_parser("saes", help="what can be loaded, and on which model")
    listing.add_argument("--search", default="", metavar="TEXT", help="only names that contain these words")
    listing.set_defaults(run=_saes)
    return parser


def _add_sae_options(parser: argparse.ArgumentParser, *, required: bool = True) -> None:
    add = parser.add_argument
    add("--sae", required=required, metavar="NAME",
        help="RELEASE/SAE_ID, demo/…, an SAE's folder, or hf://OWNER/REPO/PATH")
    add("--hook", metavar="NAME", help="where the SAE of a folder reads, if its files do not tell: "
        "blocks.N.hook_resid_post, model.layers.N, hook_embed, …")
    add("--model", metavar="PATH_OR_HF_ID", help="another model than the SAE names; "
        f"{GEMMA_MODEL} for SAEs of {DEMO_MODELS[GEMMA_MODEL].same_as}: the same in 4 bits, without the hub")
    _add_terms_option(parser)
    add("--dtype", choices=get_args(Dtype),
        help="precision of the model (default: float32 on a CPU, bfloat16 on a GPU that has it, else what suits the "
             "model)")
    add("--device", choices=get_args(Device), default="auto", help="where the model runs (default: auto)")


def _add_terms_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--accept-gemma-terms", action="store_true", help="accept the Gemma Terms of Use "
        f"({GEMMA_TERMS.page}), without which {GEMMA_MODEL} is not fetched; once is enough")


def _add_vector_options(parser: argparse.ArgumentParser) -> None:
    _add_sae_options(parser)
    _add_fields(parser, VectorRecipe, [field.name for field in recipe_fields(VectorRecipe)][1:])


def _add_fields(
    parser: argparse.ArgumentParser, kind: type, names: Sequence[str] | None = None, *,
    several: Mapping[str, str] | None = None, defaults: Declared | None = None,
) -> None:
    """Options for the fields of a kind of recipe: those of ``names``, or all.

    Args:
        several: fields that may be given more than once, and what that gives; such an option is a list, or None if it
            is not given.
        defaults: a recipe with other defaults than those of its kind.
    """
    several = several or {}
    for field in recipe_fields(kind):
        if names is None or field.name in names:
            if defaults is not None:
                field = replace(field, default=getattr(defaults, field.name))
            off = field.default is True  # such a field is an option to switch it off
            name = ("no-" if off else "") + field.name.replace("_", "-")
            help_ = "do not " + field.help if off else _help(field)
            option = _option(field)
            if field.name in several:
                help_ += f"; give it several times for {several[field.name]}"
                option |= {"action": "append", "default": None}
            parser.add_argument(f"--{name}", dest=field.name, help=help_, **option)


def _option(field: RecipeField) -> dict:
    """How argparse reads a field, by its type."""
    given = {"required": True} if field.default is MISSING else {"default": field.default}
    if field.type is bool:
        return {"action": "store_false" if field.default else "store_true"}
    if get_origin(field.type) is Literal:
        return given | {"choices": get_args(field.type)}
    if isinstance(field.type, UnionType):  # of a number and a text: the recipe tells them apart
        return given | {"type": str, "metavar": "N"}
    if get_origin(field.type) is tuple:
        of = get_args(field.type)[0]
        return given | {"type": of, "nargs": "+", "metavar": "NAME" if of is str else "W"}
    return given | {"type": field.type, "metavar": {str: "TEXT", int: "N", float: "X"}[field.type]}


def _help(field: RecipeField) -> str:
    told = field.help.replace("%", "%%")
    return told if field.default in (MISSING, None, (), False, "") else f"{told} (default: {field.default})"


def _tree(options) -> None:
    vector = _recipe(VectorRecipe, options)
    recipes = [_recipe(TreeRecipe, options, prompt=prompt) for prompt in options.prompt or [TreeRecipe.prompt]]
    if options.image and options.image.suffix.lower() not in _IMAGES:
        raise UserError(f"--image {_told(options.image)} ends in none of {', '.join(_IMAGES)}, which tell the format.")
    if options.evidence:
        vector.single_feature()
    picture = _picture_options(options)
    files = [[_numbered(path, tree, len(recipes)) for path in (options.json, options.image)]
             for tree in range(len(recipes))]
    for json_file, image in files:
        _check_writable(json=json_file, image=image)
    from multitool.jobs.check import check_job
    from multitool.jobs.tree import grown, prepare_trees

    library = _library(options)
    prepared = _done(prepare_trees(library, vector, recipes, model=options.model), library)
    if options.evidence:
        library.encoder(library.find(vector.sae))  # what cannot be read is refused before the trees grow
    trees = (_done(grown(tree), library) for tree in prepared)
    for tree, (document, (json_file, image)) in enumerate(zip(trees, files, strict=True)):
        if options.evidence:
            document = _done(check_job(library, document, model=options.model), library)
        if tree == 0:
            _note_other_model(options.model, library.find(vector.sae))
        if json_file:
            _write_json(json_file, document.to_dict())
        if image:
            from multitool.pictures.figure import render

            kind = image.suffix.lower().removeprefix(".")
            _write(image, render(document, [kind], **picture)[kind])
        if not (json_file or image):
            print("\n" * (tree > 0), end="")
            _print_tree(document)


def _numbered(path: Path | None, tree: int, n_trees: int) -> Path | None:
    """The file of one of several trees: tree-1.json, tree-2.json, … for tree.json."""
    return path if path is None or n_trees == 1 else path.with_stem(f"{path.stem}-{tree + 1}")


def _picture_options(options) -> dict:
    """What ``render`` is asked for, checked before the work."""
    given = {"drawn": options.drawn, "dpi": options.dpi, "dark": options.dark or None}
    given = {name: value for name, value in given.items() if value is not None}
    if not options.image:
        if given:
            raise UserError(f"--{next(iter(given))} is about a picture. Add --image FILE.png, or leave it out.")
        return {}
    from multitool.pictures.figure import DPI, MOST_NODES

    for name, (low, high) in {"drawn": (1, MOST_NODES), "dpi": DPI}.items():
        if name in given:
            whole(given[name], name, low, high)
    return {"max_nodes" if name == "drawn" else name: value for name, value in given.items()}


def _print_tree(document: DefinitionTree) -> None:
    print(_title(document.settings, document.vector))
    print(f"Prompt: {visible(document.asked)}")
    print(f"{len(document.tree)} nodes at cutoff {document.effective_cutoff:.3g} in {document.seconds:.1f} s")
    print(_shares(document))
    if document.caution:
        print(f"{document.caution} --top-k 0 follows all of them.")
    print()
    if document.evidence:
        print(document.evidence["sentence"])
        print(_figures(document.evidence) + "\n")
        _print_judged(document.evidence)
    most = feature_maximum(document.evidence)
    columns = ""
    if document.evidence:
        columns = " (lift in nats per token, fires " + ("in % of its maximum)" if most else "as the SAE gives it)")
    lifts, activation = document.tree.lift_per_token, document.tree.activation
    complete, unfinished = document.most_probable(_DEFINITIONS_PRINTED)
    for heading, listed in ((f"Most probable definitions{columns}", complete), (UNFINISHED, unfinished)):
        if listed:
            print(heading)
        for found in listed:
            beside = ""
            if lifts is not None and activation is not None:
                lift, fires = lifts[found.node], activation[found.node]
                beside = f"{lift:6.2f} {100 * fires / most if most else fires:7.{0 if most else 2}f}  "
            print(f"{found.probability:8.2%}  {beside}{visible(found.text)}{'' if found.complete else ' …'}")
    shown = min(_NODES_PRINTED, len(document.tree))
    print(f"\nTree ({END} a definition ends, … +n hidden nodes and their probability; the {shown} most probable nodes)")
    print(outline(document, _NODES_PRINTED))


def _shares(document: DefinitionTree) -> str:
    """Where the model's answers go."""
    shares = document.shares
    beyond = "" if shares.beyond is None else f", {percent(shares.beyond)} cut by top_k"
    return f"Probability: {percent(shares.in_tree)} in the tree{beyond}, {percent(shares.below)} below the cutoff"


def _print_judged(evidence: dict) -> None:
    most = feature_maximum(evidence)
    share = "in shares of its maximum" if most else "as the SAE gives it (its maximum is not known)"
    print(f"Judged by these definitions; how strongly each fires the feature, {share}")
    for text, activation in judged_definitions(evidence):
        print(f"{fires_told(activation, most):>13}  {visible(text)}")
    print()


def _figures(evidence: dict) -> str:
    """The figures of some evidence on one line, those that there are."""
    numbers = {name: value for name, value in evidence.items() if isinstance(value, (int, float))}
    return ", ".join(f"{name} {value:.4g}" for name, value in numbers.items())


def _kept(task: "RowsTask", done: int) -> None:
    """The progress of what is kept on disk, as a vocabulary scan, on standard error."""
    end = "\n" if done == task.n_rows else ""
    _say(f"{task.told(done)}{end}", before="\r")


class _Telling:
    """How far an atlas is, on standard error: one line, written again and again, on a terminal; else one now and then.
    """

    def __init__(self):
        self.last: AtlasProgress | None = None
        self._on_terminal = sys.stderr.isatty()
        self._told_at = -math.inf

    def tell(self, progress: "AtlasProgress") -> None:
        """Tell it, if it is time."""
        self.last, whole = progress, progress.done == progress.total
        if self._on_terminal:
            _say(progress.told.ljust(_WIDEST) + "\n" * whole, before="\r")
        elif whole or time.monotonic() - self._told_at >= _TOLD_AFTER:
            self._told_at = time.monotonic()
            _say(f"{progress.told}\n")

    def leave(self) -> None:
        """Go to a new line, where something else is told next."""
        if self._on_terminal and self.last:
            sys.stderr.write("\n")


def _tokens(options) -> None:
    vector = _recipe(VectorRecipe, options)
    recipe = _recipe(ListRecipe, options)
    _check_writable(csv=options.csv, json=options.json)
    from multitool.jobs.token_list import list_job

    library = _library(options)
    table = _done(list_job(library, vector, recipe, model=options.model, evidence=options.evidence), library)
    _note_other_model(options.model, library.find(vector.sae))
    if options.csv:
        _write(options.csv, table.to_csv().encode(errors="backslashreplace"))
    if options.json:
        _write_json(options.json, table.to_dict())
    if not (options.csv or options.json):
        print(_title(table.settings, table.vector) + "\n")
        if table.evidence:
            print("\n".join([table.evidence.sentence, _figures(table.evidence.to_dict())]).strip() + "\n")
        _, _, _, *headings = (column.replace("distance_to_", "to ") for column in table.columns)
        print("{:>4}  {:24} {:>8}".format(*table.columns) + "".join(f" {heading:>10}" for heading in headings))
        for rank, token, token_id, *numbers in table.rows:
            beside = "".join(f" {number:10.4f}" for number in numbers)
            print(f"{rank:4}  {visible(token, spaces=True):24} {token_id:8}{beside}")


def _find(options) -> None:
    asked = _search(options)
    _check_writable(csv=options.csv, json=options.json)
    from multitool.jobs.find import find_job

    place = options.place or os.environ.get("SAE_MULTITOOL_ATLAS", "").strip() or None
    library = _library(options, atlas=place)
    found = _done(find_job(library, asked, model=options.model), library)
    if asked.sae:
        _note_other_model(options.model, library.find(asked.sae))
    if options.csv:
        _write(options.csv, found.to_csv().encode(errors="backslashreplace"))
    if options.json:
        _write_json(options.json, found.to_dict())
    if not (options.csv or options.json):
        _print_found(found)


def _search(options) -> TextSearch | TokenSearch | LikenessSearch | AtlasSearch:
    """What is looked for."""
    by = next(name for name in _SEARCH_OPTIONS if getattr(options, name) is not None)
    more = {name: getattr(options, name) for names in _SEARCH_OPTIONS.values() for name in names}
    given = {name: value for name, value in more.items() if value is not None}
    for name in given:
        if name not in _SEARCH_OPTIONS[by]:
            belongs = next(other for other, names in _SEARCH_OPTIONS.items() if name in names)
            told = name.replace("_", "-")
            raise UserError(f"--{told} goes with --{belongs}, and not with --{by}. Leave it out.")
    given |= {"sae": options.sae, "top": options.top}
    if by == "atlas":
        return AtlasSearch(words=options.atlas, **given)
    if options.sae is None:
        raise UserError(f"Name the SAE whose features are looked for: --{by} goes with --sae NAME.")
    match by:
        case "text":
            return TextSearch(text=options.text, **given)
        case "tokens":
            return TokenSearch(tokens=options.tokens, **given)
    return LikenessSearch(feature=options.like, **given)


def _print_found(found: "FoundFeatures") -> None:
    print(visible(found.sentence))
    if not found.features:
        return
    print()
    wide = max((len(one.sae) for one in found.features), default=3)
    widths = [max(11, len(column)) for column in found.columns]
    headings = "".join(f" {column:>{width}}" for column, width in zip(found.columns, widths, strict=True))
    print(f"{'rank':>4}  {'SAE':{wide}} {'feature':>8}{headings}  description")
    for rank, sae, feature, *figures, description in found.rows:
        beside = "".join(f" {_figure(figure):>{width}}" for figure, width in zip(figures, widths, strict=True))
        print(f"{rank:4}  {visible(sae):{wide}} {feature:8}{beside}  {visible(description)}")
    if found.tokens:
        print("\nToken by token, the features that fire and how strongly, first those that do more than on plain prose")
    for token in found.tokens:
        fires = "  ".join(f"{feature} {activation:.3g}" for feature, activation in token.features[:_FIRING_PRINTED])
        print(f"{visible(token.token, spaces=True):24} {fires}".rstrip())


def _figure(value: float | str | None) -> str:
    return "" if value is None else f"{value:.4f}" if isinstance(value, float) else str(value)


def _span(text: str) -> range:
    first, _, last = text.partition(":")
    if not (first.isdecimal() and last.isdecimal() and int(first) < int(last)):
        raise UserError(f"--features is {shown(text)}; write it as FIRST:LAST, e.g. 0:500.")
    return range(int(first), int(last))


def _features(text: str) -> Sequence[int] | None:
    """The features of an atlas; None: all."""
    if text == "all":
        return None
    return _span(text) if re.fullmatch("[0-9]{1,9}:[0-9]{1,9}", text) else _listed(text)


def _listed(name: str) -> list[int]:
    """The numbers in a file: one on a line, beside blank lines and what stands behind a #."""
    try:
        with Path(name).open("rb") as file:
            content = file.read(_LONGEST_LIST + 1)
    except (OSError, ValueError) as error:
        raise UserError(
            f"--features is {shown(name)}; write all, FIRST:LAST, e.g. 0:500, or name a file with a feature's number "
            f"on each line (this is none: {getattr(error, 'strerror', None) or error})."
        ) from error
    if len(content) > _LONGEST_LIST:
        raise UserError(f"--features {name[:300]} is a file of more than {_LONGEST_LIST:,} bytes. Name a shorter one.")
    features = []
    for number, line in enumerate(content.decode(errors="replace").splitlines(), 1):
        told = line.partition("#")[0].strip()
        if told and not re.fullmatch("[0-9]{1,9}", told):
            raise UserError(
                f"--features {name[:300]}: line {number} is {shown(line)}; write a feature's number on each line."
            )
        features += [int(told)] if told else []
    if not features:
        raise UserError(f"--features {name[:300]} has no number. Write a feature's number on each line.")
    return features


def _atlas(options) -> None:
    vectors = [_recipe(VectorRecipe, options, weights=weights) for weights in options.weights or [None]]
    tree, kept = _recipe(TreeRecipe, options), _recipe(AtlasRecipe, options)
    if not options.push and (options.public or options.licence):
        raise UserError("--public and --licence go with --push. Name a repository with --push, or leave them out.")
    from multitool.jobs.local import atlas
    from multitool.store.atlas_files import counted
    from multitool.store.atlas_sharing import check_push, push_atlas

    if options.push:
        check_push(options.push, options.licence)  # before the hours that it takes

    library, told, out = _library(options), _Telling(), Path(options.out)
    making = atlas(library, vectors, options.features, options.out, tree, kept, model=options.model,
                   per_part=options.per_part, ray=options.ray, workers=options.workers, report=_kept)
    try:
        with redirect_stdout(sys.stderr):  # Ray prints there that a worker was killed
            for progress in making:
                told.tell(progress)
    except (KeyboardInterrupt, UserError) as error:
        told.leave()
        if told.last and isinstance(error, KeyboardInterrupt):
            _say(f"{told.last.told} and kept in {_told(out)}; the same command goes on with the others.\n")
        raise
    _note_other_model(options.model, library.find(options.sae))
    found = counted(out)
    said = f"{found.rows:,} row{'' if found.rows == 1 else 's'} in {_told(out)}"
    if found.problems:
        said += f"; {found.problems:,} without a tree (the column problem says why)"
    if found.verdicts:
        judged = sum(found.verdicts.values())
        said += f"; {found.verdicts.get('agrees', 0):,} of {judged:,} trees agree with what fires their feature"
    print(f"{said}.")
    if options.push:
        print(push_atlas(options.out, options.push, private=not options.public, licence=options.licence))


def _suggest(options) -> None:
    features = range(options.feature, options.feature + 1) if options.features is None else options.features
    vector, tree = VectorRecipe(sae=options.sae, feature=features[0]), TreeRecipe(prompt=options.prompt)
    _check_writable(json=options.json)
    from multitool.jobs.suggest import suggest_job

    library = _library(options)
    library.sae(library.find(vector.sae)).check(features[-1])
    found: Suggestion | Study
    if options.features is None:
        found = _done(suggest_job(library, vector, tree, model=options.model), library)
        grow_with = f"\nGrow it with: {_options_of(found)}\n"
    else:
        found, grow_with = _study(library, vector, tree, features, options.model), ""
    _note_other_model(options.model, library.find(vector.sae))
    if options.json:
        _write_json(options.json, found.to_dict())
        return
    print(f"{found.sentence}\n{grow_with}")
    rows = [found.columns, *(["" if value is None else str(value) for value in row] for row in found.rows)]
    wide = [max(10, *map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [f"{value:>{width}}" for value, width in zip(row, wide, strict=True)]
        if options.features is None:  # the last column is a text
            cells[-1] = visible(row[-1])
        print("  ".join(cells))


def _options_of(found: "Suggestion") -> str:
    """What the command ``tree`` is given for the settings that were found best."""
    recipe = found.recipe
    told = f"--weights {recipe.weights}"
    if recipe.scale is not None:
        told += f" --scale {recipe.scale:.9g}"
    if recipe.pca:
        told += f" --pca {' '.join(f'{weight:g}' for weight in recipe.pca)}"
    for name, value in found.growth.items():
        if found.tree.inject_layer >= 0 and value != getattr(TreeRecipe, name):
            told += f" --{name.replace('_', '-')} {value}"
    return told


def _study(
    library: "Library", vector: VectorRecipe, tree: TreeRecipe, features: range, model: str | None
) -> "Study":
    from multitool.jobs.local import try_features
    from multitool.jobs.study import Study

    trials = []
    for tried in try_features(library, vector, features, tree, model=model, report=_kept):
        trials += tried
        _say(f"settings tried on features up to {trials[-1].feature} of {features[-1]} ", before="\r")
    sys.stderr.write("\n")
    if not trials:
        raise UserError(f"None of the features {features[0]} to {features[-1]} has a direction: they are dead.")
    entry = library.find(vector.sae)
    return Study(trials, library.precision(library.model_of(entry, model)))


def _components(options) -> None:
    _check_writable(json=options.json)
    from multitool.jobs.components import components_job

    library = _library(options)
    job = components_job(library, options.sae, model=options.model, count=options.count, top=options.top)
    found = _done(job, library)
    if options.json:
        _write_json(options.json, [component.to_dict() for component in found])
        return
    for component in found:
        print(f"component {component.index}: {percent(component.share)} of the variance")
        for sign, tokens in (("+", component.positive), ("-", component.negative)):
            print(f"  {sign}  " + " ".join(visible(token, spaces=True) for token in tokens))


def _saes(options) -> None:
    entries = saes(options.search)
    if not entries:
        raise UserError(f"No SAE matches {options.search!r}. Try fewer words, or a model's name.")
    rows = [("SAE", "MODEL", "HOOK", "FEATURES", "NEURONPEDIA")]
    for entry in entries:
        model = entry.model + (" (gated)" if entry.gated else "")
        rows.append((entry.name, model, entry.hook, str(entry.d_sae or "?"), entry.neuronpedia_id or ""))
    wide = [max(len(row[column]) for row in rows) for column in range(4)]
    for name, model, hook, d_sae, neuronpedia in rows:
        print(f"{name:{wide[0]}}  {model:{wide[1]}}  {hook:{wide[2]}}  {d_sae:>{wide[3]}}  {neuronpedia}".rstrip())
    for local in DEMO_MODELS.values():
        if any(entry.model == local.same_as for entry in entries):
            _say(f"note: those of {local.same_as} are also read on the same in 4 bits, with --model {local.name}.\n")


def _recipe(kind: type, options, **instead):
    """The recipe of that kind in the options.

    Args:
        instead: values that count in place of the options.
    """
    return kind(**{field.name: getattr(options, field.name) for field in recipe_fields(kind)} | instead)


def _library(options, **more) -> "Library":
    from multitool.store.library import Library

    return Library(dtype=options.dtype, device=options.device, allow_folder=True, **more)


def _done(job: "Job[Result]", library: "Library") -> "Result":
    """What comes of a job; the progress of scans is told meanwhile."""
    from multitool.jobs.local import finish

    return finish(job, library, _kept)


def _note_other_model(model: str | None, entry: SaeEntry) -> None:
    """An SAE may be read on another model of the same width; whoever does so should know it."""
    if model and entry.model and Path(hub_id(model)).name.lower() != Path(entry.model).name.lower():
        alike = f"; but for its rounding {model} is the same" if same_model(model, entry.model) else ""
        _say(f"note: {entry.name} was trained on {entry.model}{alike or f', not on {model}'}.\n")


def _title(settings: dict, vector: dict) -> str:
    told = source_told(settings)
    if not is_injected(settings):
        told += f", scale {settings['scale']:.3g}"
    told += f", on {settings['model']}"
    return visible("; ".join([told, distance_told(settings, vector), *interventions_told(settings)]))


def _check_writable(**paths: Path | None) -> None:
    """Before the work, not after it: can these files be written?

    Args:
        paths: by the options that name them.
    """
    named: dict[Path, str] = {}
    for option, path in paths.items():
        if path is None:
            continue
        try:
            existed = path.exists()
            if not existed or path.is_file() or path.is_dir():  # opening a pipe would end what waits for it
                path.open("ab").close()
            if not existed:
                path.unlink()
            other = named.setdefault(path.resolve(), option) if not existed or path.is_file() else option
        except (OSError, ValueError) as error:
            raise _not_written(path, error) from error
        if other != option:
            raise UserError(f"--{other} and --{option} both name {_told(path)}. Name two files.")


def _write(path: Path, content: bytes) -> None:
    """Write a file, whole or not at all."""
    try:
        target = path.resolve()
        if target.exists() and not target.is_file():  # a device, or a pipe
            target.write_bytes(content)
        else:
            _replace(target, content)
    except OSError as error:
        raise _not_written(path, error) from error
    print(f"wrote {path}")


def _replace(target: Path, content: bytes) -> None:
    unfinished = target.with_name(f".unfinished-{os.getpid()}-{target.name[:50]}")  # a name has 255 bytes at most
    try:
        unfinished.write_bytes(content)
        if target.exists():
            shutil.copymode(target, unfinished)
        unfinished.replace(target)
    except PermissionError:  # of the folder; the file itself may be ours all the same
        target.write_bytes(content)
    finally:
        unfinished.unlink(missing_ok=True)


def _write_json(path: Path, content) -> None:
    _write(path, _as_json(content))


def _as_json(content) -> bytes:
    """JSON as a file; half a surrogate pair, as a file's name can have it, is an escape in it."""
    try:
        return json.dumps(content, ensure_ascii=False, allow_nan=False).encode(errors="backslashreplace")
    except ValueError as error:
        raise UserError(
            "The result holds a number that is none (NaN or infinite), which JSON does not have, and was not written. "
            "Try --dtype float32, or a smaller strength or scale."
        ) from error


def _not_written(path: Path, error: OSError | ValueError) -> UserError:
    if isinstance(error, ValueError):
        return UserError(f"{_told(path)} cannot be the name of a file: {error}.")
    help_ = "Make room there" if error.errno in _FULL else "Name a file in a folder that you may write to"
    return UserError(f"{_told(path)} cannot be written: {error.strerror}. {help_}.")


def _told(path: Path) -> str:
    return str(path)[:300]
