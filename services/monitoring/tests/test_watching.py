"""The handlers, on the fake store and on PostgreSQL: what a model's watch finds out, and that nothing counts twice."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import timedelta
from typing import Any, TypeVar

import pytest

from tailrace_contracts.events import (
    AlertRaised,
    ArmsCompared,
    CategoricalSummary,
    Event,
    ExampleLabelled,
    Mute,
    NumericalSummary,
    PerformanceMeasured,
    TrainingRequested,
    WindowSummarised,
)
from tailrace_contracts.ranges import Log, LogRange, LogRanges, Trigger
from tailrace_monitoring.adapters.postgres_watches import PostgresWatches
from tailrace_monitoring.domain.examples import observe
from tailrace_monitoring.domain.knowledge import Knowledge
from tailrace_monitoring.domain.state import Placed
from tailrace_monitoring.domain.watched import ModelWatch
from tailrace_monitoring.handlers import let_time_pass, observe_examples, observe_window
from tailrace_monitoring.testing import (
    FIRST_DAY,
    MODEL,
    NOW,
    MemoryWatches,
    Stored,
    WatchedWorld,
    answered,
    claim,
    deployment,
    knowledge,
    labelled,
    tide_spec,
    version,
)
from tailrace_statistics.columns import NumericalFold

LOG = Log("labelled-examples", 2)
WINDOWS = Log("feature-statistics", 2)
E = TypeVar("E", bound=Event)
MONTHS = timedelta(days=120)


class World(WatchedWorld):
    """Handlers on one store, a clock, and what was published."""

    async def observe(self, known: Knowledge, examples: Iterable[ExampleLabelled], start: int = 0) -> None:
        """These examples, in one batch, at offsets from `start`."""
        batch = [Placed(LOG, offset, example) for offset, example in enumerate(examples, start)]
        await observe_examples(MODEL, batch, known, self.watchers)

    async def window(self, known: Knowledge, offset: int, month: int, mean: float, **changes: Any) -> None:
        """A month's window of `level`."""
        await observe_window((WINDOWS, offset, window(month, mean, **changes)), known, self.watchers)

    def restarted(self) -> None:
        """A new process: nothing of the old one's memory is left."""
        if isinstance(self.store, PostgresWatches):
            self.store._copies.clear()


@pytest.fixture
def world(stored: Stored) -> World:
    """The world on each store."""
    return World(stored)


def window(month: int, mean: float, **changes: Any) -> WindowSummarised:
    """Closed statistics of 300 values of `level` around a mean."""
    fold = NumericalFold(tide_spec().features[0].limits)  # type: ignore[union-attr]  # the first is numerical
    fold.fold([mean + (step % 30 - 15) / 10 for step in range(300)])
    start = FIRST_DAY + timedelta(days=30 * month)
    fields: dict[str, Any] = {
        "model": MODEL,
        "spec_revision": 1,
        "window": {"start": start, "end": start + timedelta(days=30)},
        "events": 300,
        "columns": {"level": fold.summary()},
        "closed": True,
        "derived_from": LogRanges(),
    }
    return WindowSummarised(**{**fields, **changes})


def on_trial(**spec: Any) -> Knowledge:
    """Champion 1 with shadow 2."""
    versions = (version(1, "champion"), version(2, "shadow"))
    return knowledge(tide_spec(**spec), deployment(1, 1, shadows=(2,)), versions)


def compared(numbers: range, champion_wrong: int = 4) -> list[ExampleLabelled]:
    """Examples on which version 2 is always right, and the champion wrong on every `champion_wrong`-th."""
    return [
        labelled(n, 1, answered("champion", int(n % champion_wrong > 0), 1), answered("shadow", 1, 2)) for n in numbers
    ]


def served(numbers: range, wrong_every: int, first_wrong: int = 0) -> list[ExampleLabelled]:
    """Examples on which the champion errs at one rate; from `first_wrong` on (0: never) always."""
    return [
        labelled(n, 1, answered("champion", int(n % wrong_every > 0 and not (first_wrong and n >= first_wrong)), 1))
        for n in numbers
    ]


