"""How soon each concept-drift detector finds a change, and how often it finds one where there is none.

    uv run python -m tests.benchmarks.concept_drift --seeds 20

Streams of river with known change points. A Hoeffding tree learns 2,000 examples of the first concept and is frozen, as a
champion is; its errors on what follows go through monitoring's alarm with the spec's defaults. A rise of the error rate has to
be found within 2,000 examples, else it is missed; an alarm at any other time is false.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable, Iterator
from itertools import chain, islice
from typing import Any, NamedTuple

from river import tree
from river.datasets import synth

from tailrace_contracts.spec import ConceptDriftMonitor
from tailrace_monitoring.adapters.river_detectors import detector
from tailrace_monitoring.domain.concept import ErrorAlarm

DETECTORS = ("adwin", "ddm", "hddm-a", "hddm-w", "page-hinkley")
LEARNED = 2_000
PATIENCE = 2_000

Example = tuple[dict[Any, Any], Any]


class Stream(NamedTuple):
    """A stream after the examples that the champion learned: how long it is, and where its error rate rises."""

    make: Callable[[int], Iterator[Example]]
    length: int
    rises: tuple[int, ...]


def _then(*parts: tuple[Any, int]) -> Iterator[Example]:
    """So many examples of each dataset, one after the other."""
    return chain.from_iterable(islice(iter(dataset), count) for dataset, count in parts)


def _sea(variant: int, seed: int) -> Any:
    return synth.SEA(variant=variant, noise=0.1, seed=seed)


def _agrawal(function: int, seed: int) -> Any:
    return synth.Agrawal(classification_function=function, perturbation=0.05, seed=seed)


def _stagger(function: int, seed: int) -> Any:
    return synth.STAGGER(classification_function=function, seed=seed)


def _gradual(seed: int) -> Iterator[Example]:
    drifting = synth.ConceptDriftStream(
        stream=_agrawal(0, seed), drift_stream=_agrawal(2, seed + 1), seed=seed, position=LEARNED + 5_000, width=1_000
    )
    return islice(iter(drifting), LEARNED + 8_000)


STREAMS = {
    "SEA, abrupt": Stream(lambda s: _then((_sea(0, s), LEARNED + 4_000), (_sea(3, s + 1), 4_000)), 8_000, (4_000,)),
    "Agrawal, abrupt": Stream(
        lambda s: _then((_agrawal(0, s), LEARNED + 4_000), (_agrawal(2, s + 1), 4_000)), 8_000, (4_000,)
    ),
    "Agrawal, gradual over 1,000": Stream(_gradual, 8_000, (4_000,)),
    "STAGGER, recurring": Stream(
        lambda s: _then(
            (_stagger(0, s), LEARNED + 3_000),
            (_stagger(1, s + 1), 2_500),
            (_stagger(0, s + 2), 3_000),
            (_stagger(1, s + 3), 2_500),
        ),
        11_000,
        (3_000, 8_500),
    ),
    "SEA, none": Stream(lambda s: islice(iter(_sea(1, s)), LEARNED + 10_000), 10_000, ()),
    "Agrawal, none": Stream(lambda s: islice(iter(_agrawal(4, s)), LEARNED + 10_000), 10_000, ()),
}


class Found(NamedTuple):
    """What a detector made of one stream: delays, how far off the dating was, rises missed, false alarms."""

    delays: list[int]
    dated: list[int]
    missed: int
    false: int


def champions_errors(stream: Stream, seed: int) -> list[int]:
    """The errors of a champion that learned the first examples and learns no more."""
    champion = tree.HoeffdingTreeClassifier()
    errors = []
    for number, (features, label) in enumerate(stream.make(seed)):
        if number < LEARNED:
            champion.learn_one(features, label)
        else:
            errors.append(int(champion.predict_one(features) != label))
    return errors


def heard(kind: str, stream: Stream, errors: list[int]) -> Found:
    """What monitoring's alarm with this detector finds."""
    monitor = ConceptDriftMonitor(detector=kind)
    alarm = ErrorAlarm(lambda: detector(monitor), monitor.min_examples)
    sounded = [one for number, error in enumerate(errors) if (one := alarm.observe(number, error))]
    found = Found([], [], 0, 0)
    left = list(sounded)
    missed = 0
    for rise in stream.rises:
        hits = [each for each in left if rise <= each.at < rise + PATIENCE]
        left = [each for each in left if each not in hits]
        if hits:
            found.delays.append(hits[0].at - rise)
            found.dated.append(abs(hits[0].since - rise))
        else:
            missed += 1
    return found._replace(missed=missed, false=len(left))


def _line(kind: str, stream: Stream, found: list[Found]) -> str:
    delays = sorted(chain.from_iterable(each.delays for each in found))
    dated = list(chain.from_iterable(each.dated for each in found))
    rises = len(stream.rises) * len(found)
    missed, false = sum(each.missed for each in found), sum(each.false for each in found)
    typical = f"{statistics.median(delays):,.0f}" if delays else ""
    slow = f"{delays[int(0.9 * (len(delays) - 1))]:,}" if delays else ""
    date = f"{statistics.median(dated):,.0f}" if dated else ""
    share = f"{missed} of {rises}" if rises else ""
    return f"| {kind} | {typical} | {slow} | {date} | {share} | {false} |"


def main() -> None:
    """Print a table for each stream."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=20)
    seeds = range(parser.parse_args().seeds)
    cost = dict.fromkeys(DETECTORS, 0.0)
    total = 0
    for name, stream in STREAMS.items():
        streams = [champions_errors(stream, 100 * seed) for seed in seeds]
        total += sum(map(len, streams))
        first = stream.rises[0] if stream.rises else stream.length
        before = statistics.mean(sum(errors[:first]) / first for errors in streams)
        after = (
            statistics.mean(sum(errors[first : first + 2_000]) / 2_000 for errors in streams) if stream.rises else None
        )
        print(f"\n{name}: {len(streams)} streams, error rate {before:.1%}" + (f" to {after:.1%}" if after else ""))
        print(
            "| detector | delay | nine of ten within | dated within | missed | false alarms |\n|---|---|---|---|---|---|"
        )
        for kind in DETECTORS:
            began = time.process_time()
            found = [heard(kind, stream, errors) for errors in streams]
            cost[kind] += time.process_time() - began
            print(_line(kind, stream, found), flush=True)
    print(f"\nCPU for a million errors, load average {os.getloadavg()[0]:.1f}:")
    for kind in DETECTORS:
        print(f"{kind}: {cost[kind] / total * 1e6:.1f} s")


if __name__ == "__main__":
    main()
