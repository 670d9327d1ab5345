"""How far the labels of a cohort lie from those of a reference, in standard deviations of chance.

Labels are corrected, so what is kept of them has to be a sum that can be taken back: how many, their mean, and their squared
deviations. Of classes that is everything; of numbers it shows whether their mean moved.
"""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from tailrace_statistics.columns import Moments
from tailrace_statistics.errors import ErrorSums

_LEAST = 1e-300


def moments_of(sums: ErrorSums) -> Moments:
    """The moments of labels that were summed as errors against 0."""
    count = max(sums.examples, 0)
    return Moments(count, sums.bias, max(sums.squared - count * sums.bias**2, 0.0))


def moments_of_rate(positives: int, count: int) -> Moments:
    """The moments of labels of two classes, 1 and 0."""
    rate = positives / count if count else 0.0
    return Moments(count, rate, count * rate * (1 - rate))


def level(chance: float) -> float:
    """How many standard deviations, in either direction, a normal value passes with this chance."""
    return -NormalDist().inv_cdf(max(chance, _LEAST) / 2)


def rate_moved(reference: Moments, cohort: Moments) -> float:
    """How far a share of positive labels moved: 0 or more, as a normal value that is as unlikely.

    By Fisher's exact test (1935): given all positives of both, those of the cohort are hypergeometric. The smaller tail
    counts twice, so chance passes `level(p)` with at most p, however rare the positives are.
    """
    positives = round(cohort.mean * cohort.count)
    total = positives + round(reference.mean * reference.count)
    return level(min(1.0, 2 * min(_tails(positives, total, cohort.count, cohort.count + reference.count))))


def mean_moved(reference: Moments, cohort: Moments) -> float:
    """How far the mean of numbers moved, in standard errors (Welch 1947; normal, as both have hundreds of values)."""
    if not reference.count or not cohort.count:
        return 0.0
    variance = sum(each.m2 / max(each.count - 1, 1) / each.count for each in (reference, cohort))
    apart = abs(cohort.mean - reference.mean)
    return apart / math.sqrt(max(variance, _LEAST))


def _tails(found: int, marked: int, drawn: int, size: int) -> tuple[float, float]:
    """P(X <= found) and P(X >= found) for the marked ones among `drawn` of `size` things, of which `marked` are marked."""
    least, most = max(0, drawn + marked - size), min(drawn, marked)
    numbers: npt.NDArray[np.float64] = np.arange(least, most, dtype=np.float64)
    steps = np.log(marked - numbers) + np.log(drawn - numbers)
    steps -= np.log(numbers + 1) + np.log(size - marked - drawn + numbers + 1)
    logs = np.concatenate(([0.0], np.cumsum(steps)))
    shares = np.exp(logs - logs.max())
    shares /= shares.sum()
    at = found - least
    return float(shares[: at + 1].sum()), float(shares[at:].sum())
