"""A regression's error, foretold before labels come, corrected by them, and alerted on."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from datetime import timedelta
from typing import Any

import numpy as np
import pytest

from tailrace_contracts.events import (
    AlertRaised,
    ArmOutput,
    ExampleLabelled,
    PerformanceEstimated,
    PerformanceMeasured,
    SampledRow,
    Slice,
    WindowSpan,
    WindowSummarised,
)
from tailrace_contracts.ranges import Log, LogRange, LogRanges, Trigger
from tailrace_contracts.spec import parse_spec
from tailrace_monitoring.adapters.sklearn_learners import foretell
from tailrace_monitoring.domain.knowledge import Knowledge
from tailrace_monitoring.domain.state import Placed
from tailrace_monitoring.handlers import observe_examples, observe_window
from tailrace_monitoring.testing import (
    MODEL,
    Stored,
    WatchedWorld,
    deployment,
    knowledge,
    labelled,
    month_of,
    version,
)
from tailrace_statistics.direct_loss import Lessons, mean_loss
from tailrace_statistics.multivariate import Table

LOG = Log("labelled-examples", 2)
WINDOWS = Log("feature-statistics", 0)
SIZE = 400


def watched(**performance: Any) -> Knowledge:
    """A height that is foretold, by version 1."""
    spec = parse_spec(
        {
            "model": MODEL,
            "owner": "harbour",
            "task": "regression",
            "features": [
                {"name": "level", "type": "numerical"},
                {"name": "wind", "type": "numerical", "on_missing": "flag"},
                {"name": "quay", "type": "categorical", "categories": ["north", "south"]},
            ],
            "label": {"name": "height", "limits": {"min": -100, "max": 100}},
            "monitors": {
                "window_days": 30,
                "allowed_lateness_days": 5,
                "drift": None,
                "performance": performance,
                "estimation": {"min_examples": 600, "confidence": 0.99},
            },
        }
    )
    return knowledge(spec, deployment(1, 1), (version(1, "champion"),))


def month(number: int, *, storm: float = 0.0) -> list[ExampleLabelled]:
    """A month's examples: the error is small where the wind is weak, and ten times as large where it blows."""
    chance = np.random.default_rng(number)
    examples = []
    for n in range(SIZE):
        level, blows = float(chance.normal()), bool(chance.random() < 0.2 + storm)
        label = level + float(chance.normal()) * (2.0 if blows else 0.2)
        features = {"level": level, "wind": 9.0 if blows else 1.0, "quay": "north" if n % 2 else "south"}
        output = ArmOutput(arm="champion", version=1, prediction=level)
        moment = month_of(number) + timedelta(days=1 + 25 * n / SIZE)
        trigger = Trigger(topic="labels", partition=0, offset=number * SIZE + n)
        changes = {"prediction_id": f"m{number}-{n}", "time": moment, "features": features, "trigger": trigger}
        examples.append(labelled(n, 0, output, **changes).model_copy(update={"label": label}))
    return examples


def window_of(number: int, examples: list[ExampleLabelled]) -> WindowSummarised:
    """The closed window of these answers, with half of them sampled."""
    rows = [{**each.features, "prediction": each.served.prediction} for each in examples[::2] if each.served]
    return WindowSummarised(
        model=MODEL,
        spec_revision=1,
        window=WindowSpan(start=month_of(number), end=month_of(number + 1)),
        events=len(examples),
        columns={},
        slices=(Slice(arm="champion", version=1, events=len(examples), columns={}),),
        sample=tuple(SampledRow(rank=0.0, partition=0, offset=n, values=row) for n, row in enumerate(rows)),
        closed=True,
        derived_from=LogRanges.of(
            LogRange(topic="predictions", partition=0, from_offset=0, through_offset=number * SIZE + SIZE)
        ),
    )


