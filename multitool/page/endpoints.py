"""The endpoints of the Gradio API, which answer with plain JSON and files, and the tools of the MCP server."""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from typing import Annotated, Any, TypedDict

import gradio as gr
from pydantic import Field

from multitool.jobs.components import MOST_AT_END
from multitool.page.api import Endpoint, Parameter, add_endpoint, recipe_of, recipe_parameters
from multitool.page.common import file_data, save
from multitool.page.gradio_workarounds import shrinks
from multitool.page.requested import (
    activity_json,
    recipes_of_prompts,
    saes_json,
    table_answers,
    table_json,
    tree_recipes,
    trees_json,
    trimmed,
)
from multitool.page.service import Service
from multitool.page.tools import tools
from multitool.page.values import TREE, checking
from multitool.pictures.figure import render
from multitool.recipes.atlas import AtlasSearch
from multitool.recipes.components import COMPONENTS_SHOWN, TOKENS_PER_END
from multitool.recipes.continuation import SteerRecipe
from multitool.recipes.fields import Valid, Whole, recipe_fields
from multitool.recipes.finding import LikenessSearch, TextSearch, TokenSearch
from multitool.recipes.recipe import OF_OWN_VECTOR, Cutoff, ListRecipe, TreeRecipe, VectorRecipe
from multitool.trees.document import DefinitionTree, read_tree
from multitool.trees.tree import NO_TREE

_STILL_THERE = 1.0  # seconds between answers that tell nothing new
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
    listed = endpoints(service, opening)
    twins = tools(service, listed)
    for endpoint in listed:
        callers = service.callers if endpoint.on_model else service.light_callers
        add_endpoint(page, endpoint, twins[endpoint.name], callers)


