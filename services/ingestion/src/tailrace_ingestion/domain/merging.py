"""Partials of all source partitions become windows of a model.

A partial is cumulative, so applying one is a maximum over its through-offset: duplicates, late repetitions and the last
words of a process that has lost its partitions change nothing.

The model's watermark is the smallest of its sources' watermarks. A source that has been silent for a while (by the
broker's clock, measured against the newest partial of the model) does not hold it back, and neither does one that has
not spoken at all for as long. A window closes when the watermark has passed its end and the allowed lateness. It is
kept a while longer: a partial that still comes is merged, and the closed window is given out once more.

How long it is kept depends on every source, silent ones too: silence is also how a partition looks whose process was
killed and is not replaced yet, and what it then tells belongs to windows that closed without it. Only a source that has
been silent for much longer counts as gone, and for its sake at most `MOST_HELD` windows are kept.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import msgspec
from msgspec import Struct

from tailrace_contracts.events import ColumnSummary, PartialSummarised, Slice, WindowSummarised
from tailrace_contracts.ranges import LogRanges
from tailrace_ingestion.domain.partials import WindowKey, key_of
from tailrace_ingestion.domain.parts import OUTPUTS, lowest
from tailrace_statistics import merge_all

MOST_HELD = 400
"""Closed windows of one model that are kept for the sake of silent sources."""


class Source(Struct, gc=False):
    """What is known of one source partition: its newest event time, and when the broker had its newest partial.

    And the last offset that any of its partials covers.
    """

    watermark: float
    arrived_ms: int
    through: int = -1


class ModelState(Struct):
    """What must outlive the windows.

    `closed` are the starts of kept windows that were given out as closed, with the sum of through-offsets that they had;
    `forgotten` is the newest end of those that are kept no more.
    """

    first_ms: int = 0
    forgotten: float = -1e18
    sources: dict[int, Source] = msgspec.field(default_factory=dict)
    closed: dict[float, int] = msgspec.field(default_factory=dict)


class Timing(NamedTuple):
    """How long windows of a model take events, and how long a source may be silent before windows close without it.

    How many sources there are; how many rows a window's sample has; after what silence a source is taken for gone. Times
    are in seconds.
    """

    lateness: float
    idle: float
    sources: int
    sample_rows: int = 0
    gone: float = 86_400.0


@dataclass(slots=True)
class MergedWindow:
    """The partials of one window, by source partition and part."""

    parts: dict[tuple[int, str], PartialSummarised] = field(default_factory=dict)
    changed: bool = False
    shown_at: float = -math.inf

    def through(self) -> int:
        """Grows with every partial that is applied."""
        return sum(part.source.through_offset + 1 for part in self.parts.values())


_encode_state = msgspec.json.Encoder().encode
_decode_state = msgspec.json.Decoder(ModelState, strict=False).decode


class ModelWindows:
    """All windows of one model."""

    def __init__(self, model: str, state: bytes | None = None) -> None:
        self.model = model
        self.state = ModelState() if state is None else _decode_state(state)
        self.windows: dict[WindowKey, MergedWindow] = {}
        self.too_late = 0
        self.late = 0
        """Late events in the windows that are kept: counted along, since adding up all parts for each partial is dear."""
        self._newest_ms = max((source.arrived_ms for source in self.state.sources.values()), default=0)

    def dump(self) -> bytes:
        """The state, to be stored."""
        return _encode_state(self.state)

    def restore(self, partial: PartialSummarised) -> None:
        """Take a stored partial back."""
        key = key_of(partial)
        window = self.windows.setdefault(key, MergedWindow())
        self._put(window, partial)
        window.changed = self.state.closed.get(key.start) != window.through()

    def apply(self, partial: PartialSummarised, arrived_ms: int) -> bool:
        """Merge a partial in; False when it says nothing new (an old one, or one for a window long forgotten).

        A forgotten window's partial that covers what none of its source did before is counted in `too_late`.
        """
        covered = self._hear(partial, arrived_ms)
        key, source = key_of(partial), (partial.source.partition, partial.part)
        window = self.windows.get(key)
        if window is None:
            if key.end <= self.state.forgotten:
                self.too_late += partial.source.through_offset > covered
                return False
            window = self.windows[key] = MergedWindow()
        known = window.parts.get(source)
        if known is not None and known.source.through_offset >= partial.source.through_offset:
            return False
        self._put(window, partial)
        window.changed = True
        return True

    def _put(self, window: MergedWindow, partial: PartialSummarised) -> None:
        source = (partial.source.partition, partial.part)
        known = window.parts.get(source)
        self.late += partial.late - (known.late if known else 0)
        window.parts[source] = partial

    def _hear(self, partial: PartialSummarised, arrived_ms: int) -> int:
        """Take note of its source; the last offset that was covered before."""
        moment, number = partial.watermark.timestamp(), partial.source.partition
        known = self.state.sources.get(number, Source(moment, arrived_ms))
        known.watermark, known.arrived_ms = max(known.watermark, moment), max(known.arrived_ms, arrived_ms)
        covered, known.through = known.through, max(known.through, partial.source.through_offset)
        self.state.sources[number] = known
        self.state.first_ms = self.state.first_ms or arrived_ms
        self._newest_ms = max(self._newest_ms, arrived_ms)
        return covered

    def _watermark(self, sources: int, silence: float) -> float:
        """The event time that no source will go behind again, leaving out those silent for so many seconds."""
        silent_before = self._newest_ms - silence * 1000
        if len(self.state.sources) < sources and self.state.first_ms >= silent_before:
            return -math.inf
        heard = [source.watermark for source in self.state.sources.values() if source.arrived_ms >= silent_before]
        return min(heard, default=-math.inf)

    def due(self, timing: Timing, now: float, every: float) -> Iterator[WindowSummarised]:
        """Windows to give out: those that closed (or changed since), and open ones that changed, now and then.

        What was closed stays so, though a source that was silent may speak again of earlier times.
        """
        watermark = self._watermark(timing.sources, timing.idle)
        for key, window in sorted(self.windows.items(), key=lambda item: item[0].start):
            told = self.state.closed.get(key.start)
            closed = told is not None or key.end + timing.lateness <= watermark
            if closed and told != window.through():
                self.state.closed[key.start] = window.through()
                window.changed = False
                yield merged(window.parts.values(), timing.sample_rows, closed=True)
            elif not closed and window.changed and now - window.shown_at >= every:
                window.changed, window.shown_at = False, now
                yield merged(window.parts.values(), timing.sample_rows, closed=False)

    def forget(self, timing: Timing) -> list[PartialSummarised]:
        """Drop windows that were given out as closed and are long over; the partials that need not be stored any more."""
        closed_to, sure_to = (self._watermark(timing.sources, silence) for silence in (timing.idle, timing.gone))
        over = sorted(key for key in self.windows if self._kept_until(key, timing) <= closed_to)
        held = [key for key in over if self._kept_until(key, timing) > sure_to]
        kept = set(held[-MOST_HELD:])
        over = [key for key in over if key not in kept and self._is_told(key)]
        dropped = [part for key in over for part in self.windows.pop(key).parts.values()]
        self.late -= sum(part.late for part in dropped)
        for key in over:
            self.state.closed.pop(key.start, None)
            self.state.forgotten = max(self.state.forgotten, key.end)
        return dropped

    def _kept_until(self, key: WindowKey, timing: Timing) -> float:
        return key.end + timing.lateness + max(timing.lateness, key.end - key.start)

    def _is_told(self, key: WindowKey) -> bool:
        """Whether it was given out as closed, as it is now."""
        return self.state.closed.get(key.start) == self.windows[key].through()


def merged(parts: Iterable[PartialSummarised], sample_rows: int, *, closed: bool) -> WindowSummarised:
    """One window out of its partials. Where a spec has changed a column's type, the newest spec's type counts."""
    ordered = sorted(parts, key=lambda part: -part.spec_revision)
    newest, kinds = ordered[0], _kinds(ordered)
    served = [each for part in ordered for each in part.slices if each.arm is not None and each.arm != "shadow"]
    slices: dict[tuple[str, ...], list[Slice]] = {}
    for each in (each for part in ordered for each in part.slices):
        slices.setdefault(_order(each), []).append(each)
    whole = [*(each.columns for each in served), *(part.columns for part in ordered if part.columns)]
    return WindowSummarised.model_construct(
        model=newest.model,
        spec_revision=newest.spec_revision,
        window=newest.window,
        events=sum(part.events for part in ordered),
        late=sum(part.late for part in ordered),
        columns=_together(whole, kinds),
        slices=tuple(
            same[0].model_copy(
                update={
                    "events": sum(each.events for each in same),
                    "columns": _together([each.columns for each in same], kinds),
                }
            )
            for _, same in sorted(slices.items())
        ),
        sample=lowest([row for part in ordered for row in part.sample], sample_rows),
        closed=closed,
        derived_from=LogRanges.of(*(part.source for part in ordered)),
    )


def _kinds(ordered: Iterable[PartialSummarised]) -> dict[str, str]:
    """What each column is, by the newest spec that has it."""
    kinds: dict[str, str] = {}
    for part in ordered:
        for columns in (part.columns, *(each.columns for each in part.slices)):
            for name, summary in columns.items():
                kinds.setdefault(name, summary.type)
    return kinds


def _order(part: Slice) -> tuple[str, ...]:
    """Arms first, by version, then groups by attribute."""
    version = "" if part.version is None else f"{part.version:020d}"
    return (part.attribute or "", part.group or "", part.arm or "", version)


def _together(parts: Iterable[Mapping[str, ColumnSummary]], kinds: Mapping[str, str]) -> dict[str, ColumnSummary]:
    """Disjoint parts of a table, column by column; without outputs that no event has."""
    columns: dict[str, list[ColumnSummary]] = {}
    for part in parts:
        for name, summary in part.items():
            if kinds[name] == summary.type:
                columns.setdefault(name, []).append(summary)
    found = {name: same[0] if len(same) == 1 else merge_all(same) for name, same in columns.items()}
    return {name: summary for name, summary in found.items() if summary.count or name not in OUTPUTS}
