"""Features whose trees or lists are worth a look, by name.

Of the demo's layers those whose definitions fire them: verdict *agrees* in its atlas. Of the layers of Gemma 3 270M
those whose trees agreed at least in part when they were checked, or else whose token lists tell what fires them. Of
Gemma-2B those that the published notebook has, with the settings of its author (scripts/published_outputs.json), and
after what it shows of them.
"""

from dataclasses import dataclass, replace
from functools import partial
from html import escape
from typing import Any

import gradio as gr

from multitool.errors import UserError
from multitool.page.common import QUIETLY, event
from multitool.page.found_html import choosable
from multitool.page.opening import DEMO, Opening, usual_growth
from multitool.page.sae_choice import entry_shown
from multitool.recipes.recipe import TreeRecipe, VectorRecipe
from multitool.store.choosing import layer_shown
from multitool.store.entries import SaeEntry
from multitool.store.library import Library
from multitool.store.registry import find_sae


@dataclass(frozen=True)
class Example:
    """A feature with the settings that its tree is grown by."""

    name: str
    vector: VectorRecipe
    cutoff: float | None = None  # None: as the page's controls begin with on its model
    about: str = ""  # what else is to be told of it

    @property
    def growth(self) -> TreeRecipe:
        usual = usual_growth(find_sae(self.vector.sae).model)
        return usual if self.cutoff is None else replace(usual, cutoff=self.cutoff)


def _of(sae: str, **features: int) -> tuple[Example, ...]:
    """Examples of an SAE, each by its name, as its weights suit."""
    named = {name.replace("_", " "): VectorRecipe(sae=sae, feature=feature) for name, feature in features.items()}
    return tuple(Example(name, vector) for name, vector in named.items())


def _of_layer(layer: int, about: str, **features: int) -> tuple[Example, ...]:
    """The same of a layer of Gemma 3 270M, with the growth that was checked."""
    examples = _of(f"demo/gemma-3-270m/blocks.{layer}.hook_resid_post", **features)
    return tuple(replace(one, cutoff=2e-3, about=about) for one in examples)


def _of_gemma(
    name: str, layer: int, feature: int, *, weights: str = "encoder", about: str = "", cutoff: float | None = None,
    **settings,
) -> Example:
    sae = f"gemma-2b-res-jb/blocks.{layer}.hook_resid_post"
    return Example(name, VectorRecipe(sae=sae, feature=feature, weights=weights, **settings), cutoff, about)


_LOOK_AT_LIST = "Look at its token list: its tree says little"
_TREE = "Its tree is in the published notebook"
_LIST = "Its token list is in the published notebook"

EXAMPLES = (
    *_of(DEMO.sae, rain=927, viruses=1521, prison=648, stars=152, symptoms=513, smell=2006, military=1785),
    *_of("demo/blocks.1.hook_resid_post", stories=701, telephones=1766, schools=1517, birds=1927, elections=1956,
         planets=2272),
    *_of("demo/blocks.6.hook_resid_post", microbes=800, arts=2588, ships=552, computers=2662, military=150,
         parents=2791),
    *_of("demo/blocks.12.hook_resid_post", planets=1135, sciences=126, machines=2904, diseases=651, weekdays=1869,
         countries=182),
    *_of("demo/gemma-3-270m/hook_embed", prison=278, food=1595, courts=1758, sleep=2741, stars=2470, king=1638,
         bank=2715),
    *_of_layer(0, _LOOK_AT_LIST, teeth=816, bones=2590, weapons=2787),
    *_of_layer(5, "", clothing=2539, memory=2827, communication=1662),
    *_of_layer(5, _LOOK_AT_LIST, selection=574),
    *_of_layer(9, "", thinking=472, courage=1714),
    *_of_layer(9, _LOOK_AT_LIST, farming=703, protection=1443, removal=2756),
    *_of_layer(13, "", roads=2726, battles=1007, feet=432),
    _of_gemma("“de”", 0, 0, scale=3.8, cutoff=10**-2.8, about=f"{_TREE}, and its list: “de” in many scripts"),
    _of_gemma("a style of dress", 0, 2343, scale=3.8, cutoff=5e-5, about=_TREE),
    _of_gemma("December", 0, 16, scale=3.25, about=_LIST),
    _of_gemma("the act or process of", 6, 10, scale=2.5, cutoff=1e-3, about=_TREE),
    _of_gemma("“Ar”", 6, 8924, scale=3.85, pca=(0.24,), about=_LIST),
    _of_gemma("emoji", 10, 233, weights="decoder", scale=2.15, pca=(0.27,), about=f"{_LIST}, which says little"),
    _of_gemma("a sudden thought", 12, 121, scale=3.8, cutoff=5e-5, about=_TREE),
    _of_gemma("thoughts, memories", 12, 121, weights="decoder", scale=2.25, about=_LIST),
)


def example_buttons(library: Library, sae: gr.Dropdown, opening: Opening) -> gr.HTML:
    """The examples of the chosen SAE, or else of its model, or else of the demo. A click on one is the event
    ``select``, whose data tell its ``number``, as ``example`` takes it."""
    shown = choosable("examples", examples_html(library, opening.recipe.sae), elem_classes="examples")
    sae.change(**event(partial(examples_html, library), {"sae": sae}, shown, **QUIETLY))
    return shown


def example(library: Library, number: Any) -> Example:
    """The example of that number. Raises UserError if there is none, or none that is served here."""
    if isinstance(number, int) and 0 <= number < len(EXAMPLES):
        library.find(EXAMPLES[number].vector.sae)
        return EXAMPLES[number]
    raise UserError("This is no example any more. Choose another one.")


def examples_html(library: Library, sae: str | None) -> str:
    """The examples for what the controls show, as HTML."""
    entry = entry_shown(library, sae)
    offered = {number: one for number, one in enumerate(EXAMPLES) if library.offers(one.vector.sae)}
    of = {number: library.find(one.vector.sae) for number, one in offered.items()}
    chosen = [number for number in offered if entry and of[number].name == entry.name]
    chosen = chosen or [number for number in offered if entry and of[number].model == entry.model]
    chosen = chosen or [number for number in offered if of[number].name == DEMO.sae]
    buttons = "".join(_button(number, offered[number], of[number], entry) for number in chosen)
    return f"<span>Examples</span>{buttons}" if buttons else ""


def _button(number: int, one: Example, of: SaeEntry, entry: SaeEntry | None) -> str:
    """An example, which says its layer where it is of another SAE of the chosen one's model."""
    name = one.name
    if entry and entry.model == of.model and entry.name != of.name:
        name += f" (layer {layer_shown(of)})"
    vector = one.vector
    settings = [
        f"Feature {vector.feature} of {vector.sae}", *[f"{vector.weights} weights"] * bool(vector.weights),
        *[f"scale {vector.scale}"] * bool(vector.scale), *[f"component 1: {weight:g}" for weight in vector.pca],
    ]
    told = ", ".join(settings)
    title = escape(f"{told}. {one.about}".rstrip(". ") + ".", quote=True)
    return f'<button type="button" data-number="{number}" tabindex="0" title="{title}">{escape(name)}</button>'
