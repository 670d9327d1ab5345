"""Performance by prediction-time cohort: how one arm did on the inferences of one window, on the labels known so far.

A late label lands in the cohort of its prediction, a corrected one is moved from where it was counted. A cohort closes
once an event time beyond its end and the allowed lateness has been seen; what comes later still counts, and is
measured again, but raises no second alert.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from pydantic import BaseModel

from tailrace_contracts.events import (
    Arm,
    ArmOutput,
    ExampleLabelled,
    FeatureValue,
    GroupRates,
    PerformanceMeasured,
    WindowSpan,
)
from tailrace_contracts.spec import ModelSpec
from tailrace_monitoring.domain.spans import Spans
from tailrace_statistics.fairness import GroupCounts, group_rates

MOST_GROUPS = 40
"""Groups of one protected attribute; further values are counted together as `other`."""

MIN_COHORT_EXAMPLES = 30
"""Cohorts with fewer labelled examples are shown and raise no alert: their accuracy is mostly chance."""

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def window_of(moment: datetime, days: float) -> WindowSpan:
    """The tumbling window of event time, aligned to 1970-01-01 UTC, that a moment lies in."""
    width = timedelta(days=days)
    start = EPOCH + (moment - EPOCH) // width * width
    return WindowSpan(start=start, end=start + width)


class CohortKey(NamedTuple):
    """Which cohort. `version` 0 stands for none (arm `external`)."""

    start: datetime
    arm: str
    version: int


def cell(selected: bool, positive: bool, count: int) -> GroupCounts:
    """`count` examples of one outcome; -1 takes one back."""
    match selected, positive:
        case True, True:
            return GroupCounts(tp=count)
        case True, False:
            return GroupCounts(fp=count)
        case False, True:
            return GroupCounts(fn=count)
    return GroupCounts(tn=count)


class Cohort(BaseModel):
    """One arm in one window of prediction time."""

    span: WindowSpan
    arm: Arm
    version: int | None
    total: GroupCounts = GroupCounts()
    groups: dict[str, dict[str, GroupCounts]] = {}
    spans: Spans = Spans()
    closed: bool = False

    @property
    def key(self) -> CohortKey:
        """Which cohort it is."""
        return CohortKey(self.span.start, self.arm, self.version or 0)

    @property
    def accuracy(self) -> float:
        """Share of right answers; 0 of none."""
        return (self.total.tp + self.total.tn) / self.total.examples if self.total.examples else 0.0

    def fold(self, example: ExampleLabelled, output: ArmOutput, spec: ModelSpec) -> None:
        """Count one answer; a correction takes the answer back under the label that it replaces."""
        self._count(example, output, spec, label=example.label, by=1)
        if example.replaces is not None:
            self._count(example, output, spec, label=example.replaces, by=-1)

    def _count(self, example: ExampleLabelled, output: ArmOutput, spec: ModelSpec, *, label: int, by: int) -> None:
        counted = cell(output.prediction == spec.label.positive, label == spec.label.positive, by)
        self.total = self.total.plus(counted)
        for attribute in spec.protected:
            groups = self.groups.setdefault(attribute, {})
            name = _group_name(groups, example.features.get(attribute))
            groups[name] = groups.get(name, GroupCounts()).plus(counted)

    def rates(self) -> tuple[GroupRates, ...]:
        """Every group, by attribute and name."""
        return tuple(
            rates for attribute, groups in sorted(self.groups.items()) for rates in group_rates(attribute, groups)
        )

    def measured(self, evaluation_id: str, model: str, now: datetime) -> PerformanceMeasured:
        """As the topic says it."""
        return PerformanceMeasured(
            evaluation_id=evaluation_id,
            model=model,
            cohort=self.span,
            arm=self.arm,
            version=self.version,
            examples=self.total.examples,
            accuracy=self.accuracy,
            groups=self.rates(),
            derived_from=self.spans.ranges(),
            time=now,
        )


def _group_name(groups: dict[str, GroupCounts], value: FeatureValue) -> str:
    name = "missing" if value is None else str(value)
    return name if name in groups or len(groups) < MOST_GROUPS else "other"


class Gap(NamedTuple):
    """The two groups of an attribute whose selection rates lie furthest apart."""

    attribute: str
    lowest: str
    highest: str
    difference: float


def selection_gaps(cohort: Cohort, min_group_examples: int) -> Iterator[Gap]:
    """For each protected attribute the largest gap between groups that are large enough to be judged."""
    for attribute, groups in sorted(cohort.groups.items()):
        rates = {each.group: each for each in group_rates(attribute, groups) if each.examples >= min_group_examples}
        judged = {name: each.selection_rate for name, each in rates.items() if each.selection_rate is not None}
        if len(judged) > 1:
            lowest, highest = min(judged, key=judged.__getitem__), max(judged, key=judged.__getitem__)
            yield Gap(attribute, lowest, highest, judged[highest] - judged[lowest])
