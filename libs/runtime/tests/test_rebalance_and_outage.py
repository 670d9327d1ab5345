"""Partitions that move and brokers that go away, on a real broker: nothing is lost, and no more repeated than need be."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tailrace_contracts.events import Event
from tailrace_contracts.ranges import Log
from tailrace_runtime.consumer import ConsumerRole, Outcome, Stateless
from tailrace_runtime.errors import DeliveryFailed, PartitionStopped
from tailrace_runtime.follower import Follower
from tailrace_runtime.health import Health, installed
from tailrace_runtime.loop import ConsumeLoop
from tailrace_runtime.producer import Producer, Publisher
from tailrace_runtime.records import Outgoing, Record
from tailrace_runtime.settings import ServiceSettings
from tailrace_runtime.testing import RecordingProducer
from tailrace_runtime.topics import create_all
from tailrace_testing.broker import OwnBroker
from tailrace_testing.polling import eventually

Deployment = Callable[..., Awaitable[ServiceSettings]]


@asynccontextmanager
async def member(
    instance: str, role: ConsumerRole, settings: ServiceSettings, producer: Publisher
) -> AsyncIterator[asyncio.Task[None]]:
    """One member of the role's group, running."""
    stop = asyncio.Event()
    mine = settings.model_copy(update={"instance": instance})
    task = asyncio.create_task(ConsumeLoop(role, service="svc", settings=mine, producer=producer).run(stop))
    try:
        yield task
    finally:
        stop.set()
        await asyncio.wait((task,))


class Seen(Stateless):
    """What one member owns and has handled."""

    def __init__(self) -> None:
        self.owned: set[Log] = set()
        self.handled: list[bytes] = []
        self.in_hand = asyncio.Event()
        self.go = asyncio.Event()
        self.go.set()
        self.cancelled = False

    async def assigned(self, logs: set[Log]) -> dict[Log, int]:
        """Note them."""
        self.owned |= logs
        return {}

    async def revoked(self, logs: set[Log]) -> None:
        """Note them."""
        self.owned -= logs

    async def handle(self, records: Sequence[Record]) -> Outcome:
        """Take the batch when allowed to."""
        self.in_hand.set()
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        self.handled += [record.value or b"" for record in records]
        return Outcome()


def records(numbers: range) -> list[Outgoing]:
    """These numbers, in turn on all partitions."""
    return [Outgoing("predictions", str(number).encode(), partition=number % 4) for number in numbers]


async def published(settings: ServiceSettings, numbers: range) -> None:
    """Publish these numbers."""
    producer = Producer(settings)
    await producer.start()
    await producer.send_all(records(numbers))
    await producer.stop()


async def test_a_batch_in_hand_is_finished_and_committed_before_its_partition_moves(deployment: Deployment) -> None:
    """Each scaling step would repeat work, or lose it."""
    settings = await deployment("predictions")
    first, second, nowhere = Seen(), Seen(), RecordingProducer()
    first.go.clear()
    one = ConsumerRole("r", {"predictions": first.handle}, first, commit_seconds=600, max_records=5)
    two = ConsumerRole("r", {"predictions": second.handle}, second)
    await published(settings, range(100))
    async with member("0", one, settings, nowhere):
        await asyncio.wait_for(first.in_hand.wait(), 20)
        async with member("1", two, settings, nowhere):

            async def asked_to_give_way() -> bool:
                return await _members(settings) == 2

            await eventually(asked_to_give_way)
            first.go.set()
            await eventually(lambda: (len(first.owned), len(second.owned)) == (2, 2), seconds=40)
            await eventually(lambda: len(first.handled) + len(second.handled) >= 100)
    assert sorted(map(int, first.handled + second.handled)) == list(range(100))
    assert not first.cancelled


async def _members(settings: ServiceSettings) -> int:
    """How many members the group has, joining ones too."""
    from aiokafka.admin import AIOKafkaAdminClient

    admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka_bootstrap)
    await admin.start()
    try:
        (answer,) = await admin.describe_consumer_groups([f"{settings.topic_prefix}svc-r"])
        return len(answer.groups[0][5])
    finally:
        await admin.close()


