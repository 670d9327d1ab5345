"""Topics read to their ends, and a line of a verdict on what stands there."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from aiokafka import AIOKafkaConsumer, TopicPartition

from tailrace_contracts.catalogue import topics
from tailrace_runtime.records import Record
from tailrace_runtime.settings import KafkaSettings

Logs = Mapping[str, Mapping[int, Sequence[Record]]]


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the verdict: what was expected, what was found, and the first few places where they differ."""

    what: str
    expected: int
    found: int
    differences: tuple[str, ...] = ()

    @property
    def holds(self) -> bool:
        """Whether nothing is lost and nothing doubled."""
        return self.expected == self.found and not self.differences


class Readout:
    """Topics, read to their present ends and kept."""

    def __init__(self, settings: KafkaSettings, names: Sequence[str]) -> None:
        self.logs: dict[str, dict[int, list[Record]]] = {name: defaultdict(list) for name in names}
        self._settings = settings
        self._consumer = AIOKafkaConsumer(
            bootstrap_servers=settings.kafka_bootstrap, enable_auto_commit=False, auto_offset_reset="earliest"
        )
        self._partitions = [
            TopicPartition(settings.topic(name), number)
            for name in names
            for number in range(topics()[name].partitions)
        ]

    async def __aenter__(self) -> Self:
        await self._consumer.start()
        self._consumer.assign(self._partitions)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._consumer.stop()

    async def catch_up(self) -> Logs:
        """Read on to the ends."""
        ends = await self._consumer.end_offsets(self._partitions)
        while any([await self._consumer.position(each) < end for each, end in ends.items()]):
            for place, batch in (await self._consumer.getmany(timeout_ms=100)).items():
                name = self._settings.name(place.topic)
                self.logs[name][place.partition] += [
                    Record(name, r.partition, r.offset, r.timestamp, r.key, r.value, tuple(r.headers)) for r in batch
                ]
        return self.logs


def table(rows: Sequence[Row]) -> str:
    """The verdict as text."""
    width = max(32, *(len(row.what) for row in rows))
    lines = [f"{'what':{width}}{'expected':>12}{'found':>12}"]
    for row in rows:
        lines.append(
            f"{row.what:{width}}{row.expected:>12,}{row.found:>12,}  {'' if row.holds else 'DIFFERS'}".rstrip()
        )
        lines += [f"    {each}" for each in row.differences]
    return "\n".join(lines)