async def test_a_better_candidate_is_announced_with_what_it_was_compared_on(world: World) -> None:
    """A better version would never be promoted, or on evidence that nobody can look up."""
    await world.observe(on_trial(), compared(range(200)))
    (last,) = await world.events(ArmsCompared)
    assert (last.champion, last.candidate, last.stage, last.verdict) == (1, 2, "shadow", "better")
    assert (last.examples, last.stage_examples) == (200, 200)
    assert (last.champion_accuracy, last.candidate_accuracy, last.mean_difference) == (0.75, 1.0, 0.25)
    assert 0 < last.lower < 0.25 < last.upper
    assert last.derived_from == LogRanges.of(
        LogRange(topic="labelled-examples", partition=2, from_offset=0, through_offset=199)
    )


async def test_comparisons_are_published_once_a_second_and_a_new_verdict_at_once(world: World) -> None:
    """The topic would flood, or a promotion would wait."""
    known = on_trial()
    await world.observe(known, compared(range(5)), 0)
    await world.observe(known, compared(range(5, 8)), 5)
    assert len(await world.events(ArmsCompared)) <= 2
    await world.observe(known, compared(range(8, 150)), 8)
    assert (await world.events(ArmsCompared))[-1].verdict == "better"
    before = len(await world.events(ArmsCompared))
    world.clock.advance(1.1)
    await world.observe(known, compared(range(150, 151)), 150)
    assert len(await world.events(ArmsCompared)) == before + 1


async def test_what_waited_for_its_second_is_published_without_another_example(world: World) -> None:
    """The last comparison before a quiet night would be missing until morning."""
    known = on_trial()
    await world.observe(known, compared(range(5)))
    await world.observe(known, compared(range(5, 6)), 5)
    if isinstance(world.store, PostgresWatches):  # the fake keeps no memory between sittings and publishes at once
        assert (await world.events(ArmsCompared))[-1].examples == 5
    world.clock.advance(1.1)
    assert not await let_time_pass(MODEL, known, world.watchers)
    assert (await world.events(ArmsCompared))[-1].examples == 6


async def test_the_same_records_again_change_nothing(world: World) -> None:
    """After a crash examples would count twice, in accuracy, in evidence and in alerts."""
    known = on_trial()
    examples = compared(range(120))
    await world.observe(known, examples)
    before = await world.events(Event)
    world.restarted()
    world.clock.advance(5)
    await world.observe(known, examples)
    await world.observe(known, examples[60:], 60)
    assert await world.events(Event) == before
    world.clock.advance(5)
    await world.observe(known, compared(range(120, 121)), 120)
    assert (await world.events(ArmsCompared))[-1].examples == 121


async def test_an_example_that_was_published_twice_counts_once(world: World) -> None:
    """A crash of the join would count an example twice: the copy has another offset."""
    known = on_trial()
    examples = compared(range(60))
    await world.observe(known, examples)
    world.restarted()
    world.clock.advance(5)
    await world.observe(known, examples[40:], 60)
    world.clock.advance(5)
    by_other_trigger = examples[50].model_copy(update={"trigger": Trigger(topic="labels", partition=3, offset=9)})
    await world.observe(known, [by_other_trigger, *compared(range(60, 61))], 80)
    assert (await world.events(ArmsCompared))[-1].examples == 61


async def test_only_examples_that_both_answered_are_compared(world: World) -> None:
    """A candidate that came late would be judged by predictions that it never made."""
    known = on_trial()
    await world.observe(known, served(range(50), 2))
    await world.observe(known, compared(range(50, 60)), 50)
    assert (await world.events(ArmsCompared))[-1].examples == 10


