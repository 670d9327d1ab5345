"""Stand-ins for the ports, and small events to test with. Each fake passes the same tests as its adapter."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition

from tailrace_contracts.catalogue import topics
from tailrace_contracts.events import (
    ArmOutput,
    Event,
    FeatureValue,
    LabelGiven,
    PredictionMade,
    SpecApplied,
    SpecTookEffect,
    decode,
)
from tailrace_contracts.ranges import Log
from tailrace_contracts.spec import ModelSpec, parse_spec
from tailrace_ingestion.adapters.specs import compiled
from tailrace_ingestion.consumers import SpecEffects
from tailrace_ingestion.domain.model import Model
from tailrace_ingestion.ports import Places
from tailrace_ingestion.settings import IngestionSettings
from tailrace_runtime.errors import RangeUnavailable
from tailrace_runtime.producer import Producer
from tailrace_runtime.records import Outgoing, Record, outgoing
from tailrace_runtime.testing import FixedClock, RecordingProducer

START = datetime(2024, 1, 8, tzinfo=UTC)
"""A day on which a window of ten days begins."""


def rain_spec(**changes: Any) -> ModelSpec:
    """A spec with two numbers and a word, whose event times follow the stream."""
    document: dict[str, Any] = {
        "model": "rain",
        "owner": "tests",
        "features": [
            {"type": "numerical", "name": "wind", "limits": {"min": 0, "max": 200}},
            {"type": "numerical", "name": "pressure", "on_missing": "flag"},
            {"type": "categorical", "name": "sky", "categories": ["clear", "grey"], "on_missing": "flag"},
        ],
        "label": {"name": "rain", "horizon_days": 90},
        "time": {"clock": "stream", "max_ahead_days": 30, "max_behind_days": 60},
        "monitors": {"window_days": 10, "allowed_lateness_days": 5},
    }
    return parse_spec(document | changes)


def applied(spec: ModelSpec | None = None, revision: int = 1) -> SpecApplied:
    """The event that a spec took effect."""
    spec = spec or rain_spec()
    return SpecApplied(model=spec.model, spec_revision=revision, spec=spec, applied_by="tests", time=START)


def prediction(number: int, *, days: float | None = None, **changes: Any) -> PredictionMade:
    """The prediction `p<number>`, of day `number` unless `days` says another."""
    features: dict[str, FeatureValue] = {"wind": float(number % 50), "pressure": 1000.5, "sky": "grey"}
    given: dict[str, Any] = {
        "prediction_id": f"p{number}",
        "model": "rain",
        "time": START + timedelta(days=number if days is None else days),
        "features": features,
        "served": ArmOutput(arm="champion", prediction=number % 2, probability=0.25, version=1),
    }
    return PredictionMade(**given | changes)


def label(number: int, value: int = 1, *, days: float | None = None, **changes: Any) -> LabelGiven:
    """The label of `p<number>`, a day later than the prediction unless `days` says another."""
    given: dict[str, Any] = {
        "prediction_id": f"p{number}",
        "model": "rain",
        "time": START + timedelta(days=number + 1 if days is None else days),
        "label": value,
    }
    return LabelGiven(**given | changes)


def record_of(event: PredictionMade | LabelGiven, topic: str, offset: int, **changes: Any) -> Record:
    """The event as a record under its prediction id."""
    key = event.prediction_id.encode()
    return Record(topic, 0, offset, 0, key, event.encode(), ())._replace(**changes)


class FixedSpecs:
    """Specs that are there from the beginning, or (`later`) from the first refresh on."""

    def __init__(self, *specs: SpecApplied, later: Sequence[SpecApplied] = ()) -> None:
        self._models = {each.model: compiled(each.spec, each.spec_revision) for each in specs}
        self._later = later
        self.refreshes = 0

    def models(self) -> Mapping[str, Model]:
        """Every model by name."""
        return self._models

    async def refresh(self) -> None:
        """Learn of the later ones."""
        self.refreshes += 1
        self._models |= {each.model: compiled(each.spec, each.spec_revision) for each in self._later}

    async def of(self, names: Collection[str], offset: int) -> Mapping[str, Model]:
        """Those of the names that have a spec; one that is not known is looked for once more."""
        del offset
        if not self._models.keys() >= set(names):
            await self.refresh()
        return {name: self._models[name] for name in names if name in self._models}


class KeptEffects:
    """What took effect, as a producer published it."""

    def __init__(self, producer: RecordingProducer) -> None:
        self._producer = producer

    async def all(self) -> list[SpecTookEffect]:
        """Everything that was ever written down, in order."""
        events = [decode(record.value) for record in self._producer.sent if record.value is not None]
        return [event for event in events if isinstance(event, SpecTookEffect)]


def spec_effects(specs: FixedSpecs, producer: RecordingProducer | None = None) -> SpecEffects:
    """These specs, with what took effect written down by a recording producer."""
    producer = producer or RecordingProducer()
    return SpecEffects(specs, compiled, KeptEffects(producer), producer, FixedClock(START))


class KeptPartials:
    """Partials in a list: `keep` what a tick published, then recover from it."""

    def __init__(self) -> None:
        self.values: list[tuple[int, bytes]] = []

    def keep(self, keyed: Iterable[tuple[bytes | None, bytes | None]]) -> None:
        """Remember published partials by key and value."""
        self.values += [(int((key or b"").split(b"|")[0]), value) for key, value in keyed if value is not None]

    async def of_sources(self, partitions: Iterable[int]) -> Mapping[int, list[bytes]]:
        """Every partial of these source partitions, in order."""
        return {each: [value for source, value in self.values if source == each] for each in partitions}


class FixedOffsets:
    """A consumer group that stands where it is put."""

    def __init__(self, places: Mapping[Log, Places] | None = None) -> None:
        self.known = dict(places or {})
        self.logs: Mapping[str, Sequence[Record]] = {}

    async def places(self, logs: Iterable[Log]) -> Mapping[Log, Places]:
        """The places of each log; 0 and a far end where none was given."""
        return {log: self.known.get(log, Places(0, 0, 1 << 40)) for log in logs}

    async def records(self, log: Log, start: int, end: int) -> AsyncIterator[Sequence[Record]]:
        """What `logs` has of it. Raises RangeUnavailable for what is before the log's first record."""
        if start < (await self.places([log]))[log].first:
            raise RangeUnavailable(f"{log} does not reach back to {start}")
        yield [record for record in self.logs.get(log.topic, ()) if start <= record.offset < end]


