"""Answering over HTTP: the ASGI endpoint of each form of asking.

The body is read under its limit and decoded by a typed decoder, the question is answered and, where the form asks for
it, explained, the answer is encoded and captured, and then it is sent. Every refusal is `{"error": sentence}`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Generic, Protocol, TypeVar

import msgspec
import structlog
from starlette.types import Receive, Scope, Send

from tailrace_runtime.protocol import Reply
from tailrace_serving import handlers
from tailrace_serving.bodies import HEADER_LENGTH, Arriving, Body, Incoming, WentAway, Whole
from tailrace_serving.capture import Capture
from tailrace_serving.deadline import Deadlines
from tailrace_serving.domain.arms import ArmAnswer, ArmFailed, Arms, Member, Table
from tailrace_serving.domain.binary import Wire
from tailrace_serving.domain.explanation import Explanation
from tailrace_serving.domain.features import FeatureRules
from tailrace_serving.domain.nesting import check_depth
from tailrace_serving.domain.question import Question
from tailrace_serving.domain.refusal import Kind, Refused
from tailrace_serving.explanations import Explanations
from tailrace_serving.handlers import Desk, Inference

STATUS: dict[Kind, int] = {
    "malformed": 400,
    "unknown": 404,
    "too-slow": 408,
    "too-large": 413,
    "unsupported": 415,
    "unacceptable": 422,
    "busy": 429,
    "unavailable": 503,
    "unexplainable": 409,
}
FAULT = "the request failed through a fault of the service; its log has the reason"
"""What a caller is told of a fault of ours."""

log = structlog.get_logger(__name__)

Headers = Sequence[tuple[bytes, bytes]]

_ENCODE = msgspec.json.Encoder().encode
_JSON = (b"content-type", b"application/json")
_OF_JSON = (_JSON,)
_BINARY = (b"content-type", b"application/octet-stream")
_MOST_SHOWN = 200
_RETRY = (b"retry-after", b"1")
_CLOSE = (b"connection", b"close")
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


class ExplainingForm(Form[AskedT_contra], Protocol):
    """A form of asking for explanations."""

    def how(self, request: AskedT_contra, usual: int) -> tuple[int, bool]:
        """The permutations, and whether the answers are recorded. Raises Refused."""
        ...

    def put(self, request: AskedT_contra, response: dict[str, Any], explanations: Sequence[Explanation]) -> None:
        """Put the explanations into the body of the answer."""
        ...


@dataclass(frozen=True, slots=True)
class Limits:
    """What one request may have, and how many may be asked at once."""

    max_body_bytes: int
    max_rows: int
    max_requests: int = 256
    request_seconds: float = 30
    max_explained_rows: int = 16
    max_explaining: int = 32


@dataclass(frozen=True, slots=True)
class Front:
    """What all routes share. `waiting` says what readiness waits for, or None."""

    table: Table
    waiting: Callable[[], str | None]
    capture: Capture
    desk: Desk
    limits: Limits
    explanations: Explanations


@dataclass(slots=True)
class AtOnce:
    """How many requests are being answered in this process, by whichever form, and how many may be."""

    most: int
    count: int = 0


class Extension(Protocol[AskedT_contra]):
    """How values travel as bytes behind the JSON of a form: its module's two functions."""

    def attach(self, request: AskedT_contra, binary: bytes, max_rows: int) -> None:
        """Take a request's values out of the bytes."""
        ...

    def wired(self, request: AskedT_contra, response: dict[str, Any]) -> Wire:
        """A response as it is sent."""
        ...