async def test_a_canary_counts_on_served_and_unserved_examples_from_its_stage_on(world: World) -> None:
    """A canary would be promoted on examples that it saw as a shadow."""
    await world.observe(on_trial(), compared(range(30)))
    canary = knowledge(tide_spec(), deployment(2, 1, canary=2), (version(1, "champion"), version(2, "canary")))
    late = compared(range(30, 34))
    answers = [
        labelled(34, 1, answered("canary", 1, 2), answered("champion", 0, 1)),
        labelled(35, 1, answered("champion", 1, 1), answered("canary", 1, 2)),
    ]
    world.clock.advance(2)
    await world.observe(canary, [*late, *answers], 30)
    last = (await world.events(ArmsCompared))[-1]
    assert (last.stage, last.examples, last.stage_examples) == ("canary", 36, 2)


async def test_a_new_champion_starts_every_comparison_anew(world: World) -> None:
    """A candidate would be promoted for being better than a champion of the past."""
    await world.observe(on_trial(), compared(range(100)))
    world.clock.advance(2)
    promoted = knowledge(
        tide_spec(), deployment(2, 2, shadows=(3,)), (version(2, "champion"), version(3, "shadow", continual=True))
    )
    both = [labelled(n, 1, answered("champion", 1, 2), answered("shadow", 1, 3)) for n in range(100, 110)]
    await world.observe(promoted, both, 100)
    last = (await world.events(ArmsCompared))[-1]
    assert (last.champion, last.candidate, last.examples) == (2, 3, 10)


async def test_drift_of_the_champion_alerts_dates_it_and_leads_to_a_training_on_the_new_regime(world: World) -> None:
    """The loop would not close: nobody would notice, or the training would read the old regime."""
    known = on_trial(retraining={"settle_examples": 120})
    await world.observe(known, served(range(1000), 5), 0)
    for start in range(1000, 1400, 50):
        world.clock.advance(0.5)
        await world.observe(known, served(range(start, start + 50), 5, first_wrong=1000), start)
        world.restarted()
    (alert,) = [each for each in await world.events(AlertRaised) if each.kind == "concept-drift"]
    assert alert.since == FIRST_DAY + timedelta(days=1000)
    (drifted,) = alert.derived_from
    assert drifted.from_offset == 1000
    assert alert.subject == "version 1"
    (request,) = await world.events(TrainingRequested)
    assert request.run_id == alert.led_to
    (trained_on,) = request.ranges
    assert trained_on.from_offset == 1000
    assert trained_on.through_offset == drifted.through_offset + 120


async def test_the_champions_drift_restarts_the_comparisons(world: World) -> None:
    """A candidate that learns the new regime would pay for ever for having been worse in the old one."""
    known = on_trial()
    old = [labelled(n, 1, answered("champion", int(n % 5 > 0), 1), answered("shadow", 0, 2)) for n in range(600)]
    new = [labelled(n, 1, answered("champion", 0, 1), answered("shadow", 1, 2)) for n in range(600, 900)]
    await world.observe(known, old)
    assert (await world.events(ArmsCompared))[-1].verdict == "worse"
    world.clock.advance(2)
    await world.observe(known, new, 600)
    assert (await world.events(ArmsCompared))[-1].verdict == "better"


@pytest.mark.parametrize(
    ("beside", "before", "kept"),
    [(0.95, 0, (1,)), (0.6, 0, ()), (0.95, 300, ())],
    ids=["it did better", "both broke the limit", "it was worse on the whole"],
)
async def test_an_alert_on_a_new_champion_says_whether_the_one_before_kept_the_limit(
    world: World, beside: float, before: int, kept: tuple[int, ...]
) -> None:
    """What the world does to every version would return an older one, and promotions would stop."""
    spec = tide_spec(monitors={"window_days": 30, "performance": {"min_accuracy": 0.9}, "concept_drift": None})
    deployed = deployment(1, 2, shadows=(1,)).model_copy(update={"standby": 1})
    known = knowledge(spec, deployed, (version(1, "shadow"), version(2, "champion")))
    earlier = [
        labelled(n, 1, answered("champion", 1, 2), answered("shadow", 0, 1), time=FIRST_DAY - timedelta(days=60))
        for n in range(before)
    ]
    found = [
        labelled(
            before + n,
            1,
            answered("champion", int(n % 2), 2),
            answered("shadow", int(n < 100 * beside), 1),
            time=FIRST_DAY,
        )
        for n in range(100)
    ]
    later = [labelled(before + 100, 1, answered("champion", 1, 2), time=FIRST_DAY + timedelta(days=90))]
    await world.observe(known, earlier + found + later)
    alerts = [each for each in await world.events(AlertRaised) if each.kind == "performance"]
    assert [(each.subject, each.value, each.kept_by, each.deployment) for each in alerts] == [
        ("version 2", 0.5, kept, 1)
    ]


