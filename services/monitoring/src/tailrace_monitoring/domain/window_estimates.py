"""The performance of a closed window's answers is estimated before their labels come."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from tailrace_contracts.events import PerformanceEstimated, Slice, WindowSummarised
from tailrace_contracts.ranges import Log, LogRanges
from tailrace_monitoring.domain import alerts, estimation, ledger
from tailrace_monitoring.domain.cohorts import Cohort, CohortKey
from tailrace_monitoring.domain.knowledge import Knowledge
from tailrace_monitoring.domain.watched import ModelWatch


def estimate_window(
    watch: ModelWatch,
    placed: tuple[Log, int, WindowSummarised],
    past: Mapping[int, Sequence[Cohort]],
    knowledge: Knowledge,
    now: datetime,
) -> None:
    """Estimate the performance of a closed window's arms; `past` are labelled cohorts by version, newest first."""
    monitor, (log, offset, window) = knowledge.spec.monitors.estimation, placed
    for each in estimation.answers_in(window, monitor.min_events) if monitor else ():
        key = CohortKey(window.window.start, each.arm, each.version or 0)
        basis = estimation.learn(past.get(key.version, ()), watch.state.regime, monitor) if monitor else None
        cohort = watch.cohorts.at(key, window.window, each.arm, each.version)
        before = cohort.ledger.first
        cohort.ledger.close(each.served, basis, LogRanges.of_offsets([(log, offset)]))
        _publish(watch, cohort, knowledge, now, first=before is None)


def estimate_numbers(
    watch: ModelWatch,
    placed: tuple[Log, int, WindowSummarised],
    part: Slice,
    basis: ledger.Basis | None,
    knowledge: Knowledge,
    *,
    now: datetime,
) -> None:
    """Estimate the error of a regression's answers in a closed window, from what was foretold of them."""
    log, offset, window = placed
    key = CohortKey(window.window.start, part.arm or "", part.version or 0)
    cohort = watch.cohorts.at(key, window.window, part.arm or "external", part.version)
    before = cohort.ledger.first
    cohort.ledger.close_numbers(part.events, basis, LogRanges.of_offsets([(log, offset)]))
    _publish(watch, cohort, knowledge, now, first=before is None)


def _publish(watch: ModelWatch, cohort: Cohort, knowledge: Knowledge, now: datetime, *, first: bool) -> None:
    """Publish the estimate of a cohort whose window is closed; the first one is judged."""
    watch.changes.cohorts.add(cohort.key)
    watch.changes.touched = True
    found = watch.estimate(cohort, knowledge, now)
    if found is not None and first and cohort.ledger.first is not None:
        _judge_estimate(watch, found, knowledge, now)


def _judge_estimate(watch: ModelWatch, found: PerformanceEstimated, knowledge: Knowledge, now: datetime) -> None:
    monitor = knowledge.spec.monitors.estimation
    if monitor is None or not monitor.alert or found.arm not in {"champion", "external"}:
        return
    for asked in estimation.may_break(found, knowledge.spec.monitors.performance):
        watch.raise_alert(alerts.poor_estimate(watch.stamp(now), found, asked), knowledge, None, None)
