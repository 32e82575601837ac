"""Growing and checking trees on the page: the controls, and in words how far it is."""

import time
from functools import partial

import gradio as gr

from multitool.defaults import Opening, usual_growth
from multitool.document import DefinitionTree
from multitool.errors import UserError
from multitool.library import Library
from multitool.prompts import PROMPTS
from multitool.recipe import TreeRecipe
from multitool.ui_common import QUIETLY, as_number
from multitool.ui_controls import FeatureControls, vector_recipe
from multitool.ui_service import Service
from multitool.ui_steering import steering_controls, steering_settings, steering_values
from multitool.ui_views import pictures

# Next tokens of each path that are looked at; another number can come by a link.
_TOP_K = [("5, as published", 5), ("10", 10), ("20", 20), ("all above the cutoff", 0)]
CUTOFFS = ["1e-2", *(f"{digit}e-{power}" for power in range(3, 9) for digit in (5, 2, 1))]
_BETWEEN_PICTURES = 0.5  # seconds
_JUDGED_FROM = 50  # nodes; before, the time says little of what follows
N_CONTROLS = len(TreeRecipe.__dataclass_fields__)


def growth_controls(service: Service, controls: FeatureControls, opening: Opening) -> list:
    """The controls of prompt, growth and steering, in the order of TreeRecipe's fields, most of them folded away."""
    usual = usual_growth(opening.entry.model)
    top_k = gr.Radio(
        _TOP_K, value=usual.top_k, label="Next tokens looked at (top_k)", elem_id="top-k",
        info="The most probable ones of each path. All above the cutoff: a larger cutoff then says more in fewer nodes",
    )
    with gr.Accordion("Prompt and growth", open=False):
        growth = _growth_controls(service, top_k, usual)
    with gr.Accordion("Steering and injection", open=False, elem_id="steering"):
        steering = steering_controls()
    cutoff = growth[4]
    for chosen in (controls.model, controls.sae):  # at a visitor's choice: an example or a link brings its own growth
        chosen.input(partial(_suited, service.library, chosen is controls.model), [controls.model, controls.sae],
                     [top_k, cutoff], **QUIETLY)
    return [*growth, *steering]


def _suited(library: Library, by_model: bool, model: str, sae: str | None):
    """The choices that suit another model; nothing while it is the same.

    Args:
        by_model: whether the model was chosen, and the SAE will follow, or the other way round.
    """
    of_sae = library.find(sae).model if library.offers(sae or "") else None
    if of_sae in (None, model):
        return gr.skip(), gr.skip()
    usual = usual_growth(model if by_model else of_sae)
    return usual.top_k, _written(usual.cutoff)


def _growth_controls(service: Service, top_k: gr.Radio, usual: TreeRecipe) -> list:
    prompt, chat, answer = _prompt_controls(service)
    with gr.Row():
        cutoff = gr.Dropdown(
            CUTOFFS, value=_written(usual.cutoff), label="Cutoff", allow_custom_value=True, elem_id="cutoff",
            info="Smallest probability of a path. Ten times smaller grows some five to ten times as many nodes, and "
            "takes as much longer",
        )
        max_nodes = gr.Number(
            min(TreeRecipe.max_nodes, service.settings.max_nodes), label="Most nodes", precision=0, minimum=1,
            maximum=service.settings.max_nodes, elem_id="max-nodes",
            info="If there are more, the most probable are kept",
        )
    max_depth = gr.Slider(1, 50, TreeRecipe.max_depth, step=1, label="Longest path in tokens", elem_id="max-depth",
                          info="Definitions are cut off there")
    stop = gr.Checkbox(
        TreeRecipe.stop, label="Stop at the closing quote or the end of the text", elem_id="stop-at-quote",
        info="Without it a path goes on through the quote, to what the model would write next",
    )
    return [prompt, chat, answer, top_k, cutoff, max_depth, max_nodes, stop]


