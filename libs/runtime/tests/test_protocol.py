"""Small requests are answered whole; whatever is unusual about one sends it the ordinary way. On a real connection."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tailrace_runtime.front import Front, bound, server
from tailrace_runtime.health import Health
from tailrace_runtime.metrics import Metrics
from tailrace_runtime.protocol import Answer, Direct, Reply
from tailrace_testing import eventually


class App:
    """Says which way a request came."""

    def __init__(self) -> None:
        self.direct = Direct(self._answer_to, frozenset({b"x-unusual"}))
        self.go = asyncio.Event()
        self.go.set()
        self.begun: list[str] = []
        """The way of each request that the application was given."""

    def _answer_to(self, url: bytes) -> Answer | None:
        return {b"/whole": self._whole, b"/fails": self._fails}.get(url)

    async def _whole(self, body: bytes) -> Reply:
        self.begun.append("whole")
        await self.go.wait()
        return Reply(200, b"whole " + body, [(b"content-type", b"text/plain")])

    async def _fails(self, body: bytes) -> Reply:
        raise RuntimeError(body)

    async def __call__(
        self, _: Any, receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]
    ) -> None:
        """The ordinary way."""
        self.begun.append("ordinary")
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        answer = b"ordinary " + body
        headers = [(b"content-length", b"%d" % len(answer))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer})


class Client:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer

    def ask(self, path: str = "/whole", body: bytes = b"hello", *headers: str, method: str = "POST") -> None:
        """Send a request in one piece."""
        lines = [f"{method} {path} HTTP/1.1", "host: here", f"content-length: {len(body)}", *headers]
        self.writer.write("\r\n".join([*lines, "", ""]).encode() + body)

    async def answer(self) -> tuple[int, dict[str, str], bytes]:
        """The next answer: its status, headers and body."""
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = dict(line.split(": ", 1) for line in head[1:] if line)
        return int(head[0].split()[1]), headers, await self._reader.readexactly(int(headers["content-length"]))

    async def body(self) -> bytes:
        """The next answer's body."""
        return (await self.answer())[2]

    async def is_over(self) -> bool:
        """Whether the server closes the connection, with nothing more said."""
        return await self._reader.read() == b""


Connect = Callable[[], Awaitable[Client]]


@asynccontextmanager
async def serving(front: Front, keep_alive_seconds: float = 60) -> AsyncIterator[Connect]:
    """A server of this front, and what connects to it."""
    listener = bound("127.0.0.1", 0, "test")
    host = server(front, 5)
    host.config.timeout_keep_alive = keep_alive_seconds  # type: ignore[assignment]  # whole seconds are long for a test
    task = asyncio.create_task(host.serve(sockets=[listener]))
    await eventually(lambda: host.started)
    clients: list[Client] = []

    async def connect() -> Client:
        clients.append(Client(*await asyncio.open_connection(*listener.getsockname())))
        return clients[-1]

    try:
        yield connect
    finally:
        for client in clients:
            client.writer.close()
        host.should_exit = True
        await task
        listener.close()


@pytest.fixture
def front() -> Front:
    """The front of a service that is open."""
    made = Front("test", App(), Health(), Metrics())
    made.open = True
    return made


async def test_request_that_is_here_is_answered_whole(front: Front) -> None:
    """Every inference would pay for streams that it does not need."""
    async with serving(front) as connect:
        client = await connect()
        for word in (b"one", b"two"):
            client.ask(body=word)
            status, headers, body = await client.answer()
            assert (status, body, headers["content-type"]) == (200, b"whole " + word, "text/plain")
            assert "date" in headers


@pytest.mark.parametrize(
    ("path", "headers", "method"),
    [
        ("/elsewhere", (), "POST"),
        ("/whole?why", (), "POST"),
        ("/whole", ("X-Unusual: yes",), "POST"),
        ("/whole", ("traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",), "POST"),
        ("/whole", (), "PUT"),
    ],
)
async def test_unusual_request_goes_the_ordinary_way(
    front: Front, path: str, headers: tuple[str, ...], method: str
) -> None:
    """A trace would end here, and a header with a meaning be passed over."""
    async with serving(front) as connect:
        client = await connect()
        client.ask(path, b"hello", *headers, method=method)
        assert await client.body() == b"ordinary hello"
        client.ask()
        assert await client.body() == b"whole hello"


