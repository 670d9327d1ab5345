"""`tailrace dead-letters`: what could not be handled comes back whole, once, and nobody loses track of it."""

from __future__ import annotations

import base64
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from tailrace_cli.connection import CommandError, Connection
from tailrace_cli.dead_letter_cases import Case, Cases, Filter, moment
from tailrace_cli.dead_letters import one, read, replay
from tailrace_client import AsyncPublisher
from tailrace_contracts.events import EventParked, EventReplayed
from tailrace_runtime.deadletters import REPLAY_OF, replayed
from tailrace_testing import Broker

NOW = datetime(2026, 5, 4, tzinfo=UTC)
CLOCK_MILLISECONDS = 20
"""Records are stamped with whole milliseconds of a clock that is set now and then."""


def letter(offset: int, *, replay_of: str = "", **changes: Any) -> EventParked:
    """The dead letter of a label event, an hour later for each offset."""
    given: dict[str, Any] = {
        "topic": "label-events",
        "partition": 0,
        "offset": offset,
        "key": text("q1"),
        "value": text('{"a": 1}'),
        "headers": (("ce_type", text("t")), *([(REPLAY_OF, text(replay_of))] if replay_of else [])),
        "timestamp_ms": 1,
        "code": "unknown-model",
        "reason": "model 'rane' has no spec",
        "attempts": 1,
        "service": "ingestion",
        "role": "validate",
        "model": "rane",
        "time": NOW + timedelta(hours=offset),
    }
    return EventParked(**given | changes)


def text(plain: str) -> str:
    """As dead letters hold it."""
    return base64.b64encode(plain.encode()).decode()


def said(offset: int, stage: Any, hours: float) -> EventReplayed:
    """What a replay says of the record at this offset."""
    when = NOW + timedelta(hours=hours)
    return EventReplayed(topic="label-events", partition=0, offset=offset, stage=stage, replayed_by="me", time=when)


def chosen(events: Sequence[EventParked | EventReplayed], **wanted: Any) -> list[Case]:
    """The cases of these events that are meant."""
    cases = Cases()
    for event in events:
        cases.apply(event)
    return cases.chosen(Filter(**wanted))


def test_a_case_tells_what_became_of_its_replays() -> None:
    """An operator would replay again what has been handled, or forget what failed a second time."""
    events: list[EventParked | EventReplayed] = [
        *(letter(n) for n in range(4)),
        letter(0),
        *(said(n, "started", 10 + n) for n in (1, 2, 3)),
        *(said(n, "done", 11 + n) for n in (1, 2)),
        letter(9, replay_of="label-events/0/2", code="wrong-type"),
    ]
    cases = {case.name: case for case in chosen(events)}
    assert {name[-1]: case.state for name, case in cases.items()} == {
        "0": "parked",
        "1": "replayed",
        "2": "failed-again",
        "3": "unknown",
    }
    again = cases["label-events/0/2"]
    assert (again.letter.code, again.replays, again.returned) == ("wrong-type", 1, 1)
    assert [case.name for case in chosen(events, name="label-events/0/9")] == ["label-events/0/2"]
    assert [case.state for case in chosen([*events, said(2, "done", 20)], name="label-events/0/2")] == ["replayed"]


@pytest.mark.parametrize(
    ("wanted", "offsets"),
    [
        ({}, [0, 1, 2]),
        ({"topic": "label-events"}, [0, 1]),
        ({"code": "broken-json"}, [1]),
        ({"model": "rane"}, [0, 2]),
        ({"by": "watch"}, [2]),
        ({"by": "ingestion"}, [0, 1]),
        ({"by": "ingestion/validate"}, [0, 1]),
        ({"text": "no spec"}, [0, 2]),
        ({"text": "bad"}, [1]),
        ({"text": "q1"}, [0, 1, 2]),
        ({"since": NOW + timedelta(hours=1)}, [1, 2]),
        ({"until": NOW + timedelta(hours=1)}, [0]),
        ({"states": frozenset({"replayed"})}, []),
    ],
)
def test_a_filter_chooses(wanted: dict[str, Any], offsets: list[int]) -> None:
    """A replay would publish records that nobody meant."""
    events = [
        letter(0),
        letter(1, code="broken-json", model=None, reason="no JSON", value=text("bad")),
        letter(2, topic="labelled-examples", service="monitoring", role="watch"),
    ]
    assert [case.letter.offset for case in chosen(events, **wanted)] == offsets


def test_points_in_time_as_people_write_them() -> None:
    """Yesterday's letters would be missed, or a typing error be taken for a date."""
    assert moment("2h", NOW) == NOW - timedelta(hours=2)
    assert moment("7d", NOW) == NOW - timedelta(days=7)
    assert moment("2026-05-03", NOW) == NOW - timedelta(days=1)
    assert moment("2026-05-04T02:00:00+02:00", NOW) == NOW
    with pytest.raises(ValueError, match="yesterday"):
        moment("yesterday", NOW)


