"""Options that several commands have: of SAEs and models, and of the fields of recipes."""

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, replace
from types import UnionType
from typing import Literal, get_args, get_origin

from multitool.errors import UserError, shown
from multitool.recipes.atlas import AtlasRecipe
from multitool.recipes.continuation import SteerRecipe
from multitool.recipes.fields import Declared, RecipeField, recipe_fields
from multitool.recipes.recipe import Device, Dtype, ListRecipe, TreeRecipe, VectorRecipe
from multitool.store.demo_models import DEMO_MODELS, GEMMA_MODEL
from multitool.store.terms import GEMMA_TERMS

_HEADINGS = {
    VectorRecipe: "vector", TreeRecipe: "prompt and growth", ListRecipe: "list", AtlasRecipe: "rows",
    SteerRecipe: "text and steering",
}
# Fields of trees that have a heading of their own.
_CHANGES = {"steer_strength", "steer_at", "steer_sinks", "clamp", "inject_layer", "inject_mode", "inject_scale"}


def recipe_of(kind: type, options, **instead):
    """The recipe of that kind in the options.

    Args:
        instead: values that count in place of the options.
    """
    return kind(**{field.name: getattr(options, field.name) for field in recipe_fields(kind)} | instead)


def add_sae_options(parser: argparse.ArgumentParser, *, required: bool = True) -> None:
    add = parser.add_argument_group("SAE and model").add_argument
    add("--sae", required=required, metavar="NAME",
        help="RELEASE/SAE_ID, demo/…, an SAE's folder, or hf://OWNER/REPO/PATH")
    add("--hook", metavar="NAME", help="where the SAE of a folder reads, if its files do not tell: "
        "blocks.N.hook_resid_post, model.layers.N, hook_embed, …")
    add("--model", metavar="PATH_OR_HF_ID", help="another model than the SAE names; "
        f"{GEMMA_MODEL} for SAEs of {DEMO_MODELS[GEMMA_MODEL].same_as}: the same in 4 bits, without the hub")
    add_terms_option(add)
    add("--dtype", choices=get_args(Dtype),
        help="precision of the model (default: float32 on a CPU, bfloat16 on a GPU that has it, else what suits the "
             "model)")
    add("--device", choices=get_args(Device), default="auto", help="where the model runs (default: auto)")
    add_quiet_option(parser)


def add_terms_option(add: Callable[..., object]) -> None:
    add("--accept-gemma-terms", action="store_true", help="accept the Gemma Terms of Use "
        f"({GEMMA_TERMS.page}), without which {GEMMA_MODEL} is not fetched; once is enough")


def add_quiet_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--quiet", action="store_true", help="do not tell how far it is; notes and errors are told")


def add_output_group(parser: argparse.ArgumentParser, heading: str = "output"):
    """A group for the options that say where results go."""
    return parser.add_argument_group(heading, "- in place of FILE prints it")


def add_vector_options(parser: argparse.ArgumentParser) -> None:
    add_sae_options(parser)
    add_fields(parser, VectorRecipe, [field.name for field in recipe_fields(VectorRecipe)][1:])


def add_fields(
    parser: argparse.ArgumentParser, kind: type, names: Sequence[str] | None = None, *,
    several: Mapping[str, str] | None = None, defaults: Declared | None = None,
) -> None:
    """Options for the fields of a kind of recipe: those of ``names``, or all.

    Args:
        several: fields that may be given more than once, and what that gives; such an option is a list, or None if it
            is not given.
        defaults: a recipe with other defaults than those of its kind.
    """
    several, groups = several or {}, {}
    for field in recipe_fields(kind):
        if names is None or field.name in names:
            if defaults is not None:
                field = replace(field, default=getattr(defaults, field.name))
            off = field.default is True  # such a field is an option to switch it off
            name = ("no-" if off else "") + field.name.replace("_", "-")
            help_ = "do not " + field.help if off else field_help(field)
            option = field_option(field)
            if field.name in several:
                help_ += f"; give it several times for {several[field.name]}"
                option |= {"action": "append", "default": None}
            heading = _HEADINGS[kind] if field.name not in _CHANGES else "changes to the model as it reads"
            if heading not in groups:
                groups[heading] = parser.add_argument_group(heading)
            groups[heading].add_argument(f"--{name}", dest=field.name, help=help_, **option)


def field_option(field: RecipeField) -> dict:
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


def field_help(field: RecipeField) -> str:
    told = field.help.replace("%", "%%")
    return told if field.default in (MISSING, None, (), False, "") else f"{told} (default: {field.default})"


def span(text: str) -> range:
    first, _, last = text.partition(":")
    if not (first.isdecimal() and last.isdecimal() and int(first) < int(last)):
        raise UserError(f"--features is {shown(text)}; write it as FIRST:LAST, e.g. 0:500.")
    return range(int(first), int(last))

