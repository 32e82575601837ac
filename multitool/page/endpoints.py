"""The Gradio API: named, typed endpoints for programs. They answer with plain JSON and files.

Each endpoint has a twin that answers with one JSON text, ``/definition_tree_json`` and so on: what agents get as tools
of the app's MCP server, where any other answer would arrive as Python writes it.
"""

import functools
import inspect
import json
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import TypedDict, get_args, get_origin

import gradio as gr

from multitool.errors import UserError, shown
from multitool.jobs.components import SHOWN, TOKENS
from multitool.page.common import file_data, on_model, save, shown_errors
from multitool.page.service import Service
from multitool.pictures.figure import render
from multitool.recipes.fields import RecipeField, recipe_fields
from multitool.recipes.prompts import PLAIN_PROMPTS
from multitool.recipes.recipe import ListRecipe, TreeRecipe, VectorRecipe
from multitool.store.registry import saes as find_saes
from multitool.trees.document import DefinitionTree, read_tree
from multitool.trees.tree import NO_TREE

File = dict  # a file with its url, as gradio_client downloads it


class Table(TypedDict):
    """A dataframe as Gradio sends it."""

    headers: list[str]
    data: list[list]
    metadata: None


def add_endpoints(page: gr.Blocks, service: Service, opening: VectorRecipe) -> None:
    """Add the API to the page that is being built.

    Args:
        opening: the SAE and feature that calls without them get.
    """

    def definition_tree(vector: VectorRecipe, recipe: TreeRecipe) -> tuple[File, dict]:
        """Grow a definition tree: what the model says a token with this feature's vector means.

        Streams while it grows (no picture yet, the tree so far); the last answer is whole.

        Returns:
            The picture (PNG file) and the tree as JSON (schema sae-multitool/definition-tree/1).
        """
        yield from _streamed(service.trees(vector, recipe))

    def definition_trees(vector: VectorRecipe, recipe: TreeRecipe, prompts: list[str] | None = None) -> list[dict]:
        """Ask several prompts in one go: a definition tree of the same feature for each.

        Args:
            prompts: up to 8, each a template with {ghost} in it once, or one of the menu by its name, as
                /definition_tree takes them. null asks the menu's prompts that are no chats.

        Returns:
            The trees as JSON (schema sae-multitool/definition-tree/1), in the order of the prompts.
        """
        if prompts is not None and not isinstance(prompts, list):
            raise UserError(f"prompts is {shown(prompts)}; it must be a list, e.g. of the names meaning and synonym.")
        asked = [replace(recipe, prompt=prompt) for prompt in (PLAIN_PROMPTS if prompts is None else prompts)]
        *_, found = service.trees_of_prompts(vector, asked)
        return [document.to_dict() for document in found]

    def continue_tree(tree: dict) -> tuple[File, dict]:
        """Grow the rest of a definition tree that came back incomplete ("complete": false): its time was up.

        Streams while it grows, as /definition_tree does; what there is of the tree is not computed again.

        Args:
            tree: a tree JSON as /definition_tree returns it.

        Returns:
            The picture (PNG file) and the tree as JSON.
        """
        yield from _streamed(service.continued(read_tree(tree)))

    def trim_tree(tree: dict, cutoff: float = 1e-3, lift: float | None = None) -> tuple[File, dict]:
        """Leave out the less probable nodes of a definition tree; needs no model.

        Args:
            tree: a tree JSON as /definition_tree or /check_tree returns it.
            cutoff: smallest cumulative probability of a node that stays, between 0 and 1.
            lift: of a tree that /check_tree returned: the least lift of a node that stays, in nats; nodes on the way to
                one stay too. null leaves out none.

        Returns:
            The picture (PNG file) and the trimmed tree as JSON.
        """
        document = read_tree(tree).trimmed(cutoff)
        return _shown(document if lift is None else document.lifted(lift))

    def check_tree(tree: dict) -> tuple[File, dict]:
        """Find the evidence for a definition tree: does what fires the feature agree with it?

        Its definitions are read as plain text and compared with other features' definitions; its nodes' probabilities
        with those under the centroid and random ghosts.

        Args:
            tree: a tree JSON as /definition_tree returns it.

        Returns:
            The picture (PNG file) and the tree as JSON, with "evidence" (figures, a verdict, a sentence; judged_texts
            and judged_activations, the definitions that the verdict speaks of; feature_maximum, to take activations as
            shares of it), at each node lift_centroid and lift_random in nats, and at the ends of definitions that were
            read the activation.
        """
        *_, document = service.checked(read_tree(tree))
        return _shown(document)

    def token_list(vector: VectorRecipe, recipe: ListRecipe, evidence: bool = False) -> Table:
        """List the tokens nearest to a feature's vector, discounting those near to everything; or by another measure.

        Args:
            evidence: add the activation as a column; /check_list tells the verdict too.

        Returns:
            A dataframe: rank, token, token_id, score, distance_to_vector, distance_to_centroid; cosine, dot or
            logit_lens where that is the measure; activation where the vocabulary was scanned for it.
        """
        *_, table = service.table(vector, recipe, evidence=_truth("evidence", evidence))
        return {"headers": list(table.columns), "data": table.rows, "metadata": None}

    def check_list(vector: VectorRecipe, recipe: ListRecipe) -> dict:
        """List the tokens as /token_list does, and find the evidence for the list: do they fire the feature?

        The first time for a model and a layer every token is read alone, which takes a while.

        Returns:
            JSON (schema sae-multitool/token-list/1): the tokens with their activations, and "evidence" with figures, a
            verdict (agrees, partly, no or unknown; not_applicable by logit_lens, which tells what the direction makes
            the model say) and a sentence.
        """
        *_, table = service.table(vector, recipe, evidence=True)
        return table.to_dict()

    def activity(sae: str = opening.sae, feature: int = opening.feature, text: str = "") -> list[dict]:
        """Tell where a feature fires in a text.

        Args:
            sae: the SAE as RELEASE/SAE_ID; /saes lists them.
            feature: the feature's number, from 0.
            text: what to read, at most 2,000 characters.

        Returns:
            One object per token of the text: token, activation (0 where it does not fire).
        """
        *_, found = service.activity(VectorRecipe(sae=sae, feature=feature), text)
        return [{"token": token, "activation": activation} for token, activation in found]

    def suggest(sae: str = opening.sae, feature: int = opening.feature) -> dict:
        """Try some thirty settings of weights, scale and components on a feature, of an SAE behind a layer also some
        with the vector injected behind an early layer, and judge each by its evidence.

        Takes a minute or more, and the first time for a model and a layer every token is read alone before.

        Args:
            sae: the SAE as RELEASE/SAE_ID; /saes lists them.
            feature: the feature's number, from 0.

        Returns:
            JSON: the best recipe, the settings of the growth that belong to it (inject_layer, inject_mode,
            inject_scale: pass them to /definition_tree with the recipe), a sentence on it, and all trials with their
            figures, the best first.
        """
        *_, suggestion = service.suggestion(VectorRecipe(sae=sae, feature=feature), TreeRecipe())
        return suggestion.to_dict()

    def components(sae: str = opening.sae, count: int = SHOWN, top: int = TOKENS) -> list[dict]:
        """Tell what the principal components of a model's token embeddings are, to which the weights in pca belong.

        Args:
            sae: an SAE of the model as RELEASE/SAE_ID; /saes lists them.
            count: how many components, the first ones.
            top: how many tokens at each end.

        Returns:
            One object per component: index (from 1), share (of the variance, 0 to 1), positive and negative (the tokens
            at its ends, the outermost first).
        """
        *_, found = service.components(sae, count=count, top=top)
        return [component.to_dict() for component in found]

    def saes(search: str = "") -> list[dict]:
        """The SAEs that can be loaded, and on which model.

        Args:
            search: words that must all occur in the SAE's name or its model's.

        Returns:
            One object per SAE: sae, model, hook, layer, d_sae, gated, neuronpedia_id.
        """
        return [entry.facts() for entry in find_saes(search, service.library.patterns)]

    start = asdict(opening) | {"max_nodes": min(TreeRecipe.max_nodes, service.settings.max_nodes)}

    def add(endpoint: Callable, *arguments, without: tuple[str, ...] = (), **queue) -> None:
        _add(page, _flat(endpoint, start, without), *arguments, **queue)

    for endpoint in (definition_tree, continue_tree):
        add(endpoint, ["picture", "tree"], "The tree as JSON (schema sae-multitool/definition-tree/1).",
            **on_model(service.settings))
    add(definition_trees, ["trees"], "JSON: a list of trees (schema sae-multitool/definition-tree/1), in the order of "
        "the prompts.", without=("prompt", "chat", "answer"), **on_model(service.settings))
    add(trim_tree, ["picture", "tree"], "The trimmed tree as JSON.")
    add(check_tree, ["picture", "tree"], 'The tree as JSON, with "evidence" (figures, a verdict, a sentence), and with '
        "lifts and activations at its nodes.", **on_model(service.settings))
    add(token_list, ["table"], "JSON: headers and data, one list per token.")
    add(check_list, ["list"],
        'JSON: the tokens with their activations, and "evidence" with figures, a verdict, a sentence.')
    add(suggest, ["suggestion"], "JSON: recipe, growth, sentence, trials.", **on_model(service.settings))
    add(activity, ["tokens"], "JSON: one object per token with token, activation.", **on_model(service.settings))
    add(components, ["components"], "JSON: one object per component with index, share, positive, negative.")
    add(saes, ["saes"], "JSON: one object per SAE with sae, model, hook, layer, d_sae, gated, neuronpedia_id.")


