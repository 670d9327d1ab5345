"""Records as handlers see them, and as they hand them out.

Topics are named without the deployment's prefix everywhere above the producer and the consume loop. An outgoing event
is a CloudEvent in binary mode: `ce_` headers beside a JSON value, and `traceparent` where a trace is being followed.
"""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

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
