"""Drift of what the truth is, and of what a version answers, beside the features."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import numpy as np
import pytest

from tailrace_contracts.events import AlertRaised, ExampleLabelled, Mute, Slice
from tailrace_contracts.ranges import Log, LogRange, LogRanges, Trigger
from tailrace_monitoring.adapters.postgres_watches import PostgresWatches
from tailrace_monitoring.domain.knowledge import Knowledge
from tailrace_monitoring.domain.state import Placed
from tailrace_monitoring.domain.yardsticks import LABELS_SHARE, NO_BASIS, Labels, budget_of, chance_together, part_of
from tailrace_monitoring.handlers import observe_examples, observe_window
from tailrace_monitoring.testing import (
    MODEL,
    Stored,
    WatchedWorld,
    answered,
    claim,
    deployment,
    knowledge,
    labelled,
    month_of,
    tide_spec,
    version,
    window_of_answers,
)
from tailrace_statistics.columns import CategoricalFold, NumericalFold
from tailrace_statistics.labels import column_of_classes, rows_of_classes

LOG, WINDOWS = Log("labelled-examples", 0), Log("feature-statistics", 0)
OURS = version(1, "champion", reference=claim("7"))
LABELS = 400


class World(WatchedWorld):
    """A model watched, on a store, whose champion has a reference."""

    def __init__(self, stored: Stored) -> None:
        super().__init__(stored)
        self.references.known[claim("7").sha256] = {}
        self.next = 0

    async def learn(self, known: Knowledge, examples: list[ExampleLabelled]) -> None:
        """Labelled examples, at the next offsets; by a new process."""
        batch = [Placed(LOG, self.next + place, example) for place, example in enumerate(examples)]
        self.next += len(batch)
        await observe_examples(MODEL, batch, known, self.watchers)
        if isinstance(self.store, PostgresWatches):
            self.store._copies.clear()

    async def moved(self) -> list[AlertRaised]:
        """The alerts of drift of the data."""
        return [each for each in await self.events(AlertRaised) if each.kind == "feature-drift"]


@pytest.fixture
def world(stored: Stored) -> World:
    """The world on each store."""
    return World(stored)


def labels(number: int, values: list[float], arm: str = "champion") -> list[ExampleLabelled]:
    """A month's examples with these labels, all of which were foretold."""
    found = []
    for place, value in enumerate(values):
        moment = month_of(number) + timedelta(days=1 + 25 * place / len(values))
        at = number * 10_000 + place
        output = answered("external", value) if arm == "external" else answered("champion", value, 1)
        times = {"time": moment, "label_time": moment}
        trigger = Trigger(topic="labels", partition=0, offset=at)
        found.append(labelled(at, value, output, **times, prediction_id=f"q{at}", trigger=trigger))
    return found


def of_classes(positives: int, count: int) -> Labels:
    """A reference with so many positive labels."""
    return Labels(column_of_classes(positives, count), rows_of_classes(positives, count, count))


def flooded(number: int, share: float, arm: str = "champion") -> list[ExampleLabelled]:
    """A month in which this share of the labels is positive."""
    return labels(number, [float(place < share * LABELS) for place in range(LABELS)], arm)


async def test_labels_that_moved_from_the_training_sets_alert_once_with_their_records(world: World) -> None:
    """Floods would become three times as frequent and nobody hear of it as long as the model foretells them."""
    world.references.labels = of_classes(400, 2_000)
    known = knowledge(tide_spec(), deployment(1, 1), (OURS,))
    for number, share in enumerate((0.2, 0.21, 0.6, 0.6, 0.6)):
        await world.learn(known, flooded(number, share))
    (alert,) = await world.moved()
    assert (alert.subject, alert.since) == ("flood", month_of(2))
    assert alert.statistic == "jensen-shannon"
    assert alert.value > alert.threshold > 0
    assert alert.message.startswith("flood is 1 for 60.0% of 400 labels of ")
    assert "and for 20.0% of the reference's" in alert.message
    through = LogRange(topic="labelled-examples", partition=0, from_offset=800, through_offset=1199)
    assert alert.derived_from == LogRanges.of(through)


