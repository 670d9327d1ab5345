"""Partials as they lie on their topic: which window and part one is about, and parts made from one and into one."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

import msgspec
from msgspec import Struct

from tailrace_contracts.events import CategoricalSummary, ColumnSummary, PartialSummarised, Slice, WindowSpan
from tailrace_contracts.ranges import Log, LogRange
from tailrace_ingestion.domain.event_time import moment_of
from tailrace_ingestion.domain.folds import ColumnFold
from tailrace_ingestion.domain.model import Shape
from tailrace_ingestion.domain.parts import LATE, NOT_SERVED, SAMPLE, Facet
from tailrace_ingestion.domain.windows import Part


class WindowKey(NamedTuple):
    """One window of one model: [start, end) in seconds since 1970."""

    model: str
    start: float
    end: float


class _Span(Struct, frozen=True):
    start: datetime
    end: datetime


class _Source(Struct, frozen=True, gc=False):
    through_offset: int


class Head(Struct, frozen=True):
    """A partial without its columns: enough to choose those that are worth reading whole."""

    model: str
    window: _Span
    source: _Source
    watermark: datetime
    part: str = ""


decode_head = msgspec.json.Decoder(Head).decode


def partial_of(log: Log, key: WindowKey, revision: int, facet: Facet, part: Part) -> PartialSummarised:
    """A part of a window as a partial; its watermark is the least that it can be, the window's start."""
    columns = {name: fold.summary() for name, fold in part.columns.items()}
    of_slice = facet.arm is not None or facet.attribute is not None
    return PartialSummarised.model_construct(
        model=key.model,
        spec_revision=revision,
        window=WindowSpan.model_construct(start=moment_of(key.start), end=moment_of(key.end)),
        part=facet.name,
        source=LogRange.model_construct(
            topic=log.topic,
            partition=log.partition,
            from_offset=part.from_offset,
            through_offset=part.through_offset,
        ),
        events=part.events if facet.counts else 0,
        late=part.events if facet == LATE else 0,
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
    return {SAMPLE.name: SAMPLE, LATE.name: LATE}.get(partial.part, NOT_SERVED)


def key_of(partial: PartialSummarised) -> WindowKey:
    """The window that a partial is about."""
    return WindowKey(partial.model, partial.window.start.timestamp(), partial.window.end.timestamp())


def record_key(partial: PartialSummarised) -> str:
    """The key of a partial on its topic: source partition, model, window, part."""
    start = partial.window.start.isoformat().replace("+00:00", "Z")
    return "|".join(filter(None, (str(partial.source.partition), partial.model, start, partial.part)))


def resumed(partial: PartialSummarised, shape: Shape | None) -> Part:
    """The part that a partial tells of, ready to be folded on."""
    columns = partial.slices[0].columns if partial.slices else partial.columns
    return Part(
        from_offset=partial.source.from_offset,
        through_offset=partial.source.through_offset,
        events=partial.slices[0].events if partial.slices else partial.events + partial.late,
        columns={name: ColumnFold.resumed(summary, _words(summary, name, shape)) for name, summary in columns.items()},
        sample=partial.sample,
    )


def _words(summary: ColumnSummary, name: str, shape: Shape | None) -> tuple[str, ...]:
    if shape is not None:
        return shape.categories(name)
    return tuple(summary.counts) if isinstance(summary, CategoricalSummary) else ()
