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
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from tailrace_serving import handlers
from tailrace_serving.capture import Capture
from tailrace_serving.domain import oip, rowform
from tailrace_serving.domain.arms import ArmAnswer, Arms, Member, Table
from tailrace_serving.domain.features import FeatureRules
from tailrace_serving.domain.question import Question
from tailrace_serving.domain.refusal import Kind, Refused
from tailrace_serving.handlers import Desk
from tailrace_serving.openapi import VERSION, document

STATUS: dict[Kind, int] = {
    "malformed": 400,
    "unknown": 404,
    "too-large": 413,
    "unacceptable": 422,
    "unavailable": 503,
}

_ENCODE = msgspec.json.Encoder().encode
_JSON = (b"content-type", b"application/json")
RequestT = TypeVar("RequestT")
AskedT_contra = TypeVar("AskedT_contra", contravariant=True)


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
    """What one request may have."""

    max_body_bytes: int
    max_rows: int


@dataclass(frozen=True, slots=True)
class Front:
    """What the routes share. `waiting` says what readiness waits for, or None."""

    table: Table
    waiting: Callable[[], str | None]
    capture: Capture
    desk: Desk
    limits: Limits

    def routes(self) -> list[BaseRoute]:
        """Every route of the service, the busiest first."""
        infer = Answering(self, oip.InferRequest, oip)
        predict = Answering(self, rowform.PredictRequest, rowform)
        return [
            Route("/v2/models/{model}/infer", infer, methods=["POST"]),
            Route("/v2/models/{model}/versions/{version}/infer", infer, methods=["POST"]),
            Route("/v1/models/{model}/predict", predict, methods=["POST"]),
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
        return _json(200, {"name": "tailrace", "version": VERSION, "extensions": []})

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

    def __init__(self, front: Front, request: type[RequestT], form: Form[RequestT]) -> None:
        self._front = front
        self._decoder = msgspec.json.Decoder(request)
        self._request = request
        self._form = form

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        began = perf_counter()
        try:
            body = await self._answered(scope, receive, began)
        except Refused as refused:
            self._front.desk.meter.count("tailrace_requests_refused_total", reason=refused.kind)
            await _send(send, STATUS[refused.kind], _error(refused), close=refused.kind == "too-large")
        else:
            await _send(send, 200, body)

    async def _answered(self, scope: Scope, receive: Receive, began: float) -> bytes:
        front, path = self._front, scope["path_params"]
        arms = front.table.find(path["model"])
        trace = _trace(scope)
        request, question = self._asked(await _body(scope, receive, front.limits.max_body_bytes), arms.rules)
        answered = await handlers.answer(front.desk, arms, question, path.get("version"))
        body = _ENCODE(self._form.response(request, arms, answered.served, answered.answers, answered.prediction_ids))
        rows = handlers.inferences(front.desk, arms, question, answered, perf_counter() - began, trace=trace)
        await front.capture.take(rows)
        front.desk.meter.observe("tailrace_inference_seconds", perf_counter() - began, model=arms.model)
        return body

    def _asked(self, body: bytes, rules: FeatureRules) -> tuple[RequestT, Question]:
        try:
            request = self._decoder.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise self._refusal(body, error, rules) from None
        return request, self._form.question(request, rules, self._front.limits.max_rows)

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
        return Refused("malformed", f"the request body {what}: {error}")


async def _body(scope: Scope, receive: Receive, max_bytes: int) -> bytes:
    """The whole body, read no further than its limit."""
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit() and int(value) > max_bytes:
            raise _too_large(int(value), max_bytes)
        if name == b"inference-header-content-length":
            raise Refused(
                "malformed",
                "the request has binary tensors (header Inference-Header-Content-Length), expected JSON: "
                "send every input's values in its data (tritonclient: binary_data=False)",
            )
    message = await receive()
    chunk: bytes = message.get("body", b"")
    if not message.get("more_body") and len(chunk) <= max_bytes:
        return chunk
    return await _rest(chunk, receive, max_bytes)


async def _rest(first: bytes, receive: Receive, max_bytes: int) -> bytes:
    chunks, size, more = [first], len(first), True
    while more and size <= max_bytes:
        message = await receive()
        chunks.append(message.get("body", b""))
        size += len(chunks[-1])
        more = message.get("more_body", False)
    if size > max_bytes:
        raise _too_large(size, max_bytes)
    return b"".join(chunks)


def _too_large(found: int, max_bytes: int) -> Refused:
    return Refused(
        "too-large",
        f"the request body has {found} bytes or more, expected at most {max_bytes}; send fewer rows at once",
    )


def _trace(scope: Scope) -> bytes | None:
    for name, value in scope["headers"]:
        if name == b"traceparent":
            return bytes(value)
    return None


async def _send(send: Send, status: int, body: bytes, *, close: bool = False) -> None:
    headers = [_JSON, (b"content-length", str(len(body)).encode())]
    if close:
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _error(refused: Refused) -> bytes:
    return _ENCODE({"error": refused.sentence})


def _json(status: int, content: Any) -> Response:
    return Response(_ENCODE(content), status, media_type="application/json")


async def refused(_: Request, error: Exception) -> Response:
    """A refusal raised by an ordinary route."""
    if not isinstance(error, Refused):
        raise error
    return _json(STATUS[error.kind], {"error": error.sentence})


async def not_found(request: Request, _: Exception) -> Response:
    """A path that is none of ours."""
    sentence = f"nothing is at {request.url.path}; see /openapi.json for the paths of this service"
    return _json(404, {"error": sentence})


async def not_allowed(request: Request, error: Exception) -> Response:
    """A method that the path does not have."""
    sentence = f"{request.method} is not a method of {request.url.path}; see /openapi.json"
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
