"""One batch of one log through all checks: parse, spec, classes, event time. Pure: what is unknown is handed in.

Each event meets one fate: forwarded (as it came, or rewritten) or refused with a reason. The statistics rows of the
batch go to the log's book on the way. The order of events matters to the event time alone: under `clock: stream` each
valid event moves the watermark that the next one is compared with.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import msgspec
import numpy as np

from tailrace_contracts import cloudevents
from tailrace_contracts.spec import ClassLabel, Label
from tailrace_ingestion.domain import diagnosis, wire
from tailrace_ingestion.domain.checks import (
    Change,
    Checked,
    Column,
    CompiledSpec,
    Floats,
    Integers,
    Mask,
    NumberColumn,
    WordColumn,
    coded,
    rewritten,
)
from tailrace_ingestion.domain.event_time import TimeRule
from tailrace_ingestion.domain.folding import Rows, Shape, SourceBook, taken
from tailrace_ingestion.domain.parts import arm_word
from tailrace_ingestion.domain.reasons import Reason, Rejection

VALUE_REASONS = frozenset({Reason.OUT_OF_LIMITS, Reason.UNSEEN_CATEGORY, Reason.MISSING_VALUE})
"""Refusals that are counted in their window: data quality is about these."""

E = TypeVar("E", wire.Prediction, wire.Label)
Decode = Callable[[bytes], E]
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError)
_SHADOWS = attrgetter("shadows")
_LOOK_EVERY = 50
_MODEL = b'"model"'


class Arrivals(Protocol):
    """Records of one log as the checks see them, column by column."""

    offsets: list[int]
    timestamps_ms: list[int]
    keys: list[bytes | None]
    values: list[bytes | None]


@dataclass(slots=True)
class Batch(Generic[E]):
    """Records of one log on their way through the checks. Positions are those of `arrivals`."""

    arrivals: Arrivals
    events: list[E | None] = field(default_factory=list)
    unknown: dict[int, str] = field(default_factory=dict)
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

    def original(self, position: int) -> bytes:
        """The event as it came, unwrapped."""
        return self.replaced.get(position, self.arrivals.values[position] or b"")

    def value(self, position: int) -> bytes:
        """What is forwarded: the original bytes, unless something had to change."""
        change = self.changed.get(position)
        original = self.original(position)
        return original if change is None else rewritten(original, change)


class Model(NamedTuple):
    """Everything that the checks know about one model."""

    compiled: CompiledSpec
    rule: TimeRule
    shape: Shape


# ---------------------------------------------------------------- parsing


def parse_predictions(arrivals: Arrivals, models: Mapping[str, Model]) -> Batch[wire.Prediction]:
    """Decode prediction events, each with its model's decoder; refuse what is none.

    A log mostly holds one model, so the first event's decoder is tried on all; when another model turns up, each
    event's model is looked for in its bytes first. Events of models that are not among these are left in `unknown`.
    """
    batch: Batch[wire.Prediction] = Batch(arrivals)
    decoders = {name.encode(): model.compiled.decode for name, model in models.items()}
    decode = decoders.get(_peeked(arrivals.values[0] or b""))
    append, rest = batch.events.append, iter(arrivals.values)
    while len(batch.events) < len(arrivals.values):
        try:
            if decode is not None:
                for value in rest:
                    append(decode(value or b""))
            else:
                for value in rest:
                    append(decoders[_peeked(value or b"")](value or b""))
        except (*_UNREADABLE, KeyError):
            at = len(batch.events)
            append(event := _closely(batch, at, models))
            if event is not None and event.model in models:
                peeked = _peeked(batch.original(at)) in decoders
                decode = None if peeked else models[event.model].compiled.decode
    _check_envelopes(batch)
    return batch


def parse_unknown(batch: Batch[wire.Prediction], models: Mapping[str, Model]) -> None:
    """Try the events of unknown models again; refuse those that still are."""
    waiting, batch.unknown = batch.unknown, {}
    for position in waiting:
        if position not in batch.refused:
            batch.events[position] = _closely(batch, position, models)
    for position, name in batch.unknown.items():
        refuse_unknown(batch, [position], name)


def models_in(arrivals: Arrivals) -> set[str]:
    """The models of a batch, by a look at some of its events: the others turn up in `parse_predictions`."""
    some = {_peeked(value): value for value in arrivals.values[::_LOOK_EVERY] if value}
    found = set()
    for value in some.values():
        with suppress(*_UNREADABLE):
            found.add(wire.decode_prediction(value).model)
    return found


def _peeked(value: bytes) -> bytes:
    """The name of the model, most probably: whoever writes JSON otherwise is looked at closely."""
    start = value.find(b'"', value.find(_MODEL) + len(_MODEL)) + 1
    return value[start : value.find(b'"', start)]


def _closely(batch: Batch[wire.Prediction], position: int, models: Mapping[str, Model]) -> wire.Prediction | None:
    """One event that the fast way did not take: of another model, unknown, wrapped, or wrong."""
    try:
        event = wire.decode_prediction(batch.original(position))
    except _UNREADABLE as error:
        second = _second_try(batch, position, wire.decode_prediction, "prediction-made", str(error))
        if second is None:
            return None
        event = second
    model = models.get(event.model)
    if model is None:
        batch.unknown[position] = event.model
        return event
    try:
        return model.compiled.decode(batch.original(position))
    except _UNREADABLE as error:
        wrong = diagnosis.of_features(bytes(event.features), model.compiled.spec, str(error))
        batch.refused[position] = _wrong_key(batch, position, event) or wrong
        return None


def parse_labels(arrivals: Arrivals) -> Batch[wire.Label]:
    """Decode label events; those that are none are refused."""
    batch: Batch[wire.Label] = Batch(arrivals)
    for position, value in enumerate(arrivals.values):
        try:
            batch.events.append(wire.decode_label(value or b""))
        except _UNREADABLE as error:
            batch.events.append(_second_try(batch, position, wire.decode_label, "label-given", str(error)))
    _check_envelopes(batch)
    return batch


def _second_try(batch: Batch[E], position: int, decode: Decode[E], expected: str, problem: str) -> E | None:
    """A structured CloudEvent is unwrapped; anything else is refused with a diagnosis."""
    value = batch.arrivals.values[position]
    try:
        inner = cloudevents.unwrap(value or b"")
    except (ValueError, RecursionError):
        batch.refused[position] = diagnosis.of_value(value, expected, problem)
        return None
    try:
        event = decode(inner)
    except _UNREADABLE as error:
        batch.refused[position] = diagnosis.of_value(inner, expected, str(error))
        return None
    batch.replaced[position] = inner
    return event


def _check_envelopes(batch: Batch[E]) -> None:
    """A producer may leave `type` out, but not the key: without it, label and prediction lie on different logs."""
    events = [event for event in batch.events if event is not None]
    if len(events) == len(batch.events):
        typed = msgspec.UNSET not in {event.type for event in events}
        if typed and [event.prediction_id.encode() for event in events] == batch.arrivals.keys:
            return
    for position, event in enumerate(batch.events):
        if event is None:
            continue
        if event.type is msgspec.UNSET:
            batch.changed[position] = {}
        if wrong := _wrong_key(batch, position, event):
            batch.refused[position] = wrong


def _wrong_key(batch: Batch[E], position: int, event: E) -> Rejection | None:
    key = batch.arrivals.keys[position]
    if key == event.prediction_id.encode():
        return None
    found = "none" if key is None else diagnosis.shown(key.decode("utf-8", "replace"))
    sentence = (
        f"the record's key is {found}, expected the prediction_id {diagnosis.shown(event.prediction_id)}; "
        "publish both predictions and labels under it, so that they meet"
    )
    return Rejection(Reason.WRONG_KEY, sentence, event.model)


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
    moments = np.array([event.time.timestamp() for event in events])
    arrived = np.array([batch.arrivals.timestamps_ms[at] for at in positions]) / 1000
    judged = _judged(moments, arrived, checked, model, book)
    batch.late += judged.late
    batch.refused.update({positions[at]: why for at, why in checked.rejected.items()})
    if judged.counted.any():
        rows = np.flatnonzero(judged.counted)
        counted = events if len(rows) == len(events) else [events[at] for at in rows.tolist()]
        offsets = np.array([batch.arrivals.offsets[at] for at in positions], dtype=np.int64)
        places = offsets[rows], judged.windows[rows], judged.valid[rows]
        book.add(Rows(model.shape, *places, *_served(counted, checked.columns, rows, model.compiled.spec.label)))
        if any(map(_SHADOWS, counted)):
            book.add(_shadows(model.shape, counted, *places))


class _Judged(NamedTuple):
    """Which events are counted in which window, which of them are valid, and how many valid ones are late."""

    counted: Mask
    windows: Floats
    valid: Mask
    late: int


def _judged(moments: Floats, arrived: Floats, checked: Checked, model: Model, book: SourceBook) -> _Judged:
    """Believe each event's time or refuse it; count it in its window unless that is closed. Moves the watermark on."""
    rule, shape, name = model.rule, model.shape, model.shape.spec.model
    judged, valid = np.ones(len(moments), np.bool_), np.ones(len(moments), np.bool_)
    for at, refused in checked.rejected.items():
        valid[at] = False
        judged[at] = refused.code in VALUE_REASONS
    newest = book.newest.get(name, -np.inf)
    if rule.follows_stream:
        believed = _believed_in_order(moments, newest, judged, valid, rule)
        reference = _watermarks(newest, moments, valid & believed)[:-1]
    else:
        believed, reference = np.asarray(rule.believes(moments, arrived), np.bool_), arrived
    for at in np.flatnonzero(judged & ~believed).tolist():
        checked.rejected.setdefault(at, rule.refusal(float(moments[at]), float(reference[at]), name))
    valid &= believed
    after = _watermarks(newest, moments, valid)[1:]
    if after[-1] > -np.inf:
        book.newest[name] = float(after[-1])
    windows = moments // shape.width * shape.width
    late = judged & believed & (windows + shape.width + shape.lateness <= after)
    return _Judged(judged & believed & ~late, windows, valid, int(np.count_nonzero(late & valid)))


