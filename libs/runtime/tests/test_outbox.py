"""The outbox on a real database: nothing skipped, nothing out of order, whatever commits when."""

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from tailrace_contracts.ranges import Log
from tailrace_runtime.database import Database
from tailrace_runtime.errors import DeliveryFailed
from tailrace_runtime.metrics import Metrics
from tailrace_runtime.outbox import Relay, applied_through, enqueue, mark_applied
from tailrace_runtime.records import Outgoing, Run
from tailrace_runtime.testing import RecordingProducer
from tailrace_testing.polling import eventually


@pytest.fixture
async def migrated(database: str) -> AsyncIterator[Database]:
    """A database with the outbox in it."""
    connected = Database(database, "tailrace_runtime")
    await connected.start()
    yield connected
    await connected.stop()


def event(number: int) -> Outgoing:
    """The event with this number, all under one key."""
    return Outgoing("deployments", str(number).encode(), b"rain", headers=(("ce_id", str(number).encode()),))


def numbers(producer: RecordingProducer) -> list[int]:
    """What was published, in order."""
    return [int(record.value or b"-1") for record in producer.sent]


async def test_events_of_a_committed_transaction_are_published_and_of_another_not(migrated: Database) -> None:
    """The topics would tell of something that never happened, or miss what did."""
    producer, metrics = RecordingProducer(), Metrics()
    relay = Relay(migrated, producer, metrics=metrics)
    await relay.start()
    async with migrated.transaction() as connection:
        await enqueue(connection, [event(1), event(2)])
    async with migrated.pool.acquire() as connection:
        transaction = connection.transaction()
        await transaction.start()
        await enqueue(connection, [event(3)])
        await transaction.rollback()
    async with migrated.transaction() as connection:
        await enqueue(connection, [event(4)])
    await eventually(lambda: len(producer.sent) == 3)
    await relay.stop()
    assert numbers(producer) == [1, 2, 4]
    assert producer.sent[0].headers == (("ce_id", b"1"),)
    assert await migrated.pool.fetchval("SELECT count(*) FROM outbox") == 0
    assert metrics.value("tailrace_outbox_published_total") == 3


async def test_a_transaction_that_commits_late_is_neither_skipped_nor_overtaken(migrated: Database) -> None:
    """A promotion could be lost, or announced before what came before it."""
    producer = RecordingProducer()
    relay = Relay(migrated, producer)
    async with migrated.pool.acquire() as slow:
        transaction = slow.transaction()
        await transaction.start()
        await enqueue(slow, [event(1)])
        async with migrated.transaction() as quick:
            await enqueue(quick, [event(2)])
        await relay.start()
        await eventually(lambda: relay.polls > 3)
        assert numbers(producer) == []
        await transaction.commit()
    await eventually(lambda: len(producer.sent) == 2)
    await relay.stop()
    assert numbers(producer) == [1, 2]


async def test_many_concurrent_writers_lose_nothing(migrated: Database) -> None:
    """Under load, some changes would never be announced."""
    producer = RecordingProducer()
    relay = Relay(migrated, producer)
    await relay.start()

    async def write(writer: int) -> None:
        for step in range(20):
            async with migrated.transaction() as connection:
                await enqueue(connection, [event(writer * 100 + step)])
                await asyncio.sleep(0.001 * (writer % 3))

    await asyncio.gather(*(write(writer) for writer in range(6)))
    await eventually(lambda: len(producer.sent) >= 120)
    await relay.stop()
    assert sorted(numbers(producer)) == sorted(writer * 100 + step for writer in range(6) for step in range(20))
    for writer in range(6):
        mine = [number for number in numbers(producer) if number // 100 == writer]
        assert mine == sorted(mine)


class Stuck(RecordingProducer):
    """A producer whose broker does not answer."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = asyncio.Event()

    async def send_all(self, records: Sequence[Outgoing], runs: Sequence[Run] = ()) -> None:
        """Never return."""
        del records, runs
        self.asked.set()
        await asyncio.Event().wait()


async def test_killed_after_publishing_before_deleting_publishes_again(migrated: Database) -> None:
    """A relay that dies at the wrong moment would lose an event; the next takes over and says it again."""
    stuck, producer = Stuck(), RecordingProducer()
    first, second = Relay(migrated, stuck), Relay(migrated, producer)
    await first.start()
    async with migrated.transaction() as connection:
        await enqueue(connection, [event(1)])
    await stuck.asked.wait()
    await second.start()
    await eventually(lambda: second.standing_by)
    assert numbers(producer) == []
    assert first._task is not None
    first._task.cancel()
    await eventually(lambda: numbers(producer) == [1])
    await second.stop()


async def test_a_broker_that_is_away_is_waited_for(migrated: Database) -> None:
    """An outage of Kafka would stop the registry, or lose its announcements."""
    producer = RecordingProducer()
    producer.fail_next(DeliveryFailed("away"))
    relay = Relay(migrated, producer)
    async with migrated.transaction() as connection:
        await enqueue(connection, [event(1)])
    await relay.start()
    await eventually(lambda: numbers(producer) == [1])
    await relay.stop()


async def test_an_event_is_published_soon_after_its_commit(migrated: Database) -> None:
    """Every promotion would wait for the next poll: a notification must wake the relay."""
    producer = RecordingProducer()
    relay = Relay(migrated, producer, poll_seconds=600)
    await relay.start()
    await eventually(lambda: relay.polls > 0)
    async with migrated.transaction() as connection:
        await enqueue(connection, [event(1)])
    await eventually(lambda: numbers(producer) == [1], seconds=5)
    await relay.stop()


async def test_enqueue_needs_a_transaction(migrated: Database) -> None:
    """An event could be announced although the change behind it was never written."""
    async with migrated.pool.acquire() as connection:
        with pytest.raises(RuntimeError, match="transaction"):
            await enqueue(connection, [event(1)])


async def test_the_inbox_remembers_how_far_a_log_was_applied(migrated: Database) -> None:
    """A command that comes twice would be carried out twice."""
    log = Log("registry-commands", 0)
    async with migrated.transaction() as connection:
        assert await applied_through(connection, log) == -1
        await mark_applied(connection, log, 7)
        await mark_applied(connection, log, 5)
        await mark_applied(connection, Log("registry-commands", 1), 99)
    async with migrated.transaction() as connection:
        assert await applied_through(connection, log) == 7