async def test_labels_after_a_reference_period_are_judged_by_its_cohorts(world: World) -> None:
    """A producer's own model, which has no training set here, would have no drift of its labels."""
    period = {"start": month_of(0), "end": month_of(2)}
    drift = {"reference": period}
    known = knowledge(tide_spec(learners={}, monitors={"window_days": 30, "allowed_lateness_days": 5, "drift": drift}))
    for number, share in enumerate((0.2, 0.2, 0.2, 0.5, 0.2, 0.2)):
        await world.learn(known, flooded(number, share, "external"))
    (alert,) = await world.moved()
    assert (alert.subject, alert.since) == ("flood", month_of(3))


def of_numbers(values: list[float]) -> Labels:
    """A reference with these labels."""
    fold = NumericalFold()
    fold.fold(values)
    return Labels(fold.summary(), np.array(values))


def litres(**monitors: Any) -> Knowledge:
    """A model that foretells how many litres."""
    named = {"task": "regression", "label": {"name": "litres", "limits": {"min": -100, "max": 200}}}
    return knowledge(tide_spec(**named, **monitors), deployment(1, 1), (OURS,))


def drawn(seed: int, mean: float, deviation: float, count: int = LABELS) -> list[float]:
    """Normal labels, with two decimals."""
    return [float(each) for each in np.random.default_rng(seed).normal(mean, deviation, count).round(2)]


async def test_the_mean_of_a_regressions_labels_is_judged(world: World) -> None:
    """The water would rise by a deviation and nobody hear of it as long as the model foretells it."""
    world.references.labels = of_numbers(drawn(9, 50, 10, 4_000))
    for number, mean in enumerate((50, 50, 60, 60)):
        await world.learn(litres(), labels(number, drawn(number, mean, 10)))
    (alert,) = await world.moved()
    assert (alert.subject, alert.since, alert.statistic) == ("litres", month_of(2), "wasserstein")
    assert " among 400 labels of " in alert.message
    assert " in the reference: wasserstein " in alert.message


async def test_labels_that_spread_twice_as_far_about_the_same_mean_alert_and_steady_ones_do_not(world: World) -> None:
    """Floods and droughts would both become common, and nobody hear of it because the mean stays."""
    world.references.labels = of_numbers(drawn(9, 50, 10, 4_000))
    for number in range(6):
        await world.learn(litres(), labels(number, drawn(number, 50, 10)))
    assert await world.moved() == []
    for number in range(6, 9):
        await world.learn(litres(), labels(number, drawn(number, 50, 20)))
    (alert,) = await world.moved()
    assert (alert.subject, alert.since) == ("litres", month_of(6))
    assert "(standard deviation 20" in alert.message


async def test_a_period_of_cohorts_is_a_reference_of_a_regressions_labels(world: World) -> None:
    """A producer's own regression would have no drift of its labels."""
    drift = {"reference": {"start": month_of(0), "end": month_of(3)}, "by_column": {"litres": "kolmogorov-smirnov"}}
    monitors = {"window_days": 30, "allowed_lateness_days": 5, "drift": drift}
    for number, deviation in enumerate((10, 10, 10, 10, 20, 20)):
        await world.learn(litres(monitors=monitors), labels(number, drawn(number, 50, deviation)))
    (alert,) = await world.moved()
    assert (alert.statistic, alert.since) == ("kolmogorov-smirnov", month_of(4))


