"""What the results of several commands have in common when they are printed."""

from multitool.recipes.captions import distance_told, interventions_told, is_injected, source_told
from multitool.text import visible


def title(settings: dict, vector: dict) -> str:
    told = source_told(settings)
    if not is_injected(settings):
        told += f", scale {settings['scale']:.3g}"
    told += f", on {settings['model']}"
    return visible("; ".join([told, distance_told(settings, vector), *interventions_told(settings)]))


def figures(evidence: dict) -> str:
    """The figures of some evidence on one line, those that there are."""
    numbers = {name: value for name, value in evidence.items() if isinstance(value, (int, float))}
    return ", ".join(f"{name} {value:.4g}" for name, value in numbers.items())