def _watermarks(newest: float, moments: Floats, moving: Mask) -> Floats:
    """The newest event time before the first event and after each; only those that are `moving` it count."""
    marks: Floats = np.maximum.accumulate(np.concatenate(([newest], np.where(moving, moments, -np.inf))))
    return marks


def _believed_in_order(moments: Floats, newest: float, judged: Mask, valid: Mask, rule: TimeRule) -> Mask:
    """What the stream's own clock believes: each valid event moves the watermark that the next is compared with.

    When all are believed, one pass over the running maximum says so. Otherwise what is refused changes what the others
    are compared with, and they are taken one by one.
    """
    before = _watermarks(newest, moments, valid)[:-1]
    believed: Mask = rule.believes(moments, before) | np.isneginf(before)
    if (believed | ~judged).all():
        return believed
    for at in np.flatnonzero(judged).tolist():
        believed[at] = newest == -np.inf or bool(rule.believes(moments[at], newest))
        if believed[at] and valid[at]:
            newest = max(newest, float(moments[at]))
    return believed


def _served(
    events: Sequence[wire.Prediction], features: dict[str, Column], rows: Integers, label: Label
) -> tuple[WordColumn, dict[str, Column]]:
    """Who answered, and the columns: the served output beside the features."""
    answers = [event.served for event in events]
    outputs = _outputs(answers, label) | {"latency_ms": _numbers([event.latency_ms for event in events])}
    if len(rows) == len(next(iter(features.values())).missing):
        return _arms(answers), outputs | features
    return _arms(answers), outputs | {name: taken(column, rows) for name, column in features.items()}


