"""Publishing for many requests at once: what arrives while one publication is on its way goes together in the next.

Many tasks that each hand batches to one Kafka producer wait for each other's turn in each partition, and some for so long
that the producer gives up. Here one publication is on its way at a time, the next takes all that came in between, in its
order, and a request is answered when the publication that has its records is acknowledged.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from tailrace_runtime.producer import Publisher, check_size
from tailrace_runtime.records import Outgoing

MOST_RECORDS = 10_000
"""Of one publication, unless a single request has more."""


class _Waiting(NamedTuple):
    records: Sequence[Outgoing]
    done: asyncio.Future[None]


class GroupedPublisher:
    """Hands the records of many callers to a publisher, group by group."""

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher
        self._waiting: deque[_Waiting] = deque()
        self._task: asyncio.Task[None] | None = None

    async def publish(self, records: Sequence[Outgoing]) -> None:
        """Publish the records; return once all are acknowledged.

        Raises:
            DeliveryFailed: the group that they went in was not acknowledged in time.
            DeliveryRefused: one of them can never be delivered; nothing of the others' is held up by it.
        """
        for record in records:
            check_size(record)
        mine = _Waiting(records, asyncio.get_running_loop().create_future())
        self._waiting.append(mine)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._work(), name="grouped publication")
        await mine.done

    async def _work(self) -> None:
        while self._waiting:
            group = [self._waiting.popleft()]
            count = len(group[0].records)
            while self._waiting and count + len(self._waiting[0].records) <= MOST_RECORDS:
                group.append(self._waiting.popleft())
                count += len(group[-1].records)
            await self._publish(group)

    async def _publish(self, group: Sequence[_Waiting]) -> None:
        """What befalls the publication befalls all who are in it."""
        try:
            await self._publisher.send_all([record for each in group for record in each.records])
        except Exception as error:  # noqa: BLE001  # handed on to those who wait for it, each of whom decides
            for each in group:
                if not each.done.done():
                    each.done.set_exception(error)
        else:
            for each in group:
                if not each.done.done():
                    each.done.set_result(None)
