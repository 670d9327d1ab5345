"""What goes into the join and what comes out of it."""

from __future__ import annotations

from typing import NamedTuple

from tailrace_ingestion.domain.join_state import Half
from tailrace_ingestion.domain.reasons import Reason
from tailrace_ingestion.domain.wire import Label


class Joinable(NamedTuple):
    """A record on its way into the join. `trigger` is its offset on the public topic, None where it names none."""

    offset: int
    timestamp_ms: int
    value: bytes
    trigger: int | None


class Joined(NamedTuple):
    """An example that a record completed, ready to be published."""

    model: str
    prediction_id: str
    revision: int
    value: bytes


class Refused(NamedTuple):
    """A label that no example can come of any more: its place in the log, its bytes, and why."""

    offset: int
    timestamp_ms: int
    key: bytes
    value: bytes
    code: Reason
    reason: str
    model: str


def refused(event: Label, half: Half, code: Reason, reason: str) -> Refused:
    """This label, with the reason why no example can come of it."""
    key = event.prediction_id.encode()
    return Refused(half.offset, half.timestamp_ms, key, half.value, code, reason, event.model)
