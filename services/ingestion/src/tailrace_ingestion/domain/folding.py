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
    SampledRow,
    Slice,
    WindowSpan,
)
from tailrace_contracts.ranges import Log, LogRange
from tailrace_contracts.spec import CategoricalFeature, ClassLabel, Limits, ModelSpec
from tailrace_ingestion.domain.checks import ABSENT, Column, Floats, Integers, Mask, NumberColumn, WordColumn
from tailrace_ingestion.domain.event_time import DAY_SECONDS, moment_of
from tailrace_ingestion.domain.parts import NOT_SERVED, OUTPUTS, SAMPLE, Facet, Plan, groups_of, plan_of, sampled
from tailrace_statistics import CategoricalFold, NumericalFold


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
    plan: Plan = field(init=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "plan", plan_of(self.spec))

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
    """Events of one model, aligned column by column; or what shadows answered, a row for each answer.

    `valid` is false for an event that was refused for a value: what was wrong with it is counted, its values are not
    folded. `arms` tells who answered: `champion/3`, absent for an event that nobody answered.
    """

    shape: Shape
    offsets: Integers
    windows: Floats
    valid: npt.NDArray[np.bool_]
    arms: WordColumn
    columns: dict[str, Column]
    of_shadows: bool = False

    def taken(self, rows: Integers, names: Iterable[str] | None = None) -> Rows:
        """Some of the rows, of all columns or of some."""
        wanted = self.columns if names is None else {name: self.columns[name] for name in names}
        columns = {name: taken(column, rows) for name, column in wanted.items()}
        arms = WordColumn(self.arms.codes[rows], self.arms.words, 0, self.arms.missing[rows], self.arms.unseen[rows])
        return Rows(
            self.shape, self.offsets[rows], self.windows[rows], self.valid[rows], arms, columns, self.of_shadows
        )


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
class Part:
    """A part of a window as this source log has seen it, with the offsets that it covers."""

    from_offset: int
    through_offset: int
    events: int = 0
    columns: dict[str, ColumnFold] = field(default_factory=dict)
    sample: tuple[SampledRow, ...] = ()
    dirty: bool = False

    def uncovered(self, rows: Rows) -> Rows | None:
        """The rows that this part does not cover yet; None for none."""
        if not len(rows.offsets) or rows.offsets[-1] <= self.through_offset:
            return None
        if rows.offsets[0] > self.through_offset:
            return rows
        return rows.taken(np.flatnonzero(rows.offsets > self.through_offset))

    def add(self, rows: Rows, names: Iterable[str]) -> None:
        """Fold these columns of rows."""
        self.through_offset, self.dirty = int(rows.offsets[-1]), True
        self.events += int(np.count_nonzero(rows.valid))
        for name in names:
            column, fold = rows.columns[name], self.columns.get(name)
            if fold is None or not fold.takes(column):
                fold = self.columns[name] = ColumnFold.of(column, rows.shape.categories(name))
            fold.add(column, rows.valid)


