"""Alerts, worded: what moved, by how much, since when, in one sentence for a person."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from tailrace_contracts.events import (
    AlertKind,
    AlertRaised,
    CategoricalSummary,
    ColumnSummary,
    GroupsCompared,
    NumericalSummary,
    PerformanceEstimated,
    WindowSummarised,
)
from tailrace_contracts.ranges import LogRanges
from tailrace_contracts.spec import ClassLabel, ConceptDriftMonitor, DriftMonitor, ModelSpec, Monitors, NumericalLabel
from tailrace_monitoring.domain.arms import arm_title
from tailrace_monitoring.domain.cohorts import Asked, Cohort, Unfair
from tailrace_monitoring.domain.concept import Alarm
from tailrace_monitoring.domain.estimation import AtRisk
from tailrace_monitoring.domain.multivariate import TOGETHER, Told
from tailrace_monitoring.domain.trail import Step, ranges_of
from tailrace_monitoring.domain.windows import Fault, Measured
from tailrace_statistics.columns import standard_deviation


class Stamp(NamedTuple):
    """What every alert of a model has: its id, the model, and the present moment."""

    alert_id: str
    model: str
    now: datetime

    def alert(
        self,
        kind: AlertKind,
        subject: str,
        *,
        statistic: str,
        value: float,
        threshold: float,
        since: datetime,
        message: str,
        derived_from: LogRanges,
        version: int | None = None,
        kept_by: tuple[int, ...] = (),
    ) -> AlertRaised:
        """An alert about this subject."""
        return AlertRaised(
            alert_id=self.alert_id,
            model=self.model,
            kind=kind,
            subject=subject,
            statistic=statistic,
            value=value,
            threshold=threshold,
            since=since,
            message=message,
            derived_from=derived_from,
            version=version,
            kept_by=kept_by,
            time=self.now,
        )


def _day(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d}"


def concept_drift(
    stamp: Stamp, champion: int | None, alarm: Alarm, steps: Sequence[Step], spec: ModelSpec
) -> AlertRaised:
    """The champion's errors have risen; `steps` are the examples since then."""
    who, since, unit = arm_title("external", champion), steps[0].time, 1.0
    statistic, before, after = "error rate", f"{alarm.before:.1%}", f"{alarm.after:.1%}"
    if isinstance(spec.label, NumericalLabel):
        statistic, unit = "mean absolute error", spec.label.scale
        before, after = f"{alarm.before * unit:.4g}", f"{alarm.after * unit:.4g}"
    return stamp.alert(
        "concept-drift",
        who,
        statistic=statistic,
        value=alarm.after * unit,
        threshold=(spec.monitors.concept_drift or ConceptDriftMonitor()).delta,
        since=since,
        message=(
            f"the {statistic} of {who} rose from {before} to {after} "
            f"since {_day(since)}, over {alarm.at - alarm.since + 1:,} labelled examples"
        ),
        derived_from=ranges_of(steps),
    )


_ERRORS = {"mae": "mean absolute error", "rmse": "root mean squared error"}


def poor_performance(stamp: Stamp, cohort: Cohort, asked: Asked, since: datetime) -> AlertRaised:
    """A closed cohort is worse than the spec asks for; the first one that was, in a row, began `since`."""
    who, span = arm_title(cohort.arm, cohort.version), f"{cohort.examples:,} examples of {_span(cohort, since)}"
    message = f"{who} was right on {asked.value:.1%} of {span}; the spec asks for {asked.limit:.1%}"
    if asked.metric != "accuracy":
        error = _ERRORS[asked.metric]
        message = f"the {error} of {who} was {asked.value:.4g} on {span}; the spec allows {asked.limit:g}"
    return stamp.alert(
        "performance",
        who,
        statistic=_ERRORS.get(asked.metric, asked.metric),
        value=asked.value,
        threshold=asked.limit,
        since=since,
        message=message,
        derived_from=cohort.spans.ranges(),
    )


