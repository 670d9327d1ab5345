"""Processes that are killed, stopped and started again, on a real broker: nothing is lost."""

from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Self

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from tailrace_runtime.producer import Producer
from tailrace_runtime.records import Outgoing
from tailrace_runtime.settings import ServiceSettings
from tailrace_testing import ServiceProcess, environment_of, eventually

Deployment = Callable[..., Awaitable[ServiceSettings]]
WORKER = Path(__file__).with_name("forwarding_worker.py")


class Worker(ServiceProcess):
    """One process of the worker service, started."""

    def __init__(self, settings: ServiceSettings, instance: str, log: Path, **environment: str) -> None:
        given = {**environment_of(settings), "TAILRACE_INSTANCE": instance, **environment}
        super().__init__(f"worker-{instance}", [WORKER], log, **given)
        self.start()

    async def assigned(self) -> int:
        """How many partitions it reads."""
        return int(await self.metric("tailrace_partitions_assigned{"))


Workers = Callable[..., Worker]


@pytest.fixture
def worker(settings: ServiceSettings, tmp_path: Path) -> Iterator[Workers]:
    """Starts workers of this test's deployment; ends them all with the test."""
    started: list[Worker] = []

    def start(instance: str = "0", **environment: str) -> Worker:
        started.append(Worker(settings, instance, tmp_path / f"worker-{len(started)}.log", **environment))
        return started[-1]

    yield start
    for each in started:
        each.kill()


class Forwarded:
    """Follows `labels` and remembers what arrived, in order, by partition and source offset."""

    def __init__(self, settings: ServiceSettings) -> None:
        self._settings = settings
        self.values: list[str] = []
        self.once: list[str] = []
        self._marks: dict[int, int] = {}

    async def __aenter__(self) -> Self:
        """Start to read."""
        self._consumer = AIOKafkaConsumer(
            bootstrap_servers=self._settings.kafka_bootstrap, auto_offset_reset="earliest"
        )
        await self._consumer.start()
        self._consumer.assign([TopicPartition(self._settings.topic("labels"), number) for number in range(4)])
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop reading."""
        await self._consumer.stop()

    async def count(self) -> int:
        """How many different sources have arrived by now."""
        for batch in (await self._consumer.getmany(timeout_ms=200)).values():
            for record in batch:
                self.values.append(record.value.decode())
                source = int(dict(record.headers)["trigger-offset"])
                if source > self._marks.get(record.partition, -1):
                    self._marks[record.partition] = source
                    self.once.append(record.value.decode())
        return len(self.once)


async def publish(settings: ServiceSettings, numbers: range) -> None:
    """Publish these numbers on `predictions`."""
    producer = Producer(settings)
    await producer.start()
    await producer.send_all(
        [Outgoing("predictions", str(number).encode(), f"k{number}".encode()) for number in numbers]
    )
    await producer.stop()


async def test_killed_after_effect_before_commit(deployment: Deployment, worker: Workers) -> None:
    """A killed service would lose events, or its readers could not tell a repetition from a new fact."""
    settings = await deployment("predictions", "labels")
    await publish(settings, range(300))
    async with Forwarded(settings) as forwarded:
        first = worker(COMMIT_SECONDS="600")

        async def some() -> bool:
            return await forwarded.count() >= 100

        await eventually(some)
        first.kill()
        before = len(forwarded.values)
        worker()

        async def everything_again() -> bool:
            return await forwarded.count() >= 300 and len(forwarded.values) >= 300 + before

        await eventually(everything_again, seconds=40)
    assert sorted(map(int, forwarded.once)) == list(range(300))


async def test_two_members_share_a_role_and_one_is_killed_under_load(deployment: Deployment, worker: Workers) -> None:
    """Scaling a role would not spread its work, or the loss of one process would lose events."""
    settings = await deployment("predictions", "labels")
    first, second = worker("0"), worker("1")

    async def shared() -> bool:
        return (await first.assigned(), await second.assigned()) == (2, 2)

    await eventually(shared, seconds=40)
    producer = Producer(settings)
    await producer.start()
    total = 0
    async with Forwarded(settings) as forwarded:
        for step in range(40):
            numbers = range(total, total + 50)
            await producer.send_all(
                [Outgoing("predictions", str(number).encode(), f"k{number}".encode()) for number in numbers]
            )
            total += 50
            await forwarded.count()
            if step == 20:
                second.kill()

        async def everything() -> bool:
            return await forwarded.count() >= total

        await eventually(everything, seconds=60)
        assert sorted(map(int, forwarded.once)) == list(range(total))
    await producer.stop()
    assert await first.assigned() == 4


async def test_a_stop_is_orderly_and_commits(deployment: Deployment, worker: Workers) -> None:
    """Every rolling upgrade would repeat work, or take until the kill."""
    settings = await deployment("predictions", "labels")
    await publish(settings, range(100))
    async with Forwarded(settings) as forwarded:
        first = worker(COMMIT_SECONDS="600")

        async def everything() -> bool:
            return await forwarded.count() >= 100

        await eventually(everything)
        assert await first.told_to_stop(20) == 0, first.written()
        await publish(settings, range(100, 110))
        worker()

        async def the_rest() -> bool:
            return await forwarded.count() >= 110

        await eventually(the_rest, seconds=40)
        assert len(forwarded.values) == 110


async def test_a_stop_comes_to_its_end_whatever_a_library_leaves_behind(
    deployment: Deployment, worker: Workers
) -> None:
    """A process whose last task swallows its cancellation would stay for ever, and hold its disk and its port."""
    settings = await deployment("predictions", "labels")
    await publish(settings, range(3))
    async with Forwarded(settings) as forwarded:
        first = worker(STUBBORN="1")

        async def everything() -> bool:
            return await forwarded.count() >= 3

        await eventually(everything)
    assert await first.told_to_stop(60) == 0, first.written()


async def test_a_bug_in_a_handler_ends_the_process_and_a_fixed_one_goes_on(
    deployment: Deployment, worker: Workers
) -> None:
    """An event that a broken version fails on would be skipped in silence."""
    settings = await deployment("predictions", "labels")
    await publish(settings, range(20))
    broken = worker(FAIL_ON="13")
    assert await broken.end(40) == 1
    assert "ZeroDivisionError" in broken.written()
    assert "predictions[" in broken.written().splitlines()[-1]
    async with Forwarded(settings) as forwarded:
        worker()

        async def everything() -> bool:
            return await forwarded.count() >= 20

        await eventually(everything, seconds=40)
        assert sorted(map(int, forwarded.once)) == list(range(20))


async def test_two_processes_under_one_instance_name_are_told_so(deployment: Deployment, worker: Workers) -> None:
    """Two processes would take each other's partitions for ever, and nobody would know why."""
    await deployment("predictions", "labels")
    both = [worker("same"), worker("same")]

    async def one_ended() -> bool:
        return any(each.ended is not None for each in both)

    await eventually(one_ended, seconds=60)
    ended = next(each for each in both if each.ended is not None)
    assert ended.ended == 1
    assert "give every process of a role its own TAILRACE_INSTANCE" in ended.written().splitlines()[-1]
