"""What must be on the derived topics, computed from the public ones; and what is there, as a reader takes it.

The reading is a reader's: of forwarded events each trigger once, of a window the record that was derived from most, of examples what
`HighWater` admits, of the archive what `read_ranges` gives. So a difference is one that a user would meet.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tailrace_contracts.events import (
    EventParked,
    ExampleLabelled,
    LabelGiven,
    NumericalSummary,
    PredictionMade,
    WindowSummarised,
)
from tailrace_runtime.highwater import HighWater
from tailrace_runtime.records import Record
from tests.chaos.load import spec, window_of
from tests.chaos.readout import Logs, Row

READ = (
    "prediction-events",
    "label-events",
    "predictions",
    "labels",
    "feature-statistics",
    "labelled-examples",
    "dead-letters",
)
_MAX_WIND = 200.0


@dataclass(slots=True)
class Counted:
    """A window as it should be."""

    events: int = 0
    refused: int = 0
    wind: float = 0.0
    late: int = 0


@dataclass(slots=True)
class Truth:
    """What follows from the public topics."""

    forwarded: dict[tuple[str, int], list[tuple[int, bytes]]] = field(default_factory=dict)
    refused: set[tuple[str, int, int]] = field(default_factory=set)
    windows: dict[float, Counted] = field(default_factory=lambda: defaultdict(Counted))
    answers: dict[str, list[int]] = field(default_factory=dict)
    """The values of a prediction's label, one after another."""


def truth(logs: Logs) -> Truth:
    """Judge the public events as the specification says."""
    found = Truth()
    for number, records in logs["prediction-events"].items():
        _predictions(found, number, records)
    predicted = {key for records in logs["prediction-events"].values() for key in _valid_keys(records, found)}
    for number, records in logs["label-events"].items():
        found.forwarded["labels", number] = [(each.offset, each.value or b"") for each in records]
        for record in records:
            event = LabelGiven.model_validate_json(record.value or b"")
            values = found.answers.setdefault(event.prediction_id, [])
            if not values or values[-1] != event.label:
                values.append(int(event.label))
    found.answers = {key: values for key, values in found.answers.items() if key in predicted}
    return found


def _predictions(found: Truth, number: int, records: Sequence[Record]) -> None:
    """One log: which events are forwarded, and which window counts them.

    What is late by the log's own watermark counts in the window in which that is.
    """
    monitors, newest = spec().monitors, float("-inf")
    close = (monitors.window_days + monitors.allowed_lateness_days) * 86_400
    forwarded = found.forwarded["predictions", number] = []
    for record in records:
        event = PredictionMade.model_validate_json(record.value or b"")
        wind, moment = float(event.features["wind"] or 0), event.time.timestamp()
        valid, start = wind <= _MAX_WIND, window_of(moment)
        if valid:
            forwarded.append((record.offset, record.value or b""))
            newest = max(newest, moment)
        else:
            found.refused.add(("prediction-events", number, record.offset))
        if start + close <= newest:
            found.windows[window_of(newest)].late += valid
        elif valid:
            found.windows[start].events += 1
            found.windows[start].wind += wind
        else:
            found.windows[start].refused += 1


def _valid_keys(records: Iterable[Record], found: Truth) -> Iterator[str]:
    for record in records:
        if ("prediction-events", record.partition, record.offset) not in found.refused:
            yield (record.key or b"").decode()


# ---------------------------------------------------------------- the verdict


def verdict(logs: Logs) -> list[Row]:
    """Everything that the topics tell."""
    expected = truth(logs)
    return [
        *_forwarded(expected, logs),
        _dead_letters(expected, logs),
        *_statistics(expected, logs),
        *_examples(expected, logs),
    ]


def _forwarded(expected: Truth, logs: Logs) -> Iterator[Row]:
    """Each valid event once, as it came, in its log's order: so the order of each key is kept too."""
    for topic in ("predictions", "labels"):
        wanted = {number: values for (name, number), values in expected.forwarded.items() if name == topic}
        found = {number: _each_trigger_once(records) for number, records in logs[topic].items()}
        differences = [
            f"{topic}[{number}]: {_first_difference(wanted.get(number, []), found.get(number, []))}"
            for number in sorted(wanted.keys() | found.keys())
            if wanted.get(number, []) != found.get(number, [])
        ]
        yield Row(topic, _total(wanted), _total(found), tuple(differences))


