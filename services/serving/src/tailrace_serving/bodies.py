"""A request's body as it comes over the wire: read no further than its limit, and told apart into JSON and bytes.

A length that the client announces is believed only where it is too large; what counts is what arrives. A client that
goes away in the middle has asked nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, NamedTuple, TypeVar

from starlette.types import Message, Receive, Scope

from tailrace_serving.domain.refusal import Refused, brief

HEADER_LENGTH = b"inference-header-content-length"
DROPPED_BODIES, DROPPING_SECONDS = 16, 5.0
"""How much of a body that is refused is still received, in bodies of the largest size, and for how long."""
T = TypeVar("T")


class WentAway(Exception):  # noqa: N818 — a fact, as in the runtime's errors
    """The client closed the connection before it was answered: there is nobody to answer."""


class Body(NamedTuple):
    """The JSON, and the bytes behind it; None where the request has the form that is only JSON."""

    json: bytes
    binary: bytes | None


class Whole:
    """A body that is here already, and is only JSON."""

    __slots__ = ("_body", "_max_bytes")

    trace: bytes | None = None

    def __init__(self, body: bytes, max_bytes: int) -> None:
        self._body = body
        self._max_bytes = max_bytes

    async def read(self) -> Body:
        """The body. Raises Refused over the limit."""
        if len(self._body) > self._max_bytes:
            raise _too_large(str(len(self._body)), self._max_bytes)
        return Body(self._body, None)

    async def while_awaited(self, work: Coroutine[Any, Any, T]) -> T:
        """What work comes to."""
        return await work


class Arriving:
    """A body that comes over the wire."""

    __slots__ = ("_ended", "_max_bytes", "_receive", "_scope")

    def __init__(self, scope: Scope, receive: Receive, max_bytes: int) -> None:
        self._scope = scope
        self._receive = receive
        self._max_bytes = max_bytes
        self._ended = False

    @property
    def trace(self) -> bytes | None:
        """The trace that the request belongs to."""
        return next((bytes(value) for name, value in self._scope["headers"] if name == b"traceparent"), None)

    async def read(self) -> Body:
        """The whole body. Raises Refused over the limit or for an encoding that is not spoken, and WentAway."""
        return await read(self._scope, self._next, self._max_bytes)

    async def while_awaited(self, work: Coroutine[Any, Any, T]) -> T:
        """What work comes to that takes long enough to be worth a look after the client. Raises WentAway."""
        return await while_awaited(self._receive, work)

    async def drop_the_rest(self) -> None:
        """Read on for a while and keep nothing: a client that is cut off while it sends would not see its answer."""
        left = DROPPED_BODIES * self._max_bytes
        with suppress(TimeoutError):
            async with asyncio.timeout(DROPPING_SECONDS):
                while left > 0 and not self._ended:
                    left -= len((await self._next()).get("body", b""))

    async def _next(self) -> Message:
        message = await self._receive()
        self._ended = not message.get("more_body")  # also where the client is gone
        return message


Incoming = Whole | Arriving


async def read(scope: Scope, receive: Receive, max_bytes: int) -> Body:
    """The whole body. Raises Refused over the limit or for an encoding that is not spoken, and WentAway."""
    json_length: bytes | None = None
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit() and int(value[:20]) > max_bytes:
            raise _too_large(value[:20].decode(), max_bytes)
        if name == HEADER_LENGTH:
            json_length = value
        if name == b"content-encoding" and value != b"identity":
            raise Refused(
                "unsupported", f"the request body is encoded as {brief(value.decode('latin-1'))}, expected no encoding"
            )
    body = await _whole(receive, max_bytes)
    return Body(body, None) if json_length is None else _parted(body, json_length)


async def _whole(receive: Receive, max_bytes: int) -> bytes:
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise WentAway
        chunk = message.get("body", b"")
        chunks.append(chunk)
        size += len(chunk)
        if size > max_bytes:
            raise _too_large(str(size), max_bytes)
        if not message.get("more_body"):
            return chunk if len(chunks) == 1 else b"".join(chunks)


async def while_awaited(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """What work comes to that takes long enough to be worth a look after the client. Raises WentAway, and ends the work."""
    working, gone = asyncio.create_task(work), asyncio.create_task(_disconnected(receive))
    try:
        await asyncio.wait((working, gone), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise WentAway
        return working.result()
    finally:
        gone.cancel()
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _parted(body: bytes, json_length: bytes) -> Body:
    found = int(json_length) if json_length.isdigit() and len(json_length) < 20 else -1
    if not 0 < found <= len(body):
        raise Refused(
            "malformed",
            f"the header Inference-Header-Content-Length is {brief(json_length.decode('latin-1'))},"
            f" expected 1 to {len(body)}, the bytes of the JSON in the body",
        )
    return Body(body[:found], body[found:])


def _too_large(found: str, max_bytes: int) -> Refused:
    return Refused(
        "too-large",
        f"the request body has {found} bytes or more, expected at most {max_bytes}; send fewer rows at once",
    )