class MemoryStore:
    """A store in a dict, which outlives its closing."""

    def __init__(self) -> None:
        self._entries: dict[bytes, bytes] = {}
        self.failures: list[Exception] = []

    def fail_next(self, error: Exception) -> None:
        """Let the next write raise, and write nothing."""
        self.failures.append(error)

    def get(self, key: bytes) -> bytes | None:
        """The value under a key."""
        return self._entries.get(key)

    def get_many(self, keys: list[bytes]) -> list[bytes | None]:
        """The values under these keys, in their order."""
        return [self._entries.get(key) for key in keys]

    def keys(self, first: bytes, before: bytes, limit: int) -> list[bytes]:
        """The first so many keys in [first, before), in their order."""
        return sorted(key for key in self._entries if first <= key < before)[:limit]

    def write(self, changes: Mapping[bytes, bytes | None]) -> None:
        """Put or (None) delete all of these, or none of them."""
        if self.failures:
            raise self.failures.pop()
        for key, value in changes.items():
            if value is None:
                self._entries.pop(key, None)
            else:
                self._entries[key] = value

    def close(self) -> None:
        """Nothing to let go of."""


class MemoryStores:
    """Stores in memory, one for each partition."""

    def __init__(self) -> None:
        self.stores: dict[int, MemoryStore] = {}

    def open(self, partition: int) -> MemoryStore:
        """The partition's store."""
        return self.stores.setdefault(partition, MemoryStore())

    def destroy(self, partition: int) -> None:
        """Forget the partition's store."""
        self.stores.pop(partition, None)


class MemoryObjects:
    """An object store in a dict."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}

    async def put(self, key: str, data: bytes) -> None:
        """Store the bytes under the key."""
        self.objects[key] = data

    async def sizes(self, prefix: str) -> Mapping[str, int]:
        """The keys in a folder, with the bytes of each."""
        return {key: len(data) for key, data in self.objects.items() if key.startswith(f"{prefix}/")}

    async def delete(self, key: str) -> None:
        """Remove what is under the key, if anything is."""
        self.objects.pop(key, None)


class Deployment:
    """The topics of one test, and a producer on them. The model `rain` has its spec."""

    def __init__(self, settings: IngestionSettings) -> None:
        self.settings = settings
        self.producer = Producer(settings)

    async def publish(self, *events: PredictionMade | LabelGiven) -> None:
        """Publish predictions and labels on the public topics, each under its prediction id."""
        topics = {"prediction-made": "prediction-events", "label-given": "label-events"}
        await self.send(*(outgoing(each, topics[each.type], each.prediction_id) for each in events))

    async def send(self, *records: Outgoing) -> None:
        """Publish anything."""
        await self.producer.send_all(records)

    async def records(self, topic: str) -> list[Record]:
        """Everything that is on a topic now, partition by partition, in order."""
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self.settings.kafka_bootstrap, enable_auto_commit=False, auto_offset_reset="earliest"
        )
        partitions = [TopicPartition(self.settings.topic(topic), each) for each in range(topics()[topic].partitions)]
        await consumer.start()
        try:
            consumer.assign(partitions)
            ends = await consumer.end_offsets(partitions)
            found: list[Record] = []
            while any([await consumer.position(each) < end for each, end in ends.items()]):
                for batch in (await consumer.getmany(timeout_ms=100)).values():
                    found += [
                        Record(topic, r.partition, r.offset, r.timestamp, r.key, r.value, tuple(r.headers))
                        for r in batch
                    ]
        finally:
            await consumer.stop()
        return sorted(found, key=lambda record: (record.partition, record.offset))

    async def events(self, topic: str) -> list[Event]:
        """The events that are on a topic now."""
        return [decode(record.value) for record in await self.records(topic) if record.value is not None]
