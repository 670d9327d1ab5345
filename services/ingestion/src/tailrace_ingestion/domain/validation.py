"""One batch of one log through all checks: parse, spec, classes, event time. Pure: what is unknown is handed in.

Each event meets one fate: forwarded (as it came, or rewritten) or refused with a reason. The statistics rows of the
batch go to the log's book on the way. The order of events matters to the event time alone: under `clock: stream` each
valid event moves the watermark that the next one is compared with.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, Protocol, TypeVar

import msgspec
import numpy as np

from tailrace_contracts import cloudevents
from tailrace_ingestion.domain import diagnosis, wire
from tailrace_ingestion.domain.checks import (
    Change,
    Checked,
    Column,
    CompiledSpec,
    NumberColumn,
    WordColumn,
    rewritten,
)
from tailrace_ingestion.domain.event_time import TimeRule
from tailrace_ingestion.domain.folding import Rows, Shape, SourceBook
from tailrace_ingestion.domain.reasons import Reason, Rejection

VALUE_REASONS = frozenset({Reason.OUT_OF_LIMITS, Reason.UNSEEN_CATEGORY, Reason.MISSING_VALUE})
"""Refusals that are counted in their window: data quality is about these."""

E = TypeVar("E", wire.Prediction, wire.Label)
Decode = Callable[[bytes], E]


class Arrival(Protocol):
    """A record as the checks see it."""

    @property
    def offset(self) -> int:
        """Its place in the log."""
        ...

    @property
    def timestamp_ms(self) -> int:
        """When the broker received it."""
        ...

    @property
    def key(self) -> bytes | None:
        """Its key."""
        ...

    @property
    def value(self) -> bytes | None:
        """Its value."""
        ...


@dataclass(slots=True)
class Batch(Generic[E]):
    """Records of one log on their way through the checks. Positions are those of `arrivals`."""

    arrivals: Sequence[Arrival]
    events: list[E | None] = field(default_factory=list)
    refused: dict[int, Rejection] = field(default_factory=dict)
    replaced: dict[int, bytes] = field(default_factory=dict)
    changed: dict[int, Change] = field(default_factory=dict)
    late: int = 0

    def by_model(self) -> dict[str, list[int]]:
        """The positions of each model's events."""
        models: dict[str, list[int]] = {}
        for position, event in enumerate(self.events):
            if event is not None and position not in self.refused:
                models.setdefault(event.model, []).append(position)
        return models

    def value(self, position: int) -> bytes:
        """What is forwarded: the original bytes, unless something had to change."""
        if not self.replaced and not self.changed:
            return self.arrivals[position].value or b""
        original = self.replaced.get(position, self.arrivals[position].value or b"")
        change = self.changed.get(position)
        return original if change is None else rewritten(original, change)


class Model(NamedTuple):
    """Everything that the checks know about one model."""

    compiled: CompiledSpec
    rule: TimeRule
    shape: Shape


# ---------------------------------------------------------------- parsing


def parse_predictions(arrivals: Sequence[Arrival]) -> Batch[wire.Prediction]:
    """Decode prediction events; those that are none are refused."""
    return _parsed(Batch(arrivals), wire.decode_prediction, "prediction-made")


def parse_labels(arrivals: Sequence[Arrival]) -> Batch[wire.Label]:
    """Decode label events; those that are none are refused."""
    return _parsed(Batch(arrivals), wire.decode_label, "label-given")


def _parsed(batch: Batch[E], decode: Decode[E], expected: str) -> Batch[E]:
    for position, arrival in enumerate(batch.arrivals):
        try:
            batch.events.append(decode(arrival.value or b""))
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            batch.events.append(_second_try(batch, position, decode, expected, str(error)))
    _check_envelopes(batch)
    return batch


def _second_try(batch: Batch[E], position: int, decode: Decode[E], expected: str, problem: str) -> E | None:
    """A structured CloudEvent is unwrapped; anything else is refused with a diagnosis."""
    value = batch.arrivals[position].value
    try:
        inner = cloudevents.unwrap(value or b"")
    except (ValueError, RecursionError):
        batch.refused[position] = diagnosis.of_value(value, expected, problem)
        return None
    try:
        event = decode(inner)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        batch.refused[position] = diagnosis.of_value(inner, expected, str(error))
        return None
    batch.replaced[position] = inner
    return event


def _check_envelopes(batch: Batch[E]) -> None:
    """A producer may leave `type` out, but not the key: without it, label and prediction lie on different logs."""
    for position, event in enumerate(batch.events):
        if event is None:
            continue
        if event.type is msgspec.UNSET:
            batch.changed[position] = {}
        key = batch.arrivals[position].key
        if key != event.prediction_id.encode():
            found = "none" if key is None else diagnosis.shown(key.decode("utf-8", "replace"))
            sentence = (
                f"the record's key is {found}, expected the prediction_id {diagnosis.shown(event.prediction_id)}; "
                "publish both predictions and labels under it, so that they meet"
            )
            batch.refused[position] = Rejection(Reason.WRONG_KEY, sentence, event.model)


def refuse_unknown(batch: Batch[E], positions: Sequence[int], model: str) -> None:
    """Refuse events of a model that has no spec."""
    sentence = f"model {model} is unknown, expected a model with a spec; apply its spec, then replay this record"
    for position in positions:
        batch.refused[position] = Rejection(Reason.UNKNOWN_MODEL, sentence, model)


