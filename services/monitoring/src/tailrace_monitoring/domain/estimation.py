"""Estimated performance of a cohort: before its labels come, and corrected by them as they do.

A closed window says which probabilities a version gave; the version's labelled cohorts from before say what such
probabilities are worth (`tailrace_statistics.estimation`). The cohort keeps both, so each label that comes later
corrects the estimate without looking anything up: what is labelled counts as it is, the rest is estimated, and with the
last label nothing is left to estimate.

Trust: the first interval of a cohort is kept, and judged once `realised_at` of its answers are labelled. How many
cohorts lay in theirs is published with every estimate. An estimate is doubted where the concept has drifted since the
labels that it was learned on, and where fewer cohorts lay in their intervals than chance explains.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from pydantic import BaseModel

from tailrace_contracts.events import (
    Arm,
    ArmOutput,
    Estimate,
    PerformanceEstimated,
    Slice,
    WindowSpan,
    WindowSummarised,
)
from tailrace_contracts.ranges import LogRanges
from tailrace_contracts.spec import EstimationMonitor
from tailrace_statistics import estimation as statistics
from tailrace_statistics.estimation import Array, Calibration, Estimated

if TYPE_CHECKING:
    from tailrace_monitoring.domain.cohorts import Cohort

PAST_COHORTS = 60
"""Labelled cohorts that are looked at to learn from, newest first."""

JUDGED_COHORTS = 100
"""Cohorts whose realised performance is remembered as inside or outside of its interval."""

JUDGED_BY = "accuracy"
"""The figure whose intervals are judged."""


class Basis(BaseModel):
    """What an estimate was learned on: the calibration, the oldest cohort's start, and the labels' log ranges."""

    calibration: Calibration
    since: datetime
    ranges: LogRanges


class Ledger(BaseModel):
    """What one cohort's estimate is made of. `outcomes` are labelled answers by cell, `served` all answers by bin."""

    outcomes: dict[str, int] = {}
    served: tuple[list[float], list[float]] | None = None
    window: LogRanges = LogRanges()
    basis: Basis | None = None
    first: tuple[float, float] | None = None

    def count(self, output: ArmOutput, *, selected: bool, positive: bool, by: int) -> None:
        """Count one labelled answer; -1 takes one back."""
        if output.probability is not None:
            name = statistics.cell_name(selected=selected, positive=positive, probability=output.probability)
            self.outcomes[name] = self.outcomes.get(name, 0) + by

    def close(self, served: Array, basis: Basis | None, window: LogRanges) -> None:
        """The window is closed: these are all answers. A later, fuller state of it replaces the one before."""
        self.served = tuple([round(float(each), 2) for each in row] for row in served)  # type: ignore[assignment]  # two rows
        self.window = window
        self.basis = basis or self.basis

    @property
    def known(self) -> Array:
        """The labelled answers as a table."""
        return statistics.table(self.outcomes)

    @property
    def labelled(self) -> int:
        """How many answers with a probability are labelled."""
        return sum(self.outcomes.values())

    @property
    def events(self) -> int:
        """How many answers with a probability there are: those of the window, and more where later ones are labelled."""
        served = np.zeros((2, statistics.BINS)) if self.served is None else np.asarray(self.served)
        return self.labelled + round(float(statistics.unlabelled(served, self.known).sum()))

    def figures(self, monitor: EstimationMonitor, seed: int) -> dict[str, Estimated]:
        """Every figure, estimated. Empty where there is nothing to estimate from."""
        if self.served is None or self.basis is None:
            return {}
        known = self.known
        rest = statistics.unlabelled(np.asarray(self.served), known)
        return statistics.estimate(known, rest, self.basis.calibration, confidence=monitor.confidence, seed=seed)


class Trust(BaseModel):
    """Of which cohorts, named `version|arm|start`, the realised performance lay in the interval published first."""

    inside: dict[str, bool] = {}

    def judge(self, name: str, *, inside: bool) -> None:
        """Remember one cohort; judged again with its later labels, it is replaced."""
        self.inside[name] = inside
        while len(self.inside) > JUDGED_COHORTS:
            del self.inside[next(iter(self.inside))]

    def of(self, version: int | None) -> tuple[int, int]:
        """How many cohorts of a version lay inside, and how many were judged."""
        judged = [inside for name, inside in self.inside.items() if name.startswith(f"{version or 0}|")]
        return sum(judged), len(judged)


class Answers(NamedTuple):
    """The served answers of one version on one arm of a window, by predicted class and bin of probability."""

    arm: Arm
    version: int | None
    served: Array


