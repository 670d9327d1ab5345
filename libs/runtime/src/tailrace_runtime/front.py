"""The HTTP front of every service: `/livez`, `/readyz` and `/metrics`, and behind them the service's own routes.

The three answer from the first moment, while the broker or the database is still waited for. The service's own routes
open when its resources have started; before that they get a 503 with the reason. A `traceparent` that a request
carries is followed while the request is handled. A service that is to stop goes on answering while it drains, and
every answer closes its connection, so that a client's next request goes to another process instead of into the end.
"""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from typing import Any

import uvicorn

from tailrace_runtime.errors import ConfigurationFault
from tailrace_runtime.health import Health
from tailrace_runtime.metrics import CONTENT_TYPE, Metrics
from tailrace_runtime.protocol import Direct, HttpProtocol
from tailrace_runtime.tracing import continued_from

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


_TRACE_HEADERS = frozenset({b"traceparent", b"tracestate"})


class Front:
    """Answers the probes itself and hands everything else to the service's application."""

    def __init__(self, service: str, app: App | None, health: Health, metrics: Metrics) -> None:
        self.open = False
        self.draining = False
        self._service = service
        self._app = app
        self._health = health
        self._metrics = metrics
        direct: Direct | None = getattr(app, "direct", None)
        self._direct = direct and direct._replace(unusual=direct.unusual | _TRACE_HEADERS)
        self._probes: dict[str, Callable[[], tuple[int, bytes, str]]] = {
            "/livez": self._livez,
            "/readyz": self._readyz,
            "/metrics": self._render,
        }

    @property
    def direct(self) -> Direct | None:
        """What answers whole requests, if the application has such a thing and is open."""
        return self._direct if self.open and not self.draining else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, by the ASGI specification."""
        if scope["type"] != "http":
            return
        if self.draining:
            send = _closing(send)
        probe = self._probes.get(scope["path"])
        if probe is not None:
            await _answer(send, *probe())
        elif self._app is None:
            await _answer(send, *_error(404, f"{self._service} has no {scope['path']}: only /livez, /readyz, /metrics"))
        elif not self.open:
            await _answer(send, *_error(503, self._why_closed()))
        else:
            trace = _trace_of(scope)
            if not trace:
                await self._app(scope, receive, send)
                return
            with continued_from(trace):
                await self._app(scope, receive, send)

    def _livez(self) -> tuple[int, bytes, str]:
        live, report = self._health.live()
        return (200 if live else 503), json.dumps(report).encode(), "application/json"

    def _readyz(self) -> tuple[int, bytes, str]:
        ready, report = self._health.readiness()
        return (200 if ready else 503), json.dumps(report).encode(), "application/json"

    def _render(self) -> tuple[int, bytes, str]:
        ready, _ = self._health.readiness()
        self._metrics.gauge("tailrace_ready", float(ready))
        return 200, self._metrics.render(), CONTENT_TYPE

    def _why_closed(self) -> str:
        _, report = self._health.readiness()
        reasons = "; ".join(report["waiting"].values()) or "starting"
        return f"{self._service} is not ready: {reasons}"


def _closing(send: Send) -> Send:
    async def close(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", ()), (b"connection", b"close")]
        await send(message)

    return close


def _trace_of(scope: Scope) -> tuple[tuple[str, bytes], ...]:
    found: tuple[tuple[str, bytes], ...] = ()
    for name, value in scope["headers"]:
        if name in _TRACE_HEADERS:
            found = (*found, (name.decode("ascii"), value))
    return found


def _error(status: int, sentence: str) -> tuple[int, bytes, str]:
    return status, json.dumps({"error": sentence}).encode(), "application/json"


async def _answer(send: Send, status: int, body: bytes, content_type: str) -> None:
    headers = [(b"content-type", content_type.encode()), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


class Server(uvicorn.Server):
    """uvicorn without its signal handlers: the service host has its own."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals alone."""
        yield


def server(front: Front, grace_seconds: float) -> Server:
    """The HTTP server, ready to serve on a bound socket."""
    return Server(
        uvicorn.Config(
            front,
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,  # nothing here asks who the client is
            lifespan="off",
            ws="none",
            loop="none",
            http=HttpProtocol,
            timeout_graceful_shutdown=max(1, int(grace_seconds)),
            timeout_keep_alive=75,
        )
    )


def bound(host: str, port: int, service: str) -> socket.socket:
    """A socket that listens there.

    Raises:
        ConfigurationFault: the port is taken, or the address is not this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise ConfigurationFault(
            f"{service} cannot listen on {host}:{port}: {error.strerror or error};"
            " stop what uses the port or set TAILRACE_PORT to a free one"
        ) from error
    listener.setblocking(False)  # noqa: FBT003
    listener.set_inheritable(False)
    return listener