class Answering(Generic[RequestT]):
    """The ASGI endpoint of one form of asking."""

    def __init__(
        self,
        front: Front,
        at_once: AtOnce,
        request: type[RequestT],
        form: Form[RequestT],
        extension: Extension[RequestT] | None = None,
        *,
        explaining: ExplainingForm[RequestT] | None = None,
    ) -> None:
        self._front = front
        self._decoder = msgspec.json.Decoder(request)
        self._request = request
        self._form = form
        self._extension = extension
        self._at_once = at_once
        self._deadlines = Deadlines(front.limits.request_seconds)
        self._explaining = explaining
        self._max_rows = front.limits.max_explained_rows if explaining else front.limits.max_rows

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, whose body arrives."""
        path = scope["path_params"]
        incoming = Arriving(scope, receive, self._front.limits.max_body_bytes)
        try:
            reply = await self._reply(path["model"], path.get("version"), incoming)
        except WentAway:
            self._front.desk.meter.count("tailrace_requests_refused_total", reason="went-away")
            return
        headers = [*reply.headers, (b"content-length", b"%d" % len(reply.body))]
        await send({"type": "http.response.start", "status": reply.status, "headers": headers})
        rest = _CLOSE in reply.headers and reply.status != STATUS["too-slow"]
        await send({"type": "http.response.body", "body": reply.body, "more_body": rest})
        if rest:
            await incoming.drop_the_rest()
            await send({"type": "http.response.body", "body": b""})

    async def whole(self, model: str, body: bytes) -> Reply:
        """Answer one request, whose body is here."""
        return await self._reply(model, None, Whole(body, self._front.limits.max_body_bytes))

    async def _reply(self, model: str, version: str | None, incoming: Incoming) -> Reply:
        self._at_once.count += 1
        try:
            wire = await self._answered(model, version, incoming)
        except Refused as refused:
            self._front.desk.meter.count("tailrace_requests_refused_total", reason=refused.kind)
            return _refusal(refused)
        except WentAway:
            raise
        except Exception:
            log.exception("a request failed", model=model)
            return Reply(500, _ENCODE({"error": FAULT}), (_JSON,))
        else:
            return Reply(200, wire.body, _OF_JSON if wire.json_bytes is None else _of_binary(wire.json_bytes))
        finally:
            self._at_once.count -= 1

    async def _answered(self, model: str, version: str | None, incoming: Incoming) -> Wire:
        began, front, limits = perf_counter(), self._front, self._front.limits
        if self._at_once.count > self._at_once.most:
            raise Refused("busy", f"{self._at_once.most} requests are being answered, expected no more; try again")
        arms = front.table.find(model)
        body: Body | None = None
        try:
            with self._deadlines.begin():
                body = await incoming.read()
                request, question = self._asked(body, arms.rules)
                answered = await handlers.answer(front.desk, arms, question, version)
                response = self._form.response(
                    request, arms, answered.served, answered.answers, answered.prediction_ids
                )
                seconds = perf_counter() - began
                rows = handlers.inferences(front.desk, arms, question, answered, seconds, trace=incoming.trace)
                if self._explaining is not None:
                    explained = self._explained(self._explaining, request, response, rows)
                    rows = await incoming.while_awaited(explained)
        except TimeoutError:
            raise _too_late(limits.request_seconds, arms.model, arrived=body is not None) from None
        wire = self._extension.wired(request, response) if self._extension else Wire(_ENCODE(response), None)
        if rows:
            await front.capture.take(rows)
        front.desk.meter.observe("tailrace_inference_seconds", perf_counter() - began, model=arms.model)
        return wire

    async def _explained(
        self, form: ExplainingForm[RequestT], request: RequestT, response: dict[str, Any], rows: list[Inference]
    ) -> list[Inference]:
        """Put the explanations into the response; the rows that are to be recorded, with theirs."""
        first = rows[0]
        permutations, recorded = form.how(request, first.arms.spec.serving.explanations.permutations)
        try:
            found = await self._front.explanations.asked(rows, permutations)
        except ArmFailed as failure:
            raise handlers.failed(first.arms, first.served, failure, "could not be explained") from failure
        form.put(request, response, found)
        return [row._replace(explanation=each) for row, each in zip(rows, found, strict=True)] if recorded else []

    def _asked(self, body: Body, rules: FeatureRules) -> tuple[RequestT, Question]:
        check_depth(body.json)
        try:
            request = self._decoder.decode(body.json)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise self._refusal(body.json, error, rules) from None
        if body.binary is not None:
            self._attach(request, body.binary)
        return request, self._form.question(request, rules, self._max_rows)

    def _attach(self, request: RequestT, binary: bytes) -> None:
        if self._extension is None:
            raise Refused(
                "malformed", "this form has no binary tensors, expected JSON; send them to /v2/models/…/infer"
            )
        self._extension.attach(request, binary, self._max_rows)

    def _refusal(self, body: bytes, error: Exception, rules: FeatureRules) -> Refused:
        """Python's JSON knows NaN and Infinity: read with it, they can be refused by the feature's name."""
        try:
            request = msgspec.convert(json.loads(body), self._request)
            self._form.question(request, rules, self._max_rows)
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


def _of_binary(json_bytes: int) -> Headers:
    return (_BINARY, (HEADER_LENGTH, b"%d" % json_bytes))


def _refusal(refused: Refused) -> Reply:
    headers = [_JSON]
    if refused.kind in {"busy", "unavailable"}:
        headers.append(_RETRY)
    if refused.kind in {"busy", "too-large", "too-slow", "unsupported"}:  # the rest of the body is of no use
        headers.append(_CLOSE)
    return Reply(STATUS[refused.kind], _ENCODE({"error": refused.sentence}), headers)
