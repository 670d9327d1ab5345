"""What closed windows are measured against, and how far they may lie from it by chance.

A yardstick is cut once for a reference and what the spec says of drift, and its thresholds are calibrated once for a
size of window (`tailrace_statistics.calibration`): seconds of computing, so both are kept, and nothing here is to be
called on the event loop. A threshold in the spec is taken as it is, and nothing is calibrated.

A lock keeps two threads from calibrating the same thing at once.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from tailrace_contracts.events import ColumnSummary, NumericalSummary, SampledRow, Slice, WindowSummarised
from tailrace_contracts.spec import DriftMonitor, ModelSpec
from tailrace_monitoring.domain.multivariate import comparable
from tailrace_monitoring.domain.windows import NOT_JUDGED, Reading
from tailrace_statistics.calibration import Budget, Values, Yardstick, independent_rows
from tailrace_statistics.distances import chosen

KEPT = 16
"""Yardsticks that are kept, those that were used last."""

LEAST_OF_GROUP = 0.8
"""A group with fewer events than this part of what its share of the reference lets expect is not judged: its smaller
number would pass for drift. That it has become small is drift of the attribute itself."""


LABELS_SHARE = 0.05
"""Of the model's false alarms, the part that the labels' distribution may make, where the reference's is known."""

ANSWERS_SHARE = 0.1
"""The part that a version's answers may make, where its reference has answers of its own."""


class Answers(NamedTuple):
    """What a version answered on examples that it had not learned: prediction and probability, and these rows."""

    version: int
    columns: Mapping[str, ColumnSummary]
    rows: Mapping[str, Values]


class Labels(NamedTuple):
    """What the labels were, of classes 1 and 0; and those of single rows, where they are known."""

    column: ColumnSummary
    values: Values


class Basis(NamedTuple):
    """A reference: its columns, a sample of its rows where there is one, and a name that no other one has.

    A version's reference may have its answers, and any one labels.
    """

    name: str
    columns: Mapping[str, ColumnSummary]
    rows: Mapping[str, Values]
    answers: Answers | None = None
    labels: Labels | None = None

    @property
    def share(self) -> float:
        """The part of the false alarms that is left for features, one by one and together."""
        return 1.0 - ANSWERS_SHARE * (self.answers is not None) - LABELS_SHARE * (self.labels is not None)


NO_BASIS = Basis("", {}, {})
"""There is nothing to compare with."""


def columns_of(sample: Sequence[SampledRow], columns: Mapping[str, ColumnSummary]) -> dict[str, Values]:
    """Sampled rows by column, as the columns' types ask; nothing where there are no rows."""
    found: dict[str, Values] = {}
    for name, summary in columns.items() if sample else ():
        values = [row.values.get(name) for row in sample]
        numerical = isinstance(summary, NumericalSummary)
        found[name] = np.array(values, dtype=np.float64) if numerical else values
    return found


class Part(NamedTuple):
    """What is judged: so many events, their columns, and slices of them."""

    events: int
    columns: Mapping[str, ColumnSummary]
    slices: Sequence[Slice] = ()


