"""Features whose trees are worth a look, each behind a button."""

import gradio as gr

from multitool.page.common import QUIETLY
from multitool.page.feature_choice import entry_shown
from multitool.page.opening import DEMO, Opening
from multitool.recipes.recipe import VectorRecipe
from multitool.store.demo_models import DEMO_MODEL, GEMMA_MODEL
from multitool.store.library import Library

_DEMO_FEATURES = {"rain": 927, "viruses": 1521, "prison": 648, "stars": 152, "symptoms": 513, "smell": 2006,
                  "military": 1785}
_LOCAL_GEMMA_FEATURES = {"prison": 278, "food": 1595, "courts": 1758, "sleep": 2741, "stars": 2470, "king": 1638,
                         "bank": 2715}
_GEMMA_2B_FEATURES = ((12, 121), (6, 17), (0, 0), (0, 7), (10, 777))

# By model: features whose trees are worth a look, by the text of a button.
EXAMPLES = {
    DEMO_MODEL: {name: VectorRecipe(sae=DEMO.sae, feature=feature) for name, feature in _DEMO_FEATURES.items()},
    GEMMA_MODEL: {
        name: VectorRecipe(sae="demo/gemma-3-270m/hook_embed", feature=feature)
        for name, feature in _LOCAL_GEMMA_FEATURES.items()
    },
    "google/gemma-2b": {
        f"layer {layer}: {feature}": VectorRecipe(
            sae=f"gemma-2b-res-jb/blocks.{layer}.hook_resid_post", feature=feature
        )
        for layer, feature in _GEMMA_2B_FEATURES
    },
}


def example_buttons(library: Library, sae: gr.Dropdown, opening: Opening) -> list[tuple[gr.Button, VectorRecipe]]:
    """A row of buttons for each model that has examples; the chosen model's is seen, or else the demo's."""
    offered = {
        model: {name: recipe for name, recipe in recipes.items() if library.offers(recipe.sae)}
        for model, recipes in EXAMPLES.items()
    }
    offered = {model: recipes for model, recipes in offered.items() if recipes}

    def seen(model: str) -> str:
        return model if model in offered else DEMO_MODEL

    def of_sae(name: str | None) -> dict:
        entry = entry_shown(library, name)
        chosen = seen(entry.model if entry else "")
        return {row: gr.update(visible=model == chosen) for model, row in rows.items()}

    rows, buttons = {}, []
    for model, recipes in offered.items():
        with gr.Row(elem_classes="examples", visible=model == seen(opening.entry.model)) as rows[model]:
            gr.Markdown("Examples")
            buttons += [(gr.Button(name, size="sm", min_width=60), recipe) for name, recipe in recipes.items()]
    if rows:
        sae.change(of_sae, sae, list(rows.values()), **QUIETLY)
    return buttons
