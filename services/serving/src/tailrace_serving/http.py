"""The HTTP front: decode, call, encode.

The two routes that carry traffic are plain ASGI: the body is read under its limit and decoded by a typed decoder, the
answer is encoded and sent, and the capture follows behind it. Everything else is small enough for ordinary routes.
Every refusal is `{"error": sentence}`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Generic, Protocol, TypeVar

import msgspec
from starlette.applications import Starlette
from starlette.middleware.errors import ServerErrorMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from tailrace_serving import bodies, handlers
from tailrace_serving.bodies import Body, WentAway
from tailrace_serving.capture import Capture
from tailrace_serving.deadline import Deadline
from tailrace_serving.domain import binary, oip, rowform
from tailrace_serving.domain.arms import ArmAnswer, Arms, Member, Table
from tailrace_serving.domain.binary import Wire
from tailrace_serving.domain.features import FeatureRules
from tailrace_serving.domain.nesting import check_depth
from tailrace_serving.domain.question import Question
from tailrace_serving.domain.refusal import Kind, Refused, brief
from tailrace_serving.handlers import Desk
from tailrace_serving.openapi import VERSION, document

STATUS: dict[Kind, int] = {
    "malformed": 400,
    "unknown": 404,
    "too-slow": 408,
    "too-large": 413,
    "unsupported": 415,
    "unacceptable": 422,
    "busy": 429,
    "unavailable": 503,
}

_ENCODE = msgspec.json.Encoder().encode
_JSON = (b"content-type", b"application/json")
RequestT = TypeVar("RequestT")
AskedT_contra = TypeVar("AskedT_contra", contravariant=True)


_BINARY = (b"content-type", b"application/octet-stream")
_MOST_SHOWN = 200
_RETRY = (b"retry-after", b"1")
_CLOSE = (b"connection", b"close")


class Form(Protocol[AskedT_contra]):
    """A form of asking: its module's two functions."""

    def question(self, request: AskedT_contra, rules: FeatureRules, max_rows: int) -> Question:
        """The question in a request."""
        ...

    def response(
        self, request: AskedT_contra, arms: Arms, served: Member, answers: Sequence[ArmAnswer], ids: Sequence[str]
    ) -> dict[str, Any]:
        """The body of the answer."""
        ...


@dataclass(frozen=True, slots=True)
class Limits:
    """What one request may have, and how many may be asked at once."""

    max_body_bytes: int
    max_rows: int
    max_requests: int = 256
    request_seconds: float = 30


@dataclass(slots=True)
class AtOnce:
    """How many requests are being answered in this process, by whichever form."""

    count: int = 0


class Extension(Protocol[AskedT_contra]):
    """How values travel as bytes behind the JSON of a form: its module's two functions."""

    def attach(self, request: AskedT_contra, binary: bytes, max_rows: int) -> None:
        """Take a request's values out of the bytes."""
        ...

    def wired(self, request: AskedT_contra, response: dict[str, Any]) -> Wire:
        """A response as it is sent."""
        ...