@dataclass(slots=True)
class Window:
    """One window's parts. `covered` is what a partial of an older form, which is the whole, covers already."""

    revision: int = 1
    lateness: float = 0.0
    covered: int = -1
    parts: dict[Facet, Part] = field(default_factory=dict)

    def cover(self, through_offset: int) -> None:
        """A partial of an older form covers every part through this offset."""
        self.covered = max(self.covered, through_offset)
        for part in self.parts.values():
            part.through_offset = max(part.through_offset, through_offset)

    def part(self, facet: Facet, first_offset: int) -> Part:
        """The part of this name; a new one begins behind what is covered."""
        found = self.parts.get(facet)
        if found is None:
            found = self.parts[facet] = Part(first_offset, self.covered)
        return found

    def fold(self, rows: Rows, partition: int) -> None:
        """Fold rows of this window into every part that they belong to."""
        self.revision, self.lateness = rows.shape.revision, rows.shape.lateness
        plan = rows.shape.plan
        outputs = [name for name in OUTPUTS if name in rows.columns and name not in plan.features]
        names = outputs if rows.of_shadows else [*outputs, *plan.sliced]
        for code, part in _cells(rows, rows.arms.codes, names):
            facet = Facet.of_arm(rows.arms.words[code]) if code >= 0 else NOT_SERVED
            self._add(self._bounded(facet), part, names if code >= 0 else plan.sliced)
        if rows.of_shadows:
            return
        grouped = [*outputs, *plan.grouped]
        for attribute in rows.shape.spec.protected:
            groups, codes = groups_of(rows.columns[attribute])
            for code, part in _cells(rows, codes, grouped):
                self._add(Facet(attribute=attribute, group=groups[code]), part, grouped)
        for number, features in enumerate(plan.chunks):
            self._add(Facet(chunk=number + 1), rows, features)
        self._sample(rows, partition)

    def _add(self, facet: Facet, rows: Rows, names: Iterable[str]) -> None:
        part = self.part(facet, int(rows.offsets[0]))
        left = part.uncovered(rows)
        if left is not None:
            part.add(left, names)

    def _bounded(self, facet: Facet) -> Facet:
        """The facet, without its version where there are too many versions already."""
        if facet in self.parts or sum(each.arm is not None for each in self.parts) < VERSIONS:
            return facet
        return Facet(arm=facet.arm)

    def _sample(self, rows: Rows, partition: int) -> None:
        part = self.part(SAMPLE, int(rows.offsets[0]))
        left = part.uncovered(rows)
        if left is None:
            return
        fine = left if left.valid.all() else left.taken(np.flatnonzero(left.valid))
        found = sampled(part.sample, fine.offsets, partition, fine.columns, rows.shape.plan)
        part.through_offset = int(left.offsets[-1])
        if found is not part.sample:
            part.sample, part.dirty = found, True


VERSIONS = 16
"""Versions of a window that have a slice of their own; further ones are counted under their arm."""


