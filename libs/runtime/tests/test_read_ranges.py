"""Reading log ranges back: from Kafka, and from the archive for what Kafka has forgotten."""

import json
import random
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete

from tailrace_contracts.ranges import LogRange, LogRanges
from tailrace_runtime.archive import ArchiveFile, archive_key, to_parquet
from tailrace_runtime.errors import RangeUnavailable
from tailrace_runtime.log import newest, read_kept, read_ranges
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
    offsets = range(held.from_offset, held.through_offset + 1)
    records = [Record(TOPIC, 0, each, 1000 + each, b"k", text.format(each).encode(), ()) for each in offsets]
    await objects.put(archive_key(held), to_parquet(records))


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


async def test_what_retention_has_taken_is_passed_over_where_asked(written: ServiceSettings) -> None:
    """A role that was away for longer than retention could never go on."""
    await forget(written, 30)
    assert [record.offset async for batch in read_kept(written, run(10, 32)) for record in batch] == [30, 31, 32]
    assert [batch async for batch in read_kept(written, run(10, 20))] == []


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


@pytest.fixture(params=["folder", "memory"])
def objects(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    """An object store of each kind."""
    return ObjectStore.from_url(tmp_path.as_uri() if request.param == "folder" else "memory:///")


async def test_a_range_reads_the_same_after_kafka_has_forgotten_it(
    deployment: Deployment, objects: ObjectStore
) -> None:
    """A replay or an audit from the archive would see other records than the first reader saw."""
    settings = await deployment(TOPIC)
    producer = Producer(settings)
    await producer.start()
    odd: list[dict[str, Any]] = [
        {"value": None, "key": b"tombstone"},
        {"value": b"", "key": None},
        {"value": b"\x00\xff no json", "key": b"\xff"},
        {"value": b'{"model": "rain", "time": "2024-01-01T00:00:00+02:00"}', "key": b"k", "timestamp_ms": 1},
        {
            "value": b'{"model": "rain", "time": "2024-01-01T00:00:00"}',
            "headers": (("a", b"1"), ("a", b""), ("b", b"\xfe")),
        },
        {"value": json.dumps({"model": "rain", "pad": "é" * 3000}).encode(), "headers": (("traceparent", b"00"),)},
    ]
    await producer.send_all([Outgoing(TOPIC, partition=0, **each) for each in odd * 20])
    await producer.stop()
    wanted = LogRanges.of(run(0, 119))
    first = await everything(settings, wanted)
    assert [(each.key, each.value, each.headers) for each in first[:6]] == [
        (each.get("key"), each["value"], each.get("headers", ())) for each in odd
    ]
    for start in range(0, 80, 40):
        await objects.put(archive_key(run(start, start + 39)), to_parquet(first[start : start + 40]))
    await forget(settings, 70)
    assert await everything(settings, wanted, objects) == first
    assert await everything(settings, LogRanges.of(run(33, 71)), objects) == first[33:72]
    await objects.put(archive_key(run(0, 119)), to_parquet(first))
    await forget(settings, 120)
    assert await everything(settings, wanted, objects) == first


async def test_files_that_are_merged_under_a_reader_are_found_again(
    written: ServiceSettings, objects: ObjectStore
) -> None:
    """A training would fail, or miss records, whenever the archive tidies up."""
    await forget(written, 60)
    for first in range(0, 60, 20):
        await archive(objects, run(first, first + 19))
    found: list[int] = []
    async for batch in read_ranges(written, LogRanges.of(run(5, 65)), objects):
        found += [record.offset for record in batch]
        if found[-1] == 19:
            await archive(objects, run(0, 59))
            for first in range(0, 60, 20):
                await objects.delete(archive_key(run(first, first + 19)))
    assert found == list(range(5, 66))


async def test_a_damaged_file_is_named(written: ServiceSettings, objects: ObjectStore) -> None:
    """A training would end in a traceback of the Parquet library, and nobody would know which file to restore."""
    await forget(written, 50)
    await objects.put(archive_key(run(0, 59)), b"PAR1 junk PAR1")
    with pytest.raises(RangeUnavailable, match=rf"file {archive_key(run(0, 59))} cannot be read"):
        await everything(written, LogRanges.of(run(5, 60)), objects)


class CountingStore(ObjectStore):
    """Counts what is fetched of objects that were opened."""

    fetched = 0

    def _range(self, key: str, start: int, end: int) -> bytes:
        self.fetched += end - start
        return super()._range(key, start, end)


async def test_only_the_row_groups_of_a_range_are_fetched() -> None:
    """Reading an hour would fetch, and hold, a file of a day."""
    objects = CountingStore.from_url("memory:///")
    assert isinstance(objects, CountingStore)
    noise = random.Random(1)
    records = [Record(TOPIC, 0, at, at, b"k", noise.randbytes(400), ()) for at in range(5_000)]
    await objects.put(archive_key(run(0, 4_999)), to_parquet(records, row_group_bytes=100_000))
    batches = ArchiveFile(objects, run(0, 4_999)).batches(run(2_000, 2_099))
    assert [each for batch in batches for each in batch] == records[2_000:2_100]
    assert 40_000 < objects.fetched < 400_000