class World(WatchedWorld):
    """A model watched, on a store, whose losses are foretold."""

    def __init__(self, stored: Stored) -> None:
        super().__init__(stored, foretell)
        self._offset = itertools.count()
        self._window_offset = itertools.count()

    async def label(self, known: Knowledge, examples: Iterable[ExampleLabelled]) -> None:
        """These labels come, and a second passes."""
        batch = [Placed(LOG, next(self._offset), example) for example in examples]
        await observe_examples(MODEL, batch, known, self.watchers)
        self.clock.advance(1.1)

    async def close(self, known: Knowledge, number: int, examples: list[ExampleLabelled]) -> None:
        """This month's window is closed."""
        placed = (WINDOWS, next(self._window_offset), window_of(number, examples))
        await observe_window(placed, known, self.watchers)

    async def of_month(self, number: int) -> list[PerformanceEstimated]:
        """The estimates of a month's cohort, in order."""
        return [each for each in await self.events(PerformanceEstimated) if each.cohort.start == month_of(number)]


@pytest.fixture
def world(stored: Stored) -> World:
    """The world on each store."""
    return World(stored)


async def test_a_storm_is_foretold_alerted_on_and_corrected_by_labels(world: World) -> None:
    """A model whose questions became hard would serve bad numbers for a month before anybody knew."""
    known = watched(max_mae=0.8)
    for number in range(2):
        await world.label(known, month(number))
    calm, storm = month(2), month(3, storm=0.6)
    await world.close(known, 2, calm)
    await world.close(known, 3, storm)
    (usual,), (first,) = await world.of_month(2), await world.of_month(3)
    assert (first.method, first.events, first.labelled, first.learned_on) == ("direct-loss", SIZE, 0, 2 * SIZE)
    assert usual.estimates["mae"].upper < 0.8 < first.estimates["mae"].value
    (alert,) = [each for each in await world.events(AlertRaised) if each.statistic.startswith("estimated")]
    assert alert.since == first.cohort.start
    assert alert.statistic == "estimated mean absolute error, upper end"
    assert alert.message.startswith(
        "the mean absolute error of version 1 may be larger than the 0.8 that the spec allows: "
    )
    await world.label(known, storm[:200])
    await world.label(known, storm[200:])
    _, half, whole = await world.of_month(3)
    measured = [each for each in await world.events(PerformanceMeasured) if each.cohort == first.cohort][-1]
    assert half.labelled == 200
    for name in ("mae", "rmse"):
        realised = measured.metrics[name]
        assert first.estimates[name].lower <= realised <= first.estimates[name].upper
        assert whole.estimates[name].value == pytest.approx(realised)
        assert whole.estimates[name].lower == whole.estimates[name].value == whole.estimates[name].upper
    assert (whole.realised_coverage, whole.realised_cohorts) == (1.0, 1)


async def test_a_corrected_label_replaces_what_was_learned_from_it(world: World) -> None:
    """One wrong label, a thousand times too large, would be foretold for ever."""
    known = watched()
    for number in range(2):
        await world.label(known, month(number))
    wrong = month(1)[0]
    mad = wrong.model_copy(update={"label": 90.0, "label_revision": 1, "replaces": wrong.label})
    right = wrong.model_copy(update={"label_revision": 2, "replaces": 90.0})
    await world.label(known, [mad, right])
    await world.close(known, 2, month(2))
    (found,) = await world.of_month(2)
    assert found.learned_on == 2 * SIZE
    assert found.estimates["rmse"].value < 1.5


async def test_too_few_lessons_give_no_estimate(world: World) -> None:
    """A guess from a handful of examples would be shown as if it were one from many."""
    known = watched()
    await world.label(known, month(0))
    await world.close(known, 1, month(1))
    assert not await world.events(PerformanceEstimated)


def test_intervals_hold_about_as_often_as_they_say_where_inputs_moved() -> None:
    """People would trust a 95 % interval that holds in half of the months."""
    inside = []
    for seed in range(6):
        chance = np.random.default_rng(seed)
        asked, window = chance.normal(size=(1_000, 3)), chance.normal(1.0, 1.0, size=(2_000, 3))
        losses, realised = (np.abs(chance.normal(size=len(x)) * (0.5 + np.abs(x[:, 1]))) for x in (asked, window))
        rows, sampled = (Table(x, np.zeros(3, dtype=np.bool_)) for x in (asked, window[:400]))
        found = mean_loss(0.0, 0, 2_000, foretell(Lessons(rows, losses), sampled))
        inside.append(found.lower <= float(realised.mean()) <= found.upper)
    assert sum(inside) >= 5
