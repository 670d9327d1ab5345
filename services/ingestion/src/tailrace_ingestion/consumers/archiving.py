"""The role `archive`: predictions and examples to Parquet files, so that log ranges outlive the topics.

Records wait in memory, log by log, until they make a file of sensible size or are half a minute old. A file is named
for the offsets that it holds; the offsets are committed once it is in the object store. After a crash a file may be
written again with another end: files may overlap, and readers go by offset. A gap in the offsets (retention was faster
than this role) ends a file, so that no name claims records that the file does not have.

Small files are merged into larger ones beside all this (compacting.py). What waits in memory is bounded by `max_bytes`
for each partition in hand, and by one batch more.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from tailrace_contracts.ranges import Log, LogRange
from tailrace_ingestion.consumers.compacting import Compacting
from tailrace_ingestion.ports import Objects
from tailrace_runtime.archive import archive_key
from tailrace_runtime.consumer import Outcome, Stateless
from tailrace_runtime.errors import RetryLater
from tailrace_runtime.metrics import Metrics
from tailrace_runtime.records import Record

ToFile = Callable[[Sequence[Record]], bytes]


@dataclass(slots=True)
class Waiting:
    """Records of one log that are not in a file yet."""

    since: float
    size_bytes: int = 0
    records: list[Record] = field(default_factory=list)

    def add(self, records: Sequence[Record]) -> None:
        """Take records in; those that it has already (a batch that is tried again) are left out."""
        through = self.records[-1].offset if self.records else -1
        new = [record for record in records if record.offset > through]
        self.records.extend(new)
        self.size_bytes += sum(map(_size_bytes, new))


def _size_bytes(record: Record) -> int:
    headers = sum(len(name) + len(value) for name, value in record.headers)
    return len(record.value or b"") + len(record.key or b"") + headers


class Archiving(Stateless):
    """State: what waits for its file."""

    def __init__(  # two ports, two limits, the clock, the metrics, and what goes on beside
        self,
        objects: Objects,
        to_file: ToFile,
        metrics: Metrics,
        compacting: Compacting,
        *,
        max_bytes: int,
        max_seconds: float,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._objects = objects
        self._to_file = to_file
        self._metrics = metrics
        self._compacting = compacting
        self._max_bytes = max_bytes
        self._max_seconds = max_seconds
        self._monotonic = monotonic
        self._waiting: dict[Log, Waiting] = {}

    async def records(self, records: Sequence[Record]) -> Outcome:
        """A batch of any archived topic; committed when its file is written."""
        log = records[0].log
        waiting = self._waiting.setdefault(log, Waiting(self._monotonic()))
        waiting.add(records)
        if waiting.size_bytes >= self._max_bytes:
            return Outcome(commit_through=await self._write(log))
        return Outcome(commit_through=-1)

    async def tick(self) -> Mapping[Log, Outcome]:
        """Write what has waited for long enough, and let the merging go on."""
        self._compacting.go_on()
        before = self._monotonic() - self._max_seconds
        due = [log for log, waiting in self._waiting.items() if waiting.since <= before]
        written: dict[Log, Outcome] = {}
        for log in due:
            try:
                written[log] = Outcome(commit_through=await self._write(log))
            except RetryLater:
                if not written:
                    raise
                break
        return written

    async def assigned(self, logs: set[Log]) -> dict[Log, int]:
        """Begin with nothing in hand, as committed."""
        self._waiting.clear()
        self._compacting.assigned(logs)
        return {}

    async def revoked(self, logs: set[Log]) -> None:
        """Forget: the next owner reads it again."""
        for log in logs:
            self._waiting.pop(log, None)
        await self._compacting.revoked(logs)

    async def _write(self, log: Log) -> int:
        """Write what waits, off the event loop; the last offset of it."""
        records = self._waiting[log].records
        for unbroken in _without_gaps(records):
            data = await asyncio.to_thread(self._to_file, unbroken)
            await self._objects.put(archive_key(_run(unbroken)), data)
            self._compacting.wrote(log)
        del self._waiting[log]
        self._metrics.count("tailrace_archived_total", len(records), topic=log.topic)
        return records[-1].offset


def _run(records: Sequence[Record]) -> LogRange:
    first, last = records[0], records[-1]
    return LogRange(topic=first.topic, partition=first.partition, from_offset=first.offset, through_offset=last.offset)


def _without_gaps(records: Sequence[Record]) -> Iterator[Sequence[Record]]:
    """The records in runs of offsets that follow each other."""
    begin = 0
    for position in range(1, len(records) + 1):
        if position == len(records) or records[position].offset != records[position - 1].offset + 1:
            yield records[begin:position]
            begin = position
