"""The tab with the definition tree: what its buttons, a link and a saved tree set going.

A growth is asked for first, and then grows: by the button, a feature that is chosen, the offer to follow all next
tokens, or a link.
While it grows it shows itself; when it has ended, however it did, the display shows what has come of it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import gradio as gr
from gradio.events import Dependency

from multitool.errors import UserError
from multitool.jobs.find import FoundFeatures
from multitool.jobs.suggest import Setting
from multitool.page.common import PRIVATE, QUIETLY, counted, event, pick
from multitool.page.examples import example, example_buttons
from multitool.page.feature_card import CardPanel
from multitool.page.find_tab import FindTab, row_chosen
from multitool.page.growing import check, go_on, grow
from multitool.page.growth_controls import growth_controls, suited_growth
from multitool.page.opening import DEMO, Opening, usual_growth
from multitool.page.recipe_controls import filled, recipes_shown, values_shown, values_within
from multitool.page.result import Done, Made, Result, Views, as_shown
from multitool.page.sae_choice import entry_shown
from multitool.page.service import Service
from multitool.page.settings import USUAL_MOST_NODES
from multitool.page.suggest_tab import SuggestTab, setting_chosen
from multitool.page.tree_display import TreeDisplay
from multitool.page.tree_views import link_query, recipes_told
from multitool.page.turns import Turns, only_latest, until_another
from multitool.page.vector_controls import SUITING, VectorControls
from multitool.page.view import TREE, View
from multitool.recipes import links
from multitool.recipes.captions import title_told
from multitool.recipes.directions import DIRECTIONS
from multitool.recipes.recipe import TreeRecipe, VectorRecipe
from multitool.store.demo_models import DEMO_FOLDER
from multitool.trees.document import DefinitionTree, read_tree

# The tree of the demo's opening feature is kept, so that the page opens on it.
DEMO_TREE = DEMO_FOLDER / "opening_tree.json"
_NO_TURN = -1  # the number of no growth: none begins by it
_INTO_VIEW = (
    "() => { const tabs = document.querySelector('#tabs'), top = tabs.getBoundingClientRect().top; "
    "if (top < 0 || top > innerHeight / 2) tabs.scrollIntoView(); }"
)


def tree_tab(
    service: Service, vector_controls: VectorControls, opening: Opening, found: FindTab,
    suggested: SuggestTab, tabs: gr.Tabs, card: CardPanel, views: Views,
) -> list[Dependency]:
    """Build the tab and wire it to the controls.

    Args:
        found: features that have been found: one that is chosen grows.
        suggested: settings that have been tried: the best one grows, and each that is chosen.
        tabs: of which this is one.
        card: the features near to the one that it is of grow, too.

    Returns:
        The events at which a feature has been chosen, and stands in the controls.
    """
    library = service.library
    examples = example_buttons(library, vector_controls.fields["sae"], opening)
    actions = gr.Row(elem_classes="actions")
    growth = growth_controls(service, opening)
    controls = {**vector_controls.fields, **growth}
    opened = read_tree(DEMO_TREE.read_bytes()) if opening.recipe == DEMO else None
    view = View(
        TREE, partial(_told, service), partial(_values, service, opening), "tree-view", "Grow tree",
        free=partial(_is_kept, service), filling=partial(filled, library),
    )
    suited = gr.State(opening.entry.model)  # whose growth the controls were last given
    display = TreeDisplay(service, opened, controls, actions, view, views, suited)
    named = {
        **display.parts, **controls, "model": vector_controls.model,
        # The growth that was asked for last: the page sends its number with it, so that each growth knows its own.
        "number": gr.Number(0, visible=False),
        "suited": suited, "tabs": tabs, "settings": suggested.settings, **found.states,
    }

    def on(handler, takes, gives, **options) -> dict:
        return event(handler, pick(named, takes), pick(named, gives), shelf=service.shelf, **options)

    # What sets a growth going: a click is answered before it grows, as its events follow each other.
    grown = ("document", *display.result.gives, "link", "reason", "status", "bar", "verdict", "view", "definitions",
             "go_on", "offer")
    on_the_model = {"show_progress": "hidden", **counted(service.callers)}
    in_turn = {**on_the_model, "trigger_mode": "multiple"}
    growing = on(
        only_latest(display.result.making(partial(grow, service))), ("turns", "number", *display.result.takes), grown,
        **in_turn,
    )
    continuing = on(
        only_latest(display.result.beside(partial(go_on, service), anew=True)), ("turns", "number", "document"), grown,
        **in_turn,
    )
    asking = on(_asked, ("turns",), ("number", "status"), **QUIETLY)
    filling = ("number", "status", "suited", *controls)
    named["grow"].click(**asking)
    named["go_on"].click(**asking)
    growths = [named["grow"].click(**growing), named["go_on"].click(**continuing)]
    # Where the address leads here, first the tree to compare with.
    beside = on(
        only_latest(partial(_grow_beside, service, opening)), ("turns", "number", "beside", "kept"), ("status", "kept"),
        **in_turn,
    )
    growths.append(display.result.asked.change(**asking).then(**beside).then(**growing))

    def of_example(chosen: gr.EventData, turns: Turns) -> dict:  # Gradio knows by the annotation what to give
        one = example(library, chosen.number)
        return _filled(service, one.vector, one.growth, turns)

    growths.append(examples.select(**on(of_example, ("turns",), filling, **QUIETLY)).success(**growing))
    following_all = on(partial(_following_all, service, controls), ("turns", "document"), filling, **QUIETLY)
    growths.append(named["follow_all"].click(**following_all).success(**growing))

    def chosen(row: gr.EventData, **states) -> dict:  # Gradio knows by the annotation what to give
        return _chosen(service, row.number, **states)

    choosing = found.table.select(**on(
        chosen, ("turns", "sae", "weights", *found.states), (*filling, "tabs"), **QUIETLY
    ))
    choosing.success(None, js=_INTO_VIEW, **PRIVATE)

    def near(feature: gr.EventData, **states) -> dict:
        return _near(service, feature.number, **states)

    choices = [
        choosing, card.card.select(**on(near, ("turns", "sae", "weights"), filling, **QUIETLY)),
        *(choice(**asking) for choice in vector_controls.chosen),
    ]
    growths += [choice.success(**growing) for choice in choices]

    def setting(row: gr.EventData, **states) -> dict:
        return _with_setting(service, controls, setting_chosen(states.pop("settings"), row.number), **states) | {
            "tabs": gr.Tabs(selected=TREE)
        }

    applying = suggested.table.select(**on(setting, ("turns", "settings", *controls), (*filling, "tabs"), **QUIETLY))
    growths.append(applying.success(**growing))
    applying.success(None, js=_INTO_VIEW, **PRIVATE)
    best = on(partial(_with_best, service, controls), ("turns", "settings", *controls), filling, **QUIETLY)
    growths.append(suggested.trying.success(**best).success(**growing))

    checking = named["check"].click(**on(
        until_another(display.result.beside(partial(check, service), anew=False)), ("turns", "document"), grown,
        **on_the_model,
    ))
    # What follows a growth, whichever it was, and a check. A tree whose growth broke off is shown as far as it grew.
    done = display.result.done
    display.show_after(done.change(**display.reset_when_done))
    card.tell_after(done.change, named["document"])
    turns = named["turns"]
    for growth in growths:  # (To Gradio a stop is a failure too.)
        growth.failure(**event(_refused, {"turns": turns}, {"done": done}, show_progress="hidden"))

    stop = named["stop_growth"]
    stop.click(Turns.stop, turns, None, **QUIETLY)
    # One event each: of a list, each would wait for those before it, and may then stop what has just been started.
    for running in (*growths, checking):
        stop.click(None, cancels=running, **PRIVATE)
    display.show_after(stop.click(**display.reset))

    # What else brings another tree, or fills the controls in.
    brought = ("document", *display.result.gives, "reason", "suited", *controls)
    opening_saved = on(
        partial(_opened, service, controls, display.result), ("turns", "upload", "beside", *controls), brought,
        show_progress="hidden", **counted(service.light_callers),
    )
    named["upload"].upload(**opening_saved)

    display.result.refused.change(Turns.stop, turns, None, **QUIETLY)
    refusing = display.result.refusing(pick(named, ("document", "reason")), shelf=service.shelf)
    display.show_after(refusing.success(**display.reset))
    suiting = on(suited_growth, ("model", "suited"), ("top_k", "cutoff", "suited"), **QUIETLY)
    vector_controls.model.change(**suiting)
    return choices


def _asked(turns: Turns) -> dict:
    """A growth is asked for: its number, and for the status that it is on its way."""
    return {"number": turns.ask(), "status": "Starting …"}


def _refused(turns: Turns) -> dict:
    return {"done": Done(anew=True)} if turns.refuse() else {}


def _filled(service: Service, vector: VectorRecipe, tree: TreeRecipe, turns: Turns) -> dict:
    """A growth is asked for, and the controls as recipes set them."""
    return _asked(turns) | filled(service.library, values_shown(service.library, vector, tree))


def _chosen(
    service: Service, number: int, turns: Turns, sae: str, weights: str, found: FoundFeatures | None, token: int | None
) -> dict:
    """A growth is asked for: that of a feature that was found. All else stays as it is set, where that suits it.

    Args:
        number: of its row.
        sae, weights: what the controls show.
        token: the one of a text that was chosen.
    """
    library, (name, feature) = service.library, row_chosen(found, token, number)
    before, opened = entry_shown(library, sae), {"tabs": gr.Tabs(selected=TREE)}
    if before is None or before.model != library.find(name).model:
        usual = usual_growth(library.find(name).model)
        return _filled(service, VectorRecipe(sae=name, feature=feature), usual, turns) | opened
    return _of_feature(turns, name, feature, sae, weights) | opened


def _of_feature(turns: Turns, name: str, feature: int, sae: str, weights: str) -> dict:
    """A growth is asked for: that of a feature of an SAE of the same model. All else stays, where that suits it.

    Args:
        name: of its SAE.
        sae, weights: what the controls show.
    """
    stays = name == sae and (weights == SUITING or DIRECTIONS[weights].of_feature)
    filling = {"sae": name, "feature": str(feature)} | ({} if stays else {"weights": SUITING})
    return _asked(turns) | filling


def _near(service: Service, number, turns: Turns, sae: str, weights: str) -> dict:
    """A growth is asked for: that of a feature near to the one that the card is of.

    Args:
        number: the feature's; from a browser, so it may be anything.
    """
    if type(number) is not int or number < 0:
        raise UserError("This feature is not there any more. Type its number.")
    service.library.find(sae)  # it may have been typed
    return _of_feature(turns, sae, number, sae, weights)


def _with_setting(
    service: Service, controls: Mapping, setting: Setting, turns: Turns, **values
) -> dict:
    """A growth is asked for: by a setting that was tried, all else of the growth as the controls show it.

    Args:
        values: what the controls show.
    """
    _, tree = recipes_shown(**values)
    found = values_within(controls, service.library, setting.recipe, setting.trial.candidate.growth(tree))
    return _asked(turns) | filled(service.library, found)


def _with_best(
    service: Service, controls: Mapping, turns: Turns, settings: Sequence[Setting] | None, sae: str, feature: str,
    **values,
) -> dict:
    """The same by the best setting; nothing where another feature has been chosen since it was asked for."""
    if not settings or (settings[0].recipe.sae, str(settings[0].recipe.feature)) != (sae, feature.strip()):
        return {"number": _NO_TURN}
    return _with_setting(service, controls, settings[0], turns, sae=sae, feature=feature, **values)


def _following_all(service: Service, controls: Mapping, turns: Turns, document: DefinitionTree | None) -> dict:
    """The growth of the tree that is shown is asked for once more, with all next tokens above the cutoff."""
    if document is None:
        raise UserError("There is no tree to grow so. Grow one first.")
    vector, tree = recipes_told(document)
    values = values_within(controls, service.library, vector, replace(tree, top_k=0))
    return _asked(turns) | filled(service.library, values)


def _usual(service: Service, sae: str) -> TreeRecipe:
    """What the controls of growth begin with for an SAE. Raises UserError if there is no such."""
    usual = usual_growth(service.library.find(sae).model)
    return replace(usual, max_nodes=min(usual.max_nodes, service.settings.max_nodes))


def _told(service: Service, *, beside: str, **values) -> dict[str, str]:
    """The parameters of a link to a tree, beside which another one stands, or none."""
    vector, tree = recipes_shown(**values)
    return links.tree_told(vector, tree, _usual(service, vector.sae)) | ({"beside": beside} if beside else {})


def _values(service: Service, opening: Opening, parameters: Mapping[str, str]) -> dict:
    beside = parameters.get("beside", "")
    if beside:
        _recipes_of(service, opening, links.parsed(beside))
    return values_shown(service.library, *_recipes_of(service, opening, parameters)) | {"beside": beside}


def _recipes_of(
    service: Service, opening: Opening, parameters: Mapping[str, str]
) -> tuple[VectorRecipe, TreeRecipe]:
    """The recipes that a link's parameters tell. Raises UserError if a value cannot be."""
    vector = links.vector_of(parameters, opening.recipe)
    return vector, links.tree_of(parameters, _usual(service, vector.sae))


