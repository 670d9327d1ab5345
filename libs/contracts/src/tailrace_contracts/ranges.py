"""Log ranges: the one way in which a derived fact says what it was computed from.

A log is a topic partition; a place in it is an offset. A range names a closed interval of offsets,
`from_offset` to `through_offset`, both included. `LogRanges` is a normalised set of them: sorted, merged
where they touch or overlap, so that two derivations from the same records compare equal.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Annotated, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, RootModel, model_validator

Offset = Annotated[int, Field(ge=0)]


class Log(NamedTuple):
    """One topic partition. The topic's name is the catalogue's, without a deployment's prefix."""

    topic: str
    partition: int


class Trigger(BaseModel):
    """The record that caused a derived record: readers keep one high-water mark per trigger log."""

    model_config = ConfigDict(frozen=True)

    topic: str
    partition: Offset
    offset: Offset

    @property
    def log(self) -> Log:
        """The log that the trigger stands in."""
        return Log(self.topic, self.partition)


class LogRange(BaseModel):
    """Offsets `from_offset` through `through_offset` (both included) of one topic partition."""

    model_config = ConfigDict(frozen=True)

    topic: str
    partition: Offset
    from_offset: Offset
    through_offset: Offset

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.through_offset < self.from_offset:
            msg = f"through_offset {self.through_offset} lies before from_offset {self.from_offset}"
            raise ValueError(msg)
        return self

    @property
    def log(self) -> Log:
        """The log that the range lies in."""
        return Log(self.topic, self.partition)

    def __len__(self) -> int:
        """Offsets in the range (records may be fewer: compaction leaves holes)."""
        return self.through_offset - self.from_offset + 1

    def __contains__(self, offset: int) -> bool:
        """Whether an offset of this log lies in the range."""
        return self.from_offset <= offset <= self.through_offset

    def __str__(self) -> str:
        """`topic[partition]@from..through`, as people and error messages write it."""
        return f"{self.topic}[{self.partition}]@{self.from_offset}..{self.through_offset}"


def _merged(ranges: Iterable[LogRange]) -> Iterator[LogRange]:
    current: LogRange | None = None
    for each in sorted(ranges, key=lambda r: (r.topic, r.partition, r.from_offset)):
        if current is None:
            current = each
        elif each.log == current.log and each.from_offset <= current.through_offset + 1:
            through = max(current.through_offset, each.through_offset)
            current = current.model_copy(update={"through_offset": through})
        else:
            yield current
            current = each
    if current is not None:
        yield current


def _without(whole: LogRange, holes: Iterable[LogRange]) -> Iterator[LogRange]:
    """The parts of a range that lie in none of the holes, which are sorted and apart from each other."""
    begin = whole.from_offset
    for hole in holes:
        if hole.log != whole.log or hole.through_offset < begin or hole.from_offset > whole.through_offset:
            continue
        if hole.from_offset > begin:
            yield whole.model_copy(update={"from_offset": begin, "through_offset": hole.from_offset - 1})
        begin = hole.through_offset + 1
    if begin <= whole.through_offset:
        yield whole.model_copy(update={"from_offset": begin})


class LogRanges(RootModel[tuple[LogRange, ...]]):
    """A normalised set of log ranges: sorted by log and offset, touching ranges merged.

    >>> a = LogRange(topic="labels", partition=0, from_offset=0, through_offset=4)
    >>> b = LogRange(topic="labels", partition=0, from_offset=5, through_offset=9)
    >>> str(LogRanges.of(b, a))
    'labels[0]@0..9'
    """

    model_config = ConfigDict(frozen=True)

    root: tuple[LogRange, ...] = ()

    @model_validator(mode="after")
    def _normalised(self) -> Self:
        object.__setattr__(self, "root", tuple(_merged(self.root)))
        return self

    @property
    def extent(self) -> int:
        """The ends of all ranges, added: of two cumulative facts about one thing, the one with the larger is newer."""
        return sum(each.through_offset + 1 for each in self.root)

    @classmethod
    def of(cls, *ranges: LogRange) -> LogRanges:
        """The set of these ranges."""
        return cls(ranges)

    @classmethod
    def of_offsets(cls, offsets: Iterable[tuple[Log, int]]) -> LogRanges:
        """The set that covers exactly these single offsets."""
        return cls(
            tuple(
                LogRange(topic=log.topic, partition=log.partition, from_offset=offset, through_offset=offset)
                for log, offset in offsets
            )
        )

    def __or__(self, other: LogRanges) -> LogRanges:
        """The union of two sets."""
        return LogRanges(self.root + other.root)

    def __sub__(self, other: LogRanges) -> LogRanges:
        """What lies in this set and not in the other."""
        return LogRanges(tuple(part for each in self.root for part in _without(each, other.root)))

    def __iter__(self) -> Iterator[LogRange]:  # type: ignore[override]  # pydantic iterates fields; a set iterates members
        """The ranges, sorted by log and offset."""
        return iter(self.root)

    def __len__(self) -> int:
        """Offsets covered, over all logs."""
        return sum(len(each) for each in self.root)

    def __bool__(self) -> bool:
        """Whether anything is covered."""
        return bool(self.root)

    def __contains__(self, trigger: Trigger) -> bool:
        """Whether the record lies in one of the ranges."""
        return any(each.log == trigger.log and trigger.offset in each for each in self.root)

    def __str__(self) -> str:
        """The ranges, separated by commas."""
        return ", ".join(str(each) for each in self.root)
