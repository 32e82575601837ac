"""What a text is continued by while the model is steered; checked before any work."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from multitool.recipes.fields import Declared, ListAsTuple, Valid, Whole

MOST_STRENGTHS = 8
LONGEST_CONTINUATION = 200  # tokens
LONGEST_CONTINUED = 20_000  # characters of the text

Strength = Annotated[float, Field(ge=-100, le=100, title="a strength in strengths")]


@dataclass(frozen=True, kw_only=True)
class SteerRecipe(Declared):
    """How a text is continued while the model is steered along a feature. Raises UserError for a value that cannot be.

    At the SAE's hook the residual stream becomes ``x + s·m·u(W_dec[i])`` for each of the strengths ``s``, with ``m``
    the mean norm of residuals there on plain prose (``model.interventions.mean_residual_norm``), at every position of
    the text and of what is written but the first one and special tokens of the text (activation addition, Turner et
    al. 2023, arXiv:2308.10248). Of several features with weights ``w_j`` each is pushed at its own SAE's hook, by
    ``w_j·s``.

    >>> asked = mt.SteerRecipe(text="Yesterday I went to", strengths=(-0.4, 0.4), length=20)
    """

    text: Annotated[
        str, Valid(f"it must be a text of 1 to {LONGEST_CONTINUED:,} characters that the model continues"),
        Field(min_length=1, max_length=LONGEST_CONTINUED, description="the text that the model continues"),
    ] = "Yesterday I went to"
    strengths: Annotated[
        tuple[Strength, ...], ListAsTuple,
        Valid(f"it must be a list of 1 to {MOST_STRENGTHS} numbers within ±100, e.g. [-0.4, 0.4]"),
        Field(min_length=1, max_length=MOST_STRENGTHS, description=(
        "by how many mean residual norms the stream is pushed along the feature's decoder direction, a continuation "
        "for each; the unsteered one stands beside them"
    ))] = (-0.4, 0.2, 0.4, 0.8)
    length: Annotated[Whole, Field(ge=1, le=LONGEST_CONTINUATION, description=(
        "how many tokens are written at most"
    ))] = 30
    temperature: Annotated[float, Field(ge=0, le=5, description=(
        "0: always the most probable token; above: tokens are drawn at this temperature, the more freely the higher"
    ))] = 0.0
    seed: Annotated[Whole, Field(ge=0, le=2**32 - 1, description=(
        "of what is drawn; the same seed draws the same"
    ))] = 0
