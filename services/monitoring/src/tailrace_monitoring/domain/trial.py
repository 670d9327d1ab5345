"""What a trial shows beside who is right more often: how groups fare, how both answer, and what came in.

Monitoring only gathers it; the registry holds it against the gates of the spec. All of it is counted since the
candidate entered its stage, but for the groups: they are of the same examples as the comparison itself.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from pydantic import BaseModel

from tailrace_contracts.durations import quantile_ms
from tailrace_contracts.events import (
    AnswersMeasured,
    ArmMeasured,
    ArmOutput,
    Bounds,
    ExampleLabelled,
    GroupWorsened,
    InputMeasured,
    NumericalSummary,
    WindowSummarised,
)
from tailrace_contracts.ranges import LogRanges
from tailrace_contracts.spec import GateMetric, ModelSpec, NumericalLabel
from tailrace_monitoring.domain.arms import loss
from tailrace_monitoring.domain.cohorts import MOST_GROUPS
from tailrace_statistics.intervals import critical_value, wilson_interval
from tailrace_statistics.sequential import PairedComparison

P99 = 0.99
CONFIDENCE = 0.95
KEPT_WINDOWS = 10
"""Windows of one trial whose input is remembered, the newest."""


# ---------------------------------------------------------------- groups


class GroupTest(BaseModel):
    """One group: how often each version did badly by it, and the sums that the anytime-valid test needs."""

    examples: int = 0
    champion_bad: float = 0.0
    candidate_bad: float = 0.0
    worse: float = 0.0
    better: float = 0.0
    squares: float = 0.0

    def count(self, champion: float, candidate: float) -> None:
        """One more example, with each version's badness from 0 to 1."""
        difference = candidate - champion
        self.examples += 1
        self.champion_bad += champion
        self.candidate_bad += candidate
        self.worse += max(difference, 0.0)
        self.better += max(-difference, 0.0)
        self.squares += difference * difference


class GroupTrial(BaseModel):
    """All groups of all protected attributes, by one metric."""

    metric: GateMetric | None = None
    groups: dict[str, dict[str, GroupTest]] = {}

    def fold(self, example: ExampleLabelled, champion: ArmOutput, candidate: ArmOutput, spec: ModelSpec) -> None:
        """Count one example in its groups; one that the metric is not of (a negative of a true positive rate) in none."""
        _, metric = spec.fairness_gate
        if metric != self.metric:
            self.metric, self.groups = metric, {}
        badness = [_badness(metric, output, example.label, spec) for output in (champion, candidate)]
        if badness[0] is None or badness[1] is None:
            return
        for attribute in spec.protected:
            groups, value = self.groups.setdefault(attribute, {}), example.features.get(attribute)
            name = "missing" if value is None else str(value)
            name = name if name in groups or len(groups) < MOST_GROUPS else "other"
            groups.setdefault(name, GroupTest()).count(badness[0], badness[1])

    def compared(self, error_rate: float, spec: ModelSpec) -> tuple[GroupWorsened, ...]:
        """Every group. The intervals hold together, and at every moment (Bonferroni over the groups there are)."""
        together = sum(len(groups) for groups in self.groups.values())
        return tuple(
            self._compared(attribute, name, test, error_rate / together, spec)
            for attribute, groups in sorted(self.groups.items())
            for name, test in sorted(groups.items())
        )

    def _compared(
        self, attribute: str, name: str, test: GroupTest, error_rate: float, spec: ModelSpec
    ) -> GroupWorsened:
        sums = {"examples": test.examples, "won": test.worse, "lost": test.better, "squares": test.squares}
        found = PairedComparison.load({"error_rate": error_rate, **sums}).result()
        return GroupWorsened(
            attribute=attribute,
            group=name,
            examples=test.examples,
            champion=_figure(self.metric, test.champion_bad / max(1, test.examples), spec),
            candidate=_figure(self.metric, test.candidate_bad / max(1, test.examples), spec),
            worsening=found.mean,
            interval=Bounds(lower=found.lower, upper=found.upper),
        )


