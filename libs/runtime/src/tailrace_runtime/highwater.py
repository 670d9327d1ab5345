"""High-water marks: applying a derived fact a second time changes nothing.

A derived record names the record that triggered it. Its publisher may, after a crash, publish it again, but always in
the order of the triggers, so the reader needs to remember one offset for each trigger log. Keep one `HighWater` for
each log that you read: the order of triggers holds within a partition, not across them.

Where one trigger yields several facts, or a fact may come again under another trigger (the join meets two topics in
another order in its next life), the fact has an identity, what it is about and the revision of that; the newest
revision of the newest `capacity` of them is remembered, and one that is no newer is old. Then identity decides near the
mark: a fact whose trigger lies below it by less than `REACH` may be one that only another order had put behind. Further
below, everything is an echo: a publisher has no more than that uncommitted in hand.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Mapping
from typing import Any

from tailrace_contracts.ranges import Log, Trigger

Identity = tuple[Hashable, int]
_UNKNOWN = -1

REACH = 1_000
"""Records of one trigger log that a publisher may have published and not committed, at most."""

TOPICS_MET = 2
"""Topics that a publisher of facts with an identity meets: predictions and labels."""


class HighWater:
    """The newest trigger applied from each trigger log, and the newest identities.

    >>> marks = HighWater()
    >>> first = Trigger(topic="labels", partition=0, offset=7)
    >>> marks.admit(first), marks.admit(first)
    (True, False)
    """

    def __init__(self, capacity: int = TOPICS_MET * REACH) -> None:
        self._marks: dict[Log, int] = {}
        self._identities: defaultdict[int, dict[Hashable, int]] = defaultdict(dict)
        self._capacity = capacity

    def admit(self, trigger: Trigger, identity: Identity | None = None) -> bool:
        """Whether this fact is new; it counts as applied from now on. False: leave it alone."""
        log = trigger.log
        mark = self._marks.get(log, -1)
        if trigger.offset <= (mark if identity is None else mark - REACH):
            return False
        self._marks[log] = max(mark, trigger.offset)
        return identity is None or self._admit_identity(identity, trigger.partition)

    def through(self, log: Log) -> int:
        """The newest offset applied from this trigger log; -1 before the first."""
        return self._marks.get(log, -1)

    def _admit_identity(self, identity: Identity, partition: int) -> bool:
        what, revision = identity
        known = self._identities[partition]
        if revision <= max(known.get(what, -1), self._identities[_UNKNOWN].get(what, -1)):
            return False
        known[what] = revision
        if len(known) > self._capacity:
            del known[next(iter(known))]
        return True

    def dump(self) -> dict[str, Any]:
        """Marks and identities as plain JSON data, to be stored in one write with the state that they guard."""
        return {
            "marks": self.marks(),
            "identities": [
                [_plain(what), revision, partition]
                for partition, known in sorted(self._identities.items())
                for what, revision in known.items()
            ],
        }

    def marks(self) -> list[list[Any]]:
        """The marks alone, for readers that keep the identities with their records: topic, partition, offset."""
        return [[log.topic, log.partition, offset] for log, offset in sorted(self._marks.items())]

    def load(self, dumped: Mapping[str, Any]) -> None:
        """Become what was dumped. Identities without their partition, as others store them, count for all of them."""
        self._marks = {Log(topic, partition): offset for topic, partition, offset in dumped.get("marks", [])}
        self._identities.clear()
        for what, revision, *partition in dumped.get("identities", []):
            known = self._identities[partition[0] if partition else _UNKNOWN]
            known[_hashable(what)] = max(known.get(_hashable(what), -1), revision)


def _plain(identity: Hashable) -> Any:
    return list(identity) if isinstance(identity, tuple) else identity


def _hashable(dumped: Any) -> Hashable:
    return tuple(dumped) if isinstance(dumped, list) else dumped
