"""How good probabilities are against the truth.

`accuracy`: share of right classes at one half. `log_loss`: mean of -ln p(truth) (Good 1952). `brier`: mean squared
error of the probability (Brier 1950). `auc`: chance that a positive is ranked above a negative, ties counted half
(Mann and Whitney 1947); left out where only one class is present.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
_SMALLEST = 1e-7


def scores(probabilities: Floats, positives: npt.NDArray[np.bool_]) -> dict[str, float]:
    """Metrics of the positive class's probabilities [n] against whether each example is positive [n].

    >>> scores(np.array([0.9, 0.2, 0.6, 0.4]), np.array([True, False, False, True]))["accuracy"]
    0.5
    """
    if not len(probabilities):
        return {}
    bounded = probabilities.clip(_SMALLEST, 1 - _SMALLEST)
    found = {
        "accuracy": float(((probabilities > 0.5) == positives).mean()),
        "log_loss": float(-np.log(np.where(positives, bounded, 1 - bounded)).mean()),
        "brier": float(((probabilities - positives) ** 2).mean()),
    }
    if 0 < int(positives.sum()) < len(positives):
        found["auc"] = area_under_curve(probabilities, positives)
    return found


def area_under_curve(probabilities: Floats, positives: npt.NDArray[np.bool_]) -> float:
    """Area under the ROC curve from the mean ranks of the positives.

    >>> area_under_curve(np.array([0.1, 0.4, 0.4, 0.8]), np.array([False, False, True, True]))
    0.875
    """
    _, places, counts = np.unique(probabilities, return_inverse=True, return_counts=True)
    mean_ranks = (np.cumsum(counts) - (counts - 1) / 2)[places]
    positive = int(positives.sum())
    negative = len(positives) - positive
    return float((mean_ranks[positives].sum() - positive * (positive + 1) / 2) / (positive * negative))


class Prequential:
    """Test, then train: how well a learner answered each example before it learned it."""

    def __init__(self, examples: int = 0, right: int = 0, log_loss_sum: float = 0.0) -> None:
        self.examples = examples
        self.right = right
        self.log_loss_sum = log_loss_sum

    def add(self, probability: float, positive: bool) -> None:
        """Score one answer."""
        self.examples += 1
        self.right += (probability > 0.5) == positive
        truth = probability if positive else 1 - probability
        self.log_loss_sum -= math.log(max(truth, _SMALLEST))

    def metrics(self) -> dict[str, float]:
        """Means over all examples so far; empty before the first."""
        if not self.examples:
            return {}
        return {"accuracy": self.right / self.examples, "log_loss": self.log_loss_sum / self.examples}

    def dump(self) -> dict[str, Any]:
        """The counts as plain JSON data."""
        return {"examples": self.examples, "right": self.right, "log_loss_sum": self.log_loss_sum}
