"""Label coverage of windows, over all partitions of the join: what `coverage-measured` events add up to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from tailrace_contracts.events import CoverageMeasured, WindowSpan
from tailrace_contracts.ranges import LogRanges


@dataclass(frozen=True, slots=True)
class Coverage:
    """Of the predictions of one window, how many have a label so far. `label_delays` is as in the event."""

    window: WindowSpan
    predictions: int
    labelled: int
    corrections: int
    expired: int
    late_labels: int
    unmatched_labels: int
    label_delays: Mapping[str, int]
    derived_from: LogRanges

    @property
    def waiting(self) -> int:
        """Predictions whose label may still come."""
        return self.predictions - self.labelled - self.expired

    @property
    def share(self) -> float | None:
        """Labelled predictions, as a share of all; None of none."""
        return self.labelled / self.predictions if self.predictions else None

    def delay_seconds(self, share: float) -> float | None:
        """A bound that this share of the labelled predictions' delays does not exceed, within a factor of two."""
        wanted, counted = share * sum(self.label_delays.values()), 0
        for bound, count in sorted((float(bound), count) for bound, count in self.label_delays.items()):
            counted += count
            if counted >= wanted:
                return bound
        return None


def coverage_of(measured: Iterable[CoverageMeasured]) -> list[Coverage]:
    """One model's windows, oldest first. Of each window and partition the event that counts furthest is taken."""
    newest: dict[tuple[datetime, int], CoverageMeasured] = {}
    for event in measured:
        key = (event.window.start, event.partition)
        if key not in newest or event.through >= newest[key].through:
            newest[key] = event
    windows: dict[datetime, list[CoverageMeasured]] = {}
    for (start, _), event in sorted(newest.items(), key=lambda each: each[0]):
        windows.setdefault(start, []).append(event)
    return [_summed(events) for events in windows.values()]


def _summed(events: list[CoverageMeasured]) -> Coverage:
    delays: Counter[str] = Counter()
    ranges = LogRanges()
    for event in events:
        delays.update(event.label_delays)
        ranges |= event.derived_from
    return Coverage(
        window=events[0].window,
        predictions=sum(event.predictions for event in events),
        labelled=sum(event.labelled for event in events),
        corrections=sum(event.corrections for event in events),
        expired=sum(event.expired for event in events),
        late_labels=sum(event.late_labels for event in events),
        unmatched_labels=sum(event.unmatched_labels for event in events),
        label_delays=dict(sorted(delays.items(), key=lambda each: float(each[0]))),
        derived_from=ranges,
    )
