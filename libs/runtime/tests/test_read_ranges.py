"""Reading log ranges back: from Kafka, and from the archive for what Kafka has forgotten."""

import io
from collections.abc import Awaitable, Callable

import pyarrow as pa
import pytest
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from pyarrow import parquet

from tailrace_contracts.ranges import LogRange, LogRanges
from tailrace_runtime.errors import RangeUnavailable
from tailrace_runtime.log import archive_key, newest, read_ranges
from tailrace_runtime.objects import ObjectStore
from tailrace_runtime.producer import Producer
from tailrace_runtime.records import Outgoing, Record
from tailrace_runtime.settings import ServiceSettings

Deployment = Callable[..., Awaitable[ServiceSettings]]
TOPIC = "predictions"


def run(first: int, last: int, partition: int = 0) -> LogRange:
    """Offsets first through last."""
    return LogRange(topic=TOPIC, partition=partition, from_offset=first, through_offset=last)


@pytest.fixture
async def written(deployment: Deployment) -> ServiceSettings:
    """A deployment with offsets 0 to 99 on partition 0, and 0 to 9 on partition 1."""
    settings = await deployment(TOPIC)
    producer = Producer(settings)
    await producer.start()
    await producer.send_all([Outgoing(TOPIC, f"{number}".encode(), b"k", 0) for number in range(100)])
    await producer.send_all([Outgoing(TOPIC, f"1-{number}".encode(), b"k", 1) for number in range(10)])
    await producer.stop()
    return settings


async def forget(settings: ServiceSettings, before: int) -> None:
    """Let Kafka forget partition 0 before this offset, as retention would."""
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka_bootstrap)
    await admin.start()
    await admin.delete_records({TopicPartition(settings.topic(TOPIC), 0): RecordsToDelete(before_offset=before)})
    await admin.close()


async def archive(objects: ObjectStore, held: LogRange, text: str = "{}") -> None:
    """Put a run into the archive, as ingestion does."""
    offsets = list(range(held.from_offset, held.through_offset + 1))
    table = pa.table(
        {
            "offset": offsets,
            "timestamp_ms": [1000 + offset for offset in offsets],
            "key": [b"k"] * len(offsets),
            "value": [text.format(offset).encode() for offset in offsets],
        }
    )
    sink = io.BytesIO()
    parquet.write_table(table, sink)
    await objects.put(archive_key(held), sink.getvalue())


async def everything(settings: ServiceSettings, ranges: LogRanges, objects: ObjectStore | None = None) -> list[Record]:
    """All records of the ranges."""
    return [record async for batch in read_ranges(settings, ranges, objects) for record in batch]


async def test_exactly_the_ranges_are_read(written: ServiceSettings) -> None:
    """A training would see more or less than its lineage says."""
    found = await everything(written, LogRanges.of(run(10, 19), run(40, 40), run(2, 3, partition=1)))
    assert [record.value for record in found] == [
        *(str(number).encode() for number in range(10, 20)),
        b"40",
        b"1-2",
        b"1-3",
    ]
    assert found[0].topic == TOPIC


async def test_the_newest_ranges_are_what_is_on_kafka(written: ServiceSettings) -> None:
    """A training of the newest examples would not know where they are."""
    await forget(written, 30)
    assert str(await newest(written, TOPIC)) == "predictions[0]@30..99, predictions[1]@0..9"


async def test_the_archive_stands_behind_kafka(written: ServiceSettings) -> None:
    """What retention removed could not be trained on or audited any more."""
    await forget(written, 50)
    objects = ObjectStore.from_url("memory:///")
    await archive(objects, run(0, 29))
    await archive(objects, run(20, 59), "late {}")
    found = await everything(written, LogRanges.of(run(5, 60)), objects)
    assert [record.offset for record in found] == list(range(5, 61))
    assert found[0].timestamp_ms == 1005
    assert [record.value for record in found][23:27] == [b"28", b"29", b"late 30", b"late 31"]
    assert found[-1].value == b"60"


async def test_a_hole_in_the_archive_is_said(written: ServiceSettings) -> None:
    """A training would silently use less than it names."""
    await forget(written, 50)
    objects = ObjectStore.from_url("memory:///")
    await archive(objects, run(0, 29))
    with pytest.raises(RangeUnavailable, match="the archive has no file with offset 30"):
        await everything(written, LogRanges.of(run(5, 60)), objects)
    with pytest.raises(RangeUnavailable, match="no archive was given"):
        await everything(written, LogRanges.of(run(5, 60)))


async def test_a_range_beyond_the_log_is_said(written: ServiceSettings) -> None:
    """A reader would wait for ever for records that nobody has written."""
    with pytest.raises(RangeUnavailable, match="which ends before offset 100"):
        await everything(written, LogRanges.of(run(90, 100)))