async def test_a_model_of_the_producers_own_is_watched_without_a_version(world: World) -> None:
    """Whoever brings predictions of their own would see nothing."""
    spec = tide_spec(learners={}, monitors={"window_days": 30, "performance": {"min_accuracy": 0.9}})
    mine = [labelled(n, 1, answered("external", int(n % 4 > 0)), time=FIRST_DAY) for n in range(60)]
    later = [labelled(60, 1, answered("external", 1), time=FIRST_DAY + timedelta(days=90))]
    await world.observe(knowledge(spec), mine + later)
    first = (await world.events(PerformanceMeasured))[0]
    assert (first.arm, first.version, first.examples, first.accuracy) == ("external", None, 60, 0.75)
    (alert,) = await world.events(AlertRaised)
    assert (alert.kind, alert.subject, alert.value, alert.threshold, alert.led_to) == (
        "performance",
        "external",
        0.75,
        0.9,
        "",
    )


LITRES: dict[str, Any] = {
    "task": "regression",
    "label": {"name": "litres", "limits": {"min": 0, "max": 100}},
    "monitors": {"window_days": 40, "allowed_lateness_days": 0, "performance": {"max_mae": 5, "max_rmse": 50}},
}


def measured_by(numbers: range, error: float, other: float = 2.0) -> list[ExampleLabelled]:
    """Examples of 50 litres and a fraction: the champion is `error` too high or too low, the shadow `other`."""
    return [
        labelled(
            n,
            50 + n % 7 / 8,
            answered("champion", 50 + n % 7 / 8 + (error if n % 4 else -error), 1),
            answered("shadow", 50 + n % 7 / 8 - other, 2),
        )
        for n in numbers
    ]


async def test_the_better_of_two_regressions_is_found_and_both_are_told_in_litres(world: World) -> None:
    """A regression would be compared by whether it hits the very number, and never be promoted."""
    known = on_trial(**LITRES)
    await world.observe(known, measured_by(range(400), 8))
    last = (await world.events(ArmsCompared))[-1]
    assert (last.verdict, last.examples, last.champion_accuracy) == ("better", 400, None)
    assert last.mean_difference == pytest.approx(0.06)
    assert last.lower > 0
    assert last.champion_metrics == pytest.approx({"mae": 8, "rmse": 8, "bias": 4})
    assert last.candidate_metrics == pytest.approx({"mae": 2, "rmse": 2, "bias": -2})
    state = world.store.state(MODEL) if isinstance(world.store, MemoryWatches) else None
    assert state is None or state.scores["1"].metrics == pytest.approx(
        {"mae": 8, "rmse": 8, "bias": 4, "recent_mae": 8}
    )


