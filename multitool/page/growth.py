"""Growing and checking trees on the page: the controls, and in words how far it is."""

import contextlib
import functools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import gradio as gr
import numpy as np

from multitool.errors import UserError
from multitool.jobs.candidates import INJECTION
from multitool.page.common import QUIETLY, as_number
from multitool.page.opening import Opening, usual_growth
from multitool.page.result_title import Made, heading
from multitool.page.service import Service
from multitool.page.tree_views import pictures
from multitool.page.vector_controls import vector_recipe
from multitool.recipes.captions import title_told
from multitool.recipes.prompts import PROMPTS
from multitool.recipes.recipe import POSITIONS, TreeRecipe, VectorRecipe
from multitool.trees.document import DefinitionTree

# Next tokens of each path that are looked at; another number can come by a link.
_TOP_K = [("1", 1), ("5, as published", 5), ("10", 10), ("20", 20), ("all above the cutoff", 0)]
CUTOFFS = ["1e-2", *(f"{digit}e-{power}" for power in range(3, 9) for digit in (5, 2, 1))]
_BETWEEN_PICTURES = 0.5  # seconds
_FEWEST = 8  # paths: fewer take hardly less time
_FASTER = 0.85  # of the ratio of two levels to that of the two before, as measured on the demo
_FIELDS = list(TreeRecipe.__dataclass_fields__)
N_CONTROLS = len(_FIELDS)


def growth_controls(service: Service, opening: Opening) -> list:
    """The controls of prompt, growth and steering, in the order of TreeRecipe's fields, most of them folded away."""
    usual = usual_growth(opening.entry.model)
    top_k = gr.Radio(
        _TOP_K, value=usual.top_k, label="Next tokens looked at (top_k)", elem_id="top-k",
        info="How many of each path, the most probable ones; how much that leaves out is told below",
    )
    with gr.Accordion("Prompt and growth", open=False):
        controls = _growth_controls(service, top_k, usual)
    with gr.Accordion("Steering and injection", open=False, elem_id="steering"):
        return [*controls, *steering_controls()]


def growth_of_model(controls: list) -> list:
    """Those of the growth's controls that follow the model: the next tokens looked at, and the cutoff."""
    return [controls[_FIELDS.index(name)] for name in ("top_k", "cutoff")]


def suited_growth(model: str, before: str) -> tuple:
    """What suits another model than before: for ``growth_of_model``, and the model. Else what is shown stays."""
    if model == before:
        return (gr.skip(),) * 3
    usual = usual_growth(model)
    return usual.top_k, _written(usual.cutoff), model


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
    return [recipe.prompt, recipe.chat, recipe.answer, recipe.top_k, _written(recipe.cutoff), recipe.max_depth,
            recipe.max_nodes, recipe.stop, *steering_values(recipe)]


def filling(values: list) -> list:
    """The answer that fills in all controls, the feature's and then those of growth, with their values.

    A number of next tokens that is none of the usual ones becomes one of the choices.
    """
    top_k = len(values) - N_CONTROLS + _FIELDS.index("top_k")
    others = [] if values[top_k] in dict(_TOP_K).values() else [(str(values[top_k]), values[top_k])]
    shown = gr.Radio(choices=[*_TOP_K, *others], value=values[top_k])
    return [*values[:top_k], shown, *values[top_k + 1 :]]


def _written(cutoff: float) -> str:
    """As the menu writes it: 1e-3."""
    mantissa, _, power = f"{cutoff:e}".partition("e")
    return f"{float(mantissa):.9g}e{int(power)}"


