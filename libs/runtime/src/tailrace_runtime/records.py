"""Records as handlers see them, and as they hand them out.

Topics are named without the deployment's prefix everywhere above the producer and the consume loop. An outgoing event
is a CloudEvent in binary mode: `ce_` headers beside a JSON value, and `traceparent` where a trace is being followed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple, overload

from tailrace_contracts.cloudevents import headers
from tailrace_contracts.events import Event
from tailrace_contracts.ranges import Log, Trigger
from tailrace_runtime.ids import new_id
from tailrace_runtime.tracing import trace_headers

Headers = tuple[tuple[str, bytes], ...]

SOURCE: ContextVar[str] = ContextVar("tailrace_source", default="/tailrace")
"""Who speaks: `ce_source` of outgoing events. The service host sets it to `/<service>/<role>`."""


class Record(NamedTuple):
    """One record as it stands on a log. `topic` is the catalogue's name, without a deployment's prefix."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: Headers

    def trigger(self) -> Trigger:
        """This record as the cause of derived ones."""
        return Trigger(topic=self.topic, partition=self.partition, offset=self.offset)

    @property
    def log(self) -> Log:
        """The topic partition that the record stands in."""
        return Log(self.topic, self.partition)

    def header(self, name: str) -> bytes | None:
        """The first header of this name, or None."""
        return next((value for key, value in self.headers if key == name), None)

    def __str__(self) -> str:
        """`topic[partition]@offset`, as people and error messages write it."""
        return f"{self.topic}[{self.partition}]@{self.offset}"


class Records(Sequence[Record]):
    """Records of one log, in order, column by column; a `Record` is made when one is asked for.

    Handlers of few records need not know. A hot handler reads the columns and makes no object for each record.
    """

    __slots__ = ("headers", "keys", "offsets", "partition", "timestamps_ms", "topic", "values")

    def __init__(self, topic: str, partition: int, fetched: Sequence[Any]) -> None:
        """From whatever has `offset`, `timestamp`, `key`, `value` and `headers`: aiokafka's records of either kind."""
        self.topic, self.partition = topic, partition
        self.offsets: list[int] = [each.offset for each in fetched]
        self.timestamps_ms: list[int] = [each.timestamp for each in fetched]
        self.keys: list[bytes | None] = [each.key for each in fetched]
        self.values: list[bytes | None] = [each.value for each in fetched]
        self.headers: list[Sequence[tuple[str, bytes]]] = [each.headers for each in fetched]

    @classmethod
    def of(cls, records: Sequence[Record]) -> Records:
        """The same records as columns; as they are when they are columns already."""
        if isinstance(records, Records):
            return records
        found = cls(records[0].topic, records[0].partition, ())
        found.offsets = [each.offset for each in records]
        found.timestamps_ms = [each.timestamp_ms for each in records]
        found.keys = [each.key for each in records]
        found.values = [each.value for each in records]
        found.headers = [each.headers for each in records]
        return found

    def __len__(self) -> int:
        return len(self.offsets)

    @overload
    def __getitem__(self, at: int) -> Record: ...
    @overload
    def __getitem__(self, at: slice) -> Records: ...
    def __getitem__(self, at: int | slice) -> Record | Records:
        if isinstance(at, slice):
            found = Records(self.topic, self.partition, ())
            for name in ("offsets", "timestamps_ms", "keys", "values", "headers"):
                setattr(found, name, getattr(self, name)[at])
            return found
        place = (self.topic, self.partition, self.offsets[at], self.timestamps_ms[at])
        return Record(*place, self.keys[at], self.values[at], tuple(self.headers[at]))

    def __iter__(self) -> Iterator[Record]:
        rows = zip(self.offsets, self.timestamps_ms, self.keys, self.values, self.headers, strict=True)
        for offset, timestamp_ms, key, value, given in rows:
            yield Record(self.topic, self.partition, offset, timestamp_ms, key, value, tuple(given))


@dataclass(frozen=True, slots=True)
class Run:
    """Records to publish on one partition of one topic, in order, column by column: for those who forward thousands."""

    topic: str
    partition: int
    keys: Sequence[bytes | None]
    values: Sequence[bytes]
    headers: Sequence[list[tuple[str, bytes]]]

    def __len__(self) -> int:
        return len(self.values)

    def __iter__(self) -> Iterator[Outgoing]:
        """One by one, for those who have time."""
        for key, value, given in zip(self.keys, self.values, self.headers, strict=True):
            yield Outgoing(self.topic, value, key, self.partition, tuple(given))


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One record to publish. Without a partition the key chooses it (murmur2, as every Kafka client does)."""

    topic: str
    value: bytes | None
    key: bytes | None = None
    partition: int | None = None
    headers: Headers = ()
    timestamp_ms: int | None = None


def outgoing(
    event: Event, topic: str, key: str, *, partition: int | None = None, event_id: str | None = None
) -> Outgoing:
    """The event as a CloudEvent in binary mode. A stable `event_id` makes a repeated publication recognisable."""
    return Outgoing(topic, event.encode(), key.encode(), partition, event_headers(event, event_id))


def event_headers(event: Event, event_id: str | None = None) -> Headers:
    """The CloudEvents headers of an event, and the trace that is being followed, if any."""
    moment = getattr(event, "time", None) or datetime.now(UTC)
    attributes = headers(event, event_id=event_id or new_id(), source=SOURCE.get(), now=moment.astimezone(UTC))
    return (*attributes, *trace_headers())
