"""Finished offsets, and their commits: the last step of everything.

An offset is finished when what came of it is acknowledged. Finished offsets are committed together a few times a
second, only for partitions that are still ours; a commit that comes too late after a rebalance is refused by the
broker, and the records are handled again by their next owner.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import structlog
from aiokafka import TopicPartition
from aiokafka.errors import (
    CommitFailedError,
    IllegalGenerationError,
    IllegalStateError,
    KafkaError,
    RebalanceInProgressError,
    UnknownMemberIdError,
)
from aiokafka.structs import OffsetAndMetadata

from tailrace_runtime.rolemeter import RoleMeter

log = structlog.get_logger(__name__)

PATIENCE_SECONDS = 5.0
_NOT_OURS = (
    CommitFailedError,
    IllegalGenerationError,
    IllegalStateError,
    RebalanceInProgressError,
    UnknownMemberIdError,
)


class Offsets:
    """The finished offsets of one role's partitions that are not committed yet."""

    def __init__(self, role: str, commit_seconds: float, meter: RoleMeter) -> None:
        self._role = role
        self._commit_seconds = commit_seconds
        self._meter = meter
        self._finished: dict[TopicPartition, int] = {}
        self._due = 0.0

    def finish(self, partition: TopicPartition, through: int) -> None:
        """Everything of this partition through this offset is finished; -1 changes nothing."""
        if through < 0:
            return
        if not self._finished:
            self._due = time.monotonic() + self._commit_seconds
        self._finished[partition] = max(through + 1, self._finished.get(partition, 0))

    def clear(self) -> None:
        """Forget what is not committed: it is no longer ours to commit."""
        self._finished.clear()

    def seconds_until_due(self) -> float | None:
        """How long the next commit may wait; None when there is nothing to commit."""
        return max(self._due - time.monotonic(), 0.0) if self._finished else None

    async def commit(self, consumer: Any, *, give_up: Callable[[], bool], away: Callable[[], None]) -> None:
        """Commit what is finished. A broker that is away is waited for, and told of (`away`), until `give_up` says no."""
        while self._finished and not give_up():
            try:
                async with asyncio.timeout(PATIENCE_SECONDS):
                    await self._commit(consumer)
            except TimeoutError:
                log.warning("commit not acknowledged, trying again", role=self._role)
                away()

    async def commit_last(self, consumer: Any) -> None:
        """Commit what is finished before the partitions go, with a few seconds' patience; then forget it."""
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await self._commit(consumer)
        except (TimeoutError, KafkaError) as error:
            log.warning("partitions released without their last commit", role=self._role, error=repr(error))
        self.clear()

    async def _commit(self, consumer: Any) -> None:
        offsets = {partition: OffsetAndMetadata(offset, "") for partition, offset in self._finished.items()}
        if not offsets:
            return
        try:
            await consumer.commit(offsets)
        except _NOT_OURS as error:
            self._meter.commit_lost()
            log.warning("commit refused after a rebalance: the records will be handled again", error=repr(error))
        self.clear()
