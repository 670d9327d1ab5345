"""Which offsets hold the newest examples of a model: a search backwards through all partitions at once.

Each round reads one stretch before what has been read of each log. A log is done when its beginning is reached, or
when enough examples have been found and everything further back in it is older than they are.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from tailrace_contracts.ranges import Log, LogRange, LogRanges


class Sighting(NamedTuple):
    """One example of the model: when the broker got it, where it stands, and whose it is."""

    timestamp_ms: int
    offset: int
    prediction_id: str


@dataclass(slots=True)
class Search:
    """A search for the newest `wanted` examples in logs from `begins` up to `ends` (the next offset of each)."""

    wanted: int
    begins: dict[Log, int]
    ends: dict[Log, int]
    stretch: int = 4_000
    _read_from: dict[Log, int] = field(default_factory=dict)
    _oldest_ms: dict[Log, int] = field(default_factory=dict)
    _found: dict[Log, list[Sighting]] = field(default_factory=dict)

    def next_ranges(self) -> list[LogRange]:
        """The stretches to read next; empty when the search is over."""
        floor = self._oldest_wanted_ms()
        ranges = []
        for log, end in self.ends.items():
            until = self._read_from.get(log, end)
            begin = max(self.begins.get(log, 0), until - self.stretch)
            if begin >= until or (floor is not None and self._oldest_ms.get(log, floor + 1) < floor):
                continue
            ranges.append(
                LogRange(topic=log.topic, partition=log.partition, from_offset=begin, through_offset=until - 1)
            )
        return ranges

    def saw(self, stretch: LogRange, oldest_ms: int | None, found: list[Sighting]) -> None:
        """A stretch was read: the time of its oldest record (None: no records), and the model's examples in it."""
        self._read_from[stretch.log] = stretch.from_offset
        if oldest_ms is not None:
            self._oldest_ms[stretch.log] = oldest_ms
        self._found.setdefault(stretch.log, []).extend(found)

    def ranges(self) -> LogRanges:
        """From the oldest wanted example of each log through the log's end as the search found it."""
        first: dict[Log, int] = {}
        for log, sighting in self._newest():
            first[log] = min(first.get(log, sighting.offset), sighting.offset)
        return LogRanges(
            tuple(
                LogRange(
                    topic=log.topic, partition=log.partition, from_offset=offset, through_offset=self.ends[log] - 1
                )
                for log, offset in first.items()
            )
        )

    def _newest(self) -> list[tuple[Log, Sighting]]:
        """The newest sightings, of `wanted` different predictions at most."""
        everything = [(log, each) for log, found in self._found.items() for each in found]
        everything.sort(key=lambda entry: (entry[1].timestamp_ms, entry[1].offset), reverse=True)
        chosen: list[tuple[Log, Sighting]] = []
        known: set[str] = set()
        for log, sighting in everything:
            if sighting.prediction_id in known:
                continue
            if len(known) == self.wanted:
                break
            known.add(sighting.prediction_id)
            chosen.append((log, sighting))
        return chosen

    def _oldest_wanted_ms(self) -> int | None:
        newest = self._newest()
        return newest[-1][1].timestamp_ms if len(newest) == self.wanted else None