async def test_body_in_pieces_arrives_whole(front: Front) -> None:
    """Of a slow or large request the first piece alone would be answered, or nothing at all."""
    app: App = front._app  # type: ignore[assignment]
    async with serving(front) as connect:
        client = await connect()
        client.writer.write(b"POST /whole HTTP/1.1\r\nhost: here\r\ncontent-length: 9\r\n\r\none")
        await eventually(lambda: app.begun == ["ordinary"])
        client.writer.write(b" piece")
        assert await client.body() == b"ordinary one piece"


async def test_pipelined_requests_are_answered_in_their_order(front: Front) -> None:
    """The second answer would be taken for the first."""
    app: App = front._app  # type: ignore[assignment]
    app.go.clear()
    async with serving(front) as connect:
        client = await connect()
        for word in (b"one", b"two", b"three"):
            client.ask(body=word)
        await asyncio.sleep(0.05)
        app.go.set()
        assert await client.body() == b"whole one"
        assert await client.body() == b"ordinary two"
        assert await client.body() == b"ordinary three"


async def test_connection_is_closed_where_it_was_asked_for(front: Front) -> None:
    """A client that waits for the end of the connection would wait for ever."""
    async with serving(front) as connect:
        client = await connect()
        client.ask("/whole", b"last", "connection: close")
        status, headers, body = await client.answer()
        assert (status, headers["connection"], body) == (200, "close", b"whole last")
        assert await client.is_over()


async def test_idle_connection_is_closed(front: Front) -> None:
    """Clients that went away without a word would hold their connections for ever."""
    app: App = front._app  # type: ignore[assignment]
    async with serving(front, keep_alive_seconds=0.2) as connect:
        client = await connect()
        client.ask()
        assert await client.body() == b"whole hello"
        app.go.clear()
        client.ask()
        await asyncio.sleep(0.5)
        app.go.set()
        assert await client.body() == b"whole hello", "one that waits for its answer is not idle"
        assert await client.is_over()


async def test_fault_closes_its_connection_only(front: Front) -> None:
    """A client would wait for an answer that never comes, or others would lose theirs."""
    async with serving(front) as connect:
        one, other = await connect(), await connect()
        one.ask("/fails")
        assert await one.is_over()
        other.ask()
        assert await other.body() == b"whole hello"


async def test_service_that_drains_says_so(front: Front) -> None:
    """A client's next request would run into the end of the process."""
    async with serving(front) as connect:
        client = await connect()
        front.draining = True
        client.ask()
        status, headers, body = await client.answer()
        assert (status, headers["connection"], body) == (200, "close", b"ordinary hello")


async def test_service_that_is_not_open_says_why(front: Front) -> None:
    """Requests would be answered before anything is loaded."""
    front.open = False
    async with serving(front) as connect:
        client = await connect()
        client.ask()
        assert (await client.answer())[0] == 503


async def test_client_that_goes_away_harms_nobody(front: Front) -> None:
    """An answer to nobody would end in a traceback, or hold up the stop of the service."""
    app: App = front._app  # type: ignore[assignment]
    app.go.clear()
    async with serving(front) as connect:
        gone, other = await connect(), await connect()
        gone.ask()
        await eventually(lambda: app.begun == ["whole"])
        gone.writer.transport.abort()
        await asyncio.sleep(0.05)
        app.go.set()
        other.ask()
        assert await other.body() == b"whole hello"


async def test_bytes_that_are_no_http_are_refused(front: Front) -> None:
    """A body behind a broken head would be waited for."""
    async with serving(front) as connect:
        client = await connect()
        client.writer.write(b"POST /whole HTTP/1.1\r\nhost: here\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n")
        assert (await client.answer())[0] == 400
        assert await client.is_over()
