"""One window of one source log, folded in parts; folds.py has the fold of a single column.

Rows are added to every part that they belong to: an arm and version, a protected group, a chunk of features, the row
sample. Events that came too late for an earlier window are a part that only counts. Each part leaves out what it already
covers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from tailrace_contracts.events import SampledRow
from tailrace_ingestion.domain.checks import Integers
from tailrace_ingestion.domain.folds import ColumnFold
from tailrace_ingestion.domain.model import Shape
from tailrace_ingestion.domain.parts import LATE, NOT_SERVED, OUTPUTS, SAMPLE, Facet, groups_of, sampled
from tailrace_ingestion.domain.rows import Rows


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

    def count(self, offsets: Integers) -> None:
        """Count the events at these offsets, without columns."""
        new = offsets[offsets > self.through_offset]
        if len(new):
            self.through_offset, self.dirty = int(new[-1]), True
            self.events += len(new)


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
        self._take(rows.shape)
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

    def count_late(self, shape: Shape, offsets: Integers) -> None:
        """Count events that came while this window was the newest, too late for their own."""
        self._take(shape)
        self.part(LATE, int(offsets[0])).count(offsets)

    def _take(self, shape: Shape) -> None:
        self.revision, self.lateness = shape.revision, shape.lateness

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
