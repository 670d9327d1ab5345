"""Asking models over Kafka: a request goes out, its reply comes back, once for each request id.

A client reads the reply topic from the moment it started, all of its partitions and without a consumer group, and tells
the replies to its own requests from those to others by the header `correlation-id`, before it decodes anything. A
request without a reply is sent again after `again_seconds`, the same bytes under the same key: serving gives it the
same answers and counts it once (docs/reference/serving-api.md has the bounds). Of several replies the first counts.
Any number of requests may be under way at once.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, NamedTuple, Self

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError
from pydantic import ValidationError

from tailrace_client.publisher import sentence
from tailrace_contracts.cloudevents import Headers, headers
from tailrace_contracts.events import FeatureValue, InferenceAnswered, InferenceRequested

REQUESTS, REPLIES = "inference-requests", "inference-replies"
CORRELATION, REPLY_TOPIC = "correlation-id", "reply-topic"


class InferenceError(Exception):
    """A request without an answer; its text says why and what to do."""


class InferenceRefused(InferenceError):  # noqa: N818 — a fact, as in the runtime's errors
    """The service refused the request, or could not answer it; its text is the service's own sentence.

    `code` is the kind: malformed, unknown, too-large, unacceptable, unexplainable; `unavailable` may pass.
    """

    def __init__(self, code: str, said: str) -> None:
        super().__init__(said)
        self.code = code


class NoReply(InferenceError):  # noqa: N818 — a fact, as in the runtime's errors
    """No reply came in time. Asked again under `request_id`, the request still counts once."""

    def __init__(self, request_id: str, seconds: float) -> None:
        super().__init__(
            f"no reply to request {request_id!r} within {seconds:g} s; see whether serving runs, and ask again under the"
            " same request_id: it counts once"
        )
        self.request_id = request_id


class _Sendable(NamedTuple):
    """A request as it goes onto its topic, however often."""

    key: bytes
    value: bytes
    headers: Headers


class InferenceClient:
    """Asks models over Kafka, from a coroutine.

    Args:
        bootstrap: the broker's `host:port`, or several, separated by commas.
        topic_prefix: the deployment's prefix, if it has one.
        reply_topic: where the replies are to come, one of serving's `reply_topics`. Every client of a topic reads all
            that is on it, so a busy deployment gives its callers topics of their own.
        source: who asks, for the events' `ce_source`.
        again_seconds: how long to wait for a reply before the request is sent again.

    """

    def __init__(
        self,
        bootstrap: str,
        *,
        topic_prefix: str = "",
        reply_topic: str = REPLIES,
        source: str = "/client",
        again_seconds: float = 5,
    ) -> None:
        self._bootstrap = bootstrap
        self._prefix = topic_prefix
        self._reply_topic = reply_topic
        self._source = source
        self._again_seconds = again_seconds
        self._name = uuid.uuid4().hex
        self._numbers = itertools.count()
        self._waiting: dict[bytes, asyncio.Future[bytes]] = {}
        self._producer: Any = None
        self._consumer: Any = None
        self._reading: asyncio.Task[None] | None = None

    # ------------------------------------------------------------ connecting

    async def start(self) -> None:
        """Connect, and listen from here on. Raises InferenceError when no broker answers, or it has no such topic."""
        try:
            await self._connect()
        except InferenceError:
            await self.stop()
            raise
        except KafkaError as error:
            await self.stop()
            msg = f"no Kafka broker answers at {self._bootstrap} ({error}); start one, or correct the address"
            raise InferenceError(msg) from None
        self._reading = asyncio.create_task(self._read(), name="tailrace-inference-replies")

    async def _connect(self) -> None:
        wanted = {self._prefix + REQUESTS, self._prefix + self._reply_topic}
        missing = wanted - await _topics(self._bootstrap)
        if missing:
            msg = (
                f"Kafka at {self._bootstrap} has no topic {min(missing)}; start Tailrace there, or correct topic_prefix or"
                " reply_topic"
            )
            raise InferenceError(msg)
        self._producer = AIOKafkaProducer(bootstrap_servers=self._bootstrap, acks="all", enable_idempotence=True)
        self._consumer = AIOKafkaConsumer(
            self._prefix + self._reply_topic,
            bootstrap_servers=self._bootstrap,
            auto_offset_reset="latest",
            enable_auto_commit=False,
        )
        await self._producer.start()
        await self._consumer.start()
        for partition in self._consumer.assignment():
            await self._consumer.position(partition)  # decided now, not at the first fetch

    async def stop(self) -> None:
        """Disconnect. Requests that still wait for a reply end in InferenceError."""
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)
            self._reading = None
        self._fail("the client was stopped")
        for each in (self._consumer, self._producer):
            if each is not None:
                await each.stop()
        self._consumer = self._producer = None

    async def __aenter__(self) -> Self:
        """Start."""
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop."""
        await self.stop()

    # ------------------------------------------------------------ asking

    async def infer(  # one argument for each field that a caller knows
        self,
        model: str,
        rows: Sequence[Mapping[str, FeatureValue]],
        *,
        request_id: str | None = None,
        version: str | None = None,
        prediction_ids: Sequence[str] | None = None,
        entity: str | None = None,
        time: datetime | None = None,
        explain: bool = False,
        timeout_seconds: float = 30,
    ) -> InferenceAnswered:
        """Ask a model about rows of features; the reply has an answer for each, in `answers`.

        `request_id` (default: made here) names the question: asked again under it, with the same arguments, it has the
        same prediction ids and counts once. `time` is the event's (default: now) and needs an offset.

        Raises:
            InferenceRefused: the service says what is wrong with the request, or why it cannot answer.
            NoReply: none came within `timeout_seconds`.
            InferenceError: the arguments are no request, or it cannot be sent.
        """
        try:
            request = InferenceRequested(
                request_id=request_id or uuid.uuid4().hex,
                model=model,
                version=version,
                rows=tuple(dict(row) for row in rows),
                prediction_ids=None if prediction_ids is None else tuple(prediction_ids),
                entity=entity,
                time=time,
                explain=explain,
            )
        except ValidationError as error:
            raise InferenceError(sentence("request", error)) from None
        _check_numbers(request.rows)
        return _answered(await self._replied(request, timeout_seconds))

    async def _replied(self, request: InferenceRequested, seconds: float) -> bytes:
        if self._reading is None:
            msg = "the client is not started; use it in an `async with` block, or call start()"
            raise InferenceError(msg)
        if self._reading.done():
            raise InferenceError(_lost(self._bootstrap))
        correlation = f"{self._name}-{next(self._numbers)}".encode()
        reply = self._waiting[correlation] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(seconds):
                return await self._asked(self._sendable(request, correlation), reply)
        except TimeoutError:
            raise NoReply(request.request_id, seconds) from None
        except KafkaError as error:
            msg = f"request {request.request_id!r} could not be sent to {self._bootstrap} ({error}); ask again"
            raise InferenceError(msg) from None
        finally:
            del self._waiting[correlation]

    async def _asked(self, request: _Sendable, reply: asyncio.Future[bytes]) -> bytes:
        """Send the request until it is replied to."""
        while not reply.done():
            await self._producer.send_and_wait(
                self._prefix + REQUESTS, request.value, key=request.key, headers=list(request.headers)
            )
            await asyncio.wait((reply,), timeout=self._again_seconds)
        return reply.result()

    def _sendable(self, request: InferenceRequested, correlation: bytes) -> _Sendable:
        named = headers(request, event_id=request.request_id, source=self._source, now=datetime.now(UTC))
        own = ((CORRELATION, correlation), (REPLY_TOPIC, self._reply_topic.encode()))
        return _Sendable(request.request_id.encode(), request.encode(), (*named, *own))

    # ------------------------------------------------------------ listening

    async def _read(self) -> None:
        try:
            async for record in self._consumer:
                for name, value in record.headers:
                    if name == CORRELATION:
                        self._note(value, record.value)
        except KafkaError as error:
            self._fail(f"{_lost(self._bootstrap)} ({error})")

    def _note(self, correlation: bytes, value: bytes) -> None:
        reply = self._waiting.get(correlation)
        if reply is not None and not reply.done():
            reply.set_result(value)

    def _fail(self, why: str) -> None:
        for reply in self._waiting.values():
            if not reply.done():
                reply.set_exception(InferenceError(why))


def _check_numbers(rows: Sequence[Mapping[str, FeatureValue]]) -> None:
    """Refuse what JSON has no word for: it would arrive as a missing value."""
    for index, row in enumerate(rows):
        for name, value in row.items():
            if isinstance(value, float) and not math.isfinite(value):
                where = f"row {index}: " if len(rows) > 1 else ""
                what = "NaN" if math.isnan(value) else "infinite"
                msg = f"{where}feature {name!r} is {what}, expected a finite number; give None for a missing value"
                raise InferenceError(msg)


async def _topics(bootstrap: str) -> set[str]:
    """What is on this broker; asked for by name, a topic that is missing would be waited for."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    try:
        await admin.start()
        return set(await admin.list_topics())
    finally:
        await admin.close()


def _lost(bootstrap: str) -> str:
    return f"the replies from {bootstrap} can no longer be read; start the client again"


def _answered(value: bytes) -> InferenceAnswered:
    """The answers in a reply. Raises InferenceRefused where it says why there are none."""
    try:
        reply = InferenceAnswered.model_validate_json(value)
    except ValidationError as error:
        raise InferenceError(sentence("reply", error)) from None
    if reply.error is not None:
        raise InferenceRefused(reply.code or "unavailable", reply.error)
    return reply
