"""Commands onto `registry-commands`, the one way in that every change has."""

from __future__ import annotations

import asyncio

from tailrace_contracts.events import CommandIssued
from tailrace_runtime.errors import DeliveryFailed, DeliveryRefused, RetryLater
from tailrace_runtime.producer import Producer
from tailrace_runtime.records import outgoing


class KafkaCommands:
    """The topic, through the runtime's producer."""

    def __init__(self, producer: Producer, topic: str, seconds: float) -> None:
        self._producer = producer
        self._topic = topic
        self._seconds = seconds

    async def issue(self, issued: CommandIssued) -> None:
        """Return once the broker has acknowledged the command. Raises RetryLater."""
        record = outgoing(issued, self._topic, issued.model, event_id=issued.command_id)
        try:
            async with asyncio.timeout(self._seconds):
                await self._producer.send_all([record])
        except (DeliveryFailed, DeliveryRefused, TimeoutError) as error:
            raise RetryLater(f"the broker has not taken the command ({error or 'no answer in time'})") from error