async def test_a_cohort_of_a_regression_is_measured_corrected_and_alerts(world: World) -> None:
    """Nobody would hear of a regression that has become worse, or a corrected label would count twice."""
    known = on_trial(**LITRES)
    examples = measured_by(range(120), 8)
    await world.observe(known, examples)
    wrong = examples[0]
    world.clock.advance(5)
    corrected = wrong.model_copy(
        update={
            "label": wrong.label + 40,
            "replaces": wrong.label,
            "label_revision": 1,
            "trigger": wrong.trigger.model_copy(update={"offset": 1_000}),
        }
    )
    await world.observe(known, [corrected, *measured_by(range(400, 401), 8)], start=120)
    cohorts = [each for each in await world.events(PerformanceMeasured) if each.arm == "champion"]
    first = [each for each in cohorts if each.cohort == cohorts[0].cohort][-1]
    errors = [8 if n % 4 else -8 for n in range(first.examples)]
    errors[0] -= 40
    mean = sum(map(abs, errors)) / len(errors)
    assert first.accuracy is None
    assert first.metrics == pytest.approx(
        {
            "mae": mean,
            "rmse": (sum(each**2 for each in errors) / len(errors)) ** 0.5,
            "bias": sum(errors) / len(errors),
        }
    )
    assert sum(each.examples for each in first.groups) == (len(first.groups) and first.examples)
    (alert,) = [each for each in await world.events(AlertRaised) if each.kind == "performance"][:1]
    assert (alert.statistic, alert.threshold) == ("mean absolute error", 5)
    assert "the mean absolute error of version 1 was" in alert.message


async def test_drift_of_a_regression_is_found_dated_and_told_in_litres(world: World) -> None:
    """The errors of a regression could grow without an alarm, or the alarm speak of percent."""
    batch = {"kind": "torch", "min_examples": 50, "max_examples": 500}
    known = on_trial(**{**LITRES, "learners": {"batch": batch}})
    await world.observe(known, measured_by(range(600), 4))
    world.restarted()
    await world.observe(known, measured_by(range(600, 1_200), 30), start=600)
    (alert,) = [each for each in await world.events(AlertRaised) if each.kind == "concept-drift"]
    assert "the mean absolute error of version 1 rose from 4" in alert.message
    assert abs((alert.since - labelled(600, 1).time).days) <= 2
    assert alert.led_to


async def test_a_regression_that_overrates_one_group_alerts_in_litres(world: World) -> None:
    """A model could overrate everything from one quay, and only rates of classes would be looked at."""
    fairness = {"max_bias_difference": 3, "max_mae_difference": 3, "min_group_examples": 20}
    known = on_trial(**{**LITRES, "monitors": {"window_days": 40, "allowed_lateness_days": 0, "fairness": fairness}})
    leaning = [
        labelled(n, 50 + n % 7 / 8, answered("champion", 50 + n % 5 / 8 + (8 if n % 2 else -8), 1), time=FIRST_DAY)
        for n in range(200)
    ]
    await world.observe(known, [*leaning, labelled(200, 50, answered("champion", 50, 1), time=FIRST_DAY + MONTHS)])
    (alert,) = [each for each in await world.events(AlertRaised) if each.kind == "fairness"]
    assert (alert.subject, alert.statistic, alert.threshold) == ("quay", "mean error difference", 3)
    assert alert.value == pytest.approx(16, abs=0.5)
    assert "the mean error of version 1 is 1" in alert.message
    assert "higher for quay=north than for quay=south" in alert.message
    assert alert.message.endswith("the spec allows 3")
    measured = [each for each in await world.events(PerformanceMeasured) if each.examples == 200][-1]
    assert [(each.rate, each.over) for each in measured.comparisons] == [("mae", ()), ("bias", ("difference",))]
    north = measured.groups[0]
    assert north.bias_interval is not None
    assert north.bias_interval.lower < north.metrics["bias"] < (north.bias_interval.upper or 0)


async def test_unequal_selection_of_groups_alerts_when_the_cohort_closes(world: World) -> None:
    """Unfair predictions would show up in no alert."""
    spec = tide_spec(monitors={"window_days": 30, "fairness": {"max_difference": 0.3, "min_group_examples": 20}})
    unequal = [labelled(n, 1, answered("external", n % 2), time=FIRST_DAY) for n in range(60)]
    later = [labelled(60, 1, answered("external", 1), time=FIRST_DAY + timedelta(days=90))]
    await world.observe(knowledge(spec), unequal + later)
    (alert,) = await world.events(AlertRaised)
    assert (alert.kind, alert.subject, alert.value) == ("fairness", "quay", 1.0)


