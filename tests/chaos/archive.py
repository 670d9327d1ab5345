"""The archive, read back after Kafka has forgotten: every offset once, every byte as it was."""

from __future__ import annotations

from collections.abc import Sequence

from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete

from tailrace_contracts.ranges import LogRange, LogRanges
from tailrace_ingestion.settings import IngestionSettings
from tailrace_runtime.archive import archive_folder, archived_run
from tailrace_runtime.errors import RangeUnavailable
from tailrace_runtime.log import read_ranges
from tailrace_runtime.objects import ObjectStore
from tailrace_runtime.records import Record
from tests.chaos.readout import Logs, Row

ARCHIVED = ("predictions", "labelled-examples")


async def archived_through(settings: IngestionSettings, logs: Logs) -> bool:
    """Whether files reach to the end of each log."""
    objects = ObjectStore.from_url(settings.object_store)
    for topic in ARCHIVED:
        for records in logs[topic].values():
            names = await objects.list(archive_folder(records[-1].log))
            runs = [run for name in names if (run := archived_run(name))]
            if max((run.through_offset for run in runs), default=-1) < records[-1].offset:
                return False
    return True


async def read_back(settings: IngestionSettings, logs: Logs) -> list[Row]:
    """Delete the records from Kafka, then read them all."""
    whole = {topic: [_range(records) for records in logs[topic].values()] for topic in ARCHIVED}
    await _forget(settings, [each for ranges in whole.values() for each in ranges])
    objects = ObjectStore.from_url(settings.object_store)
    return [await _row(settings, objects, topic, LogRanges.of(*ranges), logs) for topic, ranges in whole.items()]


async def _row(settings: IngestionSettings, objects: ObjectStore, topic: str, ranges: LogRanges, logs: Logs) -> Row:
    wanted = {(r.partition, r.offset): (r.key, r.value) for records in logs[topic].values() for r in records}
    found: dict[tuple[int, int], tuple[bytes | None, bytes | None]] = {}
    differences, count = [], 0
    try:
        async for batch in read_ranges(settings, ranges, objects):
            count += len(batch)
            found |= {(r.partition, r.offset): (r.key, r.value) for r in batch}
    except RangeUnavailable as error:
        differences.append(str(error))
    differences += [f"{topic}{place} differs" for place in wanted if found.get(place) != wanted[place]][:3]
    return Row(f"archive of {topic}", len(wanted), count, tuple(differences))


def _range(records: Sequence[Record]) -> LogRange:
    first, last = records[0], records[-1]
    return LogRange(topic=first.topic, partition=first.partition, from_offset=first.offset, through_offset=last.offset)


async def _forget(settings: IngestionSettings, ranges: list[LogRange]) -> None:
    """Delete records up to these ends, as retention would."""
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka_bootstrap)
    await admin.start()
    try:
        await admin.delete_records(
            {
                TopicPartition(settings.topic(each.topic), each.partition): RecordsToDelete(each.through_offset + 1)
                for each in ranges
            }
        )
    finally:
        await admin.close()
