"""Which revision of each model's spec is in force where in one log.

A spec is applied on another topic, so by itself nothing says which events it met: a process that reads the log again
would check old events by the newest spec. Therefore the first batch that meets a newer revision writes down from which
offset on it counts, before anything else comes of the batch. Whoever reads the log again finds what was written down, and
adopts nothing newer until it has passed all of it.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterable
from operator import attrgetter
from typing import NamedTuple

from tailrace_contracts.events import SpecTookEffect

_PLACE = attrgetter("from_offset")


class InForce(NamedTuple):
    """What counts at an offset: a revision written down for it, or none. `adopt` where a newer one may begin here."""

    effect: SpecTookEffect | None
    adopt: bool


class SpecHistory:
    """The revisions that took effect in one log, by model and offset."""

    def __init__(self, effects: Iterable[SpecTookEffect] = ()) -> None:
        self._effects: dict[str, list[SpecTookEffect]] = {}
        for effect in effects:
            self.add(effect)

    def add(self, effect: SpecTookEffect) -> None:
        """Write one down. What two owners of the log wrote down at different offsets counts from the first on."""
        known = self._effects.setdefault(effect.model, [])
        insort(known, effect, key=_PLACE)
        newest = 0
        for each in list(known):
            if each.spec_revision <= newest:
                known.remove(each)
            newest = max(newest, each.spec_revision)

    def cuts(self, first: int, last: int) -> list[int]:
        """The offsets in (first, last] at which something took effect: a batch is checked in parts that begin there."""
        places = {each.from_offset for known in self._effects.values() for each in known}
        return sorted(place for place in places if first < place <= last)

    def at(self, model: str, offset: int) -> InForce:
        """What counts for a model's events at an offset."""
        known = self._effects.get(model, [])
        past = [each for each in known if each.from_offset <= offset]
        return InForce(past[-1] if past else None, adopt=len(past) == len(known))
