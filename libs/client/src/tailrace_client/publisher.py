"""The producer API: one event a call, batched on its way, acknowledged by the broker at `flush`.

A call checks the event's shape at once (a wrong type raises there, not in a dead-letter topic) and queues it; the
Kafka client sends queued events in batches. A delivery that fails is raised by the next `flush`, with its count. The
synchronous publisher runs the asynchronous one on an event loop in a thread of its own.
"""

from __future__ import annotations

import asyncio
import threading
import uuid
from collections.abc import Coroutine, Mapping
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self, TypeVar

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError
from pydantic import ValidationError

from tailrace_contracts.cloudevents import headers
from tailrace_contracts.events import ArmOutput, Event, FeatureValue, LabelGiven, PredictionMade

T = TypeVar("T")

PREDICTIONS, LABELS = "prediction-events", "label-events"


class PublishError(Exception):
    """An event that cannot be published; its text says why and what to do."""


class AsyncPublisher:
    """Publishes predictions and labels from a coroutine.

    Args:
        bootstrap: the broker's `host:port`, or several, separated by commas.
        topic_prefix: the deployment's prefix, if it has one.
        source: who publishes, for the events' `ce_source`.
        delivery_seconds: how long the broker may take to acknowledge before `flush` raises.

    """

    def __init__(
        self, bootstrap: str, *, topic_prefix: str = "", source: str = "/client", delivery_seconds: float = 60
    ) -> None:
        self._bootstrap = bootstrap
        self._prefix = topic_prefix
        self._source = source
        self._delivery_seconds = delivery_seconds
        self._producer: AIOKafkaProducer | None = None
        self._pending: set[asyncio.Future[Any]] = set()
        self._failed: list[BaseException] = []

    async def start(self) -> None:
        """Connect. Raises PublishError when no broker answers."""
        producer = AIOKafkaProducer(
            bootstrap_servers=self._bootstrap, acks="all", enable_idempotence=True, linger_ms=5, max_batch_size=131_072
        )
        try:
            await producer.start()
        except KafkaError as error:
            await producer.stop()
            msg = f"no Kafka broker answers at {self._bootstrap} ({error}); start one, or correct the address"
            raise PublishError(msg) from None
        self._producer = producer

    async def prediction(  # one argument for each field that a producer knows
        self,
        *,
        model: str,
        features: Mapping[str, FeatureValue],
        prediction: float | None = None,
        probability: float | None = None,
        prediction_id: str | None = None,
        time: datetime | None = None,
        entity: str | None = None,
    ) -> str:
        """Publish one prediction of the caller's own model, or (without `prediction`) one observation.

        Returns the prediction id by which the label will come. `probability` is that of the positive class (a
        regression has none); `time` is the event's (default: now) and needs an offset. Raises PublishError when the event's shape is wrong.
        """
        question = prediction_id or uuid.uuid4().hex
        served = None
        try:
            if prediction is not None:
                served = ArmOutput(arm="external", prediction=prediction, probability=probability)
            event = PredictionMade(
                prediction_id=question,
                model=model,
                time=time or datetime.now(UTC),
                features=dict(features),
                served=served,
                entity=entity,
            )
        except ValidationError as error:
            raise PublishError(sentence("prediction", error)) from None
        await self.publish(PREDICTIONS, question, event)
        return question

    async def label(self, prediction_id: str, *, model: str, label: float, time: datetime | None = None) -> None:
        """Publish the truth for one prediction; once more with another value corrects it."""
        try:
            event = LabelGiven(prediction_id=prediction_id, model=model, time=time or datetime.now(UTC), label=label)
        except ValidationError as error:
            raise PublishError(sentence("label", error)) from None
        await self.publish(LABELS, prediction_id, event)

    async def publish(self, topic: str, key: str, event: Event) -> None:
        """Queue any event of the contracts on a topic of the catalogue."""
        now = datetime.now(UTC)
        await self.publish_bytes(
            topic, key, event.encode(), headers(event, event_id=uuid.uuid4().hex, source=self._source, now=now)
        )

    async def publish_bytes(
        self, topic: str, key: str, value: bytes, record_headers: tuple[tuple[str, bytes], ...] = ()
    ) -> None:
        """Queue a value as it is, unchecked: what is wrong with it, ingestion will say in the dead-letters."""
        if self._producer is None:
            msg = "the publisher is not started; use it in a `with` block, or call start()"
            raise PublishError(msg)
        sent = await self._producer.send(self._prefix + topic, value, key=key.encode(), headers=list(record_headers))
        self._pending.add(sent)
        sent.add_done_callback(self._settled)

    def _settled(self, sent: asyncio.Future[Any]) -> None:
        self._pending.discard(sent)
        if not sent.cancelled() and (error := sent.exception()) is not None:
            self._failed.append(error)

    async def flush(self) -> None:
        """Wait until the broker has acknowledged every event. Raises PublishError with the count of those it did not."""
        late: set[asyncio.Future[Any]] = set()
        if self._pending:
            _, late = await asyncio.wait(self._pending, timeout=self._delivery_seconds)
        if late or self._failed:
            count, why = len(late) + len(self._failed), self._failed[:1]
            self._failed.clear()
            reason = f"{why[0]}" if why else f"no acknowledgement within {self._delivery_seconds:g} s"
            msg = f"{count} events were not acknowledged by {self._bootstrap} ({reason}); publish them again"
            raise PublishError(msg)

    async def stop(self) -> None:
        """Flush and disconnect."""
        try:
            await self.flush()
        finally:
            if self._producer is not None:
                await self._producer.stop()
                self._producer = None

    async def __aenter__(self) -> Self:
        """Start."""
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop, flushing first."""
        await self.stop()


class Publisher:
    """`AsyncPublisher` for programs without an event loop: the same arguments, the same verbs, plain calls."""

    def __init__(
        self, bootstrap: str, *, topic_prefix: str = "", source: str = "/client", delivery_seconds: float = 60
    ) -> None:
        self._inner = AsyncPublisher(
            bootstrap, topic_prefix=topic_prefix, source=source, delivery_seconds=delivery_seconds
        )
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="tailrace-publisher", daemon=True)

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def start(self) -> None:
        """Connect. Raises PublishError when no broker answers."""
        self._thread.start()
        try:
            self._run(self._inner.start())
        except PublishError:
            self._end()
            raise

    def prediction(
        self,
        *,
        model: str,
        features: Mapping[str, FeatureValue],
        prediction: float | None = None,
        probability: float | None = None,
        prediction_id: str | None = None,
        time: datetime | None = None,
        entity: str | None = None,
    ) -> str:
        """Publish one prediction; see `AsyncPublisher.prediction`."""
        return self._run(
            self._inner.prediction(
                model=model,
                features=features,
                prediction=prediction,
                probability=probability,
                prediction_id=prediction_id,
                time=time,
                entity=entity,
            )
        )

    def label(self, prediction_id: str, *, model: str, label: float, time: datetime | None = None) -> None:
        """Publish one label; see `AsyncPublisher.label`."""
        self._run(self._inner.label(prediction_id, model=model, label=label, time=time))

    def flush(self) -> None:
        """Wait for the broker's acknowledgements; see `AsyncPublisher.flush`."""
        self._run(self._inner.flush())

    def stop(self) -> None:
        """Flush, disconnect and end the thread."""
        try:
            self._run(self._inner.stop())
        finally:
            self._end()

    def _end(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def __enter__(self) -> Self:
        """Start."""
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop, flushing first."""
        self.stop()


def sentence(what: str, error: ValidationError) -> str:
    """What is wrong with an event, in one sentence."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    return f"{what}: {where}: {first['msg']}, found {first['input']!r}"
