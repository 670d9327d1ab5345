"""Publishing: idempotent, acknowledged by all replicas, with a deadline, and able to start over.

`send_all` returns when the broker has acknowledged every record. A few records go one by one, so that concurrent
callers share batches; many are packed into one batch for each topic partition, which is six times as fast. What the
broker does not acknowledge is sent again, in order and for its whole partition, until the deadline: a reader may see a
record twice, never out of its partition's order (a repeated run of records begins where the failed one began).

aiokafka's idempotent producer has two habits that need a supervisor. It retries for ever, so a deadline is kept here;
and an error such as OutOfOrderSequence leaves it useless for good. In both cases the client is abandoned and a new one
takes its place; callers notice nothing but the time.
"""

from __future__ import annotations

import asyncio
import itertools
import struct
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import structlog
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, MessageSizeTooLargeError, TopicAuthorizationFailedError

from tailrace_contracts.catalogue import topics
from tailrace_runtime import health
from tailrace_runtime.errors import DeliveryFailed, DeliveryRefused
from tailrace_runtime.kafka import UNREACHABLE, connection, unreachable
from tailrace_runtime.metrics import Metrics
from tailrace_runtime.records import Outgoing, Run
from tailrace_runtime.settings import KafkaSettings
from tailrace_runtime.waiting import until_available

log = structlog.get_logger(__name__)

FEW_RECORDS = 16
MAX_BATCH_BYTES = 768 * 1024
"""A topic takes batches of a mebibyte. One after the other is acknowledged, so few large ones are quicker than many."""
MAX_REQUEST_BYTES = 16 * 1024 * 1024
_RECORD_OVERHEAD_BYTES = 512
_RUN_OVERHEAD_BYTES = 64 * 1024
_CLOSE_SECONDS = 5.0

_M, _ALL = 0x5BD1E995, 0xFFFFFFFF

Place = tuple[str, int]


class Publisher(Protocol):
    """Whatever publishes records and returns once they are safe."""

    async def send_all(self, records: Sequence[Outgoing], runs: Sequence[Run] = ()) -> None:
        """Publish all of them; return once every one is acknowledged. Runs have their topic partitions for themselves."""
        ...


