"""Cohorts that have just closed are judged: performance, fairness, and whether their labels have moved."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from functools import partial

from tailrace_contracts.events import AlertRaised
from tailrace_contracts.spec import FairnessMonitor
from tailrace_monitoring.domain import alerts
from tailrace_monitoring.domain.arms import arm_title
from tailrace_monitoring.domain.cohorts import MIN_COHORT_EXAMPLES, Cohort, CohortKey, Unfair, asked_of, unfair_pairs
from tailrace_monitoring.domain.hushed import to_tell
from tailrace_monitoring.domain.knowledge import Knowledge
from tailrace_monitoring.domain.watched import ModelWatch
from tailrace_monitoring.domain.windows import Measured
from tailrace_monitoring.domain.yardsticks import NO_BASIS, Basis, Yardsticks


def judge(watch: ModelWatch, cohort: Cohort, knowledge: Knowledge, now: datetime) -> None:
    """Judge one cohort that has just closed; its labels wait for `judge_labels`, which needs a reference."""
    if cohort.arm not in {"champion", "external"} or cohort.examples < MIN_COHORT_EXAMPLES:
        return
    _judge_performance(watch, cohort, knowledge, now)
    if knowledge.spec.monitors.drift is not None and cohort.version == watch.state.champion:
        watch.labels_to_judge.append(cohort)
    if knowledge.spec.monitors.fairness.alert:
        _judge_fairness(watch, cohort, knowledge, now)


def judge_labels(
    watch: ModelWatch, trained_on: Basis, knowledge: Knowledge, yardsticks: Yardsticks, now: datetime
) -> None:
    """Judge the labels of the cohorts that have just closed; `trained_on` is the champion's reference.

    Thresholds that are not known yet take a part of a second to calibrate: not for the event loop.
    """
    monitor, drift, spec = knowledge.spec.monitors.drift, watch.state.labels, knowledge.spec
    closed, watch.labels_to_judge = watch.labels_to_judge, []
    drift.rebase(knowledge.basis_name)
    for cohort in closed if monitor is not None else ():
        basis = _basis_of_labels(watch, cohort, trained_on, knowledge)
        reading = yardsticks.read_labels(cohort.labels, basis, spec)
        if reading is None or basis.labels is None:
            continue
        alert, since = drift.judge(cohort, reading), drift.since or cohort.span.start
        drifted = reading.value > reading.threshold
        measured = Measured(*reading, drifted=drifted, alert=alert, since=since)
        for _ in to_tell(watch, [measured], knowledge, now):
            raised = alerts.label_drift(watch.stamp(now), cohort, measured, basis.labels.column, spec)
            watch.raise_alert(raised, knowledge, "feature-drift", watch.trail.first_from(since))


def _basis_of_labels(watch: ModelWatch, cohort: Cohort, trained_on: Basis, knowledge: Knowledge) -> Basis:
    """The training set; or, where the spec names a period, what of it has closed, for cohorts after it."""
    monitor, drift = knowledge.spec.monitors.drift, watch.state.labels
    if monitor is None or monitor.reference is None:
        return trained_on
    drift.gather(cohort, monitor.reference, watch.tools.merge)
    known = drift.of_period if cohort.span.start >= monitor.reference.end else None
    count = known.column.count if known else 0
    return NO_BASIS._replace(name=f"{watch.model} {knowledge.basis_name} {count}", labels=known)


def _judge_performance(watch: ModelWatch, cohort: Cohort, knowledge: Knowledge, now: datetime) -> None:
    for asked in asked_of(cohort, knowledge.spec.monitors.performance):
        key = f"{arm_title(cohort.arm, cohort.version)}|{asked.metric}"
        if asked.holds:
            watch.state.breached.pop(key, None)
            continue
        since = watch.state.breached.setdefault(key, cohort.span.start)
        raised = alerts.poor_performance(watch.stamp(now), cohort, asked, since)
        kept = standby_if(watch, cohort, knowledge, partial(_keeps, knowledge=knowledge, metric=asked.metric))
        _raise_for(watch, cohort, raised.model_copy(update={"kept_by": kept}), knowledge)


def _keeps(cohort: Cohort, knowledge: Knowledge, metric: str) -> bool:
    return all(each.holds for each in asked_of(cohort, knowledge.spec.monitors.performance) if each.metric == metric)


def standby_if(
    watch: ModelWatch, cohort: Cohort, knowledge: Knowledge, keeps: Callable[[Cohort], bool]
) -> tuple[int, ...]:
    """The version that stands by, where it kept the limit on the examples of this cohort of the champion.

    One cohort is short: it counts only for a version that was better on all examples since it was replaced. What the
    world does to every version returns nobody.
    """
    number = knowledge.deployment.standby if knowledge.deployment else None
    comparison = watch.state.comparisons.get(number or 0)
    beside = watch.cohorts.find(CohortKey(cohort.span.start, "shadow", number or 0))
    if number is None or beside is None or beside.examples < MIN_COHORT_EXAMPLES:
        return ()
    return (number,) if comparison is not None and comparison.ahead and keeps(beside) else ()


def _raise_for(watch: ModelWatch, cohort: Cohort, raised: AlertRaised, knowledge: Knowledge) -> None:
    answers_now = cohort.version == watch.state.champion
    first = watch.trail.first_from(max(cohort.span.start, watch.state.regime or cohort.span.start))
    watch.raise_alert(raised, knowledge, "performance" if answers_now else None, first)


def _judge_fairness(watch: ModelWatch, cohort: Cohort, knowledge: Knowledge, now: datetime) -> None:
    monitor, who = knowledge.spec.monitors.fairness, arm_title(cohort.arm, cohort.version)
    before = {key: since for key, since in watch.state.breached.items() if key.startswith(f"{who}|fairness|")}
    for found in unfair_pairs(cohort, monitor):
        pair = found.pair
        key = f"{who}|fairness|{pair.attribute}|{pair.rate}|{found.limit}"
        since = watch.state.breached.setdefault(key, cohort.span.start)
        before.pop(key, None)
        raised = alerts.unfair(watch.stamp(now), cohort, found, found.allowed(monitor), since)
        kept = standby_if(watch, cohort, knowledge, partial(_is_fair, monitor=monitor, found=found))
        watch.raise_alert(raised.model_copy(update={"kept_by": kept}), knowledge, None, None)
    for key in before:
        del watch.state.breached[key]


def _is_fair(cohort: Cohort, monitor: FairnessMonitor, found: Unfair) -> bool:
    broken = {(each.pair.attribute, each.pair.rate, each.limit) for each in unfair_pairs(cohort, monitor)}
    return (found.pair.attribute, found.pair.rate, found.limit) not in broken
