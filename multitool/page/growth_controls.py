"""The controls of a tree's growth: prompt, growth and interventions; how they are read and filled."""

import gradio as gr
from gradio.components import Component

from multitool.page.common import LATEST, QUIETLY, as_number, event
from multitool.page.opening import Opening, usual_growth
from multitool.page.service import Service
from multitool.recipes.fields import recipe_fields
from multitool.recipes.prompts import PROMPTS
from multitool.recipes.recipe import POSITIONS, TreeRecipe

# Next tokens of each path that are looked at; another number can come by a link.
_TOP_K = [("1", 1), ("5, as published", 5), ("10", 10), ("20", 20), ("all above the cutoff", 0)]
# What counts only while the model is to be changed.
INTERVENTIONS = (
    "steer_strength", "clamp", "steer_at", "steer_sinks", "inject_layer", "inject_mode", "inject_scale",
)
CUTOFFS = ["1e-2", *(f"{digit}e-{power}" for power in range(3, 9) for digit in (5, 2, 1))]


def growth_controls(service: Service, opening: Opening) -> dict[str, Component]:
    """The controls of prompt, growth and interventions, folded away, by the fields of TreeRecipe; and ``intervene``,
    the switch without which no intervention counts."""
    with gr.Row(elem_id="growth"):
        with gr.Accordion("Prompt and growth", open=False):
            prompt, growth = _prompt_controls(service), _growth_controls(service, usual_growth(opening.entry.model))
        intervene = gr.Checkbox(
            False, label="Change the model while the tree grows", elem_id="intervene", min_width=280,
            info="Strengthen the feature, or put the vector into a layer",
        )
    with gr.Column(visible=False, elem_id="interventions") as seen:
        interventions = _intervention_controls()
    intervene.change(lambda on: gr.update(visible=on), intervene, seen, **QUIETLY)
    return {**prompt, **growth, "intervene": intervene, **interventions}


def tree_recipe(*, intervene: bool, **values) -> TreeRecipe:
    """The recipe that the controls show, from their values by name. Raises UserError for a value that cannot be."""
    told = values | {
        "answer": values["answer"] if values["chat"] else "",  # without a chat its control is not seen
        "cutoff": as_number(values["cutoff"]),
        "clamp": as_number(values["clamp"]) if (values["clamp"] or "").strip() else None,
    }
    return TreeRecipe(**{name: value for name, value in told.items() if intervene or name not in INTERVENTIONS})


def tree_values(recipe: TreeRecipe) -> dict:
    """What the controls show for a recipe, by name."""
    values = {field.name: getattr(recipe, field.name) for field in recipe_fields(TreeRecipe)}
    return values | {
        "cutoff": _written(recipe.cutoff), "clamp": "" if recipe.clamp is None else str(recipe.clamp),
        "intervene": recipe.intervenes,
    }


def top_k_showing(top_k: int) -> gr.Radio:
    """The control of ``top_k`` with this number, which becomes one of its choices if it is none of them."""
    others = [] if top_k in dict(_TOP_K).values() else [(str(top_k), top_k)]
    return gr.Radio(choices=[*_TOP_K, *others], value=top_k)


def suited_growth(model: str, suited: str) -> dict:
    """The growth that suits another model than the one that the controls were set for. Else what is shown stays."""
    if model == suited:
        return {}
    usual = usual_growth(model)
    return {"top_k": usual.top_k, "cutoff": _written(usual.cutoff), "suited": model}


def _prompt_controls(service: Service) -> dict[str, Component]:
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
    controls = {"prompt": prompt, "chat": chat, "answer": answer}
    menu.input(**event(_of_menu, {"name": menu}, controls, **LATEST))
    naming = event(_in_menu, controls, menu, **LATEST)
    gr.on([control.change for control in controls.values()], **naming)
    chat.change(lambda on: gr.update(visible=on), chat, answer, **QUIETLY)
    return controls


def _of_menu(name: str) -> dict:
    """What the controls show for a prompt of the menu."""
    return {"prompt": PROMPTS[name].prompt, "chat": PROMPTS[name].chat, "answer": PROMPTS[name].answer}


def _in_menu(**values) -> str | None:
    """Which prompt of the menu the controls show; None if it is one's own."""
    return next((name for name in PROMPTS if _of_menu(name) == values), None)


def _growth_controls(service: Service, usual: TreeRecipe) -> dict[str, Component]:
    top_k = gr.Radio(
        _TOP_K, value=usual.top_k, label="Next tokens looked at (top_k)", elem_id="top-k",
        info="How many of the most probable ones each path follows; the bar above the tree shows what is left out",
    )
    with gr.Row():
        cutoff = gr.Dropdown(
            CUTOFFS, value=_written(usual.cutoff), label="Cutoff", allow_custom_value=True, elem_id="cutoff",
            info="Smallest probability of a path. Ten times smaller gives five to ten times as many nodes, and "
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
    return {"top_k": top_k, "cutoff": cutoff, "max_nodes": max_nodes, "max_depth": max_depth, "stop": stop}


def _intervention_controls() -> dict[str, Component]:
    """Steering, clamping and injection; all off."""
    with gr.Row():
        strength = gr.Slider(
            -2, 2, TreeRecipe.steer_strength, step=0.05, label="Steering strength", elem_id="steer-strength",
            min_width=220,
            info="At the SAE's hook, along the decoder direction; in mean residual norms; 0: off",
        )
        clamp = gr.Textbox(
            "", label="Clamp the feature to", elem_id="clamp", min_width=160, placeholder="off", max_lines=1,
            max_length=40, info="Times its typical maximum, e.g. 1.5; empty: off",
        )
        where = gr.Radio(
            [(what, at) for at, what in POSITIONS.items()], value=TreeRecipe.steer_at, label="Steer and clamp",
            elem_id="steer-at", min_width=300,
        )
    sinks = gr.Checkbox(
        TreeRecipe.steer_sinks, label="Steer and clamp at the prompt's first and special tokens too",
        elem_id="steer-sinks", info="Models park attention there, and residuals there are many times longer",
    )
    with gr.Row():
        layer = gr.Number(
            TreeRecipe.inject_layer, label="Inject after layer", precision=0, minimum=-1, elem_id="inject-layer",
            min_width=220, info="The vector goes in there, at the ghost's position; −1: as the embedding",
        )
        mode = gr.Radio(
            ["replace", "add"], value=TreeRecipe.inject_mode, label="Injection", elem_id="inject-mode", min_width=160,
            info="Replaces what is there, or is added to it",
        )
        scale = gr.Slider(
            0.1, 10, TreeRecipe.inject_scale, step=0.1, label="Injection scale", elem_id="inject-scale", min_width=300,
            info="Its length, in mean residual norms there",
        )
    return {
        "steer_strength": strength, "clamp": clamp, "steer_at": where, "steer_sinks": sinks, "inject_layer": layer,
        "inject_mode": mode, "inject_scale": scale,
    }


def _written(cutoff: float) -> str:
    """As the menu writes it: 1e-3."""
    mantissa, _, power = f"{cutoff:e}".partition("e")
    return f"{float(mantissa):.9g}e{int(power)}"
