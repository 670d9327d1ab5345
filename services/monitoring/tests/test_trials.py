"""What a trial shows for the gates, and what a new champion is watched for: groups, answers, input."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from datetime import timedelta
from typing import Any, TypeVar

import pytest

from services.monitoring.tests.test_watching import window
from tailrace_contracts.durations import bucket_of, longer_than, quantile_ms
from tailrace_contracts.events import (
    AlertRaised,
    ArmMeasured,
    ArmsCompared,
    Bounds,
    Event,
    ExampleLabelled,
    ServingMeasured,
    Slice,
)
from tailrace_contracts.ranges import Log, LogRange, LogRanges
from tailrace_monitoring.adapters.river_detectors import detector
from tailrace_monitoring.domain.knowledge import Knowledge
from tailrace_monitoring.domain.state import Placed, Tools
from tailrace_monitoring.handlers import Watchers, let_time_pass, observe_answers, observe_examples, observe_window
from tailrace_monitoring.testing import (
    MODEL,
    NOW,
    FixedGazette,
    FixedReferences,
    MemoryWatches,
    SilentMeter,
    answered,
    deployment,
    knowledge,
    labelled,
    tide_spec,
    version,
)
from tailrace_runtime.testing import FixedClock
from tailrace_statistics.columns import merge
from tailrace_statistics.excess import grown, sounds
from tailrace_statistics.intervals import wilson_interval

EXAMPLES, MEASUREMENTS, WINDOWS = Log("labelled-examples", 2), Log("serving-measurements", 0), Log("statistics", 2)
E = TypeVar("E", bound=Event)


class World:
    """Handlers on a store in memory."""

    def __init__(self) -> None:
        numbers = itertools.count()
        self.clock = FixedClock()
        self.store = MemoryWatches(Tools(detector, merge, lambda: f"id-{next(numbers)}"))
        self.watchers = Watchers(FixedGazette({}), self.store, FixedReferences(), SilentMeter(), self.clock)
        self.known = trial()

    def events(self, kind: type[E]) -> list[E]:
        """What was published."""
        return [event for event in self.store.published if isinstance(event, kind)]

    async def examples(self, examples: Iterable[ExampleLabelled], start: int = 0) -> None:
        """Labelled examples from this offset on."""
        batch = [Placed(EXAMPLES, offset, example) for offset, example in enumerate(examples, start)]
        await observe_examples(MODEL, batch, self.known, self.watchers)

    async def answers(self, offset: int, *arms: ArmMeasured, sequence: int | None = None, process: str = "p") -> bool:
        """One measurement, a second after the one before."""
        self.clock.advance(1)
        event = ServingMeasured(
            model=MODEL, process=process, sequence=sequence or offset + 1, since=NOW, arms=arms, time=NOW
        )
        return await observe_answers(MODEL, [(MEASUREMENTS, offset, event)], self.known, self.watchers)


def trial(champion: int = 1, candidate: int = 2, *, standby: int | None = None, **spec: Any) -> Knowledge:
    """A champion, and a candidate in shadow (or one that stands by)."""
    rollout = {"shadow_min_examples": 20, "gates": {"fairness": {}, "latency": {"max_p99_ms": 50}, "data_quality": {}}}
    document = {"rollout": rollout, **spec}
    versions = (version(champion, "champion"), version(candidate, "shadow"))
    deployed = deployment(1, champion, shadows=(candidate,)).model_copy(update={"standby": standby})
    return knowledge(tide_spec(**document), deployed, versions)


def arm(number: int, name: Any = "champion", *, rows: int = 100, failed: int = 0, ms: float = 1.0) -> ArmMeasured:
    """How a version answered for a second."""
    return ArmMeasured(
        arm=name, version=number, answered=rows - failed, failed=failed, durations={bucket_of(ms / 1000): rows - failed}
    )


def unfair_to_north(number: int, *, correct_north: bool) -> ExampleLabelled:
    """A flood: the champion is right about it, version 2 always in the south, and in the north if it is told to be."""
    north = number % 2 == 1
    return labelled(number, 1, answered("champion", 1, 1), answered("shadow", int(correct_north or not north), 2))


@pytest.fixture
def world() -> World:
    """A world of its own for each test."""
    return World()


# ---------------------------------------------------------------- evidence for the gates


async def test_a_comparison_says_how_each_group_fares_with_both(world: World) -> None:
    """A version that is better on the whole and fails one group would pass the fairness gate."""
    await world.examples(unfair_to_north(number, correct_north=False) for number in range(400))
    newest = world.events(ArmsCompared)[-1]
    assert newest.group_metric == "true_positive_rate"
    north, south = newest.groups
    assert (north.attribute, north.group, north.examples, north.champion, north.candidate) == (
        "quay",
        "north",
        200,
        1,
        0,
    )
    assert north.worsening == 1.0
    assert north.interval.lower > 0.5
    assert (south.worsening, south.interval.lower < 0 < (south.interval.upper or 0)) == (0.0, True)


async def test_only_those_asked_about_count_for_a_rate(world: World) -> None:
    """A true positive rate would be diluted by examples that it says nothing about."""
    await world.examples(
        labelled(n, int(n % 4 == 0), answered("champion", 1, 1), answered("shadow", 1, 2)) for n in range(40)
    )
    (group,) = world.events(ArmsCompared)[-1].groups
    assert group.examples == 10


async def test_nothing_is_counted_by_group_where_nobody_asks(world: World) -> None:
    """Every model would pay for a gate that few have."""
    world.known = trial(rollout={"shadow_min_examples": 20, "rollback_on": ["errors"]})
    await world.examples(unfair_to_north(number, correct_north=True) for number in range(40))
    assert world.events(ArmsCompared)[-1].groups == ()


async def test_a_comparison_says_how_fast_both_answer_and_from_which_records(world: World) -> None:
    """The latency gate would have nothing to judge, or numbers that nobody can trace."""
    for offset in range(6):
        await world.answers(offset, arm(1, ms=2.0), arm(2, "shadow", ms=60.0, failed=1), arm(2, "canary", ms=900))
    await world.examples(unfair_to_north(number, correct_north=True) for number in range(30))
    newest = world.events(ArmsCompared)[-1]
    one, two = newest.answers
    assert (one.version, one.answered, one.failed, one.timed) == (1, 600, 0, 600)
    assert (two.version, two.answered, two.failed, two.timed) == (2, 594, 6, 594)
    assert one.failed_interval == Bounds(lower=0.0, upper=wilson_interval(0, 600).upper)
    assert two.failed_interval is not None
    assert two.failed_interval.lower < 6 / 600 < (two.failed_interval.upper or 0)
    assert one.p99_ms == pytest.approx(2.0, rel=0.03)
    assert two.p99_ms == pytest.approx(60.0, rel=0.03)
    expected = LogRange(topic="serving-measurements", partition=0, from_offset=0, through_offset=5)
    assert newest.answers_from == LogRanges.of(expected)


async def test_a_measurement_that_comes_twice_counts_once(world: World) -> None:
    """A retry of the producer would double the calls of a second."""
    await world.answers(0, arm(1), sequence=7)
    await world.answers(1, arm(1), sequence=7)
    await world.answers(2, arm(1), sequence=3, process="another")
    await world.examples(unfair_to_north(number, correct_north=True) for number in range(30))
    assert world.events(ArmsCompared)[-1].answers[0].answered == 200


async def test_a_new_stage_is_measured_anew(world: World) -> None:
    """A canary would pass its gates on what it did as a shadow."""
    await world.answers(0, arm(1), arm(2, "shadow"))
    world.known = trial()
    world.known = knowledge(world.known.spec, deployment(2, 1, canary=2), world.known.versions.values())
    await world.answers(1, arm(1), arm(2, "canary", rows=7))
    await world.examples(unfair_to_north(number, correct_north=True) for number in range(30))
    newest = world.events(ArmsCompared)[-1]
    assert [each.answered for each in newest.answers] == [100, 7]


async def test_what_came_in_during_the_trial_is_told(world: World) -> None:
    """The data-quality gate would have nothing to judge."""
    parts = (Slice(arm="shadow", version=2, events=300, columns={}),)
    before, during = window(0, 0.0), window(1, 9.0, slices=parts)
    for offset, each in enumerate((before, during)):
        await observe_window((WINDOWS, offset, each), world.known, world.watchers)
    await world.examples(unfair_to_north(number, correct_north=True) for number in range(30))
    found = world.events(ArmsCompared)[-1].input
    assert found is not None
    assert (found.events, found.windows, found.invalid_rates) == (300, 1, {"level": 1.0})


async def test_a_candidate_that_waits_at_a_gate_is_told_of_without_more_labels(world: World) -> None:
    """A better version would wait at the latency gate until somebody happens to label something."""
    world.clock.advance(2)
    wrong = [labelled(n, 1, answered("champion", int(n % 4 > 0), 1), answered("shadow", 1, 2)) for n in range(300)]
    await world.examples(wrong)
    assert world.events(ArmsCompared)[-1].verdict == "better"
    before = len(world.events(ArmsCompared))
    assert await world.answers(0, arm(1), arm(2, "shadow")) is False
    assert len(world.events(ArmsCompared)) == before + 1
    await let_time_pass(MODEL, world.known, world.watchers)
    assert len(world.events(ArmsCompared)) == before + 1


# ---------------------------------------------------------------- alarms on the champion


async def test_a_champion_that_fails_alerts_within_seconds_and_once(world: World) -> None:
    """A new version that fails on half of its rows would go on serving until somebody reads a dashboard."""
    for offset in range(20):
        await world.answers(offset, arm(1, failed=0))
    for offset in range(20, 24):
        await world.answers(offset, arm(1, failed=50))
    (alert,) = world.events(AlertRaised)
    assert (alert.kind, alert.subject, alert.version, alert.value, alert.threshold) == (
        "errors",
        "version 1",
        1,
        0.5,
        0.01,
    )
    assert alert.message.startswith("version 1 failed on 50 of 100 rows since")
    failing = LogRange(topic="serving-measurements", partition=0, from_offset=20, through_offset=20)
    assert alert.derived_from == LogRanges.of(failing)


async def test_a_champion_alerts_again_after_it_had_recovered(world: World) -> None:
    """The second failure of a long-lived champion would pass unnoticed."""
    for offset in range(50):
        await world.answers(offset, arm(1, failed=80 if offset in {5, 40} else 0))
    assert [alert.kind for alert in world.events(AlertRaised)] == ["errors", "errors"]


async def test_a_champion_at_its_limit_raises_no_alarm(world: World) -> None:
    """An alarm that looks every second would sooner or later cry for nothing."""
    for offset in range(400):
        await world.answers(offset, arm(1, failed=1))
    assert world.events(AlertRaised) == []


async def test_a_slow_champion_alerts(world: World) -> None:
    """A version that answers in 80 ms where the spec allows 50 would stay."""
    world.known = trial(monitors={"serving": {"max_p99_ms": 50}})
    for offset in range(3):
        await world.answers(offset, arm(1, ms=80.0))
    (alert,) = world.events(AlertRaised)
    assert (alert.kind, alert.subject, alert.threshold) == ("latency", "version 1", 0.01)
    assert "took longer than 50 ms since" in alert.message


async def test_other_arms_raise_no_alarm(world: World) -> None:
    """A shadow's failures would roll the champion back."""
    for offset in range(5):
        await world.answers(offset, arm(2, "shadow", failed=100), arm(3, "champion", failed=100))
    assert world.events(AlertRaised) == []


