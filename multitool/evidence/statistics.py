"""Measures of how well one thing tells another, in plain numbers. Knows neither model nor torch.

scipy takes long to import, so that is done where it is needed.
"""

import numpy as np


def auroc(score: np.ndarray, positive: np.ndarray) -> float | None:
    """The probability that a positive scores higher than a negative, ties counted half; None without both.

    Args:
        score: (n,), larger where a positive is expected.
        positive: (n,) bool.
    """
    n_positive = int(np.count_nonzero(positive))
    n_negative = len(positive) - n_positive
    if not n_positive or not n_negative:
        return None
    hits, n = _down_to(score, positive)
    # Below the curve of hits over misses, a trapezoid for every score that occurs.
    misses = n - hits
    return float(np.sum(np.diff(misses) * (hits[1:] + hits[:-1])) / (2 * n_positive * n_negative))


def average_precision(score: np.ndarray, positive: np.ndarray) -> float | None:
    """The mean, over the positives, of the share of positives among what scores as high; None without positives.

    Args:
        score: (n,), larger where a positive is expected.
        positive: (n,) bool.
    """
    if not positive.any():
        return None
    hits, n = _down_to(score, positive)
    return float(np.sum(np.diff(hits) * (hits[1:] / n[1:])) / hits[-1])


def _down_to(score: np.ndarray, positive: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How many positives, and how many in all, score as high as each score that occurs, the largest first; before
    them 0."""
    order = np.argsort(-score)
    last = np.flatnonzero(np.append(np.diff(score[order]) != 0, True))  # of those that score the same
    hits = np.cumsum(positive[order], dtype=np.int64)[last]
    return np.concatenate([[0], hits]), np.concatenate([[0], last + 1])


def rank(scores: np.ndarray, index: int) -> float:
    """The place of ``scores[index]`` among all, 1 for the largest; equals share the mean of their places."""
    own = scores[index]
    return float(np.count_nonzero(scores > own) + (np.count_nonzero(scores == own) + 1) / 2)


def share_at_least(value: float, others: np.ndarray) -> float:
    """The share of ``others`` that are as large as ``value`` or larger."""
    return float(np.mean(others >= value))


def mean_with_interval(values) -> tuple[float, float, float]:
    """The mean and its 95 % confidence interval, by the percentile bootstrap (seed 0, 2,000 resamples)."""
    from scipy.stats import bootstrap

    values = np.asarray(values, dtype=float)
    mean = float(values.mean())
    if len(values) < 2 or np.ptp(values) == 0:
        return mean, mean, mean
    interval = bootstrap((values,), np.mean, n_resamples=2000, method="percentile", batch=200,
                         rng=np.random.default_rng(0)).confidence_interval
    return mean, float(interval.low), float(interval.high)
