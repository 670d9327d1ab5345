"""Windows of feature statistics come in: their columns, their rows and the quality of their values are judged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from tailrace_contracts.events import AlertRaised, ColumnSummary, WindowSummarised
from tailrace_contracts.ranges import Log
from tailrace_monitoring.domain import alerts
from tailrace_monitoring.domain.hushed import to_tell
from tailrace_monitoring.domain.knowledge import Knowledge
from tailrace_monitoring.domain.multivariate import TOGETHER, Told
from tailrace_monitoring.domain.state import Distances
from tailrace_monitoring.domain.watched import ModelWatch
from tailrace_monitoring.domain.windows import QUALITY, Measured, Reading, faults_in
from tailrace_monitoring.domain.yardsticks import Basis, columns_of


def basis_of(watch: ModelWatch, window: WindowSummarised, trained_on: Basis, knowledge: Knowledge) -> Basis | None:
    """What this window is to be measured against; None for one that is not judged.

    The champion's training set; or the reference period, for windows that begin after it.
    """
    drift, monitor = watch.state.drift, knowledge.spec.monitors.drift
    if monitor is None or not drift.is_new(window, monitor):
        return None
    period = monitor.reference
    if period is None:
        return trained_on
    if window.window.start < period.end:
        return None
    name = f"{watch.model} {knowledge.basis_name} {len(drift.period_windows)}"
    rows = columns_of(drift.period_rows, drift.period)
    return Basis(name, drift.period, rows, labels=watch.state.labels.of_period)


def take_window(
    watch: ModelWatch,
    placed: tuple[Log, int, WindowSummarised],
    reference: Mapping[str, ColumnSummary],
    readings: Sequence[Reading],
    knowledge: Knowledge,
    *,
    now: datetime,
) -> bool:
    """Take in one window of feature statistics; False for one that was taken in before, or newer than it.

    `reference` is the champion's; `readings` are the window's tests against its `basis`.
    """
    log, offset, window = placed
    watch.follow(knowledge, now)
    if not watch.is_new(log, offset) or not watch.says_more(window):
        return False
    watch.changes.window = window
    for comparison in watch.state.comparisons.values():
        comparison.take_input(window, knowledge.spec)
    drift, monitors = watch.state.drift, knowledge.spec.monitors
    drift.rebase(knowledge.basis_name)
    if window.closed and monitors.drift is not None:
        if monitors.drift.reference is not None:
            drift.gather(window, monitors.drift.reference, watch.tools.merge)
            reference = drift.period if window.window.start >= monitors.drift.reference.end else {}
        measured = drift.judge(window, readings, monitors.drift)
        watch.changes.distances.append(Distances(window, measured))
        _remember(watch, window, monitors.drift.consecutive_windows)
        for moved in to_tell(watch, measured, knowledge, now):
            raised = alerts.feature_drift(watch.stamp(now), moved, monitors, window)
            _raise_drift(watch, raised, knowledge)
    _judge_quality(watch, window, reference, knowledge, now)
    watch.ask_for_training(knowledge, now)
    return True


def _remember(watch: ModelWatch, window: WindowSummarised, windows: int) -> None:
    """Keep the log ranges of the windows that an alert can be about, where it is about several."""
    known = {**watch.state.window_ranges, window.window.start: window.derived_from} if windows > 1 else {}
    watch.state.window_ranges = {start: known[start] for start in sorted(known)[-windows:]}


def _raise_drift(watch: ModelWatch, raised: AlertRaised, knowledge: Knowledge) -> None:
    """An alert about windows, with the log ranges of all windows since it began."""
    for start, ranges in watch.state.window_ranges.items():
        if start >= raised.since:
            raised = raised.model_copy(update={"derived_from": raised.derived_from | ranges})
    watch.raise_alert(raised, knowledge, "feature-drift", watch.trail.first_from(raised.since))


def _judge_quality(
    watch: ModelWatch,
    window: WindowSummarised,
    reference: Mapping[str, ColumnSummary],
    knowledge: Knowledge,
    now: datetime,
) -> None:
    """Tell of bad values, once for a window, and since which of the windows in a row they come."""
    breached, start = watch.state.breached, window.window.start
    for fault in watch.state.drift.faults(window, reference):
        since = breached[fault.key] = min(breached.get(fault.key, start), start)
        watch.raise_alert(alerts.bad_values(watch.stamp(now), fault, window, since), knowledge, None, None)
    if window.closed:
        still = {fault.key for fault in faults_in(window, reference)}
        over = [key for key, since in breached.items() if key.startswith(QUALITY) and since <= start]
        for key in over:
            if key not in still:
                del breached[key]


def judge_rows(watch: ModelWatch, window: WindowSummarised, told: Told, knowledge: Knowledge, now: datetime) -> None:
    """Take in how far a closed window's rows lie from the reference's, after its columns were judged."""
    rows, shown = watch.state.rows, bool(watch.state.drift.streaks)
    alert = rows.judge(window.window.start, told, knowledge.basis_name, shown=shown)
    since = rows.since or window.window.start
    drifted = told.auc > told.threshold
    measured = Measured(TOGETHER, "AUC", told.auc, told.threshold, False, drifted, alert, since)  # noqa: FBT003
    watch.changes.distances.append(Distances(window, [measured]))
    watch.changes.touched = True
    for _ in to_tell(watch, [measured], knowledge, now):
        _raise_drift(watch, alerts.rows_drift(watch.stamp(now), told, since, window), knowledge)


def reference_unusable(
    watch: ModelWatch, version: int, reason: str, window: WindowSummarised, knowledge: Knowledge, *, now: datetime
) -> None:
    """The champion's reference cannot be read: say so, once for each version."""
    key = f"reference|{version}"
    if key not in watch.state.drift.reported:
        watch.state.drift.reported.append(key)
        watch.raise_alert(alerts.no_reference(watch.stamp(now), version, reason, window), knowledge, None, None)