class Producer:
    """The supervised producer. One for each process; `send_all` may be called from many tasks at once."""

    def __init__(self, settings: KafkaSettings, *, client_id: str = "tailrace", metrics: Metrics | None = None) -> None:
        self._settings = settings
        self._client_id = client_id
        self._metrics = metrics or Metrics()
        self._client: Any = None
        self._building = asyncio.Lock()
        self._abandoned: set[asyncio.Task[None]] = set()
        self._turn = itertools.count()
        self._stopped = False

    def bind(self, metrics: Metrics) -> None:
        """Report to these metrics from now on (the service host's)."""
        self._metrics = metrics

    async def start(self) -> None:
        """Connect; waits for a broker that is not there yet."""
        self._stopped = False
        await until_available("producer", unreachable(self._settings), self._ready, UNREACHABLE)

    async def stop(self) -> None:
        """Flush what is on its way, for a few seconds at most, and disconnect."""
        self._stopped = True
        client, self._client = self._client, None
        if client is not None:
            try:
                await asyncio.wait_for(client.stop(), _CLOSE_SECONDS)
            except (TimeoutError, KafkaError):
                await _abandon(client)
        await asyncio.gather(*self._abandoned)

    async def send_all(self, records: Sequence[Outgoing], runs: Sequence[Run] = ()) -> None:
        """Publish the records; return once all are acknowledged, in order within each topic partition.

        `runs` are many records for one topic partition each, to which no record in this call may go.

        Raises:
            DeliveryFailed: not all were acknowledged within `delivery_timeout_seconds`.
            DeliveryRefused: one of them can never be delivered, because of its size or of missing rights.
        """
        if not records and not runs:
            return
        for record in records:
            check_size(record)
        for run in runs:
            _check_run(run)
        began = time.monotonic()
        try:
            async with asyncio.timeout(self._settings.delivery_timeout_seconds):
                await self._until_acknowledged(records, runs)
        except TimeoutError as error:
            await self._replace(self._client, "deadline")
            self._metrics.count("tailrace_producer_errors_total", error="DeliveryFailed")
            raise DeliveryFailed(self._undelivered(_counts(records, runs))) from error
        self._metrics.observe("tailrace_publish_seconds", time.monotonic() - began)
        for topic, count in _counts(records, runs).items():
            self._metrics.count("tailrace_published_total", count, topic=topic)

    def _undelivered(self, counts: Mapping[str, int]) -> str:
        names = ", ".join(sorted(counts))
        seconds = self._settings.delivery_timeout_seconds
        return (
            f"Kafka at {self._settings.kafka_bootstrap} did not acknowledge {sum(counts.values())} records for {names}"
            f" within {seconds:g} s: is it up, and do the topics exist?"
        )

    async def _until_acknowledged(self, records: Sequence[Outgoing], runs: Sequence[Run]) -> None:
        pending, running = list(records), list(runs)
        for attempt in itertools.count():
            client = None
            try:
                client = await self._ready()
                pending, running, error = await self._attempt(client, pending, running)
            except UNREACHABLE as unreached:
                error = unreached
            if error is None:
                return
            _refuse(error)
            self._metrics.count("tailrace_producer_errors_total", error=type(error).__name__)
            left = sum(_counts(pending, running).values())
            log.warning("delivery failed, trying again", error=repr(error), records=left, attempt=attempt + 1)
            await self._replace(client, type(error).__name__)
            await asyncio.sleep(min(0.1 * 2**attempt, 2.0))

    async def _attempt(
        self, client: Any, records: list[Outgoing], runs: list[Run]
    ) -> tuple[list[Outgoing], list[Run], BaseException | None]:
        """Send once. Gives back what has to be sent again, and the first error."""
        groups = list((await self._by_place(client, records)).items())
        send = self._send_each if len(records) <= FEW_RECORDS else self._send_batches
        places: dict[Place, list[Run]] = defaultdict(list)
        for run in runs:
            places[run.topic, run.partition].append(run)
        results = await asyncio.gather(
            *(send(client, place, group) for place, group in groups),
            *(self._send_runs(client, place, group) for place, group in places.items()),
            return_exceptions=True,
        )
        failed = [isinstance(result, BaseException) for result in results]
        again = [record for (_, group), bad in zip(groups, failed, strict=False) if bad for record in group]
        left = [run for group, bad in zip(places.values(), failed[len(groups) :], strict=True) if bad for run in group]
        return again, left, next((result for result in results if isinstance(result, BaseException)), None)

    async def _by_place(self, client: Any, records: list[Outgoing]) -> dict[Place, list[Outgoing]]:
        """The records by topic partition, as keys and wishes say; those without either go to one partition in turn."""
        partitions: dict[str, list[int]] = {}
        for name in {record.topic for record in records}:
            partitions[name] = sorted(await client.partitions_for(self._settings.topic(name)))
        turn = next(self._turn)
        hashes = iter(murmur2_of([record.key for record in records if record.key is not None]))
        groups: dict[Place, list[Outgoing]] = defaultdict(list)
        for record in records:
            hashed = None if record.key is None else next(hashes)
            groups[record.topic, partition_of(record, partitions[record.topic], turn, hashed)].append(record)
        return groups

    async def _send_each(self, client: Any, place: Place, records: list[Outgoing]) -> None:
        topic, partition = self._settings.topic(place[0]), place[1]
        futures = [
            await client.send(
                topic,
                value=record.value,
                key=record.key,
                partition=partition,
                timestamp_ms=record.timestamp_ms,
                headers=list(record.headers),
            )
            for record in records
        ]
        await _all_of(futures)

    async def _send_batches(self, client: Any, place: Place, records: list[Outgoing]) -> None:
        topic, partition = self._settings.topic(place[0]), place[1]
        futures = [await client.send_batch(batch, topic, partition=partition) for batch in _packed(client, records)]
        await _all_of(futures)

    async def _send_runs(self, client: Any, place: Place, runs: list[Run]) -> None:
        topic, partition = self._settings.topic(place[0]), place[1]
        batches = [batch for run in runs for batch in _packed_run(client, run)]
        await _all_of([await client.send_batch(batch, topic, partition=partition) for batch in batches])

    async def _ready(self) -> Any:
        """The live client; a new one where there is none."""
        if self._client is not None:
            return self._client
        async with self._building:
            if self._client is None:
                if self._stopped:
                    raise DeliveryFailed("the producer has been stopped, so nothing more can be published")
                self._client = await self._built()
                health.here().ready("producer")
        return self._client

    async def _built(self) -> Any:
        client = AIOKafkaProducer(
            **connection(self._settings),
            client_id=self._client_id,
            acks="all",
            enable_idempotence=True,
            linger_ms=0,
            max_batch_size=MAX_BATCH_BYTES,
            max_request_size=MAX_REQUEST_BYTES,
        )
        try:
            await client.start()
        except BaseException:
            await _abandon(client)
            raise
        return client

    async def _replace(self, client: Any, reason: str) -> None:
        """Give this client up, unless somebody already has."""
        if client is None or client is not self._client:
            return
        self._client = None
        self._metrics.count("tailrace_producer_rebuilds_total")
        health.here().waiting("producer", f"{unreachable(self._settings)}: {reason}")
        log.warning("producer replaced", reason=reason)
        task = asyncio.create_task(_abandon(client))
        self._abandoned.add(task)
        task.add_done_callback(self._abandoned.discard)


