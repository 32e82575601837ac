"""Options that several commands have: of SAEs and models, and of the fields of recipes."""

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, replace
from pathlib import Path
from types import UnionType
from typing import Literal, get_args, get_origin

from multitool.errors import UserError, shown
from multitool.recipes.atlas import AtlasRecipe
from multitool.recipes.continuation import SteerRecipe
from multitool.recipes.fields import Declared, RecipeField, recipe_fields
from multitool.recipes.own_vectors import place_named
from multitool.recipes.recipe import OF_OWN_VECTOR, Device, Dtype, ListRecipe, TreeRecipe, VectorRecipe
from multitool.store.demo_models import DEMO_MODELS, GEMMA_MODEL
from multitool.store.terms import GEMMA_TERMS

_HEADINGS = {
    VectorRecipe: "vector", TreeRecipe: "prompt and growth", ListRecipe: "list", AtlasRecipe: "rows",
    SteerRecipe: "text and steering",
}
# Fields of trees that have a heading of their own.
_CHANGES = {"steer_strength", "steer_at", "steer_sinks", "clamp", "inject_layer", "inject_mode", "inject_scale"}


def recipe_of(kind: type, options, **instead):
    """The recipe of that kind in the options; fields that the command has no option for are left at their defaults.

    Args:
        instead: values that count in place of the options.
    """
    names = [field.name for field in recipe_fields(kind) if field.name not in instead and hasattr(options, field.name)]
    return kind(**{name: getattr(options, name) for name in names} | instead)


NO_VECTOR = {"vector": (), "vector_name": ""}  # of one's own


def vector_recipe_of(options) -> VectorRecipe:
    """The recipe in the options of ``add_vector_options``: of a feature, or of a vector of one's own from a file.

    Raises:
        UserError: neither is named, or a value cannot be.
    """
    if options.vector is None:
        if missing := [f"--{name}" for name in ("sae", "feature") if getattr(options, name) is None]:
            options.refuse(f"{' and '.join(missing)} must be given, or --vector FILE with --model")
        return recipe_of(VectorRecipe, options, **NO_VECTOR | {"vector_name": options.vector_name})
    if options.sae is None and options.model is None:
        raise UserError("--vector is of a model. Name it with --model, and with --hook where it lies; or name --sae.")
    from multitool.store.vector_files import read_vector

    numbers, name = read_vector(options.vector, options.vector_name)
    sae = options.sae or place_named(options.model, options.hook)
    return recipe_of(
        VectorRecipe, options, sae=sae, feature=options.feature or 0, vector=tuple(numbers), vector_name=name
    )


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


def add_vector_options(parser: argparse.ArgumentParser, *, placed: bool = True) -> None:
    """Those of ``vector_recipe_of``.

    Args:
        placed: with those that say how the vector is made and placed among the embeddings.
    """
    add_sae_options(parser, required=False)
    parser.set_defaults(refuse=parser.error)
    fields = {field.name: field for field in recipe_fields(VectorRecipe)}
    group = parser.add_argument_group(_HEADINGS[VectorRecipe])
    group.add_argument("--feature", metavar="N", help=field_help(fields["feature"]))
    group.add_argument(
        "--vector", type=Path, metavar="FILE.npy|.safetensors", help="a vector of your own in place of a feature: a "
        "probe, a steering direction; with --model, and with --hook where it lies after a layer (or with --sae: where "
        "that one reads)")
    group.add_argument(
        "--vector-name", default="", metavar="TEXT", help="what results call it; of a file with several tensors, which")
    if placed:
        others = [name for name in fields if name not in ("sae", "feature", *OF_OWN_VECTOR)]
        add_fields(parser, VectorRecipe, others, group=group)


def add_fields(
    parser: argparse.ArgumentParser, kind: type, names: Sequence[str] | None = None, *,
    several: Mapping[str, str] | None = None, defaults: Declared | None = None, group=None,
) -> None:
    """Options for the fields of a kind of recipe: those of ``names``, or all.

    Args:
        several: fields that may be given more than once, and what that gives; such an option is a list, or None if it
            is not given.
        defaults: a recipe with other defaults than those of its kind.
        group: of options with the kind's heading, where there is one already.
    """
    several, groups = several or {}, {} if group is None else {_HEADINGS[kind]: group}
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
    if field.default in (MISSING, None, (), False, ""):
        return told
    default = " ".join(map(str, field.default)) if isinstance(field.default, tuple) else field.default
    return f"{told} (default: {default})"


def span(text: str) -> range:
    first, _, last = text.partition(":")
    if not (first.isdecimal() and last.isdecimal() and int(first) < int(last)):
        raise UserError(f"--features is {shown(text)}; write it as FIRST:LAST, e.g. 0:500.")
    return range(int(first), int(last))

