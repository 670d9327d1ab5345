"""Reading log ranges back: Kafka first, and behind it the archive, for what retention has removed.

The archive lies in the object store, one Parquet file for each run of offsets, with the columns offset, timestamp_ms,
key and value. Files may overlap where a writer was killed between writing and committing; the reader goes by offset,
so each record comes once. Every offset of a range must be on Kafka or inside a file's run: else nothing is read at
all, because a training on less than it names would be worse than none.
"""

from __future__ import annotations

import asyncio
import io
import re
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from tailrace_contracts.ranges import Log, LogRange, LogRanges
from tailrace_runtime.errors import RangeUnavailable, RetryLater
from tailrace_runtime.health import progress
from tailrace_runtime.kafka import UNREACHABLE, close, connection, unreachable
from tailrace_runtime.objects import ObjectStore
from tailrace_runtime.records import Record
from tailrace_runtime.settings import KafkaSettings
from tailrace_runtime.topics import existing

BATCH_RECORDS = 2000
_POLL_MS = 500
_PATIENCE_SECONDS = 30.0
_FILE = re.compile(r"archive/(?P<topic>[^/]+)/(?P<partition>\d+)/(?P<first>\d{20})-(?P<last>\d{20})\.parquet")


def archive_key(run: LogRange) -> str:
    """Where the archive keeps this run of offsets."""
    return f"{archive_folder(run.log)}/{run.from_offset:020d}-{run.through_offset:020d}.parquet"


def archive_folder(log: Log) -> str:
    """The folder of one log."""
    return f"archive/{log.topic}/{log.partition}"


def archived_run(key: str) -> LogRange | None:
    """The run of offsets that an archive file holds; None for another key.

    >>> run = LogRange(topic="labels", partition=1, from_offset=5, through_offset=9)
    >>> archived_run(archive_key(run)) == run
    True
    """
    match = _FILE.fullmatch(key)
    if match is None:
        return None
    return LogRange(
        topic=match["topic"],
        partition=int(match["partition"]),
        from_offset=int(match["first"]),
        through_offset=int(match["last"]),
    )


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
            log = TopicPartition(settings.topic(each.topic), each.partition)
            first = await _first_on_kafka(consumer, log, each)
            if each.from_offset < first:
                through = min(each.through_offset, first - 1)
                old = each.model_copy(update={"through_offset": through})
                async for batch in _from_archive(old, objects):
                    yield batch
            if each.through_offset >= first:
                recent = each.model_copy(update={"from_offset": max(each.from_offset, first)})
                async for batch in _from_kafka(consumer, log, recent):
                    yield batch


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


async def _from_kafka(consumer: Any, log: TopicPartition, wanted: LogRange) -> AsyncIterator[list[Record]]:
    consumer.assign([log])
    consumer.seek(log, wanted.from_offset)
    seen = time.monotonic()
    while await consumer.position(log) <= wanted.through_offset:
        batch = (await consumer.getmany(log, timeout_ms=_POLL_MS, max_records=BATCH_RECORDS)).get(log, [])
        progress()
        if batch:
            seen = time.monotonic()
            yield [_record(wanted.topic, each) for each in batch if each.offset <= wanted.through_offset]
        elif time.monotonic() - seen > _PATIENCE_SECONDS:
            raise RetryLater(f"Kafka has given nothing of {wanted} for {_PATIENCE_SECONDS:g} s", 1.0)


def _record(topic: str, each: Any) -> Record:
    return Record(topic, each.partition, each.offset, each.timestamp, each.key, each.value, tuple(each.headers))


async def _from_archive(wanted: LogRange, objects: ObjectStore | None) -> AsyncIterator[list[Record]]:
    if objects is None:
        raise RangeUnavailable(f"{wanted} is no longer on Kafka, and no archive was given")
    runs = [run for key in await objects.list(archive_folder(wanted.log)) if (run := archived_run(key)) is not None]
    following = wanted.from_offset
    for run in _covering(wanted, runs):
        records = await asyncio.to_thread(_parsed, run, await objects.get(archive_key(run)))
        progress()
        batch = [each for each in records if following <= each.offset <= wanted.through_offset]
        following = run.through_offset + 1
        for start in range(0, len(batch), BATCH_RECORDS):
            yield batch[start : start + BATCH_RECORDS]


def _covering(wanted: LogRange, runs: Iterable[LogRange]) -> Sequence[LogRange]:
    """The runs to read for a range, in order: at each offset the one that reaches furthest.

    Raises:
        RangeUnavailable: some offsets lie in none.
    """
    candidates = sorted((run for run in runs if run.log == wanted.log), key=lambda run: run.from_offset)
    chosen: list[LogRange] = []
    following = wanted.from_offset
    while following <= wanted.through_offset:
        holding = [run for run in candidates if following in run]
        if not holding:
            raise RangeUnavailable(
                f"{wanted} is no longer on Kafka, and the archive has no file with offset {following}"
            )
        best = max(holding, key=lambda run: run.through_offset)
        chosen.append(best)
        following = best.through_offset + 1
    return chosen


def _parsed(run: LogRange, data: bytes) -> list[Record]:
    """The records of an archive file. pyarrow is loaded here, by those who need it."""
    from pyarrow import parquet

    table = parquet.read_table(io.BytesIO(data), columns=["offset", "timestamp_ms", "key", "value"])
    columns = (table.column(name).to_pylist() for name in ("offset", "timestamp_ms", "key", "value"))
    return [
        Record(run.topic, run.partition, offset, moment, key, value, ())
        for offset, moment, key, value in zip(*columns, strict=True)
    ]