def _add(page: gr.Blocks, endpoint: Callable, answers: list[str], as_json: str, **queue) -> None:
    """Add an endpoint and its twin.

    Args:
        answers: what the documentation calls the endpoint's answers.
        as_json: what the twin's JSON is.
    """
    for function, names in ((endpoint, answers), (_as_json(endpoint, as_json), ["json"])):
        added = gr.api(shown_errors(function, on_page=False), api_name=function.__name__, **queue)
        event = page.fns[added["id"]]
        # Gradio would call them 1st, 2nd, …
        for part, name in zip(event.inputs, inspect.signature(function).parameters, strict=True):
            part.label = name
        for part, name in zip(event.outputs, names, strict=True):
            part.label = name


def _flat(endpoint: Callable, start: dict, without: tuple[str, ...]) -> Callable:
    """The endpoint with the settings of its recipes, one parameter each, in the place of the recipes.

    Args:
        start: what settings are where a call does not tell them, other than their own defaults.
        without: settings that are left at their defaults, and are no parameters.
    """
    parameters, described, makers = [], [], []
    for parameter in inspect.signature(endpoint).parameters.values():
        if not hasattr(parameter.annotation, "__dataclass_fields__"):
            parameters.append(parameter)
            continue
        settings = [setting for setting in recipe_fields(parameter.annotation) if setting.name not in without]
        makers.append((parameter.name, parameter.annotation, settings))
        described += [f"    {setting.name}: {setting.help}." for setting in settings]
        parameters += [_parameter(setting, start.get(setting.name, setting.default)) for setting in settings]
    if not makers:
        return endpoint

    def arguments(given: dict) -> dict:
        for name, kind, settings in makers:
            told = {setting.name: given.pop(setting.name) for setting in settings}
            # A list that is left out comes as null.
            empty = {setting.name: () for setting in settings if _is_list(setting) and told[setting.name] is None}
            given[name] = kind(**told | empty)
        return given

    def plain(*args, **kwargs):
        return endpoint(**arguments(bound(args, kwargs)))

    def streaming(*args, **kwargs):
        yield from endpoint(**arguments(bound(args, kwargs)))

    def bound(args, kwargs) -> dict:
        found = signature.bind(*args, **kwargs)
        found.apply_defaults()
        return found.arguments

    flat = streaming if inspect.isgeneratorfunction(endpoint) else plain
    signature = inspect.signature(endpoint).replace(parameters=parameters)
    flat.__name__ = endpoint.__name__
    flat.__signature__ = signature
    flat.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    said, _, returns = inspect.cleandoc(endpoint.__doc__).partition("Returns:")
    said, _, others = said.partition("Args:\n")
    flat.__doc__ = "\n".join([said.rstrip(), "", "Args:", *described, others.rstrip(), "", f"Returns:{returns}"])
    return flat