@dataclass(frozen=True, slots=True)
class Front:
    """What the routes share. `waiting` says what readiness waits for, or None."""

    table: Table
    waiting: Callable[[], str | None]
    capture: Capture
    desk: Desk
    limits: Limits

    def application(self) -> ASGIApp:
        """The whole front: the busiest path is taken before any router looks at it."""
        at_once = AtOnce()
        infer = Answering(self, at_once, oip.InferRequest, oip, binary)
        predict = Answering(self, at_once, rowform.PredictRequest, rowform)
        rest = Starlette(
            routes=[
                Route("/v2/models/{model}/infer", infer, methods=["POST"]),
                Route("/v2/models/{model}/versions/{version}/infer", infer, methods=["POST"]),
                Route("/v1/models/{model}/predict", predict, methods=["POST"]),
                *self._reading(),
            ],
            exception_handlers=HANDLERS,
        )

        async def dispatched(scope: Scope, receive: Receive, send: Send) -> None:
            path: str = scope["path"]
            if path.endswith("/infer") and path.startswith("/v2/models/") and scope["method"] == "POST":
                model = path[len("/v2/models/") : -len("/infer")]
                if model and "/" not in model:
                    scope["path_params"] = {"model": model}
                    await infer(scope, receive, send)
                    return
            await rest(scope, receive, send)

        return ServerErrorMiddleware(dispatched, handler=failed)

    def _reading(self) -> list[BaseRoute]:
        return [
            Route("/v2", self._server),
            Route("/v2/health/live", self._live),
            Route("/v2/health/ready", self._ready),
            Route("/v2/models/{model}", self._metadata),
            Route("/v2/models/{model}/versions/{version}", self._metadata),
            Route("/v2/models/{model}/ready", self._model_ready),
            Route("/v2/models/{model}/versions/{version}/ready", self._model_ready),
            Route("/openapi.json", self._openapi),
        ]

    async def _server(self, _: Request) -> Response:
        return _json(200, {"name": "tailrace", "version": VERSION, "extensions": [binary.EXTENSION]})

    async def _live(self, _: Request) -> Response:
        return _json(200, {"live": True})

    async def _ready(self, _: Request) -> Response:
        reason = self.waiting()
        return _json(503, {"ready": False, "error": reason}) if reason else _json(200, {"ready": True})

    async def _metadata(self, request: Request) -> Response:
        arms, member = self._asked(request)
        return _json(200, oip.model_metadata(arms, member))

    async def _model_ready(self, request: Request) -> Response:
        arms, member = self._asked(request)
        ready = arms.ready or member is not None
        body = {"name": arms.model, "ready": ready, "parameters": oip.status(arms)}
        return _json(200 if ready else 503, body)

    def _asked(self, request: Request) -> tuple[Arms, Member | None]:
        arms = self.table.find(request.path_params["model"])
        version = request.path_params.get("version")
        return arms, arms.named(version) if version else None

    async def _openapi(self, _: Request) -> Response:
        return _json(200, document(self.limits.max_body_bytes, self.limits.max_rows))


class Answering(Generic[RequestT]):
    """The ASGI endpoint of one form of asking."""

    def __init__(
        self,
        front: Front,
        at_once: AtOnce,
        request: type[RequestT],
        form: Form[RequestT],
        extension: Extension[RequestT] | None = None,
    ) -> None:
        self._front = front
        self._decoder = msgspec.json.Decoder(request)
        self._request = request
        self._form = form
        self._extension = extension
        self._at_once = at_once

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        began = perf_counter()
        self._at_once.count += 1
        try:
            wire = await self._answered(scope, receive, began)
        except Refused as refused:
            self._front.desk.meter.count("tailrace_requests_refused_total", reason=refused.kind)
            await _refuse(send, refused)
        except WentAway:
            self._front.desk.meter.count("tailrace_requests_refused_total", reason="went-away")
        else:
            await _send(send, wire)
        finally:
            self._at_once.count -= 1

    async def _answered(self, scope: Scope, receive: Receive, began: float) -> Wire:
        front, path, limits = self._front, scope["path_params"], self._front.limits
        if self._at_once.count > limits.max_requests:
            raise Refused("busy", f"{limits.max_requests} requests are being answered, expected no more; try again")
        arms = front.table.find(path["model"])
        body: Body | None = None
        try:
            with Deadline(limits.request_seconds):
                body = await bodies.read(scope, receive, limits.max_body_bytes)
                request, question = self._asked(body, arms.rules)
                answered = await handlers.answer(front.desk, arms, question, path.get("version"))
        except TimeoutError:
            raise _too_late(limits.request_seconds, arms.model, arrived=body is not None) from None
        response = self._form.response(request, arms, answered.served, answered.answers, answered.prediction_ids)
        wire = self._extension.wired(request, response) if self._extension else Wire(_ENCODE(response), None)
        rows = handlers.inferences(front.desk, arms, question, answered, perf_counter() - began, trace=_trace(scope))
        await front.capture.take(rows)
        front.desk.meter.observe("tailrace_inference_seconds", perf_counter() - began, model=arms.model)
        return wire

    def _asked(self, body: Body, rules: FeatureRules) -> tuple[RequestT, Question]:
        check_depth(body.json)
        try:
            request = self._decoder.decode(body.json)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise self._refusal(body.json, error, rules) from None
        if body.binary is not None:
            self._attach(request, body.binary)
        return request, self._form.question(request, rules, self._front.limits.max_rows)

    def _attach(self, request: RequestT, binary: bytes) -> None:
        if self._extension is None:
            raise Refused(
                "malformed", "this form has no binary tensors, expected JSON; send them to /v2/models/…/infer"
            )
        self._extension.attach(request, binary, self._front.limits.max_rows)

    def _refusal(self, body: bytes, error: Exception, rules: FeatureRules) -> Refused:
        """Python's JSON knows NaN and Infinity: read with it, they can be refused by the feature's name."""
        try:
            request = msgspec.convert(json.loads(body), self._request)
            self._form.question(request, rules, self._front.limits.max_rows)
        except Refused as named:
            return named
        except (ValueError, RecursionError, msgspec.ValidationError):
            pass
        what = "does not fit" if isinstance(error, msgspec.ValidationError) else "is not JSON"
        return Refused("malformed", f"the request body {what}: {str(error)[:_MOST_SHOWN]}")


