"""Merging the archive's small files, beside the role `archive`: one log at a time, by the process that owns the log.

A log is looked at when it is assigned and after every few files written to it. One look removes what was merged and
left over, then merges until nothing is to be merged. Two processes that look at once, around a rebalance, do no harm:
what they write overlaps, and a file is removed only once another file holds all of its records.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence

import structlog

from tailrace_contracts.ranges import Log, LogRange
from tailrace_ingestion.domain.compaction import Stored, left_over, next_merge
from tailrace_ingestion.ports import Objects
from tailrace_runtime.archive import archive_folder, archive_key, archived_run
from tailrace_runtime.errors import ObjectMissing, RangeUnavailable, RetryLater
from tailrace_runtime.metrics import Metrics

Merge = Callable[[Sequence[LogRange]], Awaitable[LogRange]]
_log = structlog.get_logger(__name__)


class Compacting:
    """State: which logs are to be looked at, and the one that is being looked at."""

    def __init__(self, objects: Objects, merge: Merge, metrics: Metrics, *, target_bytes: int, at_least: int) -> None:
        self._objects = objects
        self._merge = merge
        self._metrics = metrics
        self._target_bytes = target_bytes
        self._at_least = at_least
        self._written: Counter[Log] = Counter()
        self._due: dict[Log, None] = {}
        self._log: Log | None = None
        self._task: asyncio.Task[None] | None = None

    def assigned(self, logs: Iterable[Log]) -> None:
        """Look at these: their last owner may have been killed in the middle."""
        self._due |= dict.fromkeys(sorted(logs))

    def wrote(self, log: Log) -> None:
        """A file was written to this log."""
        self._written[log] += 1
        if self._written[log] >= self._at_least:
            del self._written[log]
            self._due[log] = None

    async def revoked(self, logs: set[Log]) -> None:
        """Leave these alone."""
        self._due = {log: None for log in self._due if log not in logs}
        if self._task is not None and self._log in logs:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    def go_on(self) -> None:
        """Start on the next log if the last is done. Raises what made it fail, unless that passes by itself."""
        if self._task is not None and self._task.done():
            task, self._task = self._task, None
            task.result()
        if self._task is None and self._due:
            self._log = next(iter(self._due))
            del self._due[self._log]
            self._task = asyncio.create_task(self._look_at(self._log), name=f"compaction of {self._log}")

    async def _look_at(self, log: Log) -> None:
        try:
            await self.compact(log)
        except ObjectMissing:
            self._due[log] = None  # another process has merged these parts
        except RetryLater as later:
            _log.warning("compaction put off", log=log, reason=later.reason)
        except RangeUnavailable as error:
            self._metrics.count("tailrace_archive_damaged_total", topic=log.topic)
            _log.error("compaction stopped at a damaged file", log=log, reason=str(error))

    async def compact(self, log: Log) -> None:
        """Merge a log's files until there is nothing to merge."""
        while True:
            files = await self._files(log)
            if over := left_over(files):
                await self._remove(over)
                files = [file for file in files if file.run not in over]
            parts = next_merge(files, self._target_bytes, self._at_least)
            if not parts:
                return
            whole = await self._merge(parts)
            await self._remove([part for part in parts if part != whole])
            self._metrics.count("tailrace_archive_merged_total", len(parts), topic=log.topic)

    async def _files(self, log: Log) -> list[Stored]:
        sizes = await self._objects.sizes(archive_folder(log))
        return [Stored(run, size) for key, size in sizes.items() if (run := archived_run(key)) is not None]

    async def _remove(self, runs: Sequence[LogRange]) -> None:
        for run in runs:
            await self._objects.delete(archive_key(run))
