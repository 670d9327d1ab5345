"""Statistics of one source log: windows of event time, each folded cumulatively and published as partials.

Valid events wait here, batch by batch, until the next publication; then all that wait are sorted by window and folded
column by column, so that the price of a fold is paid once a second and not once a batch.

What makes a fold exact across crashes: a partial is cumulative and names the last offset that it covers. After a
recovery the log is read again from the committed offset, and a window leaves out events that it already covers. So that
the second life judges event times as the first did, recovery takes the watermark that was published *before* the
committed offset, not the newest one.

Windows are dropped once the watermark has passed their end and the allowed lateness; an event for such a window is
late: it is forwarded and counted, and folded nowhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec import Struct

from tailrace_contracts.events import (
    CategoricalSummary,
    ColumnSummary,
    NumericalSummary,
    PartialSummarised,
    WindowSpan,
)
from tailrace_contracts.ranges import Log, LogRange
from tailrace_contracts.spec import CategoricalFeature, ClassLabel, Limits, ModelSpec
from tailrace_ingestion.domain.checks import Column, Floats, Integers, NumberColumn, WordColumn
from tailrace_ingestion.domain.event_time import DAY_SECONDS, moment_of
from tailrace_statistics import CategoricalFold, NumericalFold

OUTPUTS = ("prediction", "probability", "latency_ms")
"""Columns beside the features; a feature of the same name takes precedence."""


class WindowKey(NamedTuple):
    """One window of one model: [start, end) in seconds since 1970."""

    model: str
    start: float
    end: float


@dataclass(frozen=True, slots=True)
class Shape:
    """What a revision of a spec says about windows and columns."""

    spec: ModelSpec
    revision: int

    @property
    def width(self) -> float:
        """A window's length in seconds."""
        return self.spec.monitors.window_days * DAY_SECONDS

    @property
    def lateness(self) -> float:
        """How long after its end a window takes events, in seconds of event time."""
        return self.spec.monitors.allowed_lateness_days * DAY_SECONDS

    def categories(self, name: str) -> tuple[str, ...]:
        """The known words of a categorical column."""
        for feature in self.spec.features:
            if feature.name == name and isinstance(feature, CategoricalFeature):
                return feature.categories
        label = self.spec.label
        return tuple(str(each) for each in label.classes) if isinstance(label, ClassLabel) else ()


@dataclass(slots=True)
class Rows:
    """Events of one model, aligned column by column.

    `valid` is false for an event that was refused for a value: what was wrong with it is counted, its values are not
    folded.
    """

    shape: Shape
    offsets: Integers
    windows: Floats
    valid: npt.NDArray[np.bool_]
    columns: dict[str, Column]

    def taken(self, rows: Integers) -> Rows:
        """Some of the rows."""
        columns = {name: taken(column, rows) for name, column in self.columns.items()}
        return Rows(self.shape, self.offsets[rows], self.windows[rows], self.valid[rows], columns)


def taken(column: Column, rows: Integers) -> Column:
    """Some of a column's rows."""
    if isinstance(column, NumberColumn):
        return NumberColumn(column.values[rows], column.missing[rows], column.out_of_limits[rows])
    codes, missing, unseen = column.codes[rows], column.missing[rows], column.unseen[rows]
    return WordColumn(codes, column.words, column.known, missing, unseen)


