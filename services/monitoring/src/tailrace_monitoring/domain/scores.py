"""How each arm does, running: for people who look at the console, and for Prometheus.

The accuracy of classes; of numbers the errors, and how large they are lately as an exponentially weighted mean.
"""

from __future__ import annotations

from pydantic import BaseModel

from tailrace_contracts.events import ArmOutput
from tailrace_contracts.spec import Label, NumericalLabel
from tailrace_statistics.errors import ErrorSums

RECENT = 500
"""Answers that the recent accuracy looks back on; of the recent error, the weight of the newest is one such part."""

SERVED = "served"
"""The pseudo-arm of what the users got, whichever version it came from."""


class Score(BaseModel):
    """One version's answers, in all arms it has been in; `arm` is the newest."""

    arm: str
    version: int | None
    examples: int = 0
    correct: int = 0
    hits: str = ""
    errors: ErrorSums = ErrorSums()
    recent_error: float = 0.0

    def count(self, arm: str, output: ArmOutput, given: float, label: Label) -> None:
        """One more answer."""
        self.arm = arm
        self.examples += 1
        if isinstance(label, NumericalLabel):
            error = ErrorSums.of(output.prediction, given)
            self.errors = self.errors.plus(error)
            self.recent_error += (error.absolute - self.recent_error) / min(self.examples, RECENT)
            return
        right = output.prediction == given
        self.correct += right
        self.hits = (self.hits + ("1" if right else "0"))[-RECENT:]

    @property
    def metrics(self) -> dict[str, float]:
        """The errors of a regression; empty of classes."""
        found = self.errors.metrics()
        return {**found, "recent_mae": self.recent_error} if found else {}

    @property
    def accuracy(self) -> float | None:
        """Over all answers; None of a regression."""
        if self.errors.examples:
            return None
        return self.correct / self.examples if self.examples else 0.0

    @property
    def recent_accuracy(self) -> float | None:
        """Over the newest answers; None of a regression."""
        if self.errors.examples:
            return None
        return self.hits.count("1") / len(self.hits) if self.hits else 0.0
