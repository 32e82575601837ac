"""What is asked for of every feature of an SAE, beside the recipes of its vector and its tree; and what is looked for
among what has been found."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, StringConstraints

from multitool.recipes.fields import Declared, Whole
from multitool.recipes.recipe import TreeRecipe

ATLAS_TREE = TreeRecipe(cutoff=2e-3)  # what definitions are judged on reaches down to here
PER_PART = 128  # features that are described together, and written to one file
MOST_PER_PART = 100_000
MOST_WORKERS = 10_000  # processes that describe

if TYPE_CHECKING:  # what a text says is checked where it is used
    Verdict = str
else:
    Verdict = Literal["agrees", "partly", "no"]


@dataclass(frozen=True, kw_only=True)
class AtlasRecipe(Declared):
    """What an atlas keeps of a feature. Raises UserError for a value that cannot be.

    >>> with_evidence = mt.AtlasRecipe(evidence=True, trees=False)
    """

    definitions: Annotated[Whole, Field(ge=1, le=50, description=(
        "keep this many definitions of each feature, the most probable ones"
    ))] = 10
    top: Annotated[Whole, Field(ge=0, le=100, description="keep this many tokens of each feature's list")] = 20
    evidence: Annotated[bool, Field(description=(
        "judge the definitions too: do they fire the feature? Needs a vocabulary scan"
    ))] = False
    trees: Annotated[bool, Field(description="keep the trees themselves")] = True


@dataclass(frozen=True, kw_only=True)
class AtlasSearch(Declared):
    """Features looked for in an atlas. Raises UserError for a value that cannot be."""

    words: Annotated[str, StringConstraints(strip_whitespace=True), Field(max_length=500, description=(
        "words that all occur in a feature's definitions and tokens, or the beginnings of words; none: every feature, "
        "those with the best evidence first"
    ))] = ""
    sae: Annotated[str | None, Field(description="only features of this SAE")] = None
    verdict: Annotated[Verdict | None, Field(description=(
        "only features whose definitions were judged so or better: agrees is better than partly, and partly than no"
    ))] = None
    max_entropy: Annotated[float | None, Field(ge=0, le=100, description=(
        "only features whose first tokens have at most this entropy, in nats: their definitions begin with few words"
    ))] = None
    min_cosine: Annotated[float | None, Field(ge=-1, le=1, description=(
        "only features whose encoder and decoder have at least this cosine"
    ))] = None
    top: Annotated[Whole, Field(ge=1, le=200, description="how many features are told")] = 50
