"""Listens to the loop: every topic of the story from where it stood when the demo began, and the lag of each role.

One task reads the topics into the story; another asks the broker once a second how far each consumer group is. The
two topics that carry every event are only counted by their keys, not decoded.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from tailrace_cli.connection import Connection
from tailrace_cli.demo.story import TOPICS, Story
from tailrace_cli.registry import tail
from tailrace_contracts.events import decode

LAG_SECONDS = 1.0


@dataclass
class Flow:
    """How one role keeps up: records behind the end of its topics, and records read a second."""

    lag: int = 0
    rate: float = 0.0
    done: int = 0


@dataclass
class Watcher:
    """Tells the story from the topics, and keeps `flows` by consumer group. Use `async with watching(...)`."""

    connection: Connection
    story: Story
    prefix: str
    flows: dict[str, Flow] = field(default_factory=dict)

    async def follow(self, consumer: AIOKafkaConsumer) -> None:
        """Read until cancelled."""
        counted = {
            self.connection.topic_prefix + "predictions": self.story.valid,
            self.connection.topic_prefix + "labels": self.story.labels_valid,
        }
        mine = self.prefix.encode()
        while True:
            for partition, records in (await consumer.getmany(timeout_ms=200)).items():
                keys = counted.get(partition.topic)
                if keys is not None:
                    keys.update(record.key for record in records if record.key.startswith(mine))
                    continue
                for record in records:
                    if record.value is not None:
                        self.story.tell(decode(record.value))
                await asyncio.sleep(0)

    async def measure_lag(self) -> None:
        """Ask for every group's lag, once a second, until cancelled."""
        admin = AIOKafkaAdminClient(bootstrap_servers=self.connection.bootstrap)
        consumer = AIOKafkaConsumer(bootstrap_servers=self.connection.bootstrap, enable_auto_commit=False)
        await admin.start()
        await consumer.start()
        try:
            while True:
                with contextlib.suppress(KafkaError):  # a group in rebalance answers next time
                    await self._lag(admin, consumer)
                await asyncio.sleep(LAG_SECONDS)
        finally:
            await consumer.stop()
            await admin.close()

    async def _lag(self, admin: AIOKafkaAdminClient, consumer: AIOKafkaConsumer) -> None:
        for group in sorted({group for group, _ in await admin.list_consumer_groups()}):
            committed: dict[TopicPartition, int] = {
                partition: meta.offset
                for partition, meta in (await admin.list_consumer_group_offsets(group)).items()
                if meta.offset >= 0
            }
            if not committed:
                continue
            ends = await consumer.end_offsets(list(committed))
            done = sum(committed.values())
            flow = self.flows.setdefault(group, Flow(done=done))
            flow.lag = sum(max(0, ends[partition] - offset) for partition, offset in committed.items())
            flow.rate = max(0.0, (done - flow.done) / LAG_SECONDS)
            flow.done = done


@contextlib.asynccontextmanager
async def watching(connection: Connection, story: Story, prefix: str) -> AsyncIterator[Watcher]:
    """A watcher that reads in the background; `prefix` is that of the demo's prediction ids.

    A failure to read ends the `async with` block with its error.
    """
    watcher = Watcher(connection, story, prefix)
    consumer = await tail(connection, *TOPICS)
    try:
        async with asyncio.TaskGroup() as tasks:
            background = [tasks.create_task(watcher.follow(consumer)), tasks.create_task(watcher.measure_lag())]
            yield watcher
            for task in background:
                task.cancel()
    finally:
        await consumer.stop()
