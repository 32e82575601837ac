"""The commands that list what a model or the registry has: ``components`` and ``saes``."""

from pathlib import Path

from multitool.cli.options import add_quiet_option, add_terms_option
from multitool.cli.telling import say
from multitool.cli.work import done, library_of
from multitool.cli.writing import check_writable, write_json
from multitool.errors import UserError
from multitool.recipes.components import COMPONENTS_SHOWN, TOKENS_PER_END
from multitool.store.demo_models import DEMO_MODELS
from multitool.store.entries import SaeEntry, model_size
from multitool.store.registry import saes
from multitool.text import count_shown, percent, visible


def declare(commands) -> None:
    """Add both commands to those of the parser."""
    showing = commands.add_parser("components", help="what the principal components of a model's embeddings are")
    add = showing.add_argument
    add("--sae", metavar="NAME", help="an SAE of the model, named as for trees")
    add("--model", metavar="PATH_OR_HF_ID", help="the model itself")
    add_terms_option(add)
    add_quiet_option(showing)
    add("--count", type=int, default=COMPONENTS_SHOWN, metavar="N",
        help=f"how many, the first ones (default: {COMPONENTS_SHOWN})")
    add("--top", type=int, default=TOKENS_PER_END, metavar="N", help=f"tokens at each end (default: {TOKENS_PER_END})")
    add("--json", type=Path, metavar="FILE", help="write them; - prints them")
    showing.set_defaults(run=_components, dtype=None, device="cpu")  # only the embeddings are read

    listing = commands.add_parser("saes", help="what can be loaded, and on which model")
    listing.add_argument("--search", default="", metavar="TEXT",
                         help="only those of which all these words are known, such as 'gemma-2-2b layer 12 canonical'")
    listing.add_argument("--json", type=Path, metavar="FILE", help="write what is known of each; - prints it")
    listing.set_defaults(run=_saes)


def _components(options) -> None:
    check_writable(json=options.json)
    from multitool.jobs.components import components_job

    library = library_of(options)
    job = components_job(library, options.sae, model=options.model, count=options.count, top=options.top)
    found = done(job, library)
    if options.json:
        write_json(options.json, [component.to_dict() for component in found])
        return
    for component in found:
        print(f"component {component.index}: {percent(component.share)} of the variance")
        for sign, tokens in (("+", component.positive), ("-", component.negative)):
            print(f"  {sign}  " + " ".join(visible(token, spaces=True) for token in tokens))


def _row(entry: SaeEntry) -> tuple[str, ...]:
    size = model_size(entry.model)
    return (
        entry.name, entry.model + (" (gated)" if entry.gated else ""), count_shown(size.parameters) if size else "?",
        entry.hook, str(entry.d_sae or "?"), "?" if entry.l0 is None else f"{entry.l0:.0f}", entry.neuronpedia_id or "",
    )


def _saes(options) -> None:
    check_writable(json=options.json)
    entries = saes(options.search)
    if not entries:
        raise UserError(f"No SAE matches {options.search!r}. Try fewer words, or a model's name.")
    if options.json:
        write_json(options.json, [entry.facts() for entry in entries])
        return
    rows = [("SAE", "MODEL", "PARAMETERS", "HOOK", "FEATURES", "L0", "NEURONPEDIA"), *map(_row, entries)]
    wide = [max(map(len, column)) for column in zip(*rows, strict=True)]
    aligned = "<<><>><"
    for row in rows:
        cells = (f"{cell:{side}{width}}" for cell, side, width in zip(row, aligned, wide, strict=True))
        print("  ".join(cells).rstrip())
    for local in DEMO_MODELS.values():
        if any(entry.model == local.same_as for entry in entries):
            say(f"note: those of {local.same_as} are also read on the same in 4 bits, with --model {local.name}.\n")

