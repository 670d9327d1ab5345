"""Intervals for a share of examples, such as an accuracy, and for the difference and the ratio of two shares.

All are score intervals: they keep their coverage for few examples and for shares near 0 and 1, where the textbook's
normal ones do not. They hold for a number of examples fixed beforehand; for looking again and again take `sequential`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from statistics import NormalDist
from typing import NamedTuple

_BISECTIONS = 60
"""Halvings of an interval of 60 doublings: relative precision 1e-16 or what floats allow."""

_SMALLEST, _LARGEST = 2.0**-30, 2.0**30
"""Ratios beyond these are not told from 0 and from infinity."""


class Interval(NamedTuple):
    """Both ends included."""

    lower: float
    upper: float


class Counted(NamedTuple):
    """`part` of `whole` examples."""

    part: int
    whole: int

    @property
    def share(self) -> float | None:
        """The share; None of no examples."""
        return self.part / self.whole if self.whole else None


@lru_cache(maxsize=256)
def critical_value(confidence: float) -> float:
    """The two-sided critical value z of the normal distribution: 1.96 for 0.95."""
    return NormalDist().inv_cdf(0.5 + confidence / 2)


def wilson_interval(successes: int, examples: int, confidence: float = 0.95) -> Interval:
    """The score interval of Wilson (1927) for a share of examples; [0, 1] for no examples.

    >>> [round(end, 3) for end in wilson_interval(75, 100)]
    [0.657, 0.825]
    """
    if not examples:
        return Interval(0.0, 1.0)
    z = critical_value(confidence)
    share = successes / examples
    middle = share + z * z / (2 * examples)
    spread = z * math.sqrt(share * (1 - share) / examples + z * z / (4 * examples * examples))
    scale = 1 + z * z / examples
    return Interval(max((middle - spread) / scale, 0.0), min((middle + spread) / scale, 1.0))


def newcombe_interval(one: Counted, other: Counted, confidence: float = 0.95) -> Interval:
    """The hybrid score interval for the difference of two shares, `one` less `other`; [-1, 1] where one has no examples.

    Newcombe (1998, "Interval estimation for the difference between independent proportions", method 10).

    >>> [round(end, 4) for end in newcombe_interval(Counted(56, 70), Counted(48, 80))]
    [0.0524, 0.3339]
    """
    p, q = one.share, other.share
    if p is None or q is None:
        return Interval(-1.0, 1.0)
    low, high = wilson_interval(*one, confidence)
    other_low, other_high = wilson_interval(*other, confidence)
    return Interval(
        p - q - math.hypot(p - low, other_high - q),
        p - q + math.hypot(high - p, q - other_low),
    )


def ratio_score(one: Counted, other: Counted, ratio: float) -> float:
    """How much two shares speak against their ratio being this one: chi-squared with one degree of freedom.

    Koopman (1984, "Confidence intervals for the ratio of two binomial proportions"), with the most likely shares under
    that ratio in the closed form of Miettinen and Nurminen (1985, appendix I), without their factor N/(N-1).
    """
    (x, n), (y, m) = one, other
    a, b, c = (n + m) * ratio, n * ratio + x + m + y * ratio, x + y
    likely = (b - math.sqrt(max(0.0, b * b - 4 * a * c))) / (2 * a)
    q = min(max(likely, 0.0), 1.0, 1.0 / ratio)
    p = min(ratio * q, 1.0)
    variance = p * (1 - p) / n + ratio * ratio * q * (1 - q) / m
    distance = x / n - ratio * y / m
    if variance <= 0.0:
        return 0.0 if abs(distance) < 1e-12 else math.inf
    return distance * distance / variance


def koopman_interval(one: Counted, other: Counted, confidence: float = 0.95) -> Interval:
    """The score interval for the ratio of two shares, `one` over `other`: the ratios that `ratio_score` does not reject.

    [0, inf] where a share has no examples, or where both are 0.

    >>> [round(end, 2) for end in koopman_interval(Counted(36, 40), Counted(16, 80))]
    [2.94, 7.15]
    """
    if not one.whole or not other.whole or not (one.part or other.part):
        return Interval(0.0, math.inf)
    limit = critical_value(confidence) ** 2
    estimate = (one.part / one.whole) / (other.part / other.whole) if other.part else _LARGEST
    estimate = min(max(estimate, _SMALLEST), _LARGEST)

    def rejected(ratio: float) -> bool:
        return ratio_score(one, other, ratio) > limit

    lower = 0.0 if not one.part else _edge(rejected, _SMALLEST, estimate)
    upper = math.inf if not other.part else _edge(rejected, _LARGEST, estimate)
    return Interval(lower, upper)


def _edge(rejected: Callable[[float], bool], outside: float, inside: float) -> float:
    """Where rejection begins between a ratio that is rejected and one that is not."""
    for _ in range(_BISECTIONS):
        middle = math.sqrt(outside * inside)
        outside, inside = (middle, inside) if rejected(middle) else (outside, middle)
    return inside


# ---------------------------------------------------------------- means


class Sample(NamedTuple):
    """A sample of numbers: how many, their mean, and their variance (with n - 1)."""

    examples: int
    mean: float
    variance: float


@lru_cache(maxsize=256)
def student_value(confidence: float, degrees: float) -> float:
    """The two-sided critical value of Student's t, from 5 degrees of freedom on to about 1 %.

    Fisher and Cornish's expansion around the normal one (Abramowitz and Stegun 1964, 26.7.5).

    >>> round(student_value(0.95, 30), 3)
    2.042
    """
    z = critical_value(confidence)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + sum(term / degrees ** (power + 1) for power, term in enumerate(terms))


def mean_interval(sample: Sample, confidence: float = 0.95) -> Interval:
    """Student's interval for a mean; without bounds for fewer than two numbers."""
    if sample.examples < 2:
        return Interval(-math.inf, math.inf)
    reach = student_value(confidence, sample.examples - 1) * math.sqrt(sample.variance / sample.examples)
    return Interval(sample.mean - reach, sample.mean + reach)


def welch_interval(one: Sample, other: Sample, confidence: float = 0.95) -> Interval:
    """The interval for the difference of two means whose variances may differ, `one` less `other`.

    Welch (1947), with Satterthwaite's degrees of freedom (1946); without bounds where a sample has fewer than two numbers.
    """
    if min(one.examples, other.examples) < 2:
        return Interval(-math.inf, math.inf)
    parts = [each.variance / each.examples for each in (one, other)]
    error, difference = sum(parts), one.mean - other.mean
    if error <= 0:
        return Interval(difference, difference)
    degrees = error**2 / sum(part**2 / (each.examples - 1) for part, each in zip(parts, (one, other), strict=True))
    reach = student_value(confidence, degrees) * math.sqrt(error)
    return Interval(difference - reach, difference + reach)


def mean_ratio_interval(one: Sample, other: Sample, confidence: float = 0.95) -> Interval:
    """The interval for the ratio of two positive means, `one` over `other`: the delta method on the logarithm.

    [0, inf] where a mean is not positive or a sample has fewer than two numbers.
    """
    if min(one.examples, other.examples) < 2 or min(one.mean, other.mean) <= 0:
        return Interval(0.0, math.inf)
    error = math.sqrt(sum(each.variance / each.examples / each.mean**2 for each in (one, other)))
    reach, middle = critical_value(confidence) * error, math.log(one.mean / other.mean)
    return Interval(math.exp(middle - reach), math.exp(min(middle + reach, 700.0)))
