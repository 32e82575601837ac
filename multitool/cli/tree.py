"""The command ``tree``: definition trees, printed, written and drawn."""

from contextlib import suppress
from pathlib import Path

from multitool.cli.options import add_fields, add_output_group, add_vector_options, recipe_of, vector_recipe_of
from multitool.cli.printing import print_evidence, title
from multitool.cli.work import done, library_of, note_other_model
from multitool.cli.writing import STANDARD_OUTPUT, check_writable, told_path, write, write_json
from multitool.errors import UserError
from multitool.evidence.figures import tree_lines
from multitool.recipes.captions import fires_told, own_vector_told
from multitool.recipes.fields import whole
from multitool.recipes.recipe import TreeRecipe
from multitool.text import percent, visible
from multitool.trees.document import UNFINISHED, DefinitionTree, feature_maximum, judged_definitions
from multitool.trees.phrases import END, outline

_DEFINITIONS_PRINTED = 15
_NODES_PRINTED = 60
_KINDS = ("tree", "definitions")
_IMAGES = (".png", ".svg", ".pdf")


def declare(commands) -> None:
    """Add the command to those of the parser."""
    tree = commands.add_parser("tree", help="grow a definition tree")
    add_vector_options(tree)
    add_fields(tree, TreeRecipe, several={"prompt": "several trees"})
    add = add_output_group(tree, "evidence and output").add_argument
    add("--evidence", action="store_true", help="check the tree: does what it says fire the feature?")
    add("--json", type=Path, metavar="FILE", help="write the tree and its recipe")
    add("--image", type=Path, metavar="FILE", help="write a picture: .png, .svg or .pdf")
    add("--csv", type=Path, metavar="FILE", help="write the definitions as a table, with the recipe in comment lines")
    # The defaults are those of pictures.figure, which is imported only where a picture is wanted.
    add("--as", dest="kind", choices=_KINDS, help="with --image: what is drawn (default: tree)")
    add("--drawn", type=int, metavar="N", help="with --image: draw the N most probable nodes (default: 80, 40 in one "
        "column) or definitions (default: 15)")
    add("--width", type=_width, metavar="single|double|X", help="with --image: for a paper, with type that is read "
        "there without scaling: one column (3.3 inches), two (7 inches), or X inches (default: as wide as it needs)")
    add("--no-caption", dest="caption", action="store_false", help="with --image: without the feature above and the "
        "recipe below; the file's metadata tell it all the same")
    add("--dpi", type=int, metavar="N", help="with --image FILE.png: pixels per inch, 50 to 600 (default: 150)")
    add("--dark", action="store_true", help="with --image: light on dark")
    tree.set_defaults(run=_run)


def _run(options) -> None:
    vector = vector_recipe_of(options)
    recipes = [recipe_of(TreeRecipe, options, prompt=prompt) for prompt in options.prompt or [TreeRecipe.prompt]]
    if options.image and options.image.suffix.lower() not in _IMAGES:
        endings = ", ".join(_IMAGES)
        raise UserError(f"--image {told_path(options.image)} ends in none of {endings}, which tell the format.")
    if options.evidence:
        vector.single_feature()
    picture = _picture_options(options)
    files = [[_numbered(path, tree, len(recipes)) for path in (options.json, options.csv, options.image)]
             for tree in range(len(recipes))]
    for json_file, csv_file, image in files:
        check_writable(json=json_file, csv=csv_file, image=image)
    from multitool.jobs.check import check_job
    from multitool.jobs.features import own_entry
    from multitool.jobs.tree import grown, prepare_trees

    library = library_of(options)
    prepared = done(prepare_trees(library, vector, recipes, model=options.model), library)
    entry = own_entry(library, vector)
    if options.evidence and not entry.of_vector:
        library.encoder(entry)  # what cannot be read is refused before the trees grow
    trees = (done(grown(tree), library) for tree in prepared)
    for tree, (document, (json_file, csv_file, image)) in enumerate(zip(trees, files, strict=True)):
        if options.evidence:
            document = done(check_job(library, document, model=options.model), library)
        if tree == 0:
            note_other_model(options.model, entry)
        if json_file:
            write_json(json_file, document.to_dict())
        if csv_file:
            write(csv_file, document.to_csv().encode(errors="backslashreplace"))
        if image:
            from multitool.pictures.figure import render

            kind = image.suffix.lower().removeprefix(".")
            write(image, render(document, [kind], **picture)[kind])
        if not (json_file or csv_file or image):
            print("\n" * (tree > 0), end="")
            _print_tree(document)


def _numbered(path: Path | None, tree: int, n_trees: int) -> Path | None:
    """The file of one of several trees: tree-1.json, tree-2.json, … for tree.json; printed are all, a line each."""
    return path if path in (None, STANDARD_OUTPUT) or n_trees == 1 else path.with_stem(f"{path.stem}-{tree + 1}")


def _picture_options(options) -> dict:
    """What ``render`` is asked for, checked before the work."""
    given = {"as": options.kind, "drawn": options.drawn, "width": options.width,
             "no-caption": None if options.caption else True, "dpi": options.dpi, "dark": options.dark or None}
    given = {name: value for name, value in given.items() if value is not None}
    if not options.image:
        if given:
            raise UserError(f"--{next(iter(given))} is about a picture. Add --image FILE.png, or leave it out.")
        return {}
    from multitool.pictures.drawing import inches
    from multitool.pictures.figure import DPI, MOST_NODES

    for name, (low, high) in {"drawn": (1, MOST_NODES), "dpi": DPI}.items():
        if name in given:
            whole(given[name], name, low, high)
    if "width" in given:
        inches(given["width"])
    named = {"drawn": "max_nodes", "as": "kind"}
    options_given = {named.get(name, name): value for name, value in given.items() if name != "no-caption"}
    return options_given | {"caption": options.caption}


def _width(text: str) -> float | str:
    """A width in inches, or a name for one; what is neither is refused with what is valid."""
    with suppress(ValueError):
        return float(text)
    return text


def _print_tree(document: DefinitionTree) -> None:
    print(title(document.settings, document.vector))
    print(f"Prompt: {visible(document.asked)}")
    print(f"{len(document.tree)} nodes at cutoff {document.effective_cutoff:.3g} in {document.seconds:.1f} s")
    print(_shares(document))
    if document.caution:
        print(f"{document.caution} --top-k 0 follows all of them.")
    print()
    if document.evidence:
        print_evidence(document.evidence, tree_lines(document.evidence))
        if judged_definitions(document.evidence):
            _print_judged(document.evidence)
    most = feature_maximum(document.evidence)
    columns = ""
    fires_known = not own_vector_told(document.settings)
    if document.evidence:
        fires = f", fires {'in % of its maximum' if most else 'as the SAE gives it'}" if fires_known else ""
        columns = f" (lift in nats per token{fires})"
    lifts, activation = document.tree.lift_per_token, document.tree.activation
    complete, unfinished = document.most_probable(_DEFINITIONS_PRINTED)
    for heading, listed in ((f"Most probable definitions{columns}", complete), (UNFINISHED, unfinished)):
        if listed:
            print(heading)
        for found in listed:
            beside = ""
            if lifts is not None and activation is not None:
                lift, fires = lifts[found.node], activation[found.node]
                beside = f"{lift:6.2f}  "
                if fires_known:
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

