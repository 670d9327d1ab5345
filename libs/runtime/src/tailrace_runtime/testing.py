"""Stand-ins for the runtime's ports, for the tests of services. Each passes the same test suite as what it stands for."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from aiokafka import AIOKafkaConsumer, TopicPartition

from tailrace_contracts.catalogue import topics
from tailrace_contracts.events import Event, decode
from tailrace_runtime.errors import DeliveryFailed, DeliveryRefused
from tailrace_runtime.producer import check_size, partition_of
from tailrace_runtime.records import Outgoing, Record, Run
from tailrace_runtime.settings import ServiceSettings
from tailrace_runtime.topics import wait_for


class FixedClock:
    """A clock that stands still until it is told to move."""

    def __init__(self, moment: datetime | None = None) -> None:
        self.moment = moment or datetime(2025, 1, 1, tzinfo=UTC)

    def now(self) -> datetime:
        """The moment at which the clock stands."""
        return self.moment

    def advance(self, seconds: float) -> None:
        """Move the clock forward."""
        self.moment += timedelta(seconds=seconds)


class RecordingProducer:
    """A producer that keeps what was published, in order, with the partition and offset that Kafka would give it."""

    def __init__(self, partitions: int | None = None) -> None:
        self.sent: list[Record] = []
        self.failures: list[Exception] = []
        self._partitions = partitions
        self._turn = 0

    async def start(self) -> None:
        """Nothing to connect to."""

    async def stop(self) -> None:
        """Nothing to flush."""

    def fail_next(self, error: Exception | None = None) -> None:
        """Let the next `send_all` raise (DeliveryFailed when nothing else is given) and publish nothing."""
        self.failures.append(error or DeliveryFailed("the recording producer was told to fail"))

    async def send_all(self, records: Sequence[Outgoing], runs: Sequence[Run] = ()) -> None:
        """Keep the records, as one acknowledged publication."""
        if self.failures:
            raise self.failures.pop(0)
        records = [*records, *(record for run in runs for record in run)]
        for record in records:
            check_size(record)
        self._turn += 1
        for record in records:
            self._keep(record)

    def _keep(self, record: Outgoing) -> None:
        card = topics().get(record.topic)
        count = self._partitions or (card.partitions if card else 1)
        partition = partition_of(record, range(count), self._turn)
        if not 0 <= partition < count:
            raise DeliveryRefused(f"topic {record.topic} has {count} partitions, so no partition {partition}")
        offset = sum(1 for each in self.sent if each.topic == record.topic and each.partition == partition)
        moment = record.timestamp_ms if record.timestamp_ms is not None else offset
        self.sent.append(
            Record(record.topic, partition, offset, moment, record.key, record.value, tuple(record.headers))
        )

    def on(self, topic: str) -> list[Record]:
        """What was published on this topic, in order."""
        return [record for record in self.sent if record.topic == topic]

    def events(self, topic: str) -> list[Event]:
        """The events published on this topic, decoded, in order."""
        return [decode(record.value) for record in self.on(topic) if record.value is not None]


def record(  # a record has seven parts
    value: bytes | Event | None,
    topic: str = "labelled-examples",
    *,
    offset: int = 0,
    partition: int = 0,
    key: bytes | None = None,
    headers: tuple[tuple[str, bytes], ...] = (),
    timestamp_ms: int = 0,
) -> Record:
    """A record as a handler gets it, for tests that call handlers directly."""
    data = value.encode() if isinstance(value, Event) else value
    return Record(topic, partition, offset, timestamp_ms, key, data, headers)


async def everything_on(settings: ServiceSettings, topic: str) -> list[Record]:
    """Everything that is on the topic now, each partition in order."""
    count = (await wait_for(settings, [topic], part="test"))[topic]
    logs = [TopicPartition(settings.topic(topic), number) for number in range(count)]
    consumer = AIOKafkaConsumer(bootstrap_servers=settings.kafka_bootstrap, auto_offset_reset="earliest")
    await consumer.start()
    try:
        consumer.assign(logs)
        ends = await consumer.end_offsets(logs)
        found: list[Record] = []
        while len(found) < sum(ends.values()):
            for batch in (await consumer.getmany(timeout_ms=1000)).values():
                found += [
                    Record(topic, each.partition, each.offset, each.timestamp, each.key, each.value, each.headers)
                    for each in batch
                ]
    finally:
        await consumer.stop()
    return sorted(found, key=lambda record: (record.partition, record.offset))
