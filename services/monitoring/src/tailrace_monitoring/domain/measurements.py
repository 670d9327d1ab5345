"""What serving measured comes in: it counts in every trial, and in the alarm on the champion."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from tailrace_contracts.events import ServingMeasured
from tailrace_contracts.ranges import Log
from tailrace_monitoring.domain.knowledge import Knowledge
from tailrace_monitoring.domain.watched import ModelWatch


def take_measurements(
    watch: ModelWatch, batch: Sequence[tuple[Log, int, ServingMeasured]], knowledge: Knowledge, now: datetime
) -> None:
    """Take in a batch of measurements of one log, in order. One that a process sent twice counts once."""
    watch.follow(knowledge, now)
    answering = watch.state.answering
    answering.follow(watch.state.champion)
    for placed in batch:
        log, offset, measured = placed
        if not watch.is_new(log, offset) or not answering.is_new(measured):
            continue
        for comparison in watch.state.comparisons.values():
            comparison.answer(log, offset, measured)
        for told in answering.observe(placed, knowledge.spec.monitors.serving):
            raised = told.alert(watch.tools.new_id(), watch.model, watch.state.champion or 0, now)
            watch.raise_alert(raised, knowledge, None, None)
    watch.publish(knowledge, now)