class ColumnFold:
    """A fold and, beside it, the counts of what the policies kept from it."""

    __slots__ = ("_fold", "_missing", "_odd")

    def __init__(self, fold: NumericalFold | CategoricalFold) -> None:
        self._fold, self._missing, self._odd = fold, 0, 0

    @classmethod
    def of(cls, column: Column, categories: Sequence[str]) -> ColumnFold:
        """An empty fold for a column of this type."""
        return cls(NumericalFold(Limits()) if isinstance(column, NumberColumn) else CategoricalFold(categories))

    @classmethod
    def resumed(cls, summary: ColumnSummary, categories: Sequence[str]) -> ColumnFold:
        """A fold that goes on where a summary stopped."""
        if isinstance(summary, NumericalSummary):
            return cls(NumericalFold.from_summary(summary))
        return cls(CategoricalFold.from_summary(summary, categories))

    def takes(self, column: Column) -> bool:
        """Whether the column is of the fold's type (a spec may have changed it)."""
        return isinstance(self._fold, NumericalFold) == isinstance(column, NumberColumn)

    def add(self, column: Column, valid: npt.NDArray[np.bool_]) -> None:
        """Fold a column."""
        self._missing += int(np.count_nonzero(column.missing))
        if isinstance(column, NumberColumn) and isinstance(self._fold, NumericalFold):
            self._odd += int(np.count_nonzero(column.out_of_limits))
            present = valid & ~np.isnan(column.values)
            self._fold.fold(column.values if present.all() else column.values[present])
        elif isinstance(column, WordColumn) and isinstance(self._fold, CategoricalFold):
            present = valid & (column.codes >= 0)
            self._odd += int(np.count_nonzero(column.unseen & ~present))
            counts = np.bincount(column.codes[present], minlength=len(column.words)).tolist()
            self._fold.add({word: count for word, count in zip(column.words, counts, strict=True) if count})

    def summary(self) -> ColumnSummary:
        """The column so far. A fold counts the unseen words that it takes; `_odd` are those that it never saw."""
        found = self._fold.summary()
        missing = found.missing + self._missing
        if isinstance(found, NumericalSummary):
            return found.model_copy(update={"missing": missing, "out_of_limits": found.out_of_limits + self._odd})
        return found.model_copy(update={"missing": missing, "unseen": found.unseen + self._odd})


@dataclass(slots=True)
class Window:
    """One window's statistics as this source log has seen it."""

    from_offset: int
    through_offset: int = -1
    events: int = 0
    revision: int = 1
    columns: dict[str, ColumnFold] = field(default_factory=dict)
    lateness: float = 0.0
    dirty: bool = False


class _Span(Struct, frozen=True):
    start: datetime
    end: datetime


class _Source(Struct, frozen=True, gc=False):
    through_offset: int


class _Head(Struct, frozen=True):
    """A partial without its columns: enough to choose those that are worth reading whole."""

    model: str
    window: _Span
    source: _Source
    watermark: datetime


_decode_head = msgspec.json.Decoder(_Head).decode


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
        self._published: dict[tuple[str, datetime], tuple[_Head, bytes]] = {}
        self._watermarks: dict[str, list[tuple[int, float]]] = {}

    # ------------------------------------------------------------ recovery

    def recover(self, published: Iterable[bytes]) -> None:
        """Remember what was published for this log: each window's newest partial, each model's watermarks."""
        for value in published:
            head = _decode_head(value)
            key = (head.model, head.window.start)
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
                partial = PartialSummarised.model_validate_json(value)
                self.windows[key_of(partial)] = _resumed(partial, shape)
        self._watermarks.clear()
        self._published.clear()

    # ------------------------------------------------------------ events

    def add(self, rows: Rows) -> None:
        """Keep rows for the next fold."""
        self._rows.append(rows)
        self.waiting += len(rows.offsets)

    def fold(self) -> None:
        """Fold all rows that wait, spec by spec and window by window."""
        waiting, self._rows, self.waiting = self._rows, [], 0
        by_shape: dict[tuple[str, int], list[Rows]] = {}
        for rows in waiting:
            by_shape.setdefault((rows.shape.spec.model, rows.shape.revision), []).append(rows)
        for same in by_shape.values():
            self._fold(_joined(same))

    def _fold(self, rows: Rows) -> None:
        starts = np.unique(rows.windows).tolist()
        if len(starts) == 1:
            self._fold_window(rows, starts[0])
            return
        for start in starts:
            self._fold_window(rows.taken(np.flatnonzero(rows.windows == start)), start)

    def _fold_window(self, rows: Rows, start: float) -> None:
        shape = rows.shape
        key = WindowKey(shape.spec.model, start, start + shape.width)
        window = self.windows.get(key)
        if window is None:
            window = self.windows[key] = Window(int(rows.offsets[0]))
        if rows.offsets[0] <= window.through_offset:
            rows = rows.taken(np.flatnonzero(rows.offsets > window.through_offset))
        if not len(rows.offsets):
            return
        window.revision, window.lateness, window.dirty = shape.revision, shape.lateness, True
        window.through_offset = int(rows.offsets[-1])
        window.events += int(np.count_nonzero(rows.valid))
        for name, column in rows.columns.items():
            if name in OUTPUTS and name not in shape.spec.feature_names and bool(column.missing.all()):
                continue
            fold = window.columns.get(name)
            if fold is None or not fold.takes(column):
                fold = window.columns[name] = ColumnFold.of(column, shape.categories(name))
            fold.add(column, rows.valid)

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
        """Fold what waits; give a partial for each window that changed; forget windows that are over."""
        self.fold()
        self._published_through = self.read_through
        for key, window in list(self.windows.items()):
            if window.dirty:
                window.dirty, window.through_offset = False, self.read_through
                yield self._partial(key, window)
            if key.end + window.lateness <= self.newest.get(key.model, -np.inf):
                del self.windows[key]

    def _partial(self, key: WindowKey, window: Window) -> PartialSummarised:
        return PartialSummarised.model_construct(
            model=key.model,
            spec_revision=window.revision,
            window=WindowSpan.model_construct(start=moment_of(key.start), end=moment_of(key.end)),
            source=LogRange.model_construct(
                topic=self.log.topic,
                partition=self.log.partition,
                from_offset=window.from_offset,
                through_offset=window.through_offset,
            ),
            events=window.events,
            columns={name: fold.summary() for name, fold in window.columns.items()},
            watermark=moment_of(self.newest.get(key.model, key.start)),
        )


