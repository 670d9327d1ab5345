"""How call times are counted in `serving-measured`: in buckets of 5 %, so that counts of processes and spans add up.

Bucket b holds the calls that took more than 1.05^(b-1) and at most 1.05^b microseconds; the value of a bucket is its
middle, so a quantile read from it is within 2.5 % of the true one (the relative-error sketch of Masson, Rim and Lee 2019,
"DDSketch", VLDB, equation 3, without its bound on buckets: from 1 µs to an hour there are 450).
"""

from __future__ import annotations

import math
from collections.abc import Mapping

GROWTH = 1.05
_PER_E = 1 / math.log(GROWTH)
_MICROSECONDS = 1e6


def bucket_of(seconds: float) -> int:
    """The bucket of a call; 0 for one microsecond and less.

    >>> bucket_of(0.001), bucket_of(0.0)
    (142, 0)
    """
    microseconds = seconds * _MICROSECONDS
    return math.ceil(math.log(microseconds) * _PER_E) if microseconds > 1 else 0


def milliseconds(bucket: int) -> float:
    """The value of a bucket."""
    return float(GROWTH**bucket * 2 / (1 + GROWTH)) / 1000


def quantile_ms(durations: Mapping[int, int], share: float) -> float | None:
    """The time that this share of the calls do not exceed, in milliseconds; None of none.

    >>> round(quantile_ms({bucket_of(0.001): 99, bucket_of(0.1): 1}, 0.5), 2)
    1.0
    """
    total = sum(durations.values())
    rank, counted = max(1, math.ceil(min(max(share, 0.0), 1.0) * total)), 0
    for bucket in sorted(durations):
        counted += durations[bucket]
        if counted >= rank:
            return milliseconds(bucket)
    return None


def longer_than(durations: Mapping[int, int], limit_ms: float) -> int:
    """How many calls took longer than a limit; the calls of the limit's own bucket did not."""
    limit = bucket_of(limit_ms / 1000)
    return sum(count for bucket, count in durations.items() if bucket > limit)
