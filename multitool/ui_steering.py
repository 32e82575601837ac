"""The page's controls for what is done to the residual stream while a tree grows."""

from collections.abc import Sequence

import gradio as gr

from multitool.recipe import POSITIONS, TreeRecipe
from multitool.suggestion import INJECTION
from multitool.ui_common import as_number

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