async def test_a_batch_that_cannot_be_finished_in_time_is_cancelled_and_done_by_the_next_owner(
    deployment: Deployment,
) -> None:
    """One slow batch would keep a whole group from rebalancing, or be skipped."""
    settings = await deployment("predictions")
    first, second, nowhere = Seen(), Seen(), RecordingProducer()
    first.go.clear()
    one = ConsumerRole("r", {"predictions": first.handle}, first, revoke_seconds=0.3)
    two = ConsumerRole("r", {"predictions": second.handle}, second)
    await published(settings, range(40))
    async with member("0", one, settings, nowhere):
        await asyncio.wait_for(first.in_hand.wait(), 20)
        async with member("1", two, settings, nowhere):
            await eventually(lambda: first.cancelled, seconds=40)
            first.go.set()
            await eventually(lambda: len(first.handled) + len(second.handled) >= 40, seconds=40)
    assert sorted(map(int, first.handled + second.handled)) == list(range(40))


async def test_a_failed_delivery_is_repeated_without_handling_the_batch_again(deployment: Deployment) -> None:
    """A learner would learn a batch twice because the broker was slow."""
    settings = await deployment("predictions")
    producer, handled = RecordingProducer(), 0

    async def handle(batch: Sequence[Record]) -> Outcome:
        nonlocal handled
        handled += len(batch)
        return Outcome(emit=[Outgoing("labels", record.value, b"k") for record in batch])

    await published(settings, range(4))
    producer.fail_next(DeliveryFailed("away"))
    async with member("0", ConsumerRole("r", {"predictions": handle}), settings, producer):
        await eventually(lambda: len(producer.on("labels")) == 4)
    assert handled == 4


async def test_a_delivery_that_never_succeeds_stops_the_partition(deployment: Deployment) -> None:
    """A service would look alive while nothing leaves it."""
    settings = (await deployment("predictions")).model_copy(update={"retry_limit_seconds": 0.1})
    producer = RecordingProducer()
    producer.fail_next(DeliveryFailed("away for good"))

    async def handle(batch: Sequence[Record]) -> Outcome:
        return Outcome(emit=[Outgoing("labels", record.value, b"k") for record in batch])

    await published(settings, range(1))
    async with member("0", ConsumerRole("r", {"predictions": handle}), settings, producer) as task:
        with pytest.raises(PartitionStopped, match=r"publication after 1 attempts .* away for good"):
            await task


@pytest.mark.parametrize("how", ["stop", "kill"])
@pytest.mark.timeout(180)
async def test_a_broker_that_goes_away_and_returns_loses_nothing(
    broker_of_its_own: Callable[[], OwnBroker], tmp_path: Path, how: str
) -> None:
    """An outage of Kafka would need a restart of every service, or cost events."""
    broker = broker_of_its_own()
    settings = ServiceSettings(kafka_bootstrap=broker.bootstrap, state_dir=tmp_path, delivery_timeout_seconds=3)
    await create_all(settings, ["predictions", "labels", "model-specs"])
    arrived: list[bytes] = []
    known: list[Record] = []

    async def forward(batch: Sequence[Record]) -> Outcome:
        return Outcome(emit=[Outgoing("labels", record.value, b"k", record.partition) for record in batch])

    async def sink(batch: Sequence[Record]) -> Outcome:
        arrived.extend(record.value or b"" for record in batch)
        return Outcome()

    def follow(_event: Event | None, record: Record) -> None:
        known.append(record)

    roles = (ConsumerRole("forward", {"predictions": forward}), ConsumerRole("sink", {"labels": sink}))
    producer, follower = Producer(settings), Follower(settings, "model-specs", follow)
    with installed(Health()) as health:
        await producer.start()
        await follower.start()
        async with member("0", roles[0], settings, producer), member("0", roles[1], settings, producer):
            await producer.send_all(records(range(50)))
            await eventually(lambda: len(set(arrived)) == 50, seconds=40)
            await asyncio.to_thread(broker.stop if how == "stop" else broker.kill)
            with pytest.raises(DeliveryFailed, match="did not acknowledge"):
                await producer.send_all(records(range(50, 60)))
            assert health.live()[0]
            assert not health.readiness()[0]
            await asyncio.to_thread(broker.start)
            await producer.send_all(records(range(50, 100)))
            await eventually(lambda: len(set(arrived)) == 100, seconds=60)
            await producer.send_all([Outgoing("model-specs", None, b"rain")])
            await eventually(lambda: known, seconds=40)
            await eventually(lambda: health.readiness()[0], seconds=20)
        await follower.stop()
        await producer.stop()