@dataclass
class Turns:
    """The growths that one visitor asks for: each ends the one before, and only the last is told of.

    It is changed in place: a growth that is running sees that another has been asked for.
    """

    asked: int = 0
    started: int = 0
    running: bool = False  # the last one, or it is waited for

    def ask(self) -> int:
        """A growth is asked for; its number."""
        self.asked += 1
        self.running = True
        return self.asked

    def start(self, number: int) -> bool:
        """Whether the growth of that number is the last, and so begins."""
        if number != self.asked:
            return False
        self.started, self.running = number, True
        return True

    def end(self, number: int) -> None:
        """The growth of that number has ended."""
        if number == self.asked:
            self.running = False

    def refuse(self) -> None:
        """None was begun where one was waited for: the queue was full. One that has begun ends by itself."""
        if self.started < self.asked:
            self.running = False

    def stop(self) -> None:
        """Whichever is running ends, and none is begun."""
        self.asked += 1
        self.running = False


def only_latest(growth: Callable) -> Callable:
    """The growth, a generator of answers, as long as no other has been asked for.

    It takes the turns and its own number before everything else.
    """

    @functools.wraps(growth)
    def streaming(turns: Turns, number: int, *arguments):
        if not turns.start(number):
            return
        try:
            with contextlib.closing(growth(*arguments)) as answers:
                for answer in answers:
                    if number != turns.asked:
                        return
                    yield answer
        except UserError:
            if number == turns.asked:
                raise
        finally:
            turns.end(number)

    return streaming


def recipes_shown(*values) -> tuple[VectorRecipe, TreeRecipe]:
    """The recipes that all controls of a tree show, the feature's and then those of growth, from their values in order.

    Raises:
        UserError: a value cannot be.
    """
    prompt, chat, answer, top_k, cutoff, max_depth, max_nodes, stop, *steering = values[-N_CONTROLS:]
    answer = answer if chat else ""  # then its control is not seen
    return vector_recipe(*values[:-N_CONTROLS]), TreeRecipe(
        prompt=prompt, chat=chat, answer=answer, top_k=top_k, cutoff=as_number(cutoff), max_depth=max_depth,
        max_nodes=max_nodes, stop=stop, **steering_settings(steering),
    )


def grow(service: Service, *values):
    """Grow a tree; after every level the tree so far, and in words how far it is."""
    shown, told = recipes_shown(*values), False
    for answer in _progress(service.trees(*shown)):
        if not told and "document" in answer:
            made = Made(title_told(answer["document"].settings), shown)
            answer, told = answer | {"made": made, "title": heading(made)}, True
        yield answer


def no_tree(reason: str) -> dict:
    """What leaves the page without a tree, after one that could not be grown."""
    return {"document": None, "made": None, "title": "", "reason": reason}


def go_on(service: Service, document: DefinitionTree | None):
    """Grow on a tree whose growth was stopped."""
    if document is None:
        raise UserError("There is no tree to go on with. Grow one first.")
    yield from _progress(service.continued(document))


def check(service: Service, turns: Turns, document: DefinitionTree | None):
    """Find the evidence for the tree that is shown; it comes to nothing when another tree is asked for meanwhile."""
    asked = turns.asked
    if document is None:
        raise UserError("There is no tree to check. Grow one first.")
    yield {"status": "Checking … (the first time for a model and a layer it takes a minute or more)"}
    for answer in service.checked(document):
        if turns.asked != asked:
            return
        yield {"status": answer} if isinstance(answer, str) else {"document": answer, "status": "Checked."}


def _progress(answers):
    """The tree as it grows, or in words what it waits for.

    Pictures of it are made now and then: they may take a twentieth of the time at most.
    """
    hidden = gr.update(visible=False)
    yield {"status": "Starting …", "go_on": hidden, "offer": hidden, "reason": ""}
    next_picture, levels = 0.0, []
    for answer in answers:
        if isinstance(answer, str):
            yield {"status": answer}
            continue
        if not len(answer.tree):  # the tree that is shown stays until there is something to show
            continue
        levels.append(_open_paths(answer))
        found, began = {"document": answer, "status": _how_far(answer, levels)}, time.monotonic()
        if began >= next_picture:
            found |= pictures(answer)
            next_picture = began + max(_BETWEEN_PICTURES, 20 * (time.monotonic() - began))
        yield found