def poor_estimate(stamp: Stamp, found: PerformanceEstimated, risk: AtRisk) -> AlertRaised:
    """Before its labels have come, a cohort may well be worse than the spec asks for: the interval reaches beyond it."""
    who, value = arm_title(found.arm, found.version), found.estimates[risk.figure].value
    span = f"{found.events:,} predictions of {_day(found.cohort.start)} to {_day(found.cohort.end)}"
    on, sure = f"{span} ({found.labelled:,} labelled)", f"{found.confidence:.0%} interval"
    if risk.figure == "accuracy":
        statistic = "estimated accuracy, lower end"
        said = (
            f"{who} may be right less often than the {risk.limit:.1%} that the spec asks for: "
            f"of {on} an estimated {value:.1%} are right, and the {sure} reaches down to {risk.end:.1%}"
        )
    else:
        error = _ERRORS[risk.figure]
        statistic = f"estimated {error}, upper end"
        said = (
            f"the {error} of {who} may be larger than the {risk.limit:g} that the spec allows: "
            f"on {on} it is estimated at {value:.4g}, and the {sure} reaches up to {risk.end:.4g}"
        )
    return stamp.alert(
        "performance",
        who,
        statistic=statistic,
        value=risk.end,
        threshold=risk.limit,
        since=found.cohort.start,
        message=said + (f" (the estimate is in doubt: {found.doubts[0]})" if found.doubts else ""),
        derived_from=found.derived_from,
    )


def _span(cohort: Cohort, since: datetime) -> str:
    earlier = f", as since {_day(since)}" if since < cohort.span.start else ""
    return f"{_day(cohort.span.start)} to {_day(cohort.span.end)}{earlier}"


RATE_WORDS = {
    "selection_rate": "selection rate",
    "true_positive_rate": "true positive rate",
    "false_positive_rate": "false positive rate",
    "mae": "mean absolute error",
    "bias": "mean error",
}


def unfair(stamp: Stamp, cohort: Cohort, found: Unfair, limit: float, since: datetime) -> AlertRaised:
    """Two groups are treated so differently that chance does not explain it."""
    pair, who = found.pair, arm_title(cohort.arm, cohort.version)
    value, message = (_gap if found.limit == "difference" else _ratio)(who, pair, f"in {_span(cohort, since)}", limit)
    return stamp.alert(
        "fairness",
        pair.attribute,
        statistic=f"{RATE_WORDS[pair.rate]} {found.limit}",
        version=cohort.version,
        value=value,
        threshold=limit,
        since=since,
        message=message,
        derived_from=cohort.spans.ranges(),
    )


def _gap(who: str, pair: GroupsCompared, span: str, most: float) -> tuple[float, str]:
    up = pair.difference > 0
    high, low = (pair.group, pair.reference) if up else (pair.reference, pair.group)
    ends = (pair.difference_interval.lower, pair.difference_interval.upper or 0.0)
    least, most_likely = sorted(abs(end) for end in ends)
    named = f"{pair.attribute}={high}", f"{pair.attribute}={low}"
    form = "{:.4g}" if pair.rate in {"mae", "bias"} else "{:.1%}"
    size, at_least, at_most, allowed = (form.format(each) for each in (abs(pair.difference), least, most_likely, most))
    said = (
        f"{who} selects {named[0]} {size} more often than {named[1]}"
        if pair.rate == "selection_rate"
        else f"the {RATE_WORDS[pair.rate]} of {who} is {size} higher for {named[0]} than for {named[1]}"
    )
    return abs(pair.difference), f"{said} (by {at_least} to {at_most}) {span}; the spec allows {allowed}"


def _ratio(who: str, pair: GroupsCompared, span: str, least: float) -> tuple[float, str]:
    ratio = pair.ratio
    below = ratio is not None and ratio < 1
    low, high = (pair.group, pair.reference) if below else (pair.reference, pair.group)
    value = 0.0 if not ratio else min(ratio, 1 / ratio)
    ends = (pair.ratio_interval.lower, pair.ratio_interval.upper)
    first, last = ends if below else tuple(1 / end if end else 0.0 for end in reversed(ends))
    named = f"{pair.attribute}={low}", f"{pair.attribute}={high}"
    said = (
        f"{who} selects {named[0]} {value:.2f} times as often as {named[1]}"
        if pair.rate == "selection_rate"
        else f"the {RATE_WORDS[pair.rate]} of {who} for {named[0]} is {value:.2f} times that for {named[1]}"
    )
    return value, f"{said} ({first:.2f} to {last:.2f}) {span}; the spec asks for {least:.2f}"