class Yardsticks:
    """Yardsticks by reference and spec."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: dict[tuple[str, str, str], Yardstick] = {}

    def read(self, window: WindowSummarised, basis: Basis, spec: ModelSpec) -> list[Reading]:
        """Every test of a window, in the order of the reference's columns; [] where there is nothing to compare."""
        if spec.monitors.drift is None or not basis.columns:
            return []
        together = comparable(window, basis.rows, spec.monitors.multivariate)
        whole = Part(window.events, window.columns, window.slices)
        readings = self._read(whole, basis, spec, budget_of(spec, basis, together=together))
        answered = _answered(window, basis.answers)
        if basis.answers is None or answered is None or answered.events < spec.monitors.drift.min_examples:
            return readings
        answers = Basis(f"{basis.name} answers", basis.answers.columns, basis.answers.rows)
        return readings + self._read(answered, answers, spec, part_of(spec, ANSWERS_SHARE))

    def read_labels(self, found: ColumnSummary, basis: Basis, spec: ModelSpec) -> Reading | None:
        """The distance of a closed cohort's labels; None where there are too few, or nothing to compare them with."""
        monitor, labels, name = spec.monitors.drift, basis.labels, spec.label.name
        if monitor is None or labels is None or min(found.count, labels.column.count) < monitor.min_examples:
            return None
        rows = {name: labels.values} if len(labels.values) else {}
        reference = Basis(f"{basis.name} labels", {name: labels.column}, rows)
        budget = part_of(spec, LABELS_SHARE)._replace(consecutive=1)
        readings = self._read(Part(found.count, {name: found}), reference, spec, budget)
        return next((each for each in readings if not each.statistic.endswith("share")), None)

    def _read(self, window: Part, basis: Basis, spec: ModelSpec, budget: Budget) -> list[Reading]:
        monitor = spec.monitors.drift or DriftMonitor()
        with self._lock:
            yardstick = self._yardstick(basis, spec, monitor)
            expected = yardstick.expected(window.events)
            groups = {
                (part.attribute, part.group): part.columns
                for part in window.slices
                if part.attribute is not None and part.group is not None
                if part.events
                >= max(monitor.min_examples, LEAST_OF_GROUP * expected.get((part.attribute, part.group), 0))
            }
            measured = yardstick.measure(window.columns, groups)
            if monitor.threshold is not None:
                limits = {
                    probe: monitor.threshold for probe in measured if probe.statistic not in {"missing", "unseen"}
                }
            else:
                limits = yardstick.limits(window.events, budget, monitor.min_examples)
        return [
            Reading(str(probe), _words(probe.statistic), value, limits[probe], bool(probe.attribute))
            for probe, value in measured.items()
            if probe in limits
        ]

    def _yardstick(self, basis: Basis, spec: ModelSpec, monitor: DriftMonitor) -> Yardstick:
        key = basis.name, monitor.model_dump_json(), ",".join(spec.protected)
        yardstick = self._kept.pop(key, None)
        if yardstick is None:
            columns = {name: each for name, each in basis.columns.items() if name not in NOT_JUDGED}
            kinds = {
                name: chosen(monitor.by_column.get(name, monitor.distance), summary)
                for name, summary in columns.items()
            }
            rows = {name: values for name, values in basis.rows.items() if name in columns}
            attributes = spec.protected if rows else ()
            yardstick = Yardstick(columns, rows or independent_rows(columns), kinds, attributes)
        self._kept[key] = yardstick
        if len(self._kept) > KEPT:
            del self._kept[next(iter(self._kept))]
        return yardstick


def _words(statistic: str) -> str:
    return f"{statistic} share" if statistic in {"missing", "unseen"} else statistic


def _answered(window: WindowSummarised, answers: Answers | None) -> Part | None:
    """The part of a window that this version answered as the champion, as if it were all; None where there is none."""
    for part in window.slices:
        if answers is not None and (part.arm, part.version) == ("champion", answers.version):
            return Part(part.events, part.columns)
    return None


def budget_of(spec: ModelSpec, basis: Basis = NO_BASIS, *, together: bool = False) -> Budget:
    """The spec's false alarms, in windows, that are the single features'.

    That is all but the shares of answers and labels, where the basis has them; and, `together`, but the share of the test
    of all features together, where a window is tested so.
    """
    rows = spec.monitors.multivariate
    return part_of(spec, basis.share * (1 - rows.share if rows and together else 1.0))


def part_of(spec: ModelSpec, share: float) -> Budget:
    """A part of the spec's false alarms. A budget of less than one window in 20 is counted over as many windows."""
    alerts, days = spec.monitors.false_alarms
    monitor = spec.monitors.drift
    budget = Budget(alerts, days / spec.monitors.window_days, monitor.consecutive_windows if monitor else 1)
    return budget if share == 1 else budget._replace(alerts=budget.per_window * share * budget.windows)


def chance_together(spec: ModelSpec, basis: Basis = NO_BASIS) -> float:
    """The chance of a false alarm on all features together that a window may have."""
    rows = spec.monitors.multivariate
    return part_of(spec, basis.share * rows.share).per_window if rows else 0.0
