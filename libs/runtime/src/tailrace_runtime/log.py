"""Reading log ranges back: Kafka first, and behind it the archive, for what retention has removed.

A range reads the same from either, byte for byte: offsets, broker times, keys, values, headers. It may lie partly on
Kafka and partly in the archive, and move from one to the other while it is being read. Files of the archive may overlap,
where a writer was killed or where small files were just merged; the reader goes by offset, so each record comes once.
Every offset of a range must be on Kafka or inside a file's run: else nothing of it is read at all, because a training on
less than it names would be worse than none.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from contextlib import aclosing, asynccontextmanager
from typing import Any

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError, OffsetOutOfRangeError

from tailrace_contracts.ranges import Log, LogRange, LogRanges
from tailrace_runtime.archive import BATCH_RECORDS, ArchiveFile, archive_folder, archive_key, archived_run
from tailrace_runtime.errors import ObjectMissing, RangeUnavailable, RetryLater
from tailrace_runtime.health import progress
from tailrace_runtime.kafka import UNREACHABLE, close, connection, unreachable
from tailrace_runtime.objects import ObjectStore
from tailrace_runtime.records import Record
from tailrace_runtime.settings import KafkaSettings
from tailrace_runtime.topics import existing

_log = structlog.get_logger(__name__)

_POLL_MS = 500
_PATIENCE_SECONDS = 30.0


async def read_ranges(
    settings: KafkaSettings, ranges: LogRanges, objects: ObjectStore | None = None
) -> AsyncIterator[list[Record]]:
    """The records of the ranges, in the order of the ranges, in batches of one log each.

    Raises:
        RangeUnavailable: neither Kafka nor the archive has all of a range.
        RetryLater: Kafka or the object store is away.
    """
    async with _consumer(settings) as consumer:
        for each in ranges:
            async for batch in _read(
                consumer, TopicPartition(settings.topic(each.topic), each.partition), each, objects
            ):
                yield batch


async def read_kept(settings: KafkaSettings, wanted: LogRange) -> AsyncGenerator[list[Record], None]:
    """The records of a range that Kafka still has. What retention has taken is passed over.

    Raises:
        RangeUnavailable: the range goes beyond the log's end.
        RetryLater: Kafka is away.
    """
    log = TopicPartition(settings.topic(wanted.topic), wanted.partition)
    async with _consumer(settings) as consumer:
        rest: LogRange | None = wanted
        while rest is not None and (rest := _after(rest, await _first_on_kafka(consumer, log, rest) - 1)) is not None:
            try:
                async for batch in _from_kafka(consumer, log, rest):
                    rest = _after(rest, batch[-1].offset)
                    yield batch
            except OffsetOutOfRangeError:
                continue  # retention was faster: look again where the log begins
            return


async def _read(
    consumer: Any, log: TopicPartition, wanted: LogRange, objects: ObjectStore | None
) -> AsyncGenerator[list[Record], None]:
    """One range, from whoever has the next offset: retention may take records away while the range is being read."""
    rest: LogRange | None = wanted
    while rest is not None:
        first = await _first_on_kafka(consumer, log, rest)
        if rest.from_offset < first:
            part = rest.model_copy(update={"through_offset": min(rest.through_offset, first - 1)})
            source = _from_archive(part, objects)
        else:
            part, source = rest, _from_kafka(consumer, log, rest)
        async with aclosing(source):
            try:
                async for batch in source:
                    rest = _after(rest, batch[-1].offset)
                    yield batch
                rest = _after(rest, part.through_offset)
            except OffsetOutOfRangeError:
                _log.info("retention was faster than the reader, going on in the archive", rest=str(rest))


def _after(wanted: LogRange | None, offset: int) -> LogRange | None:
    """What is left of a range once this offset has been read."""
    if wanted is None or offset >= wanted.through_offset:
        return None
    return wanted.model_copy(update={"from_offset": max(offset + 1, wanted.from_offset)})


async def newest(settings: KafkaSettings, topic: str) -> LogRanges:
    """Everything that Kafka has of a topic now, as ranges."""
    async with _consumer(settings) as consumer:
        count = (await existing(settings)).get(topic, 0)
        logs = [TopicPartition(settings.topic(topic), number) for number in range(count)]
        starts, ends = await consumer.beginning_offsets(logs), await consumer.end_offsets(logs)
        return LogRanges(
            tuple(
                LogRange(topic=topic, partition=log.partition, from_offset=starts[log], through_offset=ends[log] - 1)
                for log in logs
                if ends[log] > starts[log]
            )
        )


@asynccontextmanager
async def _consumer(settings: KafkaSettings) -> AsyncIterator[Any]:
    """A consumer without a group; its errors are `RetryLater`, because reading again is always right."""
    consumer = AIOKafkaConsumer(
        **connection(settings), enable_auto_commit=False, auto_offset_reset="none", fetch_max_wait_ms=100
    )
    try:
        await consumer.start()
        yield consumer
    except UNREACHABLE as error:
        raise RetryLater(f"{unreachable(settings)}: {error!r}", 1.0) from error
    finally:
        await close(consumer)


async def _first_on_kafka(consumer: Any, log: TopicPartition, wanted: LogRange) -> int:
    """The first offset that Kafka still has.

    Raises:
        RangeUnavailable: the range goes beyond the log's end.
    """
    try:
        starts, ends = await consumer.beginning_offsets([log]), await consumer.end_offsets([log])
    except KafkaError as error:
        raise RetryLater(f"the log of {wanted} cannot be looked up: {error!r}", 1.0) from error
    if wanted.through_offset >= ends[log]:
        raise RangeUnavailable(f"{wanted} goes beyond the log, which ends before offset {ends[log]}")
    return int(starts[log])


async def _from_kafka(consumer: Any, log: TopicPartition, wanted: LogRange) -> AsyncGenerator[list[Record], None]:
    consumer.assign([log])
    consumer.seek(log, wanted.from_offset)
    seen = time.monotonic()
    while await consumer.position(log) <= wanted.through_offset:
        batch = (await consumer.getmany(log, timeout_ms=_POLL_MS, max_records=BATCH_RECORDS)).get(log, [])
        progress()
        if batch:
            seen = time.monotonic()
            inside = [_record(wanted.topic, each) for each in batch if each.offset <= wanted.through_offset]
            if inside:
                yield inside
        elif time.monotonic() - seen > _PATIENCE_SECONDS:
            raise RetryLater(f"Kafka has given nothing of {wanted} for {_PATIENCE_SECONDS:g} s", 1.0)


def _record(topic: str, each: Any) -> Record:
    return Record(topic, each.partition, each.offset, each.timestamp, each.key, each.value, tuple(each.headers))


async def _from_archive(wanted: LogRange, objects: ObjectStore | None) -> AsyncGenerator[list[Record], None]:
    if objects is None:
        raise RangeUnavailable(f"{wanted} is no longer on Kafka, and no archive was given")
    rest: LogRange | None = wanted
    missing = None
    while rest is not None:
        run = _holding(rest, wanted, await _runs(objects, wanted.log))
        if run == missing:
            raise RangeUnavailable(f"the archive's file {archive_key(run)} is listed, but cannot be fetched")
        try:
            async for batch in _from_file(objects, run, rest):
                rest = _after(rest, batch[-1].offset)
                yield batch
            rest = _after(rest, run.through_offset)
        except ObjectMissing:
            missing = run  # merged into a larger file since it was listed: look again


async def _runs(objects: ObjectStore, log: Log) -> list[LogRange]:
    return [run for key in await objects.list(archive_folder(log)) if (run := archived_run(key)) is not None]


async def _from_file(objects: ObjectStore, run: LogRange, wanted: LogRange) -> AsyncIterator[list[Record]]:
    batches = (await asyncio.to_thread(ArchiveFile, objects, run)).batches(wanted)
    while (batch := await asyncio.to_thread(next, batches, None)) is not None:
        progress()
        if batch:
            yield batch


def _holding(rest: LogRange, wanted: LogRange, runs: Iterable[LogRange]) -> LogRange:
    """Of the files that hold the next offset the one that reaches furthest: merged ones before their parts.

    Raises:
        RangeUnavailable: some offset of the range lies in no file. This is found before the first one is read.
    """
    chosen: list[LogRange] = []
    following = rest.from_offset
    while following <= rest.through_offset:
        holding = [run for run in runs if following in run]
        if not holding:
            raise RangeUnavailable(
                f"{wanted} is no longer on Kafka, and the archive has no file with offset {following}"
            )
        chosen.append(max(holding, key=lambda run: run.through_offset))
        following = chosen[-1].through_offset + 1
    return chosen[0]
