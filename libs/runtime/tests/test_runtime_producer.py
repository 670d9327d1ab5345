"""Publishing, by the real producer and by the one for tests: the same suite for both."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Protocol

import pytest
from aiokafka import TopicPartition
from aiokafka.partitioner import DefaultPartitioner

from tailrace_runtime.errors import DeliveryFailed, DeliveryRefused
from tailrace_runtime.metrics import Metrics
from tailrace_runtime.producer import Producer, Publisher
from tailrace_runtime.records import Outgoing, Record
from tailrace_runtime.settings import ServiceSettings
from tailrace_runtime.testing import RecordingProducer, everything_on

Deployment = Callable[..., Awaitable[ServiceSettings]]
TOPIC = "predictions"


class Published(Protocol):
    """A publisher, and a look at what came of it."""

    publisher: Publisher

    async def on_topic(self) -> list[Record]:
        """What is on the topic, each partition in order."""
        ...


class OnKafka:
    """The real producer and a consumer."""

    def __init__(self, settings: ServiceSettings, producer: Producer) -> None:
        self.publisher: Publisher = producer
        self._settings = settings

    async def on_topic(self) -> list[Record]:
        """Read the topic to its end."""
        return await everything_on(self._settings, TOPIC)


class InMemory:
    """The producer for tests."""

    def __init__(self) -> None:
        self.producer = RecordingProducer()
        self.publisher: Publisher = self.producer

    async def on_topic(self) -> list[Record]:
        """What it kept."""
        return sorted(self.producer.on(TOPIC), key=lambda record: (record.partition, record.offset))


@pytest.fixture(params=["kafka", "recording"])
async def published(request: pytest.FixtureRequest, deployment: Deployment) -> AsyncIterator[Published]:
    """Each kind of publisher, started."""
    if request.param == "recording":
        yield InMemory()
        return
    settings = await deployment(TOPIC, "alerts")
    producer = Producer(settings)
    await producer.start()
    yield OnKafka(settings, producer)
    await producer.stop()


@pytest.mark.parametrize("count", [1, 10, 3000])
async def test_everything_arrives_in_order(published: Published, count: int) -> None:
    """Events would be lost, or overtake each other, in one of the two ways in which they are sent."""
    sent = [Outgoing(TOPIC, str(number).encode(), partition=number % 4) for number in range(count)]
    await published.publisher.send_all(sent)
    found = await published.on_topic()
    assert sorted(int(record.value or b"") for record in found) == list(range(count))
    for partition in range(4):
        mine = [int(record.value or b"") for record in found if record.partition == partition]
        assert mine == sorted(mine)


@pytest.mark.parametrize("count", [1, 40])
@pytest.mark.parametrize("form", ["prediction-{}", "{:036}"], ids=["of any length", "of one length"])
async def test_keys_go_where_every_kafka_client_sends_them(published: Published, count: int, form: str) -> None:
    """A label and its prediction, published by different clients, would never meet."""
    keys = [form.format(number).encode() for number in range(count)]
    await published.publisher.send_all([Outgoing(TOPIC, b"v", key) for key in keys])
    expected = {key: DefaultPartitioner()(key, [0, 1, 2, 3], [0, 1, 2, 3]) for key in keys}
    assert {record.key: record.partition for record in await published.on_topic()} == expected


@pytest.mark.parametrize("copies", [1, 40])
async def test_headers_key_and_time_survive(published: Published, copies: int) -> None:
    """Traces and the CloudEvents attributes would be lost on the way."""
    sent = Outgoing(TOPIC, b"v", b"k", 1, (("ce_id", b"1"), ("x", b"\x00")), 1_700_000_000_000)
    await published.publisher.send_all([sent] * copies)
    for record in await published.on_topic():
        assert (record.key, record.headers, record.timestamp_ms) == (b"k", sent.headers, 1_700_000_000_000)


async def test_a_tombstone_can_be_published(published: Published) -> None:
    """A compacted topic could never forget."""
    await published.publisher.send_all([Outgoing(TOPIC, None, b"k", 0)])
    assert [record.value for record in await published.on_topic()] == [None]


async def test_a_record_over_the_topics_limit_is_refused_and_the_next_one_goes(published: Published) -> None:
    """One huge event would break the producer for all others."""
    with pytest.raises(DeliveryRefused, match=r"topic predictions is over its limit of 1048576 bytes"):
        await published.publisher.send_all([Outgoing(TOPIC, bytes(2_000_000), b"k")])
    await published.publisher.send_all([Outgoing(TOPIC, b"small", b"k")])
    assert [record.value for record in await published.on_topic()] == [b"small"]


async def test_nothing_to_send_is_fine(published: Published) -> None:
    """A handler without results would fail."""
    await published.publisher.send_all([])
    assert await published.on_topic() == []


async def test_without_a_key_partitions_take_turns(deployment: Deployment) -> None:
    """All events without a key would crowd into one partition."""
    settings = await deployment(TOPIC)
    producer = Producer(settings)
    await producer.start()
    for number in range(8):
        await producer.send_all([Outgoing(TOPIC, str(number).encode())])
    await producer.stop()
    assert {record.partition for record in await everything_on(settings, TOPIC)} == {0, 1, 2, 3}


async def test_a_fatal_error_replaces_the_client_and_loses_nothing(deployment: Deployment) -> None:
    """After one OutOfOrderSequence a service could never publish again."""
    settings = await deployment(TOPIC)
    metrics = Metrics()
    producer = Producer(settings, metrics=metrics)
    await producer.start()
    await producer.send_all([Outgoing(TOPIC, b"0", partition=0)])
    first = producer._client
    first._txn_manager._sequence_numbers[TopicPartition(settings.topic(TOPIC), 0)] = 77  # what the broker cannot accept
    await asyncio.gather(
        producer.send_all([Outgoing(TOPIC, str(number).encode(), partition=0) for number in range(1, 40)]),
        producer.send_all([Outgoing(TOPIC, b"40", partition=0)]),
    )
    assert producer._client is not first
    assert metrics.value("tailrace_producer_rebuilds_total") == 1
    await producer.stop()
    found = [int(record.value or b"") for record in await everything_on(settings, TOPIC)]
    assert set(found) == set(range(41))
    assert [number for number in dict.fromkeys(found) if number not in {0, 40}] == list(range(1, 40))


async def test_a_deadline_ends_a_send_to_a_topic_that_is_not_there(settings: ServiceSettings) -> None:
    """A caller would wait for ever for an acknowledgement that cannot come."""
    impatient = settings.model_copy(update={"delivery_timeout_seconds": 0.5})
    producer = Producer(impatient)
    await producer.start()
    with pytest.raises(DeliveryFailed, match=r"did not acknowledge 1 records for predictions within 0\.5 s"):
        await producer.send_all([Outgoing("predictions", b"x", b"k")])
    await producer.stop()
