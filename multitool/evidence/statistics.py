"""Measures of how well one thing tells another, in plain numbers. Knows neither model nor torch.

scipy and scikit-learn take more than a second to import, so that is done where they are needed.
"""

import numpy as np


def auroc(score: np.ndarray, positive: np.ndarray) -> float | None:
    """The probability that a positive scores higher than a negative, ties counted half; None without both.

    Args:
        score: (n,), larger where a positive is expected.
        positive: (n,) bool.
    """
    if positive.all() or not positive.any():
        return None
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(positive, score))


def average_precision(score: np.ndarray, positive: np.ndarray) -> float | None:
    """The mean, over the positives, of the share of positives among what scores as high; None without positives.

    Args:
        score: (n,), larger where a positive is expected.
        positive: (n,) bool.
    """
    from sklearn.metrics import average_precision_score

    return float(average_precision_score(positive, score)) if positive.any() else None


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
