"""The detectors on river's streams with known change points: found in time, and not where there is none."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from itertools import chain, islice
from typing import Any

import pytest
from river import naive_bayes
from river.datasets import synth

from tailrace_contracts.spec import ConceptDriftMonitor
from tailrace_monitoring.adapters.river_detectors import detector
from tailrace_monitoring.domain.concept import Alarm, ErrorAlarm

LEARNED = 400
CALM = 1_200


def concept(function: int, seed: int, count: int) -> Iterator[tuple[Any, Any]]:
    """Examples of one of STAGGER's concepts."""
    return islice(iter(synth.STAGGER(classification_function=function, seed=seed)), count)


def gradual() -> Iterator[tuple[Any, Any]]:
    """The second concept comes in little by little over some 400 examples; the first of it at CALM."""
    drifting = synth.ConceptDriftStream(
        stream=synth.STAGGER(classification_function=0, seed=1),
        drift_stream=synth.STAGGER(classification_function=1, seed=2),
        seed=3,
        position=LEARNED + CALM + 400,
        width=400,
    )
    return islice(iter(drifting), LEARNED + CALM + 1_200)


STREAMS: dict[str, tuple[Callable[[], Iterator[tuple[Any, Any]]], list[int]]] = {
    "abrupt": (lambda: chain(concept(0, 1, LEARNED + CALM), concept(1, 2, 800)), [CALM]),
    "gradual": (gradual, [CALM]),
    "recurring": (
        lambda: chain(concept(0, 1, LEARNED + CALM), concept(1, 2, 800), concept(0, 3, CALM), concept(1, 4, 800)),
        [CALM, 2 * CALM + 800],
    ),
    "none": (lambda: concept(0, 1, LEARNED + 3_000), []),
}


@cache
def errors(name: str) -> tuple[int, ...]:
    """The errors of a champion that learned the first examples and learns no more, on every tenth a wrong label."""
    champion, found = naive_bayes.GaussianNB(), []
    for number, (features, label) in enumerate(STREAMS[name][0]()):
        coded = {key: float(hash_of(value)) for key, value in features.items()}
        if number < LEARNED:
            champion.learn_one(coded, label)
        else:
            found.append(int(champion.predict_one(coded) != label) ^ int(number % 10 == 0))
    return tuple(found)


def hash_of(word: object) -> int:
    """A number for a word, the same in every process."""
    return sum(map(ord, str(word)))


def alarms(kind: str, name: str) -> list[Alarm]:
    """What the alarm with this detector and the spec's defaults finds."""
    monitor = ConceptDriftMonitor(detector=kind)
    alarm = ErrorAlarm(lambda: detector(monitor), monitor.min_examples)
    return [found for number, error in enumerate(errors(name)) if (found := alarm.observe(number, error))]


@pytest.mark.parametrize("kind", ["adwin", "ddm", "hddm-a", "page-hinkley"])
@pytest.mark.parametrize("name", STREAMS)
def test_each_rise_is_found_and_nothing_else(kind: str, name: str) -> None:
    """A champion that went wrong would serve on, or one that did not would be retrained."""
    found = alarms(kind, name)
    rises = STREAMS[name][1]
    assert len(found) == len(rises)
    for alarm, rise in zip(found, rises, strict=True):
        assert rise < alarm.at <= rise + 800
        assert abs(alarm.since - rise) <= (500 if name == "gradual" else 40)


def test_hddm_w_finds_a_rise_first() -> None:
    """Whoever chooses it for its speed would get false alarms and no speed."""
    assert min(alarm.at for alarm in alarms("hddm-w", "abrupt") if alarm.at >= CALM) <= CALM + 100
