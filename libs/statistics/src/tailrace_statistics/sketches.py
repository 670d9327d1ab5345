"""Quantile sketches in and out of text: KLL (Karnin, Lang, Liberty 2016, "Optimal quantile approximation in streams").

k = 200 keeps about 600 values of 32 bits. The rank of any value, and the difference of two distributions at any point,
is then within `RANK_ERROR` of the truth with 99 % confidence, whatever the number of values and the order of merges.
"""

from __future__ import annotations

import base64
import binascii
from typing import Any

import datasketches
import numpy as np
import numpy.typing as npt

K = 200
RANK_ERROR = 0.0133
"""The normalised rank error of one sketch, single-sided, at 99 % confidence (datasketches' own figure for k = 200)."""

Sketch = Any
"""A sketch of the package datasketches, which has no types."""

_LARGEST = 3.0e38  # below the largest 32-bit float


class SketchInvalid(ValueError):  # noqa: N818  # named for what is true
    """Text that is no sketch."""


def empty() -> Sketch:
    """A sketch of nothing."""
    return datasketches.kll_floats_sketch(K)


def fold(sketch: Sketch, values: npt.NDArray[np.float64]) -> None:
    """Add finite values to a sketch, in place."""
    with np.errstate(over="ignore"):
        narrow = values.astype(np.float32)
    if not np.isfinite(narrow).all():
        narrow = values.clip(-_LARGEST, _LARGEST).astype(np.float32)
    sketch.update(narrow)


def to_text(sketch: Sketch) -> str:
    """The sketch in base64; the empty string for a sketch of nothing."""
    return "" if sketch.is_empty() else base64.b64encode(sketch.serialize()).decode("ascii")


def from_text(text: str) -> Sketch:
    """The sketch in base64. Raises SketchInvalid."""
    if not text:
        return empty()
    try:
        return datasketches.kll_floats_sketch.deserialize(binascii.a2b_base64(text))
    except (binascii.Error, ValueError, IndexError, RuntimeError) as error:
        raise SketchInvalid(f"quantiles: not a KLL sketch in base64 ({error}); summarise the column again") from None
