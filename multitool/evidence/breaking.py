"""Whether a text that a model was steered to write breaks: it repeats itself, or is improbable. Plain numbers.

The figures that the limits were chosen by are in docs/steering.md.
"""

from collections.abc import Sequence
from dataclasses import dataclass

_RUN = 4  # tokens
REPETITIVE = 0.3  # of all runs
IMPROBABLE = 1.0  # nats a token below the unsteered text


def repetition(token_ids: Sequence[int]) -> float:
    """The share of a text's runs of four tokens that have occurred in it before, from 0 to below 1.

    ``1 - different runs / runs``; 0 of a text of fewer than four tokens. Source: seq-rep-4 of Welleck et al., "Neural
    Text Generation with Unlikelihood Training" (2020, arXiv:1908.04319).
    """
    runs = [tuple(token_ids[first : first + _RUN]) for first in range(len(token_ids) - _RUN + 1)]
    return 1 - len(set(runs)) / len(runs) if runs else 0.0


@dataclass(frozen=True)
class Wording:
    """The figures of a text of some tokens."""

    log_probability: float | None  # of its tokens under the unsteered model, the mean in nats; None of no tokens
    repetition: float

    @property
    def repeats(self) -> bool:
        return self.repetition >= REPETITIVE


def caution(steered: Wording, unsteered: Wording) -> str:
    """Why a text is not to be taken for good English, as a sentence; empty where nothing is wrong with it.

    Args:
        unsteered: of the unsteered text; the same where that is asked about.
    """
    found = []
    if steered.repeats:
        alike = unsteered.repeats and steered is not unsteered
        found.append("It repeats itself, as the unsteered text does." if alike else "It repeats itself.")
    own, plain = steered.log_probability, unsteered.log_probability
    if own is not None and plain is not None and own < plain - IMPROBABLE:
        found.append("The unsteered model finds it improbable.")
    return " ".join(found)
