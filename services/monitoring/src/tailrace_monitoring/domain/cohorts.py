"""Performance by prediction-time cohort: how one arm did on the inferences of one window, on the labels known so far.

A late label lands in the cohort of its prediction, a corrected one is moved from where it was counted. A cohort closes
once an event time beyond its end and the allowed lateness has been seen; what comes later still counts, and is
measured again, but raises no second alert.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import combinations
from typing import Literal, NamedTuple

from pydantic import BaseModel

from tailrace_contracts.events import (
    Arm,
    ArmOutput,
    ColumnSummary,
    ExampleLabelled,
    FeatureValue,
    GroupRates,
    GroupsCompared,
    PerformanceMeasured,
    WindowSpan,
)
from tailrace_contracts.spec import FairnessMonitor, ModelSpec, NumericalLabel, PerformanceMonitor
from tailrace_monitoring.domain.ledger import Ledger
from tailrace_monitoring.domain.spans import Spans
from tailrace_statistics.error_gaps import compare_errors, error_rates, limit_of
from tailrace_statistics.errors import ErrorSums
from tailrace_statistics.fairness import CROSS, GroupCounts, cell, compare_groups, group_rates
from tailrace_statistics.labels import LabelSketch, column_of_classes

MOST_GROUPS = 40
"""Groups of one protected attribute; further values are counted together as `other`."""

MOST_CELLS = 100
"""Groups that several attributes make together; further ones are counted together as `other`."""

MOST_INTERSECTIONS = 10
"""Combinations of attributes: all pairs in the order of the spec, then all attributes together."""

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


class Cohort(BaseModel):
    """One arm in one window of prediction time."""

    span: WindowSpan
    arm: Arm
    version: int | None
    total: GroupCounts = GroupCounts()
    groups: dict[str, dict[str, GroupCounts]] = {}
    grouped_by: tuple[tuple[str, ...], ...] | None = None
    spans: Spans = Spans()
    ledger: Ledger = Ledger()
    errors: ErrorSums = ErrorSums()
    numbers: ErrorSums = ErrorSums()
    sketched: LabelSketch = LabelSketch()
    group_errors: dict[str, dict[str, ErrorSums]] = {}
    closed: bool = False

    @property
    def key(self) -> CohortKey:
        """Which cohort it is."""
        return CohortKey(self.span.start, self.arm, self.version or 0)

    @property
    def examples(self) -> int:
        """Labelled answers: of classes, or of numbers."""
        return self.total.examples + self.errors.examples

    @property
    def labels(self) -> ColumnSummary:
        """The labels as a column; of classes 1 is the positive one. Empty where it began before labels were sketched."""
        if not self.errors.examples:
            return column_of_classes(self.total.tp + self.total.fn, self.total.examples)
        return self.sketched.column(self.numbers if self.numbers.examples == self.errors.examples else ErrorSums())

    @property
    def accuracy(self) -> float | None:
        """Share of right answers; 0 of none, and None of a regression."""
        if self.errors.examples:
            return None
        return (self.total.tp + self.total.tn) / self.total.examples if self.total.examples else 0.0

    def fold(self, example: ExampleLabelled, output: ArmOutput, spec: ModelSpec) -> None:
        """Count one answer; a correction takes the answer back under the label that it replaces."""
        self._count(example, output, spec, label=example.label, by=1)
        if example.replaces is not None:
            self._count(example, output, spec, label=example.replaces, by=-1)

    def _count(self, example: ExampleLabelled, output: ArmOutput, spec: ModelSpec, *, label: float, by: int) -> None:
        if isinstance(spec.label, NumericalLabel):
            self.numbers = self.numbers.plus(ErrorSums.of(label, 0.0, by))
            self.sketched.count(label, by)
            self._count_error(example, spec, ErrorSums.of(output.prediction, label, by))
            return
        selected, positive = (each == spec.class_label.positive for each in (output.prediction, label))
        counted = cell(selected, positive, by)
        self.total = self.total.plus(counted)
        self.ledger.count(output, selected=selected, positive=positive, by=by)
        for attributes in self._grouped(spec):
            groups = self.groups.setdefault(CROSS.join(attributes), {})
            name = _group_name(groups, [example.features.get(attribute) for attribute in attributes])
            groups[name] = groups.get(name, GroupCounts()).plus(counted)

    def _count_error(self, example: ExampleLabelled, spec: ModelSpec, counted: ErrorSums) -> None:
        self.errors = self.errors.plus(counted)
        for attributes in self._grouped(spec):
            groups = self.group_errors.setdefault(CROSS.join(attributes), {})
            name = _group_name(groups, [example.features.get(attribute) for attribute in attributes])
            groups[name] = groups.get(name, ErrorSums()).plus(counted)

    def _grouped(self, spec: ModelSpec) -> tuple[tuple[str, ...], ...]:
        if self.grouped_by is None:
            before = tuple((attribute,) for attribute in self.groups)
            self.grouped_by = before or combinations_of(spec.protected)
        return self.grouped_by

    def rates(self, monitor: FairnessMonitor) -> tuple[GroupRates, ...]:
        """Every group, by attribute and name."""
        return tuple(
            rates
            for attribute, groups in sorted(self.groups.items())
            for rates in group_rates(attribute, groups, monitor.min_group_examples)
        ) + tuple(error_rates(self.group_errors, monitor.min_group_examples))

    def comparisons(self, monitor: FairnessMonitor) -> tuple[GroupsCompared, ...]:
        """Groups against each other: their rates, or the errors of a regression."""
        return compare_groups(self.groups, monitor) + compare_errors(self.group_errors, monitor)

    def measured(self, evaluation_id: str, model: str, monitor: FairnessMonitor, now: datetime) -> PerformanceMeasured:
        """As the topic says it."""
        return PerformanceMeasured(
            evaluation_id=evaluation_id,
            model=model,
            cohort=self.span,
            arm=self.arm,
            version=self.version,
            examples=self.examples,
            accuracy=self.accuracy,
            metrics=self.errors.metrics(),
            groups=self.rates(monitor),
            comparisons=self.comparisons(monitor),
            derived_from=self.spans.ranges(),
            time=now,
        )


def combinations_of(protected: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """What examples are grouped by: each attribute, and combinations of them.

    A cohort keeps to those of its first example: a group that is counted from the middle on, or whose corrections
    were never counted, would have wrong rates.
    """
    together = [*combinations(protected, 2), *([tuple(protected)] if len(protected) > 2 else [])]
    if len(together) > MOST_INTERSECTIONS:
        together = [*together[: MOST_INTERSECTIONS - 1], together[-1]]
    return (*((attribute,) for attribute in protected), *together)


def _group_name(groups: Collection[str], values: Sequence[FeatureValue]) -> str:
    name = CROSS.join("missing" if value is None else str(value) for value in values)
    most = MOST_GROUPS if len(values) == 1 else MOST_CELLS
    return name if name in groups or len(groups) < most else "other"


class Asked(NamedTuple):
    """What a spec asks of a cohort: a figure, what it is, and what it may at worst be."""

    metric: Literal["accuracy", "mae", "rmse"]
    value: float
    limit: float

    @property
    def holds(self) -> bool:
        """Whether the cohort is as good as that."""
        return self.value >= self.limit if self.metric == "accuracy" else self.value <= self.limit


def asked_of(cohort: Cohort, monitor: PerformanceMonitor) -> Iterator[Asked]:
    """Everything that the spec asks of a cohort's performance."""
    if cohort.accuracy is not None and monitor.min_accuracy is not None:
        yield Asked("accuracy", cohort.accuracy, monitor.min_accuracy)
    if cohort.errors.examples and monitor.max_mae is not None:
        yield Asked("mae", cohort.errors.mae, monitor.max_mae)
    if cohort.errors.examples and monitor.max_rmse is not None:
        yield Asked("rmse", cohort.errors.rmse, monitor.max_rmse)


