"""Bytes become events: each prediction by its model's own decoder, structured CloudEvents unwrapped, the rest refused."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

import msgspec

from tailrace_contracts import cloudevents
from tailrace_ingestion.domain import diagnosis, wire
from tailrace_ingestion.domain.batch import Arrivals, Batch, E
from tailrace_ingestion.domain.model import Model
from tailrace_ingestion.domain.reasons import Reason, Rejection

Decode = Callable[[bytes], E]
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError)
_LOOK_EVERY = 50
_MODEL = b'"model"'


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