def _prompt_controls(service: Service) -> list:
    """Prompt, chat and answer; a menu fills them in, and shows which of its prompts they are."""
    with gr.Row():
        menu = gr.Dropdown(
            [(f"{name}: {prompt.asks_for}", name) for name, prompt in PROMPTS.items()], value="definition",
            label="Prompt menu", elem_id="prompt-menu", info="Fills in the prompt", min_width=200,
        )
        prompt = gr.Textbox(
            TreeRecipe.prompt, label="Prompt", max_lines=3, max_length=service.settings.max_prompt, elem_id="prompt",
            info="{ghost} stands where the unknown token goes. A definition closes the quote left open at the end.",
            scale=2, min_width=280,
        )
    chat = gr.Checkbox(
        TreeRecipe.chat, label="As a chat", elem_id="chat",
        info="For instruction-tuned models: the prompt is what a user says",
    )
    answer = gr.Textbox(
        TreeRecipe.answer, label="The answer begins with", max_lines=3, max_length=service.settings.max_prompt,
        info="What the assistant has said already. A definition closes the quote left open here.", elem_id="answer",
        visible=False,
    )
    controls = [prompt, chat, answer]
    menu.input(_of_menu, menu, controls, **QUIETLY)
    gr.on([control.change for control in controls], _in_menu, controls, menu, trigger_mode="always_last", **QUIETLY)
    chat.change(lambda on: gr.update(visible=on), chat, answer, **QUIETLY)
    return controls


def _of_menu(name: str) -> list:
    """What the controls show for a prompt of the menu."""
    return [PROMPTS[name].prompt, PROMPTS[name].chat, PROMPTS[name].answer]


def _in_menu(*values) -> str | None:
    """Which prompt of the menu the controls show; None if it is one's own."""
    return next((name for name in PROMPTS if _of_menu(name) == list(values)), None)


def growth_values(recipe: TreeRecipe) -> list:
    """What the controls show for a recipe, in their order."""
    return [recipe.prompt, recipe.chat, recipe.answer, _top_k_shown(recipe.top_k), _written(recipe.cutoff),
            recipe.max_depth, recipe.max_nodes, recipe.stop, *steering_values(recipe)]


def _top_k_shown(top_k: int):
    """The choices with that one chosen, should it be none of the usual ones."""
    others = [] if top_k in dict(_TOP_K).values() else [(str(top_k), top_k)]
    return gr.Radio(choices=[*_TOP_K, *others], value=top_k)


def _written(cutoff: float) -> str:
    """As the menu writes it: 1e-3."""
    mantissa, _, power = f"{cutoff:e}".partition("e")
    return f"{float(mantissa):.9g}e{int(power)}"


def grow(service: Service, *values):
    """Grow a tree; after every level the tree so far, and in words how far it is."""
    prompt, chat, answer, top_k, cutoff, max_depth, max_nodes, stop, *steering = values[-N_CONTROLS:]
    answer = answer if chat else ""  # then its control is not seen
    vector = vector_recipe(*values[:-N_CONTROLS])
    recipe = TreeRecipe(
        prompt=prompt, chat=chat, answer=answer, top_k=top_k, cutoff=as_number(cutoff), max_depth=max_depth,
        max_nodes=max_nodes, stop=stop, **steering_settings(steering),
    )
    yield from _progress(service.trees(vector, recipe))


def go_on(service: Service, document: DefinitionTree | None):
    """Grow on a tree whose growth was stopped."""
    if document is None:
        raise UserError("There is no tree to go on with. Grow one first.")
    yield from _progress(service.continued(document))


def check(service: Service, document: DefinitionTree | None):
    """Find the evidence for the tree that is shown."""
    if document is None:
        raise UserError("There is no tree to check. Grow one first.")
    yield {"status": "Checking … (the first time for a model and a layer it takes a minute or more)"}
    for answer in service.checked(document):
        yield {"status": answer} if isinstance(answer, str) else {"document": answer, "status": "Checked."}


def _progress(answers):
    """The tree as it grows, or in words what it waits for.

    Pictures of it are made now and then: they may take a twentieth of the time at most.
    """
    yield {"status": "Starting …"}
    next_picture = 0.0
    for answer in answers:
        if isinstance(answer, str):
            yield {"status": answer}
            continue
        if not len(answer.tree):  # the tree that is shown stays until there is something to show
            continue
        found, began = {"document": answer, "status": _how_far(answer)}, time.monotonic()
        if began >= next_picture:
            found |= pictures(answer)
            next_picture = began + max(_BETWEEN_PICTURES, 20 * (time.monotonic() - began))
        yield found


def _how_far(document: DefinitionTree) -> str:
    """In words how far a growing tree is, and how long it can take at most."""
    nodes, most = len(document.tree), document.settings["max_nodes"]
    words = (
        f"Growing: {document.depth_grown} tokens deep of at most {document.settings['max_depth']}, {nodes:,} nodes, "
        f"{document.seconds:.1f} s"
    )
    if _JUDGED_FROM <= nodes < most:
        # Larger trees take less per node, so this is rather too much.
        words += f"; {most:,} nodes, the most there can be, would take some {document.seconds / nodes * most:.0f} s"
    return words