def _is_kept(service: Service, *, beside: str, **values) -> bool:
    return not beside and service.keeps(*recipes_shown(**values))


def _grow_beside(service: Service, opening: Opening, beside: str, kept: DefinitionTree | None):
    """The tree to compare with, as a link tells it; none where it tells none."""
    if beside == link_query(kept).removeprefix("?"):
        return
    if not beside:
        yield {"kept": None}
        return
    for answer in service.trees(*_recipes_of(service, opening, links.parsed(beside))):
        yield {"status": f"The tree to compare with: {answer}"} if isinstance(answer, str) else {"kept": answer}


def _opened(
    service: Service, controls: Mapping, result: Result, turns: Turns, upload: str, beside: str, **values
) -> dict:
    """A saved tree, and the controls as they were for it, where they can be shown here; else they stay.

    Args:
        beside: the query of the tree to compare with.
        values: what the controls show.
    """
    try:
        saved = Path(upload).read_bytes()
    except FileNotFoundError as error:
        raise UserError("The file is not here any more: later uploads have taken its room. Open it again.") from error
    document = read_tree(saved)
    if service.settings.on_space and len(document.tree) > USUAL_MOST_NODES:  # its views are kept for every visitor
        raise UserError(
            f"This tree has {len(document.tree):,} nodes; the page shows trees of up to {USUAL_MOST_NODES:,} here. "
            "Trim it first (/trim_tree), or open it on a machine of your own."
        )
    turns.stop()
    filling, told = {}, None
    try:
        values = told = values_within(controls, service.library, *recipes_told(document))
        filling = filled(service.library, values)
    except UserError:
        pass
    made = Made(title_told(document.settings), as_shown(recipes_shown, values), told)
    answer = result.answer(made, {"beside": beside})
    return {"document": document, "reason": "", "done": Done(anew=True), **answer, **filling}