def test_a_record_goes_back_as_it_was() -> None:
    """A parked record would come back changed, in another partition, or be dropped as one that was seen."""
    internal = letter(
        3, topic="labels", partition=2, value=None, headers=(("trigger-offset", text("7")), ("a", text("b")))
    )
    record = replayed(internal)
    assert (record.topic, record.partition, record.key, record.value) == ("labels", 2, b"q1", None)
    assert record.headers == (("a", b"b"), (REPLAY_OF, b"labels/2/3"))
    public = replayed(letter(4, key="/w==", replay_of="label-events/0/1"))
    assert (public.partition, public.key) == (None, b"\xff")
    assert public.headers == (("ce_type", b"t"), (REPLAY_OF, b"label-events/0/1"))


@pytest.fixture
async def to(kafka: Broker) -> Connection:
    """A Tailrace of its own, with three dead letters of which the last fails in the same way again."""
    prefix = kafka.unique("letters") + "-"
    for topic in ("label-events", "dead-letters"):
        await kafka.create_topic(prefix + topic)
    connection = Connection(kafka.bootstrap, prefix, "http://127.0.0.1:9", "http://127.0.0.1:9", "memory:///")
    await publish(connection, *(letter(n) for n in range(3)), letter(0))
    return connection


async def publish(to: Connection, *events: EventParked | EventReplayed) -> None:
    """Put events on `dead-letters`."""
    async with AsyncPublisher(to.bootstrap, topic_prefix=to.topic_prefix) as publisher:
        for each in events:
            await publisher.publish("dead-letters", "q1", each)


async def published(to: Connection) -> list[Any]:
    """Every record on `label-events`."""
    consumer = AIOKafkaConsumer(bootstrap_servers=to.bootstrap, auto_offset_reset="earliest")
    await consumer.start()
    try:
        log = TopicPartition(to.topic_prefix + "label-events", 0)
        consumer.assign([log])
        end = (await consumer.end_offsets([log]))[log]
        return [await consumer.getone() for _ in range(end)]
    finally:
        await consumer.stop()


async def origins(to: Connection) -> list[str]:
    """What was replayed: the origin of every record on `label-events`, whole as they are."""
    records = await published(to)
    assert {(record.key, record.value, record.headers[0]) for record in records} <= {
        (b"q1", b'{"a": 1}', ("ce_type", b"t"))
    }
    return [dict(record.headers)[REPLAY_OF].decode().rpartition("/")[2] for record in records]


async def due(to: Connection) -> list[Case]:
    """What `replay` would take."""
    return await read(to, Filter(states=frozenset({"parked", "unknown"})))


async def test_replaying_twice_changes_nothing(to: Connection) -> None:
    """A second replay would send everything again: events counted twice."""
    assert await replay(to, await due(to), per_second=1000) == 3
    assert await replay(to, await due(to)) == 0
    assert await origins(to) == ["0", "1", "2"]
    assert [case.state for case in await read(to, Filter())] == ["replayed"] * 3


async def test_a_replay_keeps_to_its_rate(to: Connection) -> None:
    """A replay that was to spare the consumers behind it would run them over."""
    await publish(to, *(letter(n) for n in range(3, 30)))
    began = time.monotonic()
    assert await replay(to, await due(to), per_second=10) == 30
    assert time.monotonic() - began >= 2
    milliseconds = sorted(record.timestamp for record in await published(to))
    assert len(milliseconds) == 30
    gaps = [later - earlier for earlier, later in zip(milliseconds, milliseconds[10:], strict=False)]
    assert min(gaps) >= 1_000 - CLOCK_MILLISECONDS


async def test_what_fails_again_is_the_same_case_and_does_not_loop(to: Connection) -> None:
    """A record that can never be handled would go round and round, a dead letter longer each time."""
    await replay(to, await due(to))
    await publish(to, letter(7, replay_of="label-events/0/2"))
    assert await due(to) == []
    again = await read(to, Filter(states=frozenset({"failed-again"})))
    assert [case.name for case in again] == ["label-events/0/2"]
    assert await replay(to, again) == 1
    assert await origins(to) == ["0", "1", "2", "2"]
    assert (await one(to, "label-events/0/2")).state == "replayed"


async def test_killed_in_the_middle_of_a_replay(to: Connection) -> None:
    """After a kill, records would be published twice, or not at all."""
    cases = await due(to)
    await replay(to, cases[:1])
    started = datetime.now(UTC)
    await publish(to, *(said(n, "started", 0).model_copy(update={"time": started}) for n in (0, 1)))
    assert [case.state for case in await read(to, Filter())] == ["unknown", "unknown", "parked"]
    assert await replay(to, await due(to)) == 2
    assert await origins(to) == ["0", "1", "2"]
    assert [case.state for case in await read(to, Filter())] == ["replayed"] * 3


async def test_a_name_that_is_not_there_is_said(to: Connection) -> None:
    """A typing error would look as if there was nothing wrong."""
    with pytest.raises(CommandError, match="no dead letter label-events/0/3"):
        await one(to, "label-events/0/3")
