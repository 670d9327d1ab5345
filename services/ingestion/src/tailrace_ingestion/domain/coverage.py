"""Coverage: of the predictions of one window, as one partition of the join has seen it, how many have a label so far.

The windows are those of the model's monitors, by prediction time; labels that never met a prediction are counted in the
window of their own time. A cohort is cumulative, like everything in the join's state: it is written together with the
offsets that it counts through, and what is published of it replaces what was published before.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import msgspec
from msgspec import Struct

from tailrace_contracts.events import CoverageMeasured, WindowSpan
from tailrace_contracts.ranges import LogRange, LogRanges
from tailrace_ingestion.domain.event_time import DAY_SECONDS, moment_of

KEPT_SECONDS = 400 * DAY_SECONDS
"""How long after its end a cohort is kept, in the event time of predictions and labels: longer than the topic keeps it."""


class Cohort(Struct, gc=False):
    """What happened to the predictions of one window. `first` is where the logs stood when it began."""

    end: float
    first: dict[str, int]
    predictions: int = 0
    labelled: int = 0
    corrections: int = 0
    expired: int = 0
    late_labels: int = 0
    unmatched_labels: int = 0
    delays: dict[str, int] = msgspec.field(default_factory=dict)

    def joined(self, delay_seconds: float, corrections: int) -> None:
        """A prediction has its first label, which had been corrected so many times while it waited."""
        self.labelled += 1
        self.corrections += corrections
        bound = delay_bound(delay_seconds)
        self.delays[bound] = self.delays.get(bound, 0) + 1


class CohortKey(NamedTuple):
    """Which cohort: the model, and the window's begin in seconds since 1970."""

    model: str
    start: float

    def encode(self) -> bytes:
        """The store's key; those of one model sort by their windows."""
        return cohort_prefix(self.model) + sortable(self.start)


def cohort_prefix(model: str) -> bytes:
    """What the keys of one model's cohorts begin with."""
    return f"c|{model}|".encode()


def cohort_of(key: bytes) -> CohortKey:
    """The cohort of a store's key."""
    _, model, _ = key.split(b"|", 2)
    milliseconds = int.from_bytes(key[-8:], "big") - (1 << 62)
    return CohortKey(model.decode(), milliseconds / 1000)


def sortable(seconds: float) -> bytes:
    """A moment as eight bytes that sort as moments do, those before 1970 too. Whole milliseconds."""
    return (math.floor(seconds * 1000) + (1 << 62)).to_bytes(8, "big")


def window_start(moment: float, width_seconds: float) -> float:
    """Where the tumbling window begins that a moment lies in, aligned to 1970. Whole milliseconds."""
    return round(math.floor(moment / width_seconds) * width_seconds, 3)


def delay_bound(seconds: float) -> str:
    """The smallest power of two that a delay does not exceed, in seconds, at least 1: labels are counted by it.

    >>> delay_bound(0.2), delay_bound(2), delay_bound(3000)
    ('1', '2', '4096')
    """
    return str(1 << max(0, math.ceil(math.log2(seconds)))) if seconds > 1 else "1"


def measured(key: CohortKey, cohort: Cohort, partition: int, following: Mapping[str, int]) -> CoverageMeasured:
    """The cohort as a fact. `following` is the next offset of each log: everything before it is counted."""
    ranges = tuple(
        LogRange(topic=topic, partition=partition, from_offset=first, through_offset=following[topic] - 1)
        for topic, first in sorted(cohort.first.items())
        if following.get(topic, 0) > first
    )
    return CoverageMeasured(
        model=key.model,
        window=WindowSpan(start=moment_of(key.start), end=moment_of(cohort.end)),
        partition=partition,
        predictions=cohort.predictions,
        labelled=cohort.labelled,
        corrections=cohort.corrections,
        expired=cohort.expired,
        late_labels=cohort.late_labels,
        unmatched_labels=cohort.unmatched_labels,
        label_delays=dict(sorted(cohort.delays.items(), key=lambda each: int(each[0]))),
        through=sum(following.values()),
        derived_from=LogRanges(ranges),
    )
