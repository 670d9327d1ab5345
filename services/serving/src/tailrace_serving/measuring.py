"""How versions answer, told every second on `serving-measurements`: the only place where failed calls can be seen.

A model of which nothing was asked is not told of. What could not be published is sent again as it was, before anything
newer, so that a reader that counts by process and sequence counts every call once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

import structlog

from tailrace_contracts.events import ArmMeasured, ServingMeasured
from tailrace_runtime.errors import DeliveryFailed, DeliveryRefused
from tailrace_runtime.records import Outgoing, outgoing
from tailrace_serving.domain.arms import Table
from tailrace_serving.ports import Clock

log = structlog.get_logger(__name__)

STOP_SECONDS = 5.0
"""For the last measurements, when the service stops."""


class Sender(Protocol):
    """The part of the runtime's producer that is needed."""

    async def send_all(self, records: Sequence[Outgoing]) -> None:
        """Publish all of them; return once every one is acknowledged."""
        ...


class Measuring:
    """Tells every `every_seconds` what was counted since."""

    def __init__(
        self, table: Table, sender: Sender, topic: str, clock: Clock, *, process: str, every_seconds: float
    ) -> None:
        self._table = table
        self._sender = sender
        self._topic = topic
        self._clock = clock
        self._process = process
        self._every_seconds = every_seconds
        self._sequence = 0
        self._since = clock.now()
        self._unsent: list[ServingMeasured] = []
        self._stopping = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to tell."""
        self._stopping.clear()
        self._since = self._clock.now()
        self._task = asyncio.create_task(self._run(), name="serving-measuring")

    async def wait(self) -> None:
        """Return when it has been stopped; raise what made it fail."""
        if self._task is not None:
            await asyncio.wait((self._task,))
            self._task.result()

    async def stop(self) -> None:
        """Tell what is left, once, if the broker takes it soon."""
        self._stopping.set()
        if self._task is not None:
            _, late = await asyncio.wait((self._task,), timeout=STOP_SECONDS)
            for task in late:
                task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                async with asyncio.timeout(self._every_seconds):
                    await self._stopping.wait()
            except TimeoutError:
                pass
            await self.tell()

    async def tell(self) -> None:
        """Publish what was counted. While the broker is away it goes on being counted, for the next time."""
        if not self._unsent:
            self._unsent = self._measured(self._clock.now())
        if not self._unsent:
            return
        try:
            await self._sender.send_all([outgoing(event, self._topic, event.model) for event in self._unsent])
        except DeliveryFailed as error:
            log.warning("measurements are kept and sent again", reason=str(error))
        except DeliveryRefused as error:
            log.warning("measurements are lost", reason=str(error))
            self._unsent = []
        else:
            self._unsent = []

    def _measured(self, now: datetime) -> list[ServingMeasured]:
        since, self._since = self._since, now
        told: list[ServingMeasured] = []
        for arms in self._table:
            measured = tuple(
                ArmMeasured(
                    arm=arm,
                    version=version,
                    answered=counts.answered,
                    failed=counts.failed,
                    durations=counts.durations,
                )
                for (arm, version), counts in arms.tally.take().items()
            )
            if measured:
                self._sequence += 1
                told.append(
                    ServingMeasured(
                        model=arms.model,
                        process=self._process,
                        sequence=self._sequence,
                        since=since,
                        arms=measured,
                        time=now,
                    )
                )
        return told
