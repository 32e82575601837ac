"""The command ``suggest``: many settings, tried on features and judged by the evidence."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from multitool.cli.options import add_fields, add_output_group, add_sae_options, span
from multitool.cli.telling import TELLING
from multitool.cli.work import done, library_of, note_other_model
from multitool.cli.writing import check_writable, write_json
from multitool.errors import UserError
from multitool.jobs.progress import Progress
from multitool.recipes.recipe import TreeRecipe, VectorRecipe
from multitool.text import visible

if TYPE_CHECKING:
    from multitool.jobs.study import Study
    from multitool.jobs.suggest import Suggestion
    from multitool.jobs.trials import Trial
    from multitool.store.library import Library


def declare(commands) -> None:
    """Add the command to those of the parser."""
    trying = commands.add_parser("suggest", help="try many settings on features and judge each by the evidence")
    add_sae_options(trying)
    which = trying.add_argument_group("features").add_mutually_exclusive_group(required=True)
    which.add_argument("--feature", type=int, metavar="N", help="one feature's number, from 0")
    which.add_argument("--features", type=span, metavar="FIRST:LAST", help="many, the last one not included")
    add_fields(trying, TreeRecipe, ("prompt",))
    add = add_output_group(trying).add_argument
    add("--json", type=Path, metavar="FILE", help="write what was tried and what came of it")
    trying.set_defaults(run=_run)


def _run(options) -> None:
    features = range(options.feature, options.feature + 1) if options.features is None else options.features
    vector, tree = VectorRecipe(sae=options.sae, feature=features[0]), TreeRecipe(prompt=options.prompt)
    check_writable(json=options.json)
    from multitool.jobs.suggest import suggest_job

    library = library_of(options)
    library.sae(library.find(vector.sae)).check(features[-1])
    found: Suggestion | Study
    if options.features is None:
        found = done(suggest_job(library, vector, tree, model=options.model), library)
        grow_with = f"\nGrow it with: {options_of(found)}\n"
    else:
        found, grow_with = _study(library, vector, tree, features, options.model), ""
    note_other_model(options.model, library.find(vector.sae))
    if options.json:
        write_json(options.json, found.to_dict())
        return
    print(f"{found.sentence}\n{grow_with}")
    rows = [found.columns, *(["" if value is None else str(value) for value in row] for row in found.rows)]
    wide = [max(10, *map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [f"{value:>{width}}" for value, width in zip(row, wide, strict=True)]
        if options.features is None:  # the last column is a text
            cells[-1] = visible(row[-1])
        print("  ".join(cells))


def options_of(found: "Suggestion") -> str:
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

    trials: list[Trial] = []
    progress = Progress("Trying settings", 0, len(features), "features", kept=True)
    for tried in try_features(library, vector, features, tree, model=model, report=TELLING.tell):
        trials += tried
        TELLING.tell(replace(progress, done=trials[-1].feature - features[0] + 1) if trials else progress)
    if not trials:
        raise UserError(f"None of the features {features[0]} to {features[-1]} has a direction: they are dead.")
    entry = library.find(vector.sae)
    return Study(trials, library.precision(library.model_of(entry, model)))

