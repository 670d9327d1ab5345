"""A request's body becomes events: which of them are valid, and what is wrong with the others.

A body is one event, `{"events": [...]}`, or CloudEvents in structured mode (one envelope, or an array of them). Each event
is decoded by msgspec, several times as fast as by the contracts' classes, and goes on byte for byte. Only what msgspec
refuses is looked at by the contracts: they explain it, or take it after all (`"1"` for a number) and write it anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NamedTuple, Protocol

import msgspec
import pydantic_core
from msgspec import UNSET, Raw, Struct, UnsetType
from pydantic import ValidationError

from tailrace_contracts.events import LabelGiven, PredictionMade
from tailrace_ingestion.domain.wire import Label, Prediction

JSON, ENVELOPE, ENVELOPES = "application/json", "application/cloudevents+json", "application/cloudevents-batch+json"
KINDS = frozenset({JSON, ENVELOPE, ENVELOPES})
"""The media types of a body."""

_SHOWN = 80
_EXPLAINED_SHADOWS = 20
_SCALARS = (str, int, float, bool, type(None))


class BodyRefused(Exception):  # noqa: N818  # named for what is true
    """The body as a whole cannot be taken. The message is one sentence for the person who sent it."""

    def __init__(self, sentence: str, *, too_many: bool = False) -> None:
        super().__init__(sentence)
        self.too_many = too_many


class Taken(NamedTuple):
    """A valid event: its key, its time in UTC and its JSON value."""

    key: str
    time: datetime
    value: bytes


@dataclass(slots=True)
class Intake:
    """What a body held: valid events in their order, and what is wrong with the others, by their index."""

    events: int
    taken: list[Taken] = field(default_factory=list)
    errors: list[dict[str, Any]] = field(default_factory=list)


class _PlainPrediction(Prediction, frozen=True):
    """`features` decoded, too: a list or an object among them is the producer's mistake."""

    features: dict[str, float | str | bool | None]  # type: ignore[assignment]  # narrower than Raw on purpose


class _Events(Struct):
    events: Raw | UnsetType = UNSET


class _Envelope(Struct):
    data: Raw


class _Decoded(Protocol):
    @property
    def prediction_id(self) -> str: ...
    @property
    def time(self) -> datetime: ...
    @property
    def type(self) -> str | UnsetType: ...


class Kind(NamedTuple):
    """One of the two public events: how it is decoded, and the contract that it keeps."""

    contract: type[PredictionMade | LabelGiven]
    decoder: msgspec.json.Decoder[Any]


PREDICTION = Kind(PredictionMade, msgspec.json.Decoder(_PlainPrediction))
LABEL = Kind(LabelGiven, msgspec.json.Decoder(Label))

_events = msgspec.json.Decoder(_Events).decode
_list = msgspec.json.Decoder(list[Raw]).decode
_envelope = msgspec.json.Decoder(_Envelope).decode
_envelopes = msgspec.json.Decoder(list[_Envelope]).decode


def parse(body: bytes, media_type: str, kind: Kind, max_events: int) -> Intake:
    """The events of a body.

    Raises:
        BodyRefused: it is no JSON, none of the shapes that are taken, empty, or holds too many events.
    """
    documents = _documents(body, media_type)
    if not documents:
        raise BodyRefused("events is empty, expected at least one event")
    if len(documents) > max_events:
        found = f"the request has {len(documents)} events, expected at most {max_events}; send it in parts"
        raise BodyRefused(found, too_many=True)
    intake = Intake(len(documents))
    for index, document in enumerate(documents):
        taken = _one(document, kind)
        if isinstance(taken, Taken):
            intake.taken.append(taken)
        else:
            intake.errors.append({"index": index, **taken})
    return intake


