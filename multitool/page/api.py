"""An endpoint of the Gradio API as data, and what follows from it: a documented function for Gradio.

Each has a twin, ``/definition_tree_json`` and so on: what agents get as a tool of the app's MCP server, by the
endpoint's plain name. The twins are made in ``agents``.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass
from types import GenericAlias, MappingProxyType
from typing import Any, get_args, get_origin

import gradio as gr

from multitool.page.callers import Callers
from multitool.page.common import shown_errors
from multitool.page.gradio_workarounds import name_endpoint
from multitool.recipes.fields import RecipeField, recipe_fields

REQUIRED = inspect.Parameter.empty  # as a default: it must be given
BY_ITS_RECIPE: Any = Any  # as a kind: the recipe that it is a field of checks it


@dataclass(frozen=True)
class Parameter:
    """What an endpoint takes."""

    name: str
    type: Any  # without "or None", which a default of None adds
    help: str  # a sentence, on one line
    default: object = REQUIRED
    kind: Any = None  # what its values must be, as an annotation (``recipes.fields``), where the type does not tell


@dataclass(frozen=True)
class Endpoint:
    """What programs can ask for."""

    name: str
    summary: str
    parameters: Sequence[Parameter]
    answers: Mapping[str, Any]  # the types by the names that the documentation calls them
    returns: str
    returns_json: str  # of the twin: the last of the answers
    run: Callable[[dict], Any]  # takes the parameters' values by name; several answers are a tuple
    streams: bool = False  # ``run`` gives one answer after the other
    waits: bool = False  # ``run`` gives one answer, and before it None where a caller who has left is missed
    on_model: bool = False  # it runs the model


def add_endpoint(page: gr.Blocks, endpoint: Endpoint, twin: Endpoint, callers: Callers) -> None:
    """Add an endpoint and its twin to the page that is being built.

    Args:
        callers: among whose requests its calls count.
    """
    for part, name, visibility in (
        (endpoint, endpoint.name, "public"), (twin, f"{endpoint.name}_json", "undocumented"),
    ):
        function = shown_errors(callers.counting(gradio_function(part)))
        added = gr.api(function, api_name=name, api_visibility=visibility, concurrency_limit=None)
        name_endpoint(page, added, [parameter.name for parameter in part.parameters], list(part.answers))


def recipe_parameters(
    kind: type, without: Sequence[str] = (), kinds: Mapping[str, Any] = MappingProxyType({}), **defaults
) -> list[Parameter]:
    """The fields of a kind of recipe as parameters; a tuple is a list in JSON, and null where it is empty.

    Args:
        without: fields that are left at their defaults, and are no parameters.
        kinds: what values of some fields must be here, where less is allowed than by the recipe.
        defaults: values of fields where a call does not tell them, other than their own defaults.
    """
    parameters = []
    for field in recipe_fields(kind):
        if field.name not in without:
            type_, default = field.type, defaults.get(field.name, field.default)
            if _is_tuple(field):
                type_, default = GenericAlias(list, get_args(type_)[:1]), list(default) or None
            parameters.append(
                Parameter(
                    field.name, type_, f"{field.help}.", REQUIRED if default is MISSING else default,
                    kinds.get(field.name, BY_ITS_RECIPE),
                )
            )
    return parameters


def recipe_of(kind: type, given: dict):
    """The recipe in the values of an endpoint's parameters. Raises UserError for a value that cannot be."""
    values = {field.name: given[field.name] for field in recipe_fields(kind) if field.name in given}
    empty = {field.name: () for field in recipe_fields(kind) if _is_tuple(field) and values.get(field.name) is None}
    return kind(**values | empty)


def _is_tuple(field: RecipeField) -> bool:
    return get_origin(field.type) is tuple


def gradio_function(endpoint: Endpoint) -> Callable:
    """The endpoint as a function with the signature and the docstring from which Gradio takes its documentation."""

    def plain(*args, **kwargs):
        return endpoint.run(given(args, kwargs))

    def streaming(*args, **kwargs):
        for answer in endpoint.run(given(args, kwargs)):
            yield (None,) * len(types) if answer is None and len(types) > 1 else answer

    def given(args, kwargs) -> dict:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return dict(bound.arguments)

    types = tuple(endpoint.answers.values())
    parameters = [
        inspect.Parameter(
            parameter.name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=parameter.default,
            annotation=parameter.type | None if parameter.default is None else parameter.type,
        )
        for parameter in endpoint.parameters
    ]
    answer = GenericAlias(tuple, types) if len(types) > 1 else types[0]
    signature = inspect.Signature(parameters, return_annotation=answer)
    function: Any = streaming if endpoint.streams or endpoint.waits else plain
    function.__name__ = endpoint.name
    function.__signature__ = signature
    function.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    function.__doc__ = "\n".join(
        [endpoint.summary, "", "Args:"]
        + [f"    {parameter.name}: {parameter.help}" for parameter in endpoint.parameters]
        + ["", "Returns:", f"    {endpoint.returns}"]
    )
    return function

