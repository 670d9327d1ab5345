"""Drift of the labels: the truth itself is distributed otherwise than it was in the reference.

A cohort of the champion's, or of the producers' own model, is judged when it closes: its labels are a column, which lies
from the reference's labels by a distance as any column does, and the threshold of the distance is calibrated on these
labels (`yardsticks`). Its chance of a false alarm is a share of the model's one budget. What it is judged by is what the
champion was trained on, or the closed cohorts inside the spec's reference period. One alert, and no further one until a
cohort lies within its threshold again.
"""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel

from tailrace_contracts.events import CategoricalSummary, ColumnSummary
from tailrace_contracts.spec import ReferencePeriod
from tailrace_monitoring.domain.cohorts import Cohort
from tailrace_monitoring.domain.windows import Merge, Reading
from tailrace_monitoring.domain.yardsticks import Labels
from tailrace_statistics.labels import rows_of_classes
from tailrace_statistics.reference import KEPT_ROWS


class LabelDrift(BaseModel):
    """Where the judgement of labels stands. `basis` names the reference; with another one it starts anew."""

    basis: str = ""
    gathered: ColumnSummary | None = None
    since: datetime | None = None
    alerted: bool = False

    @property
    def of_period(self) -> Labels | None:
        """The labels of the reference period so far; None where there are none."""
        column = self.gathered
        if column is None or not column.count:
            return None
        if not isinstance(column, CategoricalSummary):
            return Labels(column, [])
        return Labels(column, rows_of_classes(column.counts.get("1", 0), column.count, KEPT_ROWS))

    def rebase(self, basis: str) -> None:
        """Measure against this reference from now on."""
        if basis != self.basis:
            self.basis, self.gathered, self.since, self.alerted = basis, None, None, False

    def gather(self, cohort: Cohort, period: ReferencePeriod, merge: Merge) -> None:
        """Take the labels of a closed cohort that lies inside the reference period into the reference."""
        if period.start <= cohort.span.start and cohort.span.end <= period.end:
            known = self.gathered
            self.gathered = cohort.labels if known is None else merge(known, cohort.labels)

    def judge(self, cohort: Cohort, reading: Reading) -> bool:
        """Take in a cohort; True for an alert."""
        if reading.value <= reading.threshold:
            self.since, self.alerted = None, False
            return False
        self.since = self.since or cohort.span.start
        alert, self.alerted = not self.alerted, True
        return alert
