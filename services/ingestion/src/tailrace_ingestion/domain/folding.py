"""Statistics of one source log: windows of event time, each folded cumulatively and published as partials.

Valid events wait here, batch by batch, until the next publication; then all that wait are sorted by window and folded
column by column, so that the price of a fold is paid once a second and not once a batch.

A window is folded in parts, each a partial of its own: one for each version that served (they are disjoint, and the
whole is their sum: with one version the slice costs nothing), one for each shadow and each protected group, one for the
row sample, and, where a spec has too many features for a message, parts of features that are not sliced. No partial
comes near the limit of its topic, however many features and groups there are.

What makes a fold exact across crashes: a partial is cumulative and names the last offset that it covers. After a
recovery the log is read again from the committed offset, and each part leaves out events that it already covers. So
that the second life judges event times as the first did, recovery takes the watermark that was published *before* the
committed offset, not the newest one.

Windows are dropped once the watermark has passed their end and the allowed lateness; an event for such a window is
late: it is forwarded and folded nowhere. It is counted, in a part of its own, in the window in which the watermark was
when it came: that is open, and its partials tell the number as exactly as all else.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from operator import itemgetter

import numpy as np

from tailrace_contracts.events import PartialSummarised
from tailrace_contracts.ranges import Log
from tailrace_ingestion.domain.checks import Floats, Integers
from tailrace_ingestion.domain.event_time import moment_of
from tailrace_ingestion.domain.model import Shape
from tailrace_ingestion.domain.partials import Head, WindowKey, decode_head, facet_of, key_of, partial_of, resumed
from tailrace_ingestion.domain.rows import Rows, joined
from tailrace_ingestion.domain.windows import Window


class SourceBook:
    """The open windows of one source log, and the watermark of each model in it."""

    def __init__(self, log: Log) -> None:
        self.log = log
        self.read_through = -1
        self.newest: dict[str, float] = {}
        self.windows: dict[WindowKey, Window] = {}
        self.waiting = 0
        self._rows: list[Rows] = []
        self._begun = False
        self._published_through = -1
        self._covered = -1
        self._published: dict[tuple[str, datetime, str], tuple[Head, bytes]] = {}
        self._announced: dict[str, float] = {}
        self._watermarks: dict[str, list[tuple[int, float]]] = {}

    # ------------------------------------------------------------ recovery

    def recover(self, published: Iterable[bytes]) -> None:
        """Remember what was published for this log: the newest partial of each part, each model's watermarks."""
        for value in published:
            head = decode_head(value)
            key = (head.model, head.window.start, head.part)
            known = self._published.get(key)
            if known is None or head.source.through_offset >= known[0].source.through_offset:
                self._published[key] = (head, value)
            self._covered = max(self._covered, head.source.through_offset)
            watermarks = self._watermarks.setdefault(head.model, [])
            watermarks.append((head.source.through_offset, head.watermark.timestamp()))

    def begin(self, offset: int, shapes: Mapping[str, Shape]) -> None:
        """The log is read from this offset on: set the watermarks to what they were just before, open the windows."""
        if self._begun:
            return
        self._begun, self.read_through, self._published_through = True, offset - 1, offset - 1
        for model, watermarks in self._watermarks.items():
            before = [watermark for through, watermark in watermarks if through < offset]
            if before:
                self.newest[model] = max(before)
        for head, value in self._published.values():
            shape = shapes.get(head.model)
            lateness = shape.lateness if shape else 0.0
            if head.window.end.timestamp() + lateness > self.newest.get(head.model, -np.inf):
                self._resume(PartialSummarised.model_validate_json(value), shape)
        self._watermarks.clear()
        self._published.clear()

    def _resume(self, partial: PartialSummarised, shape: Shape | None) -> None:
        window = self.windows.setdefault(key_of(partial), Window())
        window.revision = max(window.revision, partial.spec_revision)
        window.lateness = shape.lateness if shape else 0.0
        if partial.part:
            window.parts[facet_of(partial)] = resumed(partial, shape)
        else:
            window.cover(partial.source.through_offset)

    # ------------------------------------------------------------ events

    def add(self, rows: Rows) -> None:
        """Keep rows for the next fold."""
        self._rows.append(rows)
        self.waiting += len(rows.offsets)

    def count_late(self, shape: Shape, offsets: Integers, watermarks: Floats) -> None:
        """Count late events, each with the watermark that it met."""
        windows = shape.window_of(watermarks)
        for start in np.unique(windows).tolist():
            key = WindowKey(shape.spec.model, start, start + shape.width)
            self.windows.setdefault(key, Window()).count_late(shape, offsets[windows == start])

    def fold(self) -> None:
        """Fold all rows that wait, spec by spec and window by window."""
        waiting, self._rows, self.waiting = self._rows, [], 0
        by_shape: dict[tuple[str, int, bool], list[Rows]] = {}
        for rows in waiting:
            by_shape.setdefault((rows.shape.spec.model, rows.shape.revision, rows.of_shadows), []).append(rows)
        for same in by_shape.values():
            self._fold(joined(same))

    def _fold(self, rows: Rows) -> None:
        starts, width = np.unique(rows.windows).tolist(), rows.shape.width
        for start in starts:
            some = rows if len(starts) == 1 else rows.taken(np.flatnonzero(rows.windows == start))
            key = WindowKey(rows.shape.spec.model, start, start + width)
            self.windows.setdefault(key, Window()).fold(some, self.log.partition)

    # ------------------------------------------------------------ publication

    @property
    def committable(self) -> int:
        """The last offset that may be committed, -1 for none.

        What an earlier life had published beyond its commit is first read to its end: in between, no partial would
        tell the next life where the watermarks stood.
        """
        return self._published_through if self._published_through >= self._covered else -1

    @property
    def unpublished(self) -> bool:
        """Whether anything was read since the last publication."""
        return self.read_through > self._published_through

    def publish(self) -> Iterator[PartialSummarised]:
        """Fold what waits; give a partial for each part that changed; forget windows that are over.

        The last partial of each model tells its new watermark, so that no window closes upon half of what is published;
        those before tell, at most, where their window begins, so older windows come first.
        """
        self.fold()
        self._published_through = self.read_through
        changed = [
            (key, window, facet, part)
            for key, window in sorted(self.windows.items(), key=itemgetter(0))
            for facet, part in window.parts.items()
            if part.dirty
        ]
        last = {key.model: at for at, (key, *_) in enumerate(changed)}
        for at, (key, window, facet, part) in enumerate(changed):
            part.dirty, part.through_offset = False, self.read_through
            newest = self.newest.get(key.model, key.start)
            watermark = newest if last[key.model] == at else self._announced.get(key.model, min(key.start, newest))
            partial = partial_of(self.log, key, window.revision, facet, part)
            yield partial.model_copy(update={"watermark": moment_of(watermark)})
        self._announced |= {model: self.newest[model] for model in last if model in self.newest}
        for key, window in list(self.windows.items()):
            if key.end + window.lateness <= self.newest.get(key.model, -np.inf):
                del self.windows[key]
