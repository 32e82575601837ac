"""What is asked for of every feature of an SAE, beside the recipes of its vector and its tree."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from multitool.recipes.fields import Declared, Whole
from multitool.recipes.recipe import TreeRecipe

ATLAS_TREE = TreeRecipe(cutoff=2e-3)  # what definitions are judged on reaches down to here


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
