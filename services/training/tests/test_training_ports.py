"""Each port's adapter and its stand-in, under the same tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from tailrace_contracts.ranges import Log, LogRange, LogRanges
from tailrace_runtime.errors import ObjectMissing, RangeUnavailable
from tailrace_runtime.objects import ObjectStore
from tailrace_runtime.producer import Producer
from tailrace_runtime.records import Record, outgoing
from tailrace_runtime.settings import ServiceSettings
from tailrace_runtime.topics import create_all
from tailrace_testing.broker import Broker
from tailrace_training.adapters.kafka_examples import KafkaExampleLogs
from tailrace_training.adapters.stored import StoredRunFiles
from tailrace_training.ports import Artefacts, ExampleLogs, RunFiles
from tailrace_training.testing import ListedLogs, MemoryArtefacts, MemoryRunFiles, labelled, on_log

TOPIC = "labelled-examples"


@pytest.fixture(params=["stored", "in memory"])
def files(request: pytest.FixtureRequest, tmp_path: Path) -> RunFiles:
    """Run files, real and stand-in."""
    return StoredRunFiles(ObjectStore.from_url(tmp_path.as_uri())) if request.param == "stored" else MemoryRunFiles()


async def test_run_files_are_kept_apart_by_run(files: RunFiles) -> None:
    """One run would go on from the checkpoint of another; a run id could reach other objects."""
    for run_id in ("a", "a/../b", "..", "ä b"):
        assert await files.read(run_id, "plan.json") is None
        await files.write(run_id, "plan.json", run_id.encode())
    await files.write("a", "plan.json", b"newer")
    assert await files.read("a", "plan.json") == b"newer"
    assert await files.read("a/../b", "plan.json") == b"a/../b"
    assert await files.read("..", "plan.json") == b".."


async def test_run_files_can_be_removed_twice(files: RunFiles) -> None:
    """A request that comes again would fail because its checkpoint has gone already."""
    await files.write("a", "checkpoint", b"weights")
    await files.remove("a", "checkpoint")
    await files.remove("a", "checkpoint")
    assert await files.read("a", "checkpoint") is None


@pytest.fixture(params=["stored", "in memory"])
def artefacts(request: pytest.FixtureRequest, tmp_path: Path) -> Artefacts:
    """Artefacts, real and stand-in."""
    return ObjectStore.from_url(tmp_path.as_uri()) if request.param == "stored" else MemoryArtefacts()


async def test_artefacts_come_back_until_they_are_deleted(artefacts: Artefacts) -> None:
    """A learner could not resume; or superseded artefacts would stay for ever."""
    claim = await artefacts.put_artefact(b"state", "application/vnd.tailrace.river")
    assert await artefacts.get_artefact(claim) == b"state"
    await artefacts.delete(claim.key)
    await artefacts.delete(claim.key)
    with pytest.raises(ObjectMissing):
        await artefacts.get_artefact(claim)


@pytest.fixture(params=["kafka", "listed"])
async def logs(request: pytest.FixtureRequest, tmp_path: Path) -> ExampleLogs:
    """Five examples on partition 1, on the broker and listed."""
    examples = [labelled("rain", i, {"humidity": 1.0}, 1) for i in range(5)]
    if request.param == "listed":
        return ListedLogs([on_log(each, i, partition=1) for i, each in enumerate(examples)])
    broker: Broker = request.getfixturevalue("kafka")
    settings = ServiceSettings(kafka_bootstrap=broker.bootstrap, topic_prefix=broker.unique("logs") + "-")
    await create_all(settings, [TOPIC])
    producer = Producer(settings)
    await producer.start()
    await producer.send_all([outgoing(each, TOPIC, "rain", partition=1) for each in examples])
    await producer.stop()
    return KafkaExampleLogs(settings, ObjectStore.from_url(tmp_path.as_uri()), TOPIC)


def part(first: int, last: int) -> LogRanges:
    """Offsets of partition 1."""
    return LogRanges.of(LogRange(topic=TOPIC, partition=1, from_offset=first, through_offset=last))


async def whole(logs: ExampleLogs, ranges: LogRanges) -> list[Record]:
    """All records of the ranges."""
    return [record async for batch in logs.read(ranges) for record in batch]


async def test_logs_say_how_far_they_go(logs: ExampleLogs) -> None:
    """`tailrace train` would not find the newest examples."""
    assert (await logs.bounds())[Log(TOPIC, 1)] == (0, 5)


async def test_logs_give_exactly_what_a_range_names(logs: ExampleLogs) -> None:
    """A training would see more or less than its lineage says."""
    found = await whole(logs, part(1, 3))
    assert [(each.offset, each.key) for each in found] == [(1, b"rain"), (2, b"rain"), (3, b"rain")]


async def test_logs_refuse_a_range_beyond_their_end(logs: ExampleLogs) -> None:
    """A training would silently see less than its lineage says."""
    with pytest.raises(RangeUnavailable, match="beyond the log"):
        await whole(logs, part(3, 9))
