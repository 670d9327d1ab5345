"""Processes that are killed at bad moments, and processes that share a role: nothing is lost, nothing counts twice."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tailrace_contracts.events import ExampleLabelled, PartialSummarised, WindowSummarised
from tailrace_ingestion.settings import IngestionSettings
from tailrace_ingestion.testing import START, Deployment, applied, label, prediction
from tailrace_runtime.ids import new_id
from tailrace_runtime.records import Record, outgoing
from tailrace_runtime.topics import create_all
from tailrace_testing import OwnBroker, ServiceProcess, environment_of, eventually

WORKER = Path(__file__).with_name("ingestion_worker.py")


class Worker(ServiceProcess):
    """A process of the service, started."""

    def __init__(self, settings: IngestionSettings, roles: str, instance: str, **environment: str) -> None:
        log = Path(settings.state_dir).with_name(f"{instance}-{new_id()}.log")
        given = {**environment_of(settings), "TAILRACE_ROLES": roles, "TAILRACE_INSTANCE": instance, **environment}
        super().__init__(f"ingestion-{instance}", [WORKER], log, **given)
        self.start()


Workers = Callable[..., Worker]


@pytest.fixture
def worker(deployment: Deployment) -> Iterator[Workers]:
    """Starts processes of the service with some roles; ends them all with the test."""
    started: list[Worker] = []

    def start(roles: str, instance: str = "0", **environment: str) -> Worker:
        started.append(Worker(deployment.settings, roles, instance, **environment))
        return started[-1]

    yield start
    for each in started:
        each.kill()


def once(records: list[Record]) -> list[bytes | None]:
    """The keys of forwarded records as a reader takes them: by partition, each trigger once."""
    marks: dict[int, int] = {}
    keys = []
    for record in records:
        trigger = int(record.header("trigger-offset") or b"-1")
        if trigger > marks.get(record.partition, -1):
            marks[record.partition] = trigger
            keys.append(record.key)
    return keys


async def newest_partials(deployment: Deployment) -> list[PartialSummarised]:
    """The newest partial of each source, window and part."""
    newest = {record.key: record.value for record in await deployment.records("window-partials")}
    return [PartialSummarised.model_validate_json(value or b"") for value in newest.values()]


async def events_folded(deployment: Deployment) -> int:
    """How many events the newest partials of all windows count."""
    return sum(each.events for each in await newest_partials(deployment))


async def test_validate_killed_after_effect_before_commit(deployment: Deployment, worker: Workers) -> None:
    """Events would be lost by a crash, or counted twice in their windows."""
    first = worker("validate", COMMIT_SECONDS="600")
    await eventually(first.ready, seconds=40)
    await deployment.publish(*(prediction(n, days=n / 20) for n in range(300)))

    async def folded() -> bool:
        return await events_folded(deployment) >= 300

    await eventually(folded, seconds=60)
    first.kill()
    await deployment.publish(*(prediction(n, days=n / 20) for n in range(300, 500)))
    worker("validate")

    async def everything() -> bool:
        return len(once(await deployment.records("predictions"))) >= 500 and await events_folded(deployment) >= 500

    await eventually(everything, seconds=60)
    forwarded = await deployment.records("predictions")
    assert len(forwarded) == 800
    assert sorted(once(forwarded), key=lambda key: int((key or b"")[1:])) == [b"p%d" % n for n in range(500)]
    assert await events_folded(deployment) == 500
    assert {partial.late for partial in await newest_partials(deployment)} == {0}


@pytest.mark.parametrize("state", ["kept", "lost"])
async def test_join_killed_after_effect_before_commit(deployment: Deployment, worker: Workers, state: str) -> None:
    """An example would be lost by a crash, or come again in a way that readers cannot tell."""
    first = worker("validate,join", COMMIT_SECONDS="600")
    await eventually(first.ready, seconds=40)
    await deployment.publish(*(prediction(n, days=n % 30) for n in range(200)))
    await deployment.publish(*(label(n, days=n % 30 + 1) for n in range(100)))

    async def some() -> bool:
        return len(await deployment.records("labelled-examples")) >= 100

    await eventually(some, seconds=60)
    first.kill()
    second = worker("validate,join", instance="0" if state == "kept" else "1")
    await deployment.publish(*(label(n, days=n % 30 + 1) for n in range(100, 200)))

    async def everything() -> bool:
        return len({each.prediction_id for each in await examples(deployment)}) >= 200

    await eventually(everything, seconds=60)

    async def counted() -> bool:
        return await second.metric('tailrace_join_records{model="rain",outcome="joined"') == 200

    await eventually(counted, seconds=60)
    found = await examples(deployment)
    assert {each.label_revision for each in found} == {0}
    assert len(found) == (200 if state == "kept" else 300)
    assert await second.metric('tailrace_join_records{model="rain",outcome="duplicate_labels"') == 0


async def examples(deployment: Deployment) -> list[ExampleLabelled]:
    """Every labelled example on the topic."""
    return [each for each in await deployment.events("labelled-examples") if isinstance(each, ExampleLabelled)]


@pytest.mark.timeout(500)
async def test_two_processes_share_the_work_and_one_is_killed_under_load(
    deployment: Deployment, worker: Workers
) -> None:
    """Scaling a role would not spread its work, or the loss of one process would lose events, labels or statistics."""
    roles = "validate,aggregate,join"
    first, second = worker(roles, "0"), worker(roles, "1")

    async def shared() -> bool:
        assigned = [
            await each.metric(f'tailrace_partitions_assigned{{role="{role}"')
            for each in (first, second)
            for role in ("validate", "join")
        ]
        return assigned == [4.0] * 4

    await eventually(shared, seconds=120)
    total = 0
    for step in range(30):
        numbers = range(total, total + 40)
        await deployment.publish(*(prediction(n, days=n / 20) for n in numbers))
        await deployment.publish(*(label(n, days=n / 20 + 1) for n in numbers))
        total += 40
        if step == 12:
            second.kill()
        await asyncio.sleep(0.05)

    async def everything() -> bool:
        return len({each.prediction_id for each in await examples(deployment)}) == total

    await eventually(everything, seconds=120)

    async def folded() -> bool:
        return await events_folded(deployment) == total

    await eventually(folded, seconds=120)
    assert len(once(await deployment.records("predictions"))) == total
    assert {(each.prediction_id, each.label_revision) for each in await examples(deployment)} == {
        (f"p{n}", 0) for n in range(total)
    }

    async def closed() -> bool:
        windows = [each for each in await deployment.events("feature-statistics") if isinstance(each, WindowSummarised)]
        last = {(each.window.start - START).days: each.events for each in windows if each.closed}
        return {day: last.get(day) for day in (0, 10, 20, 30)} == dict.fromkeys((0, 10, 20, 30), 200)

    await eventually(closed, seconds=120)


async def test_a_process_that_is_told_to_stop_stops(deployment: Deployment, worker: Workers) -> None:
    """A rolling update would hang, or end in a kill."""
    process = worker("")
    await eventually(process.ready, seconds=40)
    await deployment.publish(*(prediction(n) for n in range(20)))

    async def forwarded() -> bool:
        return len(await deployment.records("predictions")) == 20

    await eventually(forwarded, seconds=60)
    code, written = await process.told_to_stop(), process.written()
    assert (code, "Traceback" in written) == (0, False), written


async def test_a_process_stops_although_the_broker_is_gone(
    broker_of_its_own: Callable[[], OwnBroker], tmp_path: Path
) -> None:
    """An outage of Kafka would leave processes behind that nothing but a kill ends."""
    broker = broker_of_its_own()
    settings = IngestionSettings(
        kafka_bootstrap=broker.bootstrap, object_store=(tmp_path / "objects").as_uri(), state_dir=tmp_path / "state"
    )
    await create_all(settings)
    process = Worker(settings, "", "0")
    try:
        await eventually(process.ready, seconds=60)
        broker.kill()
        code = await process.told_to_stop(60)
    finally:
        process.kill()
    assert code == 0


async def test_a_broker_that_goes_away_and_returns_is_waited_for(
    broker_of_its_own: Callable[[], OwnBroker], tmp_path: Path
) -> None:
    """After a restart of Kafka, events would be lost, or statistics and joins stand still."""
    broker = broker_of_its_own()
    settings = IngestionSettings(
        kafka_bootstrap=broker.bootstrap,
        object_store=(tmp_path / "objects").as_uri(),
        state_dir=tmp_path / "state",
        partial_seconds=0.2,
        window_seconds=0.2,
    )
    await create_all(settings)
    deployment = Deployment(settings)
    await deployment.producer.start()
    await deployment.send(outgoing(applied(), "model-specs", "rain"))
    process = Worker(settings, "", "0")
    try:
        for numbers in (range(20), range(20, 40)):
            await eventually(process.ready, seconds=60)
            await deployment.publish(*(prediction(n, days=1) for n in numbers), *(label(n, days=2) for n in numbers))
            total = numbers.stop

            async def done(total: int = total) -> bool:
                statistics = await deployment.events("feature-statistics")
                counted = max((each.events for each in statistics if isinstance(each, WindowSummarised)), default=0)
                return (len(await examples(deployment)), counted) == (total, total)

            await eventually(done, seconds=60)
            if total == 20:
                broker.kill()
                broker.start()
    finally:
        process.kill()
        await deployment.producer.stop()