def endpoints(service: Service, opening: VectorRecipe) -> list[Endpoint]:
    """What programs can ask for.

    Args:
        opening: the SAE and feature that calls without them get.
    """
    vector = recipe_parameters(
        VectorRecipe, **{field.name: getattr(opening, field.name) for field in recipe_fields(VectorRecipe)}
    )
    most = service.settings.max_nodes
    growth = partial(
        recipe_parameters, TreeRecipe, max_nodes=min(TreeRecipe.max_nodes, most),
        kinds={"max_nodes": Annotated[Whole, Valid(f"here it must be a whole number from 1 to {most}"),
                                      Field(ge=1, le=most)]},
    )
    tree, listed = growth(), recipe_parameters(ListRecipe)
    kinds = {field.name: field.kind for field in recipe_fields(VectorRecipe)}
    one_feature = [
        Parameter("sae", str, "the SAE as RELEASE/SAE_ID; /saes lists them.", opening.sae, kinds["sae"]),
        Parameter("feature", int, "the feature's number, from 0.", opening.feature, kinds["feature"]),
    ]
    grown_tree = Parameter("tree", dict, "a tree JSON as /definition_tree returns it.", kind=TREE)
    picture_and_tree = {"picture": File, "tree": dict}
    found = [
        Endpoint(
            "definition_tree",
            "Grow a definition tree: what the model says a token with this feature's vector means.\n\n"
            "Streams while it grows (no picture yet, the tree so far); the last answer is whole.",
            [*vector, *tree], picture_and_tree,
            returns="The picture (PNG file) and the tree as JSON (schema sae-multitool/definition-tree/1).",
            returns_json="The tree as JSON (schema sae-multitool/definition-tree/1).",
            run=lambda given: streamed(service.trees(*tree_recipes(given))),
            streams=True, on_model=True,
        ),
        Endpoint(
            "continue_tree",
            'Grow the rest of a definition tree that came back incomplete ("complete": false): its time was up.\n\n'
            "Streams while it grows, as /definition_tree does; what there is of the tree is not computed again.",
            [grown_tree], picture_and_tree,
            returns="The picture (PNG file) and the tree as JSON.",
            returns_json="The tree as JSON (schema sae-multitool/definition-tree/1).",
            run=lambda given: streamed(service.continued(read_tree(given["tree"]))),
            streams=True, on_model=True,
        ),
        Endpoint(
            "definition_trees",
            "Ask several prompts in one go: a definition tree of the same feature for each.",
            [
                *vector, *growth(without=("prompt", "chat", "answer")),
                Parameter(
                    "prompts", list[str],
                    "up to 8, each a template with {ghost} in it once, or one of the menu by its name, as "
                    "/definition_tree takes them. null asks the menu's prompts that are no chats.", None,
                    Annotated[list, Valid("it must be a list, e.g. of the names meaning and synonym")],
                ),
            ],
            {"trees": list[dict]},
            returns="The trees as JSON (schema sae-multitool/definition-tree/1), in the order of the prompts.",
            returns_json="JSON: a list of trees (schema sae-multitool/definition-tree/1), in the order of the prompts.",
            run=lambda given: _result(service.trees_of_prompts(*recipes_of_prompts(given)), trees_json), waits=True,
            on_model=True,
        ),
        Endpoint(
            "trim_tree",
            "Leave out the less probable nodes of a definition tree; needs no model.",
            [
                Parameter("tree", dict, "a tree JSON as /definition_tree or /check_tree returns it.", kind=TREE),
                Parameter(
                    "cutoff", float, "smallest cumulative probability of a node that stays, between 0 and 1.", 1e-3,
                    Cutoff,
                ),
                Parameter(
                    "lift", float,
                    "of a tree that /check_tree returned: the least lift of a node that stays, in nats; nodes on the "
                    "way to one stay too. null leaves out none.", None,
                ),
            ],
            picture_and_tree,
            returns="The picture (PNG file) and the trimmed tree as JSON.",
            returns_json="The trimmed tree as JSON.",
            run=_trimmed,
        ),
        Endpoint(
            "check_tree",
            "Find the evidence for a definition tree: does what fires the feature agree with it?\n\n"
            "Its definitions are read as plain text and compared with other features' definitions; its nodes' "
            "probabilities with those under the centroid and random ghosts.",
            [grown_tree], picture_and_tree,
            returns='The picture (PNG file) and the tree as JSON, with "evidence" (figures, a verdict, a sentence; '
            "judged_texts and judged_activations, the definitions that the verdict speaks of; feature_maximum, to take "
            "activations as shares of it), at each node lift_centroid and lift_random in nats, and at the ends of "
            "definitions that were read the activation.",
            returns_json='The tree as JSON, with "evidence" (figures, a verdict, a sentence), and with lifts and '
            "activations at its nodes.",
            run=lambda given: _result(service.checked(read_tree(given["tree"])), _shown), waits=True, on_model=True,
        ),
        Endpoint(
            "token_list",
            "List the tokens nearest to a feature's vector, discounting those near to everything; or by another "
            "measure.",
            [
                *vector, *listed,
                Parameter("evidence", bool, "add the activation as a column, or by a lens how much a push along the "
                          "feature's decoder changes the token; /check_list tells the verdict too.", False)
            ],
            {"table": Table},
            returns="A dataframe: rank, token, token_id, score, distance_to_vector, distance_to_centroid; cosine, dot, "
            "logit_lens or jacobian_lens where that is the measure; activation where the vocabulary was scanned for "
            "it; change (of the log-probability, in nats) with evidence by a lens.",
            returns_json="JSON: headers and data, one list per token.",
            run=lambda given: table_json(_last(table_answers(service, given, evidence=given["evidence"]))),
        ),
        Endpoint(
            "check_list",
            "List the tokens as /token_list does, and find the evidence for the list: do they fire the feature? By a "
            "lens: does the feature write them?\n\n"
            "The first time for a model and a layer every token is read alone, which takes a while; by a lens the "
            "model is pushed along the feature's decoder instead.",
            [*vector, *listed], {"list": dict},
            returns='JSON (schema sae-multitool/token-list/1): the tokens with their activations (by a lens: with the '
            'change of their log-probability under the push, in nats), and "evidence" with figures, a verdict (agrees, '
            "partly, no or unknown) and a sentence.",
            returns_json='JSON: the tokens with their activations or changes, and "evidence" with figures, a verdict, '
            "a sentence.",
            run=lambda given: _result(table_answers(service, given, evidence=True), _as_dict), waits=True,
            on_model=True,
        ),
        Endpoint(
            "suggest",
            "Try thirty to forty settings of weights, scale and components on a feature, of an SAE after a layer also "
            "some with the vector injected after an early layer, and judge each by its evidence.\n\n"
            "Takes a minute or more, and the first time for a model and a layer every token is read alone before.",
            one_feature, {"suggestion": dict},
            returns="JSON: the best recipe, the settings of the growth that belong to it (inject_layer, inject_mode, "
            "inject_scale: pass them to /definition_tree with the recipe), a sentence on it, and all trials, the best "
            "first: the setting, its figures, the first definitions by it.",
            returns_json="JSON: recipe, growth, sentence, trials.",
            run=lambda given: _result(service.suggestion(recipe_of(VectorRecipe, given), TreeRecipe()), _as_dict),
            waits=True, on_model=True,
        ),
        Endpoint(
            "continuations",
            "Continue a text with and without a feature: once as it is, and once for each strength with the model "
            "steered along the feature's decoder direction.",
            [
                *(given for given in vector if given.name in ("sae", "feature", *OF_OWN_VECTOR)),
                *recipe_parameters(SteerRecipe),
            ],
            {"continuations": dict},
            returns="JSON (schema sae-multitool/continuations/1): continuations, the unsteered one first (strength 0), "
            "each with strength, text, tokens, token_ids, ended (the model ended the text), log_probability (nats a "
            "token under the unsteered model), repetition (share of runs of four tokens that have occurred before), "
            "caution (where the steering breaks the text; else empty), activations (of the feature on each token as "
            "the unsteered model reads it; null for several features); norms (the mean residual norm at each hook); "
            "settings, complete.",
            returns_json="JSON: continuations, the unsteered one first, each with strength, text, figures, caution, "
            "activations.",
            run=lambda given: _result(
                service.continuations(recipe_of(VectorRecipe, given), recipe_of(SteerRecipe, given)), _as_dict
            ),
            waits=True, on_model=True,
        ),
        Endpoint(
            "activity",
            "Tell where a feature fires in a text.",
            [*one_feature, Parameter("text", str, "what to read, at most 2,000 characters.", "")],
            {"tokens": list[dict]},
            returns="One object per token of the text: token, activation (0 where it does not fire).",
            returns_json="JSON: one object per token with token, activation.",
            run=lambda given: _result(service.activity(recipe_of(VectorRecipe, given), given["text"]), activity_json),
            waits=True, on_model=True,
        ),
        Endpoint(
            "feature_card",
            "Tell what is known of a feature: where it fires, what it writes, how often it fires, its neighbours.",
            one_feature, {"card": dict},
            returns="JSON (schema sae-multitool/feature-card/1): contexts (before, token: the whole word, after, "
            "activation), strongest (tokens of the vocabulary scan, where one is kept), written (lens, more, less), "
            "histogram (of its activations on plain prose), nearest (features of the SAE by decoder), described (by "
            "the atlas), label (Neuronpedia's), page (there). What is not known is left out.",
            returns_json="JSON: contexts, written, histogram, nearest, described, label.",
            run=lambda given: _result(service.whole_card(**given), _as_dict), waits=True, on_model=True,
        ),
        Endpoint(
            "find_by_text",
            "Find the features that fire on a text more than on plain prose, and those at each of its tokens.",
            recipe_parameters(TextSearch, sae=opening.sae, text=""), {"found": dict},
            returns="JSON (schema sae-multitool/found-features/1): features, the best first, each with sae, feature, "
            "above_prose (its maximum less prose, by which they are ordered), maximum, mean, fires_on (a number of "
            "tokens), prose (the mean of its maxima on passages of plain prose), description; tokens, each with the "
            "features that fire on it; settings, sentence.",
            returns_json="JSON: features with figures and a description; tokens with the features that fire on each.",
            run=lambda given: _result(service.found_by_text(recipe_of(TextSearch, given)), _as_dict),
            waits=True, on_model=True,
        ),
        Endpoint(
            "find_by_tokens",
            "Find the features nearest to a word or to a sum such as king - man + woman, from the weights alone; or "
            "those that fire most on a token.",
            recipe_parameters(TokenSearch, sae=opening.sae, tokens=""), {"found": dict},
            returns="JSON (schema sae-multitool/found-features/1): features, the best first, each with sae, feature, "
            "cosine (of its direction and the tokens'), activation (on the token alone, where that is known), "
            "description; settings, sentence.",
            returns_json="JSON: features with cosine, activation and description.",
            run=lambda given: _as_dict(_last(service.found_by_tokens(recipe_of(TokenSearch, given)))),
        ),
        Endpoint(
            "find_like",
            "Find the features nearest to a feature, in its SAE and in others of the same model: what becomes of it in "
            "another layer?",
            recipe_parameters(LikenessSearch, sae=opening.sae, feature=opening.feature), {"found": dict},
            returns="JSON (schema sae-multitool/found-features/1): features, the best first, each with sae, feature, "
            "cosine, description; settings, sentence.",
            returns_json="JSON: features with cosine and description.",
            run=lambda given: _as_dict(_last(service.found_like(recipe_of(LikenessSearch, given)))),
        ),
        Endpoint(
            "find_in_atlas",
            "Find features by words in what bulk runs have told of them: their definitions, the tokens of their lists, "
            "the tokens that fire them.",
            recipe_parameters(AtlasSearch), {"found": dict},
            returns="JSON (schema sae-multitool/found-features/1): features, the best first, each with sae, feature, "
            "score (where there are words), verdict, auroc, first_token_entropy (nats), encoder_decoder_cosine, "
            "description; settings, sentence.",
            returns_json="JSON: features with score, verdict, figures and a description.",
            run=lambda given: _as_dict(_last(service.found_in_atlas(recipe_of(AtlasSearch, given)))),
        ),
        Endpoint(
            "components",
            "Tell what the principal components of a model's token embeddings are, to which the weights in pca belong.",
            [
                Parameter("sae", str, "an SAE of the model as RELEASE/SAE_ID; /saes lists them.", opening.sae,
                          kinds["sae"]),
                Parameter("count", int, "how many components, the first ones.", COMPONENTS_SHOWN,
                          Annotated[Whole, Field(ge=1)]),  # at most as many as the model's embeddings have
                Parameter("top", int, "how many tokens at each end.", TOKENS_PER_END,
                          Annotated[Whole, Field(ge=1, le=MOST_AT_END)]),
            ],
            {"components": list[dict]},
            returns="One object per component: index (from 1), share (of the variance, 0 to 1), positive and negative "
            "(the tokens at its ends, the outermost first).",
            returns_json="JSON: one object per component with index, share, positive, negative.",
            run=lambda given: [component.to_dict() for component in _last(service.components(**given))],
        ),
        Endpoint(
            "saes",
            "The SAEs that can be loaded, and on which model.",
            [Parameter("search", str, "words that must all be known of it: `gemma-2-2b layer 12 canonical`.", "")],
            {"saes": list[dict]},
            returns="One object per SAE: sae, model, hook, layer, d_sae, l0 (features that fire at a token, on "
            "average), canonical, model_parameters, gated, neuronpedia_id, runs_here (yes, no or not known, and why).",
            returns_json="JSON: one object per SAE with sae, model, hook, layer, d_sae, l0, canonical, "
            "model_parameters, gated, neuronpedia_id, runs_here.",
            run=lambda given: saes_json(service.library, given["search"]),
        ),
    ]
    return [replace(endpoint, run=checking(endpoint.parameters, endpoint.run)) for endpoint in found]


