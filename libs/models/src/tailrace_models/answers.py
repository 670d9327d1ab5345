"""What a model answers, whatever it was trained with."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from tailrace_contracts.events import FeatureValue
from tailrace_contracts.spec import ClassLabel, NumericalLabel
from tailrace_models.explaining import Explainer, Reference

RIVER = "application/vnd.tailrace.river"
"""Media type of a river pipeline in its signed envelope."""

ONNX = "application/vnd.onnx"
"""Media type of a network for serving."""

SAFETENSORS = "application/vnd.safetensors"
"""Media type of a network's weights, from which training resumes; serving never loads it."""


class Answer(NamedTuple):
    """One inference: the class out of the spec's label, and the probability of the positive class.

    Of a regression: a number in the label's unit, and no probability.
    """

    prediction: float
    probability: float | None = None


class Predictor(Protocol):
    """A loaded model. Safe to call from one thread at a time."""

    def predict(self, rows: Sequence[Mapping[str, FeatureValue]]) -> list[Answer]:
        """One answer for each row of features, in order."""
        ...

    def explainer(self, reference: Reference | None = None) -> Explainer | None:
        """What explains its answers, against these rows or such as it keeps itself; None without any."""
        ...


def answer(label: ClassLabel, probability: float) -> Answer:
    """The answer for a probability of the positive class: positive above one half, else the other class."""
    return Answer(label.positive if probability > 0.5 else negative(label), probability)


def within(label: NumericalLabel, value: float) -> Answer:
    """The answer of a regression: the value, moved to the label's limit where it is beyond. NaN stays NaN."""
    return Answer(value if math.isnan(value) else label.limits.clip(value))


def negative(label: ClassLabel) -> int:
    """The class that is not the positive one."""
    first, second = label.classes
    return second if first == label.positive else first
