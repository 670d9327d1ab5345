"""Estimated performance in monitoring: published before labels, corrected by them, judged, and doubted when it lies."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any

import pytest

from tailrace_contracts.events import (
    AlertRaised,
    Event,
    ExampleLabelled,
    PerformanceEstimated,
    PerformanceMeasured,
    SpecApplied,
    WindowSummarised,
)
from tailrace_contracts.ranges import Log, LogRange
from tailrace_monitoring.adapters.postgres_page import PostgresNotebook, PostgresPage
from tailrace_monitoring.adapters.postgres_watches import PostgresWatches
from tailrace_monitoring.domain.knowledge import Knowledge
from tailrace_monitoring.domain.state import Placed
from tailrace_monitoring.handlers import observe_examples, observe_window
from tailrace_monitoring.testing import (
    ANSWERS,
    MODEL,
    NOW,
    Stored,
    WatchedWorld,
    deployment,
    knowledge,
    month,
    month_of,
    tide_spec,
    version,
    window_of_answers,
)

LOG = Log("labelled-examples", 2)
WINDOWS = Log("feature-statistics", 0)


class World(WatchedWorld):
    """A model watched, on a store."""

    def __init__(self, stored: Stored) -> None:
        super().__init__(stored)
        self._offset = itertools.count()
        self._window_offset = itertools.count()

    async def label(self, known: Knowledge, examples: Iterable[ExampleLabelled]) -> None:
        """These labels come, and a second passes."""
        batch = [Placed(LOG, next(self._offset), example) for example in examples]
        batch = [each._replace(example=each.example.model_copy(update={"trigger": _trigger(each)})) for each in batch]
        await observe_examples(MODEL, batch, known, self.watchers)
        self.clock.advance(1.1)

    async def close(self, known: Knowledge, window: WindowSummarised) -> None:
        """This window is closed."""
        await observe_window((WINDOWS, next(self._window_offset), window), known, self.watchers)

    def restarted(self) -> None:
        """A new process: nothing of the old one's memory is left."""
        if isinstance(self.store, PostgresWatches):
            self.store._copies.clear()


def _trigger(placed: Placed) -> Any:
    return placed.example.trigger.model_copy(update={"offset": placed.offset})


@pytest.fixture
def world(stored: Stored) -> World:
    """The world on each store."""
    return World(stored)


def watched(**estimation: Any) -> Knowledge:
    """Champion 1, cohorts of 30 days."""
    monitors = {
        "window_days": 30,
        "allowed_lateness_days": 5,
        "performance": {"min_accuracy": 0.6},
        "estimation": {"min_examples": 300, "confidence": 0.99, **estimation},
    }
    return knowledge(tide_spec(monitors=monitors), deployment(1, 1), (version(1, "champion"),))


async def of_month(world: World, number: int) -> list[PerformanceEstimated]:
    """The estimates of a month's cohort, in order."""
    start = month_of(number)
    return [each for each in await world.events(PerformanceEstimated) if each.cohort.start == start]


async def lived(world: World, known: Knowledge, months: range, **kind: float) -> None:
    """Months pass: the window closes, then its labels come."""
    for number in months:
        examples = month(number, **kind)
        await world.close(known, window_of_answers(number, examples))
        await world.label(known, examples)


