"""The bounded buffer between answering and publishing.

It holds encoded events up to a count and a size. What does not fit is lost, and counted for its model: at every moment
`accepted = published + held` and `offered = accepted + lost`, exactly. An event leaves the count when the broker has
acknowledged it, not when sending begins, so the bound covers what is in flight.
"""

from __future__ import annotations

from collections import Counter, deque
from datetime import datetime
from itertools import islice
from typing import NamedTuple


class Captured(NamedTuple):
    """An encoded prediction event, its time and the `traceparent` that its request came with."""

    model: str
    key: bytes
    value: bytes
    time: datetime
    trace: bytes | None = None


class CaptureBuffer:
    """First in, first out, bounded. Not for two threads."""

    def __init__(self, max_events: int, max_bytes: int) -> None:
        self.lost: Counter[str] = Counter()
        self.published: Counter[str] = Counter()
        self.bytes = 0
        self._held: deque[Captured] = deque()
        self._max_events = max_events
        self._max_bytes = max_bytes

    def __len__(self) -> int:
        """Events held, those in flight included."""
        return len(self._held)

    def offer(self, event: Captured) -> bool:
        """Keep the event; False when it did not fit and was counted as lost."""
        if len(self._held) >= self._max_events or self.bytes + len(event.value) > self._max_bytes:
            self.lost[event.model] += 1
            return False
        self._held.append(event)
        self.bytes += len(event.value)
        return True

    def oldest(self, most: int) -> list[Captured]:
        """The oldest events, at most `most`; they stay held until `done`."""
        return list(islice(self._held, most))

    def done(self, count: int) -> None:
        """The oldest `count` events are acknowledged."""
        for event in self._take(count):
            self.published[event.model] += 1

    def give_up(self, count: int) -> None:
        """The oldest `count` events are lost: refused by the broker, or the process stops."""
        for event in self._take(count):
            self.lost[event.model] += 1

    def _take(self, count: int) -> list[Captured]:
        taken = [self._held.popleft() for _ in range(count)]
        self.bytes -= sum(len(event.value) for event in taken)
        return taken