def _badness(metric: GateMetric, output: ArmOutput, label: float, spec: ModelSpec) -> float | None:
    """0 good to 1 bad for who was asked about; None where the metric is not of this example."""
    if isinstance(spec.label, NumericalLabel) or metric in {"accuracy", "mae"}:
        return loss(output, label, spec.label)
    positive = spec.label.positive
    if metric == "false_positive_rate":
        return None if label == positive else float(output.prediction == positive)
    if metric == "true_positive_rate" and label != positive:
        return None
    return float(output.prediction != positive)


def _figure(metric: GateMetric | None, badness: float, spec: ModelSpec) -> float:
    """The metric as people know it."""
    if isinstance(spec.label, NumericalLabel):
        return badness * spec.label.scale
    return badness if metric == "false_positive_rate" else 1 - badness


# ---------------------------------------------------------------- answers


class Answers(BaseModel):
    """How one version answered during the stage."""

    answered: int = 0
    failed: int = 0
    durations: dict[int, int] = {}

    def fold(self, arms: Iterable[ArmMeasured]) -> bool:
        """Add what was measured; whether there was anything."""
        some = False
        for arm in arms:
            some = True
            self.answered += arm.answered
            self.failed += arm.failed
            for bucket, count in arm.durations.items():
                self.durations[bucket] = self.durations.get(bucket, 0) + count
        return some

    def measured(self, version: int) -> AnswersMeasured:
        """As the topic says it. The interval of the percentile is between two of the ordered times (normal approximation)."""
        timed = sum(self.durations.values())
        apart = critical_value(CONFIDENCE) * math.sqrt(P99 * (1 - P99) / timed) if timed else 0.0
        low, high = (quantile_ms(self.durations, P99 + side * apart) for side in (-1, 1))
        return AnswersMeasured(
            version=version,
            answered=self.answered,
            failed=self.failed,
            failed_interval=self._failed_interval(),
            timed=timed,
            p50_ms=quantile_ms(self.durations, 0.5),
            p99_ms=quantile_ms(self.durations, P99),
            p99_interval=None if low is None or high is None else Bounds(lower=low, upper=high),
        )

    def _failed_interval(self) -> Bounds | None:
        asked = self.answered + self.failed
        return Bounds(**wilson_interval(self.failed, asked, CONFIDENCE)._asdict()) if asked else None


# ---------------------------------------------------------------- input


class WindowInput(BaseModel):
    """What came in during one window: bad and missing values, by feature where there are any."""

    events: int
    invalid: dict[str, int] = {}
    missing: dict[str, int] = {}
    ranges: LogRanges = LogRanges()


class TrialInput(BaseModel):
    """The newest windows in which the candidate answered, by their start."""

    windows: dict[str, WindowInput] = {}

    def take(self, window: WindowSummarised, spec: ModelSpec) -> None:
        """A window's newest state."""
        taken = WindowInput(events=window.events, ranges=window.derived_from)
        for name in spec.feature_names:
            summary = window.columns.get(name)
            if summary is None:
                continue
            bad = summary.out_of_limits if isinstance(summary, NumericalSummary) else summary.unseen
            if bad or summary.missing:
                taken.invalid[name], taken.missing[name] = bad, summary.missing
        self.windows[window.window.start.isoformat()] = taken
        for old in sorted(self.windows)[:-KEPT_WINDOWS]:
            del self.windows[old]

    def measured(self) -> InputMeasured | None:
        """As the topic says it; None before the first window."""
        if not self.windows:
            return None
        windows = list(self.windows.values())
        ranges = LogRanges()
        for each in windows:
            ranges |= each.ranges
        return InputMeasured(
            events=sum(each.events for each in windows),
            invalid_rates=_rates(windows, "invalid"),
            missing_rates=_rates(windows, "missing"),
            windows=len(windows),
            derived_from=ranges,
        )


def _rates(windows: list[WindowInput], what: str) -> dict[str, float]:
    events = sum(each.events for each in windows)
    counts: dict[str, int] = {}
    for each in windows:
        for name, count in getattr(each, what).items():
            counts[name] = counts.get(name, 0) + count
    return {name: count / events for name, count in sorted(counts.items()) if count}
