"""The command ``atlas``: many features, or all, described in a table on disk."""

import re
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING

from multitool.cli.options import NO_VECTOR, add_fields, add_sae_options, recipe_of, span
from multitool.cli.telling import TELLING, say
from multitool.cli.work import library_of, note_other_model
from multitool.cli.writing import told_path
from multitool.errors import UserError, shown
from multitool.recipes.atlas import ATLAS_TREE, PER_PART, AtlasRecipe
from multitool.recipes.fields import recipe_fields
from multitool.recipes.recipe import OF_OWN_VECTOR, TreeRecipe, VectorRecipe

if TYPE_CHECKING:
    from multitool.jobs.atlas_parts import AtlasProgress

_LONGEST_LIST = 10_000_000  # bytes of a file of features' numbers


def declare(commands) -> None:
    """Add the command to those of the parser."""
    describing = commands.add_parser("atlas", help="describe many features, or all, in a table on disk")
    add_sae_options(describing)
    add = describing.add_argument_group("features and table").add_argument
    add("--features", required=True, type=_features, metavar="all|FIRST:LAST|FILE",
        help="all; many, the last one not included; or a file with a feature's number on each line")
    add("--out", required=True, metavar="FOLDER",
        help="where the table is written; what is there already is not made again")
    add("--per-part", type=int, default=PER_PART, metavar="N",
        help=f"describe so many features together, and write them to one file (default: {PER_PART})")
    add = describing.add_argument_group("several workers").add_argument
    add("--ray", nargs="?", const=True, default=False, metavar="ADDRESS",
        help="let several workers by Ray describe: on the cluster at HOST:PORT, or without an address on this machine")
    add("--workers", type=int, metavar="N",
        help="with --ray: how many (default: one for each GPU, or for each machine where there is none)")
    add = describing.add_argument_group("sharing").add_argument
    add("--push", metavar="OWNER/NAME", help="then put it into a dataset repository on the hub, made if there is none")
    add("--public", action="store_true",
        help="with --push: a repository that is made is seen by all, and not by its owner only")
    add("--licence", metavar="NAME", help="with --push: under which you share it, e.g. cc-by-4.0")
    own = [field.name for field in recipe_fields(VectorRecipe) if field.name not in ("sae", "feature", *OF_OWN_VECTOR)]
    add_fields(describing, VectorRecipe, own, several={"weights": "several rows of each feature"})
    add_fields(describing, TreeRecipe, defaults=ATLAS_TREE)
    add_fields(describing, AtlasRecipe)
    describing.set_defaults(run=_run, feature=0)  # recipes name one; all that differ in it are made


def _run(options) -> None:
    vectors = [
        recipe_of(VectorRecipe, options, weights=weights, **NO_VECTOR) for weights in options.weights or [None]
    ]
    tree, kept = recipe_of(TreeRecipe, options), recipe_of(AtlasRecipe, options)
    if not options.push and (options.public or options.licence):
        raise UserError("--public and --licence go with --push. Name a repository with --push, or leave them out.")
    from multitool.jobs.local import atlas
    from multitool.store.atlas_files import counted
    from multitool.store.atlas_sharing import check_push, push_atlas

    if options.push:
        check_push(options.push, options.licence)  # before the hours that it takes

    library, out = library_of(options), Path(options.out)
    progress: AtlasProgress | None = None
    making = atlas(library, vectors, options.features, options.out, tree, kept, model=options.model,
                   per_part=options.per_part, ray=options.ray, workers=options.workers, report=TELLING.tell)
    try:
        with redirect_stdout(sys.stderr):  # Ray prints there that a worker was killed
            for progress in making:
                TELLING.tell_line(progress.told, whole=progress.done == progress.total)
    except (KeyboardInterrupt, UserError) as error:
        TELLING.leave()
        if progress and isinstance(error, KeyboardInterrupt):
            say(f"{progress.told} and kept in {told_path(out)}; the same command goes on with the others.\n")
        raise
    note_other_model(options.model, library.find(options.sae))
    found = counted(out)
    said = f"{found.rows:,} row{'' if found.rows == 1 else 's'} in {told_path(out)}"
    if found.problems:
        said += f"; {found.problems:,} without a tree (the column problem says why)"
    if found.verdicts:
        judged = sum(found.verdicts.values())
        said += f"; {found.verdicts.get('agrees', 0):,} of {judged:,} trees agree with what fires their feature"
    print(f"{said}.")
    if options.push:
        print(push_atlas(options.out, options.push, private=not options.public, licence=options.licence))


def _features(text: str) -> Sequence[int] | None:
    """The features of an atlas; None: all."""
    if text == "all":
        return None
    return span(text) if re.fullmatch("[0-9]{1,9}:[0-9]{1,9}", text) else _listed(text)


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

