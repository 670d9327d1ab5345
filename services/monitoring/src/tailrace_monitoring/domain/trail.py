"""The newest labelled examples of one model, numbered 1, 2, 3: where they stand and what the champion's error was.

From it come the exact log ranges of a training, the time at which a drift began, and the errors that a restarted
process replays.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from datetime import datetime
from itertools import islice
from typing import NamedTuple

from tailrace_contracts.ranges import Log, LogRange, LogRanges


class Step(NamedTuple):
    """One labelled example, or a correction of one (`error` None: the champion's answer is not known, or not new)."""

    number: int
    log: Log
    offset: int
    prediction_id: str
    label_revision: int
    time: datetime
    error: float | None


class Trail:
    """The newest `length` steps."""

    def __init__(self, length: int, steps: Iterable[Step] = ()) -> None:
        self._steps: deque[Step] = deque(steps, maxlen=length)

    @property
    def length(self) -> int:
        """How many steps are kept."""
        return self._steps.maxlen or 0

    def lengthened(self, length: int) -> Trail:
        """The same trail with room for more."""
        return Trail(max(length, self.length), self._steps)

    def append(self, step: Step) -> None:
        """One more; the oldest is forgotten."""
        self._steps.append(step)

    def since(self, number: int) -> Iterator[Step]:
        """The steps from this number on, oldest first."""
        if not self._steps:
            return iter(())
        skip = max(0, number - self._steps[0].number)
        return islice(self._steps, skip, None)

    def newest(self, count: int) -> Iterator[Step]:
        """The newest `count` steps, oldest first."""
        return islice(self._steps, max(0, len(self._steps) - count), None)

    def first_from(self, moment: datetime) -> int | None:
        """The number of the oldest kept example whose prediction was made at `moment` or later."""
        return next((step.number for step in self._steps if step.time >= moment), None)


def ranges_of(steps: Iterable[Step]) -> LogRanges:
    """Exactly these steps' records."""
    runs: list[tuple[Log, int, int]] = []
    for step in steps:
        if runs and runs[-1][0] == step.log and runs[-1][2] == step.offset - 1:
            runs[-1] = (step.log, runs[-1][1], step.offset)
        else:
            runs.append((step.log, step.offset, step.offset))
    return LogRanges.of(
        *(
            LogRange(topic=log.topic, partition=log.partition, from_offset=first, through_offset=last)
            for log, first, last in runs
        )
    )


def distinct(steps: Iterable[Step]) -> int:
    """How many examples these are: a correction is the same example once more."""
    return len({step.prediction_id for step in steps})
