"""What the peers of `validate` keep of a column, one value at a time: moments, or what `validate` keeps of it.

`moments` are count, mean, squared deviations, least and largest value. `same` is what a partial has of a numerical column:
those, what is missing or outside the limits, a KLL sketch of the quantiles, a sketch of the distinct values (HyperLogLog
of datasketches, where `validate` has its own in numpy) and the frequent values, as bytes. Each update reads what is kept,
changes it and writes it, as state kept by key and event does.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from typing import Any

KLL_K = 200
HLL_BITS = 10
FREQUENT_BITS = 6
LEAST, MOST = -10.0, 10.0
_MOMENTS = struct.Struct("<qqqdddd")
_SIZES = struct.Struct("<ii")


def moments(known: list[float] | None, value: float | None) -> list[float]:
    """Count, mean, squared deviations (Welford), least and largest value, with one value more."""
    if value is None:
        return known or [0, 0.0, 0.0, math.inf, -math.inf]
    if known is None:
        return [1, value, 0.0, value, value]
    count, mean, m2, least, most = known
    delta = value - mean
    mean += delta / (count + 1)
    return [count + 1, mean, m2 + delta * (value - mean), min(least, value), max(most, value)]


def same(known: bytes | None, value: float | None) -> bytes:
    """What a partial has of a numerical column, with one value more."""
    sketches = _sketches()
    if known is None:
        count, missing, outside, mean, m2, least, most = 0, 0, 0, 0.0, 0.0, float("inf"), float("-inf")
        kll = sketches.kll_floats_sketch(KLL_K)
        distinct, frequent = sketches.hll_sketch(HLL_BITS), sketches.frequent_strings_sketch(FREQUENT_BITS)
    else:
        count, missing, outside, mean, m2, least, most = _MOMENTS.unpack_from(known)
        kll_size, distinct_size = _SIZES.unpack_from(known, _MOMENTS.size)
        at = _MOMENTS.size + _SIZES.size
        kll = sketches.kll_floats_sketch.deserialize(known[at : at + kll_size])
        distinct = sketches.hll_sketch.deserialize(known[at + kll_size : at + kll_size + distinct_size])
        frequent = sketches.frequent_strings_sketch.deserialize(known[at + kll_size + distinct_size :])
    if value is None:
        missing += 1
    elif not LEAST <= value <= MOST:
        outside += 1
    else:
        count += 1
        delta = value - mean
        mean += delta / count
        m2 += delta * (value - mean)
        least, most = min(least, value), max(most, value)
        kll.update(value)
        distinct.update(value)
        frequent.update(repr(value))
    parts = kll.serialize(), distinct.serialize_compact(), frequent.serialize()
    numbers = _MOMENTS.pack(count, missing, outside, mean, m2, least, most)
    return b"".join((numbers, _SIZES.pack(len(parts[0]), len(parts[1])), *parts))


def _sketches() -> Any:
    import datasketches  # the peer that keeps moments runs without it

    return datasketches


KEEPS: dict[str, Callable[[Any, float | None], Any]] = {"moments": moments, "same": same}
