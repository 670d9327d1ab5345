"""The role `gateway`: predictions and labels over HTTP, for producers who do not speak Kafka.

A request is one event, `{"events": [...]}`, or CloudEvents in structured mode. It is answered with 202 and the count once
the broker has acknowledged every event. The shape of each event is checked here, so that a producer hears of a mistake at
once; what a model's spec says about it is `validate`'s business, and its refusals stand in the dead letters. When some
events are not valid, none is taken (422); with `?partial=true` the valid ones are, and the answer is 207 with the others.

There are these two routes and nothing else. Every error is `{"error": "one sentence"}`: 408 for a body that does not come
to its end in time, 413 for one over the limit (it is not read to its end), 415 for another media type or a compressed
body, 422 with a list of the events that are wrong; 429 when this client, or all together, wait for too much already; 503
when the broker does not answer. The last two have Retry-After.

In memory are at most `max_buffered_bytes` of bodies that are being read or published, what is parsed of them, and
`max_pending_events` events on their way to the broker.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn, Protocol

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from tailrace_contracts.cloudevents import attributes
from tailrace_contracts.events import LabelGiven, PredictionMade
from tailrace_ingestion.domain.intake import JSON, KINDS, LABEL, PREDICTION, BodyRefused, Intake, Kind, parse
from tailrace_ingestion.settings import IngestionSettings
from tailrace_runtime.errors import DeliveryFailed, DeliveryRefused
from tailrace_runtime.ids import new_id
from tailrace_runtime.records import SOURCE, Outgoing
from tailrace_runtime.tracing import trace_headers

PublicEvent = type[PredictionMade] | type[LabelGiven]
_KINDS: Mapping[PublicEvent, Kind] = {PredictionMade: PREDICTION, LabelGiven: LABEL}
_CLOSE = {"connection": "close"}
_AWAY_SECONDS = 5


class Safe(Protocol):
    """Whatever publishes records and returns once they are safe."""

    async def publish(self, records: Sequence[Outgoing]) -> None:
        """Publish all of them. Raises DeliveryFailed and DeliveryRefused."""
        ...


class Gateway:
    """Takes requests in and publishes their events; counts what waits, by client and in all."""

    def __init__(self, publisher: Safe, settings: IngestionSettings) -> None:
        self._publisher = publisher
        self._settings = settings
        self.buffered_bytes = 0
        self._pending: Counter[str] = Counter()
        self._broker_away = False

    @property
    def pending(self) -> int:
        """Events that wait for the broker."""
        return sum(self._pending.values())

    async def take(self, request: Request, kind: Kind, topic: str) -> JSONResponse:
        """One request, from its body to its answer."""
        partial = _wants_part(request)
        media_type = _media_type(request)
        client = request.client.host if request.client else ""
        self._admit(client, 1)
        body = bytearray()
        try:
            await self._read(request, body)
            intake = parse(bytes(body), media_type, kind, self._settings.max_events)
            if intake.errors and not (partial and intake.taken):
                raise InvalidEvents(intake)
            with self._waiting(client, len(intake.taken)):
                await self._publish(list(_records(intake, kind, topic)))
        except BodyRefused as error:
            raise HTTPException(413 if error.too_many else 422, str(error)) from None
        finally:
            self.buffered_bytes -= len(body)
        return _answer(intake)

    async def _read(self, request: Request, body: bytearray) -> None:
        """The body, unless it is too large, too slow, or too much at a time; that is told as soon as it is known."""
        limit = self._settings.max_body_bytes
        announced = request.headers.get("content-length", "0")
        if announced.isdigit() and int(announced) > limit:
            _too_large(limit)
        try:
            async with asyncio.timeout(self._settings.body_seconds):
                async for chunk in request.stream():
                    self.buffered_bytes += len(chunk)
                    body += chunk
                    if len(body) > limit:
                        _too_large(limit)
                    if self.buffered_bytes > self._settings.max_buffered_bytes:
                        _busy("the gateway holds as many bytes of other requests as it may")
        except TimeoutError:
            seconds = self._settings.body_seconds
            raise HTTPException(408, f"the body did not come to its end within {seconds:g} s", _CLOSE) from None
        except ClientDisconnect:
            raise HTTPException(400, "the client went away before the end of its body") from None

    def _admit(self, client: str, events: int) -> None:
        """Whether so many more events may wait. Asked before a body is read, too: refusing should cost little."""
        settings, others, mine = self._settings, self.pending, self._pending[client]
        if others and others + events > settings.max_pending_events:
            if self._broker_away:
                _away()
            _busy(f"{others} events wait for the broker already")
        if mine and mine + events > settings.max_pending_events_per_client:
            _busy(f"{mine} events of this client wait for the broker already")

    @contextmanager
    def _waiting(self, client: str, events: int) -> Iterator[None]:
        """So many more events wait for the broker, if they may."""
        self._admit(client, events)
        self._pending[client] += events
        try:
            yield
        finally:
            self._pending[client] -= events
            if self._pending[client] <= 0:
                del self._pending[client]

    async def _publish(self, records: Sequence[Outgoing]) -> None:
        try:
            async with asyncio.timeout(self._settings.acknowledge_seconds):
                await self._publisher.publish(records)
        except (TimeoutError, DeliveryFailed):
            self._broker_away = True
            _away()
        except DeliveryRefused as error:
            raise HTTPException(413, str(error)) from error
        self._broker_away = False


class InvalidEvents(Exception):  # noqa: N818  # it says what was found
    """Some events of a request are not valid; none was taken."""

    def __init__(self, intake: Intake) -> None:
        super().__init__(
            f"{len(intake.errors)} of {intake.events} events are not valid, so none was accepted; see errors"
        )
        self.errors = intake.errors


def create_api(publisher: Safe, settings: IngestionSettings, routes: Mapping[str, tuple[PublicEvent, str]]) -> FastAPI:
    """The application: for each path, the event that it takes and the topic that it goes to."""
    app = FastAPI(title="Tailrace ingestion", version="1", docs_url=None, redoc_url=None, openapi_url=None)
    app.state.gateway = gateway = Gateway(publisher, settings)
    for path, (event, topic) in routes.items():
        app.add_route(path, _route(gateway, _KINDS[event], topic), methods=["POST"])
    app.add_exception_handler(HTTPException, _refused)
    app.add_exception_handler(InvalidEvents, _invalid)
    return app


def _route(gateway: Gateway, kind: Kind, topic: str) -> Callable[[Request], Any]:
    async def take(request: Request) -> JSONResponse:
        return await gateway.take(request, kind, topic)

    return take


def _media_type(request: Request) -> str:
    found = request.headers.get("content-type", JSON).partition(";")[0].strip().lower()
    if found not in KINDS:
        raise HTTPException(415, f"content-type is {found}, expected {JSON}", _CLOSE)
    coding = request.headers.get("content-encoding", "identity").strip().lower()
    if coding != "identity":
        raise HTTPException(415, f"content-encoding is {coding}, expected a body that is not compressed", _CLOSE)
    return found


def _wants_part(request: Request) -> bool:
    found = request.query_params.get("partial", "false").lower()
    if found not in {"true", "false"}:
        raise HTTPException(422, f"partial is {found!r}, expected true or false", _CLOSE)
    return found == "true"


def _records(intake: Intake, kind: Kind, topic: str) -> Iterator[Outgoing]:
    name, source, trace = kind.contract.type_name(), SOURCE.get(), trace_headers()
    for key, moment, value in intake.taken:
        headers = attributes(name, event_id=new_id(), source=source, now=moment)
        yield Outgoing(topic, value, key.encode(), headers=(*headers, *trace))


def _answer(intake: Intake) -> JSONResponse:
    accepted = {"accepted": len(intake.taken)}
    if not intake.errors:
        return JSONResponse(accepted, 202)
    return JSONResponse(accepted | {"refused": len(intake.errors), "errors": intake.errors}, 207)


def _too_large(limit: int) -> NoReturn:
    raise HTTPException(413, f"the body is over the limit of {limit} bytes; send the events in parts", _CLOSE)


def _busy(sentence: str) -> NoReturn:
    raise HTTPException(429, f"{sentence}; send this request again", {"retry-after": "1"})


def _away() -> NoReturn:
    sentence = "the broker did not acknowledge in time; send this request again (repeated ids do no harm)"
    raise HTTPException(503, sentence, {"retry-after": str(_AWAY_SECONDS)})


async def _refused(_: Request, error: Exception) -> JSONResponse:
    status = error.status_code if isinstance(error, HTTPException) else 500
    detail = str(error.detail) if isinstance(error, HTTPException) else str(error)
    if detail in {"Not Found", "Method Not Allowed"}:
        detail = f"{detail.lower()}: ingestion takes POST /v1/predictions and POST /v1/labels"
    headers = error.headers if isinstance(error, HTTPException) else None
    return JSONResponse({"error": detail}, status_code=status, headers=headers)


async def _invalid(_: Request, error: Exception) -> JSONResponse:
    errors = error.errors if isinstance(error, InvalidEvents) else []
    return JSONResponse({"error": str(error), "errors": errors}, status_code=422)
