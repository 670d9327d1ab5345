"""Dead letters: records that could not be handled, and their way back."""

from __future__ import annotations

from typing import Literal

from pydantic import AwareDatetime, Field

from tailrace_contracts.events.event import Event
from tailrace_contracts.ranges import Offset


class EventParked(Event):
    """A record that could not be handled, whole, so that it can be replayed. Bytes are base64."""

    type: Literal["event-parked"] = "event-parked"
    topic: str
    partition: Offset
    offset: Offset
    key: str | None
    value: str | None
    headers: tuple[tuple[str, str], ...] = ()
    timestamp_ms: int
    code: str = Field(description="one of a closed list, such as `unknown-model`")
    reason: str = Field(description="one sentence for a person")
    attempts: int = Field(ge=1)
    service: str
    role: str
    model: str | None = None
    time: AwareDatetime


class EventReplayed(Event):
    """A parked record is published again: `started` is said before, `done` once the broker has acknowledged it."""

    type: Literal["event-replayed"] = "event-replayed"
    topic: str = Field(description="with partition and offset: the record that was parked first")
    partition: Offset
    offset: Offset
    stage: Literal["started", "done"]
    replayed_by: str
    time: AwareDatetime
