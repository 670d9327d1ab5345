"""The role `join`: valid predictions and labels in, labelled examples and coverage out.

The order of effects in each batch: publish the examples, and the dead letters of labels that come too late; write the
state, offsets included, in one piece; commit. After a crash between the first two, examples are published again under
the same trigger; after one between the last two, the state says where to read on. When the state is lost or behind
(another process had the partition), it is first brought to where the group had committed: both topics are read again
that far, and nothing of it is published again. Only then comes what nobody has committed: were the two mixed, an old
prediction would complete a new label, and readers would take the example for an echo by its old trigger. Until both logs
have been read to where they ended when the partition was assigned, nothing expires: what is waited for may stand unread
in the other log.

Handlers publish by themselves, because the state may be written only after the acknowledgement. Every few seconds the
coverage of the windows that changed is published, under the offsets that the written state has come to.

In memory are one batch of records with what the store has of their ids, and the counts of each model; what waits is on
disk, for two horizons at most.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import msgspec
import structlog
from msgspec import structs

from tailrace_contracts.ranges import Log
from tailrace_ingestion.domain.coverage import KEPT_SECONDS, CohortKey, cohort_of, measured
from tailrace_ingestion.domain.event_time import DAY_SECONDS
from tailrace_ingestion.domain.expiring import expire, forget_cohorts
from tailrace_ingestion.domain.join_records import Joinable, Joined, Refused
from tailrace_ingestion.domain.join_state import FORMAT, LABELS, PREDICTIONS, Counts, read_cohort, read_progress
from tailrace_ingestion.domain.joining import take_label, take_prediction
from tailrace_ingestion.domain.model import Model
from tailrace_ingestion.domain.reasons import Reason
from tailrace_ingestion.domain.transaction import Transaction
from tailrace_ingestion.domain.wire import decode_joinable, decode_label
from tailrace_ingestion.handlers import TRIGGER_OFFSET
from tailrace_ingestion.ports import Offsets, Places, Specs, Store, Stores
from tailrace_runtime.clock import Clock
from tailrace_runtime.consumer import Outcome, Parked, Stateless
from tailrace_runtime.deadletters import dead_letter
from tailrace_runtime.errors import DeliveryFailed, RetryLater
from tailrace_runtime.metrics import Metrics
from tailrace_runtime.producer import Publisher
from tailrace_runtime.records import SOURCE, Outgoing, Record, outgoing

EXAMPLES, COVERAGE = "labelled-examples", "label-coverage"
SERVICE, ROLE = "ingestion", "join"
_BEGINNING = -1e12
_KEYS_AT_ONCE = 10_000
log = structlog.get_logger(__name__)
E = TypeVar("E")


@dataclass(slots=True)
class Partition:
    """One partition in hand.

    `places` are where the group and the logs stood when it was assigned; `changed` are the cohorts whose coverage is to be
    published.
    """

    number: int
    store: Store
    places: Mapping[str, Places]
    known: dict[str, int]
    changed: set[CohortKey] = field(default_factory=set)

    def caught_up(self, following: Mapping[str, int]) -> bool:
        """Whether both logs have been read to where they ended."""
        return all(
            following.get(topic, 0) >= place.end or place.first == place.end for topic, place in self.places.items()
        )

    def rebuilt(self, following: Mapping[str, int]) -> bool:
        """Whether the state has come to where the group was: what it says is newer than what it said before."""
        return all(
            following.get(topic, 0) >= place.committed or place.first == place.end
            for topic, place in self.places.items()
        )


class Joining(Stateless):
    """State: a store for each partition in hand."""

    def __init__(  # four ports, the clocks and the metrics
        self,
        specs: Specs,
        stores: Stores,
        offsets: Offsets,
        publisher: Publisher,
        metrics: Metrics,
        *,
        clock: Clock,
        coverage_seconds: float,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._specs = specs
        self._stores = stores
        self._offsets = offsets
        self._publisher = publisher
        self._metrics = metrics
        self._clock = clock
        self._coverage_seconds = coverage_seconds
        self._monotonic = monotonic
        self._coverage_due = 0.0
        self._partitions: dict[int, Partition] = {}

    async def predictions(self, records: Sequence[Record]) -> Outcome:
        """A batch of `predictions`."""
        transaction, parked = self._transaction(records[0]), list[Parked]()
        events = list(_decoded(records, decode_joinable, parked))
        transaction.load(event for event, _ in events)
        emit = [
            _outgoing(joined, record)
            for event, record in events
            if (joined := take_prediction(transaction, event, _joinable(record))) is not None
        ]
        return await self._finish(records, transaction, emit, parked)

    async def labels(self, records: Sequence[Record]) -> Outcome:
        """A batch of `labels`."""
        transaction, parked = self._transaction(records[0]), list[Parked]()
        events = list(_decoded(records, decode_label, parked))
        transaction.load(event for event, _ in events)
        emit = []
        for event, record in events:
            match take_label(transaction, event, _joinable(record)):
                case Joined() as joined:
                    emit.append(_outgoing(joined, record))
                case Refused() as refused:
                    parked.append(Parked(record, refused.code, refused.reason, refused.model))
                case None:
                    pass
        return await self._finish(records, transaction, emit, parked)

    def _transaction(self, first: Record) -> Transaction:
        partition = self._partitions[first.partition]
        return Transaction(partition.number, partition.store, partition.known, self._windows())

    def _windows(self) -> dict[str, float]:
        return {name: _window_seconds(model) for name, model in self._specs.models().items()}

    async def _finish(
        self, records: Sequence[Record], transaction: Transaction, emit: list[Outgoing], parked: list[Parked]
    ) -> Outcome:
        """Publish, then write the state."""
        await self._publish([*emit, *self._letters(parked)])
        self._write(records[-1], transaction)
        return Outcome()

    def _write(self, last: Record, transaction: Transaction) -> None:
        partition = self._partitions[last.partition]
        transaction.progress.next[last.topic] = last.offset + 1
        partition.store.write(transaction.commit())
        partition.changed.update(transaction.cohorts)

    def _letters(self, parked: Iterable[Parked]) -> Iterator[Outgoing]:
        for each in parked:
            self._metrics.count("tailrace_dead_letters_total", role=ROLE, topic=each.record.topic, code=each.code)
            yield dead_letter(each, service=SERVICE, role=ROLE, attempts=1, now=self._clock.now())

    async def _publish(self, emit: list[Outgoing]) -> None:
        try:
            await self._publisher.send_all(emit)
        except DeliveryFailed as error:
            raise RetryLater(str(error), 1.0) from error

    # ------------------------------------------------------------ taking over and letting go

    async def assigned(self, logs: set[Log]) -> dict[Log, int]:
        """Open the partitions' stores and read on where they stand."""
        await self.revoked({Log(PREDICTIONS, number) for number in self._partitions})
        places = await self._offsets.places(logs)
        start: dict[Log, int] = {}
        for number in {each.partition for each in logs}:
            here = {each.topic: places[each] for each in logs if each.partition == number}
            self._partitions[number] = partition = self._opened(number, here)
            await self._catch_up(partition)
            progress = read_progress(partition.store)
            for topic, place in here.items():
                start[Log(topic, number)] = max(progress.next.get(topic, 0), place.first, place.committed)
        return start

    async def _catch_up(self, partition: Partition) -> None:
        """Bring a state that is behind to where the group had committed; what comes of it was published long ago."""
        for topic in (PREDICTIONS, LABELS):
            place = partition.places.get(topic, Places(0, 0, 0))
            start = max(read_progress(partition.store).next.get(topic, 0), place.first)
            if start >= place.committed:
                continue
            log.info("join state is behind, reading again", partition=partition.number, topic=topic, start=start)
            async for records in self._offsets.records(Log(topic, partition.number), start, place.committed):
                self._take_again(records)

    def _take_again(self, records: Sequence[Record]) -> None:
        """What cannot be decoded was parked in its first life."""
        transaction = self._transaction(records[0])
        if records[0].topic == PREDICTIONS:
            predictions = list(_decoded(records, decode_joinable, []))
            transaction.load(event for event, _ in predictions)
            for prediction, record in predictions:
                take_prediction(transaction, prediction, _joinable(record))
        else:
            labels = list(_decoded(records, decode_label, []))
            transaction.load(event for event, _ in labels)
            for label, record in labels:
                take_label(transaction, label, _joinable(record))
        self._write(records[-1], transaction)

    def _opened(self, number: int, places: Mapping[str, Places]) -> Partition:
        store = self._stores.open(number)
        progress = read_progress(store)
        foreign = any(progress.next.get(topic, 0) > place.end for topic, place in places.items())
        if foreign or progress.format != FORMAT:
            why = "belongs to other topics" if foreign else "is of another format"
            log.warning("join state cannot be used, starting anew", why=why, partition=number, next=progress.next)
            store.close()
            self._stores.destroy(number)
            store = self._stores.open(number)
        known = {topic: place.committed for topic, place in places.items()}
        partition = Partition(number, store, places, known)
        partition.changed.update(_stored_cohorts(store, self._specs.models()))
        return partition

    async def revoked(self, logs: set[Log]) -> None:
        """Close the stores; they stay on disk for the case that the partitions come back."""
        for number in {each.partition for each in logs}:
            partition = self._partitions.pop(number, None)
            if partition is not None:
                partition.store.close()

    # ------------------------------------------------------------ in between

    async def tick(self) -> Outcome:
        """Let expire what has waited for too long, report the counts, and publish what coverage has changed."""
        totals: dict[str, Counts] = {}
        for partition in self._partitions.values():
            transaction = Transaction(partition.number, partition.store, partition.known, self._windows())
            if partition.caught_up(transaction.progress.next):
                await self._expire(partition, transaction)
            for model, counts in transaction.progress.counts.items():
                totals[model] = _sum(totals.get(model, Counts()), counts)
        for model, counts in totals.items():
            for outcome, value in structs.asdict(counts).items():
                self._metrics.gauge("tailrace_join_records", value, model=model, outcome=outcome)
        if self._monotonic() >= self._coverage_due:
            self._coverage_due = self._monotonic() + self._coverage_seconds
            await self._measure()
        return Outcome()

    async def _expire(self, partition: Partition, transaction: Transaction) -> None:
        refused: list[Refused] = []
        for name, model in self._specs.models().items():
            horizon = model.shape.spec.label.horizon_days * DAY_SECONDS
            refused += expire(transaction, name, horizon, partition.store.keys)
            newest = [transaction.progress.newest[topic].get(name) for topic in (PREDICTIONS, LABELS)]
            reached = min(-math.inf if moment is None else moment for moment in newest)
            before = reached - max(KEPT_SECONDS, 3 * horizon) - _window_seconds(model)
            if before > -math.inf:
                partition.changed.difference_update(forget_cohorts(transaction, name, before, partition.store.keys))
        await self._publish([*self._letters(_parked(each, partition.number) for each in refused)])
        if transaction.changes:
            partition.store.write(transaction.commit())
            partition.changed.update(transaction.cohorts)

    async def _measure(self) -> None:
        """Publish the cohorts that changed. What is published counts through the offsets that the state has."""
        emit, measured_now = [], list[tuple[Partition, set[CohortKey]]]()
        for partition in self._partitions.values():
            following = read_progress(partition.store).next
            if partition.rebuilt(following):
                emit += list(_coverage(partition, following))
                measured_now.append((partition, set(partition.changed)))
        await self._publish(emit)
        for partition, keys in measured_now:
            partition.changed -= keys