def muting(**changes: Any) -> Mute:
    """All alerts of the model, muted by ada for a year."""
    fields: dict[str, Any] = {"mute_id": "m", "owner": "ada", "reason": "x", "muted_by": "ada"}
    return Mute(**{**fields, "since": NOW - timedelta(days=1), "until": NOW + timedelta(days=365), **changes})


@pytest.mark.parametrize(
    ("mute", "muted"),
    [
        (muting(), True),
        (muting(kinds=("performance", "fairness"), subjects=("version ?",)), True),
        (muting(kinds=("fairness",)), False),
        (muting(subjects=("version 2",)), False),
        (muting(until=NOW), False),
    ],
)
async def test_a_muted_alert_is_recorded_as_muted_and_asks_for_no_training(
    world: World, mute: Mute, muted: bool
) -> None:
    """A mute would lose what happened, would mute something else, or would go on after its end."""
    world.clock.advance((NOW - world.clock.now()).total_seconds())
    monitors = {"window_days": 30, "performance": {"min_accuracy": 0.9}, "concept_drift": None}
    spec = tide_spec(monitors=monitors, retraining={"settle_examples": 0})
    known = knowledge(spec, deployment(1, 1), (version(1, "champion"),))
    known = replace(known, mutes=(mute,))
    await world.observe(known, served(range(200), 4))
    alerts = [each for each in await world.events(AlertRaised) if each.kind == "performance"]
    assert alerts
    for alert in alerts:
        assert (alert.muted_by, alert.muted_until, alert.mute_id) == (
            ("ada", mute.until, "m") if muted else ("", None, "")
        )
    assert bool(await world.events(TrainingRequested)) != muted
    assert all(not alert.led_to for alert in alerts) or not muted


async def test_an_alert_that_goes_on_says_since_when(world: World) -> None:
    """Each month's alert would look like a new trouble."""
    spec = tide_spec(monitors={"window_days": 30, "performance": {"min_accuracy": 0.9}, "concept_drift": None})
    known = knowledge(spec, deployment(1, 1), (version(1, "champion"),))
    await world.observe(known, served(range(150), 4))
    world.restarted()
    await world.observe(known, served(range(150, 300), 4), 150)
    alerts = [each for each in await world.events(AlertRaised) if each.kind == "performance"]
    assert len(alerts) > 3
    assert {each.since for each in alerts} == {alerts[0].since}
    assert "as since" in alerts[-1].message
    assert alerts[-1].derived_from != alerts[0].derived_from


async def test_history_without_predictions_leads_to_the_first_training(world: World) -> None:
    """A model with a history would never get a version."""
    await world.observe(knowledge(tide_spec()), [labelled(n, n % 2) for n in range(250)])
    (request,) = await world.events(TrainingRequested)
    assert str(request.ranges) == "labelled-examples[2]@0..199"
    assert await world.events(PerformanceMeasured) == []


async def test_a_short_history_leads_to_the_first_training_once_it_is_quiet(world: World) -> None:
    """A model with few examples would wait for its first version for ever."""
    known = knowledge(tide_spec())
    await world.observe(known, [labelled(n, n % 2) for n in range(120)])
    world.clock.advance(5)
    assert await let_time_pass(MODEL, known, world.watchers)
    world.clock.advance(16)
    assert not await let_time_pass(MODEL, known, world.watchers)
    (request,) = await world.events(TrainingRequested)
    assert str(request.ranges) == "labelled-examples[2]@0..119"