# ---------------------------------------------------------------- predictions


def check_predictions(batch: Batch[wire.Prediction], positions: Sequence[int], model: Model, book: SourceBook) -> None:
    """Check the events of one model; what is to be counted goes to the book."""
    events = [event for at in positions if (event := batch.events[at]) is not None]
    checked = model.compiled.check(events)
    for at, change in checked.changed.items():
        if at not in checked.rejected:
            batch.changed.setdefault(positions[at], {}).update(change)
    times = _Times(batch, positions, model, book, checked)
    for at, event in enumerate(events):
        times.judge(at, event)
    times.close()
    batch.refused.update({positions[at]: why for at, why in checked.rejected.items()})
    if times.counted:
        places = {position: row for row, position in enumerate(checked.decoded)}
        rows = np.array([places[at] for at in times.counted], dtype=np.int64)
        columns = {name: _taken(column, rows) for name, column in checked.columns.items()}
        outputs = _outputs([events[at] for at in times.counted], classes=model.compiled.classes is not None)
        offsets = np.array([batch.arrivals[positions[at]].offset for at in times.counted], dtype=np.int64)
        valid = np.array(times.valid, dtype=np.bool_)
        book.add(Rows(model.shape, offsets, np.array(times.windows), valid, outputs | columns))


class _Times:
    """Judges the event times of one model in order of arrival, and says which events are counted in which window."""

    def __init__(
        self, batch: Batch[wire.Prediction], positions: Sequence[int], model: Model, book: SourceBook, checked: Checked
    ) -> None:
        self.counted: list[int] = []
        self.windows: list[float] = []
        self.valid: list[bool] = []
        self._batch, self._positions, self._book, self._rejected = batch, positions, book, checked.rejected
        self._rule, self._name = model.rule, model.shape.spec.model
        self._width, self._lateness = model.shape.width, model.shape.lateness
        self._newest = book.newest.get(self._name)

    def judge(self, at: int, event: wire.Prediction) -> None:
        """Believe this event's time or refuse it; count it in its window unless that is closed."""
        refused = self._rejected.get(at)
        if refused is not None and refused.code not in VALUE_REASONS:
            return
        moment, reference = event.time.timestamp(), self._newest
        if not self._rule.follows_stream:
            reference = self._batch.arrivals[self._positions[at]].timestamp_ms / 1000
        if reference is not None and not self._rule.believes(moment, reference):
            self._rejected.setdefault(at, self._rule.refusal(moment, reference, self._name))
            return
        if refused is None and (self._newest is None or moment > self._newest):
            self._newest = moment
        start = moment // self._width * self._width
        if self._newest is not None and start + self._width + self._lateness <= self._newest:
            self._batch.late += refused is None
            return
        self.counted.append(at)
        self.windows.append(start)
        self.valid.append(refused is None)

    def close(self) -> None:
        """Write the watermark down."""
        if self._newest is not None:
            self._book.newest[self._name] = self._newest


def _taken(column: Column, rows: np.ndarray[tuple[int], np.dtype[np.int64]]) -> Column:
    if len(rows) == len(column.missing):
        return column
    if isinstance(column, NumberColumn):
        return NumberColumn(column.values[rows], column.missing[rows], column.out_of_limits[rows])
    return WordColumn([column.values[at] for at in rows.tolist()], column.missing[rows], column.unseen[rows])


def _outputs(events: Sequence[wire.Prediction], *, classes: bool) -> dict[str, Column]:
    """The served output as columns beside the features."""
    served = [event.served for event in events]
    return {
        "prediction": _predictions(served, classes=classes),
        "probability": _numbers([None if output is None else output.probability for output in served]),
        "latency_ms": _numbers([event.latency_ms for event in events]),
    }


def _predictions(served: Sequence[wire.Output | None], *, classes: bool) -> Column:
    """Classes are words, the predictions of a regression are numbers."""
    if not classes:
        return _numbers([None if output is None else output.prediction for output in served])
    words = [None if output is None else str(output.prediction) for output in served]
    absent = np.fromiter((word is None for word in words), np.bool_, len(words))
    return WordColumn([*words], absent, np.zeros(len(words), dtype=np.bool_))


def _numbers(cells: Sequence[float | None]) -> NumberColumn:
    values = np.array(cells, dtype=np.float64)
    return NumberColumn(values, np.isnan(values), np.zeros(len(values), dtype=np.bool_))


# ---------------------------------------------------------------- labels


def check_labels(
    batch: Batch[wire.Label],
    positions: Sequence[int],
    model: Model,
    newest: dict[str, float],
) -> None:
    """Check the labels of one model. `newest` are the log's watermarks: labels may be far behind their predictions."""
    name, rule = model.shape.spec.model, model.rule
    reference = newest.get(name)
    for at in positions:
        label = batch.events[at]
        if label is None:
            continue
        moment, arrived = label.time.timestamp(), batch.arrivals[at].timestamp_ms / 1000
        against = reference if rule.follows_stream else arrived
        refused = model.compiled.check_label(label.label)
        if refused is None and against is not None and not rule.believes(moment, against):
            refused = rule.refusal(moment, against, name)
        if refused is not None:
            batch.refused[at] = refused
        else:
            reference = moment if reference is None else max(reference, moment)
    if reference is not None:
        newest[name] = reference
