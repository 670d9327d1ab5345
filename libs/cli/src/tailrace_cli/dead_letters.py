"""Reading the dead letters, and publishing their records again.

A replay says on the topic `dead-letters` that it starts, publishes the records as they were, waits for the broker, and
says that they are done; in chunks, so that a bound on the rate holds and little is in the air at once. Killed in
between, it leaves cases of which nobody knows: the next replay looks for their records on their topic, by the header
that a replayed record carries, and publishes only what is not there. So replaying twice changes nothing.
"""

from __future__ import annotations

import asyncio
import getpass
import itertools
from base64 import b64decode
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from tailrace_cli.connection import CommandError, Connection
from tailrace_cli.dead_letter_cases import Case, Cases, Filter
from tailrace_contracts.events import EventReplayed, decode
from tailrace_runtime.deadletters import REPLAY_OF, TOPIC, replayed
from tailrace_runtime.errors import DeliveryFailed, DeliveryRefused, RetryLater
from tailrace_runtime.producer import Producer
from tailrace_runtime.records import outgoing
from tailrace_runtime.topics import existing

CHUNK = 200
_CLOCK_MARGIN = timedelta(minutes=5)


async def read(connection: Connection, wanted: Filter) -> list[Case]:
    """The cases that stand on the topic now, oldest first. Raises CommandError."""
    cases = Cases()
    async with _log(connection, TOPIC) as records:
        async for record in records:
            if record.value is not None:
                cases.apply(decode(record.value))
    return cases.chosen(wanted)


async def one(connection: Connection, record: str) -> Case:
    """The case of this name. Raises CommandError when there is none."""
    found = await read(connection, Filter(name=record))
    if not found:
        msg = f"no dead letter {record}; `tailrace dead-letters list` names them"
        raise CommandError(msg)
    return found[0]


async def replay(connection: Connection, cases: Sequence[Case], per_second: int | None = None) -> int:
    """Publish the records of these cases again, and wait until the broker has them. Returns how many were published.

    With `per_second` no chunk begins before the one before is acknowledged and its share of a second has passed: a broker
    that was slow for a while is not made up for by a burst.

    Raises:
        CommandError: the broker did not take them all; what it took is noted.
    """
    there = await _found_again(connection, [case for case in cases if case.state == "unknown"])
    missing = [case for case in cases if case.name not in there]
    producer = Producer(connection.kafka, client_id="tailrace-replay")
    await producer.start()
    try:
        await _mark(producer, [case for case in cases if case.name in there], "done")
        size = min(per_second or CHUNK, CHUNK)
        for first in range(0, len(missing), size):
            if per_second and first:
                await asyncio.sleep(size / per_second)
            await _publish(producer, missing[first : first + size])
    except (DeliveryFailed, DeliveryRefused) as error:
        msg = f"{error}; replay again when that is mended: what was replayed is noted"
        raise CommandError(msg) from None
    finally:
        await producer.stop()
    return len(missing)


async def _publish(producer: Producer, cases: Sequence[Case]) -> None:
    await _mark(producer, cases, "started")
    await producer.send_all([replayed(case.letter) for case in cases])
    await _mark(producer, cases, "done")


async def _mark(producer: Producer, cases: Sequence[Case], stage: Literal["started", "done"]) -> None:
    await producer.send_all([outgoing(_marked(case, stage), TOPIC, case.name) for case in cases])


def _marked(case: Case, stage: Literal["started", "done"]) -> EventReplayed:
    topic, partition, offset = case.name.rsplit("/", 2)
    return EventReplayed(
        topic=topic,
        partition=int(partition),
        offset=int(offset),
        stage=stage,
        replayed_by=getpass.getuser(),
        time=datetime.now(UTC),
    )


async def _found_again(connection: Connection, cases: Sequence[Case]) -> set[str]:
    """Of replays that were begun and not finished: those whose records are on their topics."""
    found: set[str] = set()
    by_topic = itertools.groupby(sorted(cases, key=_topic), key=_topic)
    for topic, group in by_topic:
        begun = [case.started_at for case in group if case.started_at is not None]
        async with _log(connection, topic, min(begun) - _CLOCK_MARGIN) as records:
            async for record in records:
                found.update(value.decode(errors="replace") for name, value in record.headers if name == REPLAY_OF)
    return found & {case.name for case in cases}


def _topic(case: Case) -> str:
    return case.letter.topic


@asynccontextmanager
async def _log(connection: Connection, topic: str, since: datetime | None = None) -> AsyncIterator[AsyncIterator[Any]]:
    """Every record that is on a topic now; with `since`, those that the broker got from then on."""
    consumer = AIOKafkaConsumer(
        bootstrap_servers=connection.bootstrap, enable_auto_commit=False, auto_offset_reset="earliest"
    )
    try:
        await consumer.start()
        count = (await existing(connection.kafka)).get(topic, 0)
        logs = [TopicPartition(connection.topic_prefix + topic, number) for number in range(count)]
        consumer.assign(logs)
        if since is not None:
            await _seek(consumer, logs, since)
        yield _records(consumer, logs)
    except (KafkaError, RetryLater) as error:
        msg = f"no Kafka broker answers at {connection.bootstrap} ({error}); is Tailrace up? (`tailrace status`)"
        raise CommandError(msg) from None
    finally:
        await consumer.stop()


async def _records(consumer: Any, logs: Sequence[TopicPartition]) -> AsyncIterator[Any]:
    ends = await consumer.end_offsets(logs)
    left = {each: end for each, end in ends.items() if end > await consumer.position(each)}
    while left:
        for partition, records in (await consumer.getmany(timeout_ms=200)).items():
            for record in records:
                yield record
            if partition in left and records[-1].offset + 1 >= left[partition]:
                del left[partition]


async def _seek(consumer: Any, partitions: Sequence[TopicPartition], since: datetime) -> None:
    milliseconds = int(since.timestamp() * 1000)
    for partition, found in (await consumer.offsets_for_times(dict.fromkeys(partitions, milliseconds))).items():
        if found is None:
            await consumer.seek_to_end(partition)
        else:
            consumer.seek(partition, found.offset)


def text(value: str | None) -> str:
    """A dead letter's bytes as text for a person; what is no text stays base64."""
    if value is None:
        return ""
    raw = b64decode(value)
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return f"(base64) {value}"
