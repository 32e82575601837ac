"""Features whose trees are worth a look, one click each."""

import gradio as gr

from multitool.defaults import DEMO, Opening
from multitool.demo_model import DEMO_MODEL
from multitool.library import Library
from multitool.recipe import VectorRecipe
from multitool.ui_common import QUIETLY
from multitool.ui_controls import FeatureControls

_DEMO_FEATURES = {"rain": 927, "viruses": 1521, "prison": 648, "stars": 152, "symptoms": 513, "smell": 2006,
                  "military": 1785}
_GEMMA_FEATURES = ((12, 121), (6, 17), (0, 0), (0, 7), (10, 777))
# By model: features whose trees are worth a look, by the text of a button.
EXAMPLES = {
    DEMO_MODEL: {name: VectorRecipe(sae=DEMO.sae, feature=feature) for name, feature in _DEMO_FEATURES.items()},
    "google/gemma-2b": {
        f"layer {layer}: {feature}": VectorRecipe(
            sae=f"gemma-2b-res-jb/blocks.{layer}.hook_resid_post", feature=feature
        )
        for layer, feature in _GEMMA_FEATURES
    },
}


def examples(library: Library, controls: FeatureControls, opening: Opening) -> list[tuple[gr.Button, VectorRecipe]]:
    """A row of buttons for each model that has examples; the chosen model's is seen, or else the demo's."""
    offered = {
        model: {name: recipe for name, recipe in recipes.items() if library.offers(recipe.sae)}
        for model, recipes in EXAMPLES.items()
    }
    offered = {model: recipes for model, recipes in offered.items() if recipes}

    def seen(model: str) -> list[bool]:
        shown = model if model in offered else DEMO_MODEL
        return [one == shown for one in offered]

    def of_sae(name: str | None) -> dict:
        model = library.find(name).model if library.offers(name or "") else ""
        return {row: gr.update(visible=is_seen) for row, is_seen in zip(rows, seen(model), strict=True)}

    rows, buttons = [], []
    for recipes, is_seen in zip(offered.values(), seen(opening.entry.model), strict=True):
        with gr.Row(elem_classes="examples", visible=is_seen) as row:
            gr.Markdown("Examples")
            buttons += [(gr.Button(name, size="sm", min_width=60), recipe) for name, recipe in recipes.items()]
        rows.append(row)
    if rows:
        controls.sae.change(of_sae, controls.sae, rows, **QUIETLY)
    return buttons
