"""The command ``steer``: a text of one's own continued with and without a feature."""

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

from multitool.cli.options import add_fields, add_output_group, add_vector_options, recipe_of, vector_recipe_of
from multitool.cli.work import done, library_of, note_other_model
from multitool.cli.writing import check_writable, write_json
from multitool.recipes.captions import feature_told
from multitool.recipes.continuation import SteerRecipe
from multitool.text import percent, visible

if TYPE_CHECKING:
    from multitool.jobs.continuation import SteeredTexts

_WIDTH = 100  # characters of a line of text


def declare(commands) -> None:
    """Add the command to those of the parser."""
    steering = commands.add_parser("steer", help="continue a text with and without a feature, at several strengths")
    add_vector_options(steering, placed=False)
    add_fields(steering, SteerRecipe)
    add_output_group(steering).add_argument(
        "--json", type=Path, metavar="FILE", help="write the texts with their figures and settings"
    )
    steering.set_defaults(run=_run)


def _run(options) -> None:
    vector, recipe = vector_recipe_of(options), recipe_of(SteerRecipe, options)
    check_writable(json=options.json)
    from multitool.jobs.continuation import steer_job
    from multitool.jobs.features import own_entry

    library = library_of(options)
    found = done(steer_job(library, vector, recipe, model=options.model), library)
    note_other_model(options.model, own_entry(library, vector))
    if options.json:
        write_json(options.json, found.to_dict())
    else:
        _print(found)


def _print(found: "SteeredTexts") -> None:
    told = found.settings
    print(visible(f"{feature_told(told)}, on {told['model']}"))
    for one in found.continuations:
        figures = f"{percent(one.repetition or 0)} repeated"
        if one.log_probability is not None:
            figures = f"{one.log_probability:.2f} nats a token, {figures}"
        print(f"\n{f'{one.strength:+g}' if one.strength else 'unsteered'}  ({figures})  {one.caution}".rstrip())
        whole = visible((told["text"] + one.text).replace("\n", "⏎ ")) + ("" if one.ended else " …")
        print(textwrap.fill(whole, _WIDTH, initial_indent="  ", subsequent_indent="  "))