async def test_an_old_state_of_a_window_that_comes_late_is_passed_over(world: World) -> None:
    """A process that slept and woke would put a window's statistics back to what they were, and raise false alarms."""
    reference = claim("7")
    known = knowledge(tide_spec(), deployment(1, 1), (version(1, "champion", reference=reference),))
    world.references.known[reference.sha256] = window(0, 0.0).columns
    for offset, (mean, through) in enumerate([(0.0, 99), (1.5, 49)]):
        world.restarted()
        log_range = LogRange(topic="prediction-events", partition=0, from_offset=0, through_offset=through)
        await world.window(known, offset, 1, mean, derived_from=LogRanges.of(log_range))
    assert await world.events(AlertRaised) == []


async def test_a_column_that_left_the_training_set_alerts_once(world: World) -> None:
    """Drifted features would go unseen, or would alert with every window."""
    reference = claim("7")
    versions = (version(1, "champion", reference=reference),)
    known = knowledge(tide_spec(), deployment(1, 1), versions)
    world.references.known[reference.sha256] = window(0, 0.0).columns
    for offset, (month, mean) in enumerate([(0, 0.0), (1, 1.5), (2, 1.5), (2, 1.5), (3, 1.5)]):
        await world.window(known, offset, month, mean)
        world.restarted()
    (alert,) = await world.events(AlertRaised)
    assert (alert.kind, alert.subject) == ("feature-drift", "level")
    assert alert.since == FIRST_DAY + timedelta(days=30)
    assert alert.value > alert.threshold > 0
    assert alert.message.startswith("level is 0.5")
    assert "which chance passes 1 per 30 days in all" in alert.message


async def test_windows_after_a_reference_period_are_judged_against_it(world: World) -> None:
    """A stream without a training set of ours would have no drift."""
    period = {"start": FIRST_DAY, "end": FIRST_DAY + timedelta(days=60)}
    drift = {"reference": period, "consecutive_windows": 1}
    known = knowledge(tide_spec(monitors={"window_days": 30, "drift": drift}))
    for offset, (month, mean) in enumerate([(0, 0.0), (1, 0.0), (2, 0.0), (3, 2.0)]):
        await world.window(known, offset, month, mean)
        world.restarted()
    (alert,) = await world.events(AlertRaised)
    assert alert.since == FIRST_DAY + timedelta(days=90)


def moving(consecutive_windows: int = 1) -> Knowledge:
    """A model whose windows are measured against the first month."""
    period = {"start": FIRST_DAY, "end": FIRST_DAY + timedelta(days=30)}
    drift = {"reference": period, "threshold": 0.25, "consecutive_windows": consecutive_windows}
    return knowledge(tide_spec(monitors={"window_days": 30, "drift": drift, "multivariate": None}))


def at_month(month: int) -> LogRanges:
    """The records of a month's window."""
    return LogRanges.of(
        LogRange(topic="predictions", partition=0, from_offset=month * 300, through_offset=month * 300 + 299)
    )


async def test_an_alert_about_windows_in_a_row_names_the_records_of_all_of_them(world: World) -> None:
    """Whoever looks an alert up would find half of what it rests on."""
    for month, mean in enumerate((0.0, 0.0, 2.0, 2.0, 2.0)):
        await world.window(moving(3), month, month, mean, derived_from=at_month(month))
        world.restarted()
    (alert,) = await world.events(AlertRaised)
    assert alert.since == FIRST_DAY + timedelta(days=60)
    assert alert.derived_from == at_month(2) | at_month(3) | at_month(4)


async def test_what_still_moves_when_its_mute_ends_is_heard_then(world: World) -> None:
    """A drift that was muted for a week would never be heard of again."""
    known, moment = moving(), world.clock.now()
    mute = muting(subjects=("level",), since=moment, until=moment + timedelta(days=1))
    known = replace(known, mutes=(mute,))
    for month, mean in enumerate((0.0, 2.0, 2.0)):
        await world.window(known, month, month, mean)
        world.restarted()
    assert [each.muted_by for each in await world.events(AlertRaised)] == ["ada"]
    world.clock.advance(2 * 86400)
    for month in (3, 4):
        await world.window(known, month, month, 2.0)
        world.restarted()
    assert [each.muted_by for each in await world.events(AlertRaised)] == ["ada", ""]


