"""What features are looked for by: a text, tokens, or another feature; checked before any work."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, StringConstraints

from multitool.errors import UserError
from multitool.recipes.directions import DIRECTIONS
from multitool.recipes.fields import Declared, ListAsTuple, Valid, Whole
from multitool.recipes.recipe import SaeName
from multitool.recipes.weighted_sums import token_terms, tokens_written

MOST_FOUND = 200
MOST_AMONG = 32  # SAEs

# Of the vocabulary each feature's direction would take every token's activation of every feature.
_WEIGHTS = tuple(kind for kind, made in DIRECTIONS.items() if made.of_feature and kind != "vocabulary")
if TYPE_CHECKING:  # a type checker does not know what is in the table
    FeatureWeights = str
    TokenMeasure = str
    Side = str
else:
    FeatureWeights = Literal[_WEIGHTS]
    TokenMeasure = Literal["cosine", "activation"]
    Side = Literal["decoder", "encoder"]
Top = Annotated[Whole, Field(ge=1, le=MOST_FOUND, description="how many features are told")]


@dataclass(frozen=True, kw_only=True)
class TextSearch(Declared):
    """Features that fire on a text. Raises UserError for a value that cannot be."""

    sae: SaeName
    text: Annotated[str, Field(description="what the model reads")]
    top: Top = 20


@dataclass(frozen=True, kw_only=True)
class TokenSearch(Declared):
    """Features near to a token, or to a sum of tokens, among the embeddings. Raises UserError for a value that cannot
    be."""

    sae: SaeName
    tokens: Annotated[
        str, StringConstraints(strip_whitespace=True), Field(description=(
        "a word or a sum, e.g. rain or king - man + woman; an exact token in double quotes, or by its number as #1234"
    ))]
    weights: Annotated[FeatureWeights | None, Valid(
        f"valid are {', '.join(_WEIGHTS)}; the vocabulary direction of every feature would take a scan through all of "
        "them, so order by activation instead"
    ), Field(description=(
        "what gives a feature its direction, as for a token list (default: what suits lists of the SAE)"
    ))] = None
    measure: Annotated[TokenMeasure, Field(description=(
        "what features are ordered by: cosine: that of the angle between their direction and the tokens'; activation: "
        "how strongly they fire on the token, which stands alone"
    ))] = "cosine"
    top: Top = 20

    def __post_init__(self):
        super().__post_init__()
        terms = token_terms(self.tokens)
        self._keep("tokens", tokens_written(terms))
        if self.measure == "activation" and (len(terms) > 1 or terms[0].weight <= 0):
            raise UserError(
                f"tokens is {self.tokens}, and features fire on real tokens only, not on a sum. Give one token, or "
                "order by cosine."
            )


@dataclass(frozen=True, kw_only=True)
class LikenessSearch(Declared):
    """Features near to a feature. Raises UserError for a value that cannot be."""

    sae: SaeName
    feature: Annotated[Whole, Field(ge=0, description="the feature's number, from 0")]
    by: Annotated[Side, Field(description=(
        "what is compared: decoder: what features write; encoder: what they look for"
    ))] = "decoder"
    among: Annotated[
        tuple[Annotated[str, Field(title="a name in among")], ...], ListAsTuple,
        Valid(f"it must be a list of at most {MOST_AMONG} SAEs' names, e.g. [\"demo/hook_embed\"]"),
        Field(max_length=MOST_AMONG, description=(
        "SAEs of the same model whose features are compared (default: its own, and the model's others that need no "
        "download)"
    ))] = ()
    top: Top = 20