async def test_a_corrected_label_is_taken_back_from_the_distribution(world: World) -> None:
    """A meter read wrongly, and put right, would go on counting as drift."""
    world.references.labels = of_numbers(drawn(9, 50, 10, 4_000))
    right = drawn(1, 50, 10)
    wrong = labels(0, [180.0 if place < 100 else value for place, value in enumerate(right)])
    corrections = [
        each.model_copy(
            update={
                "label": right[place],
                "label_revision": 2,
                "replaces": 180.0,
                "trigger": Trigger(topic="labels", partition=0, offset=5_000 + place),
            }
        )
        for place, each in enumerate(wrong[:100])
    ]
    await world.learn(litres(), [*wrong, *corrections])
    await world.learn(litres(), labels(2, drawn(2, 50, 10)))
    await world.learn(litres(), labels(4, drawn(4, 50, 10)))
    assert await world.moved() == []


async def test_muted_labels_lead_to_nothing_and_few_are_not_judged(world: World) -> None:
    """A mute of the label would not hold, or a handful of labels would alarm by chance."""
    world.references.labels = of_classes(400, 2_000)
    mute = Mute(
        mute_id="m",
        subjects=("flood",),
        owner="ada",
        reason="spring tide",
        muted_by="ada",
        since=world.clock.now(),
        until=world.clock.now() + timedelta(days=1),
    )
    known = knowledge(tide_spec(retraining={"after": ["feature-drift"]}), deployment(1, 1), (OURS,))
    known = Knowledge(known.spec, 1, known.deployment, known.versions, mutes=(mute,))
    await world.learn(known, labels(0, [1.0] * 100))
    await world.learn(known, flooded(1, 0.6))
    assert await world.moved() == []
    await world.learn(known, flooded(2, 0.2))
    (alert,) = await world.moved()
    assert (alert.muted_by, alert.led_to) == ("ada", "")


def answers(seed: int, count: int, tilt: float) -> tuple[dict[str, Any], dict[str, Any]]:
    """Probabilities and the classes that they mean, summarised and as rows; a tilt raises them."""
    probability = 1 / (1 + np.exp(-np.random.default_rng(seed).normal(tilt, 1.5, count)))
    prediction = [str(int(each > 0.5)) for each in probability]
    numbers, words = NumericalFold(), CategoricalFold(("0", "1"))
    numbers.fold(probability)
    words.fold(prediction)
    columns = {"prediction": words.summary(), "probability": numbers.summary()}
    return columns, {"prediction": prediction, "probability": probability}


async def test_answers_that_moved_from_those_on_held_out_examples_alert(world: World) -> None:
    """A version would say yes twice as often as when it was measured, and nobody hear of it before labels come."""
    level = NumericalFold()
    level.fold(np.random.default_rng(9).normal(size=2_000))
    world.references.known[claim("7").sha256] = {"level": level.summary()}
    world.references.answers = answers(0, 500, -1.0)
    known = knowledge(tide_spec(), deployment(1, 1), (OURS,))
    for number, tilt in enumerate((-1.0, -1.0, 1.0)):
        columns, _ = answers(number + 1, 600, tilt)
        part = Slice(arm="champion", version=1, events=600, columns=columns)
        other = Slice(arm="canary", version=2, events=600, columns=answers(number, 600, 3.0)[0])
        window = window_of_answers(number, []).model_copy(update={"events": 1_200, "slices": (other, part)})
        await observe_window((WINDOWS, number, window), known, world.watchers)
    (alert,) = await world.moved()
    assert alert.subject in {"prediction", "probability"}
    assert "prediction (" in alert.message or alert.subject == "prediction"
    assert (alert.since, alert.value > alert.threshold > 0) == (month_of(2), True)


def test_the_parts_of_the_budget_make_the_whole() -> None:
    """Labels, answers and features would have a budget each, and alarm more often than the spec expects."""
    described = tide_spec(monitors={"window_days": 1})
    basis = NO_BASIS._replace(labels=of_classes(1, 2))
    parts = budget_of(described, basis, together=True).per_window + chance_together(described, basis)
    assert parts + part_of(described, LABELS_SHARE).per_window == pytest.approx(part_of(described, 1.0).per_window)
