"""The HTTP front: decode, call, encode.

The routes that carry traffic are plain ASGI (`answering`), and small requests for inference go past even that
(`tailrace_runtime.protocol`). Everything else is small enough for ordinary routes.
Every refusal is `{"error": sentence}`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from tailrace_runtime.protocol import Answer, Direct
from tailrace_serving.answering import FAULT, STATUS, Answering, AtOnce, Front
from tailrace_serving.bodies import HEADER_LENGTH
from tailrace_serving.domain import binary, explained_form, oip, rowform
from tailrace_serving.domain.arms import Arms, Member
from tailrace_serving.domain.refusal import Refused, brief
from tailrace_serving.openapi import VERSION, document

_ENCODE = msgspec.json.Encoder().encode


_BUSIEST = re.compile(rb"/v2/models/([\w.~-]{1,63})/infer|/v1/models/([\w.~-]{1,63})/predict")
"""No model has a longer name; paths are remembered before anybody knows whether they name one."""

UNUSUAL = frozenset({HEADER_LENGTH, b"content-encoding"})
"""Headers that say that a body is not just JSON."""

KNOWN_PATHS = 4096
"""Paths that are not taken apart anew for every request."""


class Application:
    """The whole front: ordinary routes, and the busiest paths past any router."""

    def __init__(self, routes: ASGIApp, infer: Answering[Any], predict: Answering[Any]) -> None:
        self._routes = routes
        self._infer = infer
        self._predict = predict
        self._known: dict[bytes, Answer] = {}
        self.direct = Direct(self._answer_to, UNUSUAL)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, by the ASGI specification."""
        await self._routes(scope, receive, send)

    def _answer_to(self, url: bytes) -> Answer | None:
        answer = self._known.get(url)
        if answer is None and (found := _BUSIEST.fullmatch(url)):
            answer = partial((self._infer if found[1] else self._predict).whole, (found[1] or found[2]).decode())
            if len(self._known) < KNOWN_PATHS:
                self._known[url] = answer
        return answer


def application(front: Front) -> Application:
    """The front's routes."""
    at_once, explaining = AtOnce(front.limits.max_requests), AtOnce(front.limits.max_explaining)
    infer = Answering(front, at_once, oip.InferRequest, oip, binary)
    predict = Answering(front, at_once, rowform.PredictRequest, rowform)
    of_tensors, of_rows = explained_form.OfTensors(), explained_form.OfRows()
    explain = Answering(front, explaining, explained_form.ExplainRequest, of_tensors, binary, explaining=of_tensors)
    explain_rows = Answering(front, explaining, explained_form.ExplainRowsRequest, of_rows, explaining=of_rows)
    routes = Starlette(
        routes=[
            Route("/v2/models/{model}/infer", infer, methods=["POST"]),
            Route("/v2/models/{model}/versions/{version}/infer", infer, methods=["POST"]),
            Route("/v2/models/{model}/explain", explain, methods=["POST"]),
            Route("/v2/models/{model}/versions/{version}/explain", explain, methods=["POST"]),
            Route("/v1/models/{model}/predict", predict, methods=["POST"]),
            Route("/v1/models/{model}/explain", explain_rows, methods=["POST"]),
            *Reading(front).routes(),
        ],
        exception_handlers=HANDLERS,
    )

    return Application(routes, infer, predict)


class Reading:
    """The routes that only tell."""

    def __init__(self, front: Front) -> None:
        self._front = front

    def routes(self) -> list[BaseRoute]:
        """All of them."""
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
        reason = self._front.waiting()
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
        arms = self._front.table.find(request.path_params["model"])
        version = request.path_params.get("version")
        return arms, arms.named(version) if version else None

    async def _openapi(self, _: Request) -> Response:
        return _json(200, document(self._front.limits.max_body_bytes, self._front.limits.max_rows))


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


async def failed(_: Request, __: Exception) -> Response:
    """A fault of ours; the traceback is in the log."""
    return _json(500, {"error": FAULT})


HANDLERS: dict[int | type[Exception], Callable[[Request, Exception], Any]] = {
    Refused: refused,
    404: not_found,
    405: not_allowed,
    500: failed,
}
"""How errors become answers."""