def _each_trigger_once(records: Sequence[Record]) -> list[tuple[int, bytes]]:
    mark, taken = -1, []
    for record in records:
        trigger = int(record.header("trigger-offset") or b"-1")
        if trigger > mark:
            mark = trigger
            taken.append((trigger, record.value or b""))
    return taken


def _first_difference(wanted: Sequence[Any], found: Sequence[Any]) -> str:
    for position, (left, right) in enumerate(zip(wanted, found, strict=False)):
        if left != right:
            return f"record {position} should be trigger {left[0]} and is trigger {right[0]}"
    return f"{len(wanted)} records wanted, {len(found)} found"


def _dead_letters(expected: Truth, logs: Logs) -> Row:
    found: set[tuple[str, int, int]] = set()
    for records in logs["dead-letters"].values():
        for record in records:
            letter = EventParked.model_validate_json(record.value or b"")
            found.add((letter.topic, letter.partition, letter.offset))
    differences = [f"{place} is refused, and should not be" for place in found - expected.refused]
    return Row("dead letters", len(expected.refused), len(found), tuple(sorted(differences)[:3]))


def _statistics(expected: Truth, logs: Logs) -> Iterator[Row]:
    """Of each window the record that was derived from most: a process that was asleep may publish an old one late."""
    newest: dict[float, WindowSummarised] = {}
    for records in logs["feature-statistics"].values():
        for record in records:
            window = WindowSummarised.model_validate_json(record.value or b"")
            start = window.window.start.timestamp()
            if start not in newest or window.derived_from.extent >= newest[start].derived_from.extent:
                newest[start] = window
    found = {start: _counted(window) for start, window in newest.items()}
    wrong = [
        f"window {start:.0f}: {wanted} expected, {found.get(start)} found"
        for start, wanted in sorted(expected.windows.items())
        if found.get(start) != wanted
    ]
    yield Row("windows", len(expected.windows), len(found))
    events = sum(each.events for each in expected.windows.values())
    yield Row("events in statistics", events, sum(each.events for each in found.values()), tuple(wrong))
    refused = sum(each.refused for each in expected.windows.values())
    yield Row("refused values in statistics", refused, sum(each.refused for each in found.values()))
    late = sum(each.late for each in found.values())
    yield Row("late events in statistics", sum(each.late for each in expected.windows.values()), late)
    valid = sum(len(values) for (topic, _), values in expected.forwarded.items() if topic == "predictions")
    yield Row("predictions = in windows + late", valid, sum(each.events for each in found.values()) + late)


def _counted(window: WindowSummarised) -> Counted:
    wind = window.columns.get("wind")
    if not isinstance(wind, NumericalSummary):
        return Counted(window.events, late=window.late)
    return Counted(window.events, wind.out_of_limits, round(wind.count * (wind.mean or 0.0)), window.late)


def _examples(expected: Truth, logs: Logs) -> Iterator[Row]:
    """Of each prediction the newest answer once, and no answer twice."""
    taken: dict[str, list[ExampleLabelled]] = defaultdict(list)
    for records in logs["labelled-examples"].values():
        seen = HighWater()
        for record in records:
            example = ExampleLabelled.model_validate_json(record.value or b"")
            if seen.admit(example.trigger, (example.prediction_id, example.label_revision)):
                taken[example.prediction_id].append(example)
    wrong = [
        f"{name}: answers {values}, examples {[(each.label_revision, each.label) for each in taken.get(name, [])]}"
        for name, values in sorted(expected.answers.items())
        if not _answered(values, taken.get(name, []))
    ]
    wrong += [f"{name} has an example and no label" for name in taken.keys() - expected.answers.keys()]
    yield Row("predictions with an example", len(expected.answers), len(taken), tuple(wrong[:5]))
    final = sum(1 for name, values in expected.answers.items() if _revisions(taken[name]).count(len(values) - 1) == 1)
    yield Row("newest answers, each once", len(expected.answers), final)


def _revisions(examples: Sequence[ExampleLabelled]) -> list[int]:
    return [each.label_revision for each in examples]


def _answered(values: Sequence[int], examples: Sequence[ExampleLabelled]) -> bool:
    """An earlier answer may have been corrected before there was an example; the newest may not be missing."""
    revisions = _revisions(examples)
    ordered = revisions == sorted(set(revisions)) and revisions[-1:] == [len(values) - 1]
    return ordered and all(each.label == values[each.label_revision] for each in examples)


def _total(by_partition: Mapping[int, Sequence[object]]) -> int:
    return sum(len(each) for each in by_partition.values())
