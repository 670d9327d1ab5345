"""Drift of the labels: the truth itself has become more frequent, or larger, than it was in the reference.

A cohort of the champion's, or of the producers' own model, is judged when it closes: the share of positive labels by
Fisher's exact test, the mean of a regression's by Welch's. Its chance of a false alarm is a share of the model's one
budget. What it is judged by is what the champion was trained on, or the closed cohorts inside the spec's reference
period. One alert, and no further one until a cohort lies within its threshold again.
"""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from pydantic import BaseModel

from tailrace_contracts.spec import Label, NumericalLabel, ReferencePeriod
from tailrace_monitoring.domain.cohorts import Cohort
from tailrace_statistics.columns import Moments
from tailrace_statistics.labels import level, mean_moved, rate_moved


class Labels(NamedTuple):
    """`Moments` as they are stored: how many labels, their mean, and their squared deviations."""

    examples: int = 0
    mean: float = 0.0
    m2: float = 0.0


class Shift(NamedTuple):
    """How far a cohort's labels lie from the reference's, in deviations, and from how many on that is no chance."""

    deviations: float
    threshold: float
    mean: float
    usual: float
    examples: int


def shift_of(cohort: Cohort, reference: Moments, label: Label, chance: float) -> Shift:
    """Compare a cohort's labels with the reference's."""
    found = cohort.labels
    moved = mean_moved if isinstance(label, NumericalLabel) else rate_moved
    return Shift(moved(reference, found), level(chance), found.mean, reference.mean, found.count)


class LabelDrift(BaseModel):
    """Where the judgement of labels stands. `basis` names the reference; with another one it starts anew."""

    basis: str = ""
    period: Labels = Labels()
    since: datetime | None = None
    alerted: bool = False

    @property
    def of_period(self) -> Moments | None:
        """The labels of the reference period so far; None where there are none."""
        return Moments(*self.period) if self.period.examples else None

    def rebase(self, basis: str) -> None:
        """Measure against this reference from now on."""
        if basis != self.basis:
            self.basis, self.period, self.since, self.alerted = basis, Labels(), None, False

    def gather(self, cohort: Cohort, period: ReferencePeriod) -> None:
        """Count the labels of a closed cohort that lies inside the reference period."""
        if period.start <= cohort.span.start and cohort.span.end <= period.end:
            both = Moments(*self.period) + cohort.labels
            self.period = Labels(both.count, both.mean, both.m2)

    def judge(self, cohort: Cohort, shift: Shift) -> bool:
        """Take in a cohort; True for an alert."""
        if shift.deviations <= shift.threshold:
            self.since, self.alerted = None, False
            return False
        self.since = self.since or cohort.span.start
        alert, self.alerted = not self.alerted, True
        return alert