def _coverage(partition: Partition, following: Mapping[str, int]) -> Iterator[Outgoing]:
    for key in sorted(partition.changed):
        cohort = read_cohort(partition.store, key)
        if cohort is not None:
            fact = measured(key, cohort, partition.number, following)
            record_key = f"{partition.number}|{key.model}|{fact.window.start.isoformat()}"
            yield outgoing(fact, COVERAGE, record_key, partition=partition.number)


def _stored_cohorts(store: Store, models: Iterable[str]) -> Iterator[CohortKey]:
    """Every cohort in the store: what of them was published before is not known."""
    for model in models:
        first = CohortKey(model, _BEGINNING).encode()
        while found := store.keys(first, CohortKey(model, -_BEGINNING).encode(), _KEYS_AT_ONCE):
            yield from map(cohort_of, found)
            first = found[-1] + b"\0"


def _window_seconds(model: Model) -> float:
    return model.shape.spec.monitors.window_days * DAY_SECONDS


def _sum(left: Counts, right: Counts) -> Counts:
    return Counts(*(a + b for a, b in zip(structs.astuple(left), structs.astuple(right), strict=True)))


def _decoded(
    records: Sequence[Record], decode: Callable[[bytes], E], parked: list[Parked]
) -> Iterator[tuple[E, Record]]:
    """The events with their records; what is no event is parked."""
    for record in records:
        try:
            yield decode(record.value or b""), record
        except msgspec.DecodeError as error:
            parked.append(Parked(record, Reason.NOT_AN_EVENT, f"{record} is no valid event: {error}"))


def _parked(refused: Refused, partition: int) -> Parked:
    """A label that waited in vain, as the record that it was but for its headers, which nobody kept."""
    record = Record(LABELS, partition, refused.offset, refused.timestamp_ms, refused.key, refused.value, ())
    return Parked(record, refused.code, refused.reason, refused.model)


def _joinable(record: Record) -> Joinable:
    trigger = next((value for name, value in record.headers if name == TRIGGER_OFFSET), None)
    return Joinable(record.offset, record.timestamp_ms, record.value or b"", None if trigger is None else int(trigger))


def _outgoing(joined: Joined, cause: Record) -> Outgoing:
    """The example under its model's key, as a CloudEvent with a stable id, in the trace of what completed it."""
    headers = (
        ("ce_specversion", b"1.0"),
        ("ce_id", f"{joined.model}/{joined.prediction_id}/{joined.revision}".encode()),
        ("ce_type", b"tailrace.example-labelled"),
        ("ce_source", SOURCE.get().encode()),
        ("content-type", b"application/json"),
        *(header for header in cause.headers if header[0] in {"traceparent", "tracestate"}),
    )
    return Outgoing(EXAMPLES, joined.value, joined.model.encode(), headers=headers)