async def test_a_mute_of_one_column_leaves_the_others_to_be_heard(world: World) -> None:
    """Two columns that move in one window would be muted together because one of them is."""
    moment = world.clock.now()
    mute = muting(subjects=("level",), since=moment, until=moment + timedelta(days=1))
    known = replace(moving(), mutes=(mute,))
    north = CategoricalSummary(count=300, counts={"north": 290, "south": 10})
    south = CategoricalSummary(count=300, counts={"north": 10, "south": 290})
    for month, (mean, quay) in enumerate(((0.0, north), (2.0, south))):
        columns = {"level": window(month, mean).columns["level"], "quay": quay}
        await world.window(known, month, month, mean, columns=columns)
    heard, muted = await world.events(AlertRaised)
    assert (heard.subject, heard.muted_by) == ("quay", "")
    assert (muted.subject, muted.muted_by) == ("level", "ada")
    assert "level" not in heard.message


async def test_bad_values_say_since_when_they_come(world: World) -> None:
    """A sensor that has been broken for a year would look broken since this month."""
    known = knowledge(tide_spec())
    bad = NumericalSummary(count=300, out_of_limits=3, mean=1.0, minimum=0.0, maximum=94.0)
    fine = NumericalSummary(count=300, mean=1.0, minimum=0.0, maximum=2.0)
    for month, level in enumerate((bad, bad, fine, bad)):
        for closed in (False, True):
            await world.window(known, 2 * month + closed, month, 0.0, columns={"level": level}, closed=closed)
        world.restarted()
    alerts = await world.events(AlertRaised)
    assert [(each.since - FIRST_DAY).days for each in alerts] == [0, 0, 90]
    assert "and in every window since 2020-01-01" in alerts[1].message


async def test_a_single_value_out_of_limits_alerts_by_name(world: World) -> None:
    """A broken sensor would feed nonsense for a year before anybody heard."""
    broken = NumericalSummary(count=1, out_of_limits=1, mean=94.0, minimum=94.0, maximum=94.0)
    await world.window(knowledge(tide_spec()), 0, 0, 0.0, columns={"level": broken}, events=1, closed=False)
    (alert,) = await world.events(AlertRaised)
    assert (alert.kind, alert.subject, alert.value) == ("data-quality", "level", 1.0)
    assert alert.message.startswith("1 value of level is outside the spec's limits")


async def test_a_reference_that_cannot_be_read_is_said_once_and_stops_nothing(world: World) -> None:
    """A damaged artefact of one model would silence drift for it, or monitoring for all."""
    known = knowledge(tide_spec(), deployment(1, 1), (version(1, "champion", reference=claim("8")),))
    await world.window(known, 0, 0, 0.0)
    await world.window(known, 1, 1, 0.0)
    (alert,) = await world.events(AlertRaised)
    assert (alert.kind, alert.subject) == ("data-quality", "reference of version 1")


async def observed_until_the_power_goes(world: World, known: Knowledge, placed: Placed) -> None:
    """A sitting that is cut off after its work and before it is stored."""
    async with world.store.sitting(MODEL, 8000) as sitting:
        watch: ModelWatch = sitting.watch
        observe(watch, [placed], known, world.clock.now())
        raise RuntimeError("the power went")


async def test_a_sitting_that_fails_leaves_nothing_behind(world: World) -> None:
    """Half a batch would be stored: counted, but never announced."""
    known = on_trial()
    await world.observe(known, compared(range(10)))
    with pytest.raises(RuntimeError):
        await observed_until_the_power_goes(world, known, Placed(LOG, 10, compared(range(10, 11))[0]))
    world.clock.advance(2)
    await world.observe(known, compared(range(10, 11)), 10)
    assert (await world.events(ArmsCompared))[-1].examples == 11