def _how_far(document: DefinitionTree, levels: list[int]) -> str:
    """In words how far a growing tree is, and how long it takes in all, where that can be told.

    Args:
        levels: how many paths each level has followed up, with the next one's behind.
    """
    words = (
        f"Growing: {document.depth_grown} tokens deep of at most {document.settings['max_depth']}, "
        f"{len(document.tree):,} nodes, {document.seconds:.1f} s"
    )
    in_all = seconds_in_all(levels, document.seconds, document.settings["max_depth"] - document.depth_grown)
    return words if in_all is None else f"{words}; some {in_all:.0f} s in all"


def seconds_in_all(levels: list[int], seconds: float, most: int) -> float | None:
    """How long a growth takes in all; None as long as its levels do not become smaller: then there is no telling.

    Every path takes about as long as those before. Levels become smaller faster and faster.

    Args:
        levels: how many paths each level has followed up, with the next one's behind.
        seconds: for those that have been followed up.
        most: levels that can follow.
    """
    *done, level = levels
    if not done or not level or level >= done[-1]:
        return None
    left, ratio = 0.0, level / done[-1]
    for _ in range(most):
        left += max(level, _FEWEST)
        ratio *= _FASTER
        level *= ratio
        if level < 1:
            break
    return seconds + left * seconds / sum(done)


def _open_paths(document: DefinitionTree) -> int:
    """How many paths the next level of a growing tree follows up."""
    tree = document.tree
    return int(np.count_nonzero((tree.depth == document.depth_grown) & ~tree.end))


# In the order of the controls.
STEERING = ("steer_strength", "clamp", "steer_at", *INJECTION)


def steering_controls() -> list:
    """Steering, clamping and injection; all off."""
    gr.HTML(
        "<p>Strengthen the feature while the model answers, or put the vector into the middle of the model. As long as "
        "these are 0, empty and −1, nothing is done.</p>",
        apply_default_css=False, padding=False, elem_id="steering-help",
    )
    with gr.Row():
        strength = gr.Slider(
            -2, 2, TreeRecipe.steer_strength, step=0.05, label="Steering strength", elem_id="steer-strength",
            min_width=220,
            info="At the SAE's hook, along the decoder direction; in mean residual norms",
        )
        clamp = gr.Textbox(
            "", label="Clamp the feature to", elem_id="clamp", min_width=160, placeholder="off", max_lines=1,
            info="Times its typical maximum, e.g. 1.5; empty: off",
        )
        where = gr.Radio(
            [(what, at) for at, what in POSITIONS.items()], value=TreeRecipe.steer_at, label="Steer and clamp",
            elem_id="steer-at", min_width=300,
        )
    with gr.Row():
        layer = gr.Number(
            TreeRecipe.inject_layer, label="Inject behind layer", precision=0, minimum=-1, elem_id="inject-layer",
            min_width=220, info="The vector goes in there, at the ghost's position; −1: as the embedding",
        )
        mode = gr.Radio(
            ["replace", "add"], value=TreeRecipe.inject_mode, label="Injection", elem_id="inject-mode", min_width=160,
            info="In the place of what is there, or added to it",
        )
        scale = gr.Slider(
            0.1, 10, TreeRecipe.inject_scale, step=0.1, label="Injection scale", elem_id="inject-scale", min_width=300,
            info="Its length, in mean residual norms there",
        )
    return [strength, clamp, where, layer, mode, scale]


def steering_values(recipe: TreeRecipe) -> list:
    """What the controls show for a recipe, in their order."""
    values = {name: getattr(recipe, name) for name in STEERING}
    return list((values | {"clamp": "" if recipe.clamp is None else str(recipe.clamp)}).values())


def steering_settings(values: Sequence) -> dict:
    """The settings that the controls show, from their values in their order."""
    settings = dict(zip(STEERING, values, strict=True))
    return settings | {"clamp": as_number(settings["clamp"]) if (settings["clamp"] or "").strip() else None}