def _is_list(setting: RecipeField) -> bool:
    """Whether it is a list in JSON."""
    return get_origin(setting.type) is tuple


def _parameter(setting: RecipeField, default) -> inspect.Parameter:
    kind = setting.type
    if _is_list(setting):
        kind, default = list[get_args(kind)[0]], list(default) or None
    return inspect.Parameter(
        setting.name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=default,
        annotation=kind | None if default is None else kind,
    )


_TWIN = "_json"


def _as_json(endpoint: Callable, answer: str) -> Callable:
    """The endpoint with its answers as JSON texts; of a picture and a tree, the tree."""

    def text(result) -> str:
        return json.dumps(result[1] if isinstance(result, tuple) else result, ensure_ascii=False, allow_nan=False)

    @functools.wraps(endpoint)
    def plain(*args, **kwargs):
        return text(endpoint(*args, **kwargs))

    @functools.wraps(endpoint)
    def streaming(*args, **kwargs):
        yield from map(text, endpoint(*args, **kwargs))

    twin = streaming if inspect.isgeneratorfunction(endpoint) else plain
    twin.__name__ = endpoint.__name__ + _TWIN
    twin.__doc__ = inspect.cleandoc(endpoint.__doc__).partition("Returns:")[0] + f"Returns:\n    {answer}\n"
    # Gradio reads the parameters off the signature, and the return type too.
    twin.__signature__ = inspect.signature(endpoint).replace(return_annotation=str)
    return twin


