"""The tools of the MCP server: what each does, tells and answers in its own way; the rest is its endpoint's."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial

from multitool.page.agents import Tool, twin
from multitool.page.api import Endpoint, recipe_of
from multitool.page.brief import (
    brief_activity,
    brief_card,
    brief_continuations,
    brief_found,
    brief_items,
    brief_list,
    brief_suggestion,
    brief_table,
    brief_tree,
    brief_trees,
)
from multitool.page.kept import Kept
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
from multitool.recipes.atlas import AtlasSearch
from multitool.recipes.continuation import SteerRecipe
from multitool.recipes.finding import LikenessSearch, TextSearch, TokenSearch
from multitool.recipes.recipe import TreeRecipe, VectorRecipe
from multitool.trees.document import DefinitionTree

_LONG = "Reports its progress; if your client gives up, call the same again: the work goes on and the result is kept."
_SUMMARY = (
    "JSON, a summary: an id that the other tools take, recipe, result (nodes, complete, …), the most probable "
    "definitions with probability, beginnings of unfinished ones, and what to call next."
)


def tools(service: Service, endpoints: Sequence[Endpoint], kept: Kept | None = None) -> dict[str, Endpoint]:
    """The twin of every endpoint, by the endpoint's name."""
    kept = kept or Kept()
    own = _tools(service, kept)
    return {endpoint.name: twin(endpoint, own[endpoint.name], kept) for endpoint in endpoints}