def _too_late(seconds: float, model: str, *, arrived: bool) -> Refused:
    if arrived:
        return Refused("unavailable", f"model {model!r} did not answer within {seconds:g} s; send fewer rows at once")
    return Refused("too-slow", f"the request body did not arrive within {seconds:g} s; send it again")


def _trace(scope: Scope) -> bytes | None:
    for name, value in scope["headers"]:
        if name == b"traceparent":
            return bytes(value)
    return None


async def _send(send: Send, wire: Wire) -> None:
    length = (b"content-length", str(len(wire.body)).encode())
    if wire.json_bytes is None:
        headers = [_JSON, length]
    else:
        headers = [_BINARY, length, (bodies.HEADER_LENGTH, str(wire.json_bytes).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": wire.body})


async def _refuse(send: Send, refused: Refused) -> None:
    body = _ENCODE({"error": refused.sentence})
    headers = [_JSON, (b"content-length", str(len(body)).encode())]
    if refused.kind in {"busy", "unavailable"}:
        headers.append(_RETRY)
    if refused.kind in {"busy", "too-large", "too-slow", "unsupported"}:  # the rest of the body is not read
        headers.append(_CLOSE)
    await send({"type": "http.response.start", "status": STATUS[refused.kind], "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _json(status: int, content: Any) -> Response:
    return Response(_ENCODE(content), status, media_type="application/json")


async def refused(_: Request, error: Exception) -> Response:
    """A refusal raised by an ordinary route."""
    if not isinstance(error, Refused):
        raise error
    return _json(STATUS[error.kind], {"error": error.sentence})


async def not_found(request: Request, _: Exception) -> Response:
    """A path that is none of ours."""
    sentence = f"nothing is at {brief(request.url.path)}; see /openapi.json for the paths of this service"
    return _json(404, {"error": sentence})


async def not_allowed(request: Request, error: Exception) -> Response:
    """A method that the path does not have."""
    sentence = f"{request.method} is not a method of {brief(request.url.path)}; see /openapi.json"
    response = _json(405, {"error": sentence})
    response.headers.update(getattr(error, "headers", None) or {})
    return response


async def failed(request: Request, _: Exception) -> Response:
    """A fault of ours; the traceback is in the log."""
    return _json(500, {"error": f"{request.url.path} failed through a fault of the service; its log has the reason"})


HANDLERS: dict[int | type[Exception], Callable[[Request, Exception], Any]] = {
    Refused: refused,
    404: not_found,
    405: not_allowed,
    500: failed,
}
"""How errors become answers."""
