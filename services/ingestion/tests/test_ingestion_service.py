"""The service on a real broker: from public topics to examples, statistics, dead letters and archive."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from tailrace_contracts.events import EventParked, ExampleLabelled, WindowSummarised
from tailrace_contracts.ranges import LogRange, LogRanges
from tailrace_ingestion import app
from tailrace_ingestion.main import HTTP_IN, TOPICS_IN
from tailrace_ingestion.settings import IngestionSettings
from tailrace_ingestion.testing import START, Deployment, applied, label, prediction
from tailrace_runtime.archive import archived_run
from tailrace_runtime.errors import RangeUnavailable
from tailrace_runtime.log import read_ranges
from tailrace_runtime.objects import ObjectStore
from tailrace_runtime.records import Outgoing, Record, outgoing
from tailrace_runtime.service import Service, ServiceFailed
from tailrace_runtime.topics import create_all
from tailrace_testing import OwnBroker, eventually

Running = Callable[..., AbstractAsyncContextManager[Service]]


@pytest.fixture
def running(deployment: Deployment) -> Running:
    """Runs the service, with some of its roles, while a block runs."""
    return running_on(deployment)


def running_on(deployment: Deployment) -> Running:
    """Runs the service on this deployment."""

    @asynccontextmanager
    async def run(*roles: str, **changes: Any) -> AsyncIterator[Service]:
        stop = asyncio.Event()
        settings = deployment.settings.model_copy(update={"roles": roles} | changes)
        service = app.create_service(HTTP_IN, TOPICS_IN, settings)
        task = asyncio.create_task(service.run(stop))
        try:
            await eventually(lambda: service.health.readiness()[0] or task.done(), seconds=40)
            yield service
        finally:
            stop.set()
            await task

    return run


def examples(events: list[Any]) -> dict[str, list[tuple[float, int]]]:
    """Label and revision of each example, by prediction id."""
    found: dict[str, list[tuple[float, int]]] = {}
    for event in events:
        assert isinstance(event, ExampleLabelled)
        found.setdefault(event.prediction_id, []).append((event.label, event.label_revision))
    return found


async def test_every_event_is_accounted_for(deployment: Deployment, running: Running) -> None:
    """The counts that people rely on would not add up: published is valid plus dead-lettered, joined is labelled."""
    bad = [
        Outgoing("prediction-events", b"{", b"b0"),
        Outgoing("prediction-events", prediction(901, model="snow").encode(), b"p901"),
        Outgoing("prediction-events", prediction(902, features={"wind": 1}).encode(), b"p902"),
        Outgoing("prediction-events", prediction(903, days=3650).encode(), b"p903"),
        Outgoing("label-events", label(904, 5).encode(), b"p904"),
        Outgoing("prediction-events", prediction(905).encode().replace(b"1000.5", b"NaN"), b"p905"),
    ]
    async with running() as service:
        await deployment.publish(*(prediction(n) for n in range(40)))
        await deployment.send(*bad)
        await deployment.publish(prediction(3), label(999, days=5), *(label(n) for n in range(30)), label(7))
        await deployment.publish(label(41), prediction(41))

        async def joined() -> bool:
            return len(await deployment.records("labelled-examples")) >= 31

        async def corrected() -> bool:
            return len(await deployment.records("labelled-examples")) >= 32

        await eventually(joined, seconds=60)
        await deployment.publish(label(8, 0))
        await eventually(corrected, seconds=60)
        forwarded = await deployment.records("predictions")
        letters = await deployment.events("dead-letters")
        found = examples(await deployment.events("labelled-examples"))
        expected = {"duplicate_predictions": 1, "duplicate_labels": 1, "corrections": 1, "waiting_labels": 1}

        def counted() -> bool:
            value = service.metrics.value
            return {name: value("tailrace_join_records", model="rain", outcome=name) for name in expected} == expected

        await eventually(counted)
    assert len(forwarded) == 42
    assert all(int(record.header("trigger-offset") or b"-1") >= 0 for record in forwarded)
    codes = Counter(each.code for each in letters if isinstance(each, EventParked))
    assert codes == {
        "broken-json": 1,
        "unknown-model": 1,
        "missing-feature": 1,
        "time-out-of-range": 1,
        "unknown-class": 1,
        "not-finite": 1,
    }
    assert found == {f"p{n}": [(1, 0)] for n in (*range(30), 41)} | {"p8": [(1, 0), (0, 1)]}


async def test_windows_close_with_exact_counts(deployment: Deployment, running: Running) -> None:
    """Drift would be measured on windows that miss events or count some twice."""
    async with running("validate", "aggregate"):
        for first in range(0, 120, 20):
            await deployment.publish(*(prediction(n, days=n / 2) for n in range(first, first + 20)))

        async def closed() -> dict[int, WindowSummarised]:
            found = [
                each for each in await deployment.events("feature-statistics") if isinstance(each, WindowSummarised)
            ]
            last = {(each.window.start - START).days: each for each in found if each.closed}
            return last if last.keys() >= {0, 10, 20, 30} and sum(w.events for w in last.values()) >= 80 else {}

        windows = await eventually(closed, seconds=60)
    assert [windows[day].events for day in (0, 10, 20, 30)] == [20, 20, 20, 20]
    wind = windows[10].columns["wind"]
    assert (wind.type, wind.count) == ("numerical", 20)
    assert {each.topic for each in windows[10].derived_from} == {"prediction-events"}
    assert len(windows[10].derived_from) >= 20


async def test_a_stray_record_among_partials_is_parked(deployment: Deployment, running: Running) -> None:
    """One record that is no partial would stop all statistics, or vanish."""
    async with running("validate", "aggregate"):
        await deployment.send(Outgoing("window-partials", b"{}", b"x", partition=0))
        await deployment.publish(prediction(1))

        async def both() -> bool:
            return bool(await deployment.records("dead-letters")) and bool(
                await deployment.records("feature-statistics")
            )

        await eventually(both, seconds=60)
        (letter,) = await deployment.events("dead-letters")
    assert isinstance(letter, EventParked)
    assert (letter.code, letter.role, letter.topic) == ("not-an-event", "aggregate", "window-partials")


async def test_an_error_in_the_aggregation_ends_the_service(deployment: Deployment) -> None:
    """Statistics would stop in silence while the process looks alive."""
    broken = {**TOPICS_IN, "aggregate": {"window-partials": _fails}}
    service = app.create_service(
        HTTP_IN, broken, deployment.settings.model_copy(update={"roles": ("validate", "aggregate")})
    )
    task = asyncio.create_task(service.run(asyncio.Event()))
    await deployment.publish(prediction(1))
    with pytest.raises(ServiceFailed, match=r"aggregate failed: role aggregate stopped.*a bug"):
        await asyncio.wait_for(task, 60)


def _fails(*_: object) -> None:
    raise ZeroDivisionError("a bug")


async def test_the_archive_gives_log_ranges_back(deployment: Deployment, running: Running) -> None:
    """A training set could not be read again after Kafka has forgotten it, or not as it was."""
    objects = ObjectStore.from_url(deployment.settings.object_store)
    async with running("validate", "archive", archive_seconds=0.2, archive_merge_files=2) as service:
        for wave in range(3):
            await deployment.publish(*(prediction(n) for n in range(wave * 40, wave * 40 + 40)))
            await eventually(partial(archived, objects, wave * 40 + 40))
        await eventually(lambda: service.metrics.value("tailrace_archive_merged_total", topic="predictions") >= 2)
    before = await deployment.records("predictions")
    assert all(record.headers for record in before)
    whole = LogRanges.of_offsets((record.log, record.offset) for record in before)
    for ends in ({each.partition: part(each) for each in whole} for part in (_half, _all)):
        await forget(deployment.settings, ends)
        assert await begins(deployment.settings, ends) == ends
        assert await read(deployment.settings, whole, objects) == before
    with pytest.raises(RangeUnavailable, match="no longer on Kafka"):
        await read(deployment.settings, whole, ObjectStore.from_url("memory:///"))


def _half(whole: LogRange) -> int:
    return whole.through_offset // 2


def _all(whole: LogRange) -> int:
    return whole.through_offset + 1


@pytest.mark.timeout(400)
async def test_the_archive_gives_back_what_kafka_has_deleted_from_its_disk(
    broker_of_its_own: Callable[[], OwnBroker], tmp_path: Path
) -> None:
    """The archive would be read back only as long as Kafka still has the files."""
    broker = broker_of_its_own()
    settings = IngestionSettings(
        kafka_bootstrap=broker.bootstrap,
        object_store=(tmp_path / "objects").as_uri(),
        state_dir=tmp_path / "state",
        archive_seconds=0.2,
        port=0,
    )
    await create_all(settings)
    await configure(settings, {"segment.ms": "1", "file.delete.delay.ms": "0"})
    deployment, objects = Deployment(settings), ObjectStore.from_url(settings.object_store)
    await deployment.producer.start()
    await deployment.send(outgoing(applied(), "model-specs", "rain"))
    async with running_on(deployment)("validate", "archive"):
        for wave in range(3):
            await deployment.publish(*(prediction(n) for n in range(wave * 40, wave * 40 + 40)))
            await eventually(partial(archived, objects, wave * 40 + 40), seconds=60)
    await deployment.producer.stop()
    before = await deployment.records("predictions")
    whole = LogRanges.of_offsets((record.log, record.offset) for record in before)
    segments = [broker.kafka.folder / "data" / f"predictions-{each.partition}" / f"{0:020}.log" for each in whole]
    assert all(segment.stat().st_size for segment in segments)
    await forget(settings, {each.partition: _all(each) for each in whole})
    broker.stop()
    broker.start()  # Kafka looks for segments to delete half a minute after its start, and every five minutes
    await eventually(lambda: not any(segment.exists() for segment in segments), seconds=200)
    assert await begins(settings, {each.partition for each in whole}) == {each.partition: _all(each) for each in whole}
    assert await read(settings, whole, objects) == before


async def archived(objects: ObjectStore, records: int) -> bool:
    """Whether the archive has so many records of `predictions`."""
    runs = [run for key in await objects.list("archive/predictions") if (run := archived_run(key))]
    offsets = {(each.partition, at) for each in runs for at in range(each.from_offset, each.through_offset + 1)}
    return len(offsets) >= records


async def configure(settings: IngestionSettings, changes: dict[str, str]) -> None:
    """Change the settings of the topic `predictions`."""
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka_bootstrap)
    await admin.start()
    await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, settings.topic("predictions"), changes)])
    await admin.close()


async def begins(settings: IngestionSettings, partitions: Iterable[int]) -> dict[int, int]:
    """Where each partition of `predictions` begins on Kafka now."""
    logs = [TopicPartition(settings.topic("predictions"), each) for each in partitions]
    async with AIOKafkaConsumer(bootstrap_servers=settings.kafka_bootstrap) as consumer:
        return {log.partition: offset for log, offset in (await consumer.beginning_offsets(logs)).items()}


async def read(settings: IngestionSettings, ranges: LogRanges, objects: ObjectStore) -> list[Record]:
    """Everything in these ranges."""
    return [record async for batch in read_ranges(settings, ranges, objects) for record in batch]


async def forget(settings: IngestionSettings, before: Mapping[int, int]) -> None:
    """Let Kafka delete `predictions` before these offsets, as retention would."""
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka_bootstrap)
    await admin.start()
    topic = settings.topic("predictions")
    await admin.delete_records(
        {TopicPartition(topic, each): RecordsToDelete(before_offset=offset) for each, offset in before.items()}
    )
    await admin.close()


async def test_the_gateway_publishes_to_the_broker(deployment: Deployment, running: Running) -> None:
    """Events over HTTP would not reach the same topics as those over Kafka."""
    async with running("gateway") as service, httpx.AsyncClient(base_url=f"http://127.0.0.1:{service.port}") as client:
        documents = [json.loads(prediction(n).encode()) for n in range(3)]
        answer = await client.post("/v1/predictions", json={"events": documents})
        assert (answer.status_code, answer.json()) == (202, {"accepted": 3})
    assert {record.key for record in await deployment.records("prediction-events")} == {b"p0", b"p1", b"p2"}


LABEL = b'{"prediction_id":"p1","model":"rain","time":"2024-01-09T00:00:00Z","label":1}'
HEAD = b"POST /v1/labels HTTP/1.1\r\nhost: gateway\r\ncontent-type: application/json\r\n"
RUDE = {
    "a body that never ends": (HEAD + b"content-length: 400\r\n\r\n" + LABEL, b"408"),
    "chunks that never end": (HEAD + b"transfer-encoding: chunked\r\n\r\n4\r\n    \r\n", b"408"),
    "a body longer than announced": (HEAD + b"content-length: 5\r\n\r\n" + LABEL, b"4"),
    "an announced body over the limit": (HEAD + b"content-length: 99999999\r\n\r\n", b"413"),
    "chunks over the limit": (
        HEAD + b"transfer-encoding: chunked\r\n\r\n" + b"400\r\n" + b" " * 1024 + b"\r\n" + b"400\r\n" + b" " * 1024,
        b"413",
    ),
    "no length at all": (HEAD + b"content-length: many\r\n\r\n", b"400"),
    "both ways of saying the length": (
        HEAD + b"content-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"4",
    ),
}


@pytest.mark.parametrize("case", RUDE)
async def test_a_rude_client_gets_an_answer_and_no_more(running: Running, case: str) -> None:
    """Clients that lie about their bodies, or never finish them, could hold connections and memory for ever."""
    sent, status = RUDE[case]
    async with running("gateway", body_seconds=0.3, max_body_bytes=1500) as service:
        reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
        writer.write(sent)
        async with asyncio.timeout(20):
            answer = await reader.readuntil(b"\r\n")
        writer.close()
        assert answer.split(b" ")[1].startswith(status)
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{service.port}") as client:
            good = await client.post("/v1/labels", content=LABEL)
        assert good.status_code == 202
        assert service.health.readiness()[0]


async def test_without_the_gateway_role_there_is_no_gateway(running: Running) -> None:
    """A process that was meant for background work only would take events in."""
    async with running("validate") as service, httpx.AsyncClient(base_url=f"http://127.0.0.1:{service.port}") as client:
        assert (await client.post("/v1/predictions", json={})).status_code == 404
