"""What has moved and is told of, and what is not because it is muted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime

from tailrace_monitoring.domain.knowledge import Knowledge
from tailrace_monitoring.domain.watched import ModelWatch
from tailrace_monitoring.domain.windows import Measured


def to_tell(
    watch: ModelWatch, measured: Sequence[Measured], knowledge: Knowledge, now: datetime
) -> Iterator[list[Measured]]:
    """What has moved: first what is to be heard, then what is muted. What still moves when its mute ends is heard then."""
    hushed = set(watch.state.hushed)
    muted = {each.key for each in measured if knowledge.is_muted("feature-drift", each.column, now)}
    heard_now = hushed - muted
    moved = [each for each in measured if each.alert or (each.drifted and each.key in heard_now)]
    on = {each.key for each in measured if each.drifted} & muted
    off = {each.key for each in measured} - on
    watch.state.hushed = sorted((hushed | {each.key for each in moved if each.key in muted}) - off)
    yield from filter(None, ([each for each in moved if (each.key in muted) == quiet] for quiet in (False, True)))
