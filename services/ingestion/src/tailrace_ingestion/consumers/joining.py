"""The role `join`: valid predictions and labels in, labelled examples out.

The order of effects in each batch: publish the examples; write the state, offsets included, in one piece; commit. After
a crash between the first two, examples are published again under the same trigger; after one between the last two, the
state says where to read on. When the state is lost or behind (another process had the partition), both topics are read
again from where the state stands, and what was committed before is not published again.

Handlers publish by themselves, because the state may be written only after the acknowledgement.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import msgspec
import structlog
from msgspec import structs

from tailrace_contracts.ranges import Log
from tailrace_ingestion.domain.event_time import DAY_SECONDS
from tailrace_ingestion.domain.joining import (
    PREDICTIONS,
    Joinable,
    Joined,
    Transaction,
    read_progress,
)
from tailrace_ingestion.domain.reasons import Reason
from tailrace_ingestion.handlers import TRIGGER_OFFSET
from tailrace_ingestion.ports import Offsets, Places, Specs, Store, Stores
from tailrace_runtime.consumer import Outcome, Parked, Stateless
from tailrace_runtime.errors import DeliveryFailed, RetryLater
from tailrace_runtime.metrics import Metrics
from tailrace_runtime.producer import Publisher
from tailrace_runtime.records import SOURCE, Outgoing, Record

EXAMPLES = "labelled-examples"
log = structlog.get_logger(__name__)

Take = Callable[[Transaction, Joinable], Joined | None]


@dataclass(slots=True)
class Partition:
    """One partition in hand: its state, and how far the group had committed when it was assigned."""

    store: Store
    known: dict[str, int]


class Joining(Stateless):
    """State: a store for each partition in hand."""

    def __init__(self, specs: Specs, stores: Stores, offsets: Offsets, publisher: Publisher, metrics: Metrics) -> None:
        self._specs = specs
        self._stores = stores
        self._offsets = offsets
        self._publisher = publisher
        self._metrics = metrics
        self._partitions: dict[int, Partition] = {}

    async def predictions(self, records: Sequence[Record]) -> Outcome:
        """A batch of `predictions`."""
        return await self._join(records, Transaction.prediction)

    async def labels(self, records: Sequence[Record]) -> Outcome:
        """A batch of `labels`."""
        return await self._join(records, Transaction.label)

    async def _join(self, records: Sequence[Record], take: Take) -> Outcome:
        topic, number = records[0].topic, records[0].partition
        partition = self._partitions[number]
        transaction = Transaction(number, partition.store, partition.known)
        emit, outcome = [], Outcome()
        for record in records:
            try:
                joined = take(transaction, _joinable(record))
            except msgspec.DecodeError as error:
                outcome.parked.append(Parked(record, Reason.NOT_AN_EVENT, f"{record} is no valid event: {error}"))
                continue
            if joined is not None:
                emit.append(_outgoing(joined, record))
        await self._publish(emit)
        partition.store.write(transaction.commit())
        if records[-1].offset < partition.known.get(topic, 0) - 1:
            outcome.commit_through = -1
        return outcome

    async def _publish(self, emit: list[Outgoing]) -> None:
        try:
            await self._publisher.send_all(emit)
        except DeliveryFailed as error:
            raise RetryLater(str(error), 1.0) from error

    async def assigned(self, logs: set[Log]) -> dict[Log, int]:
        """Open the partitions' stores and read on where they stand."""
        await self.revoked({Log(PREDICTIONS, number) for number in self._partitions})
        places = await self._offsets.places(logs)
        start: dict[Log, int] = {}
        for number in {each.partition for each in logs}:
            here = {each.topic: places[each] for each in logs if each.partition == number}
            self._partitions[number] = partition = self._opened(number, here)
            progress = read_progress(partition.store)
            for topic, place in here.items():
                start[Log(topic, number)] = max(progress.next.get(topic, 0), place.first)
        return start

    def _opened(self, number: int, places: Mapping[str, Places]) -> Partition:
        store = self._stores.open(number)
        progress = read_progress(store)
        if any(progress.next.get(topic, 0) > place.end for topic, place in places.items()):
            log.warning("join state belongs to other topics, starting anew", partition=number, next=progress.next)
            store.close()
            self._stores.destroy(number)
            store = self._stores.open(number)
        elif any(progress.next.get(topic, 0) < place.committed for topic, place in places.items()):
            log.info("join state is behind, reading again", partition=number, next=progress.next)
        return Partition(store, {topic: place.committed for topic, place in places.items()})

    async def revoked(self, logs: set[Log]) -> None:
        """Close the stores; they stay on disk for the case that the partitions come back."""
        for number in {each.partition for each in logs}:
            partition = self._partitions.pop(number, None)
            if partition is not None:
                partition.store.close()

    async def tick(self) -> Outcome:
        """Let expire what has waited for too long, and report the counts."""
        totals: dict[str, int] = {}
        for number, partition in self._partitions.items():
            transaction = Transaction(number, partition.store, partition.known)
            for name, model in self._specs.models().items():
                horizon = model.shape.spec.label.horizon_days * DAY_SECONDS
                transaction.expire(name, horizon, partition.store.keys)
            if transaction.changes:
                partition.store.write(transaction.commit())
            for name, value in structs.asdict(transaction.progress.counts).items():
                totals[name] = totals.get(name, 0) + value
        for name, value in totals.items():
            self._metrics.gauge("tailrace_join_records", value, outcome=name)
        return Outcome()


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