def feature_drift(stamp: Stamp, moved: Sequence[Measured], monitors: Monitors, window: WindowSummarised) -> AlertRaised:
    """Columns have left their reference; the one that lies farthest beyond its threshold comes first."""
    first, *others = sorted(moved, key=lambda each: each.distance / each.threshold, reverse=True)
    monitor = monitors.drift or DriftMonitor()
    row = f" in {monitor.consecutive_windows} windows in a row" if monitor.consecutive_windows > 1 else ""
    calibrated = "" if monitor.threshold else f", which chance passes {monitors.expected_false_alarms} in all"
    also = f"; so are {', '.join(f'{each.column} ({_far(each)})' for each in others[:10])}" if others else ""
    more = f" and {len(others) - 10} more" if len(others) > 10 else ""
    return stamp.alert(
        "feature-drift",
        first.column,
        statistic=first.statistic,
        value=first.distance,
        threshold=first.threshold,
        since=first.since,
        message=(
            f"{first.column} is {_far(first)} from its reference since "
            f"{_day(first.since)}, over {first.threshold:.3g}{row}{calibrated}{also}{more}"
        ),
        derived_from=window.derived_from,
    )


def _far(measured: Measured) -> str:
    return f"{measured.distance:.3g} ({measured.statistic})"


def rows_drift(stamp: Stamp, told: Told, since: datetime, window: WindowSummarised) -> AlertRaised:
    """The rows have left their reference, though no single feature has."""
    return stamp.alert(
        "feature-drift",
        TOGETHER,
        statistic="AUC of a domain classifier",
        value=told.auc,
        threshold=told.threshold,
        since=since,
        message=(
            f"a classifier tells rows since {_day(since)} from those of the reference with an AUC of {told.auc:.2f}, "
            f"over {told.threshold:.2f}; no single feature shows it: look at how they depend on each other"
        ),
        derived_from=window.derived_from,
    )


def label_drift(
    stamp: Stamp, cohort: Cohort, measured: Measured, reference: ColumnSummary, spec: ModelSpec
) -> AlertRaised:
    """The labels of a closed cohort are not distributed as the reference's."""
    label, found = spec.label, cohort.labels
    span = f"{found.count:,} labels of {_span(cohort, measured.since)}"
    if isinstance(label, ClassLabel):
        shares = f"{_positive(found):.1%} of {span}, and for {_positive(reference):.1%} of the reference's"
        said = f"{label.name} is {label.positive} for {shares}"
    else:
        said = f"{label.name} is {_spread(found)} among {span}, and {_spread(reference)} in the reference"
    return stamp.alert(
        "feature-drift",
        label.name,
        statistic=measured.statistic,
        value=measured.distance,
        threshold=measured.threshold,
        since=measured.since,
        message=f"{said}: {measured.statistic} {measured.distance:.3g}, over {measured.threshold:.3g}",
        derived_from=cohort.spans.ranges(),
    )


def _positive(labels: ColumnSummary) -> float:
    return labels.counts.get("1", 0) / max(labels.count, 1) if isinstance(labels, CategoricalSummary) else 0.0


def _spread(labels: ColumnSummary) -> str:
    if not isinstance(labels, NumericalSummary):
        return ""
    return f"{labels.mean:.4g} on average (standard deviation {standard_deviation(labels):.4g})"


_WORDS = {
    "out-of-limits": "outside the spec's limits",
    "missing": "missing",
    "unseen": "outside the spec's categories",
}


def bad_values(stamp: Stamp, fault: Fault, window: WindowSummarised, since: datetime) -> AlertRaised:
    """A column has values that it should not have; the first of the windows in a row that had them began `since`."""
    plural = fault.values != 1
    earlier = f", and in every window since {_day(since)}" if since < window.window.start else ""
    return stamp.alert(
        "data-quality",
        fault.column,
        statistic=f"{fault.what} values",
        value=float(fault.values) if fault.what == "out-of-limits" else fault.share,
        threshold=fault.threshold,
        since=since,
        message=(
            f"{fault.values:,} value{'s' * plural} of {fault.column} {'are' if plural else 'is'} {_WORDS[fault.what]} "
            f"among {window.events:,} events since {_day(window.window.start)}{earlier}"
        ),
        derived_from=window.derived_from,
    )


def no_reference(stamp: Stamp, version: int, reason: str, window: WindowSummarised) -> AlertRaised:
    """The champion's reference cannot be read, so that its drift cannot be judged."""
    return stamp.alert(
        "data-quality",
        f"reference of version {version}",
        statistic="unreadable artefacts",
        value=1.0,
        threshold=0.0,
        since=window.window.start,
        message=f"feature drift cannot be judged: the reference of version {version} cannot be used ({reason})",
        derived_from=window.derived_from,
    )
