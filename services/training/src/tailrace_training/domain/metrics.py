"""How good answers are against the truth: probabilities of a class, or numbers.

`accuracy`: share of right classes at one half. `log_loss`: mean of -ln p(truth) (Good 1952). `brier`: mean squared
error of the probability (Brier 1950). `auc`: chance that a positive is ranked above a negative, ties counted half
(Mann and Whitney 1947); left out where only one class is present.

`mae`: mean absolute error. `rmse`: root of the mean squared error. `r2`: share of the labels' variance that the answers
explain, 1 less the squared errors over the squared distances from the labels' mean; left out where all are equal.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from tailrace_contracts.spec import ClassLabel, Label

Floats = npt.NDArray[np.float64]
_SMALLEST = 1e-7
_LARGEST = 1e100
"""Errors and labels are summed cut at this size, so that no square overflows."""


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


def errors(predictions: Floats, labels: Floats) -> dict[str, float]:
    """Metrics of a regression's answers [n] against the labels [n].

    >>> errors(np.array([1.0, 4.0, 5.0]), np.array([1.0, 2.0, 6.0]))["mae"]
    1.0
    """
    found = PrequentialErrors()
    for prediction, label in zip(predictions.tolist(), labels.tolist(), strict=True):
        found.add(prediction, label)
    return found.metrics()


def scoring(label: Label) -> type[Prequential | PrequentialErrors]:
    """How answers to a label of this kind are scored."""
    return Prequential if isinstance(label, ClassLabel) else PrequentialErrors


class PrequentialErrors:
    """Test, then train, for numbers. `mean` and `m2` are of the labels (Welford 1962)."""

    def __init__(
        self, examples: int = 0, absolute: float = 0.0, squared: float = 0.0, mean: float = 0.0, m2: float = 0.0
    ) -> None:
        self.examples = examples
        self.absolute = absolute
        self.squared = squared
        self.mean = mean
        self.m2 = m2

    def add(self, prediction: float, label: float) -> None:
        """Score one answer."""
        label = min(max(label, -_LARGEST), _LARGEST)
        error = min(abs(prediction - label), _LARGEST)
        self.examples += 1
        self.absolute += error
        self.squared += error * error
        distance = label - self.mean
        self.mean += distance / self.examples
        self.m2 += distance * (label - self.mean)

    def metrics(self) -> dict[str, float]:
        """Over all examples so far; empty before the first."""
        if not self.examples:
            return {}
        found = {"mae": self.absolute / self.examples, "rmse": math.sqrt(self.squared / self.examples)}
        return {**found, "r2": 1 - self.squared / self.m2} if self.m2 else found

    def dump(self) -> dict[str, Any]:
        """The sums as plain JSON data."""
        return {
            "examples": self.examples,
            "absolute": self.absolute,
            "squared": self.squared,
            "mean": self.mean,
            "m2": self.m2,
        }


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
