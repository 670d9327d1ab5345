"""The alarm on a stream of errors: when it sounds, since when, and that a restart does not change it."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

import pytest

from tailrace_contracts.spec import ConceptDriftMonitor
from tailrace_monitoring.adapters.river_detectors import detector
from tailrace_monitoring.domain.concept import KEPT, LONGEST, Alarm, ErrorAlarm, Scaled, change_point

DETECTORS = ("adwin", "page-hinkley", "ddm", "hddm-a", "hddm-w", "hddm")
CAUTIOUS = tuple(kind for kind in DETECTORS if kind != "hddm-w")
"""hddm-w is quick, and raises false alarms; docs/benchmarks.md says how many."""


def errors(rate: float, count: int, seed: int = 1) -> list[int]:
    """So many errors at this rate."""
    chance = random.Random(seed)
    return [int(chance.random() < rate) for _ in range(count)]


def alarm_of(kind: str = "adwin") -> ErrorAlarm:
    """An alarm with the spec's defaults."""
    monitor = ConceptDriftMonitor(detector=kind)
    return ErrorAlarm(lambda: detector(monitor), monitor.min_examples)


def sounded(alarm: ErrorAlarm, stream: Sequence[float], start: int = 1) -> Iterator[Alarm]:
    """The alarms that a stream raises."""
    for number, error in enumerate(stream, start):
        found = alarm.observe(number, error)
        if found is not None:
            yield found


@pytest.mark.parametrize("kind", DETECTORS)
def test_a_risen_error_rate_sounds_the_alarm_once_and_says_since_when(kind: str) -> None:
    """Without it nobody would learn that the champion has gone wrong, or the training would read the wrong examples."""
    found = list(sounded(alarm_of(kind), errors(0.2, 3000) + errors(0.6, 900, seed=2)))
    assert len(found) == 1
    assert 3001 - 25 <= found[0].since <= 3001 + 25
    assert found[0].before == pytest.approx(0.2, abs=0.03)
    assert found[0].after > 0.45
    assert found[0].at < 3900


@pytest.mark.parametrize("kind", CAUTIOUS)
def test_an_error_rate_that_falls_or_stays_is_no_alarm(kind: str) -> None:
    """A model that got better would be retrained for nothing."""
    assert not list(sounded(alarm_of(kind), errors(0.3, 2000) + errors(0.1, 2000, seed=3)))
    assert not list(sounded(alarm_of(kind), errors(0.2, 6000, seed=4)))


def test_few_examples_are_no_alarm_until_there_are_enough() -> None:
    """The first unlucky predictions of a champion would be called a drift, or an early drift would never be."""
    assert not list(sounded(alarm_of(), errors(0.0, 90) + errors(1.0, 100)))
    (found,) = sounded(alarm_of(), errors(0.0, 90) + errors(1.0, 120))
    assert (found.since, found.at) == (91, 200)


def test_an_early_rise_that_passed_is_forgotten() -> None:
    """A short spell of bad luck long ago would be raised as an alert much later."""
    assert not list(sounded(alarm_of(), errors(0.9, 60) + errors(0.1, 2000)))


@pytest.mark.parametrize("kind", DETECTORS)
@pytest.mark.parametrize("stopped_at", [1, 499, 3050, LONGEST + 10, 12_000])
def test_a_restarted_alarm_sounds_as_one_that_never_stopped(kind: str, stopped_at: int) -> None:
    """After a restart the same errors would raise other alerts, or the same one twice."""
    stream = errors(0.2, 12_500) + errors(0.7, 600, seed=5)
    lived_on = list(sounded(alarm_of(kind), stream))
    first = alarm_of(kind)
    before = list(sounded(first, stream[:stopped_at]))
    start = max(first.start or 0, before[-1].at + 1 if before else 0) or stopped_at + 1
    second = alarm_of(kind)
    second.replay((number, stream[number - 1]) for number in range(start, stopped_at + 1))
    assert before + list(sounded(second, stream[stopped_at:], stopped_at + 1)) == lived_on
    assert lived_on


def test_the_errors_kept_are_bounded() -> None:
    """The replay of a model that never drifts would take longer with every day."""
    alarm = alarm_of()
    list(sounded(alarm, [0, 0, 0, 0, 1] * ((LONGEST + 1000) // 5)))
    assert alarm.start is not None
    assert alarm.start > KEPT


def test_the_change_point_is_the_most_likely_split() -> None:
    """A drift's beginning would be dated wrongly."""
    assert change_point([0] * 50 + [1] * 10) == 50
    assert change_point([1] * 10 + [0] * 50) == 0
    assert change_point([0, 1] * 20) in range(2)


def small_errors(size: float, count: int, seed: int = 1) -> list[float]:
    """A regression's errors, a small part of the scale that its spec names."""
    chance = random.Random(seed)
    return [min(abs(chance.gauss(0, size)), 1.0) for _ in range(count)]


@pytest.mark.parametrize("kind", CAUTIOUS)
def test_a_regressions_errors_are_put_on_a_scale_on_which_a_rise_shows(kind: str) -> None:
    """A model whose error doubled would not be noticed because its spec allows numbers a hundred times as large."""
    monitor = ConceptDriftMonitor(detector=kind)

    def alarm() -> ErrorAlarm:
        return ErrorAlarm(lambda: Scaled(detector(monitor), kind, monitor.min_examples), monitor.min_examples)

    (found,) = sounded(alarm(), small_errors(0.004, 3000) + small_errors(0.008, 1500, seed=2))
    assert 3001 - 60 <= found.since <= 3001 + 60
    assert found.after > 1.5 * found.before
    assert not list(sounded(alarm(), small_errors(0.004, 4000, seed=3)))
