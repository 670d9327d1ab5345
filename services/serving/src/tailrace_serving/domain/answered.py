"""What has been replied already: so that a request read or sent a second time is answered as it was the first time.

Bounded in bytes, the oldest forgotten first. It is filled from the replies' own topic when a partition is taken over,
so it needs no store of its own: the replies are the memory.
"""

from __future__ import annotations

from tailrace_serving.domain.requests import Cause, Reply

_ROW_BYTES = 200
_REPLY_BYTES = 600
_FEATURE_BYTES = 200

Place = tuple[int, int]


class Replied:
    """Replies by the record that they answer, and by request id."""

    def __init__(self, max_bytes: int) -> None:
        self._by_cause: dict[Place, Reply] = {}
        self._by_request: dict[str, Reply] = {}
        self._max_bytes = max_bytes
        self._bytes = 0

    def add(self, reply: Reply) -> None:
        """A reply is on its topic. Errors answer their own record only: asked again, the question has another chance."""
        place = _place(reply.trigger)
        if place in self._by_cause:
            return
        self._by_cause[place] = reply
        if reply.error is None:
            self._by_request.setdefault(reply.request_id, reply)
        self._bytes += _size(reply)
        while self._bytes > self._max_bytes and len(self._by_cause) > 1:
            self._forget(next(iter(self._by_cause)))

    def to_record(self, partition: int, offset: int) -> Reply | None:
        """What this very record was answered."""
        return self._by_cause.get((partition, offset))

    def to_request(self, request_id: str) -> Reply | None:
        """What a request of this id was answered."""
        return self._by_request.get(request_id)

    def leave(self, partitions: set[int]) -> None:
        """Another process answers these partitions now."""
        for place in [place for place in self._by_cause if place[0] in partitions]:
            self._forget(place)

    def _forget(self, place: Place) -> None:
        reply = self._by_cause.pop(place)
        self._bytes -= _size(reply)
        if self._by_request.get(reply.request_id) is reply:
            del self._by_request[reply.request_id]


def _place(cause: Cause) -> Place:
    return cause.partition, cause.offset


def _size(reply: Reply) -> int:
    explained = sum(len(each.explanation.contributions) for each in reply.answers if each.explanation)
    return _REPLY_BYTES + _ROW_BYTES * len(reply.answers) + _FEATURE_BYTES * explained
