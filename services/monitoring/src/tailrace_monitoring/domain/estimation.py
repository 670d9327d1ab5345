"""Estimated performance of a cohort: before its labels come, and corrected by them as they do.

*Of classes*: a closed window says which probabilities a version gave; the version's labelled cohorts from before say what such
probabilities are worth (`tailrace_statistics.estimation`). The cohort keeps both, so each label that comes later
corrects the estimate without looking anything up: what is labelled counts as it is, the rest is estimated, and with the
last label nothing is left to estimate.

*Of numbers*: the absolute and the squared error are foretold for the window's row sample (`lessons`,
`tailrace_statistics.direct_loss`), and the labelled errors take the place of what was foretold, as above.

Trust: the first interval of a cohort is kept, and judged once `realised_at` of its answers are labelled. How many
cohorts lay in theirs is published with every estimate. An estimate is doubted where the concept has drifted since the
labels that it was learned on, and where fewer cohorts lay in their intervals than chance explains.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Literal, NamedTuple

import numpy as np
from pydantic import BaseModel

from tailrace_contracts.events import Arm, Estimate, PerformanceEstimated, Slice, WindowSummarised
from tailrace_contracts.ranges import LogRanges
from tailrace_contracts.spec import EstimationMonitor, PerformanceMonitor
from tailrace_monitoring.domain.cohorts import Cohort
from tailrace_monitoring.domain.ledger import Basis
from tailrace_statistics import estimation as statistics
from tailrace_statistics.direct_loss import mean_loss, root
from tailrace_statistics.estimation import Array, Estimated

PAST_COHORTS = 60
"""Labelled cohorts that are looked at to learn from, newest first."""

JUDGED_COHORTS = 100
"""Cohorts whose realised performance is remembered as inside or outside of its interval."""

JUDGED_BY = {"confidence-based": "accuracy", "direct-loss": "mae"}
"""The figure whose intervals are judged."""


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
            since = min(each.span.start for each in cohorts)
            return Basis(calibration=calibration, examples=calibration.examples, since=since, ranges=ranges)
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


class _Standing(NamedTuple):
    """Where a cohort's estimate stands: every figure, and what it is on the labels so far."""

    method: Literal["confidence-based", "direct-loss"]
    events: int
    labelled: int
    figures: dict[str, Estimated]
    realised: dict[str, float]


def _of_classes(cohort: Cohort, monitor: EstimationMonitor) -> _Standing | None:
    ledger = cohort.ledger
    calibration = ledger.basis.calibration if ledger.basis else None
    if ledger.served is None or calibration is None:
        return None
    known, seed = ledger.known, int(abs(cohort.span.start.timestamp()))
    rest = statistics.unlabelled(np.asarray(ledger.served), known)
    figures = statistics.estimate(known, rest, calibration, confidence=monitor.confidence, seed=seed)
    realised = statistics.performance(known) if ledger.labelled else {}
    return _Standing("confidence-based", ledger.events, ledger.labelled, figures, realised)


def _of_numbers(cohort: Cohort, monitor: EstimationMonitor) -> _Standing | None:
    ledger, sums = cohort.ledger, cohort.errors
    if ledger.answers is None or ledger.basis is None or ledger.basis.losses is None:
        return None
    rest = max(ledger.answers - sums.examples, 0)
    mae, square = (
        mean_loss(max(known, 0.0), sums.examples, rest, foretold, monitor.confidence)
        for known, foretold in zip((sums.absolute, sums.squared), ledger.basis.losses, strict=True)
    )
    realised = {"mae": sums.mae, "rmse": sums.rmse} if sums.examples else {}
    return _Standing("direct-loss", sums.examples + rest, sums.examples, {"mae": mae, "rmse": root(square)}, realised)


def estimated(cohort: Cohort, monitor: EstimationMonitor, situation: Situation) -> PerformanceEstimated | None:
    """The cohort's estimate as it stands, for the topic; judges it where it is realised. None: nothing to estimate from."""
    standing, basis = _of_classes(cohort, monitor) or _of_numbers(cohort, monitor), cohort.ledger.basis
    if standing is None or basis is None:
        return None
    _judge(cohort, standing, monitor, situation.trust)
    inside, judged = situation.trust.of(cohort.version)
    return PerformanceEstimated(
        evaluation_id=situation.evaluation_id,
        model=situation.model,
        cohort=cohort.span,
        arm=cohort.arm,
        version=cohort.version,
        method=standing.method,
        events=standing.events,
        labelled=standing.labelled,
        estimates=_published(standing.figures, standing.realised),
        confidence=monitor.confidence,
        learned_on=basis.examples,
        realised_coverage=inside / judged if judged else None,
        realised_cohorts=judged,
        doubts=tuple(_doubts(cohort, monitor, situation)),
        derived_from=cohort.ledger.window | basis.ranges | cohort.spans.ranges(),
        time=situation.now,
    )


def _published(figures: Mapping[str, Estimated], realised: Mapping[str, float]) -> dict[str, Estimate]:
    return {
        name: Estimate(value=each.value, lower=each.lower, upper=each.upper, realised=realised.get(name))
        for name, each in figures.items()
    }


def _judge(cohort: Cohort, standing: _Standing, monitor: EstimationMonitor, trust: Trust) -> None:
    ledger, figure = cohort.ledger, JUDGED_BY[standing.method]
    is_realised = 0 < standing.labelled >= monitor.realised_at * standing.events
    if ledger.first is None and not is_realised:
        ledger.first = (standing.figures[figure].lower, standing.figures[figure].upper)
    if ledger.first is not None and is_realised:
        lower, upper = ledger.first
        name = f"{cohort.version or 0}|{cohort.arm}|{cohort.span.start.isoformat()}"
        trust.judge(name, inside=lower <= standing.realised[figure] <= upper)


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


class AtRisk(NamedTuple):
    """A figure whose interval reaches beyond what the spec asks for, at `end`."""

    figure: Literal["accuracy", "mae", "rmse"]
    end: float
    limit: float


def may_break(found: PerformanceEstimated, asked: PerformanceMonitor) -> Iterator[AtRisk]:
    """What the spec asks for and the estimate does not rule out to be broken."""
    accuracy = found.estimates.get("accuracy")
    if accuracy is not None and asked.min_accuracy is not None and accuracy.lower < asked.min_accuracy:
        yield AtRisk("accuracy", accuracy.lower, asked.min_accuracy)
    limits: tuple[tuple[Literal["mae", "rmse"], float | None], ...] = (("mae", asked.max_mae), ("rmse", asked.max_rmse))
    for figure, limit in limits:
        error = found.estimates.get(figure)
        if error is not None and limit is not None and error.upper > limit:
            yield AtRisk(figure, error.upper, limit)
