"""Following a topic: every process reads all of it, from the beginning, and keeps what it says in memory.

Made for compacted topics such as `model-specs` and `deployments`. `start` returns once everything that is on the topic
has been applied; from then on new records are applied in the background within milliseconds. No consumer group, no
commits: a restarted process reads the topic again.

A record that cannot be decoded is passed over, loudly: an error in the log and a count in the metrics. It must not stop
every process that follows the topic, and one dead letter from each of them at each start would help nobody. An error
in `on_event` does stop the follower, and with it the service.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError
from pydantic import ValidationError

from tailrace_contracts.events import Event, decode
from tailrace_runtime.kafka import UNREACHABLE, close, connection, unreachable
from tailrace_runtime.metrics import Metrics
from tailrace_runtime.records import Record
from tailrace_runtime.settings import KafkaSettings
from tailrace_runtime.topics import wait_for
from tailrace_runtime.waiting import until_available

log = structlog.get_logger(__name__)

OnEvent = Callable[[Event | None, Record], None]
_POLL_MS = 1000
_FETCH_WAIT_MS = 200
_MAX_RECORDS = 1000


class Follower:
    """Applies every record of a topic to `on_event`, in the order of each partition. A tombstone comes as None."""

    def __init__(
        self, settings: KafkaSettings, topic: str, on_event: OnEvent, *, metrics: Metrics | None = None
    ) -> None:
        self._settings = settings
        self._topic = topic
        self._on_event = on_event
        self._metrics = metrics or Metrics()
        self._consumer: Any = None
        self._partitions: list[TopicPartition] = []
        self._next: dict[TopicPartition, int] = {}
        self._applied = asyncio.Condition()
        self._task: asyncio.Task[None] | None = None

    def bind(self, metrics: Metrics) -> None:
        """Report to these metrics from now on (the service host's)."""
        self._metrics = metrics

    async def start(self) -> None:
        """Read to the present end, then go on in the background. Waits for a broker or a topic that is missing."""
        part = f"follower of {self._topic}"
        counts = await wait_for(self._settings, [self._topic], part=part)
        name = self._settings.topic(self._topic)
        self._partitions = [TopicPartition(name, number) for number in range(counts[self._topic])]
        ends = await until_available(part, unreachable(self._settings), self._connect, UNREACHABLE)
        self._task = asyncio.create_task(self._follow(), name=part)
        await self._until_applied(ends)

    async def refresh(self) -> None:
        """Return once everything that is on the topic at this moment has been applied."""
        await self._until_applied(await self._consumer.end_offsets(list(self._next)))

    async def wait(self) -> None:
        """Return when the follower has been stopped; raise what made it fail."""
        if self._task is not None:
            await asyncio.wait((self._task,))
            if not self._task.cancelled():
                self._task.result()

    async def stop(self) -> None:
        """Stop following."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._consumer is not None:
            await close(self._consumer)

    async def _connect(self) -> dict[TopicPartition, int]:
        """Connect, go to the beginning (or on from where we were), and say where the end is."""
        consumer = AIOKafkaConsumer(
            **connection(self._settings), enable_auto_commit=False, fetch_max_wait_ms=_FETCH_WAIT_MS
        )
        try:
            await consumer.start()
            consumer.assign(self._partitions)
            starts = await consumer.beginning_offsets(self._partitions)
            ends: dict[TopicPartition, int] = await consumer.end_offsets(self._partitions)
            for partition in self._partitions:
                self._next.setdefault(partition, starts[partition])
                consumer.seek(partition, self._next[partition])
        except BaseException:
            await close(consumer)
            raise
        self._consumer = consumer
        return ends

    async def _follow(self) -> None:
        while True:
            try:
                batches = await self._consumer.getmany(timeout_ms=_POLL_MS, max_records=_MAX_RECORDS)
            except KafkaError as error:
                log.warning("follower reconnects", topic=self._topic, error=repr(error))
                await close(self._consumer)
                part = f"follower of {self._topic}"
                await until_available(part, unreachable(self._settings), self._connect, UNREACHABLE)
                continue
            for partition, batch in batches.items():
                self._apply(batch)
                self._next[partition] = batch[-1].offset + 1
            async with self._applied:
                await self._note_positions()
                self._applied.notify_all()

    async def _note_positions(self) -> None:
        """Count offsets that hold no record (compacted away at the end of the log) as read."""
        for partition in self._next:
            self._next[partition] = max(self._next[partition], await self._consumer.position(partition))

    def _apply(self, batch: Iterable[Any]) -> None:
        for each in batch:
            record = Record(
                self._topic, each.partition, each.offset, each.timestamp, each.key, each.value, tuple(each.headers)
            )
            self._apply_one(record)
            self._metrics.count("tailrace_follower_records_total", topic=self._topic)

    def _apply_one(self, record: Record) -> None:
        try:
            event = None if record.value is None else decode(record.value)
        except ValidationError as error:
            self._metrics.count("tailrace_follower_undecodable_total", topic=self._topic)
            log.error("record passed over: it cannot be decoded", place=str(record), error=str(error))  # noqa: TRY400
            return
        self._on_event(event, record)

    async def _until_applied(self, ends: dict[TopicPartition, int]) -> None:
        async with self._applied:
            while any(self._next[partition] < end for partition, end in ends.items()):
                if self._task is not None and self._task.done():
                    self._task.result()
                try:
                    await asyncio.wait_for(self._applied.wait(), 1.0)
                except TimeoutError:
                    continue