def _documents(body: bytes, media_type: str) -> list[bytes]:
    """The bytes of each event."""
    try:
        body.decode()
        if media_type == ENVELOPE:
            return [bytes(_envelope(body).data)]
        if media_type == ENVELOPES:
            return [bytes(each.data) for each in _envelopes(body)]
        events = _events(body).events
        return [body.strip()] if events is UNSET else [bytes(each) for each in _list(events)]
    except msgspec.ValidationError:
        expected = "CloudEvents with a data member" if media_type != JSON else 'an event nor {"events": [...]}'
        verb = "not" if media_type != JSON else "neither"
        raise BodyRefused(
            f"the body is {verb} {expected}, expected {'them' if verb == 'not' else 'one of them'}"
        ) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BodyRefused(f"the body is not JSON ({error}); NaN and Infinity are not JSON either") from None
    except RecursionError:
        raise BodyRefused("the body is nested too deeply, expected events of a few levels") from None


def _one(document: bytes, kind: Kind) -> Taken | dict[str, str]:
    """One event, or what is wrong with it: field and sentence."""
    try:
        event: _Decoded = kind.decoder.decode(document)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        return _second_look(document, kind.contract, str(error))
    except RecursionError:
        return {"field": "event", "error": "event: nested too deeply, expected an event of a few levels"}
    value = document if event.type is not UNSET else _with_type(document, kind.contract.type_name())
    return _taken(event, value)


def _taken(event: _Decoded, value: bytes) -> Taken | dict[str, str]:
    """A valid event, unless its time, such as the last hour of the year 9999 in the west, has none in UTC."""
    try:
        return Taken(event.prediction_id, event.time.astimezone(UTC), value)
    except OverflowError:
        return {"field": "time", "error": f"time: expected a moment of the years 1 to 9999 in UTC, found {event.time}"}


def _with_type(document: bytes, name: str) -> bytes:
    return b'{"type":"%s",' % name.encode() + document[1:]


def _second_look(document: bytes, contract: type[PredictionMade | LabelGiven], refusal: str) -> Taken | dict[str, str]:
    """What the contract says of an event that msgspec refuses. It may take it: then it is written anew."""
    try:
        plain = pydantic_core.from_json(document, allow_inf_nan=False)
        contract.model_validate(_shortened(plain))
    except ValidationError as error:
        return _problem(error)
    except ValueError as error:
        return {"field": "event", "error": f"event: {error}"}
    try:
        event = contract.model_validate(plain)
        return _taken(event, event.encode())
    except (ValidationError, pydantic_core.PydanticSerializationError):
        return {"field": "event", "error": f"event: {refusal[:1].lower() + refusal[1:]}"}


def _shortened(document: Any) -> Any:
    """The document with as much as an explanation needs: a mistake repeated a hundred thousand times is told once."""
    if not isinstance(document, Mapping):
        return document
    short = dict(document)
    features, shadows = short.get("features"), short.get("shadows")
    if isinstance(features, Mapping):
        wrong = ((name, value) for name, value in features.items() if not isinstance(value, _SCALARS))
        short["features"] = dict([first]) if (first := next(wrong, None)) is not None else {}
    if isinstance(shadows, list):
        short["shadows"] = shadows[:_EXPLAINED_SHADOWS]
    return short


def _problem(error: ValidationError) -> dict[str, str]:
    """The first thing that is wrong with an event: the field and a sentence."""
    first = error.errors(include_url=False)[0]
    place = first["loc"][:2] if first["loc"][:1] == ("features",) else first["loc"]
    where = ".".join(str(part) for part in place if part not in {"int", "float"}) or "event"
    what = first["msg"][:1].lower() + first["msg"][1:]
    if first["loc"][:1] == ("features",) and len(first["loc"]) > 1:
        what = "input should be a number, a text, true, false or null"
    shown = repr(first["input"])
    found = "" if first["type"] == "missing" else f", found {shown if len(shown) <= _SHOWN else shown[:_SHOWN] + '…'}"
    return {"field": where, "error": f"{where}: {what}{found}"}
