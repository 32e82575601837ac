"""The command ``tokens``: the tokens nearest to a feature's vector, as a table."""

from collections.abc import Sequence
from pathlib import Path

from multitool.cli.options import add_fields, add_output_group, add_vector_options, recipe_of, vector_recipe_of
from multitool.cli.printing import print_evidence, title
from multitool.cli.work import done, library_of, note_other_model
from multitool.cli.writing import check_writable, write, write_json
from multitool.evidence.figures import IN_TEXTS, IN_TEXTS_HELP, Line, list_lines
from multitool.evidence.verdicts import ListEvidence, WrittenEvidence
from multitool.recipes.recipe import ListRecipe
from multitool.text import visible


def declare(commands) -> None:
    """Add the command to those of the parser."""
    tokens = commands.add_parser("tokens", help="list the tokens nearest to a feature's vector")
    add_vector_options(tokens)
    add_fields(tokens, ListRecipe)
    add = add_output_group(tokens, "evidence and output").add_argument
    add("--evidence", action="store_true",
        help="check the list: do its tokens fire the feature? By a lens: does the feature write them?")
    add("--csv", type=Path, metavar="FILE", help="write the list as a table")
    add("--json", type=Path, metavar="FILE", help="write the list and its recipe")
    tokens.set_defaults(run=_run)


def _run(options) -> None:
    vector = vector_recipe_of(options)
    recipe = recipe_of(ListRecipe, options)
    check_writable(csv=options.csv, json=options.json)
    from multitool.jobs.features import own_entry
    from multitool.jobs.token_list import list_job

    library = library_of(options)
    table = done(list_job(library, vector, recipe, model=options.model, evidence=options.evidence), library)
    note_other_model(options.model, own_entry(library, vector))
    if options.csv:
        write(options.csv, table.to_csv().encode(errors="backslashreplace"))
    if options.json:
        write_json(options.json, table.to_dict())
    if not (options.csv or options.json):
        print(title(table.settings, table.vector) + "\n")
        if table.evidence:
            _print_evidence(table.evidence, library.subject(table.settings["model"]).token_texts)
        _, _, _, *headings = (column.replace("distance_to_", "to ") for column in table.columns)
        print("{:>4}  {:24} {:>8}".format(*table.columns) + "".join(f" {heading:>10}" for heading in headings))
        for rank, token, token_id, *numbers in table.rows:
            beside = "".join(f" {number:10.4f}" for number in numbers)
            print(f"{rank:4}  {visible(token, spaces=True):24} {token_id:8}{beside}")


def _print_evidence(evidence: ListEvidence | WrittenEvidence, token_texts: Sequence[str]) -> None:
    lines = list_lines(evidence.to_dict())
    in_texts = evidence.in_texts if isinstance(evidence, ListEvidence) else ()
    if ranks := ", ".join(f"{visible(token_texts[token_id], spaces=True)} {rank:,}" for token_id, rank in in_texts):
        lines.append(Line(IN_TEXTS, IN_TEXTS_HELP, ranks, ""))
    print_evidence(evidence.to_dict(), lines)
