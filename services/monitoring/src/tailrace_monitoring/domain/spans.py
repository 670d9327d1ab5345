"""From where to where on each log: the small form of `derived_from` that grows with every record."""

from __future__ import annotations

from pydantic import BaseModel

from tailrace_contracts.ranges import Log, LogRange, LogRanges


class Spans(BaseModel):
    """For each log the first and the last offset that were taken in.

    What a model's comparison or cohort was computed from are the model's own records between the two.
    """

    logs: dict[str, tuple[int, int]] = {}

    def add(self, log: Log, offset: int) -> None:
        """Take one record in."""
        name = f"{log.topic}/{log.partition}"
        first, last = self.logs.get(name, (offset, offset))
        self.logs[name] = (min(first, offset), max(last, offset))

    def ranges(self) -> LogRanges:
        """As events say it."""
        return LogRanges.of(*(_range(name, *span) for name, span in self.logs.items()))


def _range(name: str, first: int, last: int) -> LogRange:
    topic, _, partition = name.rpartition("/")
    return LogRange(topic=topic, partition=int(partition), from_offset=first, through_offset=last)
