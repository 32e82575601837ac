"""A recipe in words, from the settings of a result: for captions, titles and the command line.

The settings can come from anybody's file: each is told as it is, and nothing is taken for granted.
"""

from multitool.errors import is_number
from multitool.recipes.directions import takes
from multitool.recipes.own_vectors import LARGEST, LONGEST_VECTOR, place_told, vector_told
from multitool.recipes.recipe import OF_OWN_VECTOR, POSITIONS, SPARING
from multitool.text import percent


def exact(value) -> str:
    """A setting: nine digits give a vector in float32 back, and are as few as were typed."""
    return f"{value:.9g}" if isinstance(value, (int, float)) else str(value)


def rounded(value) -> str:
    return f"{value:.4g}" if isinstance(value, (int, float)) else str(value)


def weights_told(settings: dict) -> str:
    """What gave the direction, in words, the tokens themselves where these did."""
    kind = settings.get("weights")
    return f"{kind} {settings.get('tokens')}" if takes(kind, "tokens") else str(kind)


def own_vector_told(settings: dict) -> str:
    """What a vector of one's own is called that stands in the place of a feature; empty where none does."""
    numbers, name = settings.get("vector"), settings.get("vector_name")
    if not isinstance(numbers, list) or not 0 < len(numbers) <= LONGEST_VECTOR:
        return ""
    if not all(is_number(number) and abs(number) <= LARGEST for number in numbers):
        return ""
    return vector_told(numbers, name if isinstance(name, str) else "")


def readable(settings: dict) -> dict:
    """The settings with what a vector of one's own is called in place of its numbers, which JSON files alone carry."""
    told = own_vector_told(settings)
    others = {name: value for name, value in settings.items() if name not in OF_OWN_VECTOR}
    return others | {"own_vector": told} if told else settings


def feature_told(settings: dict, between: str = " ") -> str:
    """What a vector was made from, without its weights: an SAE's feature, or a vector of one's own at its place."""
    sae, feature, vector = settings.get("sae"), settings.get("feature"), own_vector_told(settings)
    if not vector:
        return f"{sae}{between}feature {feature}"
    summed = f" in {feature}" if isinstance(feature, str) else ""
    return f"{vector}{summed}{' at ' if between == ' ' else between}{place_told(str(sae))}"


def title_told(settings: dict) -> str:
    """What a result is called."""
    return f"{feature_told(settings, ' · ')} · {weights_told(settings)}"


def source_told(settings: dict) -> str:
    """What the vector was made from."""
    return f"{feature_told(settings)}, weights {weights_told(settings)}"


def top_k_told(settings: dict) -> str:
    """How many next tokens of each path were looked at."""
    top_k = settings.get("top_k")
    return "all next tokens above it (top_k 0)" if top_k == 0 else f"top_k {top_k}"


def fires_told(activation: float, maximum: float | None) -> str:
    """How strongly a feature fires: as a share of its maximum, or as the SAE gives it where that is not known."""
    if activation <= 0:
        return "does not fire"
    return percent(activation / maximum) if maximum else f"{activation:.3g}"


def is_injected(settings: dict) -> bool:
    """Whether the vector went in after a layer instead of among the embeddings."""
    layer = settings.get("inject_layer", -1)
    return isinstance(layer, (int, float)) and layer >= 0


def distance_told(settings: dict, vector: dict) -> str:
    """Where the vector lies, beside where tokens lie."""
    if is_injected(settings):
        return f"length {rounded(vector.get('norm'))} mean residual norms"
    return (
        f"distance from centroid {rounded(vector.get('distance_from_centroid'))} "
        f"(tokens: {rounded(vector.get('mean_token_distance'))} on average)"
    )


def interventions_told(settings: dict) -> list[str]:
    """What was done to the residual stream while the tree grew; nothing for a plain tree."""
    told = []
    if is_injected(settings):
        how = "added" if settings.get("inject_mode") == "add" else "put in"
        told.append(f"{how} after layer {settings.get('inject_layer')}")
    at = str(settings.get("steer_at"))
    where = POSITIONS.get(at, "")
    if at in SPARING and settings.get("steer_sinks") is False:
        where += ", without the prompt's first and special ones"
    if settings.get("steer_strength"):
        told.append(f"steered by {exact(settings['steer_strength'])} mean residual norms {where}".rstrip())
    if settings.get("clamp") is not None:
        told.append(f"clamped to {exact(settings['clamp'])} × its typical maximum {where}".rstrip())
    return told
