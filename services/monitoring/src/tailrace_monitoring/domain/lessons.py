"""What a regression's error is foretold from: the newest labelled answers of each version, with their features.

They are kept as rows of their own, a bounded number for each version; a corrected label replaces its row.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

import numpy as np
from pydantic import BaseModel

from tailrace_contracts.events import ArmOutput, ExampleLabelled, FeatureValue, WindowSummarised
from tailrace_contracts.ranges import Log, LogRanges
from tailrace_contracts.spec import EstimationMonitor, Feature, ModelSpec, NumericalFeature
from tailrace_monitoring.domain.ledger import Basis
from tailrace_statistics.direct_loss import Foretold, Lessons
from tailrace_statistics.multivariate import Table, table

KEPT = 4_000
"""Lessons that are kept of each version."""

PREDICTION = "prediction"

Foretell = Callable[[Lessons, Table], Foretold]
"""Given lessons and a window's rows: the mean loss to expect."""


class Lesson(BaseModel):
    """One labelled answer of one version: what it was asked, what it said, and by how much it was wrong."""

    number: int
    version: int
    prediction_id: str
    time: datetime
    topic: str
    partition: int
    offset: int
    features: dict[str, FeatureValue]
    error: float

    @classmethod
    def of(cls, number: int, log: Log, offset: int, example: ExampleLabelled, output: ArmOutput) -> Lesson:
        """The lesson of one answer."""
        return cls(
            number=number,
            version=output.version or 0,
            prediction_id=example.prediction_id,
            time=example.time,
            topic=log.topic,
            partition=log.partition,
            offset=offset,
            features={**example.features, PREDICTION: output.prediction},
            error=abs(output.prediction - example.label),
        )


def columns_of(spec: ModelSpec) -> tuple[Feature, ...]:
    """What an error is foretold from: the features, and the prediction."""
    return (*spec.features, NumericalFeature(name=PREDICTION))


def learn_losses(
    lessons: Sequence[Lesson],
    window: WindowSummarised,
    spec: ModelSpec,
    regime: datetime | None,
    foretell: Foretell,
) -> Basis | None:
    """What the newest lessons (newest first) say of a window; None where they, or its sampled rows, are too few.

    Where the concept has drifted, those since then are enough by themselves as soon as they have `min_examples`. Takes a
    second or two: not for the event loop.
    """
    monitor = spec.monitors.estimation
    rows = [row.values for row in window.sample]
    if monitor is None or len(rows) < monitor.min_events:
        return None
    chosen = _chosen(lessons, window, regime, monitor)
    if len(chosen) < monitor.min_examples:
        return None
    columns = columns_of(spec)
    asked, errors = table([each.features for each in chosen], columns), np.array([each.error for each in chosen])
    sampled = table(rows, columns)
    return Basis(
        losses=(foretell(Lessons(asked, errors), sampled), foretell(Lessons(asked, errors**2), sampled)),
        examples=len(chosen),
        since=min(each.time for each in chosen),
        ranges=LogRanges.of_offsets((Log(each.topic, each.partition), each.offset) for each in chosen),
    )


def _chosen(
    lessons: Sequence[Lesson], window: WindowSummarised, regime: datetime | None, monitor: EstimationMonitor
) -> list[Lesson]:
    """The lessons to learn from, in the order of time: from before the window, and of the newest regime if they do."""
    past = [each for each in lessons if each.time < window.window.start][: monitor.max_examples]
    fresh = [each for each in past if regime is not None and each.time >= regime]
    chosen = fresh if len(fresh) >= monitor.min_examples else past
    return sorted(chosen, key=lambda each: (each.time, each.number))
