"""What the results of several commands have in common when they are printed."""

from collections.abc import Sequence

from multitool.evidence.figures import MARKS, Line, verdict_of
from multitool.recipes.captions import distance_told, interventions_told, is_injected, source_told
from multitool.text import visible


def title(settings: dict, vector: dict) -> str:
    told = source_told(settings)
    if not is_injected(settings):
        told += f", scale {settings['scale']:.3g}"
    told += f", on {settings['model']}"
    return visible("; ".join([told, distance_told(settings, vector), *interventions_told(settings)]))


def print_evidence(evidence: dict, figures: Sequence[Line]) -> None:
    """Print the verdict with its sentence, and the figures behind it, a row each as on the page."""
    mark, _ = MARKS[verdict_of(evidence)]
    print(f"{mark} {visible(str(evidence.get('sentence', '')))}")
    names = max((len(figure.name) for figure in figures), default=0)
    values = max((len(figure.value) for figure in figures if figure.beside), default=0)
    for figure in figures:
        print(f"  {figure.name:{names}}  {figure.value:{values}}  {figure.beside}".rstrip())
    print()