def _tools(service: Service, kept: Kept) -> dict[str, Tool]:
    def of_tree(summary: str, work: Callable[[dict], Iterable], gives: str = _SUMMARY) -> Tool:
        return Tool(summary, gives, "definitions", 20, work, DefinitionTree.to_dict, partial(brief_tree, kept))

    return {
        "definition_tree": of_tree(
            "Grow a definition tree: what the model says a token with this feature's vector means.\n\n"
            "suggest finds settings that suit the feature; check_tree judges the tree, continue_tree grows the rest of "
            "an incomplete one. " + _LONG,
            lambda given: service.trees(*tree_recipes(given)),
        ),
        "continue_tree": of_tree(
            'Grow the rest of a definition tree that came back with "complete": false: its time was up. ' + _LONG,
            lambda given: service.continued(given["tree"]),
        ),
        "definition_trees": Tool(
            "Ask several prompts in one go: a definition tree of the same feature for each. " + _LONG,
            "JSON: for each prompt a summary as definition_tree gives it.", "definitions of each tree", 10,
            lambda given: service.trees_of_prompts(*recipes_of_prompts(given)),
            data=trees_json, brief=partial(brief_trees, kept),
        ),
        "trim_tree": of_tree(
            "Leave out the less probable nodes of a definition tree, or of a checked one those of little lift; at "
            "once, without the model.",
            lambda given: [trimmed(**given)],
        ),
        "check_tree": of_tree(
            "Find the evidence for a definition tree: does what fires the feature agree with it? Do this before "
            "trusting a tree. " + _LONG,
            lambda given: service.checked(given["tree"]),
            gives="Evidence (verdict, sentence), definitions with lift (nats) and activation, and else: " + _SUMMARY,
        ),
        "token_list": Tool(
            "List the tokens nearest to a feature's vector, discounting those near to everything; or by another "
            "measure. check_list also judges the list.",
            "JSON: headers, and data, one list per token.", "tokens", 50,
            work=lambda given: table_answers(service, given, evidence=given["evidence"]),
            data=table_json, brief=brief_table,
        ),
        "check_list": Tool(
            "List the tokens as token_list does, and find the evidence for the list: do they fire the feature? By a "
            "lens: does the feature write them?\n\n"
            "The first time for a model and a layer every token is read alone. " + _LONG,
            "JSON: the evidence (verdict, sentence, figures), and the tokens with their activations or changes.",
            "tokens", 50,
            work=lambda given: table_answers(service, given, evidence=True),
            data=lambda table: table.to_dict(), brief=brief_list,
        ),
        "suggest": Tool(
            "Try thirty to forty settings on a feature, and judge each by its evidence: which suit it best?\n\n"
            "Takes a minute or more. Give recipe and growth, which it answers with, to definition_tree. " + _LONG,
            "JSON: the best recipe and growth, a sentence, the best trials with their figures.", "trials", 5,
            work=lambda given: service.suggestion(recipe_of(VectorRecipe, given), TreeRecipe()),
            data=lambda found: found.to_dict(), brief=brief_suggestion,
        ),
        "continuations": Tool(
            "Continue a text with and without a feature, at several strengths: what does it make the model write?\n\n"
            "A continuation with a caution is broken by its strength: look at a smaller one. " + _LONG,
            "JSON: continuations, the unsteered one first, each with strength, text, caution, log_probability (nats a "
            "token under the unsteered model), repetition.", "continuations", 9,
            work=lambda given: service.continuations(recipe_of(VectorRecipe, given), recipe_of(SteerRecipe, given)),
            data=lambda found: found.to_dict(), brief=brief_continuations,
        ),
        "activity": Tool(
            "Tell where a feature fires in a text: a check of what a tree or a list says it means.",
            "JSON: on how many tokens it fires, the strongest, and the text's tokens with their activations.", "tokens",
            200, work=lambda given: service.activity(recipe_of(VectorRecipe, given), given["text"]),
            data=activity_json,
            brief=brief_activity,
        ),
        "feature_card": Tool(
            "Tell what is known of a feature: where it fires, what it writes, how often it fires, its neighbours. A "
            "first look, before a tree.",
            "JSON: contexts, written, histogram, nearest, described, label.", "contexts", 10,
            work=lambda given: service.whole_card(**given), data=lambda card: card.to_dict(), brief=brief_card,
        ),
        "find_by_text": Tool(
            "Find the features that fire on a text more than on plain prose, and those at each of its tokens. Start "
            "here, or with find_by_tokens, where no feature's number is known.",
            "JSON: features with figures (above_prose orders them) and a description; the text's tokens with the "
            "features that fire on each.", "features", 20,
            work=lambda given: service.found_by_text(recipe_of(TextSearch, given)),
            data=lambda found: found.to_dict(), brief=brief_found,
        ),
        "find_by_tokens": Tool(
            "Find the features nearest to a word or to a sum such as king - man + woman, from the weights alone; or "
            "those that fire most on a token.",
            "JSON: features with cosine, activation where it is known, and a description.", "features", 20,
            work=lambda given: service.found_by_tokens(recipe_of(TokenSearch, given)),
            data=lambda found: found.to_dict(), brief=brief_found,
        ),
        "find_like": Tool(
            "Find the features nearest to a feature, in its SAE and in others of the same model: what becomes of it in "
            "another layer?",
            "JSON: features with sae, cosine and a description.", "features", 20,
            work=lambda given: service.found_like(recipe_of(LikenessSearch, given)),
            data=lambda found: found.to_dict(), brief=brief_found,
        ),
        "find_in_atlas": Tool(
            "Find features by words in what bulk runs have told of them: definitions, tokens; at once, without the "
            "model. Filters by evidence.",
            "JSON: features with score, verdict, figures and a description.", "features", 20,
            work=lambda given: service.found_in_atlas(recipe_of(AtlasSearch, given)),
            data=lambda found: found.to_dict(), brief=brief_found,
        ),
        "components": Tool(
            "Tell what the principal components of a model's token embeddings are, to which the weights in pca belong.",
            "JSON: components with index, share, positive, negative (at most 50 tokens at each end).", "components", 50,
            work=lambda given: service.components(**given),
            data=lambda found: [component.to_dict() for component in found],
            brief=partial(brief_items, "components"),
        ),
        "saes": Tool(
            "The SAEs that can be loaded, and on which model; thousands without a search. Start here for a name.",
            "JSON: SAEs with sae, model, hook, layer, d_sae, l0, canonical, model_parameters, gated, neuronpedia_id, "
            "runs_here; total counts them.", "SAEs", 50,
            work=lambda given: [saes_json(service.library, given["search"])],
            data=lambda found: found, brief=partial(brief_items, "saes"),
        ),
    }
