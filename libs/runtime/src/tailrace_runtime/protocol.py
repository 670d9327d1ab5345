"""uvicorn's HTTP protocol, with a shorter way for small requests.

A request that arrived whole with its head, as nearly all inferences do, needs no streams: its body goes to the application
as bytes and its answer comes back as one, past the ASGI messages, which cost as much as answering does (ADR 52). Whatever is
unusual about a request sends it uvicorn's own way: an application without such a path, a body in pieces, a header that
the application wants to look at, a pipelined or upgraded connection, a service that drains. Parsing, time limits, flow
control and shutdown stay uvicorn's in both.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from tailrace_runtime.transport import Gathered


class Reply(NamedTuple):
    """An answer, all of it. `headers` without Content-Length."""

    status: int
    body: bytes
    headers: Sequence[tuple[bytes, bytes]]


Answer = Callable[[bytes], Awaitable[Reply]]
"""From a body to its answer; raises nothing."""


class Direct(NamedTuple):
    """What an application answers whole: its attribute `direct`.

    `answer_to` finds what answers a POST to a path, or None where the usual way is to be taken; `unusual` are the
    headers, in small letters, with which a request goes that way, too.
    """

    answer_to: Callable[[bytes], Answer | None]
    unusual: frozenset[bytes] = frozenset()


class _Cycle:
    """What uvicorn asks of the request that is being answered."""

    __slots__ = ("disconnected", "keep_alive", "message_event", "response_complete")

    def __init__(self, *, keep_alive: bool) -> None:
        self.keep_alive = keep_alive
        self.disconnected = False
        self.response_complete = False
        self.message_event = _NOBODY_WAITS


class _NobodyWaits:
    def set(self) -> None:
        """Nobody waits for more of a body that is here."""


_NOBODY_WAITS = _NobodyWaits()


class HttpProtocol(HttpToolsProtocol):
    """One connection. Answers are written in one piece (`transport`)."""

    _answer: Answer | None = None
    _pieces: list[bytes] | None = None
    _idle_since: float | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client is there."""
        self._gathered = Gathered(transport, self.loop)
        super().connection_made(self._gathered)

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone."""
        super().connection_lost(exc)
        if self.timeout_keep_alive_task is not None:
            self.timeout_keep_alive_task.cancel()

    def data_received(self, data: bytes) -> None:
        """Bytes have come; a request that is not whole with them goes uvicorn's way."""
        super().data_received(data)
        if self._pieces is not None:
            pieces, self._pieces = self._pieces, None
            if self.transport.is_closing():  # what came is no HTTP
                return
            super().on_headers_complete()
            for piece in pieces:
                super().on_body(piece)

    def on_response_complete(self) -> None:
        """The next request may come. As uvicorn's own, but for the timer: one for a connection, not one for each answer."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            cycle, app = self.pipeline.pop()
            self._start_asgi_task(cycle, app)
            return
        self._idle_since = self.loop.time()
        if self.timeout_keep_alive_task is None:
            self._close_when_idle(self.timeout_keep_alive)

    def _unset_keepalive_if_required(self) -> None:
        self._idle_since = None

    def _close_when_idle(self, seconds: float) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(seconds, self.timeout_keep_alive_handler)

    def timeout_keep_alive_handler(self) -> None:
        """Close a connection on which nothing came for so long."""
        self.timeout_keep_alive_task = None
        if self._idle_since is None:  # a request is being answered; the answer sets the timer again
            return
        left = self._idle_since + self.timeout_keep_alive - self.loop.time()
        if left > 0:
            self._close_when_idle(left)
        else:
            super().timeout_keep_alive_handler()

    def on_headers_complete(self) -> None:
        """Which way the request goes."""
        direct: Direct | None = getattr(self.app, "direct", None)
        if direct is not None and self._is_usual(direct):
            self._answer = direct.answer_to(self.url)
            if self._answer is not None:
                self._pieces = []
                return
        super().on_headers_complete()

    def _is_usual(self, direct: Direct) -> bool:
        if self.expect_100_continue or self.parser.get_method() != b"POST" or self.parser.should_upgrade():
            return False
        if self.cycle is not None and not self.cycle.response_complete:
            return False
        return all(name not in direct.unusual for name, _ in self.headers)

    def on_body(self, body: bytes) -> None:
        """A piece of a body."""
        if self._pieces is None:
            super().on_body(body)
        else:
            self._pieces.append(body)

    def on_message_complete(self) -> None:
        """A whole request is there."""
        if self._pieces is None or self._answer is None:
            super().on_message_complete()
            return
        pieces, self._pieces = self._pieces, None
        cycle = _Cycle(keep_alive=self.parser.get_http_version() != "1.0" and self.parser.should_keep_alive())
        self.cycle = cycle  # type: ignore[assignment]
        task = self.loop.create_task(self._answered(cycle, self._answer, b"".join(pieces)))
        task.add_done_callback(self.tasks.discard)
        self.tasks.add(task)

    async def _answered(self, cycle: _Cycle, answer: Answer, body: bytes) -> None:
        try:
            reply = await answer(body)
            if self.flow.write_paused and not cycle.disconnected:
                await self.flow.drain()
            if not cycle.disconnected:
                cycle.keep_alive = cycle.keep_alive and (b"connection", b"close") not in reply.headers
                self._gathered.send(self._encoded(reply, keep_alive=cycle.keep_alive))
        except Exception:
            cycle.keep_alive = False
            self.logger.exception("a request failed")
        except asyncio.CancelledError:
            cycle.keep_alive = False
            raise
        finally:
            cycle.response_complete = True
            if not cycle.keep_alive:
                self.transport.close()
            self.on_response_complete()

    def _encoded(self, reply: Reply, *, keep_alive: bool) -> bytes:
        headers = [*self.server_state.default_headers, *reply.headers, (b"content-length", b"%d" % len(reply.body))]
        if not keep_alive and (b"connection", b"close") not in reply.headers:
            headers.append((b"connection", b"close"))
        lines = [b"%s: %s\r\n" % header for header in headers]
        return b"".join((STATUS_LINE[reply.status], *lines, b"\r\n", reply.body))
