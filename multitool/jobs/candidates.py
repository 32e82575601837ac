"""The settings that a suggestion tries, its candidates."""

import math
from dataclasses import dataclass, replace

from multitool.model.subject import Subject
from multitool.recipes.directions import DIRECTIONS
from multitool.recipes.recipe import TreeRecipe, VectorRecipe
from multitool.store.entries import SaeEntry

WEIGHTS = ("encoder", "decoder", "vocabulary", "mapped", "pullback")
SCALES = (0.4, 0.7, 1.0, 1.5)  # times the model's mean token distance
PULLBACK_SCALES = (DIRECTIONS["pullback"].relative_scale, *SCALES[1:])
COMPONENTS = ((), (0.2,))
INJECTION = ("inject_layer", "inject_mode", "inject_scale")


@dataclass(frozen=True)
class Candidate:
    """What is tried: the weights, the scale in units of the model's mean token distance, the components; and behind
    which layer the vector is injected, if it is."""

    weights: str
    relative_scale: float = 1.0  # of an injected vector that of its token list
    pca: tuple[float, ...] = ()
    inject_layer: int = -1
    inject_mode: str = "replace"
    inject_scale: float = 1.0  # in mean residual norms

    @property
    def injection(self) -> dict:
        """The settings of the tree that say it, by their names: alike for those that can be asked together."""
        return {name: getattr(self, name) for name in INJECTION}

    def of(self, recipe: VectorRecipe, subject: Subject) -> VectorRecipe:
        """The recipe with these settings in it."""
        # The usual scale stays unsaid, so that the recipe is the plain one.
        usual = self.relative_scale == DIRECTIONS[self.weights].relative_scale
        scale = None if usual else self.relative_scale * subject.space.mean_distance
        return recipe.by(self.weights, scale=scale, pca=self.pca)

    def growth(self, recipe: TreeRecipe) -> TreeRecipe:
        """The growth that goes with it: the recipe's, with the vector injected where it is, and nowhere else."""
        return replace(recipe, **self.injection)

    def __str__(self) -> str:
        if self.inject_layer >= 0:
            how = "added" if self.inject_mode == "add" else "put in"
            times = f" {self.inject_scale:g} ×" if self.inject_scale != 1 else ""
            return f"{self.weights}, {how}{times} after layer {self.inject_layer}"
        components = f", components {', '.join(map(str, self.pca))}" if self.pca else ""
        return f"{self.weights}, {self.relative_scale:g} × the usual scale{components}"


PUBLISHED = (Candidate("encoder"), Candidate("decoder"))  # the first is the default
RANDOM = Candidate("random")  # a random direction for every feature: what is chance
GRID = tuple(
    Candidate(weights, scale, pca) for weights in WEIGHTS
    for scale in (PULLBACK_SCALES if weights == "pullback" else SCALES) for pca in COMPONENTS
)
ON_EMBEDDING = tuple(candidate for candidate in GRID if candidate.weights != "pullback")  # there it is the encoder
# Tried besides, of SAEs after a layer. Added so, the decoder's definitions are worth twice as much as among the
# embeddings (``Figures.found`` 0.24 against 0.12, on 24 features of the demo's layers 6 and 12), and now and then more
# than those of any other weights. Replacing the stream seldom gives the best definitions, but where it does the gain is
# large. The encoder, other lengths, other layers and SAEs on the embedding gave less; vocabulary and mapped weights are
# better among the embeddings.
INJECTED = (
    Candidate("decoder", inject_layer=0, inject_mode="add", inject_scale=2.0),
    Candidate("decoder", inject_layer=1, inject_mode="add", inject_scale=3.0),
    Candidate("decoder", inject_layer=1),
)


def candidates_for(entry: SaeEntry, subject: Subject) -> tuple[Candidate, ...]:
    """What is tried on an SAE: an injection only where it reads after a layer, and a layer is left to read it."""
    if entry.kind == "embed":
        return ON_EMBEDDING
    last = math.inf if subject.n_layers is None else subject.n_layers - 2
    return (*GRID, *(candidate for candidate in INJECTED if candidate.inject_layer <= last))


def candidate_columns(candidate: Candidate) -> list:
    """Weights, scale, components, injected: as tables tell a candidate; with a plus what is added to the stream."""
    injected = ""
    if candidate.inject_layer >= 0:
        added = f", +{candidate.inject_scale:g} ×" if candidate.inject_mode == "add" else ""
        injected = f"layer {candidate.inject_layer}{added}"
    return [candidate.weights, candidate.relative_scale, ", ".join(map(str, candidate.pca)), injected]
