"""Coverage of a window over all partitions."""

from datetime import UTC, datetime, timedelta
from typing import Any

from tailrace_contracts.coverage import coverage_of
from tailrace_contracts.events import CoverageMeasured, WindowSpan
from tailrace_contracts.ranges import LogRange, LogRanges

DAY = datetime(2026, 5, 4, tzinfo=UTC)


def measured(partition: int, through: int, *, day: int = 0, **counts: Any) -> CoverageMeasured:
    """What one partition says about one day."""
    span = WindowSpan(start=DAY + timedelta(days=day), end=DAY + timedelta(days=day + 1))
    read = LogRange(topic="labels", partition=partition, from_offset=0, through_offset=through)
    given: dict[str, Any] = {"predictions": 0, "labelled": 0} | counts
    return CoverageMeasured(
        model="rain", window=span, partition=partition, through=through, derived_from=LogRanges.of(read), **given
    )


def test_partitions_add_up_and_older_facts_are_left_out() -> None:
    """Coverage would count a partition twice, or fall back when an old fact comes again."""
    new = measured(0, 9, predictions=10, labelled=4, expired=1, corrections=1, label_delays={"1": 1, "16": 3})
    old = measured(0, 5, predictions=6, labelled=2, label_delays={"1": 2})
    other = measured(1, 3, predictions=10, labelled=6, late_labels=2, unmatched_labels=1, label_delays={"1": 6})
    later = measured(1, 3, day=1, predictions=2)
    first, second = coverage_of([later, new, other, old, new])
    assert (first.predictions, first.labelled, first.waiting, first.share) == (20, 10, 9, 0.5)
    assert (first.corrections, first.expired, first.late_labels, first.unmatched_labels) == (1, 1, 2, 1)
    assert [first.delay_seconds(share) for share in (0.5, 0.7, 0.9)] == [1, 1, 16]
    assert str(first.derived_from) == "labels[0]@0..9, labels[1]@0..3"
    assert (second.waiting, second.share, second.delay_seconds(0.5)) == (2, 0.0, None)


def test_a_window_with_nothing_but_strange_labels_has_no_share() -> None:
    """A division by zero would break the page."""
    (only,) = coverage_of([measured(0, 1, unmatched_labels=3)])
    assert (only.share, only.unmatched_labels) == (None, 3)
