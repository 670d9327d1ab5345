"""Dead letters: a record that cannot be handled is kept whole, so that it can be replayed.

The rate of them is limited. When most records are poison, the deployment is wrong, not the records; then the consumer
stops before the batch is parked, so that a broken service cannot drain a topic into `dead-letters`.
"""

from __future__ import annotations

import base64
from collections import deque
from datetime import datetime

from tailrace_contracts.catalogue import topics
from tailrace_contracts.events import EventParked
from tailrace_runtime.consumer import DeadLetterLimit
from tailrace_runtime.errors import DeadLetterLimitExceeded
from tailrace_runtime.outcome import Parked
from tailrace_runtime.records import Outgoing, Record, event_headers

TOPIC = "dead-letters"
REPLAY_OF = "replay-of"
"""The header of a replayed record that names the record that was parked first, `<topic>/<partition>/<offset>`."""

TRIGGER_OFFSET = "trigger-offset"
"""The header by which a reader drops what came before: a replayed record comes without it."""


def dead_letter(parked: Parked, *, service: str, role: str, attempts: int, now: datetime) -> Outgoing:
    """The record on `dead-letters`, under its own key."""
    record = parked.record
    event = EventParked(
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        key=_text(record.key),
        value=_text(record.value),
        headers=tuple((name, base64.b64encode(value).decode()) for name, value in record.headers),
        timestamp_ms=max(record.timestamp_ms, 0),
        code=parked.code,
        reason=parked.reason,
        attempts=attempts,
        service=service,
        role=role,
        model=parked.model,
        time=now,
    )
    return Outgoing(TOPIC, event.encode(), record.key, headers=event_headers(event))


def original(event: EventParked) -> Record:
    """The record that was parked, as it stood on its topic."""
    return Record(
        topic=event.topic,
        partition=event.partition,
        offset=event.offset,
        timestamp_ms=event.timestamp_ms,
        key=_bytes(event.key),
        value=_bytes(event.value),
        headers=tuple((name, base64.b64decode(value)) for name, value in event.headers),
    )


def origin(event: EventParked) -> str:
    """The record that was parked first: this one, or the one that this one is a replay of."""
    replayed = next((value for name, value in event.headers if name == REPLAY_OF), None)
    if replayed is not None:
        return base64.b64decode(replayed).decode(errors="replace")
    return f"{event.topic}/{event.partition}/{event.offset}"


def replayed(event: EventParked) -> Outgoing:
    """The record as it is published again: key, value and headers as they were, and a header that names the origin.

    On a public topic the key chooses the partition, as it does for producers; elsewhere the record goes back to its own.
    """
    record, card = original(event), topics().get(event.topic)
    by_key = card is not None and card.public and record.key is not None
    headers = tuple(each for each in record.headers if each[0] not in {REPLAY_OF, TRIGGER_OFFSET})
    return Outgoing(
        record.topic,
        record.value,
        record.key,
        None if by_key else record.partition,
        (*headers, (REPLAY_OF, origin(event).encode())),
    )


def _text(value: bytes | None) -> str | None:
    return None if value is None else base64.b64encode(value).decode()


def _bytes(text: str | None) -> bytes | None:
    return None if text is None else base64.b64decode(text)


class DeadLetterRate:
    """How many of the newest records were parked, over a sliding window of time."""

    def __init__(self, limit: DeadLetterLimit) -> None:
        self._limit = limit
        self._batches: deque[tuple[float, int, int]] = deque()
        self._handled = 0
        self._parked = 0

    def add(self, moment: float, handled: int, parked: int) -> None:
        """Count a batch of `handled` records, of which `parked` are to be parked.

        Raises:
            DeadLetterLimitExceeded: with this batch, the share of parked records is over the limit.
        """
        self._batches.append((moment, handled, parked))
        self._handled += handled
        self._parked += parked
        while self._batches[0][0] < moment - self._limit.window_seconds:
            _, old_handled, old_parked = self._batches.popleft()
            self._handled -= old_handled
            self._parked -= old_parked
        enough = self._handled >= self._limit.records
        if parked and enough and self._parked > self._limit.share * self._handled:
            raise DeadLetterLimitExceeded(
                f"{self._parked} of the last {self._handled} records are poison, over the limit of"
                f" {self._limit.share:.0%}: nothing more is parked, because it is rather this deployment that is wrong"
            )
