"""Intervals for a share of examples, such as an accuracy."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import NamedTuple


class Interval(NamedTuple):
    """Both ends included."""

    lower: float
    upper: float


def wilson_interval(successes: int, examples: int, confidence: float = 0.95) -> Interval:
    """The score interval of Wilson (1927) for a share of examples; [0, 1] for no examples.

    For a number of examples fixed beforehand. For looking again and again take `sequential`.

    >>> [round(end, 3) for end in wilson_interval(75, 100)]
    [0.657, 0.825]
    """
    if not examples:
        return Interval(0.0, 1.0)
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    share = successes / examples
    middle = share + z * z / (2 * examples)
    spread = z * math.sqrt(share * (1 - share) / examples + z * z / (4 * examples * examples))
    scale = 1 + z * z / examples
    return Interval(max((middle - spread) / scale, 0.0), min((middle + spread) / scale, 1.0))