def answers_in(window: WindowSummarised, least: int) -> Iterator[Answers]:
    """Every arm of a window that gave enough answers with a probability."""
    for part in window.slices:
        if part.arm is not None:
            served = _served(part)
            if served.sum() >= least:
                yield Answers(part.arm, part.version, served)


def _served(part: Slice) -> Array:
    columns = (part.columns.get(f"probability_if_{side}") for side in ("negative", "positive"))
    return np.stack([statistics.served_bins(column) for column in columns])


def learn(past: Sequence[Cohort], regime: datetime | None, monitor: EstimationMonitor) -> Basis | None:
    """What labelled cohorts (newest first) teach; None where they are too few.

    Where the concept has drifted, the cohorts since then are enough by themselves as soon as they have `min_examples`.
    """
    fresh = [each for each in past if regime is not None and each.span.start >= regime]
    for cohorts in (_newest(fresh, monitor), _newest(past, monitor)):
        if sum(each.ledger.labelled for each in cohorts) >= monitor.min_examples:
            ranges = LogRanges(tuple(part for each in cohorts for part in each.spans.ranges()))
            calibration = statistics.calibrate([each.ledger.known for each in cohorts])
            return Basis(calibration=calibration, since=min(each.span.start for each in cohorts), ranges=ranges)
    return None


def _newest(cohorts: Sequence[Cohort], monitor: EstimationMonitor) -> list[Cohort]:
    taken: list[Cohort] = []
    examples = 0
    for cohort in cohorts:
        if cohort.ledger.labelled and examples < monitor.max_examples:
            taken.append(cohort)
            examples += cohort.ledger.labelled
    return taken


class Situation(NamedTuple):
    """What an estimate is published with: an id, the model, when its concept last drifted, its record of trust, now."""

    evaluation_id: str
    model: str
    regime: datetime | None
    trust: Trust
    now: datetime


def estimated(cohort: Cohort, monitor: EstimationMonitor, situation: Situation) -> PerformanceEstimated | None:
    """The cohort's estimate as it stands, for the topic; judges it where it is realised. None: nothing to estimate from."""
    ledger = cohort.ledger
    figures = ledger.figures(monitor, seed=_seed(cohort.span))
    if not figures or ledger.basis is None:
        return None
    realised = statistics.performance(ledger.known) if ledger.labelled else {}
    _judge(cohort, realised, monitor, situation.trust, figures)
    inside, judged = situation.trust.of(cohort.version)
    return PerformanceEstimated(
        evaluation_id=situation.evaluation_id,
        model=situation.model,
        cohort=cohort.span,
        arm=cohort.arm,
        version=cohort.version,
        method="confidence-based",
        events=ledger.events,
        labelled=ledger.labelled,
        estimates=_published(figures, realised),
        confidence=monitor.confidence,
        learned_on=ledger.basis.calibration.examples,
        realised_coverage=inside / judged if judged else None,
        realised_cohorts=judged,
        doubts=tuple(_doubts(cohort, monitor, situation)),
        derived_from=ledger.window | ledger.basis.ranges | cohort.spans.ranges(),
        time=situation.now,
    )


def _seed(span: WindowSpan) -> int:
    return int(abs(span.start.timestamp()))


def _published(figures: Mapping[str, Estimated], realised: Mapping[str, float]) -> dict[str, Estimate]:
    return {
        name: Estimate(value=each.value, lower=each.lower, upper=each.upper, realised=realised.get(name))
        for name, each in figures.items()
    }


def _judge(
    cohort: Cohort,
    realised: Mapping[str, float],
    monitor: EstimationMonitor,
    trust: Trust,
    figures: Mapping[str, Estimated],
) -> None:
    ledger = cohort.ledger
    is_realised = 0 < ledger.labelled >= monitor.realised_at * ledger.events
    if ledger.first is None and not is_realised:
        ledger.first = (figures[JUDGED_BY].lower, figures[JUDGED_BY].upper)
    if ledger.first is not None and is_realised:
        lower, upper = ledger.first
        name = f"{cohort.version or 0}|{cohort.arm}|{cohort.span.start.isoformat()}"
        trust.judge(name, inside=lower <= realised[JUDGED_BY] <= upper)


def _doubts(cohort: Cohort, monitor: EstimationMonitor, situation: Situation) -> Iterator[str]:
    regime, basis = situation.regime, cohort.ledger.basis
    if regime is not None and basis is not None and basis.since < regime < cohort.span.end:
        yield f"concept drift since {regime:%Y-%m-%d}: the labels that the estimate was learned on are older"
    inside, judged = situation.trust.of(cohort.version)
    if judged and statistics.too_few_inside(inside, judged, monitor.confidence):
        yield (
            f"only {inside} of the {judged} cohorts that are labelled lay in their interval, "
            f"at a confidence of {monitor.confidence:.0%}"
        )
