"""Reading topics outside of a consumer group: partials, what took effect, and where a group stands."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from tailrace_contracts.events import SpecTookEffect, decode
from tailrace_contracts.ranges import Log, LogRange, LogRanges
from tailrace_ingestion.ports import Places
from tailrace_runtime.errors import RetryLater
from tailrace_runtime.health import progress
from tailrace_runtime.kafka import connection, unreachable
from tailrace_runtime.log import read_ranges
from tailrace_runtime.records import Record
from tailrace_runtime.settings import KafkaSettings

_POLL_MS = 500
_FETCH_BYTES = 8 * 1024 * 1024


class KafkaPartials:
    """`window-partials`, read from its beginning to its present end."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings

    async def of_sources(self, partitions: Iterable[int]) -> Mapping[int, list[bytes]]:
        """Every partial of these source partitions, in order. Keys tell the source, so others are not decoded."""
        prefixes = {f"{partition}|".encode(): partition for partition in partitions}
        found: dict[int, list[bytes]] = {partition: [] for partition in prefixes.values()}
        async with _reader(self._settings, self._settings.topic("window-partials")) as consumer:
            async for record in _all_records(consumer):
                key = record.key or b""
                source = prefixes.get(key[: key.find(b"|") + 1])
                if source is not None and record.value is not None:
                    found[source].append(record.value)
        return found


class KafkaEffects:
    """`spec-effects`, read from its beginning to its present end."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings

    async def all(self) -> list[SpecTookEffect]:
        """Everything that was ever written down, in order."""
        async with _reader(self._settings, self._settings.topic("spec-effects")) as consumer:
            events = [decode(record.value) async for record in _all_records(consumer) if record.value is not None]
        return [event for event in events if isinstance(event, SpecTookEffect)]


class GroupOffsets:
    """Where the consumer group of a role stands."""

    def __init__(self, settings: KafkaSettings, group: str) -> None:
        self._settings = settings
        self._group = group

    async def places(self, logs: Iterable[Log]) -> Mapping[Log, Places]:
        """First, committed and end offset of each log."""
        partitions = {log: TopicPartition(self._settings.topic(log.topic), log.partition) for log in logs}
        async with _reader(self._settings) as consumer:
            first = await consumer.beginning_offsets(list(partitions.values()))
            end = await consumer.end_offsets(list(partitions.values()))
            committed = await self._committed()
        return {log: Places(first[each], committed.get(each, 0), end[each]) for log, each in partitions.items()}

    async def records(self, log: Log, start: int, end: int) -> AsyncIterator[Sequence[Record]]:
        """The records of a log from `start` on and before `end`."""
        wanted = LogRange(topic=log.topic, partition=log.partition, from_offset=start, through_offset=end - 1)
        async for batch in read_ranges(self._settings, LogRanges.of(wanted)):
            yield batch

    async def _committed(self) -> dict[TopicPartition, int]:
        admin = AIOKafkaAdminClient(**connection(self._settings))
        try:
            await admin.start()
            offsets = await admin.list_consumer_group_offsets(self._group)
        finally:
            await admin.close()
        return {partition: max(found.offset, 0) for partition, found in offsets.items()}


@asynccontextmanager
async def _reader(settings: KafkaSettings, *topics: str) -> AsyncIterator[Any]:
    """A consumer of no group, on all partitions of the topics. A broker that is away is a reason to try again later."""
    consumer = AIOKafkaConsumer(
        *topics,
        **connection(settings),
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        max_partition_fetch_bytes=_FETCH_BYTES,
    )
    try:
        await consumer.start()
        yield consumer
    except KafkaError as error:
        raise RetryLater(f"{unreachable(settings)}: {error!r}") from error
    finally:
        await consumer.stop()


async def _all_records(consumer: Any) -> AsyncIterator[Any]:
    """Every record of the consumer's topic up to its present end."""
    partitions: list[TopicPartition] = sorted(consumer.assignment())
    if not partitions:
        raise RetryLater("the topic has no partitions yet")
    ends = await consumer.end_offsets(partitions)
    while any([await consumer.position(partition) < end for partition, end in ends.items()]):
        for batch in (await consumer.getmany(timeout_ms=_POLL_MS)).values():
            progress()
            for record in batch:
                yield record
