"""Which SAE the page opens with, where nobody has said so."""

from dataclasses import dataclass

from multitool.errors import UserError
from multitool.page.settings import ServerSettings
from multitool.process import variable
from multitool.recipes.recipe import TreeRecipe, VectorRecipe
from multitool.store.demo_models import DEMO_MODELS
from multitool.store.entries import SaeEntry
from multitool.store.hub import may_read
from multitool.store.library import Library

DEMO = VectorRecipe(sae="demo/hook_embed", feature=927)
GEMMA = VectorRecipe(sae="gemma-2b-res-jb/blocks.6.hook_resid_post", feature=17)
GPT2 = VectorRecipe(sae="gpt2-small-res-jb/blocks.0.hook_resid_pre", feature=0)

# On the demo all next tokens above a larger cutoff hold ten times as much of the probability as five each, the single
# words among them, at about the same cost: docs/growth.md. The other local model starts so too, all else as published.
_DEMO_GROWTH = TreeRecipe(top_k=0, cutoff=5e-4)

_HOW_TO_GET_GEMMA = (
    "This Space has no access to Gemma-2B, the model that the tool was made for. Its owner gets it by accepting the "
    "licence at [google/gemma-2b](https://huggingface.co/google/gemma-2b) and setting a token that may read it as the "
    "secret `HF_TOKEN` (Settings → Variables and secrets)."
)


def usual_growth(model: str) -> TreeRecipe:
    """What the page's controls of growth begin with on a model."""
    return _DEMO_GROWTH if model in DEMO_MODELS else TreeRecipe()


@dataclass(frozen=True)
class Opening:
    """What the page opens with. Its SAE and its model are loaded."""

    recipe: VectorRecipe
    entry: SaeEntry
    notice: str = ""  # Markdown: what the page tells of how it came to it


def choose_opening(library: Library, settings: ServerSettings) -> Opening:
    """The operator's choice; else on a Space Gemma-2B if it may be read, or GPT-2; else, or if all fails, the demo.

    Raises:
        UserError: the operator's choice, or the demo, cannot be loaded.
    """
    if settings.sae:
        try:
            return _loaded(library, VectorRecipe(sae=settings.sae, feature=settings.feature))
        except UserError as error:
            names = f"{variable('sae')} and {variable('feature')}"
            raise UserError(f"{names} name what the page opens with. {error}") from error
    if not settings.on_space:
        return _loaded(library, DEMO)
    notice = ""
    for recipe in (GEMMA, GPT2):
        if not library.offers(recipe.sae):
            continue
        if recipe is GEMMA and not may_read(library.find(recipe.sae).model):
            notice = _HOW_TO_GET_GEMMA
            continue
        try:
            return _loaded(library, recipe, notice)
        except UserError as error:
            notice = f"{recipe.sae} could not be loaded. {error}"
    return _loaded(library, DEMO, notice)


def _loaded(library: Library, recipe: VectorRecipe, notice: str = "") -> Opening:
    entry = library.find(recipe.sae)
    sae, subject = library.load(entry)
    sae.feature(recipe.single_feature())
    library.run(subject.name, subject.folder)
    library.pin(entry)
    return Opening(recipe, entry, notice)