def _shadows(shape: Shape, events: Sequence[wire.Prediction], offsets: Integers, windows: Floats, valid: Mask) -> Rows:
    """What shadows answered, a row for each answer."""
    rows = np.array([row for row, event in enumerate(events) for _ in event.shadows], dtype=np.int64)
    answers = [answer for event in events for answer in event.shadows]
    outputs = _outputs(answers, shape.spec.label)
    return Rows(shape, offsets[rows], windows[rows], valid[rows], _arms(answers), outputs, of_shadows=True)


def _arms(answers: Sequence[wire.Output | None]) -> WordColumn:
    """Who answered, as `champion/3`."""
    named = {each: arm_word(*each) for each in {(out.arm, out.version) for out in answers if out is not None}}
    if len(named) == 1 and all(answers):
        none = np.zeros(len(answers), np.bool_)
        return WordColumn(np.zeros(len(answers), np.int64), [*named.values()], 0, none, none)
    return coded([None if out is None else named[out.arm, out.version] for out in answers], ())


def _outputs(answers: Sequence[wire.Output | None], label: Label) -> dict[str, Column]:
    """Answers as columns: classes are words, a regression's predictions are numbers.

    Under `probability_if_positive` and `..._negative` stand the probabilities of those that said so.
    """
    predicted: list[Any] = [None if output is None else output.prediction for output in answers]
    probability = _numbers([None if output is None else output.probability for output in answers])
    if not isinstance(label, ClassLabel):
        return {"prediction": _numbers(predicted), "probability": probability}
    prediction = coded(predicted, label.classes)
    positive = prediction.codes == label.classes.index(label.positive)
    return {
        "prediction": prediction,
        "probability": probability,
        "probability_if_positive": _where(positive, probability),
        "probability_if_negative": _where(~positive, probability),
    }


def _where(mask: Mask, column: NumberColumn) -> NumberColumn:
    """The values of some rows; those of the others are not missing, they are none of its business."""
    nothing = np.zeros(len(mask), np.bool_)
    return NumberColumn(np.where(mask, column.values, np.nan), nothing, nothing)


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
        moment, arrived = label.time.timestamp(), batch.arrivals.timestamps_ms[at] / 1000
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
