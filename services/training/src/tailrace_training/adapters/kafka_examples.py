"""The logs of labelled examples, as they stand in Kafka and in the archive behind it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping

from tailrace_contracts.ranges import Log, LogRanges
from tailrace_runtime.log import newest, read_ranges
from tailrace_runtime.objects import ObjectStore
from tailrace_runtime.records import Record
from tailrace_runtime.settings import KafkaSettings


class KafkaExampleLogs:
    """Reads one topic by offsets."""

    def __init__(self, settings: KafkaSettings, objects: ObjectStore, topic: str) -> None:
        self._settings = settings
        self._objects = objects
        self._topic = topic

    async def bounds(self) -> Mapping[Log, tuple[int, int]]:
        """First and next offset of each log that has records, as of now. Raises RetryLater."""
        return {
            each.log: (each.from_offset, each.through_offset + 1) for each in await newest(self._settings, self._topic)
        }

    async def read(self, ranges: LogRanges) -> AsyncIterator[list[Record]]:
        """The records of these ranges. Raises RangeUnavailable or RetryLater."""
        async for records in read_ranges(self._settings, ranges, self._objects):
            yield records