def partition_of(record: Outgoing, partitions: Sequence[int], turn: int = 0, hashed: int | None = None) -> int:
    """The partition that a record goes to: its own wish, else its key's hash, else the one whose turn it is.

    `hashed` is the key's `murmur2`, where that is known.
    """
    if record.partition is not None:
        return record.partition
    if len(partitions) == 1:
        return partitions[0]
    if record.key is None:
        return partitions[turn % len(partitions)]
    hashed = murmur2(record.key) if hashed is None else hashed
    return partitions[(hashed & 0x7FFFFFFF) % len(partitions)]


def murmur2(key: bytes) -> int:
    """Kafka's hash of a key, as every client computes it, three times as fast as aiokafka does.

    >>> murmur2(b"prediction-1")
    433077332
    """
    length = len(key)
    found = 0x9747B28C ^ length
    for word in struct.unpack_from(f"<{length >> 2}I", key):
        mixed = word * _M & _ALL
        mixed = (mixed ^ mixed >> 24) * _M & _ALL
        found = found * _M & _ALL ^ mixed
    if rest := key[length & ~3 :]:
        found = (found ^ int.from_bytes(rest, "little")) * _M & _ALL
    found = (found ^ found >> 13) * _M & _ALL
    return found ^ found >> 15


def murmur2_of(keys: Sequence[bytes]) -> list[int]:
    """`murmur2` of every key; of many keys of one length, such as identifiers, all at once."""
    length = len(keys[0]) if keys else 0
    if len(keys) < FEW_RECORDS or length % 4 or any(len(key) != length for key in keys):
        return [murmur2(key) for key in keys]
    words = np.frombuffer(b"".join(keys), dtype="<u4").reshape(len(keys), length // 4)
    found = np.full(len(keys), 0x9747B28C ^ length, dtype=np.uint32)
    for word in words.T:
        mixed = word * np.uint32(_M)
        mixed ^= mixed >> np.uint32(24)
        found = found * np.uint32(_M) ^ mixed * np.uint32(_M)
    found = (found ^ found >> np.uint32(13)) * np.uint32(_M)
    hashes: list[int] = (found ^ found >> np.uint32(15)).tolist()
    return hashes


def _packed(client: Any, records: list[Outgoing]) -> list[Any]:
    """The records in as few batches as their size allows, closed, so that nobody else adds to them."""
    batches: list[Any] = []
    batch: Any = None
    for record in records:
        if batch is None or not _append(batch, record):
            batch = client.create_batch()
            batches.append(batch)
            _append(batch, record)
    for each in batches:
        each.close()
    return batches


def _append(batch: Any, record: Outgoing) -> bool:
    added = batch.append(
        timestamp=record.timestamp_ms, key=record.key, value=record.value, headers=list(record.headers)
    )
    return added is not None


def _packed_run(client: Any, run: Run) -> list[Any]:
    """The run in as few batches as its size allows. Appends to aiokafka's C builder, past a wrapper for each record."""
    batches: list[Any] = []
    batch, count, now = None, 0, int(time.time() * 1000)
    for key, value, headers in zip(run.keys, run.values, run.headers, strict=True):
        if batch is None or not batch._builder.append(count, now, key, value, headers):  # noqa: SLF001
            batch, count = client.create_batch(), 0
            batches.append(batch)
            batch._builder.append(0, now, key, value, headers)  # noqa: SLF001
        count += 1
        batch._relative_offset = count  # noqa: SLF001
    for each in batches:
        each.close()
    return batches


async def _all_of(futures: list[Any]) -> None:
    """Wait for all, then raise the first error: no future is left behind with one that nobody saw."""
    for result in await asyncio.gather(*futures, return_exceptions=True):
        if isinstance(result, BaseException):
            raise result


def check_size(record: Outgoing) -> None:
    """Refuse what the topic will not take before it breaks the producer's sequence."""
    card = topics().get(record.topic)
    if card is None:
        return
    size = len(record.value or b"") + len(record.key or b"") + _RECORD_OVERHEAD_BYTES
    size += sum(len(name) + len(value) for name, value in record.headers)
    if size > card.max_message_bytes:
        raise DeliveryRefused(
            f"a record of {size} bytes for topic {record.topic} is over its limit of {card.max_message_bytes} bytes"
        )


def _check_run(run: Run) -> None:
    """Refuse a run with a record that the topic will not take; looks closely only where the largest might be one."""
    card = topics().get(run.topic)
    largest = max(map(len, run.values), default=0) + _RUN_OVERHEAD_BYTES
    if card is not None and largest > card.max_message_bytes:
        for record in run:
            check_size(record)


def _counts(records: Iterable[Outgoing], runs: Iterable[Run]) -> dict[str, int]:
    counts: dict[str, int] = defaultdict(int)
    for record in records:
        counts[record.topic] += 1
    for run in runs:
        counts[run.topic] += len(run)
    return counts


def _refuse(error: BaseException) -> None:
    """Raise what no repetition can mend."""
    if isinstance(error, MessageSizeTooLargeError | TopicAuthorizationFailedError):
        raise DeliveryRefused(f"Kafka refuses the record for good: {error!r}") from error
    if not isinstance(error, KafkaError | OSError | asyncio.CancelledError):
        raise error


async def _abandon(client: Any) -> None:
    """Close a client without waiting for what it wants to send. Reaches into aiokafka 0.14, which has no such call."""
    client._closed = True  # noqa: SLF001
    for close in (client.client.close, client._sender.close):  # noqa: SLF001
        try:
            await asyncio.wait_for(close(), _CLOSE_SECONDS)
        except (TimeoutError, KafkaError) as error:
            log.info("an abandoned producer closed with an error", error=repr(error))
    accumulator = client._message_accumulator  # noqa: SLF001
    batches = [*accumulator._pending_batches, *(batch for queue in accumulator._batches.values() for batch in queue)]  # noqa: SLF001
    accumulator._pending_batches.update(batches)  # noqa: SLF001  # each takes itself out of it when it fails
    accumulator.fail_all(KafkaError("this producer has been given up"))
    for future in (each for batch in batches for each in (batch.future, batch._drain_waiter)):  # noqa: SLF001
        if future.done() and not future.cancelled():
            future.exception()  # looked at, so that asyncio does not complain about it
