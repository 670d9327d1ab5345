"""Errors of a regression as mergeable sums: what was counted can be taken back, in any order and grouping.

A correction takes back the error under the label that it replaces, so the sums are of the labels as they now stand.
They are floating-point sums: what was added and taken back may leave the last digits behind.
"""

from __future__ import annotations

import math
from typing import NamedTuple

LARGEST = 1e100
"""Errors are summed cut at this size, so that no square overflows."""


class ErrorSums(NamedTuple):
    """How many errors (prediction less label), and the sums of their sizes, of their squares, and of themselves."""

    examples: int = 0
    absolute: float = 0.0
    squared: float = 0.0
    signed: float = 0.0

    @classmethod
    def of(cls, prediction: float, label: float, count: int = 1) -> ErrorSums:
        """`count` times one error; -1 takes one back."""
        error = min(max(prediction - label, -LARGEST), LARGEST)
        return cls(count, count * abs(error), count * error * error, count * error)

    def plus(self, other: ErrorSums) -> ErrorSums:
        """Both together."""
        return ErrorSums(
            self.examples + other.examples,
            self.absolute + other.absolute,
            self.squared + other.squared,
            self.signed + other.signed,
        )

    @property
    def mae(self) -> float:
        """Mean absolute error; 0 of none."""
        return max(self.absolute, 0.0) / self.examples if self.examples > 0 else 0.0

    @property
    def rmse(self) -> float:
        """Root of the mean squared error; 0 of none."""
        return math.sqrt(max(self.squared, 0.0) / self.examples) if self.examples > 0 else 0.0

    @property
    def bias(self) -> float:
        """Mean of prediction less label; 0 of none."""
        return self.signed / self.examples if self.examples > 0 else 0.0

    def metrics(self) -> dict[str, float]:
        """As events and metrics say it; empty of none."""
        return {"mae": self.mae, "rmse": self.rmse, "bias": self.bias} if self.examples > 0 else {}
