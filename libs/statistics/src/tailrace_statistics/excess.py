"""Is a share above its limit now? An alarm that is looked at after every batch, for as long as a service runs.

Each observation is good or bad: a row that failed, a call that took too long. Against the claim "the share of bad ones is
at most `limit`" stands, for each alternative q above it, the likelihood ratio (q/limit)^bad ((1-q)/(1-limit))^good. Where
the claim is true it is not expected to grow, whatever the true share below the limit. After ten million good
observations it would be so small that it never recovered, so it never falls below 1: the CUSUM of e-values of Shin,
Ramdas and Rinaldo (2023, "E-detectors: a nonparametric framework for sequential change detection", NEJSDS, section 2.2).
The alarm sounds when the mean over the alternatives reaches 1 / error_rate; then, if the claim is true all the time, at
least 1 / error_rate batches are expected to pass before it sounds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

ODDS = (1.5, 4.0, 16.0, 64.0, 256.0, 1024.0)
"""The alternatives, as multiples of the limit's odds."""


def alternatives(limit: float) -> list[float]:
    """The shares that a limit between 0 and 1 is tested against.

    >>> [round(share, 3) for share in alternatives(0.01)]
    [0.015, 0.039, 0.139, 0.393, 0.721, 0.912]
    """
    odds = limit / (1 - limit)
    return [factor * odds / (1 + factor * odds) for factor in ODDS]


def grown(evidence: Sequence[float], good: int, bad: int, limit: float) -> list[float]:
    """The logarithms of the evidence after one more batch. `evidence` is [] at first, and never below 0."""
    before = evidence or [0.0] * len(ODDS)
    return [
        max(0.0, was + bad * math.log(share / limit) + good * math.log((1 - share) / (1 - limit)))
        for was, share in zip(before, alternatives(limit), strict=True)
    ]


def sounds(evidence: Sequence[float], error_rate: float) -> bool:
    """Whether the evidence is enough for an alarm."""
    largest = max(evidence, default=0.0)
    mean = sum(math.exp(each - largest) for each in evidence) / max(1, len(evidence))
    return bool(evidence) and largest + math.log(mean) >= -math.log(error_rate)
