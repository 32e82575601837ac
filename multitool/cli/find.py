"""The command ``find``: features by a text, by tokens, by another feature, or in an atlas."""

from pathlib import Path
from typing import TYPE_CHECKING

from multitool.cli.options import add_output_group, add_sae_options, field_help, field_option
from multitool.cli.work import done, library_of, note_other_model
from multitool.cli.writing import check_writable, write, write_json
from multitool.errors import UserError
from multitool.process import from_environment, variable
from multitool.recipes.atlas import AtlasSearch
from multitool.recipes.fields import recipe_fields
from multitool.recipes.finding import LikenessSearch, TextSearch, TokenSearch
from multitool.text import visible

if TYPE_CHECKING:
    from multitool.jobs.find import FoundFeatures

_FIRING_PRINTED = 5  # features at a token
# The options, by that which they go with.
_SEARCH_OPTIONS = {
    "text": (), "tokens": ("weights", "measure"), "like": ("by", "among"),
    "atlas": ("verdict", "max_entropy", "min_cosine"),
}


def declare(commands) -> None:
    """Add the command to those of the parser."""
    finding = commands.add_parser("find", help="find features by a text, by tokens, by another feature, in an atlas")
    add_sae_options(finding, required=False)
    kinds = (TextSearch, TokenSearch, LikenessSearch, AtlasSearch)
    fields = {field.name: field for kind in kinds for field in recipe_fields(kind)}
    group = finding.add_argument_group("what is looked for")
    which = group.add_mutually_exclusive_group(required=True)
    which.add_argument("--text", metavar="TEXT", help="those that fire on a text more than on plain prose")
    which.add_argument("--tokens", metavar="SUM", help=f"those near to {field_help(fields['tokens'])}")
    which.add_argument("--like", type=int, metavar="FEATURE", help="those near to this feature, by its number")
    which.add_argument("--atlas", metavar="WORDS", help=f"those of an atlas by {field_help(fields['words'])}")
    for goes_with, names in _SEARCH_OPTIONS.items():
        for name in names:
            option = field_option(fields[name]) | {"default": None}  # so that one is seen where it does not belong
            group.add_argument(
                f"--{name.replace('_', '-')}", help=f"with --{goes_with}: {field_help(fields[name])}", **option
            )
    group.add_argument("--in", dest="place", metavar="ATLAS", help="the atlas that is searched, and that tells of what "
                       "is found: a folder, or a dataset repository on the hub (default: what the environment variable "
                       f"{variable('atlas')} names, or the demo's)")
    add = add_output_group(finding).add_argument
    add("--top", type=int, default=TextSearch.top, metavar="N", help=field_help(fields["top"]))
    add("--csv", type=Path, metavar="FILE", help="write them as a table")
    add("--json", type=Path, metavar="FILE", help="write them, and what was asked")
    finding.set_defaults(run=_run)


def _run(options) -> None:
    asked = _search(options)
    check_writable(csv=options.csv, json=options.json)
    from multitool.jobs.find import find_job

    library = library_of(options, atlas=options.place or from_environment("atlas"))
    found = done(find_job(library, asked, model=options.model), library)
    if asked.sae:
        note_other_model(options.model, library.find(asked.sae))
    if options.csv:
        write(options.csv, found.to_csv().encode(errors="backslashreplace"))
    if options.json:
        write_json(options.json, found.to_dict())
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