def _trimmed(given: dict) -> tuple[File, dict]:
    return _shown(trimmed(read_tree(given["tree"]), given["cutoff"], given["lift"]))


def _as_dict(result) -> dict:
    return result.to_dict()


def _result(answers: Iterable, told: Callable) -> Iterator:
    """The result as ``told`` puts it; and None now and then while it is waited for. Of a program that has left
    nothing tells a function that answers once: only between answers Gradio sees to it, and ends this."""
    due = time.monotonic() + _STILL_THERE
    result: Any = None
    for answer in answers:
        if time.monotonic() >= due:
            yield None
            due = time.monotonic() + _STILL_THERE
        result = answer
    yield told(result)


def _last(answers: Iterable):
    """The result, behind the words on what is being waited for."""
    *_, found = answers
    return found


def _shown(document: DefinitionTree) -> tuple[File, dict]:
    return picture_file(document), document.to_dict()


def picture_file(document: DefinitionTree) -> File:
    """The tree's picture."""
    return file_data(save(render(document, ["png"])["png"], document.settings, "tree.png"), "image/png")


def streamed(
    answers: Iterable[str | DefinitionTree], picture: Callable[[DefinitionTree], File | None] = picture_file
) -> Iterator[tuple[File | None, dict]]:
    """A tree as it grows, without a picture; in the end with it. One that has lost nodes (to max_nodes) comes after an
    empty one: see ``shrinks``.

    Args:
        answers: of the service.
        picture: draws the whole tree.
    """
    told: dict = {}
    due = time.monotonic() + _STILL_THERE
    for answer in answers:
        if isinstance(answer, str):  # what is being waited for
            if told and time.monotonic() >= due:  # the same again, so that one who has left is missed
                yield None, told
                due = time.monotonic() + _STILL_THERE
            continue
        due = time.monotonic() + _STILL_THERE
        document, before, told = answer, told, answer.to_dict()
        if shrinks(before, told):
            yield None, replace(document, tree=NO_TREE, complete=False).to_dict()
        if not document.complete:
            yield None, told
    yield picture(document), told
