"""What a consumer role reports: the names of its metrics and log places stand here, once."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from tailrace_contracts.ranges import Log
from tailrace_runtime.metrics import Metrics
from tailrace_runtime.outcome import Parked
from tailrace_runtime.records import Record


class RoleMeter:
    """The runtime's metrics under one role's label."""

    def __init__(self, metrics: Metrics, role: str) -> None:
        self._metrics = metrics
        self._role = role

    def handled(self, records: Sequence[Record], outcome: str, *, less: int = 0) -> None:
        """So many records of one topic ended like this."""
        if len(records) > less:
            topic, count = records[0].topic, len(records) - less
            self._metrics.count("tailrace_events_total", count, role=self._role, topic=topic, outcome=outcome)

    def parked(self, parked: Sequence[Parked]) -> None:
        """These records went to the dead letters."""
        for each in parked:
            self.handled([each.record], "parked")
            topic = each.record.topic
            self._metrics.count("tailrace_dead_letters_total", role=self._role, topic=topic, code=each.code)

    def batch(self, topic: str, seconds: float) -> None:
        """A batch took so long."""
        self._metrics.observe("tailrace_batch_seconds", seconds, role=self._role, topic=topic)

    def assigned(self, partitions: int) -> None:
        """So many partitions are ours after a rebalance."""
        self._metrics.count("tailrace_rebalances_total", role=self._role)
        self._metrics.gauge("tailrace_partitions_assigned", partitions, role=self._role)

    def left(self) -> None:
        """No partition is ours any more."""
        self._metrics.gauge("tailrace_partitions_assigned", 0, role=self._role)

    def removed(self, topic: str, records: int) -> None:
        """Retention took so many records before they were read."""
        self._metrics.count("tailrace_records_removed_total", records, role=self._role, topic=topic)

    def commit_lost(self) -> None:
        """A commit was refused."""
        self._metrics.count("tailrace_commits_lost_total", role=self._role)

    def lag(self, log: Log, records: int) -> None:
        """So many records of this log are not read yet."""
        labels = {"role": self._role, "topic": log.topic, "partition": str(log.partition)}
        self._metrics.gauge("tailrace_consumer_lag", max(records, 0), **labels)

    def forget_lag(self, log: Log) -> None:
        """This log is somebody else's to measure."""
        labels = {"role": self._role, "topic": log.topic, "partition": str(log.partition)}
        with suppress(KeyError):
            self._metrics.forget("tailrace_consumer_lag", **labels)


def place(records: Sequence[Record]) -> str:
    """`topic[partition]@first..last`, for logs and health."""
    first, last = records[0], records[-1]
    return str(first) if first.offset == last.offset else f"{first}..{last.offset}"