class Unfair(NamedTuple):
    """A limit of the spec that a cohort breaks: the pair of groups, and how it is broken."""

    pair: GroupsCompared
    limit: Literal["difference", "ratio"]

    def allowed(self, monitor: FairnessMonitor) -> float:
        """The limit of the spec that is broken."""
        if self.pair.rate in {"mae", "bias"}:
            return limit_of("mae" if self.pair.rate == "mae" else "bias", monitor) or 0.0
        return (monitor.min_ratio if self.limit == "ratio" else monitor.max_difference) or 0.0


def unfair_pairs(cohort: Cohort, monitor: FairnessMonitor) -> Iterator[Unfair]:
    """For each attribute, rate and limit the pair that lies furthest apart, where it breaks the limit.

    An intersection is left out where one of its attributes breaks the same limit by itself: that says it already.
    """
    worst: dict[tuple[str, str, str], Unfair] = {}
    for pair in cohort.comparisons(monitor):
        for broken in pair.over:
            found = Unfair(pair, broken)
            worst[pair.attribute, pair.rate, broken] = max(
                found, worst.get((pair.attribute, pair.rate, broken), found), key=_how_far
            )
    for (attribute, rate, limit), found in worst.items():
        parts = attribute.split(CROSS)
        if len(parts) == 1 or not any((part, rate, limit) in worst for part in parts):
            yield found


def _how_far(found: Unfair) -> float:
    if found.limit == "difference":
        return abs(found.pair.difference)
    ratio = found.pair.ratio
    return 1.0 if not ratio else 1 - min(ratio, 1 / ratio)