async def test_an_estimate_comes_before_labels_and_is_corrected_by_them(world: World) -> None:
    """People would wait a month for labels to learn how the model does, or be left with the guess afterwards."""
    known = watched()
    await lived(world, known, range(3))
    examples = month(3)
    await world.close(known, window_of_answers(3, examples))
    (first,) = await of_month(world, 3)
    assert (first.events, first.labelled, first.arm, first.version) == (ANSWERS, 0, "champion", 1)
    assert first.estimates["accuracy"].realised is None
    assert first.learned_on == 3 * ANSWERS
    assert LogRange(topic="labelled-examples", partition=2, from_offset=0, through_offset=599) in tuple(
        first.derived_from
    )
    assert LogRange(topic="feature-statistics", partition=0, from_offset=3, through_offset=3) in tuple(
        first.derived_from
    )
    world.restarted()
    await world.label(known, examples[: ANSWERS // 2])
    world.restarted()
    await world.label(known, examples[ANSWERS // 2 :])
    _, half, whole = await of_month(world, 3)
    measured = [each for each in await world.events(PerformanceMeasured) if each.cohort == first.cohort][-1]
    assert half.labelled == ANSWERS // 2
    widths = [each.estimates["accuracy"].upper - each.estimates["accuracy"].lower for each in (first, half, whole)]
    assert widths[0] > widths[1] > widths[2] == 0
    assert whole.estimates["accuracy"].value == whole.estimates["accuracy"].realised == measured.accuracy
    assert first.estimates["accuracy"].lower <= measured.accuracy <= first.estimates["accuracy"].upper
    assert (whole.realised_coverage, whole.realised_cohorts) == (1.0, 2)


async def test_a_corrected_label_corrects_the_estimate(world: World) -> None:
    """A wrong label would stay in the estimate for ever."""
    known = watched()
    await lived(world, known, range(4))
    last = (await of_month(world, 3))[-1]
    wrong = month(3)[0]
    turned = wrong.model_copy(update={"label": 1 - wrong.label, "label_revision": 1, "replaces": wrong.label})
    await world.label(known, [turned])
    corrected = (await of_month(world, 3))[-1]
    step = 1 / ANSWERS if wrong.served and wrong.served.prediction != wrong.label else -1 / ANSWERS
    assert corrected.labelled == last.labelled == ANSWERS
    assert corrected.estimates["accuracy"].value == pytest.approx(last.estimates["accuracy"].value + step)


async def test_the_same_window_again_changes_nothing(world: World) -> None:
    """After a crash a cohort would be estimated, and alerted, twice."""
    known = watched()
    await lived(world, known, range(3))
    window = window_of_answers(3, month(3))
    await world.close(known, window)
    before = await world.events(Event)
    world.restarted()
    await observe_window((WINDOWS, 3, window), known, world.watchers)
    assert await world.events(Event) == before


async def test_inputs_that_become_hard_alert_before_any_label(world: World) -> None:
    """A model whose inputs have moved to where it is unsure would serve a month of bad answers unnoticed."""
    known = watched()
    await lived(world, known, range(3))
    assert not [each for each in await world.events(AlertRaised) if each.statistic.startswith("estimated")]
    await world.close(known, window_of_answers(3, month(3, sure=0.3)))
    (alert,) = [each for each in await world.events(AlertRaised) if each.statistic.startswith("estimated")]
    assert (alert.kind, alert.threshold, alert.led_to) == ("performance", 0.6, "")
    assert alert.value < 0.6
    said = "version 1 may be right less often than the 60.0% that the spec asks for: of 400 predictions of "
    assert alert.message.startswith(said.replace("400", f"{ANSWERS:,}"))
    assert f" (0 labelled) an estimated {(await of_month(world, 3))[0].estimates['accuracy'].value:.1%} are right" in (
        alert.message
    )
    assert alert.message.endswith(f", and the 99% interval reaches down to {alert.value:.1%}")


async def test_no_alert_where_the_spec_wants_none_and_no_estimate_where_it_is_switched_off(world: World) -> None:
    """The spec would be ignored."""
    quiet = watched(alert=False)
    await lived(world, quiet, range(3))
    await world.close(quiet, window_of_answers(3, month(3, sure=0.3)))
    assert await of_month(world, 3)
    assert not [each for each in await world.events(AlertRaised) if each.statistic.startswith("estimated")]
    off = knowledge(tide_spec(monitors={"window_days": 30, "estimation": None}), deployment(1, 1))
    await world.close(off, window_of_answers(4, month(4)))
    assert not await of_month(world, 4)


async def test_a_concept_that_drifts_is_doubted_until_labels_of_the_new_one_are_enough(world: World) -> None:
    """The estimate would go on reassuring people while the model is wrong."""
    known = watched()
    await lived(world, known, range(4))
    assert not (await of_month(world, 3))[-1].doubts
    await lived(world, known, range(4, 6), worth=-0.5)
    drift = [each for each in await world.events(AlertRaised) if each.kind == "concept-drift"]
    assert drift
    wrong = (await of_month(world, 4))[0].estimates["accuracy"]
    realised = (await of_month(world, 4))[-1]
    assert wrong.lower > (realised.estimates["accuracy"].realised or 1) + 0.1
    assert realised.doubts[0].startswith("concept drift since ")
    await lived(world, known, range(6, 9), worth=-0.5)
    learned = (await of_month(world, 8))[0]
    assert not [doubt for doubt in learned.doubts if doubt.startswith("concept drift")]
    assert learned.estimates["accuracy"].value < 0.6


async def test_intervals_that_fail_are_doubted_without_an_alarm_too(world: World) -> None:
    """Where nobody watches the concept, intervals that never hold would be shown as if they did."""
    monitors = {"window_days": 30, "concept_drift": None, "estimation": {"min_examples": 300}}
    blind = knowledge(tide_spec(monitors=monitors), deployment(1, 1), (version(1, "champion"),))
    await lived(world, blind, range(4))
    for number in range(4, 8):
        await world.close(blind, window_of_answers(number, month(number, worth=-1.0)))
    for number in range(4, 8):
        await world.label(blind, month(number, worth=-1.0))
    last = (await of_month(world, 7))[-1]
    assert last.realised_cohorts == 6
    assert last.realised_coverage is not None
    assert last.realised_coverage <= 2 / 6
    (doubt,) = last.doubts
    assert doubt.endswith("of the 6 cohorts that are labelled lay in their interval, at a confidence of 95%")


async def test_the_console_shows_the_newest_estimates(world: World) -> None:
    """An estimate would be on a topic and nowhere that people look."""
    known = watched()
    await lived(world, known, range(4))
    if world.database is None:
        return
    applied = SpecApplied(model=MODEL, spec_revision=1, spec=known.spec, applied_by="me", time=NOW)
    await PostgresNotebook(world.database).note(Log("model-specs", 0), [(0, applied)])
    page = await PostgresPage(world.database).model(MODEL)
    assert page is not None
    newest, before = page["estimates"]
    assert newest["cohort"]["start"] > before["cohort"]["start"]
    assert newest["estimates"]["accuracy"]["realised"] == newest["estimates"]["accuracy"]["value"]
