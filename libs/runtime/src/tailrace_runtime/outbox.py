"""The transactional outbox and its counterpart, the inbox guard.

A handler writes its effects, the events that announce them (`enqueue`) and how far it has applied its input
(`mark_applied`) in one transaction. The relay publishes the events afterwards and deletes them once the broker has
acknowledged them: killed in between, it publishes them again, with the same `ce_id`.

Ids are given out before transactions commit, so a row with a lower id may appear after one with a higher id. The relay
therefore publishes, in the order of ids, only rows whose transactions lie below every transaction that is still
running (`pg_snapshot_xmin`): nothing is skipped, and what happened one after the other is published so. One relay at a
time works, under an advisory lock; another process's takes over when that connection ends. A NOTIFY wakes it within
milliseconds; a poll catches what a lost notification would miss.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import asyncpg
import structlog

from tailrace_contracts.ranges import Log
from tailrace_runtime import health
from tailrace_runtime.database import Connection, Database, gone_means_later
from tailrace_runtime.errors import DeliveryFailed, RetryLater
from tailrace_runtime.metrics import Metrics
from tailrace_runtime.producer import Publisher
from tailrace_runtime.records import Outgoing

log = structlog.get_logger(__name__)

BATCH_ROWS = 500
POLL_SECONDS = 1.0
_HIDDEN_POLL_SECONDS = 0.01
_RETRY_SECONDS = 1.0
_LOCK = 7_214_003

_INSERT = """
    INSERT INTO outbox (topic, partition, key, value, header_names, header_values, timestamp_ms)
    VALUES ($1, $2, $3, $4, $5, $6, $7)
"""
_READY = """
    SELECT id, topic, partition, key, value, header_names, header_values, timestamp_ms FROM outbox
    WHERE xid < pg_snapshot_xmin(pg_current_snapshot()) ORDER BY id LIMIT $1
"""


async def enqueue(connection: Connection, records: Sequence[Outgoing]) -> None:
    """Publish these records if, and only if, the connection's transaction commits."""
    if not connection.is_in_transaction():
        raise RuntimeError("enqueue needs the transaction that makes the events true")
    if not records:
        return
    rows = [
        (
            record.topic,
            record.partition,
            record.key,
            record.value,
            [name for name, _ in record.headers],
            [value for _, value in record.headers],
            record.timestamp_ms,
        )
        for record in records
    ]
    await connection.executemany(_INSERT, rows)
    await connection.execute("SELECT pg_notify('outbox_' || current_schema(), '')")


async def applied_through(connection: Connection, place: Log) -> int:
    """The newest offset of this log whose effects are in the database; -1 before the first. Locks its row."""
    offset = await connection.fetchval(
        "SELECT through_offset FROM inbox WHERE topic = $1 AND partition = $2 FOR UPDATE", place.topic, place.partition
    )
    return -1 if offset is None else int(offset)


async def mark_applied(connection: Connection, place: Log, offset: int) -> None:
    """The effects of this log through this offset are in this transaction."""
    await connection.execute(
        "INSERT INTO inbox (topic, partition, through_offset) VALUES ($1, $2, $3) ON CONFLICT (topic, partition)"
        " DO UPDATE SET through_offset = greatest(inbox.through_offset, excluded.through_offset)",
        place.topic,
        place.partition,
        offset,
    )


class Relay:
    """Publishes the outbox of one schema. A resource of the service; or run it as a background role.

    `polls` counts the looks at the table; `standing_by` says that another relay holds the lock. Records of the topic
    `first` are acknowledged before any that was enqueued with or after them is sent.
    """

    def __init__(
        self,
        database: Database,
        producer: Publisher,
        *,
        metrics: Metrics | None = None,
        poll_seconds: float = POLL_SECONDS,
        first: str = "",
    ) -> None:
        self.polls = 0
        self._first = first
        self.standing_by = False
        self._poll_seconds = poll_seconds
        self._database = database
        self._producer = producer
        self._metrics = metrics or Metrics()
        self._wake = asyncio.Event()
        self._stop = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def bind(self, metrics: Metrics) -> None:
        """Report to these metrics from now on (the service host's)."""
        self._metrics = metrics

    async def start(self) -> None:
        """Begin to publish, in the background."""
        self._stop.clear()
        self._task = asyncio.create_task(self.run(self._stop), name="outbox relay")

    async def wait(self) -> None:
        """Return when the relay has been stopped; raise what made it fail."""
        if self._task is not None:
            await asyncio.wait((self._task,))
            if not self._task.cancelled():
                self._task.result()

    async def stop(self) -> None:
        """Publish what is ready, then stop."""
        self._stop.set()
        self._wake.set()
        if self._task is not None:
            await asyncio.wait((self._task,), timeout=5)
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def run(self, stop: asyncio.Event) -> None:
        """Publish until told to stop. A database or broker that is away is waited for."""
        while not stop.is_set():
            try:
                with gone_means_later():
                    async with self._database.pool.acquire() as connection:
                        await self._with(connection, stop)
            except (RetryLater, DeliveryFailed) as error:
                log.warning("outbox relay waits", reason=str(error))
                health.here().waiting("outbox", str(error))
                await self._pause(_RETRY_SECONDS)

    async def _with(self, connection: Connection, stop: asyncio.Event) -> None:
        """Hold the lock and publish; or, while another relay holds it, come back a little later."""
        held = await connection.fetchval("SELECT pg_try_advisory_lock($1, hashtext(current_schema()))", _LOCK)
        self.standing_by = not held
        if not held:
            health.here().ready("outbox")
            await self._pause(_RETRY_SECONDS)
            return
        channel = await connection.fetchval("SELECT 'outbox_' || current_schema()")
        await connection.add_listener(channel, self._woken)
        try:
            await self._publish_until(connection, stop)
        finally:
            if not connection.is_closed():
                await connection.remove_listener(channel, self._woken)

    def _woken(self, *_: Any) -> None:
        self._wake.set()

    async def _publish_until(self, connection: Connection, stop: asyncio.Event) -> None:
        health.here().ready("outbox")
        while True:
            self._wake.clear()
            published = await self._publish(connection)
            depth = await connection.fetchval("SELECT count(*) FROM outbox")
            self._metrics.gauge("tailrace_outbox_depth", depth)
            self.polls += 1
            if published:
                continue
            if stop.is_set():
                return
            await self._pause(_HIDDEN_POLL_SECONDS if depth else self._poll_seconds)

    async def _publish(self, connection: Connection) -> int:
        rows = await connection.fetch(_READY, BATCH_ROWS)
        if not rows:
            return 0
        for wave in (True, False):
            records = [_outgoing(row) for row in rows if (row["topic"] == self._first) is wave]
            if records:
                await self._producer.send_all(records)
        await connection.execute("DELETE FROM outbox WHERE id = ANY($1::bigint[])", [row["id"] for row in rows])
        self._metrics.count("tailrace_outbox_published_total", len(rows))
        return len(rows)

    async def _pause(self, seconds: float) -> None:
        """Wait for a notification, for so long at most."""
        try:
            await asyncio.wait_for(self._wake.wait(), seconds)
        except TimeoutError:
            return


def _outgoing(row: asyncpg.Record) -> Outgoing:
    headers = tuple(zip(row["header_names"], row["header_values"], strict=True))
    return Outgoing(row["topic"], row["value"], row["key"], row["partition"], headers, row["timestamp_ms"])
