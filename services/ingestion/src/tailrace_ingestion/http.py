"""The role `gateway`: predictions and labels over HTTP, for producers who do not speak Kafka.

A request is one event or `{"events": [...]}`. It is taken whole or not at all: 202 with the count once the broker has
acknowledged every event. The shape of each event is checked here, so that a producer hears of a mistake at once; what a
model's spec says about it is `validate`'s business, and its refusals stand in the dead letters.

There are these two routes and nothing else. Every error is `{"error": "one sentence"}`: 413 for a body over the limit
(it is not read to its end), 415 for another media type, 422 with a list of the events that are wrong, 503 with
Retry-After when the broker does not answer or too many events wait for it already.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import pydantic_core
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from pydantic import ValidationError
from starlette.exceptions import HTTPException

from tailrace_contracts.events import LabelGiven, PredictionMade
from tailrace_ingestion.settings import IngestionSettings
from tailrace_runtime.errors import DeliveryFailed, DeliveryRefused
from tailrace_runtime.producer import Publisher
from tailrace_runtime.records import Outgoing, outgoing

PublicEvent = type[PredictionMade] | type[LabelGiven]
_JSON = ("application/json", "application/cloudevents+json")


class Gateway:
    """Takes requests in and publishes their events."""

    def __init__(self, publisher: Publisher, settings: IngestionSettings) -> None:
        self._publisher = publisher
        self._settings = settings
        self._pending = 0

    async def take(self, request: Request, event: PublicEvent, topic: str) -> JSONResponse:
        """One request, from its body to its answer."""
        records = self._parsed(await self._body(request), event, topic)
        if self._pending + len(records) > self._settings.max_pending_events:
            _later(f"{self._pending} events wait for the broker already; send this request again")
        self._pending += len(records)
        try:
            async with asyncio.timeout(self._settings.acknowledge_seconds):
                await self._publisher.send_all(records)
        except (TimeoutError, DeliveryFailed):
            _later("the broker did not acknowledge in time; send this request again (repeated ids do no harm)")
        except DeliveryRefused as error:
            raise HTTPException(413, str(error)) from error
        finally:
            self._pending -= len(records)
        return JSONResponse({"accepted": len(records)}, status_code=202)

    async def _body(self, request: Request) -> bytes:
        """The body, unless it is of another kind or too large; that is told as soon as it is known."""
        kind = request.headers.get("content-type", _JSON[0]).partition(";")[0].strip().lower()
        if kind not in _JSON:
            raise HTTPException(415, f"content-type is {kind}, expected {_JSON[0]}")
        limit, body = self._settings.max_body_bytes, bytearray()
        announced = request.headers.get("content-length", "0")
        if announced.isdigit() and int(announced) > limit:
            _too_large(limit)
        async for chunk in request.stream():
            body += chunk
            if len(body) > limit:
                _too_large(limit)
        return bytes(body)

    def _parsed(self, body: bytes, event: PublicEvent, topic: str) -> list[Outgoing]:
        documents = _documents(body, self._settings.max_events)
        records: list[Outgoing] = []
        errors: list[dict[str, Any]] = []
        for index, document in enumerate(documents):
            try:
                found = event.model_validate(document)
            except ValidationError as error:
                errors.append({"index": index, **_problem(error)})
            else:
                records.append(outgoing(found, topic, found.prediction_id))
        if errors:
            raise InvalidEvents(len(documents), errors)
        return records


class InvalidEvents(Exception):  # noqa: N818  # it says what was found
    """Some events of a request are not valid; none was taken."""

    def __init__(self, events: int, errors: Sequence[Mapping[str, Any]]) -> None:
        super().__init__(f"{len(errors)} of {events} events are not valid, so none was accepted; see errors")
        self.errors = list(errors)


def create_api(
    publisher: Publisher, settings: IngestionSettings, routes: Mapping[str, tuple[PublicEvent, str]]
) -> FastAPI:
    """The application: for each path, the event that it takes and the topic that it goes to."""
    app = FastAPI(title="Tailrace ingestion", version="1", docs_url=None, redoc_url=None, openapi_url=None)
    gateway = Gateway(publisher, settings)
    for path, (event, topic) in routes.items():
        app.add_api_route(path, _route(gateway, event, topic), methods=["POST"], status_code=202)
    app.add_exception_handler(HTTPException, _refused)
    app.add_exception_handler(InvalidEvents, _invalid)
    return app


def _route(gateway: Gateway, event: PublicEvent, topic: str) -> Any:
    async def take(request: Request) -> JSONResponse:
        return await gateway.take(request, event, topic)

    return take


def _documents(body: bytes, max_events: int) -> list[Any]:
    """The events of a body, as parsed JSON."""
    try:
        document = pydantic_core.from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise HTTPException(422, f"the body is not JSON ({error}); NaN and Infinity are not JSON either") from None
    events = document.get("events", [document]) if isinstance(document, dict) else None
    if not isinstance(events, list):
        raise HTTPException(422, 'the body is neither an event nor {"events": [...]}, expected one of them')
    if not events:
        raise HTTPException(422, "events is empty, expected at least one event")
    if len(events) > max_events:
        raise HTTPException(
            413, f"the request has {len(events)} events, expected at most {max_events}; send it in parts"
        )
    return events


def _problem(error: ValidationError) -> dict[str, str]:
    """The first thing that is wrong with an event: the field and a sentence."""
    first = error.errors(include_url=False)[0]
    field = ".".join(str(part) for part in first["loc"]) or "event"
    what = first["msg"][:1].lower() + first["msg"][1:]
    shown = repr(first["input"])
    found = "" if first["type"] == "missing" else f", found {shown if len(shown) <= 80 else shown[:80] + '…'}"
    return {"field": field, "error": f"{field}: {what}{found}"}


def _too_large(limit: int) -> None:
    raise HTTPException(413, f"the body is over the limit of {limit} bytes; send the events in parts")


def _later(sentence: str) -> None:
    raise HTTPException(503, sentence, headers={"retry-after": "1"})


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