async def test_a_group_that_fares_worse_with_a_new_champion_alerts_at_once(world: World) -> None:
    """A new champion that fails one group would stay until its first cohort closes, weeks later."""
    rollout = {"standby_examples": 1000}
    world.known = trial(2, 1, standby=1, rollout=rollout)

    def example(number: int) -> ExampleLabelled:
        return labelled(number, 1, answered("champion", int(number % 2 == 0), 2), answered("shadow", 1, 1))

    for start in range(0, 400, 50):
        world.clock.advance(2)
        await world.examples([example(number) for number in range(start, start + 50)], start)
    (alert,) = world.events(AlertRaised)
    assert (alert.kind, alert.subject, alert.version, alert.threshold) == ("fairness", "version 2", 2, 0.05)
    assert alert.kept_by == (1,)
    assert "for quay=north is 0 with version 2 and 1 with version 1, which it replaced" in alert.message
    assert alert.time - NOW < timedelta(minutes=1)


async def test_a_new_champion_that_treats_groups_alike_raises_no_alarm(world: World) -> None:
    """Every promotion would be rolled back by chance."""
    world.known = trial(2, 1, standby=1, rollout={"rollback_on": ["fairness"], "standby_examples": 1000})
    both = [
        labelled(n, 1, answered("champion", int(n % 10 > 0), 2), answered("shadow", int(n % 10 > 1), 1))
        for n in range(600)
    ]
    for start in range(0, 600, 50):
        world.clock.advance(2)
        await world.examples(both[start : start + 50], start)
    assert world.events(AlertRaised) == []


# ---------------------------------------------------------------- the statistics beneath


def test_durations_keep_their_quantiles() -> None:
    """A gate on the 99th percentile would judge another number than the one that was measured."""
    durations: dict[int, int] = {}
    for step in range(1, 10_001):
        bucket = bucket_of(step / 1e6 * 10)
        durations[bucket] = durations.get(bucket, 0) + 1
    for share in (0.01, 0.5, 0.99):
        assert quantile_ms(durations, share) == pytest.approx(share * 100, rel=0.03)
    assert quantile_ms({}, 0.5) is None
    assert longer_than(durations, 90) == pytest.approx(1000, rel=0.4)


def test_evidence_grows_only_above_the_limit() -> None:
    """The alarm would sound for a share that keeps its limit, or stay silent for one that does not."""
    evidence: list[float] = []
    for _ in range(10_000):
        evidence = grown(evidence, 99, 1, 0.01)
    assert not sounds(evidence, 1e-7)
    assert not sounds([], 0.5)
    for _ in range(6):
        evidence = grown(evidence, 90, 10, 0.01)
    assert sounds(evidence, 1e-7)
