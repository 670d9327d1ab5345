"""The fixtures as other members' tests use them."""

from collections.abc import Callable

import asyncpg
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.errors import TopicAlreadyExistsError

from tailrace_local import EmbeddedPostgres
from tailrace_testing import Broker, OwnBroker, Postgres, eventually


async def send_and_read(broker: Broker, topic: str, value: bytes) -> list[bytes]:
    """Sends one record, then reads the topic from its beginning until that record."""
    producer = AIOKafkaProducer(bootstrap_servers=broker.bootstrap, acks="all", enable_idempotence=True)
    async with producer:
        await producer.send_and_wait(topic, value, key=b"key")
    return await read_until(broker, topic, value)


async def read_until(broker: Broker, topic: str, value: bytes) -> list[bytes]:
    """Reads the topic from its beginning until this value."""
    seen: list[bytes] = []
    async with AIOKafkaConsumer(topic, bootstrap_servers=broker.bootstrap, auto_offset_reset="earliest") as consumer:
        while value not in seen:
            seen.append((await consumer.getone()).value)
    return seen


async def test_records_go_through_the_session_broker(kafka: Broker) -> None:
    """Every integration test would fail: the shared broker would not carry records."""
    topic = await kafka.create_topic(kafka.unique("through"), partitions=2, config={"cleanup.policy": "compact"})
    assert await send_and_read(kafka, topic, b"drop") == [b"drop"]


async def test_a_topic_is_created_once(kafka: Broker) -> None:
    """Two tests that use the same name by mistake would read each other's records."""
    topic = await kafka.create_topic(kafka.unique("once"))
    with pytest.raises(TopicAlreadyExistsError):
        await kafka.create_topic(topic)


async def test_unique_names_differ(kafka: Broker) -> None:
    """Tests on a shared broker would disturb each other."""
    assert kafka.unique("a") != kafka.unique("a")


async def test_each_test_has_a_database_of_its_own(database: str, postgres: Postgres) -> None:
    """Tests on a shared server would see each other's tables."""
    connection = await asyncpg.connect(database)
    try:
        assert database != postgres.admin_url
        assert await connection.fetchval("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == 0
    finally:
        await connection.close()


async def test_a_database_is_dropped_although_somebody_is_connected(postgres: Postgres) -> None:
    """A test that forgets a connection would leave its database on a developer's server for ever."""
    url = postgres.create_database()
    connection = await asyncpg.connect(url)
    postgres.drop_database(url)
    with pytest.raises(asyncpg.InvalidCatalogNameError):
        await asyncpg.connect(url)
    connection.terminate()


async def test_a_broker_of_its_own_keeps_records_over_stop_and_kill(
    broker_of_its_own: Callable[[], OwnBroker],
) -> None:
    """Tests of outages would lose their data, or wait for a broker that does not come back."""
    broker = broker_of_its_own()
    topic = await broker.create_topic("kept")
    address = broker.bootstrap
    assert await send_and_read(broker, topic, b"first") == [b"first"]
    broker.stop()
    broker.start()
    assert await send_and_read(broker, topic, b"second") == [b"first", b"second"]
    broker.kill()
    broker.start()
    assert broker.bootstrap == address
    assert await read_until(broker, topic, b"second") == [b"first", b"second"]


async def test_a_database_server_of_its_own_keeps_rows_over_stop_and_kill(
    database_of_its_own: Callable[[], EmbeddedPostgres],
) -> None:
    """Tests of database outages would lose committed rows."""
    server = database_of_its_own()
    await execute(server.admin_url, "CREATE TABLE kept (x int)")
    for end in (server.stop, server.kill):
        await execute(server.admin_url, "INSERT INTO kept VALUES (1)")
        end()
        server.start()

    async def rows() -> int:
        connection = await asyncpg.connect(server.admin_url)
        try:
            return int(await connection.fetchval("SELECT count(*) FROM kept"))
        finally:
            await connection.close()

    assert await eventually(rows) == 2


async def execute(url: str, statement: str) -> None:
    """Runs one statement on a connection of its own."""
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()