def offer_json_tools(page: gr.Blocks) -> None:
    """Leave the twins alone as tools of a launched page's MCP server, by the plain names of the endpoints; and out of
    the page *Use via API*, so that it counts as many endpoints as tools.

    Gradio has no switch for either: all public endpoints are tools, and its client knows no names of the parameters of
    those that it is told to leave undocumented.
    """
    for listed in page.config["dependencies"]:
        if str(listed["api_name"]).endswith(_TWIN) and listed["api_visibility"] == "public":
            listed["api_visibility"] = "undocumented"
    server = page.mcp_server_obj
    if server is not None:
        server.tool_to_endpoint = {
            tool.removesuffix(_TWIN): endpoint
            for tool, endpoint in server.tool_to_endpoint.items()
            if endpoint.endswith(_TWIN)
        }


def _streamed(answers):
    """A tree as it grows, without a picture; in the end with it.

    Gradio sends what changes from one answer to the next, and lists that shrink inside one another reach its clients
    damaged. So a tree that has lost nodes (to max_nodes) comes after an empty one.
    """
    told = {}
    for answer in answers:
        if isinstance(answer, str):  # what is being waited for
            continue
        document, before, told = answer, told, answer.to_dict()
        if _shrinks(before, told):
            yield None, replace(document, tree=NO_TREE, complete=False).to_dict()
        if not document.complete:
            yield None, told
    yield _picture(document), told


def _shrinks(before, after) -> bool:
    """Whether a list anywhere in it has become shorter."""
    waiting = [(before, after)]
    for old, new in waiting:
        if isinstance(old, list) and isinstance(new, list):
            if len(new) < len(old):
                return True
            waiting += zip(old, new, strict=False)
        elif isinstance(old, dict) and isinstance(new, dict):
            waiting += [(old[name], new[name]) for name in old.keys() & new.keys()]
    return False


def _truth(name: str, value) -> bool:
    if not isinstance(value, bool):
        raise UserError(f"{name} is {shown(value)}; it must be true or false.")
    return value


def _shown(document: DefinitionTree) -> tuple[File, dict]:
    return _picture(document), document.to_dict()


def _picture(document: DefinitionTree) -> File:
    return file_data(save(render(document, ["png"])["png"], document.settings, "tree.png"), "image/png")