def _cells(rows: Rows, codes: Integers, names: Sequence[str]) -> Iterator[tuple[int, Rows]]:
    """The rows by code, with these columns. All of one code, which is the rule, are handed on as they are."""
    found = np.unique(codes).tolist()
    for code in found:
        yield code, rows if len(found) == 1 else rows.taken(np.flatnonzero(codes == code), names)


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
    part: str = ""


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
        self._published: dict[tuple[str, datetime, str], tuple[_Head, bytes]] = {}
        self._announced: dict[str, float] = {}
        self._watermarks: dict[str, list[tuple[int, float]]] = {}

    # ------------------------------------------------------------ recovery

    def recover(self, published: Iterable[bytes]) -> None:
        """Remember what was published for this log: the newest partial of each part, each model's watermarks."""
        for value in published:
            head = _decode_head(value)
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
            window.parts[facet_of(partial)] = _resumed(partial, shape)
        else:
            window.cover(partial.source.through_offset)

    # ------------------------------------------------------------ events

    def add(self, rows: Rows) -> None:
        """Keep rows for the next fold."""
        self._rows.append(rows)
        self.waiting += len(rows.offsets)

    def fold(self) -> None:
        """Fold all rows that wait, spec by spec and window by window."""
        waiting, self._rows, self.waiting = self._rows, [], 0
        by_shape: dict[tuple[str, int, bool], list[Rows]] = {}
        for rows in waiting:
            by_shape.setdefault((rows.shape.spec.model, rows.shape.revision, rows.of_shadows), []).append(rows)
        for same in by_shape.values():
            self._fold(_joined(same))

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

        The last partial of each model tells its new watermark, so that no window closes upon half of what is published.
        """
        self.fold()
        self._published_through = self.read_through
        changed = [
            (key, window, facet, part)
            for key, window in self.windows.items()
            for facet, part in window.parts.items()
            if part.dirty
        ]
        last = {key.model: at for at, (key, *_) in enumerate(changed)}
        for at, (key, window, facet, part) in enumerate(changed):
            part.dirty, part.through_offset = False, self.read_through
            newest = self.newest.get(key.model, key.start)
            watermark = newest if last[key.model] == at else self._announced.get(key.model, min(key.start, newest))
            yield self._partial(key, window.revision, facet, part).model_copy(
                update={"watermark": moment_of(watermark)}
            )
        self._announced |= {model: self.newest.get(model, -np.inf) for model in last}
        for key, window in list(self.windows.items()):
            if key.end + window.lateness <= self.newest.get(key.model, -np.inf):
                del self.windows[key]

    def _partial(self, key: WindowKey, revision: int, facet: Facet, part: Part) -> PartialSummarised:
        columns = {name: fold.summary() for name, fold in part.columns.items()}
        of_slice = facet.arm is not None or facet.attribute is not None
        return PartialSummarised.model_construct(
            model=key.model,
            spec_revision=revision,
            window=WindowSpan.model_construct(start=moment_of(key.start), end=moment_of(key.end)),
            part=facet.name,
            source=LogRange.model_construct(
                topic=self.log.topic,
                partition=self.log.partition,
                from_offset=part.from_offset,
                through_offset=part.through_offset,
            ),
            events=part.events if facet.counts else 0,
            columns={} if of_slice else columns,
            slices=(_slice(facet, part.events, columns),) if of_slice else (),
            sample=part.sample,
            watermark=moment_of(key.start),
        )


def _slice(facet: Facet, events: int, columns: dict[str, ColumnSummary]) -> Slice:
    return Slice.model_construct(
        arm=facet.arm,
        version=facet.version,
        attribute=facet.attribute,
        group=facet.group,
        events=events,
        columns=columns,
    )


def facet_of(partial: PartialSummarised) -> Facet:
    """What a partial is about; one of an older form is about the whole window, and counts like what nobody served."""
    if partial.slices:
        (part,) = partial.slices
        return Facet(part.arm, part.version, part.attribute, part.group)
    if partial.part.startswith("features:"):
        return Facet(chunk=int(partial.part.removeprefix("features:")))
    return SAMPLE if partial.part == SAMPLE.name else NOT_SERVED


def key_of(partial: PartialSummarised) -> WindowKey:
    """The window that a partial is about."""
    return WindowKey(partial.model, partial.window.start.timestamp(), partial.window.end.timestamp())


def record_key(partial: PartialSummarised) -> str:
    """The key of a partial on its topic: source partition, model, window, part."""
    start = partial.window.start.isoformat().replace("+00:00", "Z")
    return "|".join(filter(None, (str(partial.source.partition), partial.model, start, partial.part)))


def _resumed(partial: PartialSummarised, shape: Shape | None) -> Part:
    columns = partial.slices[0].columns if partial.slices else partial.columns
    return Part(
        from_offset=partial.source.from_offset,
        through_offset=partial.source.through_offset,
        events=partial.slices[0].events if partial.slices else partial.events,
        columns={name: ColumnFold.resumed(summary, _words(summary, name, shape)) for name, summary in columns.items()},
        sample=partial.sample,
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
        arms=WordColumn(*_one_list([part.arms for part in parts]), *_masks([part.arms for part in parts])),
        of_shadows=parts[0].of_shadows,
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
    return WordColumn(*_one_list(words), *_masks(words))


def _masks(parts: list[WordColumn]) -> tuple[Mask, Mask]:
    return np.concatenate([part.missing for part in parts]), np.concatenate([part.unseen for part in parts])


def _one_list(parts: list[WordColumn]) -> tuple[Integers, list[str], int]:
    """Codes, words and number of known words of all parts: the known ones are the same, unseen ones follow."""
    words = list(parts[0].words)
    places = {word: at for at, word in enumerate(words)}
    codes = [parts[0].codes]
    for part in parts[1:]:
        for word in part.words[part.known :]:
            if word not in places:
                places[word] = len(words)
                words.append(word)
        moved = np.array([*range(part.known), *(places[word] for word in part.words[part.known :]), ABSENT], np.int64)
        codes.append(moved[part.codes])
    return np.concatenate(codes), words, parts[0].known