def key_of(partial: PartialSummarised) -> WindowKey:
    """The window that a partial is about."""
    return WindowKey(partial.model, partial.window.start.timestamp(), partial.window.end.timestamp())


def record_key(partial: PartialSummarised) -> str:
    """The key of a partial on its topic: source partition, model, window."""
    start = partial.window.start.isoformat().replace("+00:00", "Z")
    return f"{partial.source.partition}|{partial.model}|{start}"


def _resumed(partial: PartialSummarised, shape: Shape | None) -> Window:
    return Window(
        from_offset=partial.source.from_offset,
        through_offset=partial.source.through_offset,
        events=partial.events,
        revision=partial.spec_revision,
        columns={
            name: ColumnFold.resumed(summary, _words(summary, name, shape)) for name, summary in partial.columns.items()
        },
        lateness=shape.lateness if shape else 0.0,
    )


def _words(summary: ColumnSummary, name: str, shape: Shape | None) -> tuple[str, ...]:
    if shape is not None:
        return shape.categories(name)
    return tuple(summary.counts) if isinstance(summary, CategoricalSummary) else ()


def _joined(parts: list[Rows]) -> Rows:
    if len(parts) == 1:
        return parts[0]
    return Rows(
        shape=parts[0].shape,
        offsets=np.concatenate([part.offsets for part in parts]),
        windows=np.concatenate([part.windows for part in parts]),
        valid=np.concatenate([part.valid for part in parts]),
        columns={name: _joined_column([part.columns[name] for part in parts]) for name in parts[0].columns},
    )


def _joined_column(parts: list[Column]) -> Column:
    missing = np.concatenate([part.missing for part in parts])
    numbers = [part for part in parts if isinstance(part, NumberColumn)]
    if numbers:
        outside = np.concatenate([part.out_of_limits for part in numbers])
        return NumberColumn(np.concatenate([part.values for part in numbers]), missing, outside)
    words = [part for part in parts if isinstance(part, WordColumn)]
    unseen = np.concatenate([part.unseen for part in words])
    return WordColumn(*_one_list(words), missing, unseen)


def _one_list(parts: list[WordColumn]) -> tuple[Integers, list[str], int]:
    """Codes, words and number of known words of all parts: the known ones are the same, unseen ones follow in turn."""
    known = parts[0].known
    words, codes = parts[0].words[:known], []
    for part in parts:
        codes.append(np.where(part.codes >= known, part.codes + (len(words) - known), part.codes))
        words += part.words[known:]
    return np.concatenate(codes), words, known
