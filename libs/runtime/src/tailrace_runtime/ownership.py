"""Which partitions a role owns, and the one hand that works on them.

Kafka's coordinator may take partitions away at any moment, beside the role's own task. Everything that a role does to
a partition (recovering, handling a batch, ticking) is a unit of work done with the hand on a lock. A revocation takes
the lock: it waits for the unit in hand, commits what is finished, tells the role's state, and only then lets the
partitions go. A unit that takes longer than `revoke_seconds` is cancelled; its records are read again by the next owner.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import structlog
from aiokafka import ConsumerRebalanceListener, TopicPartition

log = structlog.get_logger(__name__)


class GaveWayError(Exception):
    """The unit in hand stops where it is: its partitions are wanted back, or the role is stopping."""


Release = Callable[[set[TopicPartition]], Awaitable[None]]


class Ownership(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka is untyped
    """The partitions in our hands. aiokafka calls the two listeners; the consume loop uses the rest."""

    def __init__(self, role: str, revoke_seconds: float, pause: Callable[[set[TopicPartition]], None]) -> None:
        self.owned: set[TopicPartition] = set()
        self.fresh: set[TopicPartition] | None = None
        self.epoch = 0
        self.giving_way = asyncio.Event()
        self.failure: BaseException | None = None
        self.release: Release | None = None
        self._role = role
        self._revoke_seconds = revoke_seconds
        self._pause = pause
        self._hand = asyncio.Lock()
        self._unit: asyncio.Task[None] | None = None

    async def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        """Stop them before the first fetch: the role's state decides where to read on."""
        self._pause(assigned)
        self.fresh = set(assigned)

    async def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
        """Let them go in good order. aiokafka only logs what is raised here, so a failure is kept for the loop."""
        log.debug("partitions revoked", role=self._role, partitions=len(revoked))
        self.fresh = None
        self.giving_way.set()
        await self._take_the_hand()
        try:
            if self.release is not None and self.owned:
                await self.release(set(self.owned))
        except Exception as error:  # noqa: BLE001  # raised again by the loop, see `failure`
            self.failure = error
        finally:
            self.owned.clear()
            self.epoch += 1
            self.giving_way.clear()
            self._hand.release()

    async def _take_the_hand(self) -> None:
        try:
            async with asyncio.timeout(self._revoke_seconds):
                await self._hand.acquire()
        except TimeoutError:
            log.warning("batch cancelled: its partition is taken away", role=self._role, after=self._revoke_seconds)
            if self._unit is not None:
                self._unit.cancel()
            await self._hand.acquire()

    @property
    def busy(self) -> bool:
        """Whether a unit of work is in hand."""
        return self._hand.locked()

    async def work(self, unit: Coroutine[Any, Any, None], *, epoch: int) -> None:
        """Do one unit of work, unless the partitions have been handed out anew since `epoch`."""
        async with self._hand:
            if epoch != self.epoch:
                unit.close()
                return
            self._unit = asyncio.create_task(unit)
            try:
                await self._unit
            except GaveWayError:
                return
            except asyncio.CancelledError:
                if not self.giving_way.is_set():
                    raise
            finally:
                self._unit = None
