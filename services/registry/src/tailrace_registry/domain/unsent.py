"""Which events of the journal never got to their topics: those behind the last one of their key that is there.

Compaction may have taken away any event but the newest of its key. So an event that is not on its topic was sent all the
same if one behind it is; and where a topic forgets with time, what is older than that is taken for sent.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import Generic, TypeVar

T = TypeVar("T")


def fingerprint(text: bytes | str) -> str:
    """What two writings of the same event have in common, whatever the order of their fields."""
    return hashlib.sha256(json.dumps(json.loads(text), sort_keys=True).encode()).hexdigest()


class Unsent(Generic[T]):
    """Takes the journal's events in order; `found` are those to be sent."""

    def __init__(self, on_topics: Mapping[str, AbstractSet[str]]) -> None:
        """From the fingerprints of what stands on each topic."""
        self._on_topics = on_topics
        self._waiting: dict[tuple[str, str], list[tuple[int, T]]] = {}
        self._taken = 0

    def take(self, topic: str, key: str, text: str, event: T, *, forgotten: bool = False) -> None:
        """The next event; `forgotten` says that its topic would not have it any more."""
        self._taken += 1
        waiting = self._waiting.setdefault((topic, key), [])
        if forgotten or fingerprint(text) in self._on_topics.get(topic, ()):
            waiting.clear()
        else:
            waiting.append((self._taken, event))

    @property
    def found(self) -> list[T]:
        """The events to be sent, in the journal's order."""
        return [event for _, event in sorted((each for key in self._waiting.values() for each in key), key=_place)]


def _place(numbered: tuple[int, T]) -> int:
    return numbered[0]
