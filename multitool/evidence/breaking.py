"""Whether a text that a model was steered to write breaks: it repeats itself, or is improbable. Plain numbers.

The figures that the limits were chosen by are in docs/steering.md.
"""

from collections.abc import Sequence

_RUN = 4  # tokens
REPETITIVE = 0.3  # of all runs
IMPROBABLE = 2.5  # nats a token below the unsteered text


def repetition(token_ids: Sequence[int]) -> float:
    """The share of a text's runs of four tokens that have occurred in it before, from 0 to below 1.

    ``1 - different runs / runs``; 0 of a text of fewer than four tokens. Source: seq-rep-4 of Welleck et al., "Neural
    Text Generation with Unlikelihood Training" (2020, arXiv:1908.04319).
    """
    runs = [tuple(token_ids[first : first + _RUN]) for first in range(len(token_ids) - _RUN + 1)]
    return 1 - len(set(runs)) / len(runs) if runs else 0.0


def breaks(repeated: float, own: float | None, unsteered: float | None, *, steered: bool) -> str:
    """Why a text is not to be trusted, in words; empty where nothing is wrong with it.

    Args:
        repeated: its ``repetition``.
        own, unsteered: the mean log-probability of its tokens, and of the unsteered text's, under the unsteered model,
            in nats; None of a text without tokens.
        steered: whether it is not the unsteered text itself.
    """
    found = []
    if repeated >= REPETITIVE:
        found.append("it repeats itself")
    if steered and own is not None and unsteered is not None and own < unsteered - IMPROBABLE:
        found.append("the unsteered model finds it improbable")
    return " and ".join(found)
